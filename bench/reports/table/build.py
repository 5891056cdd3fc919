"""From run folders to a table that is still data: values, shown texts, ranks, and a note for all that is missing.

Only ``run.json`` and ``summary.json`` are read, so a table costs no torch and no dataset.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.core import registry
from bench.core.errors import NotComparable, RfbenchError, one_line, unknown
from bench.core.files import digest
from bench.core.typed import encode
from bench.metrics.base import GROUPS
from bench.metrics.scorer import default_set
from bench.records import types as records
from bench.records.folder import RunFolder
from bench.records.run import PICTURES, Run, read_run, refuse_to_mix
from bench.records.types import MetricRecord, Software, Summary
from bench.reports.document import AS_SHOWN, Cell, Column, Footnote, Grid, Rank, Row
from bench.reports.numbers import decimals_of, shown

ABSENT = "not part of this run"

_ENOUGH_FOR_FID = 10_000  # what its authors' code advises at the least (bioinf-jku/TTUR, README)
# What may tell two runs of one model apart, and how a label says it.
_SETTINGS = {"seed": "seed {}", "draws": "{} draws", "dtype": "{}", "device": "{}", "batch_size": "batch {}"}


@dataclass(frozen=True)
class Table:
    """Runs of one protocol on one dataset.

    ``protocol`` is its label, ``protocol_options`` its identity; ``images`` counts the dataset's images of the runs;
    ``reads_captions`` says whether a model of the table reads any;
    ``notes`` are lines on settings, software and failures; ``marking`` says what best and second mean.
    """

    protocol: str
    protocol_options: Mapping[str, Any]
    dataset: str
    split: str
    fingerprint: str
    images: int
    reads_captions: bool
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[Footnote, ...] = ()
    notes: tuple[str, ...] = ()
    marking: str = AS_SHOWN

    @property
    def grid(self) -> Grid:
        """What is shown of it."""
        return Grid("model", self.columns, self.rows, self.footnotes, self.marking)


def build_table(runs: Sequence[RunFolder], metrics: Sequence[str] | None = None) -> Table:
    """One row for each run and estimate, one column for each metric.

    Columns stand in the order of the groups; inside a group the default metrics come first, in their order, the
    others follow by name (or all as ``metrics`` lists them). Ranks go by the shown texts, so numbers that look equal
    are ties and marked alike: ``best`` is the best text of a column with at least two values, ``second`` the next
    distinct text. Where some values stand for fewer images than others of the column, only those with the most images
    are ranked.

    Parameters
    ----------
    runs : complete run folders.
    metrics : the metrics to show; None for every metric of the runs.

    Raises
    ------
    RfbenchError
        No run, an unfinished run, or a metric that no run has.
    NotComparable
        Runs of different data or protocols (but for ``policy``, which labels then say), or a shown metric of different
        identities.
    """
    if not runs:
        raise RfbenchError("found no run, expected at least one run folder; make one with 'rfbench run'")
    found = [read_run(folder) for folder in runs]
    order = _order(found, metrics)
    for a, b in _to_compare(found, order):
        refuse_to_mix(a, b, order, same_policy=False)
    columns = tuple(_column(found, name) for name in order)
    first = _knowing(found).plan
    images = len(first.data.ids)
    labels = _labels(found)
    protocol = dict(first.protocol)
    if len(_policies(found)) > 1:
        protocol.pop("policy", None)  # each row says its own
    owners = [(i, run, kind) for i, run in enumerate(found) for kind in run.kinds]  # as bench.stats.pairing has them
    rows = [
        Row(
            label=one_line(run.summary.rows[kind].label, 80) + labels[i],
            estimate=kind,
            cells=tuple(_cell(run.summary.rows[kind].metrics.get(c.metric), c) for c in columns),
            facts=_facts(run),
        )
        for i, run, kind in owners
    ]
    summaries = [run.summary for _, run, _ in owners]
    rows = ranked(_numbered(rows), columns)
    rows, footnotes = annotated(rows, columns, _said(rows, columns, summaries, images))
    return Table(
        protocol=protocol_label(protocol),
        protocol_options=protocol,
        reads_captions=any(run.plan.reads_captions for run in found),
        dataset=one_line(first.data.name, 80),
        split=one_line(first.data.split, 40),
        fingerprint=one_line(first.data.fingerprint, 64),
        images=images,
        columns=columns,
        rows=tuple(rows),
        footnotes=footnotes,
        notes=(*_notes(found), *_on_fid(columns, rows)),
    )


def build_tables(
    runs: Sequence[RunFolder], metrics: Sequence[str] | None = None
) -> list[tuple[Table, list[RunFolder]]]:
    """A table for each dataset and protocol of these runs, with its runs, in the order in which they come.

    Raises as ``build_table``, but for runs of different data or protocols; a metric that is asked for must be in one.
    """
    together: dict[str, list[RunFolder]] = {}
    known: dict[str, set[str]] = {}
    for folder in runs:
        run = read_run(folder)
        key = digest([encode(run.plan.data), {**run.plan.protocol, "policy": None}])
        together.setdefault(key, []).append(folder)
        known.setdefault(key, set()).update(run.metrics)
    for name in metrics or ():
        if not any(name in names for names in known.values()):
            raise unknown("metric of these runs", name, set().union(*known.values()))
    chosen = {key: None if metrics is None else [m for m in metrics if m in names] for key, names in known.items()}
    return [(build_table(folders, chosen[key]), folders) for key, folders in together.items()]


def ranks(texts: Sequence[str], direction: str) -> list[Rank]:
    """The rank of each shown text of a column; empty texts have none, nor has a column without a direction. Equal texts
    are equal."""
    if not direction:
        return [None] * len(texts)
    values = [float(t) if t else None for t in texts]
    present = [v for v in values if v is not None]
    distinct = sorted(set(present), reverse=direction == "up")
    best = distinct[0] if len(present) >= 2 else None
    second = distinct[1] if len(distinct) >= 2 else None
    return [None if v is None else "best" if v == best else "second" if v == second else None for v in values]


def protocol_label(options: Mapping[str, Any]) -> str:
    """``NAME`` with the options that differ from the protocol's defaults, from a stored identity. All options of a
    protocol that is not installed here."""
    given = {k: v for k, v in options.items() if k != "name"}
    try:
        fields = dataclasses.fields(registry.load("protocols", options["name"]))
        given = {f.name: given[f.name] for f in fields if f.name in given and given[f.name] != f.default}
    except (RfbenchError, TypeError):
        pass
    changed = ",".join(f"{k}={v}" for k, v in given.items())
    return one_line(f"{options['name']}{':' + changed if changed else ''}", 200)


# --- runs -----------------------------------------------------------------------------------------------------


def _label(run: Run) -> str:
    return one_line(run.summary.rows[run.kinds[0]].label, 80)


def _to_compare(runs: Sequence[Run], metrics: Sequence[str]) -> Iterator[tuple[Run, Run]]:
    """Pairs of runs that are as good as all pairs: each run with the first, with the first that knows the dataset, and
    with the first of each metric, since two may share one that the first does not have."""
    firsts = {0, next((i for i, run in enumerate(runs) if run.plan.protocol_name != PICTURES), 0)}
    firsts |= {next((i for i, run in enumerate(runs) if name in run.metrics), 0) for name in metrics}
    for i, run in enumerate(runs):
        yield from ((runs[first], run) for first in sorted(firsts) if first < i)


def _knowing(runs: Sequence[Run]) -> Run:
    """A run that knows the dataset and the protocol, where one does: foreign pictures know neither."""
    return next((run for run in runs if run.plan.protocol_name != PICTURES), runs[0])


def _order(runs: Sequence[Run], asked: Sequence[str] | None) -> list[str]:
    known = dict.fromkeys(name for run in runs for name in run.metrics)
    if asked is not None:
        for name in asked:
            if name not in known:
                raise unknown("metric of these runs", name, known)
        names = list(dict.fromkeys(asked))
    else:
        names = [n for n in default_set() if n in known] + sorted(known.keys() - set(default_set()))
    if {"fid_tf", "kid_tf"} <= set(names) and asked is None:  # KID is what FID's bias is read against
        names.remove("kid_tf")
        names.insert(names.index("fid_tf") + 1, "kid_tf")
    groups: list[str] = [*GROUPS]

    def group(name: str) -> int:
        of = _recorded(runs, name).group
        return groups.index(of) if of in groups else len(groups)

    return sorted(names, key=group)


def _recorded(runs: Sequence[Run], name: str) -> MetricRecord:
    return next(r.metrics[name] for r in runs if name in r.metrics)


def _column(runs: Sequence[Run], name: str) -> Column:
    found = _recorded(runs, name)
    title, unit, direction, group = (one_line(t, 40) for t in (found.title, found.unit, found.direction, found.group))
    # What was fitted on a dataset's references is known at a run's end only, and stands with the value.
    cells = [row.metrics.get(name) for run in runs for row in run.summary.rows.values()]
    made = sorted({one_line(c.identity, 600) for c in cells if c and c.value is not None})
    if len(made) > 1:
        raise NotComparable(
            f"{name}: found values of two identities, {made[0]} and {made[1]}, expected one; leave the metric out "
            "(--metrics), or run the models again with one set of versions"
        )
    identity = made[0] if made else one_line(found.identity)
    return Column(name, title, unit, direction, group, identity, decimals_of(found))


def _facts(run: Run) -> dict[str, Any]:
    return {
        "folder": run.folder.path.resolve().name,
        "plan_sha256": run.record.plan_sha256,
        **{key: getattr(run.plan, key) for key in _SETTINGS},
        "command": run.record.command,
        "licences": run.record.licences,
        "failed": list(run.summary.failed),
        "seen_in_training": run.record.seen_in_training,
    }


def _setting(key: str, value: object) -> str:
    said = _SETTINGS[key].format(value)
    return "1 draw" if said == "1 draws" else said


def _differing(same: Sequence[Run]) -> tuple[set[str], set[str]]:
    """The settings, and the model's options, in which runs of one label differ."""
    settings = {key for key in _SETTINGS if any(getattr(r.plan, key) != getattr(same[0].plan, key) for r in same)}
    options = {key for run in same for key in run.plan.model.options}
    first = same[0].plan.model.options
    return settings, {k for k in options if any(r.plan.model.options.get(k) != first.get(k) for r in same)}


