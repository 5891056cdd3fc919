"""Procedural scenes: reproducible, physically plausible, and one ground behind both sensors."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from bench.data import scenes
from bench.data.scenes import Scene, fields, ground, make_scene, optics, sensors, slumps

SEED = 11
FACTOR = 5
HR_PX = (100, 100)
# Samples of the scene (11, "pinned"), every 40th HR and every 8th LR pixel.
PINNED_HR_RED = [[288, 291, 281], [350, 374, 338], [423, 672, 554]]
PINNED_LR_NIR = [[303, 283, 289], [998, 755, 465], [2268, 2166, 1935]]


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return [make_scene(SEED, f"unit-{index}", HR_PX) for index in range(40)]


def area_mean(hr: np.ndarray) -> np.ndarray:
    height, width = hr.shape[0] // FACTOR, hr.shape[1] // FACTOR
    return hr.reshape(height, FACTOR, width, FACTOR, 4).mean(axis=(1, 3))


def ndvi(counts: np.ndarray) -> np.ndarray:
    red, nir = counts[..., 0].astype(float), counts[..., 3].astype(float)
    return (nir - red) / (nir + red + 1)


def roughness(band: np.ndarray) -> float:
    """Standard deviation of the Laplacian over that of the band: high where neighbours differ."""
    centre = 4 * band[1:-1, 1:-1]
    laplacian = centre - band[:-2, 1:-1] - band[2:, 1:-1] - band[1:-1, :-2] - band[1:-1, 2:]
    return float(laplacian.std() / band.std())


def assert_equal(one: Scene, two: Scene) -> None:
    for name in ("hr", "lr", "mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    for name in ("id", "caption", "hr_date", "lr_date", "sensor"):
        assert getattr(one, name) == getattr(two, name)


def test_same_name_same_scene_whatever_was_made_in_between() -> None:
    first = make_scene(SEED, "again", HR_PX)
    make_scene(SEED, "other", HR_PX)
    np.random.seed(0)  # noqa: NPY002 - the legacy global state must not matter
    assert_equal(first, make_scene(SEED, "again", HR_PX))


@pytest.mark.parametrize(("seed", "scene_id"), [(SEED, "b"), (SEED + 1, "a")])
def test_another_name_is_another_scene(seed: int, scene_id: str) -> None:
    reference, other = make_scene(SEED, "a", HR_PX), make_scene(seed, scene_id, HR_PX)
    assert np.mean(reference.hr != other.hr) > 0.5
    assert reference.sensor != other.sensor


def test_seed_and_id_do_not_run_together() -> None:
    assert np.any(make_scene(1, "1/a", HR_PX).hr != make_scene(11, "a", HR_PX).hr)


def test_values_are_the_same_on_every_machine() -> None:
    scene = make_scene(SEED, "pinned", HR_PX)
    hr, lr = scene.hr[::40, ::40, 0].astype(int), scene.lr[::8, ::8, 3].astype(int)
    np.testing.assert_allclose(hr, PINNED_HR_RED, rtol=0, atol=1)
    np.testing.assert_allclose(lr, PINNED_LR_NIR, rtol=0, atol=1)


def test_rounding_errors_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's transforms differ in the last bits: stand in for that, a thousand times larger."""
    names = [f"rounding-{index}" for index in range(12)]
    reference = [make_scene(SEED, name, HR_PX) for name in names]
    noise, errors = fields.noise, np.random.default_rng(1)

    def inexact_noise(*args: Any, **kwargs: Any) -> np.ndarray:
        values = noise(*args, **kwargs)
        return values + 1e-13 * errors.standard_normal(values.shape)

    for module in (scenes, ground, slumps, optics, sensors):
        monkeypatch.setattr(module, "noise", inexact_noise)
    for scene in reference:
        again = make_scene(SEED, scene.id, HR_PX)
        np.testing.assert_allclose(again.hr.astype(int), scene.hr.astype(int), rtol=0, atol=1)
        np.testing.assert_allclose(again.lr.astype(int), scene.lr.astype(int), rtol=0, atol=1)
        np.testing.assert_array_equal(again.mask, scene.mask)
        assert again.caption == scene.caption


