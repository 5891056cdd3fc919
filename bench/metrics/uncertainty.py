"""How honest a predictive distribution is: negative log-likelihood, CRPS, calibration error.

A model's distribution is a Gaussian for each pixel and channel in display units, with the mean and the standard
deviation of its draws; it is held against the reference before rounding. Standard deviations below one grey
level, 1/255, are raised to it, since a deterministic pixel would make every score infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.core.errors import Unavailable
from bench.metrics.base import Estimate, Features, Metric, Reference, SetScore

SIGMA_FLOOR = 1.0 / 255.0
LEVELS = np.arange(1, 20) / 20.0
"""0.05 to 0.95 in steps of 0.05."""


class _Gaussian(Metric):
    """What the three share."""

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
    it would be 5.54 higher.
    """

    name = "nll"
    title = "NLL"
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

    Traps: the closed form for a Gaussian, not the score of the draws as an ensemble.
    """

    name = "crps"
    title = "CRPS"
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
    has, give a smaller number. The set's value is not the mean of the images', which are each higher.
    """

    name = "ece"
    title = "ECE"
    level = "set"
    parameters = ("gauss", "quantiles0.05..0.95/0.05", "floor1/255")
    summary = "Expected calibration error of quantiles"
    equation = "mean over the levels p of |share of y <= mu + sigma ppf(p) - p|"
    bounds = (0.0, 0.5)
    citation = "kuleshov2018calibrated"

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """The share of values at or below each level's quantile, and the number of pixels."""
        y, mu, sigma = predicted(estimate, reference)
        return {"coverage": quantile_coverage(y, mu, sigma), "pixels": np.array([len(y)], np.float64)}

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The error of the pooled shares; ``per_image`` holds each image's own."""
        coverage = np.stack([f["coverage"] for f in features]).astype(np.float64)
        pixels = np.array([float(f["pixels"][0]) for f in features])
        pooled = pixels @ coverage / pixels.sum()
        per_image = tuple(float(e) for e in np.abs(coverage - LEVELS).mean(axis=1))
        details = {"levels": LEVELS.tolist(), "coverage": pooled.tolist(), "pixels": int(pixels.sum())}
        return SetScore(float(np.abs(pooled - LEVELS).mean()), per_image, details)


def gaussian_nll(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    """Mean of -ln N(y; mu, sigma^2)."""
    return float((np.log(sigma) + 0.5 * np.log(2.0 * np.pi) + 0.5 * ((y - mu) / sigma) ** 2).mean())


def gaussian_crps(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    """Mean of the CRPS of N(mu, sigma^2) at y."""
    from scipy.special import ndtr

    z = (y - mu) / sigma
    density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    return float((sigma * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))).mean())


def quantile_coverage(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray, levels: np.ndarray = LEVELS) -> np.ndarray:
    """For each level p the share of y at or below ``mu + sigma ppf(p)``."""
    from scipy.special import ndtri

    return np.array([(y <= mu + sigma * ndtri(p)).mean() for p in levels])


def interval_coverage(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray, levels: np.ndarray = LEVELS) -> np.ndarray:
    """For each level p the share of y in the central interval ``mu +- sigma ppf((1 + p) / 2)``."""
    from scipy.special import ndtri

    z = np.abs(y - mu) / sigma
    return np.array([(z <= ndtri((1.0 + p) / 2.0)).mean() for p in levels])


def predicted(estimate: Estimate, reference: Reference) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference, mean and floored deviation of the valid pixels, (N, 3) float64; Unavailable where there are none."""
    if estimate.mean is None or estimate.std is None:
        raise Unavailable("no predictive distribution (a single deterministic image)")
    if reference.display_float is None:
        raise Unavailable("no reference image before rounding")
    y, mu, sigma = (
        a[reference.valid].astype(np.float64) for a in (reference.display_float, estimate.mean, estimate.std)
    )
    return y, mu, np.maximum(sigma, SIGMA_FLOOR)
