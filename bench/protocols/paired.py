"""``paired``: the sensor's own LR image against another sensor's HR image of the same ground (the paper's Table 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.core.errors import ItemError, RfbenchError
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None and not self.scale >= 1:
            raise RfbenchError(f"protocol paired: scale={self.scale}, expected a number of 1 or more")

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
        (h, w), (height, width) = pair.lr.size, size
        if height < h or width < w:
            raise ItemError(f"the LR image of {h}x{w} px is larger than its target of {height}x{width}; exchange them")
        scales = (height / h, width / w)
        if max(scales) > 1.25 * min(scales):
            raise ItemError(
                f"the scale is {scales[0]:.2f} along height and {scales[1]:.2f} along width: LR ({h}x{w} px) and "
                f"target ({height}x{width} px) do not show the same ground; correct the pair"
            )
        if target is not None and self.scale and (round(h * self.scale), round(w * self.scale)) != size:
            raise ItemError(
                f"scale={self.scale:g} was asked for, but LR ({h}x{w} px) and target ({height}x{width} px) fix it; "
                "leave the option out"
            )
        pan = on_grid(pair.pan, size) if pair.pan is not None else None
        return self.task(pair, pair.lr, pair.hr, pan, size)
