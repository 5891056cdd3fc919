"""The one reader of image files: what ``run``, ``score``, ``upscale``, ``validate`` and every importer see of a file.

A file is opened (``source``, ``pictures``, ``arrays``), its bands are told from its alpha channel and its holes from
its pixels here, and ``bench.data.meaning`` says what the numbers are. ``docs/files.md`` has the rules in words.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Mask
from bench.data import bands as band_names
from bench.data.readers import arrays, limits, pictures, source
from bench.data.readers.arrays import Series, read_series
from bench.data.readers.geometry import Georeference
from bench.data.readers.limits import MAX_SAMPLES, WrongSize
from bench.data.readers.source import Header, Part, Source

__all__ = [
    "MAX_SAMPLES", "SUFFIXES", "Georeference", "Header", "Layers", "Part", "Raster", "Series", "Source", "WrongSize",
    "equals", "georeference", "layers_of", "limits", "open_source", "read", "read_series", "valid_pixels",
]  # fmt: skip

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy", ".npz", ".jp2", ".j2k")
"""What a dataset may hold: files that are whole in themselves."""
_HUGE = 1e30
_GEOREFERENCED = (".tif", ".tiff", ".jp2", ".j2k")
# How to get from other containers to one of them.
_ELSEWHERE = {
    ".zip": "unpack it",
    ".nc": "name one variable to 'rfbench upscale' (NETCDF:FILE:VARIABLE), or stack them ('gdalbuildvrt -separate "
    "s.vrt NETCDF:FILE:A NETCDF:FILE:B; gdal_translate s.vrt OUT.tif')",
    ".vrt": "make a GeoTIFF of it ('gdal_translate IN.vrt OUT.tif')",
}
_ELSEWHERE |= dict.fromkeys((".h5", ".hdf5", ".he5", ".nc4"), _ELSEWHERE[".nc"])
_ELSEWHERE[".hdf"] = "make a GeoTIFF of its bands ('gdalinfo IN.hdf' names them, 'gdal_translate NAME OUT.tif')"
_ELSEWHERE |= dict.fromkeys(
    (".img", ".dat", ".bil", ".bsq", ".bip", ".ecw", ".sid", ".gif", ".bmp", ".webp", ".dt2", ".asc", ".grd", ".dim"),
    "make a GeoTIFF of it ('gdal_translate IN OUT.tif')",
)


@dataclass(frozen=True)
class Raster:
    """A file's content: values (H, W, C) of its own dtype, alpha left out, with what the file says of them.

    Attributes
    ----------
    bands : names as the file has them, None where not every band has one.
    valid : what has data, by every rule of ``docs/files.md``.
    scales, offsets : of value = stored x scale + offset by the file's own tags, one a band; None where it has none.
    empty : bands without a single pixel of data, whose pixels do not count for ``valid``.
    is_picture : R, G, B by its format.
    notes : what a reader of its numbers should know, such as a tag that was overruled.
    """

    values: np.ndarray
    bands: tuple[str, ...] | None
    valid: Mask
    scales: tuple[float, ...] | None = None
    offsets: tuple[float, ...] | None = None
    empty: tuple[int, ...] = ()
    is_picture: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layers:
    """Which stored bands are data and which one is alpha, counted from 0."""

    data: tuple[int, ...]
    alpha: int | None


def read(
    path: Path,
    *,
    nodata: float | None = None,
    bands: Sequence[str] | int | None = None,
    size: tuple[int, int] | None = None,
    part: Part | None = None,
) -> Raster:
    """Read one image file, or a part of it.

    Parameters
    ----------
    nodata : value of pixels without data; it replaces what the file itself declares.
    bands : the declared names of its bands (``ALPHA`` for what is none), or how many are expected, which tells
        (C, H, W) from (H, W, C) in npy and npz files.
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
    check_suffix(path)
    expected = bands if isinstance(bands, int) or bands is None else len(bands)
    declared = None if isinstance(bands, int) or bands is None else tuple(bands)
    with _plain_errors(path), open_source(path, bands=expected, size=size, part=part) as opened:
        if not isinstance(opened, source.Held):
            height, width = opened.header.size if part is None else source.shape_of(opened.header, part)
            limits.check_size(path, opened.header.dtype, height, width, opened.header.count)
        stored = opened.stored(range(opened.header.count), part)
        mask = opened.mask(part)
    header = opened.header
    if stored.dtype.kind not in "uif" or stored.size == 0:
        raise RfbenchError(f"{path}: expected numbers in (H, W, C), found {stored.dtype} {stored.shape}")
    layers = layers_of(header, declared, stored)
    if layers.alpha is not None:
        opaque = stored[:, :, layers.alpha] > 0
        mask = opaque if mask is None else mask & opaque
    values = stored if len(layers.data) == header.count else stored[:, :, list(layers.data)]
    fill, notes = nodata_of(header, layers.data, nodata)
    valid, empty = valid_pixels(values, fill, mask)
    notes = (*header.notes, *notes)
    names = tuple(header.names[i] for i in layers.data)
    has_tags = any(header.scales[i] != 1 or header.offsets[i] != 0 for i in layers.data)
    return Raster(
        values,
        names if all(names) else None,
        valid,
        tuple(header.scales[i] for i in layers.data) if has_tags else None,
        tuple(header.offsets[i] for i in layers.data) if has_tags else None,
        empty,
        header.is_picture,
        notes,
    )


