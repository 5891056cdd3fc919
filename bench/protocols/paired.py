"""``paired``: the sensor's own LR image against another sensor's HR image of the same ground (the paper's Table 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.core.errors import ItemError
from bench.data.dataset import Pair
from bench.protocols.base import Protocol, Task, on_grid


@dataclass(frozen=True)
class Paired(Protocol):
    """Cross-sensor super-resolution.

    The grid of comparison is the HR image's own; without HR the PAN's; without both (images to upscale) the LR's
    times ``scale``. The scale of a pair is the ratio of its sizes, per axis.
    """

    name: ClassVar[str] = "paired"
    summary: ClassVar[str] = "LR of one sensor, HR of another; the grid is the HR's"
    scale: float | None = None

    def prepare(self, pair: Pair) -> Task:
        if pair.lr is None:
            raise ItemError("no LR image; protocol paired needs one, bicubic-4x makes its own from HR")
        target = pair.hr or pair.pan
        if target is not None:
            size = target.size
        elif self.scale:
            size = (round(pair.lr.size[0] * self.scale), round(pair.lr.size[1] * self.scale))
        else:
            raise ItemError("neither HR nor PAN says how large the answer is; give --protocol paired:scale=5")
        if size[0] < pair.lr.size[0] or size[1] < pair.lr.size[1]:
            raise ItemError(f"the LR image {pair.lr.size} is larger than its target {size}; exchange lr and hr")
        pan = on_grid(pair.pan, size) if pair.pan is not None else None
        return self.task(pair, pair.lr, pair.hr, pan, size)
