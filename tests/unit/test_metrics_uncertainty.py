"""Coverage, spread and calibration of few draws: against closed forms, plain formulas and simulation."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.check.pairs import measure, scene
from bench.metrics import uncertainty
from bench.metrics.base import Estimate, Metric, Reference, Setting
from bench.metrics.uncertainty import CoverErr90, Crps, CrpsFair, Ece, EceFair, Nll, SpreadSkillErr
from tests.bench import draws as simulation
from tests.bench.draws import SIGMA, images, of_images, of_set
from tests.conftest import ROOT, write_dataset

FAIR = [EceFair, CoverErr90, SpreadSkillErr]
ALL = [Nll, Crps, Ece, *FAIR, CrpsFair]


@pytest.fixture(scope="module")
def four() -> list[tuple[Estimate, Reference]]:
    """A right model of four draws: 400,000 values."""
    return images(4, 8, 130)


# --- a model that is right --------------------------------------------------------------------------------------------


def test_four_draws_of_a_right_model_are_right_where_it_is_corrected(four: Any) -> None:
    values = 8 * 130**2 * 3
    chance = simulation.ece_of_chance(values)
    assert of_set(Ece(), four).value == pytest.approx(simulation.ece_of(4), abs=4 * chance)
    assert simulation.ece_of(4) == pytest.approx(0.0404, abs=1e-4)
    assert of_set(EceFair(), four).value < 4 * chance
    cover = of_set(CoverErr90(), four)
    assert cover.details["coverage"] == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / values))
    assert cover.value == pytest.approx(abs(cover.details["coverage"] - 0.9))
    spread = of_set(SpreadSkillErr(), four)
    assert spread.details["ratio"] == pytest.approx(1.0, abs=0.01)
    assert spread.value == pytest.approx(abs(math.log(spread.details["ratio"])))
    assert spread.details["skill"] == pytest.approx(SIGMA * math.sqrt(5 / 4), rel=0.01)


@pytest.mark.parametrize("claimed", [0.5, 2.0])
def test_a_model_that_is_too_sure_or_too_careful_is_seen(claimed: float) -> None:
    pairs = images(8, 2, 100, claimed=claimed)
    spread, cover = of_set(SpreadSkillErr(), pairs), of_set(CoverErr90(), pairs)
    # the mean of 8 draws errs by sigma sqrt(1 + claimed^2 / 8)
    expected = math.log(claimed * math.sqrt(9 / 8) / math.sqrt(1 + claimed**2 / 8))
    assert spread.value == pytest.approx(abs(expected), abs=0.02)
    assert (spread.details["ratio"] < 1) == (claimed < 1) == (cover.details["coverage"] < 0.9)
    assert of_set(EceFair(), pairs).value > 0.04


def test_fair_crps_does_not_depend_on_the_number_of_draws() -> None:
    """Its expectation is sigma / sqrt(pi), that of the truth's own Gaussian."""
    for k in (2, 4, 16):
        assert of_images(CrpsFair(), images(k, 4, 100)) == pytest.approx(SIGMA / math.sqrt(math.pi), rel=0.01)


def test_ece_of_a_right_model_falls_at_the_rate_that_theory_gives() -> None:
    """Binomial shares: sqrt(2 / (pi n)) mean sqrt(p (1 - p)), within the scatter of 60 repetitions."""
    for side in (12, 40):
        found = [of_set(Ece(), images(None, 1, side, seed=s)).value for s in range(60)]
        theory = simulation.ece_of_chance(3 * side**2)
        assert np.mean(found) == pytest.approx(theory, abs=4 * np.std(found) / math.sqrt(60))
        assert np.std(found) < theory


def test_nll_of_draws_has_the_excess_that_theory_gives() -> None:
    pairs = images(16, 4, 100)
    truth = 0.5 * math.log(2 * math.pi * math.e) + math.log(SIGMA)
    assert of_images(Nll(), pairs) - truth == pytest.approx(simulation.nll_excess(16), abs=0.01)
    assert simulation.nll_excess(4) == pytest.approx(1.19, abs=0.01) and math.isinf(simulation.nll_excess(3))


