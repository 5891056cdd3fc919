"""A mean of votes of reviewers x scenes: other reviewers, and other scenes, would have given another one.

The variance is that of both ways (A. C. Cameron, J. B. Gelbach, D. L. Miller, Journal of Business & Economic Statistics
29, 2011): that over reviewers plus that over scenes minus that over votes, each with G / (G - 1), and never less than
the larger of the first two; the quantile is Student's with the smaller number of the two, less one, degrees of freedom.
The interval is made for the logit of the share, since shares far from one half are skewed, and brought back.

A bootstrap that draws reviewers and scenes together is what one would think of first. With few reviewers that differ
much it covers less than it says; ``python -m tests.bench.study`` measures both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.stats.means import LEAST_SCENES, LEVEL

LEAST_REVIEWERS = 3
EQUIVALENCE = 0.9
"""The level of the interval that lies within the margin where two one-sided tests at 5 % both hold (TOST)."""
Verdict = Literal["on a par", "better", "worse", "undecided"]


@dataclass(frozen=True)
class Share:
    """A mean over votes. ``low`` and ``high`` are the interval at ``level``; None with a ``reason``."""

    value: float
    votes: int
    reviewers: int
    scenes: int
    level: float
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def share_of(
    values: Sequence[float] | np.ndarray,
    reviewers: Sequence[str] | np.ndarray,
    scenes: Sequence[str] | np.ndarray,
    level: float = LEVEL,
) -> Share:
    """The mean of votes in [0, 1] with its interval over reviewers and scenes.

    Raises ValueError without a vote.
    """
    x = np.asarray(values, np.float64)
    if not x.size or len(reviewers) != len(x) or len(scenes) != len(x):
        raise ValueError(f"expected votes with a reviewer and a scene each, found {len(x)}")
    who, of = (np.unique(np.asarray(names, dtype=object), return_inverse=True)[1] for names in (reviewers, scenes))
    count, ground = int(who.max()) + 1, int(of.max()) + 1
    value = float(x.mean())
    if count < LEAST_REVIEWERS or ground < LEAST_SCENES:
        few = f"{count} reviewers, an interval needs at least {LEAST_REVIEWERS}" if count < LEAST_REVIEWERS else \
            f"{ground} scenes, an interval needs at least {LEAST_SCENES}"  # fmt: skip
        return Share(value, len(x), count, ground, level, reason=few)
    from scipy import special

    error, freedom = two_way_error(x - value, who, of)
    if error == 0.0:  # all said the same: the rule of three, for which a reviewer's votes may all be one
        half = 3.0 / min(count, ground)
        return Share(value, len(x), count, ground, level, max(0.0, value - half), min(1.0, value + half))
    half = float(special.stdtrit(freedom, (1 + level) / 2)) * error / (value * (1.0 - value))  # Student's quantile
    low, high = (float(special.expit(special.logit(value) + side * half)) for side in (-1.0, 1.0))
    return Share(value, len(x), count, ground, level, low, high)


def two_way_error(residuals: np.ndarray, reviewers: np.ndarray, scenes: np.ndarray) -> tuple[float, int]:
    """The standard error of the mean of votes, and its degrees of freedom.

    Parameters
    ----------
    residuals : (n,), each vote less the mean.
    reviewers, scenes : (n,), indices from 0.
    """
    n = len(residuals)
    variances, counts = [], []
    for index in (reviewers, scenes):
        sums = np.bincount(index, residuals)
        counts.append(len(sums))
        variances.append(len(sums) / (len(sums) - 1) * float((sums**2).sum()) / n**2)
    # Votes of one reviewer on one scene belong together as well.
    cells = np.bincount(reviewers * (int(scenes.max()) + 1) + scenes, residuals)
    both = float((cells**2).sum()) / n**2
    return math.sqrt(max(variances[0] + variances[1] - both, *variances)), min(counts) - 1


def verdict(share: Share, margin: tuple[float, float]) -> Verdict:
    """What the interval says of parity: ``on a par`` where it lies within the margin, ``better`` or ``worse`` where it
    lies wholly beyond one half. Both may be so, and then it is on a par: less than the margin is no difference."""
    if share.low is None or share.high is None:
        return "undecided"
    if margin[0] < share.low and share.high < margin[1]:
        return "on a par"
    return "better" if share.low > 0.5 else "worse" if share.high < 0.5 else "undecided"
