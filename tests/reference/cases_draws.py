"""The forms of ECE, coverage, spread and CRPS that know how few draws there are, against equations and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from bench.metrics.base import Estimate, Score
from tests.reference import pictures
from tests.reference.cases import Case, Values, ready, score_of
from tests.reference.cases_uncertainty import HERE
from tests.reference.pictures import Lacking, need

K = 4
Draws = tuple[np.ndarray, np.ndarray]
"""The truth (n,) and its K draws (K, n), float64."""


def _estimate(truth: np.ndarray, draws: np.ndarray) -> tuple[pictures.Estimate, pictures.Reference, Draws]:
    """Draws (K, H, W, 3) of a truth as metrics see them, and both as plain numbers."""
    mean = draws.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = draws.std(axis=0, ddof=1, dtype=np.float64).astype(np.float32)
    _, reference = pictures.held((truth, truth))
    estimate = Estimate(truth, truth, None, mean, std, draws=draws)
    return estimate, reference, (truth.astype(np.float64).ravel(), draws.astype(np.float64).reshape(len(draws), -1))


@cache
def _drawn() -> tuple[pictures.Estimate, pictures.Reference, Draws]:
    """Four draws of 24x30 px, biased and too narrow."""
    random = np.random.default_rng(17)
    truth = pictures.clean(24, 30, 17)
    centre = truth + random.normal(0, 0.05, truth.shape)
    return _estimate(truth, np.float32(centre + random.normal(0, 0.04, (K, *truth.shape))))


@cache
def _perfect() -> tuple[pictures.Estimate, pictures.Reference, Draws]:
    """180,000 values of a normal distribution of deviation 0.05, and four draws of the same."""
    random = np.random.default_rng(4)
    truth, *draws = np.float32(random.normal(0.5, 0.05, (K + 1, 200, 300, 3)))
    return _estimate(truth, np.stack(draws))


def _of_set(name: str, given: Any, theirs: Callable[[np.ndarray, np.ndarray], float]) -> Values:
    estimate, reference, arrays = given
    metric = ready(name)
    features = metric.gather(estimate, reference)
    assert not isinstance(features, Score), features.reason
    found = metric.combine([features])
    assert found.value is not None
    return found.value, theirs(*arrays)


def _student_cdf(t: float) -> float:
    """Student's distribution of 3 degrees of freedom, in closed form: what four draws leave."""
    return 0.5 + (t / (math.sqrt(3) * (1 + t * t / 3)) + math.atan(t / math.sqrt(3))) / math.pi


def _student(level: float) -> float:
    """Its quantile, by halving."""
    low, high = -1e3, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle) < level else (low, middle)
    return low


def _standardised(y: np.ndarray, draws: np.ndarray) -> list[float]:
    """(y - m) / (s sqrt(1 + 1/K)) of each value; s at least a grey level."""
    found = []
    for value, own in zip(y.tolist(), draws.T.tolist(), strict=True):
        mean = math.fsum(own) / K
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in own) / (K - 1))
        found.append((value - mean) / (max(deviation, 1 / 255) * math.sqrt(1 + 1 / K)))
    return found


def _ece_fair(y: np.ndarray, draws: np.ndarray) -> float:
    z, quantiles = _standardised(y, draws), [(p, _student(p)) for p in HERE]
    return math.fsum(abs(sum(t <= q for t in z) / len(z) - p) for p, q in quantiles) / len(HERE)


def _ece_fair_scipy(y: np.ndarray, draws: np.ndarray) -> float:
    from scipy.stats import t

    scale = np.maximum(draws.std(axis=0, ddof=1), 1 / 255) * math.sqrt(1 + 1 / K)
    shares = t.cdf(y, K - 1, draws.mean(axis=0), scale)[:, None] <= np.array(HERE)
    return float(np.abs(shares.mean(axis=0) - np.array(HERE)).mean())


def _cover(y: np.ndarray, draws: np.ndarray) -> float:
    z, edge = _standardised(y, draws), _student(0.95)
    return abs(sum(abs(t) <= edge for t in z) / len(z) - 0.9)