@pytest.mark.parametrize(
    ("hr_px", "factor"), [((200, 200), 5), ((105, 160), 5), ((320, 320), 5), ((40, 40), 5), ((96, 64), 4)]
)
def test_shapes_types_and_ranges(hr_px: tuple[int, int], factor: int) -> None:
    scene = make_scene(SEED, "size", hr_px, factor)
    assert scene.hr.shape == (*hr_px, 4)
    assert scene.lr.shape == (hr_px[0] // factor, hr_px[1] // factor, 4)
    assert scene.mask.shape == hr_px
    assert (scene.hr.dtype, scene.lr.dtype, scene.mask.dtype) == (np.uint16, np.uint16, np.uint8)
    assert scene.hr.max() <= 2047
    assert scene.lr.max() <= 4095
    assert set(np.unique(scene.mask)) <= {0, 1}


def test_sides_that_are_no_multiple_of_the_factor_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        make_scene(SEED, "a", (101, 100))


def test_both_views_are_well_exposed(many: list[Scene]) -> None:
    """In the display range the scenes are neither dark nor washed out, and neither flat nor harsh."""
    for side, scale, text in (
        ("hr", scenes.HR_SCALE, scenes.HR_NORMALISATION),
        ("lr", scenes.LR_SCALE, scenes.LR_NORMALISATION),
    ):
        low, high = (float(limit) for limit in text.removeprefix("fixed[").removesuffix("]").split(","))
        raw = np.stack([getattr(scene, side)[..., :3] for scene in many if "snow" not in scene.caption])
        display = np.clip((raw * (1e4 / scale) - low) / (high - low), 0, 1) ** scenes.GAMMA
        assert 0.3 < display.mean() < 0.6
        assert 0.03 < np.median(display.std(axis=(1, 2))) < 0.2


def test_dates_differ_by_days_to_weeks_within_one_season(many: list[Scene]) -> None:
    gaps = [(date.fromisoformat(s.hr_date) - date.fromisoformat(s.lr_date)).days for s in many]
    assert all(1 <= abs(gap) <= 28 for gap in gaps)
    assert min(gaps) < 0 < max(gaps)


def test_lr_shows_the_ground_of_the_hr_but_is_no_resampling_of_it(many: list[Scene]) -> None:
    for scene in many:
        mean = area_mean(scene.hr)
        correlation = [np.corrcoef(mean[..., b].ravel(), scene.lr[..., b].ravel())[0, 1] for b in range(4)]
        assert max(correlation) > 0.7
        assert max(correlation) < 0.999
        elsewhere = np.corrcoef(np.rot90(mean[..., 3], 2).ravel(), scene.lr[..., 3].ravel())[0, 1]
        assert elsewhere < max(correlation)


def test_lr_is_blurred_more_than_by_its_area_mean(many: list[Scene]) -> None:
    ratios = [roughness(s.lr[..., 3].astype(float)) / roughness(area_mean(s.hr)[..., 3]) for s in many]
    assert np.median(ratios) < 0.75


@pytest.mark.parametrize("shift_px", [0.0, 1.5])
def test_transfer_function_damps_and_shifts_a_wave_as_stated(shift_px: float) -> None:
    """At the LR Nyquist frequency, 0.1 cycles per HR px, a sigma of 2.5 px leaves exp(-2 (pi 2.5 0.1)^2)."""
    cols = np.arange(200.0)
    wave = np.tile(np.cos(2 * np.pi * 0.1 * cols), (200, 1))[..., None]
    seen = sensors.apply_mtf(wave, 2.5, shift_px=(0.0, shift_px))[100, :, 0]
    expected = np.exp(-2 * (np.pi * 2.5 * 0.1) ** 2) * np.cos(2 * np.pi * 0.1 * (cols - shift_px))
    np.testing.assert_allclose(seen, expected, atol=1e-9)


def test_sensor_records_the_stated_lr_model(many: list[Scene]) -> None:
    for scene in many:
        mtf = np.exp(-2 * (np.pi * scene.sensor["lr_psf_sigma_px"] * 0.5 / FACTOR) ** 2)
        assert 0.185 < mtf < 0.355
        assert abs(scene.sensor["lr_shift_row_px"]) <= 1.5
        assert all(type(value) is float for value in scene.sensor.values())


def test_mask_marks_ground_with_less_vegetation(many: list[Scene]) -> None:
    differences = []
    for scene in many:
        greenness, slump = ndvi(scene.hr), scene.mask == 1
        land = greenness > 0.1
        if slump.sum() > 50:
            differences.append(np.median(greenness[slump]) - np.median(greenness[land & ~slump]))
    assert len(differences) > 20
    assert max(differences) < -0.05
    assert np.median(differences) < -0.15


def test_slumps_vary_in_size_and_number(many: list[Scene]) -> None:
    shares = np.array([scene.mask.mean() for scene in many])
    assert 0.7 < np.mean(shares > 0) < 1.0
    assert shares.max() > 0.08
    assert shares.max() < 0.5
    assert np.percentile(shares[shares > 0], 20) < 0.05


def test_caption_is_one_sentence_that_says_slump_where_there_is_one(many: list[Scene]) -> None:
    for scene in many:
        assert scene.caption[0].isupper()
        assert scene.caption.endswith(".")
        assert scene.caption.count(".") == 1
        assert "  " not in scene.caption
        assert ("slump" in scene.caption) == bool(scene.mask.any())
    assert len({scene.caption for scene in many}) > 30


def test_caption_names_the_water_and_snow_that_is_there(many: list[Scene]) -> None:
    lakes = [scene for scene in many if " lake" in scene.caption]
    dry = [scene for scene in many if "slope" in scene.caption and "pond" not in scene.caption]
    assert min(len(lakes), len(dry)) > 3
    water_share = [np.mean(ndvi(scene.hr) < 0) for scene in lakes]
    assert np.median(water_share) > 0.05
    assert np.median(water_share) > 5 * np.median([np.mean(ndvi(scene.hr) < 0) for scene in dry])
    saturated = {scene.caption: np.mean(scene.hr.min(axis=-1) == 2047) for scene in many}
    assert any("snow" in caption for caption in saturated)
    for caption, share in saturated.items():
        assert ("snow" in caption) == (share > 0.002), caption


def test_water_is_dark_in_the_near_infrared_and_vegetation_bright(many: list[Scene]) -> None:
    """Reflectance in NIR: vegetated land 0.15-0.40, water below 0.06."""
    nir = np.concatenate([scene.hr[..., 3].ravel() / scenes.HR_SCALE for scene in many])
    greenness = np.concatenate([ndvi(scene.hr).ravel() for scene in many])
    assert 0.15 < np.median(nir[greenness > 0.5]) < 0.40
    assert np.median(nir[greenness < -0.1]) < 0.06
