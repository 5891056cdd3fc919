"""One tester for all registered metrics that need no missing weights: invariances, reasons, identities."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bench.core import registry
from bench.core.image import Image
from bench.metrics.base import GROUPS, Estimate, Metric, Reference, Score, Setting
from bench.metrics.scorer import DEFAULT, chosen, metric_class
from tests.conftest import picture

BANDS = ("R", "G", "B", "NIR")
NAMES = list(registry.names("metrics"))
READY = [n for n in NAMES if metric_class(n)(Setting()).missing() is None]
PER_IMAGE = [n for n in READY if metric_class(n).level == "image"]


def scene(height: int, width: int, seed: int = 0, noise: float = 0.05) -> tuple[Estimate, Reference]:
    """A noisy estimate with a spread, and its reference with NIR and PAN."""
    valid = np.ones((height, width), bool)
    truth = picture(seed, height, width, 4).astype(np.float32)
    rng = np.random.default_rng(seed + 50)
    guess = np.clip(truth + noise * rng.standard_normal(truth.shape), 0, 1).astype(np.float32)
    rounded, guessed = (np.rint(x[:, :, :3] * 255).astype(np.float32) / np.float32(255) for x in (truth, guess))
    hr = Image(truth, "reflectance", BANDS, valid)
    pan = Image(truth.mean(axis=2, keepdims=True), "reflectance", ("PAN",), valid)
    n = (max(1, height // 4), max(1, width // 4))
    lr = Image(np.ascontiguousarray(truth[: n[0], : n[1]]), "reflectance", BANDS, np.ones(n, bool))
    reference = Reference("a", "a", rounded, truth[:, :, :3], hr, pan, lr, valid)
    spread = np.full((height, width, 3), noise, np.float32)
    image = Image(guess, "reflectance", BANDS, valid)
    return Estimate(guessed, guess[:, :, :3], image, guess[:, :, :3], spread), reference


def measure(name: str, *pairs: tuple[Estimate, Reference]) -> Score:
    metric: Metric = metric_class(name)(Setting())
    if metric.level == "image":
        return metric.assess(*pairs[0])
    kept = [metric.gather(*pair) for pair in pairs]
    reasons = [k for k in kept if isinstance(k, Score)]
    if reasons:
        return reasons[0]
    result = metric.combine([k for k in kept if not isinstance(k, Score)])
    return result if isinstance(result, Score) else Score(result.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_says_what_it_is(name: str) -> None:
    metric = metric_class(name)(Setting())
    assert metric.name == name and metric.title and metric.summary
    assert metric.direction in ("up", "down") and metric.group in GROUPS and metric.level in ("image", "set")
    parts = metric.identity().split("|")
    assert parts[0] == name and parts[-1].startswith("r") and len(parts) >= 3
    assert ("q8" in parts) == metric.display
    assert "\n" not in metric.identity()


@pytest.mark.parametrize("name", NAMES)
def test_the_identity_follows_the_setting(name: str) -> None:
    plain, cut = (metric_class(name)(Setting(border_px=b)).identity() for b in (0, 4))
    floats = metric_class(name)(Setting(quantise=None)).identity()
    assert cut != plain and (floats != plain) == metric_class(name).display


def test_the_default_set_is_the_paper_s() -> None:
    assert chosen(None) == DEFAULT and set(DEFAULT) <= set(NAMES)
    assert chosen(("psnr_rgb", "default"))[0] == "psnr_rgb" and len(chosen(("psnr_rgb", "default"))) == len(DEFAULT)


@pytest.mark.parametrize("name", READY)
def test_the_same_input_gives_the_same_number(name: str) -> None:
    pairs = [scene(200, 120, s) for s in range(40 if name == "niqe_ref" else 2)]
    first, second = measure(name, *pairs), measure(name, *pairs)
    assert first == second
    assert first.reason is None and first.value is not None and math.isfinite(first.value)


@pytest.mark.parametrize("name", READY)
def test_no_input_is_changed(name: str) -> None:
    estimate, reference = scene(96, 100)
    arrays = [estimate.display, estimate.display_float, reference.display, reference.display_float]
    before = [np.array(a) for a in arrays]
    measure(name, (estimate, reference))
    for now, then in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("name", [n for n in PER_IMAGE if "reference" in metric_class(n).needs])
def test_less_noise_is_better(name: str) -> None:
    values = [measure(name, scene(120, 120, noise=n)).value for n in (0.15, 0.02)]
    assert values[0] is not None and values[1] is not None
    assert (values[1] > values[0]) == (metric_class(name).direction == "up")


@pytest.mark.parametrize("name", READY)
@pytest.mark.parametrize("size", [(1, 1), (6, 6), (30, 40), (161, 243)])
def test_odd_sizes_give_a_number_or_a_reason(name: str, size: tuple[int, int]) -> None:
    score = measure(name, scene(*size))
    assert (score.value is None) != (score.reason is None)
    assert score.reason is None or "failed:" not in score.reason, score.reason


@pytest.mark.parametrize("name", READY)
def test_flat_images_give_a_number_or_a_reason(name: str) -> None:
    estimate, reference = scene(128, 128)
    flat = np.full((128, 128, 3), np.float32(102 / 255))
    score = measure(name, (dataclasses.replace(estimate, display=flat), dataclasses.replace(reference, display=flat)))
    assert (score.value is None) != (score.reason is None)
    assert score.reason is None or "failed:" not in score.reason, score.reason


@pytest.mark.parametrize("name", READY)
def test_what_is_missing_is_a_reason(name: str) -> None:
    estimate, reference = scene(120, 120)
    needs = metric_class(name).needs
    if "reference" in needs:
        nothing = dataclasses.replace(reference, display=None, display_float=None, hr=None)
        assert measure(name, (estimate, nothing)).reason == "no reference image"
    if "distribution" in needs:
        point = dataclasses.replace(estimate, mean=None, std=None)
        assert "no predictive distribution" in str(measure(name, (point, reference)).reason)
    if "pan" in needs:
        assert "no panchromatic" in str(measure(name, (estimate, dataclasses.replace(reference, pan=None))).reason)
    if "reflectance" in needs:
        assert "reflectance" in str(measure(name, (dataclasses.replace(estimate, image=None), reference)).reason)


@pytest.mark.parametrize("name", READY)
def test_pixels_without_data_are_left_out_or_are_a_reason(name: str) -> None:
    estimate, reference = scene(120, 120)
    valid = np.ones((120, 120), bool)
    valid[:40] = False
    holes = dataclasses.replace(reference, valid=valid)
    assert estimate.mean is not None
    shown, floats, mean = (np.array(a) for a in (estimate.display, estimate.display_float, estimate.mean))
    shown[:40] = floats[:40] = mean[:40] = 1.0
    spoilt = dataclasses.replace(estimate, display=shown, display_float=floats, mean=mean)
    score, clean = measure(name, (spoilt, holes)), measure(name, (estimate, holes))
    if metric_class(name).masks:
        assert score.value is not None and score.value == pytest.approx(clean.value, rel=1e-12)
    else:
        assert "4800 pixels without data" in str(score.reason)
    nowhere = dataclasses.replace(reference, valid=np.zeros((120, 120), bool))
    assert measure(name, (estimate, nowhere)).reason is not None


@pytest.mark.parametrize("name", [n for n in NAMES if n not in READY])
def test_missing_weights_are_a_reason_that_names_the_file(name: str) -> None:
    reason = str(measure(name, scene(256, 256), scene(256, 256, 1)).reason)
    missing = metric_class(name)(Setting()).missing()
    assert reason == missing
    assert "weights missing: " in reason or "is not installed" in reason
