"""Percentile intervals over scenes that are drawn again, for what no studentised interval is known of: AUROC, coverage.

A scene is drawn with all that belongs to it: what images of one scene share does not pass for evidence. Of means,
``bench.stats.means`` has intervals that hold what they promise with few scenes too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
ROUNDS = 2000
_ENDS = (0.025, 0.975)


def auroc(inside: npt.ArrayLike, outside: npt.ArrayLike) -> float:
    """The chance that a score from ``outside`` exceeds one from ``inside``, ties counting half.

    Both are (n,) and (m,), finite, not empty: Mann and Whitney's U over n m.
    """
    from scipy import stats

    a, b = _finite(inside, outside)
    return float(stats.mannwhitneyu(b, a).statistic) / (a.size * b.size)


def auroc_interval(
    inside: npt.ArrayLike, outside: npt.ArrayLike, scenes: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of ``auroc`` when scenes are drawn again.

    ``scenes`` (n,) names the scene of each score of ``inside``; ``outside`` (n k,) holds k scores for each of them, n
    after n.
    """
    a, b = _finite(inside, outside)
    wins = (b[None, :] > a[:, None]) + 0.5 * (b[None, :] == a[:, None])
    counts = drawn(scenes, seed)
    outer = np.tile(counts, wins.shape[1] // wins.shape[0])
    total = counts.sum(axis=1) * outer.sum(axis=1)
    values = np.einsum("bi,ij,bj->b", counts, wins, outer, optimize=True) / total
    low, high = np.quantile(values, _ENDS)
    return float(low), float(high)


def mean_interval(values: npt.ArrayLike, scenes: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """The mean of (n,) values and its 95 % percentile interval when their ``scenes`` (n,) are drawn again."""
    numbers = np.asarray(values, np.float64)
    low, high = ratio_interval(numbers[:, None], np.ones(len(numbers)), scenes, seed)
    return float(numbers.mean()), float(low[0]), float(high[0])


def ratio_interval(
    parts: npt.ArrayLike, wholes: npt.ArrayLike, scenes: Sequence[str], seed: int = 0
) -> tuple[Float, Float]:
    """The ends of the 95 % percentile interval of sum(parts) / sum(wholes), column by column.

    ``parts`` is (n, columns), such as how many values of each image lie in an interval, ``wholes`` (n,) how many it
    has, ``scenes`` (n,).
    """
    counts = drawn(scenes, seed)
    ratios = (counts @ np.asarray(parts, np.float64)) / (counts @ np.asarray(wholes, np.float64))[:, None]
    low, high = np.quantile(ratios, _ENDS, axis=0)
    return low, high


def drawn(scenes: Sequence[str], seed: int) -> Float:
    """How often each item is drawn in each round, (ROUNDS, n): scenes are drawn with replacement, items go along."""
    names, index = np.unique(np.asarray(scenes), return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    return counts[:, index].astype(np.float64)


def _finite(*sides: npt.ArrayLike) -> list[Float]:
    found = [np.asarray(side, np.float64).ravel() for side in sides]
    if not all(side.size and np.isfinite(side).all() for side in found):
        counts = " and ".join(str(side.size) for side in found)
        raise ValueError(f"found {counts} scores, expected some of both, all finite")
    return found
