"""How honest a predictive distribution is: likelihood, CRPS, calibration, coverage, spread against error.

A model's distribution is a Gaussian for each pixel and channel in display units, with the mean and the standard
deviation of its draws; it is held against the reference before rounding. Standard deviations below one grey
level, 1/255, are raised to it, since a deterministic pixel would make every score infinite.

A few draws give a noisy mean and deviation, which NLL, ECE and CRPS count as if the model had meant them. ``ece_fair``,
``cover_err_90``, ``spread_skill_err`` and ``crps_fair`` do not: a model whose draws come from the truth's distribution
has the best value whatever their number. ``docs/uncertainty.md`` says how much that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bench.core.errors import Unavailable
from bench.metrics.base import Estimate, Features, Metric, Reference, SetScore

SIGMA_FLOOR = 1.0 / 255.0
LEVELS = np.arange(1, 20) / 20.0
"""0.05 to 0.95 in steps of 0.05."""
_BLOCK_SAMPLES = 2**20


class _Gaussian(Metric):
    """What all of them share."""

    direction = "down"
    group = "uncertainty"
    display = False
    needs = ("reference", "distribution")
    masks = True


class Nll(_Gaussian):
    """Negative log-likelihood of the reference under the predicted Gaussians, mean per pixel and channel.

    ``ln(sigma sqrt(2 pi)) + (y - mu)^2 / (2 sigma^2)`` in nats, y, mu and sigma in display units [0, 1], so it can
    be negative (down to -4.6 at the floor of sigma). Lower is better.

    Source: T. Gneiting, A. E. Raftery, JASA 102, 2007, doi:10.1198/016214506000001437, section 4.1.

    Traps: some papers give the sum over samples, which is this times the number of values. In units of 0 to 255
    it would be 5.54 higher. Few draws make it worse than the model deserves: by 1.2 nats for 4, by 0.08 for 16.
    """

    name = "nll"
    title = "NLL"
    decimals = 3
    default = 11
    unit = "nats"
    parameters = ("gauss", "mean", "floor1/255")
    summary = "Negative log-likelihood, Gaussian"
    equation = "mean of ln(sigma sqrt(2 pi)) + (y - mu)^2 / (2 sigma^2)"
    bounds = (math.log(math.sqrt(2.0 * math.pi) / 255.0), math.inf)
    citation = "gneiting2007scoring"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The mean over valid pixels and channels."""
        y, mu, sigma = predicted(estimate, reference)
        return gaussian_nll(y, mu, sigma)


class Crps(_Gaussian):
    """Continuous ranked probability score of the predicted Gaussians, mean per pixel and channel; 0 is best.

    ``sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))`` with ``z = (y - mu) / sigma``, in display units [0, 1]. A
    sharp distribution makes it the mean absolute error.

    Source: T. Gneiting et al., Monthly Weather Review 133, 2005, doi:10.1175/MWR2904.1, eq. 5.

    Traps: the closed form for a Gaussian, not the score of the draws as an ensemble (``crps_fair``).
    """

    name = "crps"
    title = "CRPS"
    decimals = 4
    parameters = ("gauss", "mean", "floor1/255")
    summary = "Continuous ranked probability score, Gaussian"
    equation = "mean of sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (y - mu) / sigma"
    bounds = (0.0, math.inf)
    citation = "gneiting2007scoring gneiting2005emos"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The mean over valid pixels and channels."""
        y, mu, sigma = predicted(estimate, reference)
        return gaussian_crps(y, mu, sigma)


class Ece(_Gaussian):
    """Expected calibration error of the predicted quantiles; 0 is calibrated, 0.5 the most.

    For the levels p = 0.05, 0.10, ..., 0.95: the share of reference values at or below ``mu + sigma ppf(p)``, over all
    pixels and channels of the set, minus p; mean of the absolute differences, equal weights.

    Source: V. Kuleshov, N. Fenner, S. Ermon, ICML 2018, arXiv:1807.00263, section 3.4 (its weights equal, absolute
    instead of squared differences).

    Traps: the levels are part of the definition: 100 levels from 0 to 1 with both ends, as uncertainty-toolbox
    has, give a smaller number. The set's value is not the mean of the images', which are each higher. Four draws of a
    perfect model have 0.040, sixteen 0.010: see ``ece_fair``.
    """

    name = "ece"
    title = "ECE"
    decimals = 3
    default: ClassVar[int | None] = 12
    level = "set"
    parameters = ("gauss", "quantiles0.05..0.95/0.05", "floor1/255")
    summary = "Expected calibration error of quantiles"
    equation = "mean over the levels p of |share of y <= mu + sigma ppf(p) - p|"
    bounds = (0.0, 0.5)
    citation = "kuleshov2018calibrated"

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """The share of values at or below each level's quantile, and the number of pixels."""
        y, mu, sigma = predicted(estimate, reference)
        coverage = share_below(y, mu, sigma, self._quantiles(estimate))
        return {"coverage": coverage, "pixels": np.array([len(y)], np.float64)}

    def _quantiles(self, estimate: Estimate) -> np.ndarray:
        """Of the standardised distribution, at ``LEVELS``."""
        from scipy.special import ndtri

        return np.asarray(ndtri(LEVELS))

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The error of the pooled shares; ``per_image`` holds each image's own."""
        coverage = np.stack([f["coverage"] for f in features]).astype(np.float64)
        pixels = np.array([float(f["pixels"][0]) for f in features])
        pooled = pixels @ coverage / pixels.sum()
        per_image = tuple(float(e) for e in np.abs(coverage - LEVELS).mean(axis=1))
        details = {"levels": LEVELS.tolist(), "coverage": pooled.tolist(), "pixels": int(pixels.sum())}
        return SetScore(float(np.abs(pooled - LEVELS).mean()), per_image, details)


