"""The difference of two sets' numbers (FID, KID, ECE), which no mean of images gives.

The interval is Student's about the difference, with the standard error of the delete-one-scene jackknife (B. Efron,
C. Stein, Annals of Statistics 9, 1981, of which the grouped form). A bootstrap would draw scenes twice, and two equal
images are what such distances are most sensitive to: its percentile interval covers down to 51 % of KID's differences
and 81 % of FID's, the jackknife's 92 % and more (``python -m tests.bench.statistics``).

The p-value is the larger of the interval's and of a swap test: in each scene the two models may change sides, which is
exact if they are exchangeable. What is judged is the difference at this number of images, not at infinitely many.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from bench.metrics.base import Features, Metric, SetScore
from bench.stats.means import FEW, FEW_SCENES, LEAST_SCENES, LEVEL, Inference, generator, needed

_SWAPS, _SWAPS_OF_MANY, _MANY = 999, 199, 128  # swaps, and where a set of more images gets fewer


def set_difference(
    metric: Metric, a: Sequence[Features], b: Sequence[Features], scenes: Sequence[str], swaps: int | None = None
) -> Inference | str:
    """A set metric of ``a`` minus that of ``b``, with interval and p-value; or the reason why it has none.

    Parameters
    ----------
    a, b : what the metric kept of the same images, in one order.
    scenes : the scene of each image.
    swaps : how many exchanges of scenes are tried.  [default: 999; 199 of more than 128 images]
    """
    from scipy import stats

    order = sorted(range(len(scenes)), key=lambda i: scenes[i])  # stable: images keep the order of their ids
    a, b, names = [a[i] for i in order], [b[i] for i in order], [scenes[i] for i in order]
    unique = sorted(set(names))
    index = np.searchsorted(unique, names)
    found = [metric.combine(a), metric.combine(b)]
    failed = next((f.reason for f in found if not isinstance(f, SetScore)), None)
    if failed is not None:
        return str(failed)
    value, n, count = _difference(metric, a, b), len(a), len(unique)
    if count == 1:
        return Inference(value, n, 1, None, reason="one scene: nothing says how much another would differ")
    left = []
    for g in range(count):
        kept = np.flatnonzero(index != g)
        left.append(_difference(metric, [a[i] for i in kept], [b[i] for i in kept]))
    if not all(map(math.isfinite, left)):
        return Inference(value, n, count, None, reason="it cannot be computed without one of the scenes")
    mean = math.fsum(left) / count
    error = math.sqrt((count - 1) / count * math.fsum((v - mean) ** 2 for v in left))
    smallest, bias = needed(count) * error, (count - 1) * (mean - value)
    if count < LEAST_SCENES:
        reason = f"{count} scenes, an interval needs at least {LEAST_SCENES}"
        return Inference(value, n, count, None, smallest=smallest, reason=reason, bias=bias)
    total = swaps or (_SWAPS if n <= _MANY else _SWAPS_OF_MANY)
    p_swap = _swap(metric, a, b, index, unique, value, total)
    least = 2.0 ** (1 - count) if 2**count <= total else 1.0 / (total + 1)
    tested = functools.partial(
        Inference, value, n, count, None, p_flip=p_swap, least=least, smallest=smallest, bias=bias,
        note=FEW if count < FEW_SCENES else None,
    )  # fmt: skip
    if error <= 1e-12 * abs(value):
        p = 1.0 if value == 0 else p_swap
        return tested(low=value, high=value, p=p, p_interval=p)
    p_interval = float(2.0 * stats.t.sf(abs(value / error), count - 1))
    half = float(stats.t.ppf((1.0 + LEVEL) / 2.0, count - 1)) * error
    return tested(low=value - half, high=value + half, p=max(p_interval, p_swap), p_interval=p_interval)


def _difference(metric: Metric, a: Sequence[Features], b: Sequence[Features]) -> float:
    """NaN where either side has no number."""
    first, second = metric.combine(a), metric.combine(b)
    return first.value - second.value if isinstance(first, SetScore) and isinstance(second, SetScore) else math.nan


def _swap(
    metric: Metric, a: Sequence[Features], b: Sequence[Features], index: np.ndarray, unique: Sequence[str],
    observed: float, total: int,
) -> float:  # fmt: skip
    """The share of exchanges of scenes between the sides that give a difference as far from 0 as the one found."""
    exact = 2 ** len(unique) <= total
    if exact:
        changed = (np.arange(2 ** len(unique))[:, None] >> np.arange(len(unique))) & 1
    else:
        changed = generator("scenes that change sides", unique).integers(0, 2, (total, len(unique)))
    slack = 1e-9 * abs(observed)
    hits = 0
    for row in changed[:, index]:
        first = [y if c else x for x, y, c in zip(a, b, row, strict=True)]
        second = [x if c else y for x, y, c in zip(a, b, row, strict=True)]
        found = _difference(metric, first, second)
        hits += abs(found) >= abs(observed) - slack or math.isnan(found)
    return hits / len(changed) if exact else (hits + 1) / (total + 1)
