"""What a file may claim before a pixel of it is touched: samples, bands, blocks, texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line

# More in one image is refused before it is read, of numbers of 8 bytes half as many: 3344 x 3344 px of three bands are
# seven times the largest image of a public set that is imported. That much is read and checked below 2 GB.
MAX_SAMPLES = 2**25
MAX_BANDS = 1024  # imaging spectrometers have some hundreds; GDAL takes minutes over the bands of a small file
LONGEST_TEXTS = 2**20  # bytes of band names, dates or metadata in a file: GDAL takes 15 s over 60,000 metadata items
CACHE_MB = 64  # GDAL would keep a twentieth of the machine's memory of what it has unpacked


class WrongSize(RfbenchError):
    """An image of another size than the one that was asked for; its message names both as height x width."""


def check_size(path: Path, dtype: str | np.dtype[Any], *shape: int) -> None:
    """Refuse what is no number, and too many of them, before anything is read."""
    found = np.dtype(dtype)
    if found.kind not in "uifb" or found.itemsize > 8:
        raise RfbenchError(f"{path}: found {one_line(found, 40)} values, expected numbers of up to 8 bytes; convert it")
    most = MAX_SAMPLES // (2 if found.itemsize == 8 else 1)
    samples = 1
    for n in shape:
        samples *= int(n)
    if samples > most or samples <= 0:
        raise RfbenchError(
            f"{path}: its header claims {' x '.join(map(str, shape))} samples, expected 1 to {most}; "
            "cut the image into smaller ones"
        )


def check_bands(path: Path, count: int) -> None:
    """Refuse a file of more bands than any instrument has."""
    if count > MAX_BANDS:
        raise RfbenchError(f"{path}: its header claims {count} bands, expected at most {MAX_BANDS}; cut it")


def check_wanted(path: Path, found: tuple[int, int], wanted: tuple[int, int] | None) -> None:
    """WrongSize unless an image has the size that was asked for, if one was."""
    if wanted is not None and found != wanted:
        raise WrongSize(f"{path}: found {found[0]}x{found[1]} px, expected {wanted[0]}x{wanted[1]} px")


def block_bytes() -> int:
    """The most bytes of one strip or tile, unpacked: what an image of the largest size holds as a single strip."""
    return 4 * MAX_SAMPLES
