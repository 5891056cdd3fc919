"""The image record that travels through the harness."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Unit = Literal["reflectance", "display", "relative"]
UNITS: tuple[str, ...] = get_args(Unit)
RGB = ("R", "G", "B")


_BLOCK_SAMPLES = 2**20


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the rows of an array (H, W, C), each of about a million samples, for arithmetic in doubles."""
    rows = max(1, _BLOCK_SAMPLES // max(1, math.prod(shape[1:])))
    for top in range(0, shape[0], rows):
        yield slice(top, top + rows)


@dataclass(frozen=True)
class Image:
    """An image with all that is needed to know what its numbers mean.

    Attributes
    ----------
    values : float32 (H, W, C), finite where ``valid``; elsewhere 0.
    unit : ``reflectance`` (0..1 nominal; clouds and snow go above, corrected shadow below), ``display``
        ([0, 1], ready to be looked at) or ``relative`` (numbers without an absolute meaning).
    bands : one canonical name for each channel (``R``, ``G``, ``B``, ``NIR``, ``PAN``, ``B05``, ...).
    valid : bool (H, W); False where the file had no data.
    gsd_m : ground sampling distance in metres, None where unknown.
    """

    values: Array
    unit: Unit
    bands: tuple[str, ...]
    valid: Mask
    gsd_m: float | None = None

    def __post_init__(self) -> None:
        v = self.values
        if v.ndim != 3 or v.shape[2] != len(self.bands) or v.dtype != np.float32:
            raise RfbenchError(
                f"an image must be float32 (H, W, {len(self.bands)}) for the bands {' '.join(self.bands)}; "
                f"found {v.dtype} {v.shape}"
            )
        if self.valid.shape != v.shape[:2]:
            raise RfbenchError(f"the valid mask {self.valid.shape} does not fit the image {v.shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.values.shape[0], self.values.shape[1]

    def has(self, bands: tuple[str, ...]) -> bool:
        """Whether every one of ``bands`` is there."""
        return all(b in self.bands for b in bands)

    def select(self, bands: tuple[str, ...]) -> Image:
        """The image with ``bands`` in that order; RfbenchError naming the missing ones."""
        if bands == self.bands:
            return self
        missing = [b for b in bands if b not in self.bands]
        if missing:
            raise RfbenchError(f"band {', '.join(missing)} is needed; the image has {' '.join(self.bands)}")
        return replace(self, values=self.values[:, :, [self.bands.index(b) for b in bands]], bands=bands)

    def crop(self, height: int, width: int) -> Image:
        """The top left ``height`` x ``width`` pixels."""
        return replace(self, values=self.values[:height, :width], valid=self.valid[:height, :width])


def quantised(display: Array, bits: int | None) -> Array:
    """Display values rounded once to ``bits`` (half to even, as numpy rounds), or unchanged for None."""
    if bits is None:
        return display
    levels = np.float32(2**bits - 1)
    return np.asarray(np.rint(display * levels) / levels, np.float32)
