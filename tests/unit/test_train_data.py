"""What training reads: chips and their split, batches, the cache."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from rareflow.config import AugmentConfig
from rareflow.degrade import KINDS, degrade
from rareflow.errors import RareflowError
from rareflow.model import RareFlow
from rareflow.train.cache import Cache
from rareflow.train.chips import SMALLEST_PX, Chip, batch_at, checked, some_of, split
from tests.small_rareflow import (
    chip,
    make_cache,
    one_line,
    small_data,
    small_model,
    spoil,
    with_pixels,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_some_chips_are_chosen_by_the_seed_and_fewer_are_among_more() -> None:
    data = small_data(20)
    chosen = {n: {c.id for c in some_of(data, n, 3).train} for n in (2, 7, 20)}
    assert [len(ids) for ids in chosen.values()] == [2, 7, 20] and chosen[2] < chosen[7] < chosen[20]
    assert some_of(data, 7, 3).validation == data.validation
    assert {c.id for c in some_of(data, 7, 4).train} != chosen[7]
    with pytest.raises(RareflowError, match="found 20 chips to train on, expected 21") as error:
        some_of(data, 21, 3)
    one_line(error)


def test_one_scene_cannot_be_split() -> None:
    with pytest.raises(RareflowError, match=r"3 chips of 1 scene, expected two scenes or more.*add data") as error:
        split([chip(i, group="only") for i in range(3)], 0.5, 0)
    one_line(error)


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


def test_copies_are_turned_alike_on_both_sides_and_the_first_is_not(model: RareFlow, tmp_path: Path) -> None:
    chips = tuple(chip(i, (105, 120)) for i in range(8))  # LR and HR sides differ, so that a turn is seen
    cache = make_cache(tmp_path, chips, model.codec, augment=AugmentConfig(copies=4, turns=True))
    assert len(cache.items) == 32 and len({i.name for i in cache.items}) == 32
    turns = Counter()
    for item in cache.items:
        lr, hr = item.chip.load()
        found = cache.images([item], "hr", 0, 0, item.bucket)[0].permute(1, 2, 0).numpy()
        found = found[: item.valid[0], : item.valid[1]]
        ways = {
            (flip, k): np.rot90(hr[:, ::-1] if flip else hr, k) for flip in (False, True) for k in range(4)
        }  # fmt: skip
        (way,) = (w for w, image in ways.items() if image.shape == found.shape and np.array_equal(image, found))
        assert item.copy or way == (False, 0)
        turns[way] += bool(item.copy)
        turned = np.rot90(lr[:, ::-1] if way[0] else lr, way[1])
        up = [
            np.asarray(PIL.Image.fromarray(np.ascontiguousarray(turned[:, :, c])).resize(
                item.valid[::-1], PIL.Image.Resampling.BICUBIC
            )) for c in range(3)
        ]  # fmt: skip
        low = cache.images([item], "up", 0, 0, item.bucket)[0].permute(1, 2, 0).numpy()
        low = low[: item.valid[0], : item.valid[1]]
        np.testing.assert_allclose(low, np.stack(up, axis=2).clip(0, 1), atol=0.5 / 255 + 1e-5)
    assert len(turns) == 8  # of 24 draws
    again = make_cache(tmp_path, chips, model.codec, augment=AugmentConfig(copies=4, turns=True))
    assert [(i.name, i.row) for i in again.items] == [(i.name, i.row) for i in cache.items]


def test_a_degraded_copy_has_its_own_lr_and_the_true_hr(model: RareFlow, tmp_path: Path) -> None:
    chips = tuple(chip(i) for i in range(20))
    plain = make_cache(tmp_path / "a", chips, model.codec)
    cache = make_cache(tmp_path / "b", chips, model.codec, augment=AugmentConfig(copies=2, degraded=0.4))
    share = np.mean([i.degraded for i in cache.items])
    assert share == pytest.approx(0.4, abs=0.25)
    of = {i.chip.id: i for i in plain.items}
    for item in cache.items:
        for kind in ("hr", "up"):
            a, b = (c.images([i], kind, 0, 0, i.bucket) for c, i in ((cache, item), (plain, of[item.chip.id])))
            assert torch.equal(a, b) == (kind == "hr" or not item.degraded), (item.name, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_degradation_does_what_it_says_and_grows_with_its_strength(kind: str) -> None:
    lr = chip(3, (200, 200)).load()[0]
    random = np.random.default_rng
    assert np.allclose(degrade(lr, kind, 0.0, random(0)), lr, atol=1e-6)
    errors = [float(np.abs(degrade(lr, kind, s, random(1)) - lr).mean()) for s in (0.3, 0.6, 1.0)]
    assert 0 < errors[0] < errors[1] < errors[2]
    worst = degrade(lr, kind, 1.0, random(2))
    assert worst.dtype == np.float32 and worst.shape == lr.shape and worst.min() >= 0 and worst.max() <= 1
    contrast = worst.std() / lr.std()
    if kind == "noise":
        assert (worst - lr).std() == pytest.approx(0.15, rel=0.1)
    elif kind == "haze":
        assert contrast == pytest.approx(0.4, abs=0.05) and worst.mean() > lr.mean()
    elif kind == "blur":
        assert contrast < 0.8
    else:
        assert contrast == pytest.approx(1, abs=0.15)


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
