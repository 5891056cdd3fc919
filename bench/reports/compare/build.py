"""From run folders to a comparison that is still data: for each pair of rows and each metric what can be said."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.core.errors import NotComparable, RfbenchError, unknown
from bench.records.folder import RunFolder
from bench.records.run import read_run, refuse_to_mix
from bench.reports.document import Column
from bench.reports.numbers import resolution
from bench.reports.table.build import Table, build_table
from bench.stats.means import LEAST_SCENES, LEVEL, holm
from bench.stats.pairing import Paired, RowScores, pair, row_scores

ALPHA = round(1.0 - LEVEL, 6)


@dataclass(frozen=True)
class Finding:
    """What the data say of one metric of two rows, a - b.

    Attributes
    ----------
    paired : values, difference, interval, p, and why there is none.
    p_holm : p adjusted by Holm over all metrics and pairs of the comparison.
    better : ``a`` or ``b`` where the data separate them (``p_holm`` below alpha), else None.
    wins, ties, losses : images on which a is better, equal as shown, and worse.
    effect : the mean difference over the standard deviation of the images' differences (Cohen's d_z), signed as a - b.
    ahead, behind : the images on which a is most ahead of b and most behind it, with their differences.
    """

    column: Column
    paired: Paired
    p_holm: float | None = None
    better: str | None = None
    wins: int = 0
    ties: int = 0
    losses: int = 0
    effect: float | None = None
    ahead: tuple[tuple[str, float], ...] = ()
    behind: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two rows, by label, and what is found of each metric."""

    a: str
    b: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Comparison:
    """All pairs. ``table`` has the rows themselves, ``tests`` counts the p-values that Holm's method went over, and
    ``notes`` are what a reader must know of them."""

    table: Table
    pairs: tuple[Pair, ...]
    alpha: float
    scenes: int
    tests: int
    notes: tuple[str, ...]


def compare(
    runs: Sequence[RunFolder],
    metrics: Sequence[str] | None = None,
    *,
    against: str | None = None,
    alpha: float = ALPHA,
    top: int = 3,
) -> Comparison:
    """Compare every row of finished runs with every other, or all with the row ``against``.

    Raises
    ------
    RfbenchError
        Fewer than two rows, an unknown metric or row, alpha outside (0, 1).
    NotComparable
        Other data or another protocol, a shown metric of another identity, or no image in common.
    """
    if not 0.0 < alpha < 1.0:
        raise RfbenchError(f"--alpha: found {alpha:g}, expected a number between 0 and 1, such as 0.05")
    refuse_unpaired(runs, metrics)
    table = build_table(runs, metrics)
    rows = list(zip(table.rows, itertools.chain.from_iterable(map(row_scores, runs)), strict=True))
    labels = [row.label for row in table.rows]
    if len(rows) < 2:
        raise RfbenchError(f"found one row ({labels[0]}), expected at least two to compare; give another run folder")
    if against is not None and against not in labels:
        raise unknown("row", against, labels)
    chosen = [(a, b) for a, b in itertools.combinations(rows, 2) if against is None]
    chosen += [(row, base) for base in rows for row in rows if base[0].label == against and row is not base]
    found = [Pair(a.label, b.label, tuple(_findings(table, mine, theirs, top)))
             for (a, mine), (b, theirs) in chosen]  # fmt: skip
    if not any(f.paired.ids for p in found for f in p.findings):
        why = next((f.paired.reason for p in found for f in p.findings if f.paired.reason), "no metric")
        raise NotComparable(f"no metric has an image in common to any two of these rows ({why}); compare other runs")
    found, tests = _adjusted(found, alpha)
    scenes = max(f.paired.inference.scenes for p in found for f in p.findings if f.paired.inference)
    notes = [*_limits(found, scenes, tests, alpha), *table.notes]
    return Comparison(table, tuple(found), alpha, scenes, tests, tuple(n for n in notes if n))


