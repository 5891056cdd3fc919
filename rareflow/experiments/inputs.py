"""LR images that the model was not trained for, made from ones that it was: a counterpart of each kind for an image.

All are float32 (h, w, 3) in [0, 1] on the LR's own grid, and a function of (image, name) alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from rareflow.train.chips import stream

Array = npt.NDArray[np.float32]
_FINE = 6  # samples of the city a side of an LR pixel
_BLUR_PX = 4.0


def corrupt(lr: Array, kind: str, name: str) -> Array:
    """The counterpart of ``lr`` of a kind of ``KINDS``; ``name`` seeds what is random in it."""
    made = KINDS[kind](lr.astype(np.float64), stream(0, "ood", kind, name))
    return np.clip(made, 0, 1).astype(np.float32)


def _city(lr: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """A street grid in any direction with flat roofs in greys and reds, their shadows, yards and a few parks.

    Drawn for pixels of 10 m (blocks of 80 to 180 m, streets of 12 to 24 m, plots of 25 to 55 m) at six samples a pixel,
    then blurred and averaged over pixels, as a sensor would, with a little haze.
    """
    rows, columns = lr.shape[0] * _FINE, lr.shape[1] * _FINE
    metre = _FINE / 10
    angle = random.uniform(0, np.pi / 2)
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    along = np.stack([np.cos(angle) * y + np.sin(angle) * x, -np.sin(angle) * y + np.cos(angle) * x])
    place, block, edge = [], [], []
    for axis in along:
        # Street lines with uneven gaps; where a sample lies between two of them.
        lines = axis.min() - 1 + np.cumsum(random.uniform(80, 180, 4096)) * metre
        lines = np.concatenate([[axis.min() - 1], lines])
        street = random.uniform(12, 24) * metre / 2
        index = np.searchsorted(lines, axis) - 1
        block.append(index)
        inside = axis - lines[index]
        edge.append(np.minimum(inside, lines[index + 1] - axis) > street)
        place.append(inside)
    built = edge[0] & edge[1]
    houses = [(p / (random.uniform(25, 55) * metre)) for p in place]
    cell = [np.floor(h).astype(int) for h in houses]
    within = [(h - c > 0.12) & (h - c < 0.88) for h, c in zip(houses, cell, strict=True)]
    key = (block[0] * 7919 + block[1] * 104729 + cell[0] * 1299709 + cell[1] * 15485863) % 4096
    roof = random.uniform(0.25, 0.75, 4096)[:, None] * np.ones(3) + random.normal(0, 0.02, (4096, 3))
    red = random.random(4096) < 0.35
    roof[red] = np.array([0.62, 0.38, 0.30]) * random.uniform(0.7, 1.25, (int(red.sum()), 1))
    park = (random.random(4096) < 0.08)[(block[0] * 31 + block[1] * 17) % 4096]
    house = built & within[0] & within[1] & (random.random(4096) < 0.85)[key] & ~park
    image = np.full((rows, columns, 3), 0.38) + 0.02 * random.standard_normal((rows, columns, 1))
    image[built] = np.array([0.36, 0.38, 0.30])
    image[park] = np.array([0.22, 0.30, 0.16])
    shift = np.round(random.uniform(8, 16) * metre * np.array([np.cos(angle + 0.6), np.sin(angle + 0.6)])).astype(int)
    shadow = np.roll(house, tuple(int(s) for s in shift), (0, 1)) & ~house
    image[house] = roof[key[house]]
    image[shadow] *= 0.45
    seen = ndimage.gaussian_filter(image, (0.45 * _FINE, 0.45 * _FINE, 0), mode="reflect")
    cells = seen.reshape(lr.shape[0], _FINE, lr.shape[1], _FINE, 3).mean(axis=(1, 3))
    return np.asarray(np.array([0.09, 0.10, 0.12]) + 0.9 * cells)


def _noise(lr: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Independent uniform values."""
    return random.random(lr.shape)


def _inverted(lr: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """The negative: its structure, colours that no ground has."""
    return 1 - lr


def _flat(lr: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """The mean colour everywhere."""
    return np.broadcast_to(lr.mean(axis=(0, 1)), lr.shape)


def _blurred(lr: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """A Gaussian of 4 LR px."""
    return np.asarray(ndimage.gaussian_filter(lr, (_BLUR_PX, _BLUR_PX, 0), mode="reflect"))


def _snow(lr: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """White over some 90 % of the image, with a third of the contrast below showing through; bare ground in between."""
    luma = lr.mean(axis=2, keepdims=True)
    field = ndimage.gaussian_filter(random.standard_normal(lr.shape[:2]), 3.0, mode="wrap")
    cover = special.expit((field / max(field.std(), 1e-9) + 1.3) / 0.15)[:, :, None]
    white = np.array([0.90, 0.92, 0.95]) + 0.35 * (luma - luma.mean())
    return np.asarray(cover * white + (1 - cover) * lr)


KINDS: dict[str, Callable[[npt.NDArray[np.float64], np.random.Generator], npt.NDArray[np.float64]]] = {
    "city": _city,
    "noise": _noise,
    "inverted": _inverted,
    "flat": _flat,
    "blurred": _blurred,
    "snow": _snow,
}
