"""Training: data and batches, what trains and what stays, stops and resumes, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rareflow.checkpoint import load
from rareflow.config import Config, StageConfig, with_changes
from rareflow.errors import RareflowError
from rareflow.losses import velocity_loss
from rareflow.model import RareFlow
from rareflow.networks import Codec, Gates, Masks, NamedDropout
from rareflow.noise import normal
from rareflow.train import run as run_module
from rareflow.train import stages as stages_module
from rareflow.train.cache import Cache, Item
from rareflow.train.chips import SMALLEST_PX, Chip, Data, batch_at, checked, split, stream
from rareflow.train.loop import averaged, read_log, read_state, run_stage, write_state
from rareflow.train.stages import (
    ControlModule,
    ControlStage,
    PriorModule,
    PriorStage,
    VaeStage,
    content,
    crop_window,
    fit_latents,
)
from rareflow.uncertainty import measure
from tests.small_rareflow import (
    STAGES,
    chip,
    pixels,
    small_config,
    small_data,
    small_model,
    train_small,
    weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = small_config({"train": {"bank_size": 0}})  # a bank of all chips
ONE = {"train": {stage: {"steps": 1} for stage in STAGES}}
SIZES = ((105, 112), (105, 150), (131, 106))  # buckets 108x120, 108x156, 132x108


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- chips and splits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5])
def test_a_split_never_divides_a_group(share: float) -> None:
    random = np.random.default_rng(0)
    for seed in range(20):
        chips = [chip(i, group=f"g{random.integers(9)}") for i in range(40)]
        train, held = split(chips, share, seed)
        groups = {c.group for c in chips}
        assert not {c.group for c in train} & {c.group for c in held} and train and held
        assert len({c.group for c in held}) == max(1, round(share * len(groups)))
        assert Counter(c.id for c in (*train, *held)) == Counter(c.id for c in chips)
        turned = split(chips[::-1], share, seed)
        assert {c.id for c in turned[1]} == {c.id for c in held}  # of the names, not of their order
    assert len({tuple(c.id for c in split(chips, share, seed)[1]) for seed in range(20)}) > 3


def test_one_scene_cannot_be_split() -> None:
    with pytest.raises(RareflowError, match=r"3 chips of 1 scene, expected two scenes or more.*add data") as error:
        split([chip(i, group="only") for i in range(3)], 0.5, 0)
    one_line(error)


def with_pixels(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], number: int = 7) -> Chip:
    good = chip(number)
    return dataclasses.replace(good, load=lambda: change(*(image.copy() for image in good.load())))


def spoil(value: float, side: int) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    def change(*images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images[side][3, 4, 1] = value
        return images[0], images[1]

    return change


BAD = {
    "nan in HR": (spoil(np.nan, 1), "the HR holds 1 values that are not finite; repair or remove it"),
    "inf in LR": (spoil(np.inf, 0), "the LR holds 1 values that are not finite; repair or remove it"),
    "too bright": (spoil(1.5, 1), r"the HR runs from .* to 1.5, expected display values in \[0, 1\]; normalise"),
    "negative": (spoil(-0.1, 0), "the LR runs from -0.1 to .*; normalise"),
    "grey": (lambda lr, hr: (lr, hr[:, :, 0]), r"the HR has the shape \(105, 112\), expected"),
    "four bands": (
        lambda lr, hr: (np.concatenate([lr, lr], axis=2), hr),
        r"the LR has the shape \(21, 22, 6\), expected",
    ),
    "empty": (lambda lr, hr: (lr[:0], hr), r"the LR has the shape \(0, 22, 3\), expected"),
    "small": (lambda lr, hr: (lr, hr[:104]), "the HR has 104x112 px, expected 105 px a side or more; leave it out"),
    "swapped": (
        lambda lr, hr: (np.zeros((105, 113, 3), np.float32), hr),
        r"the HR \(105, 112\) is smaller than the LR \(105, 113\); are they swapped",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_chip_that_cannot_be_trained_on_is_named(kind: str) -> None:
    change, says = BAD[kind]
    with pytest.raises(RareflowError, match=f"^chip7: {says}") as error:
        checked(with_pixels(change))
    one_line(error)


def test_chips_from_105_px_are_taken() -> None:
    assert SMALLEST_PX == 105
    lr, hr = checked(chip(0, (105, 105)))
    assert hr.shape == (105, 105, 3) and lr.shape == (21, 21, 3)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_an_epoch_visits_every_chip(size: int) -> None:
    buckets = [[f"a{i}" for i in range(8)], [f"b{i}" for i in range(5)], ["c0"]]
    per_epoch = sum(-(-len(b) // size) for b in buckets)
    epochs = []
    for epoch in range(3):
        batches = [batch_at(buckets, size, epoch * per_epoch + i, 3, "prior") for i in range(per_epoch)]
        assert all(len(b) == size and len({name[0] for name in b}) == 1 for b in batches)  # of one bucket each
        seen = Counter(name for b in batches for name in b)
        for bucket in buckets:
            filled = -(-len(bucket) // size) * size
            counts = [seen[name] for name in bucket]
            assert sum(counts) == filled and max(counts) - min(counts) <= 1 and min(counts) >= 1
        epochs.append(batches)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_is_a_function_of_seed_stage_and_step() -> None:
    buckets = [list(range(8)), list(range(10, 15))]
    wanted = [batch_at(buckets, 2, step, 5, "control") for step in range(30)]
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    for step in reversed(range(30)):
        assert batch_at(buckets, 2, step, 5, "control") == wanted[step]
    for other in ((6, "control"), (5, "prior")):
        assert [batch_at(buckets, 2, step, *other) for step in range(30)] != wanted


# --- the cache -------------------------------------------------------------------------------------------------------


def make_cache(folder: Path, chips: tuple[Chip, ...], codec: Codec, key: str = "key", **options: Any) -> Cache:
    cache = Cache(folder, chips, codec.factor, 3, key, **options)
    cache.make_pixels(lambda: None)
    cache.make_latents(codec, "vae", torch.device("cpu"), lambda: None)
    return cache


@pytest.fixture(scope="module")
def model() -> RareFlow:
    """Random weights; not to be trained."""
    return small_model()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, model: RareFlow) -> Cache:
    """Six chips of three sizes."""
    return make_cache(tmp_path_factory.mktemp("cache"), small_data(6, SIZES).train, model.codec)


def test_pixels_are_those_of_the_chips_padded_by_reflection(cache: Cache) -> None:
    assert [len(b) for b in cache.buckets] == [2, 2, 2] and {i.bucket for i in cache.items} == {
        (108, 120), (108, 156), (132, 108),
    }  # fmt: skip
    for item in cache.items:
        lr, hr = item.chip.load()
        assert item.valid == hr.shape[:2]
        room = [(0, b - v) for b, v in zip(item.bucket, item.valid, strict=True)]
        found = [cache.images([item], kind, 0, 0, item.bucket)[0].permute(1, 2, 0).numpy() for kind in ("hr", "up")]
        assert np.array_equal(found[0], np.pad(hr, (*room, (0, 0)), mode="reflect"))
        size = item.valid[::-1]
        up = [np.asarray(PIL.Image.fromarray(lr[:, :, c]).resize(size, PIL.Image.Resampling.BICUBIC)) for c in range(3)]
        expected = np.pad(np.stack(up, axis=2).clip(0, 1), (*room, (0, 0)), mode="reflect")
        np.testing.assert_allclose(found[1], expected, atol=0.5 / 255 + 1e-5)


def test_latents_are_those_of_the_cached_pixels(cache: Cache, model: RareFlow) -> None:
    for bucket in cache.buckets:
        for kind, source in (("z0", "hr"), ("x", "up")):
            found = cache.latents(bucket, kind, 0, 0, (bucket[0].bucket[0] // 4, bucket[0].bucket[1] // 4))
            for item, latents in zip(bucket, found, strict=True):
                with torch.no_grad():
                    expected = model.codec.encode(cache.images([item], source, 0, 0, item.bucket))[0]
                assert torch.equal(latents, expected.half().float())


def test_a_crop_is_cut_out_of_rows_and_columns(cache: Cache) -> None:
    items = cache.buckets[1]
    whole, crop = cache.images(items, "hr", 0, 0, (108, 156)), cache.images(items, "hr", 12, 36, (60, 84))
    assert torch.equal(crop, whole[:, :, 12:72, 36:120])
    whole, crop = cache.latents(items, "x", 0, 0, (27, 39)), cache.latents(items, "x", 3, 9, (15, 21))
    assert torch.equal(crop, whole[:, :, 3:18, 9:30])


def test_a_cache_is_made_once_for_its_key_and_vae(tmp_path: Path, model: RareFlow) -> None:
    loads: list[str] = []

    def counted(number: int) -> Chip:
        one = chip(number)
        return dataclasses.replace(one, load=lambda: (loads.append(one.id), one.load())[1])

    first = make_cache(tmp_path, (counted(0), counted(1)), model.codec)
    assert loads == ["chip0", "chip1"]
    again = make_cache(tmp_path, (counted(0), counted(1)), model.codec)
    assert len(loads) == 2 and [(i.chip.id, *i.bucket, i.row) for i in again.items] == [
        (i.chip.id, *i.bucket, i.row) for i in first.items
    ]
    ticks: list[int] = []
    again.make_latents(model.codec, "vae", torch.device("cpu"), lambda: ticks.append(1))
    assert not ticks
    again.make_latents(small_model(seed=5).codec, "another", torch.device("cpu"), lambda: ticks.append(1))
    assert len(ticks) == 4
    make_cache(tmp_path, (counted(2), counted(3)), model.codec, "other chips")
    assert loads[2:] == ["chip2", "chip3"]
    back = make_cache(tmp_path, (counted(0), counted(1)), model.codec)
    assert loads[4:] == ["chip0", "chip1"]
    expected = model.codec.encode(back.images(back.items[:1], "hr", 0, 0, (108, 120)))[0].detach()
    assert torch.equal(back.latents(back.items[:1], "z0", 0, 0, (27, 30))[0], expected.half().float())


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
def test_a_cache_that_another_training_began_to_overwrite_is_made_again(
    tmp_path: Path, model: RareFlow, at: int
) -> None:
    """Pixels of two chips, then latents of two kinds: a stop after each must not pass for the older cache."""
    make_cache(tmp_path, (chip(0), chip(1)), model.codec)
    left = at

    def stop() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other = Cache(tmp_path, (chip(2), chip(3)), 4, 3, "other")
        other.make_pixels(stop)
        other.make_latents(small_model(seed=5).codec, "another", torch.device("cpu"), stop)
    back = make_cache(tmp_path, (chip(0), chip(1)), model.codec)
    for item in back.items:
        image = back.images([item], "hr", 0, 0, item.bucket)
        assert np.array_equal(image[0].permute(1, 2, 0)[:105, :112], item.chip.load()[1])
        with torch.no_grad():
            expected = model.codec.encode(image)[0].half().float()
        assert torch.equal(back.latents([item], "z0", 0, 0, (27, 30))[0], expected)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"key": "key"}', "null"])
def test_a_damaged_index_is_no_index(tmp_path: Path, model: RareFlow, content: str) -> None:
    make_cache(tmp_path, (chip(0),), model.codec)
    for name in ("pixels.json", "latents.json"):
        (tmp_path / name).write_text(content)
    assert len(make_cache(tmp_path, (chip(0),), model.codec).items) == 1


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if "b" in mode and self.suffix in (".hr", ".up"):
            raise OSError(28, "No space left on device")
        return opened(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RareflowError, match="No space left on device; free some space") as error:
        Cache(tmp_path, (chip(0),), 4, 3, "key").make_pixels(lambda: None)
    one_line(error)


def test_a_work_scale_enlarges_what_is_trained_on(tmp_path: Path, model: RareFlow) -> None:
    twice = make_cache(tmp_path, (chip(0),), model.codec, work_scale=2)
    (item,) = twice.items
    assert item.valid == (210, 224) and item.bucket == (216, 228)
    hr = twice.images([item], "hr", 0, 0, item.bucket)[0, :, :210, :224]
    blocks = hr.reshape(3, 105, 2, 112, 2).mean(dim=(2, 4)).permute(1, 2, 0).numpy()
    assert np.abs(blocks - item.chip.load()[1]).mean() < 0.01


# --- crops and masks -------------------------------------------------------------------------------------------------


def item_of(bucket: tuple[int, int], valid: tuple[int, int]) -> Item:
    return Item(chip(0), bucket, 0, valid)


def test_crops_lie_on_the_grid_and_reach_everywhere() -> None:
    item = item_of((132, 108), (131, 106))
    seen = set()
    for step in range(300):
        top, left, rows, columns = crop_window(item, 60, 12, stream(0, "crop", step))
        assert rows == columns == 60 and top % 12 == left % 12 == 0
        assert 0 <= top <= 132 - 60 and 0 <= left <= 108 - 60
        seen.add((top, left))
    assert len(seen) == 7 * 5
    assert crop_window(item, 61, 12, stream(0))[2:] == (72, 72)
    assert crop_window(item, 1000, 12, stream(0)) == (0, 0, 132, 108)


@pytest.mark.parametrize("window", [(0, 0, 132, 108), (72, 48, 60, 60), (0, 0, 60, 60)])
def test_a_mask_has_the_cells_whose_middle_is_image(window: tuple[int, int, int, int]) -> None:
    items = [item_of((132, 108), valid) for valid in ((131, 106), (121, 97), (132, 108))]
    found = content(items, window, 4)
    top, left, rows, columns = window
    assert found.shape == (3, 1, rows // 4, columns // 4) and found.dtype == torch.bool
    for item, mask in zip(items, found[:, 0].numpy(), strict=True):
        inside = np.zeros(item.bucket, bool)
        inside[: item.valid[0], : item.valid[1]] = True
        crop = inside[top : top + rows, left : left + columns]
        # a cell's middle is image where its pixel to the upper left of the middle and the next one are
        assert np.array_equal(mask, crop[2::4, 2::4] | crop[1::4, 1::4] & crop[2::4, 2::4])
    assert found[2].all()


class Fixed:
    """A field whose velocity is given, so that a loss is seen apart from the networks."""

    def __init__(self, v: Tensor) -> None:
        self.v = v
        self.transformer, self.control, self.gates = nn.Identity(), nn.Identity(), None

    def velocity(self, *_: object) -> Tensor:
        return self.v


def padded_batch(cache: Cache, model: RareFlow, config: Config | None = None) -> dict[str, Tensor]:
    """A batch of the control stage with padding in it."""
    stage = control_stage(model, cache, config)
    for step in range(30):
        batch, _ = stage.batch(step)
        if "mask" in batch:
            return batch
    raise AssertionError("no batch has a mask")


def test_what_lies_in_the_padding_does_not_reach_the_losses(cache: Cache, model: RareFlow) -> None:
    batch = padded_batch(cache, model)
    mask, outside = batch["mask"], ~batch["mask"].expand_as(batch["z0"])
    assert bool(outside.any()) and batch["target"].shape[-2:] == tuple(4 * n for n in mask.shape[-2:])
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(batch["z0"].shape, generator=generator).requires_grad_(True)

    def junk(values: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, torch.full_like(values, 1e3), values.detach())

    control = ControlModule(Fixed(v), Masks(), model.codec, small_config().loss, None)  # type: ignore[arg-type]
    loss, terms = control(**batch)
    (gradient,) = torch.autograd.grad(loss, v)
    assert not gradient[outside].any() and bool((gradient[~outside] != 0).all())
    large = outside[:, :1].float().repeat_interleave(4, 2).repeat_interleave(4, 3).bool().expand_as(batch["target"])
    control.field = Fixed(junk(v, outside))  # type: ignore[assignment]
    other = batch | {"eps": junk(batch["eps"], outside), "target": junk(batch["target"], large)}
    changed, changed_terms = control(**other)
    assert set(terms) == {"base", "fft", "color"}
    for name in terms:
        torch.testing.assert_close(changed_terms[name], terms[name], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(changed, loss.detach(), rtol=1e-5, atol=1e-7)

    batch = {k: batch[k] for k in ("z0", "x", "eps", "sigma", "mask")} | {"ids": torch.zeros(2, 6), "on": torch.ones(2)}
    prior = PriorModule(Fixed(v), lambda ids: (ids, ids))  # type: ignore[arg-type]
    loss, _ = prior(**batch)
    expected = velocity_loss(v, batch["z0"], batch["eps"], batch["sigma"], "inv_sigma", mask).mean()
    torch.testing.assert_close(loss, expected)
    prior.field = Fixed(junk(v, outside))  # type: ignore[assignment]
    changed, _ = prior(**(batch | {name: junk(batch[name], outside) for name in ("z0", "eps", "x")}))
    torch.testing.assert_close(changed, loss.detach())


# --- the VAE's stage -------------------------------------------------------------------------------------------------


def test_latents_are_brought_to_mean_0_and_deviation_1(cache: Cache) -> None:
    vae = small_model(seed=3).codec.vae
    fit_latents(vae, cache, 4)
    with torch.no_grad():
        values = np.concatenate([
            Codec(vae).encode(cache.images([item], "hr", 0, 0, item.bucket)).double().numpy().ravel()
            for item in cache.items[:4]
        ])  # fmt: skip
    assert values.mean() == pytest.approx(0, abs=1e-4) and values.std() == pytest.approx(1, rel=1e-4)


def test_the_vae_sees_both_sides_of_chips(cache: Cache) -> None:
    config = small_config({"train": {"vae": {"batch": 8, "crop_px": 24}}})
    stage = VaeStage(small_model().codec.vae, config, cache, cache)
    images = stage.batch(0)[0]["images"]
    assert images.shape == (8, 3, 24, 24)
    items = batch_at(cache.buckets, 8, 0, 0, "vae")

    def is_crop_of(image: Tensor, item: Item, kind: str) -> bool:
        whole = cache.images([item], kind, 0, 0, item.bucket)[0]
        windows = whole.unfold(1, 24, 4).unfold(2, 24, 4)
        return bool((windows == image[:, None, None]).all(dim=0).all(dim=-1).all(dim=-1).any())

    for n, item in enumerate(items):
        assert is_crop_of(images[n], item, "up" if n % 4 == 3 else "hr")
        assert not is_crop_of(images[n], item, "hr" if n % 4 == 3 else "up")


# --- the latent stages' batches --------------------------------------------------------------------------------------


def inputs_of(model: RareFlow) -> Callable[[list[str]], dict[str, Tensor]]:
    return lambda captions: dict(zip(("tokens", "pooled"), model.captions.get(captions), strict=True))


def control_stage(model: RareFlow, cache: Cache, config: Config | None = None, check: Any = None) -> ControlStage:
    config = config or ALL
    return ControlStage(
        model.field, model.masks, config, model.codec, cache, inputs_of(model), check or (lambda step: {}), None
    )


def prior_stage(model: RareFlow, cache: Cache, config: Config) -> PriorStage:
    return PriorStage(model.field, model.captions.table, config, model.codec, cache, lambda step: {})  # type: ignore[attr-defined]


def test_a_step_is_a_function_of_its_number(cache: Cache, model: RareFlow) -> None:
    config = small_config({"train": {"control": {"crop_px": 60}}})
    stages = [
        stage for _ in range(2) for stage in (prior_stage(model, cache, config), control_stage(model, cache, config))
    ]
    for a, b in zip(stages[:2], stages[2:], strict=True):
        wanted = [a.batch(step) for step in range(8)]
        torch.manual_seed(3)
        for step in reversed(range(8)):
            batch, ids = b.batch(step)
            assert ids == wanted[step][1] and batch.keys() == wanted[step][0].keys()
            assert all(torch.equal(batch[k], wanted[step][0][k]) for k in batch)
        assert len({float(batch["eps"].sum()) for batch, _ in wanted}) == 8


def test_a_batch_has_latents_of_one_place_and_the_target_of_the_same(cache: Cache, model: RareFlow) -> None:
    stage = control_stage(model, cache, small_config({"train": {"control": {"crop_px": 60}}}))
    by_id = {item.chip.id: item for item in cache.items}
    for step in range(6):
        batch, ids = stage.batch(step)
        assert batch["z0"].shape == (2, 4, 15, 15) and batch["target"].shape == (2, 3, 60, 60)
        for n, item in enumerate(by_id[i] for i in ids):
            cells = item.bucket[0] // 4, item.bucket[1] // 4
            whole = {k: cache.latents([item], k, 0, 0, cells)[0] for k in ("z0", "x")}
            target = cache.images([item], "hr", 0, 0, item.bucket)[0]
            places = [
                (y, x) for y in range(0, cells[0] - 14, 3) for x in range(0, cells[1] - 14, 3)
                if torch.equal(whole["z0"][:, y : y + 15, x : x + 15], batch["z0"][n])
            ]  # fmt: skip
            ((y, x),) = places
            assert torch.equal(whole["x"][:, y : y + 15, x : x + 15], batch["x"][n])
            assert torch.equal(target[:, 4 * y : 4 * y + 60, 4 * x : 4 * x + 60], batch["target"][n])
        assert bool((batch["sigma"] > 0).all()) and bool((batch["sigma"] <= 1).all())


@pytest.mark.parametrize(
    ("captions", "dropout", "share"), [(True, 0.0, 0.0), (True, 0.3, 0.3), (True, 1.0, 1.0), (False, 0.0, 1.0)]
)
def test_the_share_of_empty_captions(
    cache: Cache, model: RareFlow, captions: bool, dropout: float, share: float
) -> None:
    config = small_config({"text": {"captions": captions, "dropout": dropout}, "train": {"prior": {"crop_px": 12}}})
    stage, table = prior_stage(model, cache, config), model.captions.table  # type: ignore[attr-defined]
    own = {item.chip.id: table.ids([item.chip.caption])[0] for item in cache.items}
    empty = []
    for step in range(150):
        batch, ids = stage.batch(step)
        for row, name in zip(batch["ids"], ids, strict=True):
            assert not row.any() or torch.equal(row, own[name])
            empty.append(not row.any())
    assert np.mean(empty) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)  # 300 draws: deviation 0.026


def test_the_share_of_samples_without_control(cache: Cache, model: RareFlow) -> None:
    for share in (0.0, 0.2, 1.0):
        stage = prior_stage(model, cache, small_config({"train": {"control_dropout": share, "prior": {"crop_px": 12}}}))
        on = torch.cat([stage.batch(step)[0]["on"] for step in range(150)])
        assert set(on.unique().tolist()) <= {0.0, 1.0}
        assert 1 - float(on.mean()) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


# --- the bank of u ---------------------------------------------------------------------------------------------------


def test_the_bank_has_the_u_of_every_chip_as_sampling_measures_it(cache: Cache, model: RareFlow) -> None:
    stage = control_stage(model, cache)
    scale = stage.fill_bank()
    assert not model.masks.training and [i.chip.id for i in stage.bank] == [i.chip.id for i in cache.items]
    mean_v = stage.mean_v.double().numpy()
    assert scale.tau == pytest.approx(np.percentile(mean_v, 95)) and scale.kappa == pytest.approx(np.median(mean_v))
    for n, item in enumerate(cache.items):
        assert stage.u_of[item.chip.id] == pytest.approx(min(1, mean_v[n] / scale.tau), rel=1e-5)
        # the same measurement from the parts: cached x, the chip's caption, a seed of its name, noise of that seed
        seed = int(stream(0, "control", "bank", item.chip.id).integers(2**62))
        cells = item.bucket[0] // 4, item.bucket[1] // 4
        tokens, pooled = model.captions.get([item.chip.caption])
        v = measure(
            model.field, model.masks, model.codec.decode, z=normal([seed], (4, *cells), "noise"), sigma=1.0,
            x=cache.latents([item], "x", 0, 0, cells), tokens=tokens, pooled=pooled, seeds=[seed], passes=3,
        )[0, : item.valid[0], : item.valid[1]]  # fmt: skip
        assert mean_v[n] == pytest.approx(float(v.double().mean()), rel=1e-5)
        # and sampling itself, given the LR; the cache rounds to 8 bit and float16
        result = model.upscale(item.chip.load()[0], item.valid, captions=[item.chip.caption], seeds=[(seed,)], steps=1)
        assert mean_v[n] == pytest.approx(float(result.mean_v[0]), rel=0.02)
    assert len(set(mean_v.tolist())) == 6


def test_without_captions_the_bank_is_measured_without(cache: Cache, model: RareFlow) -> None:
    with_captions, without = (
        control_stage(model, cache, with_changes(ALL, {"text": {"captions": c}})) for c in (True, False)
    )
    with_captions.fill_bank()
    without.fill_bank()
    assert bool((with_captions.mean_v != without.mean_v).all())
    asked: list[str] = []
    without.inputs = lambda texts: (asked.extend(texts), inputs_of(model)(texts))[1]
    without.fill_bank()
    assert asked == [""] * 6


def test_the_share_of_random_u(cache: Cache, model: RareFlow) -> None:
    seen = {}
    for share in (0.0, 0.3, 1.0):
        config = small_config({"train": {"random_u": share, "control": {"crop_px": 12}}})
        stage = control_stage(model, cache, config)
        stage.u_of = {item.chip.id: 2.0 + n for n, item in enumerate(cache.items)}  # outside of what is drawn
        us, ids = [], []
        for step in range(150):
            batch, names = stage.batch(step)
            us += batch["u"].tolist()
            ids += names
        assert all(u == stage.u_of[i] for u, i in zip(us, ids, strict=True) if u > 1)
        drawn = [u for u in us if u <= 1]
        assert len(drawn) / 300 == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)
        seen[share] = drawn
    assert min(seen[1.0]) < 0.05 and max(seen[1.0]) > 0.95 and np.mean(seen[1.0]) == pytest.approx(0.5, abs=0.07)


def test_u_is_0_before_the_bank_is_measured_and_without_gates(cache: Cache, model: RareFlow) -> None:
    for changes in ({"bank_every": 0}, {"bank_every": 3}):
        stage = control_stage(model, cache, small_config({"train": {"random_u": 0.0} | changes}))
        stage.before(1)
        assert not stage.u_of and not stage.batch(1)[0]["u"].any()
        stage.before(3)
        assert bool(stage.u_of) == bool(changes["bank_every"])
    mute = small_model(small_config({"control": {"gates": False}}))
    stage = control_stage(mute, cache)
    stage.before(0)
    assert not stage.u_of


def test_a_bank_of_some_chips_is_all_that_the_stage_draws_from_until_the_next(cache: Cache, model: RareFlow) -> None:
    config = small_config({"train": {"bank_every": 4, "bank_size": 2, "random_u": 0.0}})
    stage, banks = control_stage(model, cache, config), []
    for step in range(24):
        stage.before(step)
        batch, ids = stage.batch(step)
        if step % 4 == 0:
            banks.append({i.chip.id for i in stage.bank})
        assert {i.chip.id for i in stage.bank} == banks[-1] == set(stage.u_of) and set(ids) <= banks[-1]
        assert batch["u"].tolist() == pytest.approx([stage.u_of[i] for i in ids]) and batch["u"].all()
    assert all(len(bank) == 2 for bank in banks) and len(set(map(frozenset, banks))) > 2
    # A stage that goes on has the bank of the step before, to the last.
    later = control_stage(model, cache, config)
    later.load_extra(stage.extra_state())
    assert [i.chip.id for i in later.bank] == [i.chip.id for i in stage.bank] and later.u_of == stage.u_of
    assert later.fill_bank() == stage.fill_bank()


def test_without_gates_or_bank_the_stage_draws_from_all_chips(cache: Cache, model: RareFlow) -> None:
    mute = small_model(small_config({"control": {"gates": False}}))
    for of, config in ((mute, small_config()), (model, small_config({"train": {"bank_every": 0}}))):
        assert {name for step in range(9) for name in control_stage(of, cache, config).batch(step)[1]} == {
            i.chip.id for i in cache.items
        }


# --- the loop --------------------------------------------------------------------------------------------------------


def state_of(*modules: nn.Module | None) -> list[dict[str, Tensor]]:
    return [{k: v.clone() for k, v in m.state_dict().items()} for m in modules if m is not None]


def run(stage: Any, config: Config, folder: Path, report: Callable[..., None] = lambda *_: None) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    return run_stage(stage, config.train, folder, Accelerator(cpu=True), report)


def test_only_control_and_gates_train(cache: Cache, tmp_path: Path) -> None:
    model, config = small_model(), small_config({"train": {"control": {"steps": 3}}})
    frozen = (model.field.transformer, model.codec.vae, model.captions.table)  # type: ignore[attr-defined]
    trained = (model.field.control, model.field.gates)
    before, old = state_of(*frozen), state_of(*trained)
    seen: list[dict[str, bool]] = []
    stage = control_stage(model, cache, config)
    forward = stage.module.forward

    def watched(**batch: Tensor) -> Any:
        assert all(p.grad is None and not p.requires_grad for part in frozen for p in part.parameters())
        loss, terms = forward(**batch)
        ours = {n: p for part in trained for n, p in part.named_parameters()}  # type: ignore[union-attr]
        loss.backward(retain_graph=True)
        seen.append({n: p.grad is not None and bool(p.grad.any()) for n, p in ours.items()})
        for p in ours.values():
            p.grad = None
        return loss, terms

    stage.module.forward = watched  # type: ignore[method-assign]
    run(stage, config, tmp_path)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(before, state_of(*frozen), strict=True) for k in a)
    with_gradient = {name for step in seen for name, there in step.items() if there}
    assert {"p0", "pt", "pu"} <= with_gradient and len(seen) == 3
    # In the last block nothing reads what becomes of the text (diffusers' ControlNet computes it all the same), and a
    # key's bias only shifts a softmax: everything else trains.
    last = "transformer_blocks.1."
    dead = tuple(last + name for name in ("attn.to_add_out.", "attn.add_q_proj.", "attn.norm_added_q.", "ff_context."))
    for new, was in zip(state_of(*trained), old, strict=True):
        for name, value in new.items():
            if name in with_gradient:
                assert not torch.equal(value, was[name]), name
            elif torch.is_floating_point(value) and name != "pos_embed.pos_embed":
                assert name.startswith(dead) or name.endswith(("to_k.bias", "add_k_proj.bias")), name
    for part in (*frozen, *trained):
        assert part is not None and not any(p.requires_grad for p in part.parameters())
    assert not model.masks.training


def test_gates_have_a_rate_of_their_own_and_no_decay(cache: Cache, tmp_path: Path) -> None:
    config = small_config({"train": {"gate_lr": 0.25, "control": {"steps": 1, "lr": 0.5, "warmup": 0}}})
    model = small_model()
    stage = control_stage(model, cache, config)
    groups = stage.groups()
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in model.field.control.parameters()]  # type: ignore[union-attr]
    assert groups[1]["lr"] == 0.25 and groups[1]["weight_decay"] == 0.0 and len(groups[1]["params"]) == 3
    p0 = model.field.gates.p0.clone()  # type: ignore[union-attr]
    run(stage, config, tmp_path)
    state = read_state(tmp_path / "control.pt")
    assert state is not None
    moved = (state["parameters"][-3] - p0).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.25), rtol=0.05, atol=0)  # Adam's first step is the rate


def test_averages_are_what_remains(cache: Cache, tmp_path: Path) -> None:
    config = small_config({"train": {"ema": 0.9, "control": {"steps": 4}}})
    model = small_model()
    run(control_stage(model, cache, config), config, tmp_path)
    state = read_state(tmp_path / "control.pt")
    assert state is not None and state["step"] == 4
    ours = [*model.field.control.parameters(), *model.field.gates.parameters()]  # type: ignore[union-attr]
    assert all(torch.equal(p, s) for p, s in zip(ours, state["average"]["shadow_params"], strict=True))
    assert any(not torch.equal(p, s) for p, s in zip(ours, state["parameters"], strict=True))


def test_averaged_weights_are_there_for_a_while_only() -> None:
    from diffusers.training_utils import EMAModel

    p = nn.Parameter(torch.zeros(3))
    average = EMAModel([p], decay=0.5)
    p.data.fill_(1.0)
    with pytest.raises(KeyboardInterrupt), averaged(average, [p]):
        assert not p.any()
        raise KeyboardInterrupt
    assert torch.equal(p.data, torch.ones(3))


class Halves(PriorStage):
    """Two batches of two for each batch of four."""

    def batch(self, step: int) -> tuple[dict[str, Tensor], list[str]]:
        batch, ids = super().batch(step // 2)
        part = slice(2 * (step % 2), 2 * (step % 2) + 2)
        return {k: v[part] for k, v in batch.items()}, ids[part]


def test_two_accumulated_batches_have_the_gradient_of_one_of_twice_the_size(cache: Cache, tmp_path: Path) -> None:
    found = []
    for kind, accumulate in ((PriorStage, 1), (Halves, 2)):
        one = {"steps": 1, "batch": 4, "accumulate": accumulate, "warmup": 0}
        config = small_config({"train": {"clip_norm": 1e9, "prior": one}})
        model = small_model()
        stage = kind(model.field, model.captions.table, config, model.codec, cache, lambda step: {})  # type: ignore[attr-defined]
        run(stage, config, tmp_path / kind.__name__)
        state = read_state(tmp_path / kind.__name__ / "prior.pt")
        assert state is not None
        found.append({k: v["exp_avg"] for k, v in state["optimiser"]["state"].items()})  # 0.1 of the gradient
        found[-1]["loss"] = torch.tensor(read_log(tmp_path / kind.__name__ / "prior.jsonl")[0]["base"])
    assert found[0].keys() == found[1].keys() and len(found[0]) > 50
    largest = max(float(v.abs().max()) for v in found[0].values())
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-3, atol=1e-5 * largest)


def test_dropout_is_active_in_training_the_control_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a whole training: no mask in vae and prior, masks without seeds in the control's forward passes, masks with
    seeds in measurements, and none in validation."""
    inside: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    keep = Masks.keep

    def watched(self: Masks, x: Tensor, p: float, layer: str) -> Tensor | None:
        found = keep(self, x, p, layer)
        kind = "off" if found is None else ("seeded" if self.seeds is not None else "training")
        seen[(inside[-1] if inside else "outside", kind)] += 1
        return found

    def marked(name: str, function: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            inside.append(name)
            try:
                return function(*args, **options)
            finally:
                inside.pop()

        return call

    monkeypatch.setattr(Masks, "keep", watched)
    for kind in (stages_module.VaeModule, PriorModule, ControlModule):
        monkeypatch.setattr(kind, "forward", marked(kind.__name__, kind.forward))
    for where, name in ((run_module, "validate"), (stages_module, "measure")):
        monkeypatch.setattr(where, name, marked(name, getattr(where, name)))
    monkeypatch.setattr(run_module, "_with_validation", lambda *rest: {})
    train_small(tmp_path / "out", small_config(ONE, {"train": {"control": {"steps": 2}}}))
    assert seen.pop(("outside", "off")) == 2  # the gates at their corners, for the card
    assert set(seen) == {("ControlModule", "training"), ("measure", "seeded"), ("validate", "off")}


# --- a loss or a gradient that is not finite -------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_stop_for_a_loss_that_is_not_finite_names_the_chips_and_keeps_the_last_state(
    cache: Cache, tmp_path: Path, what: str
) -> None:
    config = small_config({"train": {"bank_every": 4, "bank_size": 2, "control": {"steps": 6, "crop_px": 60}}})
    expected = small_model()
    run(control_stage(expected, cache, config), config, tmp_path / "whole")

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * float("nan")

    model = small_model()
    stage = control_stage(model, cache, config)
    forward, calls = stage.module.forward, 0

    def fails(**batch: Tensor) -> Any:
        nonlocal calls
        calls += 1
        loss, terms = forward(**batch)
        if calls == 4:
            loss = loss * float("nan") if what == "loss" else Square.apply(loss)
        return loss, terms

    stage.module.forward = fails  # type: ignore[method-assign]
    with pytest.raises(RareflowError) as error:
        run(stage, config, tmp_path / "out")
    text = one_line(error)
    ids = control_stage(model, cache, config).batch(3)[1]
    assert f"stage control, step 3: the {what} is nan for the chips {', '.join(ids)};" in text
    assert "the state of the last save is kept: look at those chips" in text
    state = read_state(tmp_path / "out" / "control.pt")
    assert state is not None and state["step"] == 2
    assert all(bool(p.isfinite().all()) for p in state["parameters"])
    again = small_model()
    run(control_stage(again, cache, config), config, tmp_path / "out")
    assert all(
        torch.equal(a[k], b[k])
        for a, b in zip(state_of(again.field.control, again.field.gates),
                        state_of(expected.field.control, expected.field.gates), strict=True)
        for k in a
    )  # fmt: skip

    def steps(folder: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in x.items() if k != "seconds"} for x in read_log(tmp_path / folder / "control.jsonl")]

    assert steps("out") == steps("whole")  # what was logged after the last save is forgotten


