"""The sealed call: padding, tiles, seams, checks, policies and running out of memory."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.core.errors import ItemError, RfbenchError
from bench.core.image import Image
from bench.core.resample import resize
from bench.data.dataset import Pair, Record, Side
from bench.models import Adapter, Batch, ModelSpec, Prediction
from bench.models.call import Answer, Model
from bench.models.tiling import pad, padded_size, ramp, spans
from bench.protocols.base import Task
from bench.protocols.paired import Paired
from tests.conftest import picture


def task(h: int, w: int, size: tuple[int, int], name: str = "x", seed: int = 0) -> Task:
    lr = Image(picture(seed, h, w).astype(np.float32), "display", ("R", "G", "B"), np.ones((h, w), bool))
    hr = Image(picture(seed, *size).astype(np.float32), "display", ("R", "G", "B"), np.ones(size, bool))
    side = Side(unit="display")
    record = Record(name, name, sides={"lr": side, "hr": side})
    return Paired().prepare(Pair(record, lr, hr))


class Bicubic(Adapter):
    """Refuses images above a size, to play a device whose memory is full."""

    largest_px = 10**9
    largest_batch = 10**9
    calls: list[tuple[int, ...]]

    def upscale(self, batch: Batch) -> Prediction:
        n, h, w, _ = batch.images.shape
        self.calls.append((n, h, w))
        if h * w > self.largest_px or n > self.largest_batch:
            raise MemoryError
        return Prediction(mean=np.stack([resize(i, batch.size) for i in batch.images]))


def model(adapter: Adapter | None = None, **spec: Any) -> Any:
    found = Model("bicubic")
    found.adapter = adapter or Bicubic()
    if isinstance(found.adapter, Bicubic):
        found.adapter.calls = []
    found.spec = ModelSpec(name="m", adapter="", **spec)
    return found


def answers(m: Any, *tasks: Task, **options: Any) -> list[Answer]:
    found = m.predict(tasks, **({"run_seed": 0, "draws": 1} | options))
    for answer in found:
        assert isinstance(answer, Answer), str(answer)
    return list(found)


def test_padding_reaches_any_size() -> None:
    x = picture(0, 6, 5)[None]
    grown = pad(x.astype(np.float32), 64, 128)
    assert grown.shape == (1, 64, 128, 3)
    np.testing.assert_array_equal(grown[:, :6, :5], x.astype(np.float32))
    np.testing.assert_array_equal(grown[:, 6], grown[:, 5])
    assert padded_size(30, 40, multiple=16, min_side_px=1, square=False) == (32, 48)
    assert padded_size(30, 40, multiple=2, min_side_px=128, square=True) == (128, 128)


@pytest.mark.parametrize(
    ("h", "w", "size"), [(1, 1, (5, 5)), (6, 6, (30, 30)), (30, 40, (150, 200)), (41, 28, (206, 141))]
)
def test_padding_of_small_images_leaves_the_grid_alone(h: int, w: int, size: tuple[int, int]) -> None:
    plain = answers(model(), task(h, w, size))[0].arrays["mean"]
    padded = answers(model(min_side_px=48, multiple=16, square=True), task(h, w, size))[0].arrays["mean"]
    assert padded.shape == plain.shape == (*size, 3)
    inner = (slice(0, size[0] * 3 // 4), slice(0, size[1] * 3 // 4))
    assert np.abs(plain[inner] - padded[inner]).max() < 0.06


@pytest.mark.parametrize("scale", [(4.0, 4.0), (2.5, 2.5), (1.25, 1.25), (206 / 41, 141 / 28)])
def test_tiles_cover_and_seams_do_not_show(scale: tuple[float, float]) -> None:
    h, w = 124, 84
    size = (round(h * scale[0]), round(w * scale[1]))
    whole = answers(model(), task(h, w, size))[0].arrays["mean"]
    m = model(max_side_px=40, overlap_px=16)
    tiled = answers(m, task(h, w, size))[0].arrays["mean"]
    assert max(max(c[1:]) for c in m.adapter.calls) <= 40 and len(m.adapter.calls) > 6
    assert tiled.shape == whole.shape
    # Scales that fit the tiles are exact inside; others are displaced by less than a pixel.
    exact = all((s * 4).is_integer() for s in scale)
    assert np.abs(tiled - whole)[8:-8, 8:-8].mean() < (0.002 if exact else 0.02)


@pytest.mark.parametrize("length", [33, 41, 64, 100, 101, 250])
@pytest.mark.parametrize("scale", [1.25, 2, 4, 5, 206 / 41])
def test_tiles_cover_an_axis_and_none_is_too_long(length: int, scale: float) -> None:
    for tile, overlap in [(8, 4), (20, 4), (30, 15), (32, 8), (50, 8)]:
        out = round(length * scale)
        axis = spans(length, out, tile, overlap)
        assert axis[0].start == 0 and axis[-1].stop == length and axis[-1].out_stop == out
        assert max(s.stop - s.start for s in axis) <= tile
        total = np.zeros(out)
        for i, (span, following) in enumerate(zip(axis, [*axis[1:], None], strict=True)):
            assert following is None or span.start < following.start < span.stop
            total[span.out_start : span.out_stop] += ramp(axis, i)
        assert total.min() > 0


def test_a_flat_image_stays_flat_under_tiles() -> None:
    flat = task(100, 90, (250, 225))
    lr = replace(flat.lr, values=np.full_like(flat.lr.values, 0.4))
    (answer,) = answers(model(max_side_px=32, overlap_px=12), replace(flat, lr=lr))
    np.testing.assert_allclose(answer.arrays["mean"], 0.4, atol=1e-6)


def test_a_tile_gets_the_noise_of_its_place() -> None:
    class Noise(Adapter):
        def upscale(self, batch: Batch) -> Prediction:
            assert batch.size == tuple(2 * n for n in batch.images.shape[1:3])
            return Prediction(samples=batch.noise(3, 2) * np.float32(0.2))

    whole = answers(model(Noise(), scale_factors=(2,), stochastic=True), task(100, 70, (200, 140)), draws=2)[0]
    tiled = answers(
        model(Noise(), scale_factors=(2,), stochastic=True, max_side_px=32, overlap_px=8),
        task(100, 70, (200, 140)),
        draws=2,
    )[0]
    np.testing.assert_allclose(tiled.arrays["samples"], whole.arrays["samples"], atol=1e-5)


def test_noise_of_a_latent_grid_is_cropped_from_the_same_field() -> None:
    images = np.zeros((1, 32, 40, 3), np.float32)
    batch = Batch(images, (160, 200), ("R", "G", "B"), ("a",), ("",), ((7, 8),))
    whole = batch.noise(4, 5 / 8)
    assert whole.shape == (1, 2, 20, 25, 4)
    np.testing.assert_array_equal(batch.noise(4, 5 / 8, size=(24, 32))[:, :, :20, :25], whole)
    tile = replace(batch, images=images[:, :16, :16], offset=(16, 8))
    np.testing.assert_array_equal(tile.noise(4, 5 / 8), whole[:, :, 10:20, 5:15])


def test_a_batch_of_eight_is_eight_of_one() -> None:
    tasks = [task(20, 30, (80, 120), f"t{i}", i) for i in range(8)]
    together = answers(model(), *tasks)
    for one, alone in zip(together, tasks, strict=True):
        np.testing.assert_array_equal(one.arrays["mean"], answers(model(), alone)[0].arrays["mean"])


def test_out_of_memory_halves_the_batch_and_then_the_tile() -> None:
    adapter = Bicubic()
    adapter.largest_batch = 2
    m = model(adapter)
    tasks = [task(20, 20, (40, 40), f"t{i}", i) for i in range(8)]
    assert len(answers(m, *tasks)) == 8
    assert [c[0] for c in adapter.calls] == [8, 4, 2, 2, 2, 2]
    assert m.retreats == ["out of memory: batches of at most 4", "out of memory: batches of at most 2"]
    adapter.largest_px = 64 * 64
    big = answers(m, task(130, 130, (260, 260)))[0]
    assert big.notes == ("out of memory: run in tiles of 32 LR px",)
    adapter.largest_px = 20 * 20
    assert answers(m, task(40, 40, (200, 200)))[0].notes == ("out of memory: run in tiles of 20 LR px",)
    adapter.largest_px = 10
    lost = m.predict([task(130, 130, (260, 260))], run_seed=0, draws=1)[0]
    assert isinstance(lost, ItemError) and "out of memory even in tiles of 8 LR px" in str(lost)


def test_the_retreat_starts_below_the_tile_that_did_not_fit() -> None:
    m = model(max_side_px=64, overlap_px=8)
    m.adapter.largest_px = 30 * 30
    (answer,) = answers(m, task(200, 200, (400, 400)))
    assert answer.notes == ("out of memory: run in tiles of 16 LR px",)
    assert max(max(c[1:]) for c in m.adapter.calls) <= 64


def test_the_retreat_ends_where_tiles_would_be_padded_to_the_same_size() -> None:
    m = model(multiple=64, max_side_px=256)
    m.adapter.largest_px = 10
    (lost,) = m.predict([task(200, 200, (400, 400))], run_seed=0, draws=1)
    assert isinstance(lost, ItemError) and "out of memory even in tiles of 100 LR px" in str(lost)
    assert [c[1:] for c in m.adapter.calls] == [(256, 256), (128, 128)]


def test_a_processor_s_lack_of_memory_is_recognised_and_the_failed_attempt_is_freed() -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    class Hungry(Adapter):
        def upscale(self, batch: Batch) -> Prediction:
            assert not any(ref() is not None for ref in alive), "a failed attempt still holds its memory"
            buffer = np.zeros(1000)
            alive.append(weakref.ref(buffer))
            if len(batch.ids) > 1:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return Prediction(mean=np.stack([resize(i, batch.size) for i in batch.images]))

    tasks = [task(5, 5, (10, 10), f"t{i}", i) for i in range(4)]
    assert len(answers(model(Hungry()), *tasks)) == 4


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3, 4, 3), np.float32), "has the shape 1x3x4x3, expected 1x8x8xC"),
        (np.full((1, 8, 8, 3), np.nan, np.float32), "192 values that are not finite"),
        (np.zeros((1, 8, 8, 3)), "is float64, expected float32"),
        (np.full((1, 8, 8, 3), 200, np.float32), r"runs from 200 to 200, expected display"),
        (np.zeros((1, 8, 8, 2), np.float32), "2 channels"),
    ],
)
def test_wrong_answers_are_refused(array: np.ndarray, message: str) -> None:
    class Wrong(Adapter):
        def upscale(self, batch: Batch) -> Prediction:
            return Prediction(mean=array)

    found = model(Wrong()).predict([task(4, 4, (8, 8))], run_seed=0, draws=1)[0]
    assert isinstance(found, ItemError)
    with pytest.raises(ItemError, match=message):
        raise found


def test_one_bad_image_in_a_batch_is_lost_alone() -> None:
    class Picky(Adapter):
        def upscale(self, batch: Batch) -> Prediction:
            if "t2" in batch.ids:
                raise ValueError("not this one")
            return Prediction(mean=np.stack([resize(i, batch.size) for i in batch.images]))

    tasks = [task(5, 5, (10, 10), f"t{i}", i) for i in range(4)]
    found = model(Picky()).predict(tasks, run_seed=0, draws=1)
    assert [isinstance(a, Answer) for a in found] == [True, True, False, True]
    assert "not this one" in str(found[2])


def test_reflectance_and_bands_by_name() -> None:
    t = task(5, 5, (10, 10))
    refused = model(unit="reflectance", bands=("R", "G", "B", "NIR")).predict([t], run_seed=0, draws=1)[0]
    assert "needs reflectance" in str(refused)
    lr = replace(t.lr, unit="reflectance")
    refused = model(unit="reflectance", bands=("R", "G", "B", "NIR")).predict([replace(t, lr=lr)], run_seed=0, draws=1)[
        0
    ]
    assert "band NIR is needed; the LR image has R G B" in str(refused)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bicubc", "did you mean bicubic"),
        ("bicubic:steps=3", "unknown option of model bicubic 'steps'"),
        ("files", "needs the option folder"),
        ("files:folder=/nowhere", "is not a folder"),
    ],
)
def test_unknown_models_and_options(text: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=message):
        Model(text)


# --- extras: maps and facts -----------------------------------------------------------------------------------


class Extras(Adapter):
    """Bicubic, with a map that is the answer's first channel and the image's mean as a fact; ``wrong`` spoils it."""

    def __init__(self, **wrong: Any) -> None:
        super().__init__()
        self.wrong = wrong
        self.means: list[float] = []

    def upscale(self, batch: Batch) -> Prediction:
        mean = np.stack([resize(i, batch.size) for i in batch.images])
        self.means.append(float(batch.images[0].mean()))
        facts = tuple({"level": float(image.mean())} for image in batch.images)
        extras = {"maps": {"red": mean[..., 0].copy()}, "facts": facts} | {k: f(mean) for k, f in self.wrong.items()}
        return Prediction(mean=mean, **extras)


@pytest.mark.parametrize("spec", [{}, {"min_side_px": 64, "multiple": 16}, {"max_side_px": 20, "overlap_px": 6}])
def test_maps_go_where_the_image_goes(spec: dict[str, Any]) -> None:
    (answer,) = answers(model(Extras(), **spec), task(40, 30, (160, 120)))
    assert answer.maps["red"].shape == (160, 120) and answer.maps["red"].dtype == np.float32
    np.testing.assert_allclose(answer.maps["red"], answer.arrays["mean"][:, :, 0], atol=1e-6)


def test_maps_come_to_the_grid_bilinearly() -> None:
    t = task(20, 30, (100, 150))
    (answer,) = answers(model(Extras(), scale_factors=(4,)), t)
    native = answer.native["mean"][:, :, :1]
    assert native.shape == (80, 120, 1)
    np.testing.assert_array_equal(answer.maps["red"], resize(native, (100, 150), "bilinear")[:, :, 0])
    assert set(answer.stored()) == {"mean", "native_mean", "map:red"}


def test_facts_are_averaged_over_tiles_with_equal_weights() -> None:
    adapter = Extras()
    (whole,) = answers(model(adapter), task(40, 30, (80, 60)))
    assert whole.facts == {"level": adapter.means[0]}
    adapter.means.clear()
    (tiled,) = answers(model(adapter, max_side_px=20, overlap_px=4), task(40, 30, (80, 60)))
    assert len(adapter.means) == 6 and np.ptp(adapter.means) > 0.01
    assert tiled.facts["level"] == pytest.approx(np.mean(adapter.means), abs=1e-12)


def test_extras_of_a_batch_are_those_of_its_images() -> None:
    tasks = [task(20, 30, (80, 120), f"t{i}", i) for i in range(3)]
    for one, t in zip(answers(model(Extras()), *tasks), tasks, strict=True):
        (alone,) = answers(model(Extras()), t)
        assert one.facts == alone.facts
        np.testing.assert_array_equal(one.maps["red"], alone.maps["red"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"maps": lambda m: {"red": m}}, "map:red has the shape 1x40x60x3, expected 1x40x60"),
        ({"maps": lambda m: {"red": m[:, :-1, :, 0]}}, "has the shape 1x39x60, expected 1x40x60"),
        ({"maps": lambda m: {"red": m[..., 0].astype(np.float64)}}, "map:red is float64, expected float32"),
        ({"maps": lambda m: {"red": m[..., 0] * np.float32(np.nan)}}, "map:red holds 2400 values that are not finite"),
        ({"maps": lambda m: {"a/b": m[..., 0]}}, "a map or fact called 'a/b'"),
        ({"facts": lambda m: ({"u": 1.0}, {"u": 2.0})}, "facts hold 2 images, expected 1"),
        ({"facts": lambda m: ({"u": float("nan")},)}, "the fact u is not finite"),
        ({"facts": lambda m: ({"fact u": 1.0},)}, "a map or fact called 'fact u'"),
    ],
)
def test_wrong_extras_are_one_line(wrong: dict[str, Any], message: str) -> None:
    found = model(Extras(**wrong)).predict([task(20, 30, (40, 60))], run_seed=0, draws=1)[0]
    assert isinstance(found, ItemError) and message in str(found)


def test_tiles_with_other_extras_are_refused() -> None:
    names = iter("abcdefgh")
    m = model(Extras(facts=lambda _: ({next(names): 1.0},)), max_side_px=20, overlap_px=4)
    assert "of different names" in str(m.predict([task(40, 30, (80, 60))], run_seed=0, draws=1)[0])
