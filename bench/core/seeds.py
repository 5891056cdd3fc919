"""Randomness by name: the same (run seed, image, draw) gives the same noise, whatever the batch, order or tile.

A counter would make a number depend on what was computed before it; a hash of names cannot.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_BLOCK = 64  # cells; the field is made of blocks of this size, each with a generator of its own


def seed_for(run_seed: int, image_id: str, draw: int) -> int:
    """A 63-bit seed from the run's seed, the image's id and the number of the draw."""
    text = f"{run_seed}\x1f{image_id}\x1f{draw}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def noise_field(seed: int, top: int, left: int, height: int, width: int, channels: int) -> npt.NDArray[np.float32]:
    """A crop of the one infinite field of standard normal noise that belongs to ``seed``.

    The field is generated in blocks keyed by (seed, block row, block column, channels), so a crop costs what
    it holds and a tile of an image sees exactly the noise that the whole image would have had there.

    Returns
    -------
    float32 (height, width, channels)
    """
    out = np.empty((height, width, channels), np.float32)
    for by in range(top // _BLOCK, (top + height - 1) // _BLOCK + 1):
        for bx in range(left // _BLOCK, (left + width - 1) // _BLOCK + 1):
            key = hashlib.blake2b(f"{seed}/{by}/{bx}/{channels}".encode(), digest_size=16).digest()
            generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
            block = generator.standard_normal((_BLOCK, _BLOCK, channels), np.float32)
            y0, x0 = by * _BLOCK, bx * _BLOCK
            y1, x1 = max(y0, top), max(x0, left)
            y2, x2 = min(y0 + _BLOCK, top + height), min(x0 + _BLOCK, left + width)
            out[y1 - top : y2 - top, x1 - left : x2 - left] = block[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
    return out