def check_suffix(path: Path) -> None:
    """RfbenchError for a file that a dataset cannot hold, with the way to one that it can."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        how = _ELSEWHERE.get(suffix)
        way = f"{how}, or use {' '.join(SUFFIXES)}" if how else f"use {' '.join(SUFFIXES)}"
        raise RfbenchError(f"{path}: file type '{one_line(path.suffix, 20)}' is not read; {way}")
    if not path.is_file():
        raise RfbenchError(f"{path} is missing")


def open_source(
    path: Path,
    *,
    bands: int | None = None,
    size: tuple[int, int] | None = None,
    part: Part | None = None,
) -> Source:
    """Open an image file of any type that is read whole in itself, or a VRT."""
    suffix = path.suffix.lower()
    if suffix in (".png", ".jpg", ".jpeg"):
        return pictures.open_picture(path, size)
    if suffix in (".npy", ".npz"):
        return arrays.open_array(path, bands, size)
    return source.open_raster(path, size=size, part=part)


@contextlib.contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """Whatever a decoder meets in a broken file becomes one line."""
    import rasterio

    try:
        with warnings.catch_warnings(), rasterio.Env(**source.SEALED, GDAL_CACHEMAX=limits.CACHE_MB):
            warnings.simplefilter("ignore")  # missing georeference and the like: no matter of pixels
            yield
    except Exception as error:
        if _is_pointer(path):
            raise RfbenchError(f"{path} is a Git LFS pointer and not the image; 'git lfs pull' gets it") from None
        if isinstance(error, RfbenchError):
            raise
        raise RfbenchError(
            f"{path} cannot be read ({type(error).__name__}: {one_line(error, 120)}); replace the file"
        ) from error


def _is_pointer(path: Path) -> bool:
    """Whether a file is what git leaves where it has not got a large file itself."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(24) == b"version https://git-lfs."
    return False


