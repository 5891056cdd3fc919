"""What happens to an LR image between the ground and the file: noise, haze, blur, and a shift against the HR.

Training meets such images in a share of its chips (``train.augment.degraded``), with the true HR beside them: only
then has an uncertain input something to say to the gates. Experiments make them at strengths of their choice. All are
float32 (h, w, 3) in [0, 1] on the LR's own grid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
_AIRLIGHT = np.array([0.75, 0.78, 0.82])


def degrade(lr: Array, kind: str, strength: float, random: np.random.Generator) -> Array:
    """``lr`` degraded by a kind of ``KINDS``; strength 0 leaves it as it is, 1 is the worst that training shows."""
    return np.clip(KINDS[kind](lr.astype(np.float64), strength, random), 0, 1).astype(np.float32)


def degrade_at_random(lr: Array, random: np.random.Generator) -> Array:
    """A kind and a strength from (0, 1], drawn evenly."""
    kind = list(KINDS)[int(random.integers(len(KINDS)))]
    return degrade(lr, kind, 1 - float(random.random()), random)


def _noise(lr: Float, strength: float, random: np.random.Generator) -> Float:
    """Independent Gaussian noise of up to 0.15, a tenth of which is usual in a dark scene."""
    return lr + 0.15 * strength * random.standard_normal(lr.shape)


def _haze(lr: Float, strength: float, random: np.random.Generator) -> Float:
    """Up to 60 % of a bluish white in front of the scene."""
    share = 0.6 * strength
    return (1 - share) * lr + share * _AIRLIGHT


def _blur(lr: Float, strength: float, random: np.random.Generator) -> Float:
    """A Gaussian of up to 2 LR px."""
    sigma_px = 2 * strength
    return np.asarray(ndimage.gaussian_filter(lr, (sigma_px, sigma_px, 0), mode="reflect"))


def _shift(lr: Float, strength: float, random: np.random.Generator) -> Float:
    """Moved by up to 0.6 LR px (3 HR px at x5) in any direction, by cubic splines."""
    angle = random.uniform(0, 2 * np.pi)
    offset = 0.6 * strength * np.array([np.sin(angle), np.cos(angle), 0])
    return np.asarray(ndimage.shift(lr, offset, order=3, mode="nearest"))


KINDS: dict[str, Callable[[Float, float, np.random.Generator], Float]] = {
    "noise": _noise,
    "haze": _haze,
    "blur": _blur,
    "shift": _shift,
}