def test_a_known_mean_and_deviation_need_no_correction() -> None:
    pairs = images(None, 2, 60)
    assert of_set(EceFair(), pairs) == of_set(Ece(), pairs)
    estimate, reference = pairs[0]
    z = np.abs(reference.display_float - estimate.mean) / estimate.std
    share = (z <= stats.norm.ppf(0.95)).mean()
    assert of_set(CoverErr90(), pairs[:1]).details["coverage"] == pytest.approx(share, abs=1e-3)
    plain = np.sqrt((estimate.std.astype(float) ** 2).mean() / ((reference.display_float - estimate.mean) ** 2).mean())
    assert of_set(SpreadSkillErr(), pairs[:1]).details["ratio"] == pytest.approx(plain, rel=1e-6)
    assert "not draws" in str(CrpsFair().assess(estimate, reference).reason)


# --- formulas written otherwise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 7])
def test_fair_crps_is_the_sum_over_pairs(k: int) -> None:
    rng = np.random.default_rng(k)
    y, x = rng.random((6, 5, 3)), rng.random((k, 6, 5, 3))
    pairs = sum(np.abs(x[i] - x[j]) for i in range(k) for j in range(k)) / (2 * k * (k - 1))
    expected = (np.abs(x - y).mean(axis=0) - pairs).mean()
    assert uncertainty.ensemble_crps(y, x) == pytest.approx(expected, rel=1e-12)
    assert uncertainty.ensemble_crps(y, x[::-1]) == pytest.approx(expected, rel=1e-12)


def test_fair_crps_is_the_integral_over_the_draws_steps_with_the_correction() -> None:
    """The ensemble's CRPS is the integral of (F(t) - [t >= y])^2; the fair one counts pairs by K (K - 1), not K^2."""
    rng = np.random.default_rng(0)
    for k in (2, 5):
        x, y = np.sort(rng.random(k)), rng.random()
        edges = np.sort(np.append(x, y))
        middle = (edges[1:] + edges[:-1]) / 2
        steps = (x[None] <= middle[:, None]).mean(axis=1) - (middle >= y)
        integral = (steps**2 * np.diff(edges)).sum()
        spread = np.abs(x[:, None] - x[None]).sum()
        expected = integral - spread * (1 / (2 * k * (k - 1)) - 1 / (2 * k * k))
        assert uncertainty.ensemble_crps(np.array([y]), x[:, None]) == pytest.approx(expected, abs=1e-12)


def test_fair_crps_of_large_images_is_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y, x = rng.random((50, 40, 3)).astype(np.float32), rng.random((4, 50, 40, 3)).astype(np.float32)
    whole = uncertainty.ensemble_crps(y, x)
    monkeypatch.setattr(uncertainty, "_BLOCK_SAMPLES", 1000)
    assert uncertainty.ensemble_crps(y, x) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("k", [2, 4, 32])
