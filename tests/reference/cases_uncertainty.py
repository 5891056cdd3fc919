"""NLL, CRPS and ECE against equations, closed forms, libraries and published values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.metrics import uncertainty
from bench.metrics.base import Estimate, Score
from tests.reference import equations, pictures
from tests.reference.cases import Case, Values, furthest, ready, score_of
from tests.reference.pictures import need

# The three samples of uncertainty-toolbox's own tests (6ea1fed6, tests/test_metrics_scoring_rule.py and
# test_metrics_calibration.py, MIT), and what these expect.
MU, SIGMA, Y = np.array([1.0, 2, 3]), np.array([0.1, 0.5, 1.0]), np.array([1.5, 3, 2])
LEVELS_100 = np.linspace(0, 1, 100)
HERE = tuple(k / 20 for k in range(1, 20))


def _distribution() -> tuple[pictures.Estimate, pictures.Reference, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A predicted mean and deviation of 24x30 px, too narrow by a third; and y, mu, sigma in float64."""
    random = np.random.default_rng(7)
    truth = pictures.clean(24, 30, 7)
    mean = np.float32(truth + random.normal(0, 0.05, truth.shape))
    std = np.float32(0.05 / 1.5 * random.uniform(0.5, 1.5, truth.shape))
    _, reference = pictures.held((truth, truth))
    estimate = Estimate(truth, truth, None, mean, std)
    return estimate, reference, (truth.astype(np.float64), mean.astype(np.float64), std.astype(np.float64))


def _of_image(name: str, theirs: Any) -> Values:
    estimate, reference, arrays = _distribution()
    return score_of(name, estimate, reference), theirs(*arrays)


def _of_set(theirs: Any) -> Values:
    estimate, reference, arrays = _distribution()
    metric = ready("ece")
    features = metric.gather(estimate, reference)
    assert not isinstance(features, Score)
    found = metric.combine([features])
    assert found.value is not None
    return found.value, theirs(*arrays)


