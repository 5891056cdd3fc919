"""How the spread that a run predicted holds against its references: coverage of intervals, error by deviation.

Everything comes from the stored predictions through the code that scored them, so the deviation is that of NLL and ECE
(K - 1, floor of one grey level) and the ECE is the table's. Memory holds one image and sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError
from bench.metrics.base import Features, Score
from bench.metrics.uncertainty import LEVELS, SIGMA_FLOOR, Ece, interval_coverage, predicted
from bench.records.folder import RunFolder
from bench.records.run import read_run
from bench.score.replay import replay
from bench.stats.percentiles import ratio_interval

Float64 = npt.NDArray[np.float64]
BINS = 15
# Deviations are counted in this many steps from the floor to 1, 0.14 % each, and the steps joined to bins at the end:
# equal counts without sorting, or even keeping, the pixels of all images.
_STEPS = 4096


@dataclass(frozen=True)
class Calibration:
    """A model's predictive distribution against the references of a run.

    Attributes
    ----------
    draws : K where the deviation is that of K draws, None where the model gave it.
    ece : the run's expected calibration error.
    levels, coverage : nominal and observed share of values in the central intervals, pooled over pixels and channels.
    low, high : 95 % interval of ``coverage`` under resampling of scenes; None for a single scene.
    deviation, rmse : in ``BINS`` bins of about equally many values by predicted deviation, the root mean squares of the
        deviation and of the error of the mean, in display units [0, 1].
    images, left_out : how many were used, and for how many no distribution could be held against a reference.
    """

    draws: int | None
    ece: float
    levels: Float64
    coverage: Float64
    low: Float64 | None
    high: Float64 | None
    deviation: Float64
    rmse: Float64
    images: int
    left_out: int


def calibration(run: RunFolder, data: str | None = None) -> Calibration | str:
    """The calibration of a finished run, or why it has none. Raises what ``replay`` raises.

    Sources: intervals: T. Gneiting, F. Balabdaoui, A. E. Raftery, JRSS B 69, 2007,
    doi:10.1111/j.1467-9868.2007.00587.x; error by deviation (equal counts, root mean variance): D. Levi et al.,
    arXiv:1905.11659.
    """
    metric = Ece()
    features: list[Features] = []
    counts: list[Float64] = []
    scenes: list[str] = []
    steps = np.zeros((3, _STEPS))  # count, squared deviation, squared error
    reason, left_out = "", 0
    for task, estimates in replay(run, data):
        estimate = estimates["sample"]
        if estimate.std is None and not features:
            return f"no predictive distribution ({estimate.no_distribution})"
        found = metric.gather(estimate, task.reference)
        if isinstance(found, Score):
            reason, left_out = str(found.reason or ""), left_out + 1
            continue
        y, mu, sigma = predicted(estimate, task.reference)
        features.append(found)
        counts.append(interval_coverage(y, mu, sigma) * y.size)
        scenes.append(task.scene_id)
        at = (np.log(sigma / SIGMA_FLOOR) * (_STEPS / -np.log(SIGMA_FLOOR))).astype(int).clip(0, _STEPS - 1).ravel()
        for total, weights in zip(steps, (None, sigma**2, (y - mu) ** 2), strict=True):
            total += np.bincount(at, None if weights is None else weights.ravel(), _STEPS)
    if not features:
        return reason or "no image was scored"
    error = metric.combine(features)
    if isinstance(error, Score):
        raise RfbenchError(f"{run.path}: {error.reason}")
    values = np.array([3.0 * f["pixels"][0] for f in features])
    coverage = np.sum(counts, axis=0) / values.sum()
    low = high = None
    if len(set(scenes)) > 1:
        low, high = ratio_interval(np.array(counts), values, scenes)
    deviation, rmse = _binned(steps)
    finished = read_run(run)
    draws = finished.plan.draws if "mean" in finished.kinds else None
    return Calibration(
        draws, error.value, LEVELS, coverage, low, high, deviation, rmse, images=len(features), left_out=left_out
    )


def expected_coverage(draws: int, levels: Float64 = LEVELS) -> Float64:
    """The coverage that a perfect model shows when mean and deviation of its Gaussian come from K draws.

    The mean has an error of its own and the deviation is noisy: (y - mean) / deviation is sqrt(1 + 1 / K) times a
    Student t of K - 1 degrees of freedom. With 4 draws the 90 % interval holds 76 %.
    """
    from scipy.special import ndtri, stdtr

    t = ndtri((1.0 + levels) / 2.0) / np.sqrt(1.0 + 1.0 / draws)
    return np.asarray(2.0 * stdtr(draws - 1, t) - 1.0)


def _binned(steps: Float64) -> tuple[Float64, Float64]:
    """Root mean squared deviation and error of the bins that ``steps`` are joined to, each by its middle value."""
    count = steps[0]
    middle = np.cumsum(count) - count / 2
    bins = np.minimum((middle / count.sum() * BINS).astype(int), BINS - 1)
    joined = np.stack([np.bincount(bins, row, BINS) for row in steps])
    joined = joined[:, joined[0] > 0]
    return np.sqrt(joined[1] / joined[0]), np.sqrt(joined[2] / joined[0])
