"""The report of a dataset before any run: what is in it, what ``rfbench validate`` says, and every pair to look at."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.core.errors import ItemError, RfbenchError, one_line
from bench.data.dataset import SIDES, Dataset, FolderDataset, Record
from bench.data.find import resolve_dataset
from bench.data.normalise import Normalisation
from bench.data.validate import Report as Validation
from bench.data.validate import validate
from bench.protocols.paired import Paired
from bench.reports.document import Cell, Grid, Row, Section, figures, words
from bench.reports.html.content import Entry, Line, Panel, Part, Pixels, Report, View
from bench.reports.html.runs import stretch, valid_of
from bench.reports.pictures import eight_bit

_PANELS = (
    Panel("lr", "LR", "lr"),
    Panel("up", "LR, bicubic", "up"),
    Panel("hr", "HR", "hr"),
    Panel("pan", "PAN", "pan"),
)


def dataset_report(name: str, *, title: str | None = None, max_images: int) -> Report:
    """The report of a dataset folder, or of a registered dataset.

    Images that have something said of them come first where not all can be looked at.

    Raises
    ------
    RfbenchError
        No such dataset, or one without a readable manifest.
    """
    folder = Path(name)
    dataset = FolderDataset(folder, []) if folder.is_dir() else resolve_dataset(name)
    records = dataset.all_records if isinstance(dataset, FolderDataset) else dataset.records("test")
    found = validate(dataset.folder) if isinstance(dataset, FolderDataset) else None
    said: dict[str, list[Line]] = {}
    for problem in found.problems if found else ():
        if problem.id is not None:
            line = Line(problem.severity, one_line(f"{problem.text} [{problem.check}]", 400))
            said.setdefault(problem.id, []).append(line)
    entries = [Entry(r.id, r.scene_id, r.split, lines=tuple(said.get(r.id, ()))) for r in records]
    first = sorted(range(len(records)), key=lambda i: (records[i].id not in said, i))[:max_images]
    shown = [records[i] for i in sorted(first)]
    panels = tuple(p for p in _PANELS if p.key != "pan" or any("pan" in r.files for r in records))
    label = one_line(dataset.name, 80)
    return Report(
        kind="dataset",
        title=title or f"Dataset {label}",
        about=_about(dataset, records, found)
        + ("" if len(shown) == len(records) else f"; {len(shown)} can be looked at"),
        parts=(_problems(found), _content(records, found), _sides(records)),
        panels=panels,
        rows=(),
        measures=(),
        entries=tuple(entries),
        shown=tuple(r.id for r in shown),
        views=lambda: _views(dataset, shown),
        start={"order": "said" if said else "dataset"},
    )


def _about(dataset: Dataset, records: Sequence[Record], found: Validation | None) -> str:
    words = [one_line(dataset.description, 300)] if dataset.description else []
    words.append(f"{len(records)} images of {len({r.scene_id for r in records})} scenes")
    words.append(f"licence {one_line(dataset.licence, 120) or 'not stated'}")
    fingerprint = found.fingerprint if found else dataset.fingerprint(records)
    return "; ".join([*words, f"fingerprint {fingerprint[:12]}"])


def _problems(found: Validation | None) -> Part:
    """What validation says: counts by kind, then the lines that concern the dataset as a whole."""
    if found is None:
        return Part("problems", "What validation says",
                    lead="This dataset is a program's, not a folder that could be validated.")  # fmt: skip
    counts = Counter((p.severity, p.check) for p in found.problems)
    if not counts:
        return Part("problems", "What validation says", lead="No error and no warning in any file.")
    rows = []
    for (severity, check), count in sorted(counts.items()):
        one = next(p for p in found.problems if (p.severity, p.check) == (severity, check))
        text = f"{one.id}: {one.text}" if one.id is not None else one.text
        cells = (Cell(text=severity), Cell(text=str(count), value=float(count)), Cell(text=one_line(text, 300)))
        rows.append(Row(check, cells))
    grid = Grid("what", (words("severity"), figures("lines"), words("such as")), tuple(rows))
    whole = tuple(one_line(f"{p.severity}: {p.text}", 500) for p in found.problems if p.id is None)
    lead = f"{found.count('error')} errors and {found.count('warning')} warnings in {found.files} files."
    return Part("problems", "What validation says", (Section(grid=grid, notes=whole),), lead)


def _content(records: Sequence[Record], found: Validation | None) -> Part:
    """What there is, by split."""
    titles = ("images", "scenes", "LR", "HR", "PAN", "mask", "series", "caption")
    rows = []
    for split in sorted({r.split for r in records}):
        of = [r for r in records if r.split == split]
        counts = [len(of), len({r.scene_id for r in of})]
        counts += [sum(kind in r.files for r in of) for kind in ("lr", "hr", "pan", "mask", "series")]
        counts.append(sum(bool(r.caption) for r in of))
        cells = [Cell(text=str(n), value=float(n)) for n in counts]
        known = found.splits.get(split) if found else None
        cells.append(Cell(text=str(known["fingerprint"])[:12] if known else "", is_code=True))
        rows.append(Row(split or "(none)", tuple(cells)))
    columns = (*(figures(t) for t in titles), words("fingerprint"))
    return Part("content", "What is in it", (Section(grid=Grid("split", columns, tuple(rows))),))


def _sides(records: Sequence[Record]) -> Part:
    """What is declared of each side, of the first image that has it; rows may override it."""
    facts = []
    for kind in SIDES:
        side = next((r.sides[kind] for r in records if kind in r.files and kind in r.sides), None)
        if side is not None:
            said = {f.name: getattr(side, f.name) for f in dataclasses.fields(side)}
            facts.append((kind.upper(), one_line(", ".join(f"{k} {v}" for k, v in said.items() if v is not None), 400)))
    return Part("sides", "What its numbers mean", facts=tuple(facts))


def _views(dataset: Dataset, records: Sequence[Record]) -> Iterator[View]:
    for record in records:
        yield _view(dataset, record)


def _view(dataset: Dataset, record: Record) -> View:
    """A pair as protocol ``paired`` shows it; what cannot be read has its reason, as a run would have it."""
    protocol = Paired()
    caption = one_line(record.caption, 600)
    facts = [(what, text) for what, text in (("LR of", record.lr_date), ("HR of", record.hr_date)) if text]
    try:
        task = protocol.prepare(dataset.load(record, protocol.reads))
    except RfbenchError as error:
        why = one_line(error, 300)
        return View(record.id, (1, 1), {}, dict.fromkeys(("lr", "up", "hr", "pan"), why), caption=caption,
                    facts=tuple(facts))  # fmt: skip
    from bench.core.resample import resize

    reference = task.reference
    pictures: dict[str, Pixels] = {}
    absent: dict[str, str] = {}
    try:
        lr = task.lr_display
        pictures["lr"] = eight_bit(lr)
        pictures["up"] = eight_bit(np.clip(resize(lr, task.size), 0, 1))
    except ItemError as error:
        absent |= dict.fromkeys(("lr", "up"), one_line(error, 200))
    if reference.display is not None:
        pictures["hr"] = eight_bit(reference.display)
    else:
        absent["hr"] = "no HR image" if reference.hr is None else "the HR image has no R, G, B"
    if reference.pan is not None:
        pan = reference.pan
        try:
            grey = Normalisation.parse("percentile[2,98]").fit(pan).apply(pan)
            pictures["pan"] = eight_bit(np.repeat(grey, 3, axis=2))
            facts.append(("stretch of PAN", "percentile[2,98], for looking alone"))
        except RfbenchError as error:
            absent["pan"] = one_line(error, 200)
    else:
        absent["pan"] = "no PAN image"
    return View(record.id, task.size, pictures, absent, mask=reference.mask, valid=valid_of(reference),
                caption=caption, facts=(*facts, *stretch(task)))  # fmt: skip
