"""A table by stratum: where models differ, by scene, dates, cover of the mask, what models say of images, or a column
of the user's."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.files import read_text
from bench.records.folder import FACT, RunFolder
from bench.records.run import PICTURES
from bench.reports.document import Cell, Column
from bench.reports.numbers import shown
from bench.reports.table.build import Table, annotated, build_table, ranked
from bench.stats.pairing import RowScores, alike, number_over, row_scores

Strata = Mapping[str, list[str]]
"""The ids of each stratum, by its label, in the order of the table's parts."""
_DAYS = (
    ("same day", 0),
    ("1 to 7 days", 7),
    ("8 to 30 days", 30),
    ("31 to 90 days", 90),
    ("more than 90 days", math.inf),
)
_SHARES = (("nothing", 0.0), ("up to a tenth", 0.1), ("up to a half", 0.5), ("more than a half", math.inf))
_PARTS = 3
_UNKNOWN = "not known"


def by_stratum(runs: Sequence[RunFolder], by: str, metrics: Sequence[str] | None = None,
               data: str | None = None) -> tuple[Table, dict[str, Table]]:  # fmt: skip
    """The table of all images, and one for each stratum, by its label; numbers are ranked within their stratum.

    Parameters
    ----------
    by : ``scene``; ``region`` (the manifest's column of this name); ``date-gap`` (days between LR and HR); ``cover``
        (the share of the mask); ``shift`` (what metrics ``NAME_reg`` took out); ``fact:NAME`` (what a model or a metric
        says of an image, in thirds); ``FILE.csv:COLUMN`` (a file with the columns id and COLUMN).
    data : the dataset, for ``region``, ``date-gap`` and ``cover``; None for where the run found it.

    Raises
    ------
    RfbenchError
        What ``build_table`` raises; a stratification that these runs, this dataset or this file do not have.
    """
    whole = build_table(runs, metrics)
    rows = [row for run in runs for row in row_scores(run)]
    knowing = next((row for row in rows if not row.is_foreign), rows[0])
    rows = [alike(row, knowing)[0] for row in rows]
    strata = _strata(runs, by, data, knowing.scenes)
    return whole, {label: _table(whole, rows, ids) for label, ids in strata.items()}


def _table(whole: Table, scored: Sequence[RowScores], ids: Sequence[str]) -> Table:
    """The table of some images."""
    said: dict[tuple[int, int], str] = {}
    rows = []
    for i, (row, one) in enumerate(zip(whole.rows, scored, strict=True)):
        cells = []
        for j, column in enumerate(whole.columns):
            cell, text = _cell(column, row.cells[j], one, set(ids))
            cells.append(cell)
            if text:
                said[i, j] = text
        rows.append(dataclasses.replace(row, cells=tuple(cells)))
    found, footnotes = annotated(ranked(rows, whole.columns), whole.columns, said)
    return dataclasses.replace(whole, images=len(ids), rows=tuple(found), footnotes=footnotes)


def _cell(column: Column, whole: Cell, scored: RowScores, ids: set[str]) -> tuple[Cell, str]:
    """A number over some images, and what is to be said of it."""
    if column.metric not in scored.run.metrics:
        return Cell(reason=whole.reason, identity=column.identity, kind=whole.kind), whole.reason or ""
    value, n, reason = number_over(scored, column.metric, ids)
    if value is None:
        return Cell(n=n, reason=reason, identity=column.identity, kind=whole.kind), reason
    why = Counter(
        scored.reasons[column.metric].get(i, "no score") for i in ids if i not in scored.values[column.metric]
    )
    text = f"over {n} of {len(ids)} images ({'; '.join(f'{c}: {one_line(w, 160)}' for w, c in why.items())})"
    cell = Cell(value, n, identity=whole.identity, text=shown(value, column.decimals))
    return cell, text if n < len(ids) else ""


# --- what images belong together ------------------------------------------------------------------------------


def _strata(runs: Sequence[RunFolder], by: str, data: str | None, scenes: Mapping[str, str]) -> Strata:
    kind, colon, name = by.partition(":")
    if by == "scene":
        return _named(scenes)
    if by in ("region", "date-gap", "cover"):
        return _of_dataset(runs, by, data)
    if by == "shift" or (kind == "fact" and colon):
        names = ("reg_shift_row_px", "reg_shift_col_px") if by == "shift" else (name,)
        return _thirds(_facts(runs, names), "shift (px)" if by == "shift" else name)
    path, colon, name = by.rpartition(":")
    if colon and path.endswith(".csv"):
        return _of_file(Path(path), name, list(scenes))
    raise unknown("stratum", by, ("scene", "region", "date-gap", "cover", "shift", "fact:NAME", "FILE.csv:COLUMN"))


