"""The one resampling kernel of the protocols: torch's antialiased bicubic (a = -0.5), in float32, without rounding."""

from __future__ import annotations

from typing import Literal

import numpy as np

from bench.core.image import Array

KERNEL = "torch-bicubic-antialias,a-0.5,float32"


def resize(values: Array, size: tuple[int, int], mode: Literal["bicubic", "bilinear"] = "bicubic") -> Array:
    """Resample float32 (H, W, C) to ``size`` = (height, width); edges are aligned (pixels are areas)."""
    import torch
    import torch.nn.functional as F

    if values.shape[:2] == size:
        return values
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, 2, 0)))[None]
    y = F.interpolate(x, size=size, mode=mode, antialias=True, align_corners=False)
    return np.ascontiguousarray(np.moveaxis(y[0].numpy(), 0, 2))
