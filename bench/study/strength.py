"""Bradley-Terry: one strength for each of several contestants, from comparisons of two.

P(a is chosen over b) = 1 / (1 + exp(b - a)); a tie is half a win for both. The fit is choix's, with a little
regularisation, without which a contestant that always wins is infinitely strong. Intervals are percentiles of a
bootstrap that draws reviewers and scenes, both with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.core.errors import Unavailable
from bench.stats.means import LEVEL, generator
from bench.study.crossed import LEAST_REVIEWERS

REGULARISATION = 0.1
_RESAMPLES = 499


@dataclass(frozen=True)
class Comparison:
    """Reviewer, scene, two contestants, and the share of the first: 1, 0.5 or 0."""

    reviewer: str
    scene: str
    a: str
    b: str
    share: float


@dataclass(frozen=True)
class Strength:
    """A contestant's strength, relative to the mean of all; None for the interval's ends with too few reviewers."""

    name: str
    value: float
    low: float | None
    high: float | None
    wins: float
    comparisons: int


def strengths(comparisons: Sequence[Comparison]) -> list[Strength]:
    """The contestants, strongest first; Unavailable where choix is not installed."""
    try:
        import choix
    except ImportError:
        raise Unavailable("Bradley-Terry needs choix; install with: pip install 'rfbench[study]'") from None
    names = sorted({n for c in comparisons for n in (c.a, c.b)})
    reviewers, scenes = (sorted({getattr(c, key) for c in comparisons}) for key in ("reviewer", "scene"))
    a, b = (np.array([names.index(getattr(c, side)) for c in comparisons]) for side in ("a", "b"))
    who = np.array([reviewers.index(c.reviewer) for c in comparisons])
    of = np.array([scenes.index(c.scene) for c in comparisons])
    share = np.array([c.share for c in comparisons])

    def fit(weights: np.ndarray) -> np.ndarray:
        wins = np.zeros((len(names), len(names)))
        np.add.at(wins, (a, b), weights * share)
        np.add.at(wins, (b, a), weights * (1.0 - share))
        return np.asarray(choix.ilsr_pairwise_dense(wins, alpha=REGULARISATION, max_iter=500))

    found = fit(np.ones(len(share)))
    low = high = None
    if len(reviewers) >= LEAST_REVIEWERS:
        rng = generator("Bradley-Terry", [*reviewers, *scenes])
        drawn = []
        for _ in range(_RESAMPLES):
            times = [rng.multinomial(n, np.full(n, 1.0 / n)) for n in (len(reviewers), len(scenes))]
            weights = (times[0][who] * times[1][of]).astype(np.float64)
            if weights.any():
                drawn.append(fit(weights))
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    rows = [
        Strength(
            name,
            float(found[i]),
            None if low is None else float(low[i]),
            None if high is None else float(high[i]),
            wins=float(share[a == i].sum() + (1.0 - share[b == i]).sum()),
            comparisons=int((a == i).sum() + (b == i).sum()),
        )
        for i, name in enumerate(names)
    ]
    return sorted(rows, key=lambda s: -s.value)