class EceFair(Ece):
    """Expected calibration error whose quantiles know how many draws they come from; 0 is calibrated, 0.5 the most.

    As ``ece``, with the quantiles of the predictive distribution of a Gaussian that is known from K draws only: ``m + s
    sqrt(1 + 1/K) t(p)``, t of Student's distribution with K - 1 degrees of freedom, m and s the mean and the deviation
    (K - 1) of the draws. A model whose draws come from the truth's Gaussian scores 0 whatever K, where ``ece`` has
    0.040 for K = 4. Of a model that gives mean and deviation itself it is ``ece``.

    Source: as ``ece``; ``(y - m) / (s sqrt(1 + 1/K))`` is Student's t by its definition, if y and the draws are of one
    Gaussian.

    Traps: exact for Gaussian draws; heavy tails or two modes are errors of the model here. It cannot be compared with
    ``ece``, nor with published ECE of few draws.
    """

    name = "ece_fair"
    title = "ECE-fair"
    decimals = 3
    default = None
    parameters = ("student-K", "quantiles0.05..0.95/0.05", "floor1/255")
    summary = "Expected calibration error, corrected for the number of draws"
    equation = "mean over the levels p of |share of y <= m + s sqrt(1 + 1/K) t_{K-1}(p) - p|"
    citation = "kuleshov2018calibrated"

    def _quantiles(self, estimate: Estimate) -> np.ndarray:
        return predictive_quantiles(LEVELS, draws_of(estimate))


class CoverErr90(_Gaussian):
    """Coverage error of the central 90 % interval: how far the share of values within it is from 0.9; 0 is best.

    The interval is ``m +- s sqrt(1 + 1/K) t(0.95)`` of K draws (as ``ece_fair``), or ``mu +- sigma ppf(0.95)`` of a
    model that gives mean and deviation itself. The share is pooled over all pixels and channels of the set. The
    coverage itself, which says whether the intervals are too wide or too narrow, is in the details.

    Source: T. Gneiting, F. Balabdaoui, A. E. Raftery, JRSS B 69, 2007, doi:10.1111/j.1467-9868.2007.00587.x, section 3.

    Traps: without the correction the interval of 4 draws holds 76 % of the truth when nothing is wrong. Coverage alone
    is met by intervals that are wide where they need not be; look at ``crps`` beside it. Pixels are not independent,
    so its scatter is that of scenes, not of pixels.
    """

    name = "cover_err_90"
    title = "Cov90 error"
    decimals = 3
    level = "set"
    parameters = ("central0.9", "student-K", "floor1/255")
    summary = "Coverage error of the central 90 % interval"
    equation = "|share of |y - m| <= s sqrt(1 + 1/K) t_{K-1}(0.95) - 0.9|"
    bounds = (0.0, 0.9)
    citation = "gneiting2007calibration"
    nominal: ClassVar[float] = 0.9

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """The share of values within the interval, and the number of pixels."""
        y, mu, sigma = predicted(estimate, reference)
        half = predictive_quantiles(np.array([(1.0 + self.nominal) / 2.0]), draws_of(estimate))[0]
        share = (np.abs(y - mu) <= sigma * half).mean()
        return {"coverage": np.array([share]), "pixels": np.array([len(y)], np.float64)}

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The error of the pooled share; ``per_image`` holds each image's own."""
        coverage = np.array([float(f["coverage"][0]) for f in features])
        pixels = np.array([float(f["pixels"][0]) for f in features])
        pooled = float(pixels @ coverage / pixels.sum())
        per_image = tuple(float(e) for e in np.abs(coverage - self.nominal))
        details = {"nominal": self.nominal, "coverage": pooled, "pixels": int(pixels.sum())}
        return SetScore(abs(pooled - self.nominal), per_image, details)


