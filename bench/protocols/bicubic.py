"""``bicubic-4x``: an HR image reduced four times, and back (the paper's Table 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from bench.core.errors import ItemError
from bench.core.resample import KERNEL, resize
from bench.data.dataset import Pair
from bench.protocols.base import Protocol, Task

_FACTOR = 4


@dataclass(frozen=True)
class Bicubic4x(Protocol):
    """Controlled super-resolution: HR is cropped right and bottom to a multiple of 4 and reduced, in its own unit
    and without rounding, by torch's antialiased bicubic; the model ``bicubic`` is the same kernel up."""

    name: ClassVar[str] = "bicubic-4x"
    summary: ClassVar[str] = "HR reduced 4x by an antialiased bicubic, and back"
    lr_from: ClassVar[str] = "hr"
    reads: ClassVar[tuple[str, ...]] = ("hr", "mask")  # the LR belongs to another sensor: broken or not, it is not used

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"kernel": KERNEL, "factor": _FACTOR}

    def prepare(self, pair: Pair) -> Task:
        if pair.hr is None:
            raise ItemError("no HR image; protocol bicubic-4x needs one")
        height, width = (n - n % _FACTOR for n in pair.hr.size)
        if not height or not width:
            raise ItemError(f"an HR image of {pair.hr.size} px cannot be reduced {_FACTOR} times")
        hr = pair.hr.crop(height, width)
        # A hole must not bleed: it takes the band's median before the reduction and stays invalid after it.
        values = hr.values
        if not hr.valid.all() and hr.valid.any():
            values = np.where(hr.valid[:, :, None], values, np.median(values[hr.valid], axis=0)).astype(np.float32)
        blocks = hr.valid.reshape(height // _FACTOR, _FACTOR, width // _FACTOR, _FACTOR)
        lr = replace(
            hr,
            values=resize(values, (height // _FACTOR, width // _FACTOR)),
            valid=np.asarray(blocks.all(axis=(1, 3))),
            gsd_m=hr.gsd_m * _FACTOR if hr.gsd_m else None,
        )
        return self.task(replace(pair, lr=None, series=None), lr, hr, None, (height, width))
