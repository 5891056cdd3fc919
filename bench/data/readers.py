"""Read image files: GeoTIFF of any band count and depth, PNG, JPEG, npy and npz. Values stay as they are stored.

Every file is treated as hostile: sizes are checked before pixels are read, arrays are loaded without pickle, and
whatever a library raises becomes one line.
"""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Mask

# More in one image is refused before it is read, of numbers of 8 bytes half as many: 3344 x 3344 px of three bands are
# seven times the largest image of a public set that is imported. That much is read and checked below 2 GB.
MAX_SAMPLES = 2**25
_MAX_BANDS = 1024  # imaging spectrometers have some hundreds
_LONGEST_TEXTS = 2**20  # bytes of band names or dates in a file
_CACHE_MB = 64  # GDAL would keep a twentieth of the machine's memory of what it has unpacked
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy", ".npz")


Part = tuple[slice, slice]  # rows and columns


class WrongSize(RfbenchError):
    """An image of another size than the one that was asked for; its message names both as height x width."""


@dataclass(frozen=True)
class Raster:
    """A file's content: values (H, W, C) of its own dtype, band names where it has them, and what is valid.

    ``levels`` is the number of the brightest value that the file's type can show (255 or 65535 for pictures).
    """

    values: np.ndarray
    bands: tuple[str, ...] | None
    valid: Mask


