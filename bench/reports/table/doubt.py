"""What a table's means are worth: intervals, and marks only where the data separate the rows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from bench.records.folder import RunFolder
from bench.reports.document import ALIKE, Cell, Column, Rank
from bench.reports.numbers import shown
from bench.reports.table.build import Table
from bench.stats.means import LEAST_SCENES, LEVEL, Inference, holm
from bench.stats.pairing import RowScores, one_of, pair, row_scores

ALPHA = round(1.0 - LEVEL, 6)
_ABOUT = (
    "[ , ]: 95 % intervals of means over images, scenes as clusters; of each row alone, so that they may overlap where "
    "the rows' paired differences are separated"
)
_Place = tuple[int, int]  # of a cell: row, column


def with_intervals(table: Table, runs: Sequence[RunFolder]) -> Table:
    """The table with the 95 % interval of each mean over images, scenes as clusters; notes where there is none."""
    rows, missing = [], dict[str, dict[str, None]]()
    for row, of in zip(table.rows, _scores_of(runs), strict=True):
        cells = []
        for column, cell in zip(table.columns, row.cells, strict=True):
            inference = one_of(of, column.metric) if cell.value is not None else None
            cells.append(_bounded(cell, column, inference))
            if cell.value is not None and (inference is None or inference.low is None):
                why = inference.reason if inference else "one number of the set; 'rfbench compare' has its differences"
                missing.setdefault(f"no interval: {why}", {})[column.title] = None
        rows.append(dataclasses.replace(row, cells=tuple(cells)))
    notes = [f"{', '.join(titles)}: {text}" for text, titles in missing.items()]
    return dataclasses.replace(table, rows=tuple(rows), notes=(*table.notes, _ABOUT, *notes))


def with_separated_marks(table: Table, runs: Sequence[RunFolder]) -> Table:
    """The table with ``best`` for the best of a column, ``second`` for the best of those that the data tell from it,
    and ``is_level`` for every row that they cannot tell from one of these, which has its rank.

    Rows are compared in pairs of the same images. Holm's method goes over the comparisons of all columns with their
    best, then over those with their second. A row that cannot be tested has no mark, nor a column in which none can.
    """
    found = _scores_of(runs)
    open_rows = {j: _candidates(table, j) for j in range(len(table.columns))}
    untested = dict[str, dict[str, None]]()
    ranks: dict[_Place, Rank] = {}
    level: set[_Place] = set()
    for rank in ("best", "second"):
        leaders = {j: _leader(table, j, rows) for j, rows in open_rows.items() if rows}
        p, why_not = dict[_Place, float](), dict[_Place, str]()
        for j, leader in leaders.items():
            for i in (i for i in open_rows[j] if i != leader):
                paired = pair(found[leader], found[i], table.columns[j].metric)
                inference = paired.inference
                if inference is not None and inference.p is not None:
                    p[i, j] = inference.p
                else:
                    why_not[i, j] = paired.reason or (inference.reason if inference else None) or "nothing to compare"
        separated = {place for place, q in zip(p, holm(list(p.values())), strict=True) if q < ALPHA}
        for j, leader in leaders.items():
            others = [i for i in open_rows[j] if i != leader]
            tested = [i for i in others if (i, j) in p]
            for i in (i for i in others if i not in tested):
                of = f" of {table.rows[i].label}" if tested or rank == "second" else ""
                untested.setdefault(why_not[i, j], {})[table.columns[j].title + of] = None
            if tested or not others:
                same = [i for i in tested if (i, j) not in separated]
                ranks.update({(i, j): rank for i in (leader, *same)})
                level |= {(i, j) for i in same if table.rows[i].cells[j].text != table.rows[leader].cells[j].text}
            open_rows[j] = [i for i in tested if (i, j) in separated]
    rows = tuple(
        dataclasses.replace(
            row,
            cells=tuple(
                dataclasses.replace(c, rank=ranks.get((i, j)), is_level=(i, j) in level)
                for j, c in enumerate(row.cells)
            ),
        )
        for i, row in enumerate(table.rows)
    )
    scenes = len(set(found[0].scenes.values()))
    marking = (
        f"{ALIKE} beside what {scenes} scenes cannot tell from it (paired by image, p < {ALPHA:g} by Holm's method)"
    )
    notes = [f"{', '.join(titles)}: not marked, {why}" for why, titles in untested.items()]
    if scenes < LEAST_SCENES:
        notes = [
            f"not marked: {scenes} scene{'s' * (scenes != 1)} cannot separate rows, at least {LEAST_SCENES} are needed"
        ]
    return dataclasses.replace(table, rows=rows, marking=marking, notes=(*table.notes, *notes))


def _scores_of(runs: Sequence[RunFolder]) -> list[RowScores]:
    """One for each row of a table of these runs."""
    return list(itertools.chain.from_iterable(map(row_scores, runs)))


def _bounded(cell: Cell, column: Column, inference: Inference | None) -> Cell:
    if inference is None or inference.low is None or inference.high is None:
        return cell
    text = f"[{shown(inference.low, column.decimals)}, {shown(inference.high, column.decimals)}]"
    return dataclasses.replace(cell, low=inference.low, high=inference.high, interval=text)


def _candidates(table: Table, j: int) -> list[int]:
    """The rows of a column that are ranked: those with the most images, where there are two at least."""
    if not table.columns[j].direction:
        return []
    most = max(row.cells[j].n for row in table.rows)
    found = [i for i, row in enumerate(table.rows) if row.cells[j].value is not None and row.cells[j].n == most]
    return found if len(found) > 1 else []


def _leader(table: Table, j: int, rows: Sequence[int]) -> int:
    sign = 1.0 if table.columns[j].direction == "up" else -1.0
    return max(rows, key=lambda i: (sign * (table.rows[i].cells[j].value or 0.0), -i))
