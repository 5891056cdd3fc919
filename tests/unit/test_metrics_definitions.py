"""Definitions of the metrics without networks: identity, symmetry, bounds, masks, and reasons instead of numbers."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bench.core.image import Image
from bench.core.reason import Reason
from bench.metrics import physics, realism, uncertainty
from bench.metrics.base import GROUPS, Estimate, Metric, Reference, Score, Setting
from bench.metrics.fidelity import Fsim, Fsimc, PsnrRgb, PsnrY, SsimRgb
from bench.metrics.physics import DS, De00, DLambda, Qnr, SamRefl, SamRgb
from bench.metrics.realism import LogspecL1
from bench.metrics.uncertainty import Crps, Ece, Nll

ROOT = Path(__file__).resolve().parents[2]
RGBN = ("R", "G", "B", "NIR")


def picture(seed: int = 0, height: int = 64, width: int = 80, bands: int = 3) -> np.ndarray:
    """A smooth random picture of 8 bit in [0.1, 0.9]."""
    x = gaussian_filter(np.random.default_rng(seed).random((height, width, bands)), (2, 2, 0))
    x = 0.1 + 0.8 * (x - x.min()) / np.ptp(x)
    return np.float32(np.rint(x * 255) / 255)


def image(values: np.ndarray, bands: tuple[str, ...], unit: Any = "reflectance") -> Image:
    return Image(np.ascontiguousarray(values, np.float32), unit, bands, np.ones(values.shape[:2], bool))


def held(display: np.ndarray | None, **other: Any) -> Reference:
    """A Reference of ``display``; the LR image is every fourth pixel."""
    if display is not None:
        other = {"lr": image(display[::4, ::4], ("R", "G", "B"), "display"), **other}
    size = display.shape[:2] if display is not None else other["lr"].size
    given = {"hr": None, "pan": None, "valid": np.ones(size, bool), **other}
    return Reference("a", "a", display, display, **given)


def guess(display: np.ndarray, **other: Any) -> Estimate:
    return Estimate(display, display, **other)


def score(metric: type[Metric], estimate: Estimate, reference: Reference) -> Score:
    return metric(Setting()).assess(estimate, reference)


def value(metric: type[Metric], estimate: Estimate, reference: Reference) -> float:
    found = score(metric, estimate, reference)
    assert found.value is not None, found.reason
    return found.value


PAIRED = [PsnrRgb, PsnrY, SsimRgb, Fsim, Fsimc, SamRgb, De00, LogspecL1]


def needing(metric: type[Metric]) -> type[Metric]:
    pytest.importorskip(metric.package)
    return metric


# --- all registered metrics -----------------------------------------------------------------------------------------


def registered() -> dict[str, type[Metric]]:
    from importlib import import_module

    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["rfbench.metrics"]
    classes = {}
    for name, target in points.items():
        module, _, attribute = target.partition(":")
        classes[name] = getattr(import_module(module), attribute)
    return classes


@pytest.mark.parametrize("name", registered())
def test_registered_metrics_state_what_they_are(name: str) -> None:
    metric = registered()[name]
    assert metric.name == name
    assert metric.group in GROUPS
    assert metric.direction in ("up", "down")
    assert metric.title and metric.summary and len(metric.summary) < 80
    assert metric.parameters
    assert metric.__doc__ and len(metric.__doc__) > 100
    assert ("pyiqa" in metric.licence) == (metric.package == "pyiqa")
    identity = metric(Setting()).identity()
    assert identity.startswith(f"{name}|") and identity.endswith(f"|r{metric.revision}") and "\n" not in identity
    assert ("|q8|" in identity) == metric.display
    written = metric.features if metric.level == "set" else metric.value
    assert written is not getattr(Metric, written.__name__)


def test_identities_are_all_different() -> None:
    """Beyond their names: but for the measures of one family, and nll and crps, which share what is measured."""
    made = [metric(Setting()) for metric in registered().values()]
    identities = {m.identity() if m.family else m.identity().split("|", 1)[1] for m in made}
    assert len(identities) >= len(made) - 3


def test_importing_the_metrics_imports_nothing_heavy() -> None:
    modules = ", ".join(sorted({m.__module__ for m in registered().values()} | {"bench.metrics.pyiqa_any"}))
    code = (
        f"import sys, {modules}\n"
        "print(sorted({'torch', 'torchvision', 'pyiqa', 'lpips', 'skimage', 'colour', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- identity, symmetry, bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", PAIRED)
def test_identical_images(metric: type[Metric]) -> None:
    a = picture()
    best = {"psnr_rgb": 100.0, "psnr_y": 100.0, "ssim_rgb": 1.0, "fsim": 1.0, "fsimc": 1.0}
    assert value(needing(metric), guess(a), held(a)) == pytest.approx(best.get(metric.name, 0.0), abs=1e-6)


@pytest.mark.parametrize("metric", PAIRED)
def test_symmetric_and_worse_with_more_noise(metric: type[Metric]) -> None:
    a, sign = picture(), 1 if needing(metric).direction == "up" else -1
    noise = np.random.default_rng(1).normal(0, 1, a.shape)
    little, much = (np.float32(np.clip(a + s * noise, 0, 1)) for s in (0.02, 0.1))
    there, back = value(metric, guess(little), held(a)), value(metric, guess(a), held(little))
    assert there == pytest.approx(back, rel=1e-4)
    assert sign * value(metric, guess(much), held(a)) < sign * there


@pytest.mark.parametrize("metric", PAIRED)
def test_flat_images_are_defined(metric: type[Metric]) -> None:
    """0/0 in FSIM's equation is a reason; in SSIM's the constants leave the luminance of the two levels."""
    grey = np.full((32, 32, 3), 0.5, np.float32)
    found = score(needing(metric), guess(grey), held(np.full_like(grey, 0.25)))
    if metric in (Fsim, Fsimc):
        assert "both images are flat, and not the same" in str(found.reason)
    else:
        assert found.value is not None and np.isfinite(found.value)
    if metric is SsimRgb:
        assert found.value == pytest.approx((2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4), abs=1e-6)
    if metric.perfect is not None:
        assert value(metric, guess(grey), held(grey)) == pytest.approx(metric.perfect)
    assert score(metric, guess(grey), held(picture(0, 32, 32))).value is not None  # one of the two is enough


@pytest.mark.parametrize("metric", PAIRED)
def test_no_reference_is_a_reason(metric: type[Metric]) -> None:
    found = score(metric, guess(picture()), held(None, lr=image(picture()[::4, ::4], ("R", "G", "B"))))
    assert found == Score(reason=Reason("unfit", "no reference image"))


def test_psnr_is_of_all_channels_together() -> None:
    a = picture()
    b = a.copy()
    b[..., 0] -= np.float32(0.1)
    assert value(PsnrRgb, guess(b), held(a)) == pytest.approx(-10 * np.log10(0.01 / 3), abs=1e-5)
    assert value(PsnrY, guess(b), held(a)) == pytest.approx(-20 * np.log10(6.5481 / 255), abs=1e-5)


def test_psnr_is_never_above_that_of_identical_images() -> None:
    a = np.zeros((600, 600, 3), np.float32)
    b = a.copy()
    b[0, 0, 0] = 1 / 255
    assert value(PsnrRgb, guess(b), held(a)) == 100.0
    assert value(PsnrRgb, guess(b[:60, :60]), held(a[:60, :60])) < 100.0


@pytest.mark.parametrize("metric", [SsimRgb, Fsim, LogspecL1])
def test_small_images_are_a_reason(metric: type[Metric]) -> None:
    small = picture(0, metric.min_side_px - 1, 40)
    found = score(metric, guess(small), held(small))
    assert found.value is None and f"smaller than {metric.min_side_px} px" in str(found.reason)
    enough = picture(0, metric.min_side_px, 40)
    assert value(needing(metric), guess(enough), held(enough)) is not None


# --- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [PsnrRgb, PsnrY, SamRgb, De00])
def test_invalid_pixels_are_left_out(metric: type[Metric]) -> None:
    a, b = picture(0), picture(1)
    valid = np.ones(a.shape[:2], bool)
    valid[:, 40:] = False
    expected = value(needing(metric), guess(b[:, :40]), held(a[:, :40]))
    b[:, 40:] = 0
    assert value(metric, guess(b), held(a, valid=valid)) == pytest.approx(expected, rel=1e-9)
    assert str(score(metric, guess(b), held(a, valid=np.zeros_like(valid))).reason) == "no pixel with data"


def test_ssim_averages_whole_valid_windows() -> None:
    a, b = picture(0), picture(1)
    valid = np.ones(a.shape[:2], bool)
    valid[:, 40:] = False
    expected = value(SsimRgb, guess(b[:, :40]), held(a[:, :40]))  # crops the same windows
    b[:, 40:] = 0
    assert value(SsimRgb, guess(b), held(a, valid=valid)) == pytest.approx(expected, abs=1e-12)
    valid[:, :40:10] = False
    assert "no window of 11x11" in str(score(SsimRgb, guess(b), held(a, valid=valid)).reason)


@pytest.mark.parametrize("metric", [Fsim, LogspecL1])
def test_others_say_how_many_pixels_are_missing(metric: type[Metric]) -> None:
    valid = np.ones((64, 80), bool)
    valid[0, :3] = False
    assert str(score(metric, guess(picture()), held(picture(), valid=valid)).reason).startswith("3 pixels without")


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", PAIRED)
def test_bad_input_is_a_reason_that_says_what_was_found(metric: type[Metric]) -> None:
    a = picture()
    needing(metric)
    assert str(score(metric, guess(a[:60]), held(a)).reason) == "the prediction has 60x80 px, the reference 64x80 px"
    for side in ("prediction", "reference"):
        for factor, text in ((255.0, "run from 26 to 230, expected [0, 1]"), (np.nan, "not finite")):
            bad = np.float32(a * factor)
            found = score(metric, guess(bad if side == "prediction" else a), held(bad if side == "reference" else a))
            assert found.value is None and f"the {side}" in str(found.reason) and text in str(found.reason)
    assert "has the shape (64, 80, 1), expected (64, 80, 3)" in str(score(metric, guess(a[..., :1]), held(a)).reason)
    overshoot = np.float32(a + np.where(a == a.max(), 1 - a.max() + 1e-6, 0))  # what rounding leaves is no error
    assert score(metric, guess(overshoot), held(a)).value is not None


def test_a_copy_of_an_estimate_is_looked_at_anew() -> None:
    a = picture()
    sound = guess(a)
    assert value(PsnrRgb, sound, held(a)) == 100.0
    assert "not finite" in str(score(PsnrRgb, replace(sound, display=np.full_like(a, np.nan)), held(a)).reason)


# --- spectral angle and colour --------------------------------------------------------------------------------------


def test_angle_ignores_brightness_and_black_pixels() -> None:
    a = picture()
    dark = np.float32(a * 0.5)
    assert value(SamRgb, guess(dark), held(a)) == pytest.approx(0.0, abs=1e-4)
    black = a.copy()
    black[:30] = 0
    other = picture(1)
    expected = value(SamRgb, guess(other[30:]), held(a[30:]))
    assert value(SamRgb, guess(other), held(black)) == pytest.approx(expected, rel=1e-12)
    assert (
        score(SamRgb, guess(other), held(black)).note
        == f"{black[:30, :, 0].size} of {black[:, :, 0].size} spectra are zero and left out"
    )
    assert "zero" in str(score(SamRgb, guess(other), held(np.zeros_like(a))).reason)


def test_angle_is_exact_for_nearly_equal_spectra() -> None:
    """An arc cosine would lose these digits."""
    for angle in (1e-3, 1e-6, 1e-9):
        turned = np.array([[np.cos(angle), np.sin(angle)]])
        assert physics.spectral_angle(np.array([[1.0, 0.0]]), turned).value == pytest.approx(
            np.degrees(angle), rel=1e-6
        )


def test_angle_of_reflectance_takes_the_shared_bands() -> None:
    hr, predicted = picture(0, bands=4), picture(1, bands=4)
    estimate = guess(predicted[..., :3], image=image(predicted, RGBN))
    found = value(SamRefl, estimate, held(hr[..., :3], hr=image(hr, RGBN)))
    assert found == pytest.approx(physics.spectral_angle(predicted.reshape(-1, 4), hr.reshape(-1, 4)).value, rel=1e-12)
    mixed = held(hr[..., :3], hr=image(hr[..., [3, 1, 0]], ("NIR", "G", "R")))
    three = [x.reshape(-1, 4)[:, [3, 1, 0]] for x in (predicted, hr)]
    assert value(SamRefl, estimate, mixed) == pytest.approx(physics.spectral_angle(*three).value, rel=1e-12)
    lonely = held(hr[..., :3], hr=image(hr[..., :2], ("R", "B05")))
    assert "share 1 band;" in str(score(SamRefl, estimate, lonely).reason)
    cropped = held(hr[..., :3], hr=image(hr[:60], RGBN))
    assert "60x80" in str(score(SamRefl, estimate, cropped).reason)
    assert "does not predict" in str(score(SamRefl, guess(predicted[..., :3]), mixed).reason)


# --- without reference ----------------------------------------------------------------------------------------------


def pansharpening(seed: int = 0) -> tuple[Estimate, Reference, np.ndarray]:
    """A four-band prediction, its LR image and PAN, and no HR image."""
    from bench.core.resample import resize

    truth = picture(seed, 80, 80, 4)
    pan = truth.mean(axis=2, keepdims=True, dtype=np.float32)
    lr = image(resize(truth, (20, 20)), RGBN)
    reference = held(None, lr=lr, pan=image(pan, ("PAN",)), valid=np.ones((80, 80), bool))
    return guess(truth[..., :3], image=image(truth, RGBN)), reference, truth


def test_qnr_is_the_product_of_its_parts() -> None:
    estimate, reference, _ = pansharpening()
    spectral, spatial = value(DLambda, estimate, reference), value(DS, estimate, reference)
    assert 0 < spectral < 1 and 0 < spatial < 1
    assert value(Qnr, estimate, reference) == pytest.approx((1 - spectral) * (1 - spatial), rel=1e-12)


def test_the_upsampled_lr_has_no_distortion() -> None:
    from bench.core.resample import resize

    estimate, reference, _ = pansharpening()
    up = image(resize(reference.lr.values, (80, 80)), RGBN)
    assert value(Qnr, replace(estimate, image=up), reference) == 1.0


def test_d_lambda_sees_moved_bands_and_d_s_sees_moved_edges() -> None:
    estimate, reference, truth = pansharpening()
    swapped = image(np.stack([truth[..., 0]] * 4, axis=2), RGBN)
    assert value(DLambda, replace(estimate, image=swapped), reference) > 2 * value(DLambda, estimate, reference)
    rolled = image(np.roll(truth, 20, axis=0), RGBN)
    assert value(DS, replace(estimate, image=rolled), reference) < 1


def test_d_lambda_by_hand() -> None:
    """The formula written out for three bands."""
    a, b = (np.moveaxis(picture(s).astype(np.float64), 2, 0) for s in (0, 1))
    q = physics.quality_index
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    expected = sum(abs(q(a[i], a[j]) - q(b[i], b[j])) for i, j in pairs) / 6
    assert physics.spectral_distortion(a, b) == pytest.approx(expected, rel=1e-12)
    assert q(a[0], a[0]) == pytest.approx(1.0, abs=1e-9)
    assert q(a[0], b[0]) == pytest.approx(q(b[0], a[0]), rel=1e-12)
    assert q(a[0] - 0.5, 0.5 - a[0]) >= -1.0


def test_qnr_says_what_is_missing() -> None:
    estimate, reference, truth = pansharpening()
    assert "display images" in str(score(DLambda, replace(estimate, image=None), reference).reason)
    assert str(score(Qnr, estimate, replace(reference, pan=None)).reason) == "no panchromatic image"
    assert score(DLambda, estimate, replace(reference, pan=None)).value is not None
    units = replace(reference, lr=replace(reference.lr, unit="display"))
    assert "reflectance" in str(score(Qnr, estimate, units).reason)
    single = replace(estimate, image=image(truth[..., :1], ("R",)))
    assert "share 1 band;" in str(score(Qnr, single, reference).reason)
    small_pan = replace(reference, pan=image(truth[:40, :40, :1], ("PAN",)))
    assert "40x40" in str(score(DS, estimate, small_pan).reason)
    holes = replace(reference.lr, valid=np.zeros((20, 20), bool))
    assert "400 pixels without data" in str(score(DLambda, estimate, replace(reference, lr=holes)).reason)


# --- uncertainty ----------------------------------------------------------------------------------------------------


def distribution(sigma: float, scale: float = 1.0, n: int = 100) -> tuple[Estimate, Reference]:
    """A reference that scatters by ``sigma`` around the predicted mean, which claims ``sigma * scale``."""
    mu = np.full((n, n, 3), 0.5, np.float32)
    y = np.float32(mu + np.random.default_rng(0).normal(0, sigma, mu.shape))
    return guess(mu, mean=mu, std=np.full_like(mu, sigma * scale)), held(y)


def test_nll_and_crps_are_best_for_the_true_spread() -> None:
    for metric in (Nll, Crps):
        true, narrow, wide = (value(metric, *distribution(0.05, s)) for s in (1.0, 0.5, 2.0))
        assert true < narrow and true < wide
    assert value(Nll, *distribution(0.05)) == pytest.approx(np.log(0.05 * np.sqrt(2 * np.pi * np.e)), abs=0.02)
    assert value(Crps, *distribution(0.05)) == pytest.approx(0.05 / np.sqrt(np.pi), rel=0.02)


def test_a_spread_of_zero_is_raised_to_one_grey_level() -> None:
    estimate, reference = distribution(0.05)
    zero = replace(estimate, std=np.zeros_like(estimate.mean))
    level = replace(estimate, std=np.full_like(estimate.mean, 1 / 255))
    for metric in (Nll, Crps):
        assert value(metric, zero, reference) == pytest.approx(value(metric, level, reference), rel=1e-6)
    exact = held(zero.mean)
    assert value(Nll, zero, exact) == pytest.approx(np.log(np.sqrt(2 * np.pi) / 255), abs=1e-6)


def test_uncertainty_uses_the_reference_before_rounding_and_valid_pixels() -> None:
    estimate, reference = distribution(0.05)
    assert value(Nll, estimate, replace(reference, display=np.zeros_like(reference.display))) == value(
        Nll, estimate, reference
    )
    valid = np.ones((100, 100), bool)
    valid[50:] = False
    spoiled = reference.display_float.copy()
    spoiled[50:] = 0
    half = value(Nll, estimate, held(spoiled, valid=valid))
    cut = Estimate(
        *(a[:50] for a in (estimate.display, estimate.display_float)), None, estimate.mean[:50], estimate.std[:50]
    )
    assert half == pytest.approx(value(Nll, cut, held(spoiled[:50])), rel=1e-12)
    assert "no predictive distribution" in str(score(Crps, guess(estimate.display), reference).reason)


def test_ece_pools_the_images() -> None:
    metric = Ece(Setting())
    calibrated = metric.gather(*distribution(0.05, n=200))
    wide = metric.gather(*distribution(0.05, 3.0))
    narrow = metric.gather(*distribution(0.05, 1 / 3))
    assert metric.reduce([calibrated]).value < 0.005
    both = metric.reduce([wide, narrow])
    assert both.per_image is not None and min(both.per_image) > 0.1
    assert both.value == pytest.approx(
        np.abs((wide["coverage"] + narrow["coverage"]) / 2 - uncertainty.LEVELS).mean(), rel=1e-12
    )
    assert both.value < min(both.per_image)
    assert both.details["pixels"] == 2 * 100 * 100
    weighted = metric.reduce([calibrated, wide])  # four times the pixels, four times the weight
    expected = (4 * calibrated["coverage"] + wide["coverage"]) / 5 - uncertainty.LEVELS
    assert weighted.value == pytest.approx(np.abs(expected).mean(), rel=1e-12)


def test_ece_counts_values_at_or_below_the_quantile() -> None:
    """A prediction that is far too high covers everything at every level."""
    estimate, reference = distribution(0.05)
    high = replace(estimate, mean=estimate.mean + np.float32(5))
    features = Ece(Setting()).gather(high, reference)
    assert (features["coverage"] == 1.0).all()
    assert Ece(Setting()).reduce([features]).value == pytest.approx(0.5)


# --- spectra --------------------------------------------------------------------------------------------------------


def test_log_spectrum_of_white_noise_is_its_variance() -> None:
    sigma = 0.1
    noise = np.random.default_rng(0).normal(0.5, sigma, (256, 192, 3))
    spectrum = realism.log_spectrum(noise)
    assert spectrum.shape == (3, 96)
    window = np.outer(realism._hann(256), realism._hann(192))
    expected = np.log(sigma**2 * (window**2).mean() + (1 / 255) ** 2 / 12 * (window**2).mean())
    assert spectrum[:, 10:].mean() == pytest.approx(expected, abs=0.02)


def test_log_spectrum_of_flat_images_is_the_floor() -> None:
    flat, rounded = np.full((64, 64, 3), 0.3), np.random.default_rng(0).random((64, 64, 3))
    window = np.outer(realism._hann(64), realism._hann(64))
    assert realism.log_spectrum(flat) == pytest.approx(np.log((1 / 255) ** 2 / 12 * (window**2).mean()))
    error = np.rint(rounded * 255) / 255 - rounded  # rounding alone has about that power
    assert realism.log_spectrum(error)[:, 4:].mean() == pytest.approx(
        np.log(2 * (1 / 255) ** 2 / 12 * (window**2).mean()), abs=0.05
    )


def test_log_spectrum_is_the_same_on_both_axes() -> None:
    """A wave of one frequency falls into one ring, along the short and the long side."""
    phase = 2 * np.pi * 8 / 64
    down = np.repeat(0.5 + 0.2 * np.sin(phase * np.arange(64))[:, None, None], 128, axis=1).repeat(3, axis=2)
    across = np.repeat(0.5 + 0.2 * np.sin(phase * np.arange(128))[None, :, None], 64, axis=0).repeat(3, axis=2)
    assert realism.log_spectrum(down).argmax(axis=1).tolist() == [7] * 3
    assert realism.log_spectrum(across).argmax(axis=1).tolist() == [7] * 3


def test_logspec_sees_blur_and_ignores_shifts() -> None:
    a = picture(0, 64, 64)
    blurred = np.float32(gaussian_filter(a, (2, 2, 0)))
    shifted = np.float32(np.roll(picture(0, 64, 64), 3, axis=0))
    assert value(LogspecL1, guess(blurred), held(a)) > 1.0
    assert value(LogspecL1, guess(shifted), held(a)) < 0.3
    noise = np.float32(np.random.default_rng(0).random((64, 64, 3)))
    fainter = np.float32(0.5 + (noise - 0.5) / np.sqrt(np.e))  # a power less by a factor of e
    assert value(LogspecL1, guess(fainter), held(noise)) == pytest.approx(1.0, abs=1e-3)
