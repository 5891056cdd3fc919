"""Pictures that need no data: smooth ground with some grain, the same on every machine."""

from __future__ import annotations

import numpy as np


def picture(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth random picture with some grain, float64 (height, width, channels) in [0.05, 0.95]."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal((height, width, channels)), (3, 3, 0), mode="wrap")
    values = smooth / (np.abs(smooth).max() + 1e-9) * 0.35 + 0.5 + 0.05 * rng.standard_normal(smooth.shape)
    return np.clip(values, 0.05, 0.95)
