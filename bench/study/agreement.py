"""How far raters agree beyond chance: three coefficients that are to be read together.

Where nearly all answers are the same, chance explains nearly all agreement, and alpha and kappa fall towards 0 however
seldom raters differ (28 of 30 items unanimous: kappa 0.31). Gwet's AC1 does not. None of them alone tells the truth, so
all are printed, beside the share of pairs of raters that agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Level = Literal["nominal", "ordinal", "interval", "ratio"]


@dataclass(frozen=True)
class Agreement:
    """``raw``: the share of pairs of raters of an item that agree. Coefficients are None where all answers are one, so
    that chance cannot be told from agreement. ``items`` have two raters or more, ``ratings`` are theirs."""

    items: int
    ratings: int
    raters: int
    raw: float
    alpha: float | None
    kappa: float | None
    ac1: float | None


def agreement(ratings: Sequence[tuple[str, str, float]], level: Level) -> Agreement | None:
    """Of (rater, item, answer); None where no item has two raters.

    Parameters
    ----------
    level : of alpha: whether answers are names (``nominal``), ranks (``ordinal``) or numbers.
    """
    raters = sorted({r for r, _, _ in ratings})
    items = sorted({i for _, i, _ in ratings})
    values = np.full((len(raters), len(items)), np.nan)
    for rater, item, answer in ratings:
        values[raters.index(rater), items.index(item)] = answer
    values = values[:, (~np.isnan(values)).sum(axis=0) >= 2]
    if not values.size:
        return None
    counts = counted(values)
    used = int((~np.isnan(values)).any(axis=1).sum())
    return Agreement(values.shape[1], int(counts.sum()), used, raw_agreement(counts), alpha(values, level),
                     fleiss_kappa(counts), gwet_ac1(counts))  # fmt: skip


def counted(values: np.ndarray) -> np.ndarray:
    """How often each item got each answer that occurs, (items, answers), of (raters, items) with NaN for none."""
    answers = np.unique(values[~np.isnan(values)])
    return np.stack([(values == a).sum(axis=0) for a in answers], axis=1).astype(np.float64)


def raw_agreement(counts: np.ndarray) -> float:
    """The mean over items with two raters or more of the share of their pairs that agree."""
    n = counts.sum(axis=1)
    kept = n >= 2
    c, n = counts[kept], n[kept]
    return float(((c * (c - 1)).sum(axis=1) / (n * (n - 1))).mean())


def alpha(values: np.ndarray, level: Level) -> float | None:
    """Krippendorff's alpha of (raters, items) with NaN for none (K. Krippendorff, Content Analysis, 2004, ch. 11).

    1 - observed / expected disagreement, over all pairs of answers to one item.
    """
    answers = np.unique(values[~np.isnan(values)])
    if len(answers) < 2:
        return None
    counts = counted(values)
    n = counts.sum(axis=1)
    counts, n = counts[n >= 2], n[n >= 2]
    pairs = counts.T @ (counts / (n - 1)[:, None]) - np.diag((counts / (n - 1)[:, None]).sum(axis=0))
    totals = pairs.sum(axis=1)
    distance = _DISTANCES[level](answers, totals)
    expected = float((np.outer(totals, totals) * distance).sum())
    if expected == 0.0:
        return None
    return 1.0 - (float(totals.sum()) - 1.0) * float((pairs * distance).sum()) / expected


def _ordinal(answers: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Squared: how many answers lie from one rank to the other, both ends counted half."""
    cumulative = np.cumsum(totals) - totals / 2.0
    return (cumulative[:, None] - cumulative[None, :]) ** 2


def _ratio(answers: np.ndarray, totals: np.ndarray) -> np.ndarray:
    sums = answers[:, None] + answers[None, :]
    return ((answers[:, None] - answers[None, :]) / np.where(sums == 0, 1.0, sums)) ** 2


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "nominal": lambda answers, totals: 1.0 - np.eye(len(answers)),
    "ordinal": _ordinal,
    "interval": lambda answers, totals: (answers[:, None] - answers[None, :]) ** 2,
    "ratio": _ratio,
}


def fleiss_kappa(counts: np.ndarray) -> float | None:
    """Fleiss' kappa of (items, answers); items may have other numbers of raters, each weighs the same."""
    shares = counts.sum(axis=0) / counts.sum()
    chance = float((shares**2).sum())
    return None if chance >= 1.0 else (raw_agreement(counts) - chance) / (1.0 - chance)


def gwet_ac1(counts: np.ndarray) -> float | None:
    """Gwet's AC1 of (items, answers) (K. L. Gwet, British Journal of Mathematical and Statistical Psychology, 2008)."""
    kinds = counts.shape[1]
    if kinds < 2:
        return None
    shares = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    chance = float((shares * (1.0 - shares)).sum()) / (kinds - 1)
    return (raw_agreement(counts) - chance) / (1.0 - chance)