class SpreadSkillErr(_Gaussian):
    """How far the predicted spread is from the error made, as |ln(spread / skill)|; 0 is best, 0.69 a factor of 2.

    Spread is the root mean predicted variance, skill the root mean squared error of the mean, over all pixels and
    channels of the set. The variance of K draws (K - 1 in the denominator) is multiplied by (K + 1) / K, since the mean
    of K draws errs by its own scatter too. Deviations are not raised to a floor. Spread, skill and their ratio (below
    1: too sure of itself) are in the details.

    Source: V. Fortin, M. Abaza, F. Anctil, R. Turcotte, Journal of Hydrometeorology 15, 2014,
    doi:10.1175/JHM-D-14-0008.1.

    Traps: the mean of the variances, not of the deviations, which is smaller. Equal spread and skill of a whole set say
    nothing about where the spread is; ``ece`` and ``rfbench plot error`` do.
    """

    name = "spread_skill_err"
    title = "Spread-skill"
    decimals = 3
    unit = "ln"
    level = "set"
    parameters = ("rms", "(K+1)/K", "ln-ratio")
    summary = "Spread against error of the mean, log ratio"
    equation = "|ln sqrt(mean s^2 (K + 1) / K / mean (y - m)^2)|"
    bounds = (0.0, math.inf)
    citation = "fortin2014spread"

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """The means of the predicted variance and of the squared error, and the number of pixels."""
        y, mu, sigma = predicted(estimate, reference, floor=0.0)
        draws = draws_of(estimate)
        variance = (sigma**2).mean() * (1.0 if draws is None else (draws + 1.0) / draws)
        return {
            "variance": np.array([variance]),
            "squared_error": np.array([((y - mu) ** 2).mean()]),
            "pixels": np.array([len(y)], np.float64),
        }

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The log ratio of the pooled root means; ``per_image`` holds each image's own where it has one."""
        variance, error, pixels = (
            np.array([float(f[key][0]) for f in features]) for key in ("variance", "squared_error", "pixels")
        )
        spread, skill = (math.sqrt(pixels @ part / pixels.sum()) for part in (variance, error))
        if spread == 0.0 or skill == 0.0:
            what = "the predicted deviation" if spread == 0.0 else "the error of the mean"
            raise Unavailable(f"{what} is 0 everywhere; it has no ratio")
        per_image = tuple(
            abs(0.5 * math.log(v / e)) if v > 0.0 and e > 0.0 else None for v, e in zip(variance, error, strict=True)
        )
        details = {"spread": spread, "skill": skill, "ratio": spread / skill, "pixels": int(pixels.sum())}
        return SetScore(abs(math.log(spread / skill)), per_image, details)


