"""A mean over images that come in scenes: its interval, its p-value, and what the data could have shown.

The mean is over images, sum(S_g) / sum(m_g) with S_g the sum and m_g the number of images of scene g. Its variance is
that of the ratio over scenes, G / (G - 1) sum((S_g - m_g mean)^2) / n^2.

The interval inverts the studentised mean. On each side its quantile is that of the studentised bootstrap over scenes
(P. Hall, The Bootstrap and Edgeworth Expansion, 1992, section 3.3), which follows skewed differences, but never less
than Student's with G - 1 degrees of freedom, below which the bootstrap falls where tails are heavy, and never more than
twice that, which one outlier among equal differences would otherwise make of it. (BCa covers 82 to 90 % with 6 to 10
scenes.) The p-value is the larger of that of the same inversion, and of flipping the signs of scenes, which is exact if
the two sides are exchangeable and too eager where differences are skewed.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_SCENES = 6
"""With fewer scenes no two-sided test by signs can reach p < 0.05 (2 / 2^5 = 0.06), and no interval keeps its word."""
FEW_SCENES = 12
FEW = "fewer than 12 scenes: of very skewed differences the interval covers some 92 %, and 6 % of p < 0.05 are chance"
LEVEL = 0.95
POWER = 0.8
# What the larger of the two p-values needs more than a t-test to reach 80 % power, by the number of scenes: simulated
# with normal differences. Six scenes must all have one sign.
_NEEDS_MORE = {6: 1.31, 7: 1.19, 8: 1.17, 9: 1.15, 10: 1.11, 12: 1.07, 15: 1.045, 20: 1.035, 30: 1.015, 60: 1.01}
_FARTHEST = 2.0  # times Student's quantile
_RESAMPLES = 49_999
_CELLS = 2**23  # of the matrix of resamples: 64 MB; very many scenes get fewer resamples, and need fewer
_EXACT = 16  # scenes up to which all 2^G signs are tried


@dataclass(frozen=True)
class Inference:
    """A number and what the data say of it.

    Attributes
    ----------
    value : the mean over images, or the number of a set.
    n, scenes : the images and scenes behind it.
    std : standard deviation over images (n - 1); None for one image, and for a set's one number.
    low, high : the interval at ``LEVEL``; None with a ``reason``.
    p : two-sided, for "the value is 0"; None with fewer than ``LEAST_SCENES`` scenes. ``p_interval`` and ``p_flip`` are
        the two of which it is the larger.
    least : the smallest p that so many scenes, or resamples of them, can give, whatever the values.
    smallest : the smallest true value that data of this size and spread show at p < 0.05 in 80 % of cases; for fewer
        than ``LEAST_SCENES`` what a t-test would show, None for one scene.
    note : what a reader of the interval should know.
    bias : of a set's number: how much more it is for expecting few images, by the jackknife.
    """

    value: float
    n: int
    scenes: int
    std: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_interval: float | None = None
    p_flip: float | None = None
    least: float | None = None
    smallest: float | None = None
    reason: str | None = None
    note: str | None = None
    bias: float | None = None


def mean_of(values: Sequence[float] | np.ndarray, scenes: Sequence[str]) -> Inference:
    """The mean of ``values``, one an image, with its interval and its p-value.

    The order of images does not matter, and no other metric or pair: resamples come from the names of the scenes.

    Parameters
    ----------
    values : finite numbers; differences of two models, say.
    scenes : the scene of each.

    Raises
    ------
    ValueError
        No value, or not one scene for each.
    """
    order = sorted(range(len(values)), key=lambda i: (scenes[i], float(values[i])))
    if not order or len(values) != len(scenes):
        raise ValueError(f"expected values and a scene for each, found {len(values)} and {len(scenes)}")
    x, names = np.array([float(values[i]) for i in order]), [scenes[i] for i in order]
    value = math.fsum(x) / len(x)
    std = math.sqrt(math.fsum((x - value) ** 2) / (len(x) - 1)) if len(x) > 1 else None
    unique, index = np.unique(np.array(names, dtype=object), return_inverse=True)
    count = len(unique)
    sums, sizes = np.bincount(index, x), np.bincount(index).astype(np.float64)
    residuals = np.bincount(index, x - value)
    if count == 1:
        return Inference(value, len(x), 1, std, reason="one scene: nothing says how much another would differ")
    error = standard_error(residuals, sizes)
    smallest = needed(count) * error
    if count < LEAST_SCENES:
        reason = f"{count} scenes, an interval needs at least {LEAST_SCENES}"
        return Inference(value, len(x), count, std, smallest=smallest, reason=reason)
    p_flip = float(flipped(sums[:, None], *_signs(tuple(unique)))[0])
    note = FEW if count < FEW_SCENES else None
    least = 2.0 ** (1 - count) if count <= _EXACT else 1.0 / (draws_for(count) + 1)
    tested = functools.partial(Inference, value, len(x), count, std, least=least, smallest=smallest)
    if error <= 1e-14 * abs(value):  # every image has the same number
        p = 1.0 if value == 0 else p_flip
        return tested(low=value, high=value, p=p, p_interval=p, p_flip=p_flip, note=note)
    moved = int(np.count_nonzero(sums))
    if moved < LEAST_SCENES:
        reason = f"only {moved} of {count} scenes differ, an interval needs at least {LEAST_SCENES} that do"
        return tested(p=p_flip, p_flip=p_flip, reason=reason)
    ratios = studentised(residuals[:, None], sizes[:, None], resamples(tuple(unique)))
    low, high = (float(q[0]) for q in quantiles(ratios, count))
    p_interval = float(inverted(ratios, np.array([value / error]), count)[0])
    p, low, high = max(p_interval, p_flip), value - high * error, value - low * error
    return tested(low=low, high=high, p=p, p_interval=p_interval, p_flip=p_flip, note=note)


def standard_error(residuals: np.ndarray, sizes: np.ndarray) -> float:
    """The standard error of a mean over images, from each scene's sum of deviations and number of images, (G,)."""
    count = len(residuals)
    return math.sqrt(count / (count - 1) * math.fsum(residuals**2)) / float(sizes.sum())