def read(
    path: Path,
    *,
    nodata: float | None = None,
    bands: int | None = None,
    size: tuple[int, int] | None = None,
    part: Part | None = None,
) -> Raster:
    """Read one image file, or a part of it.

    Parameters
    ----------
    nodata : value of pixels without data that the file itself does not declare.
    bands : the expected number of bands, which tells (C, H, W) from (H, W, C) in npy and npz files.
    size : the (height, width) that the image must have; in most types another is found before pixels are unpacked.
    part : the rows and columns to read, inside a GeoTIFF that may be larger than an image may be.

    Raises
    ------
    RfbenchError
        If the file is missing, of an unknown type, corrupt, empty or too large.
    WrongSize
        If the image has another size than ``size``.
    """
    if part is not None and path.suffix.lower() not in (".tif", ".tiff"):
        raise RfbenchError(f"{path}: parts are read of GeoTIFFs alone")
    readers: dict[str, Callable[[Path, int | None, tuple[int, int] | None], Raster]] = {
        ".tif": _tiff, ".tiff": _tiff, ".png": _picture, ".jpg": _picture, ".jpeg": _picture,
        ".npy": _array, ".npz": _array,
    }  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise RfbenchError(f"{path}: file type '{one_line(path.suffix, 20)}' is not read; use {' '.join(SUFFIXES)}")
    if not path.is_file():
        raise RfbenchError(f"{path} is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing georeference and the like: no matter of pixels
            raster = reader(path, bands, size) if part is None else _tiff(path, bands, size, part)
    except RfbenchError:
        raise
    except Exception as error:  # whatever a decoder meets in a broken file
        if _is_pointer(path):
            raise RfbenchError(f"{path} is a Git LFS pointer and not the image; 'git lfs pull' gets it") from None
        raise RfbenchError(
            f"{path} cannot be read ({type(error).__name__}: {one_line(error, 120)}); replace the file"
        ) from error
    if raster.values.dtype.kind not in "uif" or raster.values.size == 0:
        raise RfbenchError(f"{path}: expected numbers in (H, W, C), found {raster.values.dtype} {raster.values.shape}")
    valid = raster.valid
    if raster.values.dtype.kind == "f":
        valid = valid & np.isfinite(raster.values).all(axis=2)
    if nodata is not None:
        # A pixel is without data only where every band says so: single zeros in one band are dark water.
        valid = valid & ~(raster.values == nodata).all(axis=2)
    return Raster(raster.values, raster.bands, valid)


def _is_pointer(path: Path) -> bool:
    """Whether a file is what git leaves where it has not got a large file itself."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(24) == b"version https://git-lfs."
    return False


def _check_size(path: Path, dtype: str | np.dtype[Any], *shape: int) -> None:
    """Refuse what is no number, and too many of them, before anything is read."""
    found = np.dtype(dtype)
    if found.kind not in "uif" or found.itemsize > 8:
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


# A mask or a band name in a file beside the image (x.tif.msk, x.tif.aux.xml) is none of the bytes that a fingerprint
# vouches for, so GDAL may not look for one.
_SEALED = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO", "GDAL_CACHEMAX": _CACHE_MB}


def _check_wanted(path: Path, found: tuple[int, int], wanted: tuple[int, int] | None) -> None:
    if wanted is not None and found != wanted:
        raise WrongSize(f"{path}: found {found[0]}x{found[1]} px, expected {wanted[0]}x{wanted[1]} px")


def _tiff(path: Path, bands: int | None, size: tuple[int, int] | None, part: Part | None = None) -> Raster:
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.windows import Window

    with rasterio.Env(**_SEALED), rasterio.open(path, driver="GTiff") as file:
        if file.count > _MAX_BANDS:  # GDAL takes minutes over the bands of a small file
            raise RfbenchError(f"{path}: its header claims {file.count} bands, expected at most {_MAX_BANDS}; cut it")
        height, width, window = file.height, file.width, None
        if part is not None:
            window = Window.from_slices(*part, height=height, width=width)
            height, width = int(window.height), int(window.width)
        for dtype in set(file.dtypes):
            _check_size(path, dtype, height, width, file.count)
        _check_wanted(path, (height, width), size)
        values = np.moveaxis(file.read(window=window), 0, 2)
        names = tuple(d or "" for d in file.descriptions)
        valid = file.dataset_mask(window=window) > 0
        alpha = [i for i, kind in enumerate(file.colorinterp) if kind is ColorInterp.alpha]
    if alpha:
        # GDAL calls the fourth band of any 8-bit file alpha unless it was told otherwise. A NIR band says nothing about
        # what is valid: with its zeros over water, whole lakes would have no data.
        i = alpha[0]
        if (names[i] and "alpha" not in names[i].lower()) or (not names[i] and bands != values.shape[2] - 1):
            valid = np.ones(values.shape[:2], bool)
        else:
            values, names = np.delete(values, i, axis=2), (*names[:i], *names[i + 1 :])
    return Raster(values, names if all(names) else None, valid)


def _picture(path: Path, bands: int | None, size: tuple[int, int] | None) -> Raster:
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    with path.open("rb") as file:
        head = file.read(26)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:25] == b"\x10" and head[25:26] != b"\0":
        return _deep_png(path, size)

    # Pillow reads as many bytes as a chunk claims to have; of a mapped file there are no more than it holds.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            # Whatever a file is called: Pillow would hand some of the types that it knows to other programs.
            opened = Pillow.open(content, formats=("PNG", "JPEG"))  # type: ignore[arg-type]
        except UnidentifiedImageError:
            raise RfbenchError(f"{path} cannot be read: it is no PNG or JPEG file; replace the file") from None
        with opened as picture:
            _check_size(path, "u1", picture.height, picture.width, len(picture.getbands()))
            _check_wanted(path, (picture.height, picture.width), size)
            if picture.mode in ("P", "CMYK", "YCbCr", "1"):
                picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")  # type: ignore[assignment]
            values = np.asarray(picture)
    values = values[:, :, None] if values.ndim == 2 else values
    valid = np.ones(values.shape[:2], bool)
    if values.shape[2] in (2, 4):  # an alpha channel says where there is a picture
        valid, values = values[:, :, -1] > 0, values[:, :, :-1]
    return Raster(values, None, valid)


def _deep_png(path: Path, size: tuple[int, int] | None) -> Raster:
    """A PNG of 16 bits and several channels, of which Pillow keeps only the upper 8."""
    import rasterio

    with rasterio.Env(**_SEALED), rasterio.open(path, driver="PNG") as file:
        _check_size(path, file.dtypes[0], file.height, file.width, file.count)
        _check_wanted(path, (file.height, file.width), size)
        values = np.moveaxis(file.read(), 0, 2)
    if values.shape[2] in (2, 4):
        return Raster(values[:, :, :-1], None, values[:, :, -1] > 0)
    return Raster(values, None, np.ones(values.shape[:2], bool))


def _check_archive(path: Path, archive: np.lib.npyio.NpzFile) -> None:
    """Refuse an npz whose members would unpack to more than an image may hold."""
    assert archive.zip is not None
    largest = max((info.file_size for info in archive.zip.infolist()), default=0)
    if largest > 4 * MAX_SAMPLES:
        raise RfbenchError(f"{path}: holds an array of {largest} bytes, expected at most {4 * MAX_SAMPLES}; cut it")


_Claim = tuple[tuple[int, ...], np.dtype[Any]]


def _claimed(head: IO[bytes]) -> _Claim:
    """The shape and the type that the header of a npy file claims."""
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    return shape, dtype


def _head(file: IO[bytes]) -> IO[bytes]:
    """The first bytes, since a header may claim to be 4 GB long itself."""
    return io.BytesIO(file.read(2**16))


def _claimed_inside(archive: np.lib.npyio.NpzFile, key: str) -> _Claim:
    """The same of an npz's array, without unpacking it."""
    assert archive.zip is not None
    member = key if key in archive.zip.namelist() else f"{key}.npy"
    with archive.zip.open(member) as file:
        return _claimed(_head(file))


def _texts(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> tuple[str, ...] | None:
    """An npz's array of names or dates; None where it holds something else."""
    shape, dtype = _claimed_inside(archive, key)
    if dtype.kind not in "UM" or math.prod(shape) * dtype.itemsize > _LONGEST_TEXTS:
        return None
    return tuple(map(str, np.atleast_1d(archive[key])))


def _check_claim(path: Path, claim: _Claim) -> None:
    shape, dtype = claim
    _check_size(path, dtype, *shape)


def _array(path: Path, bands: int | None, size: tuple[int, int] | None) -> Raster:
    names: tuple[str, ...] | None = None
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
        file.seek(0)
        if not is_archive:
            head = _head(file)
            shape, dtype = claim = _claimed(head)
            _check_claim(path, claim)
            claimed, held = math.prod(shape) * dtype.itemsize, path.stat().st_size - head.tell()
            if held < claimed:
                raise RfbenchError(f"{path}: holds {held} bytes of values, expected {claimed}; it is cut, get it again")
    if is_archive:
        with np.load(path, allow_pickle=False) as loaded:
            _check_archive(path, loaded)
            key = next((k for k in ("image", "data", *loaded.files) if k in loaded.files), None)
            if key is None:
                raise RfbenchError(f"{path} holds no array; store one named 'image'")
            shape, _ = claim = _claimed_inside(loaded, key)
            _check_claim(path, claim)
            if shape and size not in (shape[:2], shape[1:3]):  # (H, W, C) or (C, H, W)
                _check_wanted(path, (shape[0], shape[1] if len(shape) > 1 else 1), size)
            values = loaded[key]
            names = _texts(path, loaded, "bands") if "bands" in loaded.files else None
    else:
        values = np.load(path, allow_pickle=False)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3:
        raise RfbenchError(f"{path}: expected an array (H, W), (H, W, C) or (C, H, W), found {values.shape}")
    expected = len(names) if names else bands
    if values.shape[2] != expected and values.shape[0] == expected:
        values = np.moveaxis(values, 0, 2)
    _check_wanted(path, (values.shape[0], values.shape[1]), size)
    return Raster(values, names, np.ones(values.shape[:2], bool))


@dataclass(frozen=True)
class Georeference:
    """Where a file's pixels lie. ``bounds`` is (left, bottom, right, top) in ``crs``, or on a grid of its own without.

    ``pixel_m`` is (height, width) of a pixel in metres, None where the file's unit is unknown; ``size`` is (height,
    width) in pixels.
    """

    crs: str | None
    bounds: tuple[float, float, float, float]
    pixel_m: tuple[float, float] | None
    size: tuple[int, int]


def georeference(path: Path) -> Georeference | None:
    """The georeference of a GeoTIFF; None for other files, for files without one, and for rotated grids."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    import rasterio

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.Env(**_SEALED), rasterio.open(path, driver="GTiff") as file:
                crs, grid, bounds = file.crs, file.transform, tuple(map(float, file.bounds))
                size = (file.height, file.width)
            if grid.is_identity or not np.isfinite(bounds).all() or grid.b or grid.d or not grid.a or not grid.e:
                return None
            metres = (abs(grid.e), abs(grid.a))
            if crs is not None and crs.is_geographic:
                latitude = np.deg2rad((bounds[1] + bounds[3]) / 2)
                metres = (metres[0] * 110_574.0, metres[1] * 111_320.0 * float(np.cos(latitude)))
            elif crs is not None:
                to_metres = float(crs.linear_units_factor[1])
                metres = (metres[0] * to_metres, metres[1] * to_metres)
            return Georeference(crs.to_string() if crs is not None else None, bounds, metres, size)  # type: ignore[arg-type]
    except Exception as error:  # whatever GDAL and PROJ meet in a broken header
        raise RfbenchError(
            f"{path}: its georeference cannot be read ({type(error).__name__}: {one_line(error, 100)}); write it again"
        ) from error


@dataclass(frozen=True)
class Series:
    """A time series of the LR sensor: values (T, H, W, C) as stored, band names and ISO dates."""

    values: np.ndarray
    bands: tuple[str, ...]
    dates: tuple[str, ...]


def read_series(path: Path) -> Series:
    """Read an npz with ``data`` (T, C, H, W), ``dates`` (T) and ``bands`` (C), without pickle."""
    if not path.is_file():
        raise RfbenchError(f"{path} is missing")
    try:
        with np.load(path, allow_pickle=False) as file:
            _check_archive(path, file)
            _check_claim(path, _claimed_inside(file, "data"))
            dates, names = (_texts(path, file, key) for key in ("dates", "bands"))
            if dates is None or names is None:
                raise RfbenchError(f"{path}: expected dates and bands as texts beside data (T, C, H, W)")
            data = file["data"]
    except RfbenchError:
        raise
    except Exception as error:  # whatever zip and numpy meet in a broken file
        raise RfbenchError(
            f"{path} cannot be read as a series ({type(error).__name__}: {one_line(error, 100)}); expected an npz with "
            "data (T, C, H, W), dates and bands"
        ) from error
    if data.ndim != 4 or len(dates) != data.shape[0] or len(names) != data.shape[1] or data.dtype.kind not in "uif":
        raise RfbenchError(
            f"{path}: expected data (T, C, H, W) with T dates and C bands, found {data.dtype} {data.shape}, "
            f"{len(dates)} dates, {len(names)} bands"
        )
    return Series(np.moveaxis(data, 1, 3), names, dates)