def _named(labels: Mapping[str, str]) -> Strata:
    found: dict[str, list[str]] = {}
    for image in sorted(labels, key=lambda i: (labels[i], i)):
        found.setdefault(one_line(labels[image], 60), []).append(image)
    return found


def _of_dataset(runs: Sequence[RunFolder], by: str, data: str | None) -> Strata:
    from bench.score.replay import dataset_of

    run = next((r for r in runs if r.record().plan.protocol_name != PICTURES), None)
    if run is None:
        raise RfbenchError(f"--by {by}: these pictures were held against a folder, expected runs on a dataset")
    dataset, records = dataset_of(run, data)
    if by == "region":
        if not any(record.region for record in records):
            raise RfbenchError(
                f"--by region: {dataset.name} names no regions, expected a column 'region' in its manifest; add it, or "
                "give --by FILE.csv:COLUMN"
            )
        return _named({record.id: record.region or _UNKNOWN for record in records})
    values: dict[str, float] = {}
    for record in records:
        if by == "cover":
            mask = dataset.load(record, ("mask",)).mask if "mask" in record.files else None
            if mask is not None:
                values[record.id] = float(np.mean(mask))
        elif record.lr_date and record.hr_date:
            days = date.fromisoformat(record.hr_date[:10]) - date.fromisoformat(record.lr_date[:10])
            values[record.id] = abs(days.days)
    if not values:
        missing = "mask" if by == "cover" else "dates of both sides"
        raise RfbenchError(f"--by {by}: found no {missing} in {dataset.name}; give another --by")
    classes = _SHARES if by == "cover" else _DAYS
    what = "mask covers " if by == "cover" else "LR and HR apart: "
    ids = [record.id for record in records]
    return _classed(values, lambda v: what + next(label for label, most in classes if v <= most), ids)


def _classed(values: Mapping[str, float], label: Callable[[float], str], ids: Sequence[str]) -> Strata:
    """Images by the label of their value, in rising order; those without a value last."""
    found: dict[str, list[str]] = {}
    for image in sorted(values, key=lambda i: (values[i], i)):
        found.setdefault(label(values[image]), []).append(image)
    rest = sorted(set(ids) - values.keys())
    return found | ({_UNKNOWN: rest} if rest else {})


def _facts(runs: Sequence[RunFolder], names: Sequence[str]) -> dict[str, float]:
    """A fact of each image, or the length of several, as a mean over the runs that have it."""
    found: dict[str, list[float]] = {}
    known: set[str] = set()
    for run in runs:
        frame = run.scores()
        frame = frame[frame["estimate"] == "sample"]
        known |= {c.removeprefix(FACT) for c in frame.columns if c.startswith(FACT)}
        if all(FACT + name in frame.columns for name in names):
            parts = np.array([frame[FACT + name].to_numpy(float) for name in names])
            values = parts[0] if len(names) == 1 else np.hypot(*parts)
            for image, value in zip(frame["id"], values, strict=True):
                if math.isfinite(value):
                    found.setdefault(image, []).append(float(value))
    if not found:
        said = f"facts of these runs: {', '.join(sorted(known)) or 'none'}"
        step = "; score them with --metrics registered" if "reg_shift_row_px" in names else ""
        raise RfbenchError(f"--by: found no {' and '.join(names)}, {said}{step}")
    return {image: math.fsum(values) / len(values) for image, values in found.items()}


def _thirds(values: Mapping[str, float], what: str) -> Strata:
    """Images in three parts of about equally many by a value, with the ends of each."""
    order = sorted(values, key=lambda i: (values[i], i))
    parts = [[str(i) for i in part] for part in np.array_split(np.array(order, dtype=object), _PARTS) if len(part)]
    return {f"{what} {values[ids[0]]:.3g} to {values[ids[-1]]:.3g}": ids for ids in parts}


def _of_file(path: Path, column: str, ids: Sequence[str]) -> Strata:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
    except (OSError, ValueError, csv.Error) as error:
        raise RfbenchError(f"--by: {path} cannot be read: {one_line(error, 120)}") from None
    names = list(rows[0]) if rows else []
    for needed in ("id", column):
        if needed not in names:
            raise unknown(f"column of {one_line(path, 100)},", needed, [n for n in names if n])
    labels = {row["id"]: row[column] or _UNKNOWN for row in rows if row["id"] in set(ids)}
    if not labels:
        raise RfbenchError(f"--by: found none of the {len(ids)} images' ids in {path}, expected them in its column id")
    return _named({i: labels.get(i, _UNKNOWN) for i in ids})