def refuse_unpaired(
    runs: Sequence[RunFolder], metrics: Sequence[str] | None, advice: str = "", *, same_policy: bool = False
) -> None:
    """Raise NotComparable unless all runs are of the same data and protocol (its ``policy`` may differ unless
    ``same_policy``), and of one identity of each metric."""
    for a, b in itertools.combinations([read_run(folder) for folder in runs], 2):
        refuse_to_mix(
            a, b, metrics, verdict="these runs cannot be paired", same_policy=same_policy, names=(a.name, b.name),
            advice=advice or "run both again alike, or leave one out",
        )  # fmt: skip


def _findings(table: Table, a: RowScores, b: RowScores, top: int) -> Iterator[Finding]:
    for column in table.columns:
        found = pair(a, b, column.metric)
        sign = 1.0 if column.direction == "up" else -1.0
        better = [sign * d for d in found.differences]
        slack = resolution(column.decimals) / 2.0
        wins, losses = sum(d > slack for d in better), sum(d < -slack for d in better)
        deviation = found.inference.std if found.inference else None
        ahead, behind = moved(found.ids, found.differences, column.direction, top)
        yield Finding(
            column, found, wins=wins, ties=len(better) - wins - losses, losses=losses,
            effect=found.inference.value / deviation if found.inference and deviation else None,
            ahead=ahead, behind=behind,
        )  # fmt: skip


def moved(
    ids: Sequence[str], differences: Sequence[float], direction: str, top: int
) -> tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]:
    """The images with the largest differences to the better (ahead) and to the worse (behind), at most ``top`` each."""
    sign = 1.0 if direction == "up" else -1.0
    ordered = sorted(zip(ids, differences, strict=False), key=lambda pair: (-sign * pair[1], pair[0]))
    ahead = tuple(p for p in ordered[:top] if sign * p[1] > 0)
    behind = tuple(p for p in ordered[::-1][:top] if sign * p[1] < 0)
    return ahead, behind


def _adjusted(pairs: Sequence[Pair], alpha: float) -> tuple[list[Pair], int]:
    """Pairs with Holm's p over all their tests, and the count of these."""
    tested = [
        (i, j, f.paired.inference.p)
        for i, p in enumerate(pairs)
        for j, f in enumerate(p.findings)
        if f.paired.inference is not None and f.paired.inference.p is not None
    ]
    adjusted = {(i, j): p for (i, j, _), p in zip(tested, holm([p for *_, p in tested]), strict=True)}

    def judged(finding: Finding, p: float | None) -> Finding:
        if p is None or finding.paired.inference is None:
            return finding
        direction = finding.column.direction  # where there is none, a difference makes neither of the two better
        ahead = (finding.paired.inference.value > 0) == (direction == "up")
        better = ("a" if ahead else "b") if direction and p < alpha else None
        return dataclasses.replace(finding, p_holm=p, better=better)

    return [
        dataclasses.replace(p, findings=tuple(judged(f, adjusted.get((i, j))) for j, f in enumerate(p.findings)))
        for i, p in enumerate(pairs)
    ], len(tested)


def _limits(pairs: Sequence[Pair], scenes: int, tests: int, alpha: float) -> Iterator[str]:
    """What this many scenes and tests cannot show, whatever the models."""
    if scenes < LEAST_SCENES:
        yield (
            f"{scenes} scene{'s' * (scenes != 1)}: no interval and no p-value, for which at least {LEAST_SCENES} are "
            "needed; images of one scene are not independent"
        )
        return
    tested = {
        (f.column.title, f.paired.inference.least)
        for p in pairs for f in p.findings if f.paired.inference and f.paired.inference.least is not None
    }  # fmt: skip
    titles = dict.fromkeys(c.title for p in pairs for c in (f.column for f in p.findings))
    for least in sorted({p for _, p in tested if p is not None and tests * p >= alpha}):
        some = [title for title in titles if (title, least) in tested]
        of = f" of {', '.join(some)}" if any(p != least for _, p in tested) else ""
        yield (
            f"with {scenes} scenes no p{of} is below {least:.2g}, so that Holm's method over {tests} tests cannot "
            "separate a lone difference; compare fewer metrics (--metrics) or pairs (--against)"
        )
