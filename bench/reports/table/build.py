"""From run folders to a table that is still data: values, shown texts, ranks, and a note for all that is missing.

Only ``run.json`` and ``summary.json`` are read, so a table costs no torch and no dataset.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from bench.core import registry
from bench.core.errors import NotComparable, RfbenchError, one_line, unknown
from bench.metrics.base import GROUPS
from bench.metrics.scorer import default_set, metric_class
from bench.records.folder import FinishedRun, RunFolder, read_finished, refuse_to_mix

Rank = Literal["best", "second", None]
ABSENT = "not part of this run"
AS_SHOWN = "as shown"

_ENOUGH_FOR_FID = 10_000  # what its authors' code advises at the least (bioinf-jku/TTUR, README)
# What may tell two runs of one model apart, and how a label says it.
_SETTINGS = {"seed": "seed {}", "draws": "{} draws", "dtype": "{}", "device": "{}", "batch_size": "batch {}"}


@dataclass(frozen=True)
class Cell:
    """One number of a table, or why there is none.

    Attributes
    ----------
    value : finite, at full precision; None where there is no number.
    n : the images behind it.
    reason : why there is no value.
    identity : the metric's signature.
    text : the value as it is shown, empty where there is none.
    rank : best or second of its column, as ``Table.marking`` says.
    std : the standard deviation over images, where the metric has a value for each.
    note : index of the cell's footnote in ``Table.footnotes``: it is empty, or stands for fewer images than the
        table has.
    low, high : the 95 % interval of the mean, where the table has intervals; ``interval`` as it is shown.
    """

    value: float | None
    n: int
    reason: str | None
    identity: str
    text: str
    rank: Rank = None
    std: float | None = None
    note: int | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""


@dataclass(frozen=True)
class Column:
    """A metric: its name (``psnr_rgb``), title (``PSNR``), unit (``dB``), direction (``up``, ``down``), group
    (``fidelity``) and identity."""

    metric: str
    title: str
    unit: str
    direction: str
    group: str
    identity: str


@dataclass(frozen=True)
class Row:
    """An estimate of a run: its label, its cells in the order of the columns, and the run's ``facts`` (folder name,
    plan's hash, seed, draws, dtype, device, batch size, command, licences, failed ids, images seen in training)."""

    label: str
    estimate: str
    cells: tuple[Cell, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Footnote:
    """Why cells are empty or incomplete, and what it concerns: metrics by title or rows by label, whichever are
    fewer."""

    text: str
    concerns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.concerns)}: {self.text}"


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
    found = [read_finished(folder) for folder in runs]
    order = _order(found, metrics)
    _refuse_to_mix(found, order)
    columns = tuple(_column(found, name) for name in order)
    first = found[0].plan
    data = first["data"]
    images = len(data["ids"])
    labels = _labels(found)
    protocol = dict(first["protocol"])
    if len(_policies(found)) > 1:
        protocol.pop("policy", None)  # each row says its own
    owners = [(i, run, kind) for i, run in enumerate(found) for kind in _kinds(run)]  # as bench.stats.pairing has them
    rows = [
        Row(
            label=one_line(run.summary["rows"][kind]["label"], 80) + labels[i],
            estimate=kind,
            cells=tuple(_cell(run.summary["rows"][kind]["metrics"].get(c.metric), c) for c in columns),
            facts=_facts(run),
        )
        for i, run, kind in owners
    ]
    summaries = [run.summary for _, run, _ in owners]
    rows, footnotes = _annotated(_ranked(_numbered(rows), columns), columns, summaries, images)
    return Table(
        protocol=protocol_label(protocol),
        protocol_options=protocol,
        reads_captions=any(_reads_captions(run) for run in found),
        dataset=one_line(data["name"], 80),
        split=one_line(data["split"], 40),
        fingerprint=one_line(data["fingerprint"], 64),
        images=images,
        columns=columns,
        rows=tuple(rows),
        footnotes=footnotes,
        notes=(*_notes(found), *_on_fid(columns, rows)),
    )


def shown(metric: str, value: float, more: int = 0) -> str:
    """The text of a value: decimals by metric, four significant digits for others and for giants.

    ``more`` adds decimals where they are fixed, for differences.
    """
    decimals = _decimals(metric)
    text = f"{value:#.4g}".rstrip(".") if decimals is None or abs(value) >= 1e6 else f"{value:.{decimals + more}f}"
    return text.lstrip("-") if float(text) == 0 else text


def resolution(metric: str) -> float:
    """One unit of the last decimal that is shown of a metric; 0 where the decimals depend on the value."""
    decimals = _decimals(metric)
    return 0.0 if decimals is None else 10.0**-decimals


def _decimals(metric: str) -> int | None:
    """As the metric's class says; None for a metric that is not installed here."""
    with suppress(RfbenchError):
        return metric_class(metric).decimals
    return None


def ranks(texts: Sequence[str], direction: str) -> list[Rank]:
    """The rank of each shown text of a column; empty texts have none. Equal texts are equal."""
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