# --- states ----------------------------------------------------------------------------------------------------------


def test_a_state_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "control.pt"
    write_state(path, {"step": 1})

    def full(state: object, where: Path) -> None:
        Path(where).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(RareflowError, match="No space left on device; free some space") as error:
            write_state(path, {"step": 2})
    one_line(error)
    assert read_state(path) == {"step": 1} and [p.name for p in tmp_path.iterdir()] == ["control.pt"]
    assert read_state(tmp_path / "none.pt") is None


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.write_text, (Path("harm"), "done"))


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04", {"other": 1}, [1], Harmful()])
def test_a_file_that_is_no_state_is_one_line_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "vae.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(RareflowError, match=r"is no state of a training.*remove it to begin anew") as error:
        read_state(path)
    one_line(error)
    assert not (tmp_path / "harm").exists()


# --- whole trainings -------------------------------------------------------------------------------------------------


class Stopper:
    """Raises KeyboardInterrupt from ``report`` at a step of a stage, once."""

    def __init__(self, *at: object) -> None:
        self.at, self.stopped = at, False

    def __call__(self, stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
        if (stage, step) == self.at:
            self.stopped = True
            raise KeyboardInterrupt


def stop_once(out: Path, stopper: Stopper) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_small(out, report=stopper)
    assert stopper.stopped and not (out / "card.json").exists()


def same_training(a: Path, b: Path) -> None:
    assert weights(a) == weights(b)
    for folder in (a, b), (a / "prior", b / "prior"):
        cards = [json.loads((f / "card.json").read_text()) for f in folder]
        assert cards[0] == cards[1]

    def steps(folder: Path, stage: str) -> list[dict[str, Any]]:
        log = read_log(folder / "training" / f"{stage}.jsonl")
        return [{k: v for k, v in line.items() if k != "seconds"} for line in log]

    assert all(steps(a, stage) == steps(b, stage) for stage in STAGES)


def test_a_training_stopped_again_and_again_is_the_uninterrupted_one_to_the_bit(trained: Path, tmp_path: Path) -> None:
    """States are saved after steps 2, 4 and the last; stops come before the first, between them, before the last."""
    out = tmp_path / "out"
    for stage, steps in {"vae": (3,), "prior": (4,), "control": (1, 3, 5)}.items():
        for step in steps:
            stop_once(out, Stopper(stage, step))
            state = read_state(out / "training" / f"{stage}.pt")
            assert (state["step"] if state else 0) == {1: 0, 3: 2, 4: 2, 5: 4}[step]
    train_small(out)
    same_training(out, trained)


def test_stops_beside_the_steps(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While chips are read or encoded, before a checkpoint is written, and before its card has the validation."""
    out = tmp_path / "out"
    for what, count in (("reading chips", 2), ("latents", 3)):
        left = count

        def tick(now: str, total: int, what: str = what) -> None:
            nonlocal left
            left -= now == what
            if left == 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_small(out, tick=tick)
    save, calls = run_module.save, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (1, 3):  # of the prior, and of the model
            raise KeyboardInterrupt
        return save(*args)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "save", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_small(out)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_module, "_with_validation", fail)
        train_small(out)
    assert (out / "card.json").exists()
    train_small(out)
    same_training(out, trained)
    assert calls == 7 and not (out / "training" / "cache").exists()


def test_a_stop_while_a_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Stop

    for patched in ("write_text", "replace"):
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(Path, patched, fail)
            train_small(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):  # it goes on
        train_small(tmp_path / "out", report=Stopper("vae", 1))


def test_a_finished_training_is_not_done_again(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))

    def never(*_: object) -> None:
        raise AssertionError

    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    card = train_small(copy, report=never, tick=never)
    assert card == json.loads((trained / "card.json").read_text())
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before


def test_the_card_says_how_the_model_was_made(trained: Path) -> None:
    card = json.loads((trained / "card.json").read_text())
    data = small_data()
    assert card["data"] == {
        "name": "noise", "description": "", "fingerprint": data.fingerprint, "train": 4, "validation": 1, "scenes": 4,
        "sides": {"lr": {"unit": "display"}, "hr": {}},
    }  # fmt: skip
    assert list(card["stages"]) == list(STAGES)
    for name, stage in card["stages"].items():
        terms = {
            "vae": {"l1", "spectrum", "kl", "psnr"}, "prior": {"base"},
            "control": {"base", "fft", "color"},
        }[name]  # fmt: skip
        assert stage["steps"] == (5 if name == "control" else 4) and set(stage["first"]) == set(stage["last"]) == terms
        assert stage["validation"] and all(np.isfinite(v) for v in stage["validation"].values())
    assert set(card["gates"]) == {"sigma=0,u=0", "sigma=0,u=1", "sigma=1,u=0", "sigma=1,u=1"}
    assert card["bank"]["chips"] == 3 and 0 < card["bank"]["p5"] <= card["bank"]["p50"] <= card["bank"]["p95"]
    assert card["scale"]["tau"] == pytest.approx(card["bank"]["p95"])
    assert card["scale"]["kappa"] == pytest.approx(card["bank"]["p50"])
    model = load(trained)
    sizes = {"vae": model.codec.vae, "transformer": model.field.transformer, "control": model.field.control,
             "gates": model.field.gates}  # fmt: skip
    assert card["parameters"] == {k: sum(p.numel() for p in m.parameters()) for k, m in sizes.items()}  # type: ignore[union-attr]
    assert {"psnr", "bicubic_psnr", "ssim", "gradient", "u"} == set(card["validation"])
    assert card["left_out"] == [] and card["prior"] == {} and card["base"] == {} and card["device"] == "cpu"
    assert card["versions"] == {"torch": torch.__version__, "diffusers": card["versions"]["diffusers"]}
    assert card["training_ids"]["count"] == 4 and card["config"]["train"]["seed"] == 0


def test_a_training_leaves_losses_and_pictures_to_look_at(trained: Path) -> None:
    assert list((trained / "training" / "tensorboard").glob("events.*"))
    sheets = sorted(p.name for p in (trained / "training" / "pictures").iterdir())
    assert sheets == [
        *(f"control-{i:06d}.png" for i in range(1, 6)), "final.png", *(f"prior-{i:06d}.png" for i in range(1, 5)),
    ]  # fmt: skip
    with PIL.Image.open(trained / "training" / "pictures" / "final.png") as sheet:
        found = np.asarray(sheet)
    expected = (pixels(99, 105, 112)[:105, :105] * 255).round()
    assert found.shape == (107, 315, 3) and np.array_equal(found[:105, 210:], expected)
    assert not (trained / "training" / "cache").exists()


def test_every_stage_moves_its_parts_and_the_prior_is_a_model_too(trained: Path, tmp_path: Path) -> None:
    prior, whole = load(trained / "prior"), load(trained)
    assert prior.field.gates is None and prior.config.name == "small-prior" and whole.field.gates is not None
    for name in ("transformer", "vae", "text"):
        path = "text.safetensors" if name == "text" else f"{name}/diffusion_pytorch_model.safetensors"
        assert (trained / path).read_bytes() == (trained / "prior" / path).read_bytes()
    assert (
        weights(trained)["control/diffusion_pytorch_model.safetensors"]
        != weights(trained / "prior")["control/diffusion_pytorch_model.safetensors"]
    )
    result = prior.upscale(pixels(0, 6, 6), (30, 30), captions=["a picture"])
    assert np.isfinite(result.samples).all() and result.mean_v[0] > 0


# --- from a prior ----------------------------------------------------------------------------------------------------


def captured(monkeypatch: pytest.MonkeyPatch) -> list[ControlStage]:
    """The control stages that trainings make, as they were before their first step."""
    made: list[ControlStage] = []

    class Watched(ControlStage):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)
            self.at_start = state_of(self.field.control)[0]  # type: ignore[attr-defined]

    monkeypatch.setattr(run_module, "ControlStage", Watched)
    return made


@pytest.mark.parametrize("init", ["prior", "transformer", "scratch"])
def test_a_training_from_a_prior_trains_a_control_for_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    made = captured(monkeypatch)
    config = small_config(ONE, {"control": {"init": init}, "uncertainty": {"p_do": 0.3}})
    card = train_small(tmp_path / "out", config, prior=trained / "prior")
    assert list(card["stages"]) == ["control"] and card["prior"]["label"] == "rareflow-small-prior"
    assert card["prior"]["files"] == json.loads((trained / "prior" / "card.json").read_text())["files"]
    old, new = weights(trained / "prior"), weights(tmp_path / "out")
    assert all(new[name] == old[name] for name in old if not name.startswith("control"))
    # Dropout belongs to this training, whoever named it before.
    (stage,) = made
    drops = [m for m in stage.field.control.modules() if isinstance(m, NamedDropout)]  # type: ignore[union-attr]
    assert len(drops) == 6 and all(m.masks is stage.masks and m.p == 0.3 for m in drops)
    assert isinstance(stage.field.gates, Gates) and stage.field.gates.drop_t.masks is stage.masks
    start, theirs = stage.at_start, load(trained / "prior").field  # type: ignore[attr-defined]
    block = "transformer_blocks.0.attn.to_q.weight"
    if init == "prior":
        assert all(torch.equal(start[k], v) for k, v in state_of(theirs.control)[0].items())
    else:
        assert not start["controlnet_blocks.0.weight"].any()
        assert torch.equal(start[block], theirs.transformer.state_dict()[block]) == (init == "transformer")


def test_a_stopped_training_from_a_prior_goes_on_too(trained: Path, tmp_path: Path) -> None:
    whole, parts, config = tmp_path / "whole", tmp_path / "parts", small_config({"train": {"control": {"steps": 3}}})
    train_small(whole, config, prior=trained / "prior")
    with pytest.raises(KeyboardInterrupt):
        train_small(parts, config, prior=trained / "prior", report=Stopper("control", 3))
    train_small(parts, config, prior=trained / "prior")
    assert weights(whole) == weights(parts)
    assert (whole / "card.json").read_text() == (parts / "card.json").read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vae": {"norm_num_groups": 8}}, "its vae is not that of the config small"),
        ({"transformer": {"num_layers": 5}}, "its transformer is not that"),
        ({"text": {"positions": 7}}, "its text table is not that"),
        ({"text": {"buckets": 65}}, "its text table is not that"),
        ({"control": {"layers": 3}}, "control.layers: found 3, expected 2"),
    ],
)
def test_a_prior_of_another_shape(trained: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RareflowError, match=says) as error:
        train_small(tmp_path / "out", small_config(changes), prior=trained / "prior")
    one_line(error)


def test_trainings_that_share_a_cache_read_the_chips_once(trained: Path, tmp_path: Path) -> None:
    def prepared(name: str) -> Counter[str]:
        ticks: Counter[str] = Counter()
        config = small_config(ONE, {"name": name, "control": {"gates": name == "a"}})
        train_small(
            tmp_path / name, config, prior=trained / "prior", cache=tmp_path / "cache",
            tick=lambda what, total: ticks.update([what]),
        )  # fmt: skip
        return ticks

    assert prepared("a") == {"reading chips": 5, "latents": 10} and not prepared("b")
    assert (tmp_path / "cache" / "train" / "pixels.json").exists()


# --- variants of a training ------------------------------------------------------------------------------------------


def test_chips_of_several_sizes_train_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked, whole = [0], [0]
    forward = PriorModule.forward

    def watched(self: PriorModule, **batch: Tensor) -> Any:
        (masked if "mask" in batch else whole)[0] += 1
        return forward(self, **batch)

    monkeypatch.setattr(PriorModule, "forward", watched)
    data = small_data(6, ((108, 120), (105, 150), (131, 106)))
    card = train_small(
        tmp_path / "out",
        small_config(ONE, {"train": {"prior": {"steps": 9, "crop_px": 156}, "validate_every": 9}}),
        data,
    )
    assert masked[0] >= 2 and whole[0] >= 2
    assert np.isfinite([v for s in card["stages"].values() for v in s["last"].values()]).all()


def test_a_training_without_captions_never_sees_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    from rareflow.text import WordTable

    ids = WordTable.ids
    monkeypatch.setattr(WordTable, "ids", lambda self, captions: (seen.extend(captions), ids(self, captions))[1])
    train_small(tmp_path / "off", small_config(ONE, {"text": {"captions": False}}))
    assert set(seen) == {""}
    model = load(tmp_path / "off")
    plain, told = (model.upscale(pixels(0, 5, 5), (24, 24), captions=[c]).samples for c in ("", "number1"))
    assert not model.config.text.captions and np.array_equal(plain, told)


def test_lpips_left_out_is_in_the_card(tmp_path: Path) -> None:
    config = small_config(ONE, {"loss": {"lambda_lpips": 0.5}})
    with pytest.warns(RuntimeWarning, match="LPIPS is left out of the objective: alexnet") as caught:
        card = train_small(tmp_path / "out", config, weights=tmp_path)
    assert len([w for w in caught if "LPIPS" in str(w.message)]) == 1  # not at every step
    assert card["left_out"] == ["lpips"] and "lpips" not in card["stages"]["control"]["last"]
    assert card["config"]["loss"]["lambda_lpips"] == 0.5


def test_a_training_of_no_steps_is_a_model_all_the_same(tmp_path: Path) -> None:
    card = train_small(tmp_path / "out", small_config({"train": {s: {"steps": 0} for s in STAGES}}))
    assert all(stage["steps"] == 0 for stage in card["stages"].values())
    assert card["scale"] == {"tau": 1.0, "kappa": 1.0}  # a new transformer answers nothing, so nothing varies
    assert np.isfinite(load(tmp_path / "out").upscale(pixels(0, 5, 5), (24, 24)).samples).all()


# --- what is refused -------------------------------------------------------------------------------------------------


def untouched(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("other", ["config", "data", "chips", "prior"])
def test_a_folder_of_another_training(trained: Path, tmp_path: Path, other: str) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "out"))
    before, options = untouched(out), {}
    config, data = small_config(), small_data()
    if other == "config":
        config = small_config({"train": {"seed": 1}})
    elif other == "data":
        data = dataclasses.replace(data, fingerprint="changed")
    elif other == "chips":
        data = dataclasses.replace(data, train=data.train[:3])
    else:
        options = {"prior": trained / "prior"}
    with pytest.raises(RareflowError, match=r"holds another training .*give another --out") as error:
        train_small(out, config, data, **options)
    one_line(error)
    assert untouched(out) == before


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"sha256": 1}'])
def test_a_folder_whose_claim_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "out" / "training").mkdir(parents=True)
    (tmp_path / "out" / "training" / "training.json").write_text(content)
    with pytest.raises(RareflowError, match="give another --out") as error:
        train_small(tmp_path / "out")
    one_line(error)


def test_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RareflowError, match="is not empty and holds no training; give another --out") as error:
        train_small(tmp_path / "out")
    one_line(error)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def refused(tmp_path: Path, says: str, data: Data | None = None, config: Config | None = None) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a stage began")

    with pytest.raises(RareflowError, match=says) as error:
        train_small(tmp_path / "out", config, data, report=never)
    one_line(error)
    assert not (tmp_path / "out" / "card.json").exists()


def test_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    good = small_data()
    both = dataclasses.replace(good, validation=(chip(50, group="scene2"),))
    refused(tmp_path, "the scene scene2 is in the training and the validation split; move its chips", both)
    refused(tmp_path, "found 4 chips to train on and 0 to validate on", dataclasses.replace(good, validation=()))
    refused(tmp_path, "found 0 chips to train on", dataclasses.replace(good, train=()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["train", "validation"])
def test_nan_in_data_stops_before_anything_is_trained_and_names_the_chip(tmp_path: Path, side: str) -> None:
    good = small_data()
    bad = with_pixels(spoil(np.nan, 1), 77)
    data = dataclasses.replace(good, **{side: (*getattr(good, side), bad)})
    refused(tmp_path, "^chip77: the HR holds 1 values that are not finite; repair or remove it", data)


def test_chips_too_small_or_too_large_are_named(tmp_path: Path) -> None:
    for name, size, says in (
        ("small", (104, 200), "104x200 px, expected 105 px a side or more; leave it out"),
        ("large", (120, 241), "120x241 px, expected 240 px a side or less.*cut it up"),
    ):
        data = dataclasses.replace(small_data(), train=(chip(0), chip(5, size)))
        refused(tmp_path / name, f"^chip5: the HR has {says}", data)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"transformer": {"attention": 3}}, "its vae, transformer and text make no model"),
        ({"vae": {"norm_num_groups": 3}}, "its vae, transformer and text make no model"),
        ({"transformer": {"num_layers": 0}, "control": {"layers": 1}}, "expected 1 to 0, the transformer's depth"),
        ({"vae": {"latent_channels": 8}}, r"found vae.latent_channels, .*\(8, 4, 4\)"),
        ({"transformer": {"pooled_projection_dim": 24}}, "pooled_projection_dim 24; expected the first three alike"),
        ({"control": {"layers": 9}}, "found 9 control layers, expected 1 to 4"),
    ],
)
def test_a_configuration_that_makes_no_model(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RareflowError, match=says) as error:
        train_small(tmp_path / "out", small_config(changes, {"train": {"vae": {"steps": 0}}}))
    one_line(error)


def test_stage_configurations_are_read_by_name() -> None:
    config = small_config({"train": {"prior": {"steps": 7, "accumulate": 3}}})
    assert config.train.prior == StageConfig(7, 2, 108, 1e-2, 1, 3)