def layers_of(header: Header, declared: Sequence[str] | None, sample: np.ndarray) -> Layers:
    """Tell data from alpha. ``sample`` has numbers of all stored bands, thinned or not.

    What is declared wins: of as many names as bands each is data unless it is called alpha; of one name less the
    channel that the file calls alpha is none. Without names, GDAL's word is not enough, since it calls the fourth band
    of any 8-bit file alpha: such a band is one if it knows only 0 and one other value, and NIR or unknown otherwise.
    """
    everything = tuple(range(header.count))
    alike = [i for i in everything if band_names.canonical(header.names[i]) == band_names.ALPHA]
    called = alike or [i for i in everything if header.alpha[i]]
    if declared is not None and len(declared) == header.count:
        alpha = [i for i in everything if declared[i] == band_names.ALPHA]
    elif declared is not None and len(declared) == header.count - 1 and called:
        alpha = called[-1:]
    elif alike:
        alpha = alike[-1:]
    else:
        alpha = [i for i in called if not header.names[i] and _is_alpha(header, i, sample)][-1:]
    if not alpha or header.count == 1:
        return Layers(everything, None)
    return Layers(tuple(i for i in everything if i != alpha[0]), alpha[0])


def _is_alpha(header: Header, band: int, sample: np.ndarray) -> bool:
    if header.is_picture or header.count != 4 or all(n for i, n in enumerate(header.names) if i != band):
        return True
    values = sample[:, :, band]
    return bool(((values == 0) | (values == values.max())).all())


def nodata_of(
    header: Header, data: Sequence[int], declared: float | None
) -> tuple[tuple[float | None, ...], tuple[str, ...]]:
    """The number without data of each band: the declared one, else the file's; and a line where the two differ."""
    own = tuple(header.nodata[i] for i in data)
    if declared is None:
        return own, ()
    other = sorted({v for v in own if v is not None and v == v and v != declared})
    notes = (
        (f"nodata {declared:g} is declared and the file's own tag says {other[0]:g}; the declared one holds",)
        if other
        else ()
    )
    return (declared,) * len(own), notes


def valid_pixels(values: np.ndarray, nodata: Sequence[float | None], mask: Mask | None) -> tuple[Mask, tuple[int, ...]]:
    """Which pixels have data, and which bands have none at all.

    A pixel has none where a mask or alpha says so, where a band is not finite, where any band holds its nodata, and for
    a nodata of 0 only where every band is 0: single zeros in one band are dark water. A band without data anywhere
    counts for no pixel: else one lost band would lose them all.
    """
    n = values.shape[2]
    holes: dict[int, Mask] = {}
    zero = np.ones(values.shape[:2], bool) if any(v == 0 for v in nodata) else None
    for i in range(n):
        band, fill = values[:, :, i], nodata[i]
        hole = ~np.isfinite(band) if values.dtype.kind == "f" else None
        if fill is not None and fill != 0 and fill == fill:
            is_fill = equals(band, fill)
            hole = is_fill if hole is None else hole | is_fill
        elif fill == 0 and zero is not None:
            zero &= band == 0
        if hole is not None and hole.any():
            holes[i] = hole
    empty = tuple(i for i, hole in holes.items() if hole.all())
    if len(empty) == n:
        empty = ()
    valid = np.ones(values.shape[:2], bool) if mask is None else mask.copy()
    for i, hole in holes.items():
        if i not in empty:
            valid &= ~hole
    if zero is not None:
        valid &= ~zero
    return valid, empty


def equals(band: np.ndarray, fill: float) -> Mask:
    """Where a band holds its fill, a number that is not 0; huge ones are often written with six digits."""
    if band.dtype.kind != "f":
        return np.asarray(band == fill)
    with np.errstate(over="ignore", invalid="ignore"):
        if abs(fill) < _HUGE:
            return np.asarray(band == band.dtype.type(fill))
        return np.asarray(np.abs(band.astype(np.float64) - fill) <= 1e-5 * abs(fill))


def georeference(path: Path) -> Georeference | None:
    """Where a file's pixels lie; None for types that cannot say, and for files that do not.

    Raises RfbenchError for a georeference that cannot be read.
    """
    if path.suffix.lower() not in _GEOREFERENCED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_source(path) as opened:
                return opened.place()
    except RfbenchError:
        raise
    except Exception as error:  # whatever GDAL and PROJ meet in a broken header
        raise RfbenchError(
            f"{path}: its georeference cannot be read ({type(error).__name__}: {one_line(error, 100)}); write it again"
        ) from error
