"""npy and npz files, read without pickle, and time series."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.data.readers import limits
from bench.data.readers.source import Held, plain_header

_Claim = tuple[tuple[int, ...], np.dtype[Any]]
_FEW_BANDS = 16  # a first axis as short as this, before two longer ones, is that of bands
_IMAGE, _NAMES = ("image", "data"), "bands"


def open_array(path: Path, bands: int | None = None, size: tuple[int, int] | None = None) -> Held:
    """An npy or npz file of (H, W), (H, W, C) or (C, H, W); ``bands`` is the expected number of them."""
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
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
            key = _image_of(path, loaded)
            shape, _ = claim = _claimed_inside(loaded, key)
            _check_claim(path, claim)
            if shape and size not in (shape[:2], shape[1:3]):  # (H, W, C) or (C, H, W)
                limits.check_wanted(path, (shape[0], shape[1] if len(shape) > 1 else 1), size)
            values = loaded[key]
            names = _texts(path, loaded, _NAMES) if _NAMES in loaded.files else None
            others = [k for k in loaded.files if k not in (key, _NAMES) and _is_image(loaded, k)]
            if others:
                shown = ", ".join(one_line(k, 40) for k in others[:4])
                notes = (f"its array '{one_line(key, 40)}' is the image; what else it holds is not read ({shown})",)
    else:
        values = np.load(path, allow_pickle=False)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3:
        raise RfbenchError(f"{path}: expected an array (H, W), (H, W, C) or (C, H, W), found {values.shape}")
    expected = len(names) if names else bands
    if values.shape[2] != expected and values.shape[0] == expected:
        values = np.moveaxis(values, 0, 2)
    elif expected is None and values.shape[0] <= _FEW_BANDS < min(values.shape[1:]):
        notes += (f"its shape {values.shape} was taken as (C, H, W)",)
        values = np.moveaxis(values, 0, 2)
    limits.check_wanted(path, (values.shape[0], values.shape[1]), size)
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if names and len(names) != values.shape[2]:
        raise RfbenchError(
            f"{path}: found {values.shape[2]} bands and {len(names)} names in its array '{_NAMES}'; correct one of them"
        )
    return Held(plain_header(path, values, names, notes=notes), values)


def _image_of(path: Path, archive: np.lib.npyio.NpzFile) -> str:
    """The name of an npz's image. RfbenchError where it holds none, or several and none is called 'image'."""
    found = [k for k in archive.files if k != _NAMES and _is_image(archive, k)]
    named = [k for k in _IMAGE if k in found]
    if named or len(found) == 1:
        return (named or found)[0]
    if not found:
        held = ", ".join(one_line(k, 40) for k in archive.files[:6])
        raise RfbenchError(f"{path} holds no array of numbers ({held or 'nothing'}); store one named 'image'")
    raise RfbenchError(
        f"{path}: holds the arrays {', '.join(one_line(k, 40) for k in found[:6])}, expected one image, or one named "
        "'image' among them; store it alone"
    )


def _is_image(archive: np.lib.npyio.NpzFile, key: str) -> bool:
    shape, dtype = _claimed_inside(archive, key)
    return len(shape) > 1 and dtype.kind not in "UMS"


def _check_archive(path: Path, archive: np.lib.npyio.NpzFile) -> None:
    """Refuse an npz whose members would unpack to more than an image may hold, or by a method that takes memory."""
    assert archive.zip is not None
    for info in archive.zip.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RfbenchError(f"{path}: is packed by a method that numpy never writes; save it again with numpy")
    largest = max((info.file_size for info in archive.zip.infolist()), default=0)
    if largest > 4 * limits.MAX_SAMPLES:
        raise RfbenchError(
            f"{path}: holds an array of {largest} bytes, expected at most {4 * limits.MAX_SAMPLES}; cut it"
        )


def _claimed(head: IO[bytes]) -> _Claim:
    """The shape and the type that the header of a npy file claims."""
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    return shape, dtype


def claims(path: Path) -> _Claim:
    """The shape and the type of a npy file, by its header.

    Raises ValueError for what is no such file, or is shorter than it claims; OSError.
    """
    with path.open("rb") as file:
        head = _head(file)
        shape, dtype = _claimed(head)
    held = path.stat().st_size - head.tell()
    if held < math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it holds {held} bytes of values")
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
    if dtype.kind not in "UM" or math.prod(shape) * dtype.itemsize > limits.LONGEST_TEXTS:
        return None
    return tuple(map(str, np.atleast_1d(archive[key])))


def _check_claim(path: Path, claim: _Claim) -> None:
    shape, dtype = claim
    limits.check_size(path, dtype, *shape)


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