def _label(run: FinishedRun) -> str:
    return one_line(run.summary["rows"][_kinds(run)[0]]["label"], 80)


def _order(runs: Sequence[FinishedRun], asked: Sequence[str] | None) -> list[str]:
    known = dict.fromkeys(name for run in runs for name in run.plan["metrics"])
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
        of = _described(runs, name)["group"]
        return groups.index(of) if of in groups else len(groups)

    return sorted(names, key=group)


def _described(runs: Sequence[FinishedRun], name: str) -> Mapping[str, Any]:
    described: Mapping[str, Any] = next(r.plan["metrics"][name] for r in runs if name in r.plan["metrics"])
    return described


def _refuse_to_mix(runs: Sequence[FinishedRun], metrics: Sequence[str]) -> None:
    """Every pair, since two runs may share a metric that the first does not have."""

    def part(run: FinishedRun) -> dict[str, Any]:
        return {**run.plan, "metrics": {m: d for m, d in run.plan["metrics"].items() if m in metrics}}

    for a, b in itertools.combinations(runs, 2):
        refuse_to_mix(part(a), part(b), str(a.folder.path), str(b.folder.path), same_policy=False)


def _column(runs: Sequence[FinishedRun], name: str) -> Column:
    found = _described(runs, name)
    title, unit, direction, group = (one_line(found[k], 40) for k in ("title", "unit", "direction", "group"))
    # What was fitted on a dataset's references is known at a run's end only, and stands with the value.
    cells = [row["metrics"].get(name) for run in runs for row in run.summary["rows"].values()]
    made = sorted({one_line(c["identity"], 600) for c in cells if c and c["value"] is not None})
    if len(made) > 1:
        raise NotComparable(
            f"{name}: found values of two identities, {made[0]} and {made[1]}, expected one; leave the metric out "
            "(--metrics), or run the models again with one set of versions"
        )
    return Column(name, title, unit, direction, group, made[0] if made else one_line(found["identity"]))


def _kinds(run: FinishedRun) -> list[str]:
    """The draw before the mean: JSON objects are stored sorted by name."""
    return sorted(run.summary["rows"], key=lambda kind: (kind != "sample", kind))


def _facts(run: FinishedRun) -> dict[str, Any]:
    return {
        "folder": run.folder.path.resolve().name,
        "plan_sha256": run.record["plan_sha256"],
        **{key: run.plan.get(key) for key in _SETTINGS},
        "command": run.record.get("command"),
        "licences": run.record.get("licences"),
        "failed": list(run.summary["failed"]),
        "seen_in_training": _seen(run),
    }


def _seen(run: FinishedRun) -> int:
    """How many of the run's images its model was trained on; such a run needs ``--allow-train``."""
    found = run.record.get("seen_in_training", 0)
    return found if isinstance(found, int) else 0


def _options(run: FinishedRun) -> Mapping[str, Any]:
    """The model's options, as far as the record names any."""
    found = run.plan["model"].get("options")
    return found if isinstance(found, dict) else {}


def _reads_captions(run: FinishedRun) -> bool:
    spec = run.plan["model"].get("spec")
    return isinstance(spec, dict) and bool(spec.get("supports_prompt"))


def _labels(runs: Sequence[FinishedRun]) -> list[str]:
    """What to add to each run's label: what tells it from other runs of the model, and what makes it no fair row."""
    added = []
    for run in runs:
        same = [r for r in runs if _label(r) == _label(run)]
        words = [
            form.format(run.plan.get(key))
            for key, form in _SETTINGS.items()
            if any(r.plan.get(key) != run.plan.get(key) for r in same)
        ]
        words += [
            f"{key}={value}" for key, value in _options(run).items() if any(_options(r).get(key) != value for r in same)
        ]
        words += [f"policy={run.plan['protocol'].get('policy')}"] if len(_policies(runs)) > 1 else []
        words += [f"trained on {_seen(run)} of these"] if _seen(run) else []
        added.append(f" ({one_line(', '.join(words), 80)})" if words else "")
    # Equal plans (one run on two machines, say) are told apart by their folders, if those have different names.
    whole = [(_label(run), more) for run, more in zip(runs, added, strict=True)]
    folders = [one_line(run.folder.path.resolve().name, 60) for run in runs]
    return [
        f"{more} ({folder})"
        if whole.count(key) > 1 and sum((k, f) == (key, folder) for k, f in zip(whole, folders, strict=True)) == 1
        else more
        for key, more, folder in zip(whole, added, folders, strict=True)
    ]


def _policies(runs: Sequence[FinishedRun]) -> set[str]:
    """How models of another scale were brought to the grid."""
    return {str(run.plan["protocol"].get("policy")) for run in runs}


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