def test_predictive_quantiles_are_student_s(k: int) -> None:
    levels = np.array([0.05, 0.5, 0.95])
    expected = math.sqrt(1 + 1 / k) * stats.t(k - 1).ppf(levels)
    np.testing.assert_allclose(uncertainty.predictive_quantiles(levels, k), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(uncertainty.predictive_quantiles(levels, None), stats.norm.ppf(levels), atol=1e-12)


def test_sets_are_pooled_by_pixels() -> None:
    large, small = images(4, 1, 60), images(4, 1, 30, seed=1, claimed=0.4)
    for kind in FAIR:
        both, apart = of_set(kind(), large + small), [of_set(kind(), p) for p in (large, small)]
        assert both.per_image == pytest.approx([a.value for a in apart])
        assert both.details["pixels"] == 60**2 + 30**2
    share = (4 * of_set(CoverErr90(), large).details["coverage"] + of_set(CoverErr90(), small).details["coverage"]) / 5
    assert of_set(CoverErr90(), large + small).details["coverage"] == pytest.approx(share)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_deviations_that_are_none(kind: type[Metric], four: Any) -> None:
    estimate, reference = four[0]
    std = estimate.std.copy()
    std[3, 4, 1] = -0.01
    found = measure(kind(Setting()), (replace(estimate, std=std), reference))
    assert str(found.reason) == "the predicted deviation is negative (-0.01), so quantiles would cross"
    std[3, 4, 1] = np.nan
    assert "not finite" in str(measure(kind(Setting()), (replace(estimate, std=std), reference)).reason)
    assert "has the shape" in str(measure(kind(Setting()), (replace(estimate, std=std[:5]), reference)).reason)
    one = replace(estimate, mean=None, std=None, draws=None, no_distribution="one draw has no spread")
    assert (
        str(measure(kind(Setting()), (one, reference)).reason) == "no predictive distribution (one draw has no spread)"
    )
    single = replace(estimate, draws=estimate.draws[:1])
    assert "two or more" in str(measure(kind(Setting()), (single, reference)).reason)


def test_a_deviation_of_zero_has_the_floor_or_a_reason(four: Any) -> None:
    estimate, reference = four[0]
    zero = replace(estimate, std=np.zeros_like(estimate.std))
    grey = replace(estimate, std=np.full_like(estimate.std, 1 / 255))
    for kind in (Nll, Crps, Ece, EceFair, CoverErr90):
        assert measure(kind(), (zero, reference)).value == pytest.approx(measure(kind(), (grey, reference)).value)
    found = measure(SpreadSkillErr(), (zero, reference))
    assert str(found.reason) == "the predicted deviation is 0 everywhere; it has no ratio"
    exact = replace(reference, display_float=estimate.mean)
    assert "error of the mean is 0" in str(measure(SpreadSkillErr(), (estimate, exact)).reason)
    some = of_set(SpreadSkillErr(), [four[0], (zero, reference)])
    assert some.per_image[0] is not None and some.per_image[1] is None


# --- in a run ---------------------------------------------------------------------------------------------------------


def test_a_run_scores_its_draws_with_and_without_a_border(tmp_path: Path, plugin: Path) -> None:
    from tests.runs import run as run_models

    data = write_dataset(tmp_path / "data", count=2)
    names = ("crps_fair", "ece_fair", "cover_err_90", "spread_skill_err", "ece")
    for protocol in ("paired", "paired:border_px=4"):
        request = dict(
            models=("noisy", "bicubic"), data=str(data), out=tmp_path / protocol[-4:], metrics=names, workers=0,
            protocol=protocol,
        )  # fmt: skip
        noisy, bicubic = (f.summary().rows["sample"].metrics for f in run_models(**request).folders)
        assert all(noisy[n].value is not None for n in names), noisy
        assert noisy["cover_err_90"].details["coverage"] < 0.9 and noisy["spread_skill_err"].details["ratio"] < 1
        assert all("no predictive distribution" in str(bicubic[n].reason) for n in names)
        assert ("border4" in noisy["crps_fair"].identity) == ("border" in protocol)


def test_the_default_numbers_are_what_they_were() -> None:
    """The corrected forms have names of their own; these three have the identities that papers printed."""
    found = [kind(Setting()).identity() for kind in (Nll, Ece, Crps)]
    assert found == [
        "nll|gauss|mean|floor1/255|r1",
        "ece|gauss|quantiles0.05..0.95/0.05|floor1/255|r1",
        "crps|gauss|mean|floor1/255|r1",
    ]
    estimate, reference = scene(40, 40)
    with_draws = replace(estimate, draws=np.stack([estimate.mean, estimate.mean]))
    for kind in (Nll, Ece, Crps):
        assert measure(kind(), (estimate, reference)) == measure(kind(), (with_draws, reference))


def test_the_page_has_the_figures_of_theory() -> None:
    """Its tables are made by one command; what theory says of them is computed here."""
    page = (ROOT / "docs" / "uncertainty.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if re.match(r"\| [0-9m]", line)}
    for k in (2, 4, 8, 16, 32):
        assert f"({simulation.ece_of(k):.4f})" in rows[str(k)]
        simulated = float(rows[str(k)].split("|")[3].split("(")[0])
        assert simulated == pytest.approx(simulation.ece_of(k), abs=1e-3)
    for count in (48, 432, 3888, 36300):
        assert f"{simulation.ece_of_chance(count):.4f}" in rows[f"{count:,}"]
