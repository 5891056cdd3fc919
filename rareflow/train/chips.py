"""Training data: pairs of any size with a scene and a caption, their split, and batches that depend on names alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rareflow.errors import RareflowError

Array = npt.NDArray[np.float32]
SMALLEST_PX = 105
T = TypeVar("T")


@dataclass(frozen=True)
class Chip:
    """A pair: ``load()`` gives the LR (h, w, 3) and the HR (H, W, 3), float32 display values in [0, 1].

    ``group`` is what splits are made by: the region, or the scene; two chips of one group never stand on both sides.
    """

    id: str
    group: str
    caption: str
    load: Callable[[], tuple[Array, Array]]


@dataclass(frozen=True)
class Data:
    """Chips to train on and chips to validate on, with the name and the fingerprint of where they come from.

    ``sides`` says, for the LR and the HR, what display values were made of (unit, normalisation, gamma, gsd_m).
    """

    name: str
    fingerprint: str
    train: tuple[Chip, ...]
    validation: tuple[Chip, ...]
    description: str = ""
    sides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def split(chips: Sequence[Chip], share: float, seed: int) -> tuple[tuple[Chip, ...], tuple[Chip, ...]]:
    """Hold out the chips of about ``share`` of the groups, at least one; RareflowError where there are under two."""
    groups = sorted({c.group for c in chips}, key=lambda g: hashlib.sha256(f"{seed}\x1f{g}".encode()).digest())
    if len(groups) < 2:
        raise RareflowError(
            f"found {len(chips)} chips of {len(groups)} scene, expected two scenes or more: one is held out to "
            "validate on, and a scene is never on both sides; add data, or give it a validation split"
        )
    held = set(groups[: max(1, round(share * len(groups)))])
    return tuple(c for c in chips if c.group not in held), tuple(c for c in chips if c.group in held)


def some_of(data: Data, count: int, seed: int) -> Data:
    """``count`` of the training chips; those of a smaller count are among those of a larger one, for one seed.

    The held-out chips stay, so that models of few chips and of many are validated alike. RareflowError for more chips
    than there are.
    """
    if count > len(data.train):
        raise RareflowError(
            f"{data.name}: found {len(data.train)} chips to train on, expected {count} or more; add some"
        )
    order = sorted(data.train, key=lambda c: hashlib.sha256(f"{seed}\x1f{c.id}".encode()).digest())
    chosen = {c.id for c in order[:count]}
    return replace(data, train=tuple(c for c in data.train if c.id in chosen))


def checked(chip: Chip) -> tuple[Array, Array]:
    """The pixels of a chip; RareflowError naming it where they cannot be trained on."""
    lr, hr = chip.load()
    for side, image in (("LR", lr), ("HR", hr)):
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise RareflowError(
                f"{chip.id}: the {side} has the shape {image.shape}, expected (height, width, 3); repair or remove it"
            )
        broken = int((~np.isfinite(image)).sum())
        if broken:
            raise RareflowError(f"{chip.id}: the {side} holds {broken} values that are not finite; repair or remove it")
        low, high = float(image.min()), float(image.max())
        if low < 0 or high > 1:
            raise RareflowError(
                f"{chip.id}: the {side} runs from {low:.4g} to {high:.4g}, expected display values in [0, 1]; "
                "normalise or remove it"
            )
    if min(hr.shape[:2]) < SMALLEST_PX:
        raise RareflowError(
            f"{chip.id}: the HR has {hr.shape[0]}x{hr.shape[1]} px, expected {SMALLEST_PX} px a side or more; "
            "leave it out"
        )
    if hr.shape[0] < lr.shape[0] or hr.shape[1] < lr.shape[1]:
        raise RareflowError(
            f"{chip.id}: the HR {hr.shape[:2]} is smaller than the LR {lr.shape[:2]}; are they swapped?"
        )
    return lr, hr


def stream(seed: int, *names: object) -> np.random.Generator:
    """The generator of (seed, names), for choices that must not depend on what was chosen before."""
    text = "\x1f".join(map(str, (seed, *names))).encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little"))


def batch_at(buckets: Sequence[Sequence[T]], size: int, step: int, seed: int, stage: str) -> list[T]:
    """The batch of a step: ``size`` items of one bucket. A function of (seed, stage, step), so a resume needs no state.

    An epoch shuffles every bucket, cuts it into batches (the last one filled up from its own start), and shuffles
    those.
    """
    counts = [-(-len(bucket) // size) for bucket in buckets]
    epoch, place = divmod(step, sum(counts))
    random = stream(seed, stage, "epoch", epoch)
    which = random.permutation(np.repeat(np.arange(len(buckets)), counts))
    bucket = int(which[place])
    nth = int((which[:place] == bucket).sum())
    order = stream(seed, stage, "epoch", epoch, "bucket", bucket).permutation(len(buckets[bucket]))
    chosen = [order[i % len(order)] for i in range(nth * size, (nth + 1) * size)]
    return [buckets[bucket][i] for i in chosen]