def _cover_scipy(y: np.ndarray, draws: np.ndarray) -> float:
    from scipy.stats import t

    scale = np.maximum(draws.std(axis=0, ddof=1), 1 / 255) * math.sqrt(1 + 1 / K)
    low, high = t.interval(0.9, K - 1, draws.mean(axis=0), scale)
    return abs(float(((low <= y) & (y <= high)).mean()) - 0.9)


def _spread_skill(y: np.ndarray, draws: np.ndarray) -> float:
    variance, error = [], []
    for value, own in zip(y.tolist(), draws.T.tolist(), strict=True):
        mean = math.fsum(own) / K
        variance.append(math.fsum((x - mean) ** 2 for x in own) / (K - 1) * (K + 1) / K)
        error.append((value - mean) ** 2)
    return abs(0.5 * math.log(math.fsum(variance) / math.fsum(error)))


def _crps_fair(y: np.ndarray, draws: np.ndarray) -> float:
    found = []
    for value, own in zip(y.tolist(), draws.T.tolist(), strict=True):
        pairs = math.fsum(abs(a - b) for a in own for b in own)
        found.append(math.fsum(abs(x - value) for x in own) / K - pairs / (2 * K * (K - 1)))
    return math.fsum(found) / len(found)


def _crps_torchmetrics(y: np.ndarray, draws: np.ndarray) -> float:
    """Its score is the ensemble's; the difference to the mean error is its spread, here K / (K - 1) times."""
    need("torchmetrics")
    import torch

    try:
        from torchmetrics.functional.regression import continuous_ranked_probability_score as theirs
    except ImportError:
        raise Lacking("a torchmetrics that has the CRPS of an ensemble") from None
    error = np.abs(draws - y).mean()
    ensemble = float(theirs(torch.from_numpy(draws.T.copy()), torch.from_numpy(y)))
    return float(error - (error - ensemble) * K / (K - 1))


def _case(
    name: str, kind: Any, against: str, theirs: Callable[[np.ndarray, np.ndarray], float], note: str = ""
) -> Case:
    """One of a set metric of the four draws; float32 means and deviations leave 1e-6."""
    return Case(name, kind, against, lambda: _of_set(name, _drawn(), theirs), 1e-6, note=note)


SCATTER = "180,000 samples, their own scatter"


def _calibrated(name: str, tolerance: float) -> Case:
    """A set metric of draws that are of the truth's distribution: 0 by its definition, however few they are."""
    measure = lambda: _of_set(name, _perfect(), lambda y, draws: 0.0)  # noqa: E731 - as in the other cases
    return Case(name, "closed form", "0 for draws from the truth's own distribution", measure, tolerance, note=SCATTER)


CASES = [
    _case("ece_fair", "equation", "its definition value by value, Student's quantiles by halving", _ece_fair),
    _case("ece_fair", "library", "scipy.stats.t.cdf at the truth", _ece_fair_scipy),
    _calibrated("ece_fair", 2e-3),
    _case("cover_err_90", "equation", "its definition value by value, Student's quantile by halving", _cover),
    _case("cover_err_90", "library", "scipy.stats.t.interval", _cover_scipy),
    _calibrated("cover_err_90", 3e-3),
    _case("spread_skill_err", "equation", "its definition value by value", _spread_skill),
    _calibrated("spread_skill_err", 5e-3),
    Case("crps_fair", "equation", "its definition value by value, over all pairs of draws",
         lambda: (score_of("crps_fair", *_drawn()[:2]), _crps_fair(*_drawn()[2])), 1e-9),
    Case("crps_fair", "library", "torchmetrics' ensemble CRPS, its spread K / (K - 1) times",
         lambda: (score_of("crps_fair", *_drawn()[:2]), _crps_torchmetrics(*_drawn()[2])), 1e-9),
    Case("crps_fair", "closed form", "0.05 / sqrt(pi) for draws from the truth's own distribution",
         lambda: (score_of("crps_fair", *_perfect()[:2]), 0.05 / math.sqrt(math.pi)), 3e-4, note=SCATTER),
]  # fmt: skip
