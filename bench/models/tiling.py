"""Fitting images to what a model can take: padding of small ones, tiles of large ones, seams that do not show."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bench.core.image import Array


def pad(images: Array, height: int, width: int) -> Array:
    """(N, h, w, C) grown at bottom and right to ``height`` x ``width`` by reflection, repeated where the pad is larger
    than the image (a 30x40 image can become 128x128)."""
    _, h, w, _ = images.shape
    return np.pad(images, ((0, 0), (0, height - h), (0, width - w), (0, 0)), mode="symmetric")


def padded_size(h: int, w: int, *, multiple: int, min_side_px: int, square: bool) -> tuple[int, int]:
    """The smallest size that holds (h, w) and meets a model's constraints."""
    height, width = (-(-max(n, min_side_px) // multiple) * multiple for n in (h, w))
    return (max(height, width),) * 2 if square else (height, width)


@dataclass(frozen=True)
class Span:
    """One tile along an axis: [start, stop) in the input and [out_start, out_stop) in the answer."""

    start: int
    stop: int
    out_start: int
    out_stop: int


def spans(length: int, out_length: int, tile: int, overlap: int, step_px: int = 1) -> list[Span]:
    """Tiles that cover an axis, none longer than ``tile``, each overlapping the next.

    Starts are multiples of the scale's denominator where that fits into a tile, so that a tile's answer lies on
    whole pixels of the whole image's answer (5/4: starts at multiples of 4). Where it does not fit, a tile is displaced
    by less than half a pixel of the answer. With ``step_px`` they are multiples of that many times the denominator,
    where it fits: a model that draws its noise in cells of a few pixels then finds whole cells in every tile.
    """
    if length <= tile:
        return [Span(0, length, 0, out_length)]
    whole = Fraction(out_length, length).denominator
    step_of = next(n for n in (whole * step_px, whole, 1) if n <= max(1, tile - overlap))
    stride = max(step_of, (tile - overlap) // step_of * step_of)
    starts = list(range(0, length - tile, stride))
    last = -(-(length - tile) // step_of) * step_of  # rounded up: the last tile is a little shorter, never longer
    starts += [last] if last > starts[-1] else []
    stops = [min(start + tile, length) for start in starts]
    return [
        Span(a, b, round(a * out_length / length), round(b * out_length / length))
        for a, b in zip(starts, stops, strict=True)
    ]


def ramp(axis: list[Span], index: int) -> Array:
    """Blending weights of one tile along an axis, float32: 1 inside, linear where it overlaps its neighbours."""
    span = axis[index]
    weights = np.ones(span.out_stop - span.out_start, np.float32)
    if index > 0:
        n = axis[index - 1].out_stop - span.out_start
        if n > 0:
            weights[:n] *= (np.arange(n, dtype=np.float32) + 0.5) / n
    if index + 1 < len(axis):
        n = span.out_stop - axis[index + 1].out_start
        if n > 0:
            weights[-n:] *= ((np.arange(n, dtype=np.float32) + 0.5) / n)[::-1]
    return weights
