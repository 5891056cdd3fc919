"""Image files of every reader, small and valid, and damage that knows their headers."""

from __future__ import annotations

import functools
import io
import pickle
import random
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from tests.fuzz.mutate import damaged

EXTREME = (0, 1, 2, 3, 7, 255, 4096, 8191, 8192, 8193, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
# Sides of an image of one band with just as many samples as an image may have: as much memory as one can cost.
LARGEST_PX, LARGEST_8_BYTE_PX = 5792, 4096


@functools.cache
def seeds() -> dict[str, tuple[bytes, ...]]:
    """Valid files by their ending; all are of a few hundred pixels."""
    return {
        ".tif": (
            *(
                _tiff(np.dtype(t), bands, **extra)
                for t, bands, extra in (
                    ("u1", 3, {}),
                    ("u2", 4, {"compress": "deflate", "predictor": 2}),
                    ("f4", 3, {"nodata": -9999.0}),
                    ("f8", 1, {}),
                    ("u2", 12, {"tiled": True, "blockxsize": 16, "blockysize": 16}),
                    ("i2", 3, {"compress": "lzw"}),
                    ("u1", 4, {"photometric": "RGB", "compress": "packbits"}),
                    ("c8", 1, {}),
                    ("i8", 1, {}),
                    ("u1", 3, {"compress": "jpeg", "photometric": "YCBCR"}),
                    ("u2", 3, {"BIGTIFF": "YES"}),
                    ("u2", 3, {"compress": "zstd"}),
                    ("u1", 1, {"NBITS": 1}),
                )
            ),
        ),
        ".jp2": (_jp2("u2", 4), _jp2("u1", 3)),
        ".png": tuple(_png(mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "deep")),
        ".jpg": tuple(
            _pillow(mode, "JPEG", progressive=p) for mode, p in (("RGB", False), ("L", False), ("CMYK", True))
        ),
        ".npy": (
            *tuple(_npy(_values(t, 3)) for t in ("u1", "u2", "f4", "f8", "i8", "c16", "U4", "f2", ">u2")),
            _npy(_values("f4", 3)[:, :, 0]),
            _npy(np.zeros((2, 3, 4, 5))),
            _npy(np.float32(1)),
            _npy(np.zeros((0, 0, 3))),
        ),
        ".npz": (
            _npz(image=_values("u2", 3)),
            _npz(data=_values("f4", 4), bands=np.array(["B02", "B03", "B04", "B08"])),
            _npz(x=_values("f8", 3)),
            _npz(bands=np.array(["R"])),
            _npz(image=_values("u1", 3), bands=np.array(3)),
        ),
    }


@functools.cache
def series_seeds() -> tuple[bytes, ...]:
    """Time series: data (T, C, H, W), dates, bands."""
    rng = np.random.default_rng(1)
    dates, bands = np.array(["2021-08-01", "2021-08-11"]), np.array(["B02", "B03", "B04", "B08"])
    stack = rng.integers(0, 3000, (2, 4, 15, 20)).astype(np.uint16)
    return _npz(data=stack, dates=dates, bands=bands), _npz(
        data=stack.astype(np.float32) / 1e4, dates=dates, bands=bands
    )


def image(rng: random.Random, ending: str | None = None, share: float = 0.85) -> tuple[str, bytes]:
    """An image file, damaged with the probability ``share``: its ending and its bytes."""
    ending = ending or rng.choice((".tif", ".tif", ".png", ".jpg", ".npy", ".npz"))
    files = seeds()[ending]
    data = rng.choice(files)
    if rng.random() < 0.004:
        return ending, largest(rng, ending)
    if rng.random() >= share:
        return ending, data
    if rng.random() < 0.5:
        data = _STRUCTURED[ending](rng, data)
    if rng.random() < 0.6:
        data = damaged(rng, data, files)
    if rng.random() < 0.03:
        ending = rng.choice((".tif", ".TIF", ".png", ".jpeg", ".npy", ".NPY", ".npz", ".gif", "", ".tif.png"))
    return ending, data


def series(rng: random.Random) -> bytes:
    """A damaged time series."""
    data = rng.choice(series_seeds())
    if rng.random() < 0.5:
        data = _npz_claims(rng, data)
    return damaged(rng, data, series_seeds()) if rng.random() < 0.6 else data


def largest(rng: random.Random, ending: str) -> bytes:
    """A small file that unpacks to about the largest image that is read, or to a little more."""
    kind = rng.choice(("u1", "u2", "f4", "f8", "i8", "c8"))
    side = (LARGEST_8_BYTE_PX if kind[1] == "8" and ending == ".tif" else LARGEST_PX) + rng.choice((0, 0, 1))
    if ending == ".tif":
        return _sparse_tiff(side, side, kind)
    if ending == ".png":
        return _flat_png(side, side // 4, 2, rng.choice((8, 16)))
    if ending == ".jpg":
        return _sof(rng.choice(seeds()[".jpg"]), side, side // 4)
    return _claimed_npy((side, side), rng.choice(("<f8", "<u2", "<c16"))) if ending == ".npy" else _npz_of(side, side)


# --- valid files ------------------------------------------------------------------------------------------------


def _values(kind: str, bands: int, height: int = 15, width: int = 20) -> np.ndarray:
    noise = np.random.default_rng(bands).random((height, width, bands))
    dtype = np.dtype(kind)
    if dtype.kind in "ui":
        return (noise * min(np.iinfo(dtype).max, 3000)).astype(dtype)
    return noise.astype(dtype)


def _tiff(dtype: np.dtype[Any], bands: int, **extra: Any) -> bytes:
    import rasterio
    from rasterio.transform import from_origin

    values = _values("f4", bands, 32, 32).astype(dtype) if dtype.kind == "c" else _values(dtype.str, bands, 32, 32)
    if "NBITS" in extra:
        values = values % 2
    with rasterio.io.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=32,
            width=32,
            count=bands,
            dtype=dtype.name,
            crs="EPSG:32632",
            transform=from_origin(500_000, 5_000_000, 10, 10),
            **extra,
        ) as file:
            file.write(np.moveaxis(values, 2, 0))
            if bands in (4, 12):
                for i in range(bands):
                    file.set_band_description(i + 1, f"B{i + 1:02}")
        return bytes(memory.getbuffer())


def _sparse_tiff(height: int, width: int, kind: str) -> bytes:
    import rasterio

    with rasterio.io.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=height,
            width=width,
            count=1,
            dtype=np.dtype(kind).name,
            SPARSE_OK=True,
            tiled=True,
            blockxsize=2048,
            blockysize=2048,
            compress="deflate",
        ):
            pass
        return bytes(memory.getbuffer())


def _pillow(mode: str, form: str, **extra: Any) -> bytes:
    from PIL import Image

    picture = Image.fromarray(_values("u1", 3) % 255).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, form, **extra)
    return buffer.getvalue()


