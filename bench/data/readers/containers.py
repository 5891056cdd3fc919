"""Files that hold images by name: parts of netCDF and HDF, members of zips, rasters of two files; and how to get from
product folders to an image."""

from __future__ import annotations

import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Mask
from bench.data.readers import SUFFIXES, Georeference, Part, check_suffix, limits, open_source, source
from bench.data.readers.source import Source

_PARTED = (".nc", ".nc4", ".h5", ".hdf5", ".he5")
_WITH_HEADER = (".img", ".dat", ".bil", ".bsq", ".bip", ".raw")
_LARGEST_MEMBER = 2**30
_VSIZIP = "/vsizip/"


def open_any(path: Path) -> Source:
    """Open what a dataset holds (``readers.SUFFIXES``), a VRT, or a part of a container by its name.

    ``NETCDF:x.nc:Band1``, ``HDF5:x.h5://band``; ``x.zip`` with one image, ``x.zip/a.tif`` or ``/vsizip/x.zip/a.tif``;
    ENVI files with a header beside them. RfbenchError, with the way to an image that is read, for everything else.
    """
    text, suffix = str(path), path.suffix.lower()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing georeference is told by who needs one
        if text.partition(":")[0].lower() in ("netcdf", "hdf5") and not path.exists():
            return source.open_named(text)
        archive = _archive_in(text)
        if archive is not None:
            return _unpacked(*archive)
        if path.is_dir():
            raise way_from(path)
        if not path.exists():
            raise RfbenchError(f"{path} is missing")
        if path.name.upper().startswith("MTD_") and suffix == ".xml":
            raise way_from(path.parent)
        if suffix in _PARTED:
            return source.open_apart(path, text, source.DRIVERS[suffix])
        if suffix in _WITH_HEADER and _is_envi(path):
            return source.open_apart(path, text, "ENVI")
        if suffix != ".vrt":
            check_suffix(path)
        return open_source(path)


def names_a_file(path: Path) -> bool:
    """Whether ``open_any`` would find something: a file, a product folder, a part of a container."""
    text = str(path)
    return path.exists() or _archive_in(text) is not None or text.partition(":")[0].lower() in ("netcdf", "hdf5")


def way_from(path: Path) -> RfbenchError:
    """The way from a product folder to an image."""
    if path.suffix.upper() == ".SAFE":
        return RfbenchError(
            f"{path} is a Sentinel-2 product and no image; stack its 10 m bands ('gdalbuildvrt -separate s2.vrt "
            "GRANULE/*/IMG_DATA/R10m/*_B0[2348]_10m.jp2' in it, where L1C has no R10m) and give s2.vrt with --bands "
            "'B G R NIR' (--offset -1000 from 2022-01-25 on)"
        )
    return RfbenchError(f"{path} is no file, expected an image; name one of its files")


def _is_envi(path: Path) -> bool:
    """Whether an ENVI header of a sane length lies beside a file of raw numbers."""
    for header in (path.with_suffix(".hdr"), path.with_name(path.name + ".hdr")):
        if header.is_file() and header.stat().st_size <= limits.LONGEST_TEXTS:
            with header.open("rb") as file:
                return file.read(4) == b"ENVI"
    return False


def _archive_in(text: str) -> tuple[Path, str] | None:
    """A zip and the member (perhaps none) that a name means; None for other names."""
    plain = text.removeprefix(_VSIZIP)
    plain = f"/{plain}" if text.startswith(_VSIZIP) and not Path(plain).exists() and text[8:9] == "/" else plain
    before, ending, member = plain.partition(".zip")
    path = Path(before + ending)
    if not ending or (member and not member.startswith("/")) or not path.is_file():
        return None
    return path, member.strip("/")


class _Unpacked(Source):
    """An image of a zip, unpacked into a folder that lives as long as it is read."""

    def __init__(self, name: str, folder: tempfile.TemporaryDirectory[str], file: Path) -> None:
        self._folder = folder
        try:
            self._inner = open_source(file)
        except BaseException as error:
            folder.cleanup()
            if isinstance(error, RfbenchError):
                raise RfbenchError(str(error).replace(str(file), name)) from None
            raise
        self.header = self._inner.header

    def stored(self, bands: Sequence[int], part: Part | None = None, shape: tuple[int, int] | None = None) -> Any:
        return self._inner.stored(bands, part, shape)

    def mask(self, part: Part | None = None, shape: tuple[int, int] | None = None) -> Mask | None:
        return self._inner.mask(part, shape)

    def place(self) -> Georeference | None:
        return self._inner.place()

    def other_place(self) -> str:
        return self._inner.other_place()

    def close(self) -> None:
        self._inner.close()
        self._folder.cleanup()


def _unpacked(path: Path, member: str) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {i.filename: i for i in archive.infolist() if not i.is_dir()}
            images = [n for n in infos if PurePosixPath(n).suffix.lower() in SUFFIXES and "__MACOSX/" not in n]
            chosen = [member] if member in infos else images if not member else []
            if len(chosen) != 1:
                shown = ", ".join(one_line(n, 60) for n in images[:4]) or "none"
                raise RfbenchError(
                    f"{path}: found {len(images)} images ({shown}), expected one; name it as {path}/NAME, or unpack it"
                )
            info = infos[chosen[0]]
            suffix = PurePosixPath(chosen[0]).suffix.lower()
            if suffix not in SUFFIXES:
                raise RfbenchError(f"{path}/{one_line(member, 60)} is no image, expected {' '.join(SUFFIXES)}")
            packings = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if info.file_size > _LARGEST_MEMBER or info.compress_type not in packings or info.flag_bits & 1:
                raise RfbenchError(f"{path}: the image in it is too large, encrypted or packed oddly; unpack it")
            folder = tempfile.TemporaryDirectory(prefix="rfbench-")
            file = Path(folder.name) / f"image{suffix}"
            with archive.open(info) as packed, file.open("wb") as target:
                shutil.copyfileobj(packed, target)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise RfbenchError(f"{path} cannot be read ({one_line(error, 80)}); replace the file") from None
    return _Unpacked(f"{path}/{chosen[0]}", folder, file)
