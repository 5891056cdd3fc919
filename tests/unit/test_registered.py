"""Registration: known shifts are found, none is invented, and ``NAME_reg`` is ``NAME`` of what was registered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import fourier_shift

import bench.data
from bench.core.errors import RfbenchError
from bench.core.image import RGB, Image, quantised
from bench.core.resample import resize
from bench.data.find import resolve_dataset
from bench.metrics.base import Estimate, Reference, Setting
from bench.metrics.fidelity import PsnrRgb
from bench.metrics.registered import WINDOW_PX, find_shift, register, registered, scored
from bench.metrics.scorer import Scorer, chosen, metric_class
from bench.protocols.base import Task
from bench.protocols.find import resolve_protocol
from tests.runs import run as run_models

LUMA = np.array([0.299, 0.587, 0.114])
EMBEDDED = Path(bench.data.__file__).parent / "embedded"


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    dataset, protocol = resolve_dataset("scenes"), resolve_protocol("paired")
    return [protocol.prepare(dataset.load(r)) for r in dataset.records("test")]


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], bool)


def moved(image: np.ndarray, row_px: float, col_px: float) -> np.ndarray:
    """Shifted by its Fourier transform: another way than the splines under test."""
    return np.stack(
        [np.fft.ifft2(fourier_shift(np.fft.fft2(image[..., c]), (row_px, col_px))).real for c in range(image.shape[2])],
        axis=-1,
    )


def pair(display: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None) -> tuple[Estimate, Reference]:
    display, reference = (np.clip(a, 0, 1).astype(np.float32) for a in (display, reference))
    mask = everywhere(reference) if valid is None else valid
    hr = Image(reference, "reflectance", RGB, mask)
    made = Image(display, "reflectance", RGB, everywhere(display))
    return (
        Estimate(quantised(display, 8), display, made),
        Reference("a", "s", quantised(reference, 8), reference, hr, None, None, mask),
    )


# --- shifts ---------------------------------------------------------------------------------------------------


def test_known_shifts_of_clean_scenes_are_found_to_a_twentieth_of_a_pixel(tasks: list[Task]) -> None:
    """What enters at one side is real: the crop is inside the scene."""
    rng = np.random.default_rng(0)
    inner = np.s_[20:180, 20:180]
    for task in tasks[::4]:
        hr = task.reference.display_float.astype(np.float64)
        true = rng.uniform(-WINDOW_PX + 0.5, WINDOW_PX - 0.5, 2)
        found = find_shift((moved(hr, *-true) @ LUMA)[inner], (hr @ LUMA)[inner], everywhere(hr[inner]))
        assert found.why_none is None
        assert np.abs(np.array([found.row_px, found.col_px]) - true).max() <= 0.05


def test_the_sensors_shift_of_the_embedded_scenes_is_found_to_a_fifth_of_a_pixel(tasks: list[Task]) -> None:
    """Between the LR, brought to the grid, and the HR: another sensor, day and season. The truth was drawn when the
    scenes were made."""
    drawn = json.loads((EMBEDDED / "sensors.json").read_text())
    for task in tasks:
        hr = task.reference.display_float.astype(np.float64)
        lr = resize(task.fitted.apply(task.lr.select(RGB)), hr.shape[:2]).astype(np.float64)
        found = find_shift(lr @ LUMA, hr @ LUMA, task.reference.valid)
        true = -np.array([drawn[task.id]["lr_shift_row_px"], drawn[task.id]["lr_shift_col_px"]])
        assert found.why_none is None, task.id
        assert np.abs(np.array([found.row_px, found.col_px]) - true).max() <= 0.2, task.id


@pytest.mark.parametrize("size", [(200, 200), (150, 200), (64, 64), (40, 60), (24, 24)])
def test_no_shift_is_invented_on_noise(size: tuple[int, int]) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        found = find_shift(rng.random(size), rng.random(size), np.ones(size, bool))
        assert (found.row_px, found.col_px) == (0, 0) and found.why_none


def test_no_shift_is_invented_where_there_is_nothing_to_see(tasks: list[Task]) -> None:
    hr = tasks[0].reference.display_float @ LUMA
    other = tasks[9].reference.display_float @ LUMA
    for moving in (np.full_like(hr, 0.5), other, 1 - hr):
        found = find_shift(moving, hr, everywhere(hr))
        assert (found.row_px, found.col_px) == (0, 0) and found.why_none


def test_a_shift_beyond_the_window_is_none(tasks: list[Task]) -> None:
    hr = tasks[3].reference.display_float @ LUMA
    found = find_shift(hr[:160, :160], hr[2 * WINDOW_PX :, :][:160, :160], np.ones((160, 160), bool))
    assert found.why_none and f"within {WINDOW_PX} px" in found.why_none


def test_missing_pixels_do_not_move_the_shift(tasks: list[Task]) -> None:
    hr = tasks[5].reference.display_float.astype(np.float64)
    valid = everywhere(hr)
    valid[30:80, 100:150] = False
    broken = np.where(valid[..., None], hr, 0.0)
    found = find_shift(moved(hr, -1.3, 2.4) @ LUMA, broken @ LUMA, valid)
    assert abs(found.row_px - 1.3) < 0.1 and abs(found.col_px + 2.4) < 0.1


@pytest.mark.parametrize("shape", ["holes", "stripes", "corner"])
def test_missing_pixels_are_not_moved_into_what_is_scored(tasks: list[Task], shape: str) -> None:
    """The same shift with and without data missing on both sides: nearly the same place, nearly the same score."""
    rows, columns = np.mgrid[:200, :200]
    valid = {
        "holes": ((rows // 15) % 4 != 0) | ((columns // 15) % 4 != 1),
        "stripes": (columns // 10) % 5 != 0,
        "corner": rows + columns > 150,
    }[shape]
    hr = tasks[10].reference.display_float.astype(np.float64)
    seen = moved(hr, -1.8, 2.6)
    estimate, reference = pair(np.where(valid[..., None], seen, 0), np.where(valid[..., None], hr, 0), valid)
    found = register(estimate, reference, 8).shift
    assert abs(found.row_px - 1.8) < 0.2 and abs(found.col_px + 2.6) < 0.2 and found.correlation > 0.95
    score = Scorer(("psnr_rgb_reg",), Setting()).score(reference, {"sample": estimate}).scores["sample"]
    assert (score["psnr_rgb_reg"].value or 0) > 45  # 25 where pixels without data are scored


# --- metrics --------------------------------------------------------------------------------------------------


def test_shift_gain_and_bias_are_taken_out_and_kept(tasks: list[Task]) -> None:
    hr = 0.2 + 0.5 * tasks[2].reference.display_float.astype(np.float64)
    gain, bias = np.array([0.8, 1.1, 0.9]), np.array([0.05, -0.03, 0.02])
    estimate, reference = pair(moved((hr - bias) / gain, 1.4, -2.3), hr)
    found = register(estimate, reference, 8).facts()
    assert found["shift_row_px"] == pytest.approx(-1.4, abs=0.05)
    assert found["shift_col_px"] == pytest.approx(2.3, abs=0.05)
    assert [found[f"gain_{b}"] for b in RGB] == pytest.approx(gain, abs=0.02)
    assert [found[f"bias_{b}"] for b in RGB] == pytest.approx(bias, abs=0.02)
    after = ("psnr_rgb_reg", "ssim_rgb_reg", "sam_rgb_reg", "sam_refl_reg", "de00_reg")
    scorer = Scorer(("psnr_rgb", "ssim_rgb", "sam_rgb", *after), Setting())
    scores = {n: s.value for n, s in scorer.score(reference, {"sample": estimate}).scores["sample"].items()}
    assert scores["psnr_rgb"] < 30 < 35 < scores["psnr_rgb_reg"]
    assert scores["ssim_rgb"] < 0.9 < 0.97 < scores["ssim_rgb_reg"]
    assert max(scores["sam_rgb_reg"], scores["sam_refl_reg"]) < 1.0 < scores["sam_rgb"]
    assert scores["de00_reg"] < 2


def test_what_is_in_place_is_fitted_and_scored_on_the_inner_pixels(tasks: list[Task]) -> None:
    """Against numpy's straight line through each band."""
    hr = tasks[7].reference.display_float
    estimate, reference = pair(hr + np.random.default_rng(1).normal(0, 0.02, hr.shape), hr)
    scores = Scorer(("psnr_rgb_reg",), Setting()).score(reference, {"sample": estimate}).scores["sample"]
    ours, theirs = (
        a[WINDOW_PX:-WINDOW_PX, WINDOW_PX:-WINDOW_PX].astype(float) for a in (estimate.display, reference.display)
    )
    fitted = [np.polyval(np.polyfit(ours[..., c].ravel(), theirs[..., c].ravel(), 1), ours[..., c]) for c in range(3)]
    error = quantised(np.stack(fitted, -1).astype(np.float32), 8) - quantised(theirs.astype(np.float32), 8)
    assert scores["psnr_rgb_reg"].value == pytest.approx(-10 * np.log10(np.mean(error**2)), abs=0.01)


