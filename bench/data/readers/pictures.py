"""PNG and JPEG as every viewer shows them: turned by their EXIF, with the colours of their palette, 16 bits whole."""

from __future__ import annotations

import contextlib
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError
from bench.core.image import Mask
from bench.data.readers import limits, sidecars, source, tiffs
from bench.data.readers.source import Header, Held, Raster, plain_header

_MOST_SCANS = 100  # of a progressive JPEG; libraries write about ten, and 5,000 take 24 s to decode
_MOST_CHUNKS = 2**16
_LONGEST_EXIF = 2**16
_ORIENTATION = 0x0112


def open_picture(path: Path, size: tuple[int, int] | None = None) -> Held:
    """A PNG or JPEG file; an alpha channel is its last band."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    with path.open("rb") as file:
        head = file.read(26)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        chunks = _png(path)
        if head[24:25] == b"\x10":
            return _deep_png(path, chunks, size)
    elif head[:2] == b"\xff\xd8":
        _check_scans(path)
    # Pillow reads as many bytes as a chunk claims to have; of a mapped file there are no more than it holds.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            # Whatever a file is called: Pillow would hand some of the types that it knows to other programs.
            opened = Pillow.open(content, formats=("PNG", "JPEG"))  # type: ignore[arg-type]
        except UnidentifiedImageError:
            raise RfbenchError(f"{path} cannot be read: it is no PNG or JPEG file; replace the file") from None
        with opened as picture:
            limits.check_size(path, "u1", picture.height, picture.width, len(picture.getbands()))
            turn = _turn(picture)
            as_shown = (picture.width, picture.height) if turn > 4 else (picture.height, picture.width)
            limits.check_wanted(path, as_shown, size)
            if picture.mode in ("P", "CMYK", "YCbCr", "1"):
                picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")  # type: ignore[assignment]
            elif picture.mode in ("L", "RGB") and "transparency" in picture.info:  # one colour of it is transparent
                picture = picture.convert("LA" if picture.mode == "L" else "RGBA")  # type: ignore[assignment]
            values = np.asarray(picture)
    return _held(path, values[:, :, None] if values.ndim == 2 else values, turn)


def _held(path: Path, stored: np.ndarray, turn: int, mask: Mask | None = None) -> Held:
    """A picture as viewers show it: ``turn`` is its EXIF orientation, 1 to 8. A mask beside it is turned with it."""
    if mask is None and path.with_name(path.name + ".msk").is_file():
        mask = source.mask_beside(path, (stored.shape[0], stored.shape[1]))
    values = stored if turn == 1 else tiffs.turned(stored, turn)
    mask = mask if mask is None or turn == 1 else tiffs.turned(mask, turn)
    notes = () if turn == 1 else (f"it was turned as its orientation (EXIF: {turn}) says",)
    n = values.shape[2]
    beside = sidecars.notes(path)
    header = plain_header(path, values, is_picture=n >= 3, notes=notes)
    header = Header(
        **(vars(header) | {
            "alpha": tuple(n in (2, 4) and i == n - 1 for i in range(n)),
            "nodata": tuple(beside.nodata.get(i + 1) for i in range(n)),
            "scales": tuple(beside.scales.get(i + 1, 1.0) for i in range(n)),
            "offsets": tuple(beside.offsets.get(i + 1, 0.0) for i in range(n)),
        })
    )  # fmt: skip
    return Held(header, values, mask)


def _deep_png(path: Path, chunks: _Png, size: tuple[int, int] | None) -> Held:
    """A PNG of 16 bits, of which Pillow keeps only the upper 8 where it has several channels."""
    with Raster(path, str(path), "PNG") as raster:
        header = raster.header
        limits.check_size(path, header.dtype, *header.size, header.count)
        limits.check_wanted(path, header.size[::-1] if chunks.turn > 4 else header.size, size)
        values: Any = raster.stored(range(header.count))
    mask = None
    if chunks.transparent is not None and values.shape[2] == len(chunks.transparent):
        mask = ~(values == np.array(chunks.transparent, values.dtype)).all(axis=2)
    return _held(path, values, chunks.turn, mask)


def _turn(source: Any) -> int:
    """The orientation, 1 to 8, by the EXIF of a picture or by its bytes; 1 where it has none, or no such number."""
    from PIL import Image as Pillow

    found = 1
    with contextlib.suppress(Exception):  # damaged notes on a picture are no fault of the picture
        if isinstance(source, bytes):
            exif = Pillow.Exif()
            exif.load(source)
        else:
            exif = source.getexif()
        found = exif.get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


@dataclass(frozen=True)
class _Png:
    """The one colour that a tRNS chunk calls transparent, None without; and the orientation of its EXIF."""

    transparent: tuple[int, ...] | None
    turn: int


def _png(path: Path) -> _Png:
    """Look over the chunks of a PNG. RfbenchError for pixels that unpack to far more than the image holds."""
    transparent, packed, raw, turn = None, 0, 0, 1
    with path.open("rb") as file:
        file.seek(8)
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                break
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IHDR":
                fields = file.read(min(length, 13))
                if len(fields) == 13:
                    width, height, bits, colour = struct.unpack(">IIBB", fields[:10])
                    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
                    raw = height * (1 + -(-width * bits * channels // 8))
                length -= len(fields)
            elif kind == b"tRNS" and length in (2, 6):
                texts = file.read(length)
                transparent = struct.unpack(f">{len(texts) // 2}H", texts)
                length = 0
            elif kind == b"eXIf" and length <= _LONGEST_EXIF:
                turn, length = _turn(file.read(length)), 0
            elif kind == b"IDAT":
                packed += length
                if packed > 2 * raw + 2**16:
                    raise RfbenchError(
                        f"{path}: holds {packed} bytes of packed pixels for {raw} bytes of image; replace the file"
                    )
            elif kind == b"IEND":
                break
            file.seek(length + 4, 1)
        else:
            raise RfbenchError(f"{path}: has more than {_MOST_CHUNKS} chunks; write it again")
    return _Png(transparent, turn)


def _check_scans(path: Path) -> None:
    """RfbenchError for a JPEG of more scans than any program writes; each is decoded over the whole image."""
    if path.stat().st_size > 8 * limits.MAX_SAMPLES:
        raise RfbenchError(f"{path}: has {path.stat().st_size} bytes, more than an image may hold; replace the file")
    # Inside the coded data a marker's first byte is always followed by a zero, so these two bytes begin a scan (or
    # stand in a thumbnail of the header, which has few).
    if path.read_bytes().count(b"\xff\xda") > _MOST_SCANS:
        raise RfbenchError(f"{path}: has more than {_MOST_SCANS} scans, expected about ten; write it again")
