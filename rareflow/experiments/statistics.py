"""AUROC and bootstrap intervals over scenes, without further packages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
ROUNDS = 2000


def auroc(inside: npt.ArrayLike, outside: npt.ArrayLike) -> float:
    """The chance that a score from ``outside`` exceeds one from ``inside``, ties counting half.

    Both are (n,) and (m,), finite, not empty: Mann and Whitney's U over n m.
    """
    return float(_wins(inside, outside).mean())


def auroc_interval(
    inside: npt.ArrayLike, outside: npt.ArrayLike, scenes: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of ``auroc`` when scenes are drawn again.

    ``scenes`` (n,) names the scene of each score of ``inside``; ``outside`` (n k,) holds k scores for each of them, n
    after n. A scene is drawn with all that belongs to it, so what both sides share does not pass for evidence.
    """
    wins = _wins(inside, outside)
    counts = _draws(scenes, seed)
    outer = np.tile(counts, wins.shape[1] // wins.shape[0])
    total = counts.sum(axis=1) * outer.sum(axis=1)
    values = np.einsum("bi,ij,bj->b", counts, wins, outer, optimize=True) / total
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def mean_interval(values: npt.ArrayLike, scenes: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """The mean of (n,) values and its 95 % percentile interval when their ``scenes`` (n,) are drawn again."""
    numbers = np.asarray(values, np.float64)
    counts = _draws(scenes, seed)
    low, high = np.quantile(counts @ numbers / counts.sum(axis=1), (0.025, 0.975))
    return float(numbers.mean()), float(low), float(high)


def _wins(inside: npt.ArrayLike, outside: npt.ArrayLike) -> Float:
    """(n, m): 1 where the score outside is higher, 0.5 for a tie."""
    a, b = np.asarray(inside, np.float64)[:, None], np.asarray(outside, np.float64)[None, :]
    if not (a.size and b.size and np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"found {a.size} and {b.size} scores, expected some of both, all finite")
    return (b > a) + 0.5 * (b == a)


def _draws(scenes: Sequence[str], seed: int) -> Float:
    """How often each item is drawn in each round, (ROUNDS, n): scenes are drawn with replacement, items go along."""
    names, index = np.unique(np.asarray(scenes), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    return drawn[:, index].astype(np.float64)
