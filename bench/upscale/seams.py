"""Tiles put together again: blended where they overlap, each pixel given back once, as early as it can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bench.core.image import Array, Mask
from bench.models.tiling import Span, ramp, spans

_STEP_PX = 8  # the cells of a latent eight times smaller than the answer, at any whole scale


class Axis:
    """The tiles along one axis, and the part of each that goes into the result.

    The last tile is about as long as the others, so it may reach far back. What of it lies beyond ``overlap`` is for
    the model to see and goes no further; otherwise nearly a whole row of tiles would have to wait for it.
    """

    def __init__(self, length: int, out_length: int, tile: int, overlap: int) -> None:
        self.length, self.out_length = length, out_length
        self.tiles = spans(length, out_length, tile, overlap, _STEP_PX)
        self.parts = list(self.tiles)
        if len(self.tiles) > 1:
            start = max(self.tiles[-1].start, self.tiles[-2].stop - overlap)
            out_start = max(self.tiles[-1].out_start, round(start * out_length / length))
            self.parts[-1] = replace(self.tiles[-1], start=start, out_start=out_start)

    def inside(self, index: int) -> slice:
        """Where the part of a tile lies in the tile's answer."""
        first = self.tiles[index].out_start
        return slice(self.parts[index].out_start - first, self.parts[index].out_stop - first)

    def under(self, index: int, count: int) -> npt.NDArray[np.intp]:
        """For the first ``count`` pixels of a tile's part: the row (or column) of the tile under their centres."""
        tile, first = self.tiles[index], self.parts[index].out_start
        centres = (np.arange(first, first + count) + 0.5) * self.length / self.out_length
        return np.clip(centres.astype(np.intp) - tile.start, 0, tile.stop - tile.start - 1)


class Seams:
    """Blends tiles that come row by row, and gives back each pixel once, when no later tile can change it.

    The weights and the order of the sums are those of ``Model`` when it tiles an image itself.
    """

    def __init__(self, rows: list[Span], columns: list[Span]) -> None:
        self._rows, self._columns = rows, columns
        self._depth: int | None = None  # layers and the weight; known with the first answer
        # What earlier tiles left in the part of this tile that they overlap: (n, width of the image, depth) from the
        # row of tiles above, the same for the row below, and (height of this row, n, depth) from the tile to the left.
        self._above: Array | None = None
        self._below: Array | None = None
        self._left: Array | None = None

    def add(self, r: int, c: int, layers: Array | None) -> tuple[Array, Mask] | None:
        """Take the answer (h, w, L) of tile (r, c), None for a tile that was left out; give back what is finished.

        That begins at the tile's first pixel: values (h', w', L) and where there are any (h', w'). None as long as
        there has been no answer at all.
        """
        row, column = self._rows[r], self._columns[c]
        h, w = row.out_stop - row.out_start, column.out_stop - column.out_start
        if self._depth is None:
            if layers is None:
                return None
            self._depth = layers.shape[2] + 1
        if c == 0:
            self._above, self._below, self._left = self._below, None, None
        total = np.zeros((h, w, self._depth), np.float32)
        seen = 0
        if self._left is not None:  # holds what came from above, too
            seen = self._left.shape[1]
            total[:, :seen] = self._left
        if self._above is not None:
            n = self._above.shape[0]
            total[:n, seen:] = self._above[:, column.out_start + seen : column.out_stop]
        if layers is not None:
            share = (ramp(self._rows, r)[:, None] * ramp(self._columns, c)[None, :])[:, :, None]
            total[:, :, :-1] += layers * share
            total[:, :, -1:] += share
        done_h = self._start(self._rows, r + 1) - row.out_start
        done_w = self._start(self._columns, c + 1) - column.out_start
        if self._below is None:
            self._below = np.zeros((h - done_h, self._columns[-1].out_stop, self._depth), np.float32)
        self._below[:, column.out_start : column.out_start + done_w] = total[done_h:, :done_w]
        self._left = total[:, done_w:].copy()
        weight = total[:done_h, :done_w, -1:]
        values = np.zeros((*weight.shape[:2], self._depth - 1), np.float32)
        np.divide(total[:done_h, :done_w, :-1], weight, out=values, where=weight > 0)
        return values, weight[:, :, 0] > 0

    @staticmethod
    def _start(axis: list[Span], index: int) -> int:
        return axis[index].out_start if index < len(axis) else axis[-1].out_stop
