"""The image that is made: from blended answers to stored numbers, and the GeoTIFF that holds them."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as Rectangle

from bench import __version__
from bench.core.errors import RfbenchError, one_line
from bench.core.image import RGB, Array, Image, Mask, Unit
from bench.data.normalise import Fitted
from bench.models.call import Answer
from bench.models.tiling import Span
from bench.reports.pictures import eight_bit
from bench.upscale.seams import Axis
from bench.upscale.source import Raster

Output = Literal["display", "reflectance", "float"]
Estimate = Literal["sample", "mean"]

_TAG_CHARACTERS = 2000  # GDAL moves metadata beyond 32 kB into a second file


@dataclass(frozen=True)
class _Layout:
    """How an answer's arrays lie in the layers that are blended: the draws (or mean, deviation), then the maps."""

    unit: Unit
    bands: tuple[str, ...]
    normalised: bool
    draws: int
    has_std: bool
    maps: tuple[str, ...]


@dataclass(frozen=True)
class Band:
    """A band of the result; a value is the stored number times ``scale`` where that is said."""

    name: str
    unit: str = ""
    scale: float = 1.0


class Look:
    """Turns answers into layers to blend, and blended layers into the numbers that are stored."""

    def __init__(
        self,
        label: str,
        output: Output,
        estimate: Estimate,
        uncertainty: bool,
        fitted: Fitted | None,
        back: Fitted | None,
    ) -> None:
        self._label, self._output, self._estimate, self._uncertainty = label, output, estimate, uncertainty
        self._fitted, self._back = fitted, back
        self._layout: _Layout | None = None

    def layers(self, answer: Answer) -> Array:
        """All that is blended of an answer, float32 (H, W, L)."""
        draws = answer.arrays.get("samples", ())
        maps = answer.maps if self._uncertainty else {}
        layout = _Layout(
            answer.unit, answer.bands, answer.normalised, len(draws), "std" in answer.arrays, tuple(sorted(maps))
        )
        if self._layout is None:
            self._check(layout)
            self._layout = layout
        elif layout != self._layout:
            raise RfbenchError(f"{self._label}: the tiles of an image have different bands, draws or maps")
        parts = [*draws] or [answer.arrays[k] for k in ("mean", "std") if k in answer.arrays]
        return np.concatenate([*parts, *(maps[name][:, :, None] for name in layout.maps)], axis=2)

    def _check(self, layout: _Layout) -> None:
        if self._output != "reflectance" and not set(RGB) <= set(layout.bands):
            raise RfbenchError(f"{self._label} answers with the bands {' '.join(layout.bands)}, expected R G B")
        if self._uncertainty and layout.draws < 2 and not layout.has_std and not layout.maps:
            raise RfbenchError(f"--uncertainty: {self._label} gives no draws, deviation or maps; leave the option out")

    @property
    def dtype(self) -> str:
        """The type of all bands of the file."""
        if self._uncertainty or self._output == "float":
            return "float32"
        return "uint8" if self._output == "display" else "uint16"

    @property
    def nodata(self) -> float | None:
        """What pixels without data hold; None where a mask says so, since every number is a colour."""
        return {"uint8": None, "uint16": 0.0, "float32": math.nan}[self.dtype]

    @property
    def bands(self) -> list[Band]:
        """The bands of the file."""
        layout = self._known()
        names = layout.bands if self._output == "reflectance" and not layout.normalised else RGB
        unit, scale = ("reflectance", 1e-4) if self._output == "reflectance" else ("", 1.0)
        found = [Band(name, unit, scale) for name in names]
        if self._has_spread:
            found.append(Band("uncertainty", unit, scale))
        return found + [Band(name) for name in layout.maps]

    def stored(self, layers: Array, valid: Mask) -> np.ndarray:
        """The numbers of the file, (h, w, bands), for layers (h, w, L)."""
        layout, n = self._known(), len(self._known().bands)
        parts = [layers[:, :, i * n : (i + 1) * n] for i in range(max(layout.draws, 1 + layout.has_std))]
        shown = np.stack([self._shown(part) for part in (parts if layout.draws else parts[:1])])
        image = shown.mean(axis=0, dtype=np.float64).astype(np.float32) if self._estimate == "mean" else shown[0]
        factor = {"display": 255.0, "reflectance": 1e4, "float": 1.0}[self._output]
        if self._output == "display":
            image = eight_bit(image)
        elif self._output == "reflectance":
            image = np.clip(np.rint(image * np.float32(factor)), 1, 65535)
        if not self._uncertainty:
            return np.where(valid[:, :, None], image, np.nan if self.dtype == "float32" else 0).astype(self.dtype)
        further = [layers[:, :, layers.shape[2] - len(layout.maps) :]]
        if self._has_spread:
            if layout.draws:
                spread = shown.std(axis=0, ddof=1, dtype=np.float64)
            else:  # half the way from mean - std to mean + std: exact where the normalisation is linear
                mean, std = parts
                spread = (self._shown(mean + std).astype(np.float64) - self._shown(mean - std)) / 2
            further.insert(0, np.sqrt((spread**2).mean(axis=2, keepdims=True)) * factor)
        return np.where(valid[:, :, None], np.concatenate([image, *further], axis=2), np.nan).astype(np.float32)

    def _shown(self, values: Array) -> Array:
        """One draw (or mean) in display range or, for ``reflectance``, in reflectance: float32 (h, w, bands)."""
        layout = self._known()
        image = Image(values, layout.unit, layout.bands, np.ones(values.shape[:2], bool))
        if self._output == "reflectance":
            return values if self._back is None else _reflectance(self._back, image.select(RGB).values)
        if layout.normalised:
            return np.clip(image.select(RGB).values, 0.0, 1.0)
        assert self._fitted is not None
        return self._fitted.apply(image.select(RGB))

    @property
    def _has_spread(self) -> bool:
        return self._uncertainty and (self._known().draws > 1 or self._known().has_std)

    def _known(self) -> _Layout:
        assert self._layout is not None, "no tile has been answered yet"
        return self._layout


