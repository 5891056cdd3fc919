"""An opened image file: its header, and its numbers in windows. What they mean is decided elsewhere, once for all.

Every file is hostile: GDAL is told which driver opens a type of file, looks at nothing beside it, and never reaches the
network; sizes, blocks and texts are held against limits before pixels are touched.
"""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Mask
from bench.data.readers import limits, sidecars, tiffs, vrt
from bench.data.readers.geometry import Georeference

Part = tuple[slice, slice]  # rows and columns
_BYTE = 8
_TAME = (1, 5, 7, 8, 32773, 32946, 50000)
"""Codecs of TIFF that stay within a block's size: none, LZW, JPEG, Deflate, PackBits, Zstandard."""
_PREMULTIPLIED = (
    "its colours are multiplied by its alpha (tag 338): where that lies between none and full, they are darker"
)

# Nothing beside a file (x.tif.msk, x.tif.aux.xml) is looked for: such bytes are read by bench.data.readers.sidecars, or
# not at all. No name that a file brings may reach the network.
SEALED: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO", "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_HTTP_PROXY": "127.0.0.1:9", "GDAL_VRT_ENABLE_PYTHON": "NO", "VRT_VIRTUAL_OVERVIEWS": "NO",
}  # fmt: skip
DRIVERS = {
    ".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG", ".jp2": "JP2OpenJPEG", ".j2k": "JP2OpenJPEG", ".vrt": "VRT",
    ".nc": "netCDF", ".nc4": "netCDF", ".h5": "HDF5", ".hdf5": "HDF5", ".he5": "HDF5",
    "netcdf": "netCDF", "hdf5": "HDF5Image",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says of its numbers; every tuple has one entry a stored band.

    Attributes
    ----------
    names : as written; empty where a band has none.
    alpha : whether the file calls the band alpha (GDAL calls the fourth of any 8-bit file so).
    scales, offsets : of value = stored x scale + offset; 1 and 0 where the file does not say.
    nodata : the number of pixels without data, None where the file does not say.
    is_picture : R, G, B (and alpha) by its format, whatever other files hold.
    notes : what was done to the pixels before anyone sees them.
    """

    path: Path
    size: tuple[int, int]
    dtype: np.dtype[Any]
    names: tuple[str, ...]
    alpha: tuple[bool, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: tuple[float | None, ...]
    is_picture: bool = False
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many bands are stored, alpha included."""
        return len(self.names)


def plain_header(path: Path, values: np.ndarray, names: Sequence[str] | None = None, **more: Any) -> Header:
    """The header of a file that says nothing but its shape and perhaps names."""
    n = values.shape[2]
    return Header(
        path, (values.shape[0], values.shape[1]), values.dtype, tuple(names or ("",) * n), (False,) * n, (1.0,) * n,
        (0.0,) * n, (None,) * n, **more,
    )  # fmt: skip


def shape_of(header: Header, part: Part) -> tuple[int, int]:
    """(height, width) of a part of a file."""
    height, width = (len(range(*s.indices(n))) for s, n in zip(part, header.size, strict=True))
    return height, width


class Source(ABC):
    """An opened file. A context manager."""

    header: Header

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def stored(self, bands: Sequence[int], part: Part | None = None, shape: tuple[int, int] | None = None) -> Any:
        """Numbers (h, w, len(bands)) as stored; ``shape`` thins a large part out."""

    @abstractmethod
    def mask(self, part: Part | None = None, shape: tuple[int, int] | None = None) -> Mask | None:
        """The file's own mask (not its alpha, not its nodata) or None where it has none."""

    def place(self) -> Georeference | None:
        """Where the pixels lie; None where the file does not say."""
        return None

    def other_place(self) -> str:
        """What else the file says of its place, in words; empty where it says nothing."""
        return ""

    def close(self) -> None:
        """Let go of the file."""


class Held(Source):
    """A file that was read as a whole: a picture, an array, an image that was turned."""

    def __init__(
        self, header: Header, values: np.ndarray, mask: Mask | None = None, place: Georeference | None = None
    ) -> None:
        self.header, self._values, self._mask, self._place = header, values, mask, place

    def stored(self, bands: Sequence[int], part: Part | None = None, shape: tuple[int, int] | None = None) -> Any:
        values = _cut(self._values, part, shape)
        return values if list(bands) == list(range(values.shape[2])) else values[:, :, list(bands)]

    def mask(self, part: Part | None = None, shape: tuple[int, int] | None = None) -> Mask | None:
        return None if self._mask is None else _cut(self._mask, part, shape)

    def place(self) -> Georeference | None:
        return self._place


def _cut(values: np.ndarray, part: Part | None, shape: tuple[int, int] | None) -> np.ndarray:
    values = values if part is None else values[part]
    if shape is None or shape == values.shape[:2]:
        return values
    rows, columns = (np.arange(n) * have // n for n, have in zip(shape, values.shape[:2], strict=True))
    return values[np.ix_(rows, columns)]


class Raster(Source):
    """A file that GDAL reads, in windows of any size."""

    def __init__(self, path: Path, name: str, driver: str) -> None:
        import rasterio

        self.path = path
        # The numbers of an ENVI file are described in a second one, which GDAL has to find.
        beside = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"} if driver == "ENVI" else {}
        with rasterio.Env(**(SEALED | beside)):
            self._file = rasterio.open(name, driver=driver)
        self._mask_file: Any = None
        try:
            self.header = self._header()
            if path.with_name(path.name + ".msk").is_file():
                self._mask_file = _open_mask(path, self.header.size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()
        if self._mask_file is not None:
            self._mask_file.close()

    def _header(self) -> Header:
        file, path = self._file, self.path
        limits.check_bands(path, file.count)
        if not file.count:
            raise _of_parts(path, file)
        dtypes = set(file.dtypes)
        if any(np.dtype(d).kind not in "uif" for d in dtypes):
            raise RfbenchError(
                f"{path}: found {one_line(file.dtypes[0], 40)} values, expected numbers of up to 8 bytes; convert it"
            )
        for height, width in file.block_shapes:
            if height * width * 8 > 2 * limits.block_bytes():
                raise RfbenchError(f"{path}: one block claims {height}x{width} px; write it again in tiles of 256 px")
        if "OVERVIEW_FILE" in file.tags(ns="OVERVIEWS"):
            raise RfbenchError(f"{path}: its overviews lie in another file; write it again without them")
        beside, n = sidecars.notes(path), file.count
        notes: tuple[str, ...] = ()
        try:
            written = tuple(one_line(d or "", 80) for d in file.descriptions)
        except UnicodeDecodeError:
            written, notes = ("",) * n, ("the names of its bands are no UTF-8 and are not read",)
        return Header(
            path,
            (file.height, file.width),
            np.result_type(*dtypes),
            tuple(beside.names.get(i + 1) or written[i] for i in range(n)),
            tuple(beside.colours.get(i + 1, c.name).lower() == "alpha" for i, c in enumerate(file.colorinterp)),
            tuple(beside.scales.get(i + 1, s) for i, s in enumerate(file.scales)),
            tuple(beside.offsets.get(i + 1, o) for i, o in enumerate(file.offsets)),
            tuple(beside.nodata.get(i + 1, v) for i, v in enumerate(file.nodatavals)),
            notes=notes,
        )

    def stored(self, bands: Sequence[int], part: Part | None = None, shape: tuple[int, int] | None = None) -> Any:
        window, size = self._window(part)
        with _sealed():
            values = self._file.read([b + 1 for b in bands], window=window, out_shape=(len(bands), *(shape or size)))
        return np.moveaxis(values, 0, 2)

    def mask(self, part: Part | None = None, shape: tuple[int, int] | None = None) -> Mask | None:
        from rasterio.enums import MaskFlags

        window, size = self._window(part)
        shape = shape or size
        with _sealed():
            if self._mask_file is not None:
                masks = self._mask_file.read(window=window, out_shape=(self._mask_file.count, *shape))
                return np.asarray((masks > 0).all(axis=0))  # one a band: a hole in one is a hole
            # The mask of the whole file, and not the one that GDAL makes of nodata, or of a band that it takes for
            # alpha.
            flags = self._file.mask_flag_enums
            if not any(MaskFlags.per_dataset in f and MaskFlags.alpha not in f for f in flags):
                return None
            return np.asarray(self._file.read_masks(1, window=window, out_shape=shape) > 0)

    def _window(self, part: Part | None) -> tuple[Any, tuple[int, int]]:
        from rasterio.windows import Window

        if part is None:
            return None, self.header.size
        window = Window.from_slices(*part, height=self.header.size[0], width=self.header.size[1])
        return window, (int(window.height), int(window.width))

    def place(self) -> Georeference | None:
        from bench.data.readers import geometry

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return geometry.of(self._file, self.path)

    def other_place(self) -> str:
        return "ground control points" if self._file.gcps[0] else "RPCs" if self._file.rpcs else ""

    @property
    def is_palette(self) -> bool:
        """Whether its one band holds places in a table of colours."""
        return self._file.count == 1 and self._file.colorinterp[0].name == "palette"

    def colours(self) -> dict[int, tuple[int, int, int, int]]:
        """The table of colours."""
        return dict(self._file.colormap(1))


def _of_parts(path: Path, file: Any) -> RfbenchError:
    """What to say of a file that has no image of its own but parts that do."""
    parts = [one_line(p, 120) for p in file.subdatasets]
    if not parts:
        return RfbenchError(f"{path} holds no raster band, expected R G B; name the part of it that does")
    shown = ", ".join(parts[:4]) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")
    return RfbenchError(
        f"{path} holds {len(parts)} images and none of its own; name one of them ({shown}), or stack them to one "
        "GeoTIFF ('gdalbuildvrt -separate s.vrt PART PART ...; gdal_translate s.vrt OUT.tif')"
    )


@contextlib.contextmanager
def _sealed() -> Iterator[None]:
    import rasterio

    # An Env with options of its own costs a millisecond a call; within one of ours nothing is to be done.
    with rasterio.Env(**SEALED):
        yield


def mask_beside(path: Path, size: tuple[int, int]) -> Mask:
    """What the ``.msk`` beside an image of ``size`` says."""
    with _open_mask(path, size) as file, _sealed():
        return np.asarray((file.read() > 0).all(axis=0))


def _open_mask(path: Path, size: tuple[int, int]) -> Any:
    """The opened ``.msk`` beside an image."""
    import rasterio

    file = path.with_name(path.name + ".msk")
    tiffs.pages(file)
    with _sealed():
        opened = rasterio.open(file, driver="GTiff")
    if (opened.height, opened.width) != size:
        opened.close()
        raise RfbenchError(
            f"{file}: found {opened.height}x{opened.width} px, expected the {size[0]}x{size[1]} px of its image; "
            "remove or replace it"
        )
    return opened


def open_raster(
    path: Path, *, size: tuple[int, int] | None = None, part: Part | None = None, here: bool = False
) -> Source:
    """A file that GDAL reads; turned, brightened and unpacked where its tags say so, as every viewer does.

    ``here``: in this process, whatever its decoder is; by default those that may run away work in another one.
    """
    suffix = path.suffix.lower()
    page = _one_page(path) if suffix in (".tif", ".tiff") else None
    if not here and (page is None or page.compression not in _TAME):
        from bench.data.readers.apart import Apart

        cut = None if part is None else [[s.start, s.stop] for s in part]
        return Apart(path, str(path), "", size=size, part=cut)
    if suffix == ".vrt":
        for file in vrt.sources(path):
            with open_raster(file, here=True):
                pass
    raster = Raster(path, str(path), DRIVERS[suffix])
    try:
        _check(raster, size, part)
        if page is not None and page.is_premultiplied:
            raster.header = replace(raster.header, notes=(*raster.header.notes, _PREMULTIPLIED))
        if page is not None and (
            page.orientation != 1 or page.photometric == 0 or page.bits < _BYTE or raster.is_palette
        ):
            return _as_shown(raster, page)
    except BaseException:
        raster.close()
        raise
    return raster


def open_named(name: str) -> Source:
    """A part of a file by GDAL's name for it, ``NETCDF:x.nc:Band1`` or ``HDF5:x.h5://band``."""
    kind, _, rest = name.partition(":")
    driver = DRIVERS.get(kind.lower())
    file, _, part = rest.rpartition(":")
    path = Path(file.strip('"'))
    if driver is None or not path.is_file():
        raise RfbenchError(f"{one_line(name, 160)}: found no file of that name, expected NETCDF:FILE:VARIABLE")
    if not part:
        raise RfbenchError(f"{one_line(name, 160)}: names no variable, expected {kind}:FILE:VARIABLE")
    return open_apart(path, name, driver)


def open_apart(path: Path, name: str, driver: str) -> Source:
    """A file, or a part of one, that a driver of GDAL opens in a process beside this one."""
    from bench.data.readers.apart import Apart

    return Apart(path, name, driver)


def _check(raster: Raster, size: tuple[int, int] | None, part: Part | None) -> None:
    header = raster.header
    if size is not None:
        limits.check_size(header.path, header.dtype, *header.size, header.count)
        limits.check_wanted(header.path, header.size, size)
    if part is not None:
        limits.check_size(header.path, header.dtype, *shape_of(header, part), header.count)


def _one_page(path: Path) -> tiffs.Page:
    """The one image of a TIFF. RfbenchError for several, which GDAL would take the first of."""
    images = [p for p in tiffs.pages(path) if p.is_image]
    if not images:
        raise RfbenchError(f"{path} holds no image, only masks or reduced copies; replace it")
    if len(images) > 1:
        samples = {p.samples for p in images}
        each = f"of {images[0].samples} band{'s' * (images[0].samples != 1)} each" if len(samples) == 1 else ""
        raise RfbenchError(
            f"{path}: has {len(images)} pages {each}, expected one page with all bands; write the bands into one (in "
            "Python: tifffile.imwrite(OUT, np.moveaxis(pages, 0, 2), planarconfig='contig'))".replace("  ", " ")
        )
    if images[0].photometric in (5, 8):
        kind = "CMYK" if images[0].photometric == 5 else "CIELab"
        raise RfbenchError(f"{path}: its colours are {kind}, expected R G B; convert it")
    return images[0]


def _as_shown(raster: Raster, page: tiffs.Page) -> Source:
    """The image as viewers show it: from colours of a table, with white where 0 is white, turned."""
    header = raster.header
    path, notes = header.path, []
    limits.check_size(path, header.dtype, *header.size, header.count)
    values, mask, place = raster.stored(range(header.count)), raster.mask(), raster.place()
    if raster.is_palette:
        table = np.zeros((2 ** (8 * values.dtype.itemsize), 4), np.uint8)
        for i, colour in raster.colours().items():
            table[min(i, len(table) - 1)] = colour
        opaque = bool((table[:, 3][values[:, :, 0]] == 255).all())
        holes = [v is not None and values[:, :, 0] == v for v in header.nodata][:1]
        values = table[values[:, :, 0]][:, :, : 3 if opaque else 4]
        if holes and holes[0] is not False:
            mask = ~holes[0] if mask is None else mask & ~holes[0]
        header = plain_header(path, values, is_picture=True)
        header = replace(header, alpha=(False, False, False, *([] if opaque else [True])))
        notes.append("its colours were taken from its table")
    elif page.photometric == 0:
        if values.dtype.kind != "u":
            raise RfbenchError(
                f"{path}: 0 is white in it (WhiteIsZero), and its numbers are {values.dtype}; convert it"
            )
        top = 2**page.bits - 1
        values = (top - np.minimum(values, top)).astype(values.dtype) if page.bits > 1 else values
        header = replace(header, nodata=tuple(None if v is None else top - v for v in header.nodata))
        notes.append("0 is white in it (WhiteIsZero); it was inverted")
    if page.bits < _BYTE and not raster.is_palette and values.dtype == np.uint8:
        # Like in every viewer, the brightest number of few bits is white.
        factor = 255 / (2**page.bits - 1)
        values = np.rint(np.minimum(values, 2**page.bits - 1) * factor).astype(np.uint8)
        header = replace(header, nodata=tuple(None if v is None else float(round(v * factor)) for v in header.nodata))
        notes.append(f"its {page.bits} bits were brought to 8")
    if page.orientation != 1:
        if not 1 <= page.orientation <= 8:
            raise RfbenchError(
                f"{path}: its orientation (tag 274) is {page.orientation}, expected 1 to 8; write it again"
            )
        if place is not None:
            raise RfbenchError(
                f"{path}: its orientation (tag 274) is {page.orientation}, so viewers turn it, and its georeference is "
                "of the image as stored; write it again without the tag, or turned"
            )
        values = tiffs.turned(values, page.orientation)
        mask = None if mask is None else tiffs.turned(mask, page.orientation)
        header = replace(header, size=(values.shape[0], values.shape[1]))
        notes.append(f"it was turned as its orientation (tag 274: {page.orientation}) says")
    raster.close()
    return Held(replace(header, notes=(*header.notes, *notes)), values, mask, place)
