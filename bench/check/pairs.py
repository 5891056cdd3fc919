"""The images that metrics are checked with: a noisy estimate and its reference, and what may be done to both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.check.pictures import picture
from bench.core.image import Image
from bench.core.resample import resize
from bench.metrics.base import Estimate, Metric, Reference, Score

Pair = tuple[Estimate, Reference]
BANDS = ("R", "G", "B", "NIR")
NOISE = 0.05


def scene(height: int, width: int, seed: int = 0, noise: float = NOISE, spread: float | None = None) -> Pair:
    """A noisy estimate and its reference, with NIR, PAN, LR and a predicted deviation (``noise`` unless given)."""
    valid = np.ones((height, width), bool)
    truth = picture(seed, height, width, 4).astype(np.float32)
    rng = np.random.default_rng(seed + 50)
    guess = np.clip(truth + noise * rng.standard_normal(truth.shape), 0, 1).astype(np.float32)
    rounded, guessed = (np.rint(x[:, :, :3] * 255).astype(np.float32) / np.float32(255) for x in (truth, guess))
    hr = Image(truth, "reflectance", BANDS, valid)
    pan = Image(truth.mean(axis=2, keepdims=True), "reflectance", ("PAN",), valid)
    n = (max(1, height // 4), max(1, width // 4))
    lr = Image(resize(truth, n), "reflectance", BANDS, np.ones(n, bool))
    mask = truth[:, :, 0] > np.median(truth[:, :, 0])
    enlarged = np.clip(resize(lr.select(("R", "G", "B")).values, (height, width)), 0, 1)
    reference = Reference(
        f"check_{seed}", f"check_{seed}", rounded, truth[:, :, :3], hr, pan, lr, valid, mask, lr_display=enlarged
    )
    image = Image(guess, "reflectance", BANDS, valid)
    estimate = Estimate(guessed, guess[:, :, :3], image, guess[:, :, :3])
    return spread_by(estimate, noise if spread is None else spread), reference


def spread_by(estimate: Estimate, deviation: float) -> Estimate:
    """The estimate with that deviation in every pixel, and with four draws that have its mean and this deviation."""
    assert estimate.mean is not None
    steps = np.array([-1.5, -0.5, 0.5, 1.5]) / np.std([-1.5, -0.5, 0.5, 1.5], ddof=1)
    draws = np.stack([estimate.mean + np.float32(deviation * step) for step in steps])
    return dataclasses.replace(estimate, std=np.full_like(estimate.mean, deviation), draws=draws)


def measure(metric: Metric, *pairs: Pair) -> Score:
    """The score of the first pair, or of the set of them where the metric is one of sets."""
    if metric.level == "image":
        return metric.assess(*pairs[0])
    kept = [metric.gather(*pair) for pair in pairs]
    reasons = [k for k in kept if isinstance(k, Score)]
    if reasons:
        return reasons[0]
    result = metric.combine([k for k in kept if not isinstance(k, Score)])
    return result if isinstance(result, Score) else Score(result.value)


def fresh(pair: Pair) -> Pair:
    """The pair as a new run would see it: nothing of the reference is kept from before."""
    return pair[0], dataclasses.replace(pair[1], cache={})


def equal_spread(pair: Pair) -> Pair:
    """With the same predicted deviation whatever the noise, so that only the error counts."""
    return spread_by(pair[0], 0.05), pair[1]


def exchanged(pair: Pair) -> Pair:
    """The reference as prediction, and the prediction as reference."""
    estimate, reference = pair
    assert reference.display is not None and reference.display_float is not None
    return (
        dataclasses.replace(
            estimate, display=reference.display, display_float=reference.display_float, image=reference.hr
        ),
        dataclasses.replace(
            reference, display=estimate.display, display_float=estimate.display_float, hr=estimate.image, cache={}
        ),
    )


def laid_otherwise(pair: Pair) -> Pair:
    """The same images with columns that lie together in memory, and rows from the end."""

    def laid(array: np.ndarray) -> np.ndarray:
        return np.asfortranarray(array[::-1])[::-1]

    estimate, reference = pair
    assert reference.display is not None and reference.display_float is not None
    return changed(estimate, laid), dataclasses.replace(
        reference, display=laid(reference.display), display_float=laid(reference.display_float), cache={}
    )


def of_bands(image: Image, count: int) -> Image:
    """The image with that many bands, its own and repeated ones."""
    names = (*image.bands, *(f"B{i:02d}" for i in range(1, 13)))[:count]
    channels = [i % len(image.bands) for i in range(count)]
    return dataclasses.replace(image, values=np.ascontiguousarray(image.values[:, :, channels]), bands=names)


def changed(estimate: Estimate, change: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """An estimate with all of its display arrays changed."""
    found: dict[str, Any] = {n: change(getattr(estimate, n)) for n in ("display", "display_float", "mean", "std")}
    if estimate.draws is not None:
        found["draws"] = np.stack([change(draw) for draw in estimate.draws])
    return dataclasses.replace(estimate, **found)


def arrays_of(pair: Pair) -> list[np.ndarray]:
    """Every array that a metric is given."""
    estimate, reference = pair
    images = [i.values for i in (estimate.image, reference.hr, reference.pan, reference.lr) if i is not None]
    arrays = (
        estimate.display, estimate.display_float, estimate.mean, estimate.std, estimate.draws, reference.display
    )  # fmt: skip
    return [a for a in (*arrays, reference.display_float, reference.valid) if a is not None] + images