def test_what_a_model_made_of_pixels_without_data_is_not_moved_into_the_score(tasks: list[Task]) -> None:
    hr = 0.2 + 0.5 * tasks[2].reference.display_float.astype(np.float64)
    prediction = np.clip(moved(hr, 3.4, -4.3), 0, 1)
    valid = everywhere(hr)
    valid[60:90, 110:150] = False
    names = ("psnr_rgb_reg", "ssim_rgb_reg", "sam_refl_reg")
    found = []
    for below in (0.0, 1.0):
        estimate, reference = pair(np.where(valid[..., None], prediction, below), hr, valid)
        result = Scorer(names, Setting()).score(reference, {"sample": estimate})
        assert abs(result.facts["sample"]["reg_shift_col_px"] - 4.3) < 0.1
        found.append({n: s.value for n, s in result.scores["sample"].items()} | result.facts["sample"])
    assert found[0] == found[1]
    assert found[0]["psnr_rgb_reg"] > 40  # none of the pixels beside the hole, to which its fill was moved
    # As many pixels around the hole are left out as at the border.
    around = scored(valid)
    assert (~around).sum() == (30 + 2 * WINDOW_PX) * (40 + 2 * WINDOW_PX) and around.shape == (188, 188)


def test_noise_is_scored_unmoved_and_says_so() -> None:
    rng = np.random.default_rng(2)
    estimate, reference = pair(rng.random((80, 80, 3)), rng.random((80, 80, 3)))
    found = Scorer(("psnr_rgb_reg",), Setting()).score(reference, {"sample": estimate})
    assert "not moved" in (found.scores["sample"]["psnr_rgb_reg"].note or "")
    assert found.facts["sample"]["reg_shift_row_px"] == 0