def _nll_mean(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    return equations.nll_sum(y, mu, sigma) / y.size


def _nll_scipy(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    from scipy.stats import norm

    return float(-norm.logpdf(y, mu, sigma).mean())


def _nll_torch(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    import torch

    mean, value, deviation = (torch.from_numpy(x) for x in (mu, y, sigma))
    return float(torch.nn.functional.gaussian_nll_loss(mean, value, deviation**2, full=True, eps=1e-12))


def _toolbox(function: str, **options: Any) -> Any:
    """A function of uncertainty-toolbox, called with y, mu, sigma."""

    def call(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
        need("uncertainty_toolbox")
        import uncertainty_toolbox

        return float(getattr(uncertainty_toolbox, function)(mu.ravel(), sigma.ravel(), y.ravel(), **options))

    return call


def _coverage_toolbox() -> Values:
    """Our shares at its 100 levels. Its proportions count mu - y, the mirror image of ours."""
    _, _, (y, mu, sigma) = _distribution()
    shares = uncertainty.quantile_coverage(-y.ravel(), -mu.ravel(), sigma.ravel(), LEVELS_100)
    theirs = _toolbox("mean_absolute_calibration_error", num_bins=100, vectorized=True, prop_type="quantile")
    return float(np.abs(shares - LEVELS_100).mean()), theirs(y, mu, sigma)


def _crps_integral(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    values = list(zip(y.ravel().tolist(), mu.ravel().tolist(), sigma.ravel().tolist(), strict=True))
    return math.fsum(equations.crps(*v, steps=400) for v in values) / len(values)


def _published_coverage() -> float:
    shares = uncertainty.quantile_coverage(-Y, -MU, SIGMA, LEVELS_100)
    return float(np.abs(shares - LEVELS_100).mean())


def _kept(what: str) -> Values:
    """uncertainty-toolbox's values of three kept sets of 500 samples: the furthest."""
    values, arrays = pictures.arrays_of_others("uncertainty_cases")
    found = []
    for case, expected in values.items():
        mu, sigma, y = (arrays[f"{case}_{k}"].astype(np.float64) for k in ("mu", "sd", "y"))
        if what == "nll":
            found.append((uncertainty.gaussian_nll(y, mu, sigma), expected["nll_gaussian_mean"]))
            continue
        shares = uncertainty.quantile_coverage(-y, -mu, sigma, LEVELS_100)
        found.append((float(np.abs(shares - LEVELS_100).mean()), expected["mace_quantile_100"]))
        for level, share in expected["coverage_at_levels"].items():
            found.append((float(shares[np.abs(LEVELS_100 - float(level)).argmin()]), share))
    return furthest(iter(found))


def _calibrated() -> Values:
    """The quantiles of the normal distribution themselves as errors: each level is met to half a sample."""
    from scipy.special import ndtri

    n = 19999
    y = ndtri((np.arange(n) + 0.5) / n)
    shares = uncertainty.quantile_coverage(y, np.zeros(n), np.ones(n))
    return float(np.abs(shares - uncertainty.LEVELS).mean()), 0.0


CASES = [
    Case("nll", "equation", "eq. 35 over n: the paper's sum, value by value, divided by their number",
         lambda: _of_image("nll", _nll_mean), 1e-9),
    Case("nll", "library", "scipy.stats.norm.logpdf", lambda: _of_image("nll", _nll_scipy), 1e-9),
    Case("nll", "library", "torch.nn.functional.gaussian_nll_loss, full", lambda: _of_image("nll", _nll_torch), 1e-9),
    Case("nll", "library", "uncertainty-toolbox", lambda: _of_image("nll", _toolbox("nll_gaussian")), 1e-9),
    Case("nll", "published", "three samples of uncertainty-toolbox's tests",
         lambda: (uncertainty.gaussian_nll(Y, MU, SIGMA), 4.920361108686675), 1e-12),
    Case("nll", "published", "the same as eq. 35's sum",
         lambda: (3 * uncertainty.gaussian_nll(Y, MU, SIGMA), 14.761083326060026), 1e-12),
    Case("nll", "library", "uncertainty-toolbox on three kept sets of 500: the furthest", lambda: _kept("nll"), 1e-9,
         note="computed once with uncertainty-toolbox 0.1.1"),
    Case("ece", "equation", "eq. 36-37 at 19 levels, value by value, quantiles of the standard library",
         lambda: _of_set(lambda y, mu, sigma: equations.ece(y, mu, sigma, HERE)), 1e-9),
    Case("ece", "closed form", "0 for errors that are the quantiles themselves", _calibrated, 5e-5,
         note="a level is met to half a sample of 19999"),
    Case("ece", "library", "uncertainty-toolbox at its 100 levels, both ends included", _coverage_toolbox, 1e-9),
    Case("ece", "library", "uncertainty-toolbox on three kept sets of 500, shares and error: the furthest",
         lambda: _kept("ece"), 1e-9, note="computed once with uncertainty-toolbox 0.1.1"),
    Case("ece", "published", "three samples of uncertainty-toolbox's tests, its 100 levels",
         lambda: (_published_coverage(), 0.23757575757575758), 1e-12),
    Case("crps", "equation", "the integral of (F - step)^2, value by value",
         lambda: _of_image("crps", _crps_integral), 1e-6, note="midpoint rule of 800 steps"),
    Case("crps", "closed form", "sigma (sqrt(2) - 1) / sqrt(pi) at y = mu",
         lambda: (uncertainty.gaussian_crps(np.zeros(1), np.zeros(1), np.ones(1)),
                  (math.sqrt(2) - 1) / math.sqrt(math.pi)), 1e-12),
    Case("crps", "library", "uncertainty-toolbox", lambda: _of_image("crps", _toolbox("crps_gaussian")), 1e-9),
]  # fmt: skip
