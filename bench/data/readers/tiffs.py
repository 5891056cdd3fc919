"""The directories of a TIFF file, read without a library: what GDAL would not say, and what it would choke on.

GDAL turns nothing by the orientation tag, takes one page a band for an image of one band, and allocates what tags claim
before it looks how long the file is. So the tags are read here first, with every count held against the file's length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from bench.core.errors import RfbenchError
from bench.data.readers import limits

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_MOST_PAGES = 512  # a time series of many years; each takes GDAL a look
_MOST_TAGS = 512
_MOST_BLOCKS = 2**20  # 11 million strips of a file of 162 bytes would be 200 MB of places

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_GEOREFERENCE = (33550, 33922, 34264, 34735)
_REDUCED, _TRANSPARENCY = 1, 4


@dataclass(frozen=True)
class Page:
    """One directory: an image, a reduced copy of one, or a mask."""

    size: tuple[int, int]
    samples: int
    bits: int
    subfile: int
    photometric: int
    compression: int
    orientation: int
    is_float: bool
    is_premultiplied: bool
    has_georeference: bool

    @property
    def is_image(self) -> bool:
        """Neither a reduced copy nor a mask."""
        return not self.subfile & (_REDUCED | _TRANSPARENCY)


def pages(path: Path) -> list[Page]:
    """The directories of a TIFF file.

    Raises
    ------
    RfbenchError
        Directories that go in a circle or lie outside the file; blocks larger than an image may be, or that end behind
        the file; more metadata, blocks or pages than are read.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        if head[:4] not in MAGICS:
            raise RfbenchError(f"{path} cannot be read: it is no TIFF file; replace it, or correct its name")
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        place = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]
        found: list[Page] = []
        seen: set[int] = set()
        while place:
            if place in seen:
                raise _broken(path, "its directories go in a circle")
            if len(found) == _MOST_PAGES:
                raise RfbenchError(f"{path}: has more than {_MOST_PAGES} pages, expected one; cut it")
            seen.add(place)
            tags, place = _directory(path, file, place, order, big, length)
            found.append(_page(path, file, tags, order, length))
    return found


def _broken(path: Path, why: str) -> RfbenchError:
    return RfbenchError(f"{path} cannot be read: {why}; it is cut or damaged, get it again")


@dataclass(frozen=True)
class _Tag:
    """A tag's type, count and where its values lie in the file."""

    kind: int
    count: int
    place: int


def _directory(
    path: Path, file: IO[bytes], place: int, order: str, big: bool, length: int
) -> tuple[dict[int, _Tag], int]:
    """The tags of one directory and where the next one lies (0: nowhere)."""
    head, entry = (8, 20) if big else (2, 12)
    file.seek(place)
    raw = file.read(head)
    if len(raw) < head:
        raise _broken(path, "a directory lies behind its end")
    (count,) = struct.unpack(order + ("Q" if big else "H"), raw)
    if count > _MOST_TAGS:
        raise RfbenchError(f"{path}: a directory claims {count} tags, expected at most {_MOST_TAGS}; replace the file")
    raw = file.read(count * entry + (8 if big else 4))
    if len(raw) < count * entry:
        raise _broken(path, "a directory ends behind its end")
    tags = {}
    for i in range(count):
        number, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), raw, i * entry)
        inline = 8 if big else 4
        at = place + head + i * entry + entry - inline
        if _BYTES.get(kind, 1) * values > inline:
            (at,) = struct.unpack_from(order + ("Q" if big else "I"), raw, i * entry + entry - inline)
            if at + _BYTES.get(kind, 1) * values > length:
                raise _broken(path, f"tag {number} claims {values} values and ends behind its end")
            places = number in (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES)
            if not places and _BYTES.get(kind, 1) * values > limits.LONGEST_TEXTS:
                raise RfbenchError(
                    f"{path}: tag {number} holds {values} values, expected at most {limits.LONGEST_TEXTS} bytes of "
                    "them; write the file again without its metadata"
                )
        tags[number] = _Tag(kind, values, at)
    following = raw[count * entry :]
    if len(following) < (8 if big else 4):
        return tags, 0  # cut behind its last directory: all of it is there
    return tags, struct.unpack(order + ("Q" if big else "I"), following)[0]


def _values(path: Path, file: IO[bytes], tag: _Tag | None, order: str) -> np.ndarray:
    """The whole numbers of a tag as they are stored; none where there is no such tag."""
    if tag is None or tag.kind not in _WHOLE:
        return np.zeros(0, np.int64)
    file.seek(tag.place)
    dtype = np.dtype(order + _WHOLE[tag.kind])
    raw = file.read(dtype.itemsize * tag.count)
    return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)


def _page(path: Path, file: IO[bytes], tags: dict[int, _Tag], order: str, length: int) -> Page:
    def first(number: int, otherwise: int) -> int:
        values = _values(path, file, tags.get(number), order)
        return int(values[0]) if len(values) else otherwise

    width, height, samples = first(_WIDTH, 0), first(_HEIGHT, 0), first(_SAMPLES, 1)
    bits = first(_BITS, 1)
    if not width or not height:
        raise _broken(path, "a directory has no image")
    is_tiled = _TILES in tags
    if is_tiled:
        block = (first(_TILE_HEIGHT, 0), first(_TILE_WIDTH, 0))
        if not all(block):
            raise _broken(path, "its tiles have no size")
    else:
        block = (min(first(_ROWS, height) or height, height), width)
    is_planar = first(_PLANAR, 1) == 2
    held = block[0] * block[1] * (1 if is_planar else samples) * max(bits, 8) // 8
    if held > limits.block_bytes():
        what = "tile" if is_tiled else "strip"
        raise RfbenchError(
            f"{path}: one {what} claims {block[0]}x{block[1]} px, {held} bytes, expected at most "
            f"{limits.block_bytes()}; write it again in tiles of 256 px"
        )
    blocks = -(-height // block[0]) * -(-width // block[1]) * (samples if is_planar else 1)
    if blocks > _MOST_BLOCKS:
        raise RfbenchError(f"{path}: claims {blocks} tiles or strips, expected at most {_MOST_BLOCKS}; write it again")
    for block_range in _ranges(path, file, tags, order, is_tiled):
        if block_range > length:
            raise _broken(path, "a tile or strip of it lies behind its end")
    return Page(
        size=(height, width),
        samples=samples,
        bits=bits,
        subfile=first(_SUBFILE, 0),
        photometric=first(_PHOTOMETRIC, 1),
        compression=first(_COMPRESSION, 1),
        orientation=first(_ORIENTATION, 1),
        is_float=first(_FORMAT, 1) == 3,
        is_premultiplied=first(_EXTRA, 0) == 1,
        has_georeference=any(tag in tags for tag in _GEOREFERENCE),
    )


def _ranges(path: Path, file: IO[bytes], tags: dict[int, _Tag], order: str, is_tiled: bool) -> Iterator[int]:
    """Where the last block ends, as far as its places say; blocks without bytes lie nowhere."""
    names = (_TILES, _TILE_BYTES) if is_tiled else (_STRIPS, _STRIP_BYTES)
    places, sizes = (_values(path, file, tags.get(name), order).astype(np.float64) for name in names)
    n = min(len(places), len(sizes))
    if n:
        used = sizes[:n] > 0
        yield int((places[:n] + sizes[:n])[used].max(initial=0))


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W, ...) as viewers show one whose tag 274 says ``orientation`` (1 to 8)."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
