"""Claimed, ours, difference, status: a paper's tables against finished runs, still data.

A difference is shown only where it means something. What the paper leaves open is an obstacle until the user declares
what is known of it; what is known to be another thing (procedural scenes, a small network) stays one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.core.errors import NotComparable, RfbenchError, one_line, unknown
from bench.records.folder import RunFolder
from bench.records.run import Run, read_run
from bench.reports.document import Cell, Row
from bench.reports.paper.paper import (
    CLAIMED,
    DATA,
    DECLARABLE,
    KERNEL,
    NORMALISATION,
    SCALE,
    WEIGHTS_OF_BASELINE,
    WEIGHTS_OF_METHOD,
    PaperRow,
    PaperTable,
    decimals,
    matters,
    method,
    plain,
    tables,
)
from bench.reports.table.build import Table, build_table

Status = Literal["reproduced", "differs", "not comparable", "not run"]
STATUSES: tuple[Status, ...] = ("reproduced", "differs", "not comparable", "not run")
_PROCEDURAL = "rfbench, procedural scenes"  # the citation in a dataset that 'rfbench data scenes' made
_NO_RUN = "no run of it is among these"


@dataclass(frozen=True)
class Measure:
    """A column: the paper's name of a metric (``lpips``) and ours (``lpips_alex``); ``identity`` is empty where no run
    has it."""

    claimed: str
    metric: str
    title: str
    identity: str


@dataclass(frozen=True)
class Line:
    """One number of the paper against one of ours.

    ``printed`` is as the paper has it; ``ours`` and ``text`` our value at full precision and as tables show it;
    ``difference`` ours minus the paper's, None unless it means something; ``tolerance`` how large it may be to count
    as reproduced: one unit of the last printed decimal. ``reasons`` are of this metric alone.
    """

    measure: Measure
    printed: str
    ours: float | None
    text: str
    difference: float | None
    tolerance: float
    status: Status
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A row of the paper with one run of it, or none: ``label`` is the run's, ``reasons`` hold for all its lines."""

    row: PaperRow
    label: str | None
    reasons: tuple[str, ...]
    lines: tuple[Line, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A table of the paper against runs of one protocol on one dataset; ``ours`` is the table of all of these, and
    ``elsewhere`` has the labels of those that are no row of the paper's."""

    table: PaperTable
    ours: Table
    measures: tuple[Measure, ...]
    entries: tuple[Entry, ...]
    elsewhere: tuple[str, ...]


@dataclass(frozen=True)
class Ledger:
    """The paper's tables that the runs belong to, and what the user declares to be as in the paper."""

    sections: tuple[Section, ...]
    declared: Mapping[str, str]


def build_ledger(
    runs: Sequence[RunFolder], metrics: Sequence[str] | None = None, declared: Mapping[str, str] | None = None
) -> Ledger:
    """Hold finished runs against the tables of the paper.

    A run stands for the row of its model's name, or of its label (case and punctuation do not count), and for a row of
    Table 3 if its label ends like a variant of ``rfbench ablate``. Table 3 is left out where no run is one of these.
    Draws 0 are compared, not means of draws.

    Parameters
    ----------
    runs : complete run folders; those of one protocol must be on the same data.
    metrics : ours to show; None for all that the paper has.
    declared : what is as in the paper though it does not say so (a name of ``DECLARABLE``), and how that is known.

    Raises
    ------
    RfbenchError
        No run, an unfinished run, an unknown metric or declaration.
    NotComparable
        A run under a protocol of no table; runs of one protocol on different data.
    """
    declared = dict(declared or {})
    for name, how in declared.items():
        if name not in DECLARABLE:
            raise unknown("thing to declare", name, DECLARABLE)
        if not how.strip():
            raise RfbenchError(f"{name}: found no word on how that is known, expected some; write --same {name}=TEXT")
    if not runs:
        raise RfbenchError("found no run, expected at least one run folder; make one with 'rfbench run'")
    found = [read_run(folder) for folder in runs]
    for run in found:
        if run.plan.protocol_name not in {t.protocol for t in tables()}:
            raise NotComparable(
                f"{run.folder.path} is of protocol {one_line(run.plan.protocol_name, 40)}, the paper's tables are of "
                f"{' and '.join(dict.fromkeys(t.protocol for t in tables()))}; leave the run out"
            )
    sections = []
    for protocol in dict.fromkeys(t.protocol for t in tables()):
        group = [run for run in found if run.plan.protocol_name == protocol]
        if group:
            sections += _sections([t for t in tables() if t.protocol == protocol], group, metrics, declared)
    return Ledger(tuple(sections), declared)


def _sections(
    of: Sequence[PaperTable], runs: Sequence[Run], metrics: Sequence[str] | None, declared: Mapping[str, str]
) -> list[Section]:
    ours = build_table([run.folder for run in runs], metrics)
    # One row of the table for each estimate of each run, in this order.
    owners = [run for run in runs for _ in run.kinds]
    draws = [(run, row) for run, row in zip(owners, ours.rows, strict=True) if row.estimate == "sample"]
    places = [_place(run, of) for run, _ in draws]
    measures = _measures(ours, every=metrics is None)
    if not measures:
        raise RfbenchError(
            f"--metrics: found none that the paper has, expected some of "
            f"{', '.join(m for c in CLAIMED.values() for m in c.metrics)}"
        )
    sections = []
    for table in of:
        if any(r.variant for r in table.rows) and not any(place in table.rows for place in places if place):
            continue
        entries: list[Entry] = []
        for row in table.rows:
            here = [draw for draw, place in zip(draws, places, strict=True) if place is row]
            entries += [_entry(table, row, run, shown, ours, measures, declared) for run, shown in here]
            if not here:
                entries.append(_unrun(row, measures))
        elsewhere = tuple(row.label for (_, row), place in zip(draws, places, strict=True) if place is None)
        sections.append(Section(table, ours, measures, tuple(entries), elsewhere))
    return sections


def _place(run: Run, of: Sequence[PaperTable]) -> PaperRow | None:
    """The row that a run stands for: an ablation's before its model's."""
    whole = run.plan.model.label
    name, label = plain(str(run.plan.model.spec.get("name", ""))), plain(whole)
    rows = [row for table in of for row in table.rows]
    if plain(method()) in (name, label):
        # The longest name first: 'caption-gate' ends in no other, but nothing should hang on that.
        for row in sorted((r for r in rows if r.variant), key=lambda r: -len(r.variant)):
            if whole.endswith(f"-{row.variant}"):
                return row
    return next((row for row in rows if not row.variant and plain(row.name) in (name, label)), None)


def _measures(ours: Table, *, every: bool) -> tuple[Measure, ...]:
    """The columns: each metric of the runs that the paper may mean, and with ``every`` the paper's that no run has."""
    present = {column.metric: column for column in ours.columns}
    measures = []
    for name, claimed in CLAIMED.items():
        here = [present[m] for m in claimed.metrics if m in present]
        measures += [Measure(name, c.metric, c.title, c.identity) for c in here]
        if every and not here:
            measures.append(Measure(name, claimed.metrics[0], claimed.title, ""))
    return tuple(measures)


def _entry(
    table: PaperTable, row: PaperRow, run: Run, shown: Row, ours: Table, measures: Sequence[Measure],
    declared: Mapping[str, str],
) -> Entry:  # fmt: skip
    reasons = _obstacles(table, row, run, declared)
    cells = dict(zip((c.metric for c in ours.columns), shown.cells, strict=True))
    lines = tuple(
        _line(row, measure, cells.get(measure.metric), ours.images, bool(reasons), declared) for measure in measures
    )
    return Entry(row, shown.label, tuple(reasons), lines, shown.facts)


def _unrun(row: PaperRow, measures: Sequence[Measure]) -> Entry:
    lines = tuple(
        Line(m, row.printed[m.claimed], None, "", None, _tolerance(row.printed[m.claimed]), "not run", ())
        for m in measures
    )
    return Entry(row, None, (_NO_RUN,), lines, {})


def _line(
    row: PaperRow, measure: Measure, cell: Cell | None, images: int, is_other: bool, declared: Mapping[str, str]
) -> Line:
    printed = row.printed[measure.claimed]
    tolerance = _tolerance(printed)
    left_open = CLAIMED[measure.claimed].left_open
    reasons = [left_open] if left_open and measure.claimed not in declared else []
    if cell is None or cell.value is None:
        missing = cell.reason if cell is not None and cell.reason else "no run here has this metric"
        status: Status = "not comparable" if is_other else "not run"
        return Line(measure, printed, None, "", None, tolerance, status, (missing, *reasons))
    if cell.n < images:
        reasons.append(f"over {cell.n} of {images} images")
    if is_other or reasons:
        return Line(measure, printed, cell.value, cell.text, None, tolerance, "not comparable", tuple(reasons))
    difference = cell.value - float(printed)
    # A hair more, since neither number is exact in binary.
    status = "reproduced" if abs(difference) <= tolerance * (1 + 1e-9) else "differs"
    return Line(measure, printed, cell.value, cell.text, difference, tolerance, status, ())


def _tolerance(printed: str) -> float:
    """One unit of the last printed decimal: half for the paper's rounding, half for libraries and devices."""
    return 10.0 ** -decimals(printed)


def _obstacles(table: PaperTable, row: PaperRow, run: Run, declared: Mapping[str, str]) -> list[str]:
    """Why no number of a run can be held against the paper's."""
    spec, protocol, unlike = run.plan.model.spec, run.plan.protocol, run.record.unlike_paper
    data = run.record.sources.get("data")
    known, left_open = [], {}
    if isinstance(data, dict) and data.get("citation") == _PROCEDURAL:
        known.append("procedural scenes, not the paper's images")
    else:
        left_open["data"] = DATA
    if unlike:
        known.append(one_line(unlike))
    else:
        left_open["weights"] = WEIGHTS_OF_METHOD if row.variant or row.name == method() else WEIGHTS_OF_BASELINE
    if run.record.seen_in_training:
        known.append("trained on some of these images")
    if spec.get("supports_prompt") and protocol.get("captions", "dataset") != "dataset":
        known.append(f"other captions than a dataset's own ({one_line(protocol['captions'], 40)})")
    left_open["normalisation"] = NORMALISATION
    if matters("kernel", table):
        left_open["kernel"] = KERNEL
    if matters("scale", table) and spec.get("scale_factors"):
        left_open["scale"] = SCALE
    return [*known, *(text for name, text in left_open.items() if name not in declared)]
