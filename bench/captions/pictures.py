"""What a captioner is shown: one side of a pair in display range, enlarged, with its mask drawn in or beside it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from bench.core.errors import ItemError
from bench.core.image import RGB, Array, Mask
from bench.core.resample import resize
from bench.data.dataset import Pair
from bench.data.normalise import Normalisation

OUTLINE = (255, 40, 40)


@dataclass(frozen=True)
class Shown:
    """Pictures as PNG files, the first of them the image; ``mask`` as the dataset has it, for the checks."""

    pictures: tuple[bytes, ...]
    mask: Mask | None


def show(pair: Pair, source: str, stretch: str, mask: str, side_px: int) -> Shown:
    """The pictures of a pair.

    Parameters
    ----------
    source : ``hr`` or ``lr``.
    stretch : ``declared``, or a normalisation such as ``percentile[2,98]``.
    mask : ``none``, ``outline`` (drawn in) or ``second`` (a picture of its own).
    side_px : the longer side of what is sent.

    Raises ItemError where the side, its R, G, B or a valid pixel is missing.
    """
    image = pair.hr if source == "hr" else pair.lr
    if image is None:
        raise ItemError(f"it has no {source.upper()} image")
    if not image.has(RGB) or not image.valid.any():
        raise ItemError(f"its {source.upper()} image has no {'R G B' if not image.has(RGB) else 'valid pixel'}")
    side = pair.record.sides[source]
    form = side.declared if stretch == "declared" else Normalisation.parse(stretch)
    rgb = image.select(RGB)
    display = form.fit(rgb, side.gamma).apply(rgb)
    scale = side_px / max(display.shape[:2])
    size = (max(1, round(display.shape[0] * scale)), max(1, round(display.shape[1] * scale)))
    pixels = np.rint(np.clip(resize(display, size), 0, 1) * np.float32(255)).astype(np.uint8)
    if mask == "none" or pair.mask is None:
        return Shown((png_of(pixels),), pair.mask)
    enlarged = nearest(pair.mask, size)
    if mask == "second":
        return Shown(
            (png_of(pixels), png_of(np.where(enlarged[..., None], 255, 0).astype(np.uint8).repeat(3, 2))), pair.mask
        )
    return Shown((png_of(outlined(pixels, enlarged)),), pair.mask)


def nearest(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask on another grid, each pixel that of its place."""
    return mask[np.ix_(*(np.arange(n) * m // n for n, m in zip(size, mask.shape, strict=True)))]


def outlined(pixels: np.ndarray, mask: Mask, width: int = 2) -> np.ndarray:
    """8-bit RGB with the outline of ``mask`` drawn around it, outside of the feature."""
    from scipy import ndimage

    ring = ndimage.binary_dilation(mask, iterations=width) & ~mask
    return np.where(ring[..., None], np.array(OUTLINE, np.uint8), pixels)


def png_of(pixels: np.ndarray | Array) -> bytes:
    """A PNG of 8-bit RGB without metadata: equal pixels are equal bytes."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=False, compress_level=6)
    return out.getvalue()