def _labels(runs: Sequence[Run]) -> list[str]:
    """What to add to each run's label: what tells it from other runs of the model, and what makes it no fair row."""
    added = []
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(_label(run), []).append(run)
    # Runs of one label are as many as somebody made of one model; what they differ in is looked for once.
    differing = {label: _differing(same) for label, same in alike.items()}
    several = len(_policies(runs)) > 1
    for run in runs:
        settings, options = differing[_label(run)]
        words = [_setting(key, getattr(run.plan, key)) for key in _SETTINGS if key in settings]
        words += [f"{key}={value}" for key, value in run.plan.model.options.items() if key in options]
        is_other = several and run.plan.protocol_name != PICTURES
        words += [f"policy={run.plan.protocol.get('policy')}"] if is_other else []
        seen = run.record.seen_in_training
        words += [f"trained on {seen} of these"] if seen else []
        added.append(f" ({one_line(', '.join(words), 80)})" if words else "")
    # Equal plans (one run on two machines, say) are told apart by their folders, if those have different names.
    whole = [(_label(run), more) for run, more in zip(runs, added, strict=True)]
    folders = [one_line(run.folder.path.resolve().name, 60) for run in runs]
    times, places = Counter(whole), Counter(zip(whole, folders, strict=True))
    return [
        f"{more} ({folder})" if times[key] > 1 and places[key, folder] == 1 else more
        for key, more, folder in zip(whole, added, folders, strict=True)
    ]