def _jp2(dtype: str, bands: int) -> bytes:
    import rasterio

    values = np.moveaxis(_values(dtype, bands), 2, 0)
    with rasterio.io.MemoryFile(ext=".jp2") as memory:
        profile = {"driver": "JP2OpenJPEG", "height": values.shape[1], "width": values.shape[2], "count": bands}
        with memory.open(dtype=dtype, QUALITY=100, REVERSIBLE="YES", **profile) as file:
            file.write(values)
        return bytes(memory.getbuffer())


def _png(mode: str) -> bytes:
    if mode == "deep":
        rows = b"".join(b"\0" + row.tobytes() for row in _values(">u2", 3))
        return _png_of(15, 20, 2, 16, rows)
    if mode == "I;16":
        rows = b"".join(b"\0" + row.tobytes() for row in _values(">u2", 1))
        return _png_of(15, 20, 0, 16, rows)
    return _pillow(mode, "PNG")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_of(height: int, width: int, colour: int, depth: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(rows, 1)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _flat_png(height: int, width: int, colour: int, depth: int) -> bytes:
    return _png_of(height, width, colour, depth, bytes(height * (1 + width * 3 * depth // 8)))


def _npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@functools.cache
def _npz_of(height: int, width: int) -> bytes:
    return _npz(image=np.zeros((height, width), np.uint16))


# --- damage by structure ----------------------------------------------------------------------------------------


def _tiff_tags(rng: random.Random, data: bytes) -> bytes:
    """A TIFF with some entries of its first directory changed: sizes, bits, offsets, types, counts, tags."""
    made = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    big = len(data) > 8 and struct.unpack_from(f"{order}H", data, 2)[0] == 43
    start = struct.unpack_from(f"{order}Q", data, 8)[0] if big else struct.unpack_from(f"{order}I", data, 4)[0]
    entry, head = (20, 8) if big else (12, 2)
    if start + head > len(data):
        return data
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)[0]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = start + head + entry * rng.randrange(max(1, count))
        if at + entry > len(made):
            continue
        value = rng.choice((*EXTREME, rng.randrange(65536)))
        match rng.randrange(6):
            case 0:
                struct.pack_into(
                    f"{order}H",
                    made,
                    at,
                    rng.choice(
                        (
                            256,
                            257,
                            258,
                            259,
                            262,
                            273,
                            277,
                            278,
                            279,
                            317,
                            322,
                            323,
                            330,
                            338,
                            339,
                            347,
                            33550,
                            34264,
                            34735,
                            42112,
                            42113,
                            rng.randrange(65536),
                        )
                    ),
                )
            case 1:
                struct.pack_into(f"{order}H", made, at + 2, rng.randrange(20))
            case 2:
                struct.pack_into(f"{order}I", made, at + 4, value % 2**32)
            case _:
                struct.pack_into(f"{order}I", made, at + entry - (8 if big else 4), value % 2**32)
    return bytes(made)


def _png_head(rng: random.Random, data: bytes) -> bytes:
    """A PNG with another size, depth, colour type or interlacing in its header, its checksum right."""
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    match rng.randrange(5):
        case 0:
            width = rng.choice(EXTREME)
        case 1:
            height = rng.choice(EXTREME)
        case 2:
            depth = rng.choice((1, 2, 4, 8, 16, 32, 0))
        case 3:
            colour = rng.randrange(8)
        case _:
            interlace = rng.randrange(3)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, compression, filtering, interlace)
    extra = rng.choice(
        (
            b"",
            b"",
            _chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(5_000_000))),
            _chunk(b"iCCP", b"x\0\0bad"),
            _chunk(b"acTL", struct.pack(">II", 2**31, 0)),
            _chunk(b"tRNS", bytes(6)),
        )
    )
    return data[:8] + _chunk(b"IHDR", head) + extra + data[33:]


