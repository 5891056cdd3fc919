"""From a model's answer to what metrics look at: draw 0, the mean of the draws, and their spread, in display range."""

from __future__ import annotations

import dataclasses

import numpy as np

from bench.core.image import RGB, Array, Image, quantised
from bench.metrics.base import Estimate
from bench.models.call import Answer
from bench.protocols.base import Protocol, Task, cut, cut_image


def estimates(answer: Answer, task: Task, protocol: Protocol) -> dict[str, Estimate]:
    """``sample`` (draw 0, or the one answer of a deterministic model) and, for several draws, ``mean``.

    The spread of K draws is their standard deviation with K - 1 in the denominator, per pixel and channel, in
    display units. An answer in reflectance is brought to display with the parameters fitted on the LR.
    """
    if "samples" in answer.arrays:
        draws = answer.arrays["samples"]
        display = np.stack([_display(draw, answer, task) for draw in draws])
        if len(draws) == 1:
            one = _estimate(draws[0], display[0], answer, protocol, None, None)
            return {
                "sample": dataclasses.replace(one, no_distribution="one draw has no spread; ask for --draws 2 or more")
            }
        mean = display.mean(axis=0, dtype=np.float64).astype(np.float32)
        std = display.std(axis=0, ddof=1, dtype=np.float64).astype(np.float32)
        average = draws.mean(axis=0, dtype=np.float64).astype(np.float32)
        return {
            "sample": dataclasses.replace(
                _estimate(draws[0], display[0], answer, protocol, mean, std),
                draws=np.stack([cut(d, protocol.border_px) for d in display]) if protocol.border_px else display,
            ),
            "mean": _estimate(average, mean, answer, protocol, None, None),
        }
    values = answer.arrays["mean"]
    display_mean = _display(values, answer, task)
    spread: Array | None = None
    if "std" in answer.arrays:
        # Half the way from mean - std to mean + std, in display units: exact where the normalisation is linear and
        # neither is cut at black or white, beyond which no draw would be seen either.
        up, down = (_display(values + s * answer.arrays["std"], answer, task) for s in (1, -1))
        spread = ((up - down) / 2).astype(np.float32)
    return {
        "sample": _estimate(
            values, display_mean, answer, protocol, display_mean if spread is not None else None, spread
        )
    }


def _display(values: Array, answer: Answer, task: Task) -> Array:
    """float32 (H, W, 3) in [0, 1]; of size 0 where the answer has no R, G, B."""
    whole = Image(values, answer.unit, answer.bands, np.ones(values.shape[:2], bool))
    if not whole.has(RGB) or (task.fitted is None and not answer.normalised):
        return np.empty((0, 0, 3), np.float32)
    image = whole.select(RGB)
    if answer.normalised:
        return np.clip(image.values, 0.0, 1.0)
    assert task.fitted is not None
    return task.fitted.apply(image)


def _estimate(
    values: Array, display: Array, answer: Answer, protocol: Protocol, mean: Array | None, std: Array | None
) -> Estimate:
    b = protocol.border_px
    whole = Image(values, answer.unit, answer.bands, np.ones(values.shape[:2], bool))
    return Estimate(
        display=cut(quantised(display, protocol.quantise), b),
        display_float=cut(display, b),
        image=None if answer.normalised else cut_image(whole, b),
        mean=cut(mean, b) if mean is not None else None,
        std=cut(std, b) if std is not None else None,
    )