def _cell(found: Mapping[str, Any] | None, column: Column) -> Cell:
    if found is None:
        return Cell(None, 0, ABSENT, column.identity, "")
    value, n, identity = found["value"], int(found["n"]), one_line(found["identity"])
    if value is None:
        return Cell(None, n, one_line(found.get("reason") or "no reason was given"), identity, "")
    return Cell(float(value), n, None, identity, shown(column.metric, value), std=found.get("std"))


def _ranked(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
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


def _annotated(
    rows: Sequence[Row], columns: Sequence[Column], summaries: Sequence[Mapping[str, Any]], images: int
) -> tuple[list[Row], tuple[Footnote, ...]]:
    """Rows whose empty and incomplete cells point to footnotes; cells with the same text share one."""
    most = [max(row.cells[j].n for row in rows) for j in range(len(columns))]
    concerned: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    annotated = []
    for row, summary in zip(rows, summaries, strict=True):
        cells = []
        for column, cell, largest in zip(columns, row.cells, most, strict=True):
            text = cell.reason
            if cell.value is not None and cell.n < images:
                reasons = summary["rows"][row.estimate]["metrics"][column.metric].get("reasons", {})
                text = _incomplete(cell.n, images, largest, len(summary["failed"]), reasons)
            if text is not None:
                titles, labels = concerned.setdefault(text, ({}, {}))
                titles[column.title] = labels[row.label] = None
                cell = dataclasses.replace(cell, note=list(concerned).index(text))
            cells.append(cell)
        annotated.append(dataclasses.replace(row, cells=tuple(cells)))
    footnotes = [
        Footnote(text, tuple(titles if len(titles) <= len(labels) else labels))
        for text, (titles, labels) in concerned.items()
    ]
    return annotated, tuple(footnotes)


def _incomplete(n: int, images: int, most: int, failed: int, reasons: Mapping[str, int]) -> str:
    parts = [f"{failed} failed"] if failed else []
    parts += [f"{count}: {one_line(reason, 160)}" for reason, count in reasons.items()]
    why = f" ({'; '.join(parts)})" if parts else ""
    return f"over {n} of {images} images{why}" + (f", not ranked beside {most}" if n < most else "")


# --- notes ----------------------------------------------------------------------------------------------------


def _notes(runs: Sequence[FinishedRun]) -> Iterable[str]:
    words = []
    for key, form in _SETTINGS.items():
        values = dict.fromkeys(str(r.plan[key]) for r in runs if key in r.plan)
        if key != "batch_size" and values:
            words.append(one_line(form.format(" or ".join(values)), 60))
    yield "; ".join(words)
    yield _software([r.record.get("software", {}) for r in runs])
    for run in runs:
        failed = run.summary["failed"]
        if failed:
            some = ", ".join(one_line(i, 40) for i in failed[:4]) + (", ..." if len(failed) > 4 else "")
            yield f"{_label(run)}: {len(failed)} of {run.summary['images']} images failed ({some})"
        if _seen(run):
            yield (
                f"{_label(run)}: {_seen(run)} of the {len(run.plan['data']['ids'])} images were among those it was "
                "trained on (--allow-train); its row says nothing about new images"
            )


def _on_fid(columns: Sequence[Column], rows: Sequence[Row]) -> Iterable[str]:
    """Of how many images FID is, without which it means nothing, and that KID lacks its bias."""
    names = [column.metric for column in columns]
    if "fid_tf" not in names:
        return
    counts = sorted({c.n for row in rows if (c := row.cells[names.index("fid_tf")]).value is not None})
    if counts:
        few = " and biased upwards for so few" if counts[0] < _ENOUGH_FOR_FID else ""
        kid = "KID beside it is not biased" if "kid_tf" in names else "KID (kid_tf) is not biased"
        yield f"FID is of {' or '.join(map(str, counts))} images{few}: compare it at equal numbers only; {kid}"


def _packages(software: Mapping[str, Any]) -> Mapping[str, Any]:
    found = software.get("packages")
    return found if isinstance(found, dict) else {}


def _software(found: Sequence[Mapping[str, Any]]) -> str:
    """The versions behind the runs; where they differ, each. A difference is told, not refused."""
    flat = [{"rfbench": s.get("rfbench"), "Python": s.get("python"), **_packages(s)} for s in found]
    commits = [
        f"commit {str(s['commit'])[:10]}{' with changes' if s.get('dirty') else ''}" if s.get("commit") else "no commit"
        for s in found
    ]
    keys = dict.fromkeys(k for s in flat for k in s)
    versions = {k: list(dict.fromkeys(str(s.get(k) or "absent") for s in flat)) for k in keys}
    made = ", ".join(f"{k} {' or '.join(versions[k])}" for k in ("rfbench", "Python", "torch") if k in versions)
    other = [f"{k} {' or '.join(v)}" for k, v in versions.items() if len(v) > 1 and k not in ("rfbench", "Python")]
    line = f"{made}; {' or '.join(dict.fromkeys(commits))}"
    return one_line(line + (f"; versions differ between the runs: {', '.join(other)}" if other else ""), 400)
