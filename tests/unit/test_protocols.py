"""Protocols: what a model sees, what it is held against, and on which grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.core.errors import ItemError, RfbenchError
from bench.core.image import Image
from bench.core.resample import resize
from bench.data.dataset import Pair, Record, Side
from bench.metrics.base import Setting
from bench.metrics.fidelity import PsnrRgb
from bench.metrics.physics import DLambda, SamRefl
from bench.models.call import Model
from bench.protocols.bicubic import Bicubic4x
from bench.protocols.find import resolve_protocol
from bench.protocols.paired import Paired
from bench.score.estimates import estimates
from tests.conftest import picture

BANDS = ("R", "G", "B", "NIR")


def image(h: int, w: int, *, unit: str = "reflectance", seed: int = 0, scale: float = 0.3) -> Image:
    values = (picture(seed, h, w, 4) * scale).astype(np.float32)
    return Image(values, unit, BANDS, np.ones((h, w), bool), 2.0)  # type: ignore[arg-type]


def pair(lr: Image | None, hr: Image | None, pan: Image | None = None, hr_side: Side = Side()) -> Pair:
    record = Record("a", "s", caption="from HR", sides={"lr": Side(), "hr": hr_side, "pan": Side()})
    return Pair(record, lr, hr, pan)


def test_paired_takes_the_grid_of_hr_and_each_side_s_own_range() -> None:
    task = Paired().prepare(pair(image(6, 7), image(31, 36), hr_side=Side(normalisation="fixed[0,6000]")))
    assert task.size == (31, 36) and task.lr_display.shape == (6, 7, 3)
    np.testing.assert_allclose(task.lr_display, np.clip(task.lr.values[:, :, :3] / 0.3, 0, 1), atol=1e-6)
    assert task.reference.display is not None and task.reference.display_float is not None
    np.testing.assert_allclose(task.reference.display_float, image(31, 36).values[:, :, :3] / 0.6, atol=1e-6)
    levels = task.reference.display * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def test_the_percentile_form_is_fitted_on_each_side_by_itself() -> None:
    lr, hr = image(20, 20), image(80, 80, scale=0.9, seed=1)
    task = resolve_protocol("paired:normalisation=percentile[2,98]").prepare(pair(lr, hr))
    low, high = np.percentile(lr.values[:, :, :3].reshape(-1, 3).astype(float), [2, 98], axis=0)
    assert task.fitted is not None
    np.testing.assert_allclose([task.fitted.low, task.fitted.high], [low, high])
    assert task.reference.display is not None
    # A prediction in the LR's unit is brought to display with the LR's parameters, never with its own.
    model = Model("bicubic")
    (answer,) = model.predict([task], run_seed=0, draws=1)
    shown = estimates(answer, task, Paired())["sample"].display_float  # type: ignore[arg-type]
    expected = np.clip((resize(lr.values, (80, 80))[:, :, :3] - low) / (high - low), 0, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_holes_do_not_enter_the_percentiles() -> None:
    lr = image(20, 20)
    valid = np.ones((20, 20), bool)
    valid[:6] = False
    task = resolve_protocol("paired:normalisation=percentile[2,98]").prepare(
        pair(replace(lr, valid=valid), image(80, 80))
    )
    expected = np.percentile(lr.values[6:, :, :3].reshape(-1, 3).astype(float), [2, 98], axis=0)
    assert task.fitted is not None
    np.testing.assert_allclose([task.fitted.low, task.fitted.high], expected)
    assert task.lr.valid.all() and "120 LR pixels without data" in task.notes[0]


def test_holes_of_the_lr_are_left_out_of_the_scores() -> None:
    valid = np.ones((10, 10), bool)
    valid[2, 3] = False
    task = Paired().prepare(pair(replace(image(10, 10), valid=valid), image(50, 50)))
    assert not task.reference.valid[10:15, 15:20].any() and task.reference.valid.sum() == 2500 - 25


def test_images_without_rgb_are_scored_in_reflectance() -> None:
    def two(n: int) -> Image:
        values = np.ascontiguousarray(image(n, n).values[:, :, 2:])
        return Image(values, "reflectance", ("NIR", "B11"), np.ones((n, n), bool))

    task = Paired().prepare(pair(two(12), two(48)))
    assert task.fitted is None and task.reference.display is None
    (answer,) = Model("bicubic").predict([task], run_seed=0, draws=1)
    found = estimates(answer, task, Paired())["sample"]  # type: ignore[arg-type]
    for metric in (DLambda, SamRefl):
        assert metric(Setting()).assess(found, task.reference).value is not None
    assert str(PsnrRgb(Setting()).assess(found, task.reference).reason) == "the reference has no bands R G B"


def test_mask_and_dates_reach_the_metrics_and_the_model() -> None:
    mask = np.zeros((43, 50), bool)
    mask[:10] = True
    data = replace(pair(image(9, 10), image(43, 50)), mask=mask)
    data = replace(data, record=replace(data.record, hr_date="2021-08-17", lr_date="2021-08-21"))
    task = Paired(border_px=2).prepare(data)
    assert task.reference.mask is not None and task.reference.mask.shape == (39, 46)
    assert task.reference.mask[:8].all() and not task.reference.mask[8:].any()
    assert (task.lr_date, task.reference.hr_date) == ("2021-08-21", "2021-08-17")
    assert set(task.normalisation) == {"lr", "hr"}


def test_bicubic_4x_reduces_what_it_cropped_in_its_own_unit() -> None:
    hr = image(43, 50)
    task = Bicubic4x().prepare(pair(image(9, 9), hr))
    assert task.size == (40, 48) and task.lr.size == (10, 12) and task.lr.gsd_m == 8.0
    np.testing.assert_array_equal(task.lr.values, resize(np.ascontiguousarray(hr.values[:40, :48]), (10, 12)))
    assert "kernel" in Bicubic4x().identity()


def test_a_hole_in_hr_stays_a_hole_and_does_not_bleed() -> None:
    hr = image(40, 40)
    values, valid = hr.values.copy(), np.ones((40, 40), bool)
    values[:4, :4], valid[:4, :4] = 0, False
    task = Bicubic4x().prepare(pair(None, replace(hr, values=values, valid=valid)))
    assert not task.reference.valid[:4, :4].any() and task.reference.valid.sum() == 1600 - 16
    clean = Bicubic4x().prepare(pair(None, hr))
    assert np.abs(task.lr.values - clean.lr.values).max() < 0.1


@pytest.mark.parametrize(
    ("data", "protocol", "message"),
    [
        (pair(None, image(8, 8)), Paired(), "no LR image"),
        (pair(image(8, 8), None), Paired(), "give --protocol paired:scale=5"),
        (pair(image(8, 8), image(4, 4)), Paired(), "larger than its target"),
        (pair(image(8, 12), image(60, 40)), Paired(), "do not show the same ground"),
        (pair(image(8, 8), image(40, 40)), Paired(scale=4), "leave the option out"),
        (pair(image(8, 8), None), Bicubic4x(), "no HR image"),
        (pair(None, image(3, 8)), Bicubic4x(), "cannot be reduced"),
        (pair(image(8, 8), image(16, 16)), Paired(border_px=8), "leaves nothing"),
        (pair(replace(image(8, 8), valid=np.zeros((8, 8), bool)), image(16, 16)), Paired(), "no valid pixel"),
    ],
)
def test_pairs_that_do_not_fit_say_why(data: Pair, protocol: Paired, message: str) -> None:
    with pytest.raises(ItemError, match=message):
        protocol.prepare(data)


def test_without_hr_the_grid_is_the_pan_s() -> None:
    pan = Image(picture(0, 40, 48, 1).astype(np.float32), "reflectance", ("PAN",), np.ones((40, 48), bool))
    task = Paired().prepare(pair(image(10, 12), None, pan))
    assert task.size == (40, 48) and task.reference.display is None and task.reference.pan is pan


def test_captions_are_what_the_protocol_says() -> None:
    data = pair(image(10, 10), image(50, 50))
    captions = {
        c: resolve_protocol(f"paired:captions={c}").prepare(data).caption for c in ("dataset", "template", "none")
    }
    assert captions["dataset"] == "from HR" and captions["none"] == ""
    other_hr = pair(image(10, 10), image(50, 50, seed=5))
    assert captions["template"] == resolve_protocol("paired:captions=template").prepare(other_hr).caption != ""


def test_a_border_is_cut_from_both_sides_alike() -> None:
    data = pair(image(12, 12), image(48, 48))
    protocol = Paired(border_px=4)
    task, whole = protocol.prepare(data), Paired().prepare(data)
    assert task.reference.display is not None and whole.reference.display is not None
    np.testing.assert_array_equal(task.reference.display, whole.reference.display[4:-4, 4:-4])
    (answer,) = Model("bicubic").predict([task], run_seed=0, draws=1)
    cut = estimates(answer, task, protocol)["sample"]  # type: ignore[arg-type]
    assert cut.display.shape == (40, 40, 3) and cut.image is not None and cut.image.size == (40, 40)
    # Bicubic against bicubic: no distortion, so the LR must cover the same ground as the cut prediction.
    score = DLambda(Setting(border_px=4)).assess(cut, task.reference)
    assert score.value == pytest.approx(0.0, abs=1e-9)


def test_rounding_can_be_left_out() -> None:
    data = pair(image(10, 10), image(50, 50))
    reference = resolve_protocol("paired:quantise=none").prepare(data).reference
    assert reference.display is not None and reference.display_float is not None
    np.testing.assert_array_equal(reference.display, reference.display_float)
    with pytest.raises(RfbenchError, match="expected 8 or none"):
        resolve_protocol("paired:quantise=7")


def test_the_identity_names_every_option() -> None:
    assert Paired().label() == "paired"
    changed = resolve_protocol("paired:border_px=4,policy=pre")
    assert changed.label() == "paired:border_px=4,policy=pre"
    assert changed.identity() != Paired().identity()