def _policies(runs: Sequence[Run]) -> set[str]:
    """How models of another scale were brought to the grid."""
    return {str(run.plan.protocol.get("policy")) for run in runs if run.plan.protocol_name != PICTURES}


def _numbered(rows: Sequence[Row]) -> list[Row]:
    """Labels that are still equal get numbers."""
    seen: dict[str, int] = {}
    numbered = []
    for row in rows:
        seen[row.label] = seen.get(row.label, 0) + 1
        again = f"{row.label} #{seen[row.label]}"
        numbered.append(row if seen[row.label] == 1 else dataclasses.replace(row, label=again))
    return numbered


# --- cells ----------------------------------------------------------------------------------------------------


def _cell(found: records.Cell | None, column: Column) -> Cell:
    if found is None:
        return Cell(None, 0, ABSENT, column.identity)
    identity = one_line(found.identity)
    if found.value is None:
        kind = found.reason.kind if found.reason else ""
        return Cell(None, found.n, one_line(found.reason or "no reason was given"), identity, kind=kind)
    return Cell(found.value, found.n, None, identity, shown(found.value, column.decimals), std=found.std)


def ranked(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """Rows with their ranks; of a column only the cells with the most images are ranked."""
    by_column = []
    for j, column in enumerate(columns):
        cells = [row.cells[j] for row in rows]
        most = max(c.n for c in cells)
        by_column.append(ranks([c.text if c.n == most else "" for c in cells], column.direction))
    return [
        dataclasses.replace(
            row, cells=tuple(dataclasses.replace(c, rank=by_column[j][i]) for j, c in enumerate(row.cells))
        )
        for i, row in enumerate(rows)
    ]


def _said(
    rows: Sequence[Row], columns: Sequence[Column], summaries: Sequence[Summary], images: int
) -> dict[tuple[int, int], str]:
    """What is to be said of cells that are empty or stand for fewer images, by row and column."""
    most = [max(row.cells[j].n for row in rows) for j in range(len(columns))]
    said = {}
    for i, (row, summary) in enumerate(zip(rows, summaries, strict=True)):
        for j, (column, cell) in enumerate(zip(columns, row.cells, strict=True)):
            text = cell.reason
            if cell.value is not None and cell.n < images:
                reasons = summary.rows[row.estimate].metrics[column.metric].reasons
                text = _incomplete(cell.n, images, most[j], len(summary.failed), reasons)
            if text is not None:
                said[i, j] = text
    return said


def annotated(
    rows: Sequence[Row], columns: Sequence[Column], said: Mapping[tuple[int, int], str]
) -> tuple[list[Row], tuple[Footnote, ...]]:
    """Rows whose cells point to footnotes; cells of which the same is said, by row and column, share one."""
    concerned: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    notes: dict[tuple[int, int], int] = {}
    for (i, j), text in said.items():
        titles, labels = concerned.setdefault(text, ({}, {}))
        titles[columns[j].title] = labels[rows[i].label] = None
        notes[i, j] = list(concerned).index(text)
    found = [
        dataclasses.replace(
            row, cells=tuple(dataclasses.replace(c, note=notes.get((i, j))) for j, c in enumerate(row.cells))
        )
        for i, row in enumerate(rows)
    ]
    footnotes = [
        Footnote(text, tuple(titles if len(titles) <= len(labels) else labels))
        for text, (titles, labels) in concerned.items()
    ]
    return found, tuple(footnotes)


def _incomplete(n: int, images: int, most: int, failed: int, reasons: Mapping[str, int]) -> str:
    parts = [f"{failed} failed"] if failed else []
    parts += [f"{count}: {one_line(reason, 160)}" for reason, count in reasons.items()]
    why = f" ({'; '.join(parts)})" if parts else ""
    return f"over {n} of {images} images{why}" + (f", not ranked beside {most}" if n < most else "")


# --- notes ----------------------------------------------------------------------------------------------------


def _notes(runs: Sequence[Run]) -> Iterable[str]:
    words = []
    for key in _SETTINGS:
        values = dict.fromkeys(str(getattr(r.plan, key)) for r in runs)
        if key != "batch_size":
            words.append(one_line(_setting(key, " or ".join(values)), 60))
    yield "; ".join(words)
    yield _software([r.record.software for r in runs])
    for run in runs:
        failed, seen = run.summary.failed, run.record.seen_in_training
        if failed:
            some = ", ".join(one_line(i, 40) for i in failed[:4]) + (", ..." if len(failed) > 4 else "")
            yield f"{_label(run)}: {len(failed)} of {run.summary.images} images failed ({some})"
        if seen:
            yield (
                f"{_label(run)}: {seen} of the {len(run.plan.data.ids)} images were among those it was "
                "trained on (--allow-train); its row says nothing about new images"
            )


def _on_fid(columns: Sequence[Column], rows: Sequence[Row]) -> Iterable[str]:
    """Of how many images a Fréchet distance is, without which it means nothing, and what lacks its bias."""
    names = [column.metric for column in columns]
    for name, said, unbiased, other in (("fid_tf", "FID", "kid_tf", "KID"), ("fd_dinov2", "FD-DINOv2", "cmmd", "CMMD")):
        if name not in names:
            continue
        counts = sorted({c.n for row in rows if (c := row.cells[names.index(name)]).value is not None})
        if counts:
            few = " and biased upwards for so few" if counts[0] < _ENOUGH_FOR_FID else ""
            beside = f"{other} beside it is not biased" if unbiased in names else f"{other} ({unbiased}) is not biased"
            images = f"{' or '.join(map(str, counts))} images"
            yield f"{said} is of {images}{few}: compare it at equal numbers only; {beside}"


def _software(found: Sequence[Software]) -> str:
    """The versions behind the runs; where they differ, each. A difference is told, not refused."""
    flat = [{"rfbench": s.rfbench, "Python": s.python, **s.packages} for s in found]
    commits = [
        f"commit {s.commit[:10]}{' with changes' if s.dirty else ''}" if s.commit else "no commit" for s in found
    ]
    keys = dict.fromkeys(k for s in flat for k in s)
    versions = {k: list(dict.fromkeys(str(s.get(k) or "absent") for s in flat)) for k in keys}
    made = ", ".join(f"{k} {' or '.join(versions[k])}" for k in ("rfbench", "Python", "torch") if k in versions)
    other = [f"{k} {' or '.join(v)}" for k, v in versions.items() if len(v) > 1 and k not in ("rfbench", "Python")]
    line = f"{made}; {' or '.join(dict.fromkeys(commits))}"
    return one_line(line + (f"; versions differ between the runs: {', '.join(other)}" if other else ""), 400)