class CrpsFair(_Gaussian):
    """Continuous ranked probability score of the draws themselves, corrected for their number; 0 is best.

    ``mean |x_k - y| - sum_{i<j} |x_i - x_j| / (K (K - 1))``, the mean over pixels and channels, in display units
    [0, 1]. No Gaussian is assumed, and no floor. Its expectation is that of infinitely many draws, so models with
    different numbers of draws may be compared.

    Source: C. A. T. Ferro, QJRMS 140, 2014, doi:10.1002/qj.2270.

    Traps: the score of the draws as an ensemble, without the correction, is 1 + 1/K times as large for a calibrated
    model. A model that gives a mean and a deviation has no draws; ``crps`` is its score.
    """

    name = "crps_fair"
    title = "CRPS-fair"
    decimals = 4
    parameters = ("draws", "fair", "mean")
    summary = "Continuous ranked probability score of the draws, fair"
    equation = "mean of mean_k |x_k - y| - sum_{i<j} |x_i - x_j| / (K (K - 1))"
    bounds = (0.0, math.inf)
    citation = "ferro2014fair gneiting2007scoring"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The mean over valid pixels and channels."""
        if estimate.draws is None:
            raise Unavailable("the model gives mean and deviation, not draws; crps is its score")
        assert reference.display_float is not None  # ``needs`` says so
        return ensemble_crps(reference.display_float[reference.valid], estimate.draws[:, reference.valid])


def gaussian_nll(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    """Mean of -ln N(y; mu, sigma^2)."""
    return float((np.log(sigma) + 0.5 * np.log(2.0 * np.pi) + 0.5 * ((y - mu) / sigma) ** 2).mean())


def gaussian_crps(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    """Mean of the CRPS of N(mu, sigma^2) at y."""
    from scipy.special import ndtr

    z = (y - mu) / sigma
    density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    return float((sigma * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))).mean())


def ensemble_crps(y: np.ndarray, draws: np.ndarray) -> float:
    """Mean fair CRPS of K >= 2 draws, (K, ...) against (...): the sum over pairs is one over sorted draws."""
    count = len(draws)
    weights = 2.0 * np.arange(1, count + 1) - count - 1.0
    observed, total = y.reshape(-1), 0.0
    flat = draws.reshape(count, -1)
    step = max(1, _BLOCK_SAMPLES // count)
    for start in range(0, observed.size, step):
        x = np.sort(flat[:, start : start + step].astype(np.float64), axis=0)
        total += np.abs(x - observed[start : start + step]).sum() / count
        total -= (weights @ x).sum() / (count * (count - 1.0))
    return float(total / observed.size)


def quantile_coverage(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray, levels: np.ndarray = LEVELS) -> np.ndarray:
    """For each level p the share of y at or below ``mu + sigma ppf(p)``."""
    from scipy.special import ndtri

    return share_below(y, mu, sigma, np.asarray(ndtri(levels)))


def share_below(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """For each q the share of y at or below ``mu + sigma q``."""
    return np.array([(y <= mu + sigma * q).mean() for q in quantiles])


def predictive_quantiles(levels: np.ndarray, draws: int | None) -> np.ndarray:
    """Quantiles of (y - m) / s where mean m and deviation s (K - 1) are of K draws from the Gaussian of y.

    They are ``sqrt(1 + 1/K)`` times Student's with K - 1 degrees of freedom; for None, a known mean and deviation, the
    Gaussian's.
    """
    from scipy.special import ndtri, stdtrit

    if draws is None:
        return np.asarray(ndtri(levels))
    return np.asarray(math.sqrt(1.0 + 1.0 / draws) * stdtrit(draws - 1, levels))


def draws_of(estimate: Estimate) -> int | None:
    """How many draws mean and deviation are of; None where the model gave them itself."""
    return None if estimate.draws is None else len(estimate.draws)


def interval_coverage(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray, levels: np.ndarray = LEVELS) -> np.ndarray:
    """For each level p the share of y in the central interval ``mu +- sigma ppf((1 + p) / 2)``."""
    from scipy.special import ndtri

    z = np.abs(y - mu) / sigma
    return np.array([(z <= ndtri((1.0 + p) / 2.0)).mean() for p in levels])


def predicted(
    estimate: Estimate, reference: Reference, floor: float = SIGMA_FLOOR
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference, mean and floored deviation of the valid pixels, (N, 3) float64; Unavailable where there are none."""
    if estimate.mean is None or estimate.std is None:
        raise Unavailable("no predictive distribution (a single deterministic image)")
    if reference.display_float is None:
        raise Unavailable("no reference image before rounding")
    y, mu, sigma = (
        a[reference.valid].astype(np.float64) for a in (reference.display_float, estimate.mean, estimate.std)
    )
    return y, mu, np.maximum(sigma, floor)