def _reflectance(fitted: Fitted, display: Array) -> Array:
    """The reflectance whose display value is ``display``, clipped to the range that display can show."""
    low, high = np.array(fitted.low), np.array(fitted.high)
    stretched = np.clip(display, 0.0, 1.0).astype(np.float64) ** (1 / fitted.gamma)
    return (low + np.maximum(high - low, 0) * stretched).astype(np.float32)


class Writer:
    """The result, begun with the first pixels that have data. A context manager that checks the file when it ends."""

    def __init__(
        self,
        temporary: Path,
        target: Path,
        raster: Raster,
        rows: Axis,
        columns: Axis,
        tags: dict[str, object],
    ) -> None:
        self._temporary, self._target, self._raster, self._tags = temporary, target, raster, tags
        self._rows, self._size = rows, (rows.out_length, columns.out_length)
        self._file: Any = None
        self._masked = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._file is None:
            return
        with self._writing():
            self._file.close()
            if kind is None:
                self._check_whole()

    @property
    def begun(self) -> bool:
        """Whether any pixel had data."""
        return self._file is not None

    def write(self, look: Look, top: int, left: int, layers: Array, valid: Mask) -> None:
        """Store a finished part of the image. Parts without data stay unwritten, which reads as no data."""
        if not valid.any():
            return
        with self._writing():
            if self._file is None:
                self._begin(look)
            window = Rectangle(left, top, valid.shape[1], valid.shape[0])
            self._file.write(np.moveaxis(look.stored(layers, valid), 2, 0), window=window)
            if self._masked:
                self._file.write_mask(valid, window=window)

    def _begin(self, look: Look) -> None:
        bands = look.bands
        names = tuple(band.name for band in bands)
        is_rgb = names[:3] == RGB
        block, waiting_rows = _block_px(self._rows.parts)
        waiting = waiting_rows * self._size[1] * len(bands) * np.dtype(look.dtype).itemsize
        set_gdal_config("GDAL_CACHEMAX", get_gdal_config("GDAL_CACHEMAX") + waiting)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._file = rasterio.open(
                self._temporary,
                "w",
                driver="GTiff",
                height=self._size[0],
                width=self._size[1],
                count=len(bands),
                dtype=look.dtype,
                nodata=look.nodata,
                tiled=True,
                blockxsize=block,
                blockysize=block,
                compress="deflate",
                predictor=3 if look.dtype == "float32" else 2,
                BIGTIFF="IF_SAFER",
                photometric="RGB" if is_rgb else "MINISBLACK",
                **self._raster.georeference(self._size),
            )
        colours = {"R": ColorInterp.red, "G": ColorInterp.green, "B": ColorInterp.blue}
        self._file.colorinterp = [colours.get(name, ColorInterp.undefined) for name in names]
        self._file.descriptions = names
        self._file.units = tuple(band.unit for band in bands)
        self._file.scales = tuple(band.scale for band in bands)
        self._file.update_tags(
            TIFFTAG_SOFTWARE=f"rfbench {__version__}",
            **{f"RFBENCH_{k}": one_line(v, _TAG_CHARACTERS) for k, v in self._tags.items()},
        )
        self._masked = look.nodata is None and self._raster.may_have_holes

    def _check_whole(self) -> None:
        """Raises OSError for a file that is cut off: GDAL keeps silent when the disk is full at the very end."""
        length = self._temporary.stat().st_size
        with rasterio.open(self._temporary) as file:
            for (row, column), window in file.block_windows(1):
                place = (file.get_tag_item(f"BLOCK_{k}_{column}_{row}", "TIFF", bidx=1) for k in ("OFFSET", "SIZE"))
                if sum(int(number or length) for number in place) > length:
                    raise OSError("No space left on device")
                if self._masked:
                    file.read_masks(1, window=window)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (RasterioError, OSError) as error:
            why = one_line(error.__cause__ or error, 160)
            raise RfbenchError(
                f"cannot write {self._target}: {why}; free space, or choose a folder that can be written"
            ) from error


def _block_px(rows: list[Span]) -> tuple[int, int]:
    """The side of the file's blocks, and how many rows of pixels wait until their blocks are whole.

    A block that has to be stored before it is whole is read, packed and stored again, and the file grows. So blocks
    that divide the distance of tiles, or that tiles divide, are preferred; others wait for a whole row of tiles.
    """
    step = rows[1].out_start if len(rows) > 1 else 1
    for block in sorted(range(128, 513, 16), key=lambda n: abs(n - 256)):
        if step % block == 0 or block % step == 0:
            return block, 2 * block
    return 256, step + 2 * 256