def studentised(residuals: np.ndarray, sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The studentised means of resampled scenes, about the mean of all.

    Parameters
    ----------
    residuals : (G, R) float64, of each scene the sum of its images' deviations from the mean; R columns at once.
    sizes : (G, R) or (G, 1), the images of each scene.
    counts : (B, G), how often a resample has each scene.

    Returns
    -------
    (B, R); infinite where a resample holds no spread.
    """
    groups = len(residuals)
    images = counts @ sizes
    shift = (counts @ residuals) / images
    squares = counts @ residuals**2
    spread = squares - 2.0 * shift * (counts @ (residuals * sizes)) + shift**2 * (counts @ sizes**2)
    spread = np.where(spread <= 1e-12 * squares, 0.0, spread)  # what rounding leaves of no spread
    error = np.sqrt(spread * groups / (groups - 1)) / images
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(shift / error, nan=0.0, posinf=math.inf, neginf=-math.inf)


def quantiles(ratios: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper quantile of the studentised mean at ``LEVEL``: the bootstrap's (``ratios``, (B, ...), axis 0)
    between once and twice Student's for ``count`` scenes."""
    from scipy import stats

    tail = (1.0 - LEVEL) / 2.0
    k = int((len(ratios) + 1) * tail)
    ordered = np.partition(ratios, [k - 1, len(ratios) - k], axis=0)
    student = float(stats.t.ppf(1.0 - tail, count - 1))
    near, far = student, _FARTHEST * student
    return np.clip(ordered[k - 1], -far, -near), np.clip(ordered[len(ratios) - k], near, far)


def inverted(ratios: np.ndarray, observed: np.ndarray, count: int) -> np.ndarray:
    """The two-sided p-value that belongs to the interval: the bootstrap's between Student's of the studentised mean and
    of half of it.

    Parameters
    ----------
    ratios : (B, R), from ``studentised``.
    observed : (R,), the mean over its standard error.
    """
    from scipy import stats

    below, above = ((1 + np.count_nonzero(side, axis=0)) / (len(ratios) + 1)
                    for side in (ratios <= observed, ratios >= observed))  # fmt: skip
    far, near = (2.0 * stats.t.sf(np.abs(observed) / by, count - 1) for by in (1.0, _FARTHEST))
    return np.asarray(np.clip(2.0 * np.minimum(below, above), far, near))


def flipped(sums: np.ndarray, signs: np.ndarray, exact: bool) -> np.ndarray:
    """The share of signs of scenes that give a sum as far from 0 as the one found, which counts as one of them.

    Parameters
    ----------
    sums : (G, R), of each scene the sum over its images.
    signs : (B, G) of -1 and 1; ``exact`` says whether they are all 2^G.

    Returns
    -------
    (R,) two-sided p-values.
    """
    slack = 1e-12 * np.abs(sums).sum(axis=0)  # equal sums that were added in another order
    hits = np.count_nonzero(np.abs(signs @ sums) >= np.abs(sums.sum(axis=0)) - slack, axis=0)
    return np.asarray(hits / len(signs) if exact else (hits + 1) / (len(signs) + 1))


@functools.cache
def detectable(count: int, alpha: float = 1.0 - LEVEL, power: float = POWER) -> float:
    """The smallest true mean, in standard errors, that a two-sided t-test over ``count`` scenes shows with ``power``.

    J. Cohen, Statistical Power Analysis, 1988, section 2.2. The noncentral t distribution is taken as the normal one
    averaged over the chi distribution of the standard error, since SciPy's own fails for two and three scenes.
    """
    from scipy import optimize, special, stats

    freedom = count - 1
    limit = float(stats.t.ppf(1.0 - alpha / 2.0, freedom))
    middles = (np.arange(4000) + 0.5) / 4000
    limits = limit * np.sqrt(stats.chi2.ppf(middles, freedom) / freedom)

    def missing(shift: float) -> float:
        return float((special.ndtr(shift - limits) + special.ndtr(-shift - limits)).mean()) - power

    return float(optimize.brentq(missing, 0.0, 3.0 * limit + 10.0))


def needed(count: int) -> float:
    """The smallest true mean, in standard errors, that both tests together show at 5 % in 80 % of cases."""
    if count < LEAST_SCENES:
        return detectable(count)
    more = np.interp(1.0 / count, [1.0 / g for g in reversed(_NEEDS_MORE)], list(reversed(_NEEDS_MORE.values())))
    return float(more) * detectable(count)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of m tests, adjusted: p < alpha then holds a false alarm in at most a share alpha of such families.

    S. Holm, Scandinavian Journal of Statistics 6, 1979: in rising order times m, m - 1, ..., never falling, at most 1.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


# --- resamples by name ----------------------------------------------------------------------------------------


def generator(purpose: str, names: Sequence[str]) -> np.random.Generator:
    """Randomness that belongs to a purpose and to the names of scenes: the same for every metric and every pair."""
    text = "\x1f".join([purpose, *names]).encode("utf-8", "surrogatepass")
    return np.random.Generator(np.random.Philox(key=int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())))


def draws_for(count: int) -> int:
    """How many resamples of ``count`` scenes are taken."""
    return max(999, min(_RESAMPLES, _CELLS // count))


@functools.lru_cache(maxsize=2)
def resamples(names: tuple[str, ...]) -> np.ndarray:
    """How often each scene is in each resample, (B, G) float64."""
    count = len(names)
    rng = generator("bootstrap over scenes", names)
    return rng.multinomial(count, np.full(count, 1.0 / count), draws_for(count)).astype(np.float64)


@functools.lru_cache(maxsize=2)
def _signs(names: tuple[str, ...]) -> tuple[np.ndarray, bool]:
    """Signs of scenes, (B, G) of -1 and 1, and whether they are all there are."""
    count = len(names)
    if count <= _EXACT:
        bits = np.arange(2**count)[:, None] >> np.arange(count)
        return 1.0 - 2.0 * (bits & 1), True
    rng = generator("signs of scenes", names)
    return 1.0 - 2.0 * rng.integers(0, 2, (draws_for(count), count)), False