def _sof(data: bytes, height: int, width: int) -> bytes:
    at = next((data.find(m) for m in (b"\xff\xc0", b"\xff\xc2") if m in data), -1)
    made = bytearray(data)
    if at >= 0:
        struct.pack_into(">HH", made, at + 5, height % 65536, width % 65536)
    return bytes(made)


def _jpeg_head(rng: random.Random, data: bytes) -> bytes:
    return _sof(data, rng.choice(EXTREME), rng.choice(EXTREME))


def _claimed_npy(shape: Any, descr: Any, rest: bytes = b"", version: int = 1) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode("latin1", "replace")
    size = struct.pack("<H", len(text) + 1) if version == 1 else struct.pack("<I", len(text) + 1)
    return b"\x93NUMPY" + bytes((version, 0)) + size + text + b"\n" + rest


def _claim(rng: random.Random) -> bytes:
    """A npy file whose header claims some size and type, with few bytes behind it."""
    side = rng.choice(EXTREME)
    shape = rng.choice(
        (
            (side, side),
            (side, side, 3),
            (side,),
            (),
            (3, side, side),
            (-1, 4),
            (10**12,),
            (2**62, 2**62, 2**62),
            (15, 20, 3),
            (0, 5, 3),
            (1,) * 40,
            (15.5, 2),
            "text",
        )
    )
    descr = rng.choice(
        (
            "<f8",
            "|u1",
            "<c16",
            "|O",
            "|V1000000000",
            "<U100000000",
            ">f4",
            "<M8[s]",
            "<f16",
            "|b1",
            "|S9",
            [("a", "<f8"), ("b", "|O")],
            [("x", "<f4", (10**6,))],
            "no type",
        )
    )
    return _claimed_npy(shape, descr, rng.randbytes(rng.choice((0, 100, 4000))), rng.choice((1, 1, 2, 3, 9)))


def _npy_claims(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.05:
        return pickle.dumps(_values("u1", 3), protocol=4)
    return _claim(rng)


def _npz_claims(rng: random.Random, data: bytes) -> bytes:
    """An npz with one member replaced, doubled or renamed; sizes in its directory may lie."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {n: archive.read(n) for n in archive.namelist()}
    except (zipfile.BadZipFile, OSError, zlib.error, ValueError):
        return data
    name = rng.choice(list(members))
    match rng.randrange(5):
        case 0:
            del members[name]
        case 1:
            members[rng.choice(("image.npy", "data.npy", "bands.npy", "dates.npy", "../x.npy", "x"))] = members[name]
        case _:
            members[name] = rng.choice(
                (
                    _claim(rng),
                    _npy(np.array(["a", "b"])),
                    _npy(np.array(["x\ny", "\x00"])),
                    _npy(np.zeros((2, 4, 15, 20))),
                    rng.randbytes(50),
                    bytes(3_000_000),
                )
            )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))) as archive:
        for key, content in members.items():
            archive.writestr(zipfile.ZipInfo(key), content, archive.compression)
    made = bytearray(buffer.getvalue())
    if rng.random() < 0.2 and (at := made.find(b"PK\x01\x02")) >= 0:
        struct.pack_into("<I", made, at + rng.choice((20, 24)), rng.choice(EXTREME))
    return bytes(made)


_STRUCTURED = {".tif": _tiff_tags, ".png": _png_head, ".jpg": _jpeg_head, ".npy": _npy_claims, ".npz": _npz_claims}


def flat_png(height: int, width: int, value: int) -> bytes:
    """An 8-bit RGB picture of one grey value."""
    return _png_of(height, width, 2, 8, (b"\0" + bytes((value,)) * (3 * width)) * height)


def _npz_with(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, archive.compression)
    return buffer.getvalue()