def test_images_too_small_and_without_data_are_reasons(tasks: list[Task]) -> None:
    hr = tasks[0].reference.display_float
    small = Scorer(("ssim_rgb_reg",), Setting()).score(*reversed_pair(pair(hr[:20, :20], hr[:20, :20])))
    assert "smaller than 23 px" in str(small.scores["sample"]["ssim_rgb_reg"].reason)
    rim = everywhere(hr)
    rim[WINDOW_PX:-WINDOW_PX, WINDOW_PX:-WINDOW_PX] = False
    found = Scorer(("psnr_rgb_reg",), Setting()).score(*reversed_pair(pair(hr, hr, rim)))
    assert "no pixel is 6 px inside the data" in str(found.scores["sample"]["psnr_rgb_reg"].reason)


def reversed_pair(made: tuple[Estimate, Reference]) -> tuple[Reference, dict[str, Estimate]]:
    return made[1], {"sample": made[0]}


def test_identity_and_names_say_registration() -> None:
    plain, after = metric_class("psnr_rgb")(Setting()), metric_class("psnr_rgb_reg")(Setting())
    assert after.name == "psnr_rgb_reg" and "reg6px" in after.identity() and "reg-r3" in after.identity()
    assert after.identity() != plain.identity()
    assert after.missing() == plain.missing() and after.unit == plain.unit and after.direction == plain.direction
    assert {"psnr_rgb_reg", "ssim_rgb_reg", "lpips_alex_reg", "de00_reg"} <= set(chosen(["registered"]))
    assert not {"fid_tf_reg", "niqe_reg", "nll_reg"} & set(chosen(["registered"]))


@pytest.mark.parametrize("name", ["fid_tf_reg", "niqe_reg", "nll_reg", "d_s_reg"])
def test_what_compares_no_image_with_its_reference_is_refused(name: str) -> None:
    with pytest.raises(RfbenchError, match="registration means nothing"):
        metric_class(name)


def test_what_is_registered_already_is_refused() -> None:
    with pytest.raises(RfbenchError, match="psnr_rgb_reg is registered already"):
        registered(registered(PsnrRgb))


def test_a_run_has_both_columns_and_keeps_what_was_taken_out(tmp_path: Path) -> None:
    metrics = ("psnr_rgb", "psnr_rgb_reg")
    request = dict(models=("bicubic",), metrics=metrics, device="cpu", workers=0, limit=2, out=tmp_path / "out")
    (run,) = run_models(**request).folders
    scores = run.scores()
    assert (scores["psnr_rgb_reg"] > scores["psnr_rgb"]).all()
    drawn = json.loads((EMBEDDED / "sensors.json").read_text())
    for _, row in scores.iterrows():
        assert row["fact:reg_shift_row_px"] == pytest.approx(-drawn[row["id"]]["lr_shift_row_px"], abs=0.2)
        assert np.isfinite([row[f"fact:reg_{what}_{band}"] for what in ("gain", "bias") for band in RGB]).all()
    cells = run.summary().rows["sample"].metrics
    assert cells["psnr_rgb"].identity != cells["psnr_rgb_reg"].identity
