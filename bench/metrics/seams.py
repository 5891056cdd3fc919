"""Seams: lines at regular distances that a model leaves where its tiles, or the blocks of its decoder, meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.core.errors import Unavailable
from bench.metrics.base import Estimate, Metric, Reference, Score

_LUMA = np.array([0.299, 0.587, 0.114])
_SHORTEST_PX, _LEAST_LINES = 8, 3
_AROUND = 4  # steps to either side that a step is held against


@dataclass(frozen=True)
class Comb:
    """The strongest comb of lines of an image: its strength in deviations, period and offset in px, and direction."""

    strength: float
    period_px: int
    offset_px: int
    lines: str


def strongest_comb(luma: np.ndarray) -> Comb:
    """The strongest regular comb of steps between neighbouring columns, or rows, of luma (H, W).

    The mean absolute step between two columns is held against the median of the eight around it, and divided by the
    robust deviation of these excesses. For every period of 8 px or more that has three lines in the image, and every
    offset, the excesses of its lines are added up without the largest, which may be an edge of the scene, and divided
    by the square root of their number. Where nothing repeats, this is 3 to 5, the largest of some thousand such sums.

    Raises
    ------
    Unavailable
        For an image of less than 32 px, or without contrast.
    """
    if min(luma.shape) < 4 * _SHORTEST_PX:
        raise Unavailable(f"{luma.shape[0]}x{luma.shape[1]} px have no room for three seams {_SHORTEST_PX} px apart")
    axes = {"columns": luma, "rows": luma.T}
    combs = [_strongest(np.abs(np.diff(x, axis=1)).mean(axis=0), name) for name, x in axes.items()]
    return max(combs, key=lambda comb: comb.strength)


def _strongest(steps: np.ndarray, lines: str) -> Comb:
    """The strongest comb of a profile of steps (N,)."""
    padded = np.pad(steps, _AROUND, mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1)
    excess = steps - np.median(np.delete(around, _AROUND, axis=1), axis=1)
    # Of repeated pixels most steps are 0, and so is the median; the mean of all is of the lines alone then.
    deviation = 1.4826 * float(np.median(np.abs(excess - np.median(excess)))) or float(np.abs(excess).mean())
    if deviation == 0.0:
        raise Unavailable("the image has no contrast that seams could be held against")
    excess = excess / deviation
    best = Comb(-math.inf, 0, 0, lines)
    for period in range(_SHORTEST_PX, len(steps) // _LEAST_LINES + 1):
        # Lines lie at offset, offset + period, ...: one row a line, one column an offset; missing ones are NaN.
        count = -(-len(excess) // period)
        table = np.full((count, period), np.nan)
        table.ravel()[: len(excess)] = excess
        present = np.isfinite(table).sum(axis=0)
        sums = (np.nansum(table, axis=0) - np.nanmax(table, axis=0)) / np.sqrt(np.maximum(present - 1, 1))
        sums[present < _LEAST_LINES] = -np.inf
        place = int(np.argmax(sums))
        if sums[place] > best.strength:
            best = Comb(float(sums[place]), period, place + 1, lines)
    return best


class Seams(Metric):
    """The strength of the strongest regular comb of lines in an image, in deviations; a note says where it is.

    Steps between neighbouring columns, and rows, are held against those around them; the largest sum over lines at one
    period and offset, by which their number grows as it does for noise, without the strongest line. Every period from
    8 px to a third of the side is looked for, since what a model was tiled by is not known from its image. 3 to 5 is
    what an image without seams has, so that larger numbers are to be looked at, and smaller ones mean nothing.

    Source: ours; complaints of stripes at the period of tiles and of decoders' blocks have no measure elsewhere.

    Traps: fields, streets and sensors' own stripes repeat too: read it beside the row of the HR image (--model hr).
    One line alone, of two tiles, is no comb.
    """

    name = "seams"
    title = "Seams"
    direction = "down"
    describes = True
    group = "realism"
    needs = ()
    decimals = 1
    min_side_px = 4 * _SHORTEST_PX
    parameters = ("luma", "comb8..side/3", "lines3", "median8", "mad", "trim1")
    summary = "Strength of lines at a regular distance, as tiles leave them"
    equation = "max over period, offset, axis of sum (e - max e) / sqrt(n - 1), e the steps' excess over MAD"
    bounds = (-math.inf, math.inf)
    on_satellite = (
        "Needs no reference and knows no photographs: a ploughed field or a street grid is a comb as much as a seam "
        "is. Compare models on the same images, beside the HR image's own number."
    )

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> Score:
        """The strongest comb of the displayed image's luma."""
        found = strongest_comb(estimate.display.astype(np.float64) @ _LUMA)
        return Score(found.strength, note=f"{found.lines} {found.period_px} px apart from {found.offset_px}")
