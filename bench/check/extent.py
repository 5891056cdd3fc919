"""Between what floor and what ceiling a metric's numbers lie: HR images, noise and unrelated photographs.

A score by a network of photographs has no scale that one could know beforehand. What it gives to images of which nobody
doubts what they are, on this machine and with the user's weights, is its scale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from bench.check.pairs import Pair, measure
from bench.core.image import Array
from bench.core.resample import resize
from bench.data.find import resolve_dataset
from bench.metrics.base import Estimate, Metric, Reference
from bench.protocols.paired import Paired

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
"""In scikit-image, which carries them: a portrait, a cat, a cup, a launch, an eye's background, galaxies."""


def has_extent(kind: type[Metric]) -> bool:
    """Whether it makes sense to ask: a score with words on what it means on a satellite image, of displayed images and
    of a set no larger than there are photographs."""
    asks = kind.display and set(kind.needs) <= {"reference"} and not kind.fits_references
    return asks and bool(kind.on_satellite) and kind.min_images <= len(PHOTOGRAPHS)


def extent(new: Callable[[], Metric]) -> list[tuple[str, float | None]]:
    """What the metric gives to embedded HR scenes, to others of them, to noise and to photographs, each held against
    the first scenes where it compares; means over the images where it is of single images; None where it has a reason.

    As many images as there are photographs, so that one network's work is done a minute later on a processor.
    """
    scenes = [_reference(i) for i in range(2 * len(PHOTOGRAPHS))]
    first, others = scenes[: len(PHOTOGRAPHS)], scenes[len(PHOTOGRAPHS) :]
    hr, other = (_displays(of) for of in (first, others))
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, x.shape).astype(np.float32) / np.float32(255) for x in hr]
    photographs = [_photograph(name, hr[0].shape[:2]) for name in PHOTOGRAPHS]
    compares = "reference" in new().needs
    kinds: dict[str, list[Array]] = {
        "HR images against themselves" if compares else "HR images": hr,
        "HR images of other places": other,
        "noise": noise,
        "unrelated photographs": photographs,
    }
    found = []
    for what, images in kinds.items():
        pairs = [(Estimate(x, x), dataclasses.replace(r, cache={})) for x, r in zip(images, first, strict=True)]
        found.append((what, _mean(new(), pairs)))
    return found


def _mean(metric: Metric, pairs: list[Pair]) -> float | None:
    if metric.level == "set":
        return measure(metric, *pairs).value
    values = [v for pair in pairs if (v := measure(metric, pair).value) is not None]
    return float(np.mean(values)) if values else None


def _displays(references: Sequence[Reference]) -> list[Array]:
    return [r.display for r in references if r.display is not None]


def _reference(i: int) -> Reference:
    dataset = resolve_dataset("scenes")
    return Paired().prepare(dataset.load(dataset.records("test")[i])).reference


def _photograph(name: str, size: tuple[int, int]) -> Array:
    """The middle square of a photograph, brought to a size and rounded to 8 bit."""
    from skimage import data

    whole = getattr(data, name)()[..., :3].astype(np.float32) / np.float32(255)
    side = min(whole.shape[:2])
    top, left = ((length - side) // 2 for length in whole.shape[:2])
    small = resize(whole[top : top + side, left : left + side], size)
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.float32) / np.float32(255)
