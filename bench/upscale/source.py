"""The image that is upscaled: a raster file of any size, read in windows, with what its numbers mean."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as Rectangle

from bench.core.errors import RfbenchError, one_line
from bench.core.image import RGB, Array, Image, Mask
from bench.data import bands as band_names
from bench.data.dataset import Side, usual_scale

_THUMBNAIL_PX = 512
_ENOUGH_PIXELS = 1000  # to expect a dark one among them


class Raster:
    """The source file, read in windows: float32 in the side's unit, with what is valid. A context manager."""

    def __init__(self, path: Path, side: Side) -> None:
        self.path, self.side = path, side
        with self._reading(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._file = rasterio.open(path)
        self.size: tuple[int, int] = (self._file.height, self._file.width)
        self.bands: tuple[str, ...] = ()
        try:
            self.names, self._of_name = self._name_bands()
            self._warn_of_missing_georeference()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except RasterioError as error:
            why = one_line(error.__cause__ or error, 160)
            raise RfbenchError(f"{self.path} cannot be read ({why}); replace the file") from error

    def _name_bands(self) -> tuple[tuple[str, ...], dict[str, int]]:
        """Names of all bands, and the number of each in the file. An alpha channel is no band unless it has a name."""
        file = self._file
        if not file.count:
            raise RfbenchError(f"{self.path} holds no raster band, expected R G B; name the part of it that does")
        declared = band_names.parse(self.side.bands) if self.side.bands else None
        numbers = list(file.indexes)
        if not declared or len(declared) != file.count:
            alpha = [
                i for i in numbers if file.colorinterp[i - 1] is ColorInterp.alpha and not file.descriptions[i - 1]
            ]
            numbers = [i for i in numbers if i not in alpha]
        texts = [file.descriptions[i - 1] or "" for i in numbers]
        described = tuple(map(band_names.canonical, texts)) if all(texts) else None
        names = declared or described or band_names.guess(len(numbers))
        if names is None or len(names) != len(numbers):
            raise RfbenchError(
                f"{self.path}: found {len(numbers)} band{'s' * (len(numbers) != 1)}, expected "
                f'{" ".join(names) if names else "names for them"}; name them in their order with --bands "B G R NIR"'
            )
        if declared and described and declared != described and len(set(declared) & set(described)) >= 2:
            raise RfbenchError(
                f"{self.path}: the file names its bands {' '.join(described)}, --bands says {' '.join(declared)}; "
                "correct --bands or leave it out"
            )
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise RfbenchError(f"{self.path}: two bands are called {twice[0]}, expected different names; use --bands")
        kinds = {np.dtype(file.dtypes[i - 1]).kind for i in numbers}
        if not kinds <= set("uif"):
            raise RfbenchError(f"{self.path}: found {file.dtypes[0]} values, expected whole or real numbers")
        return names, dict(zip(names, numbers, strict=True))

    def select(self, bands: tuple[str, ...]) -> None:
        """Read these bands from now on. Raises RfbenchError naming the missing ones."""
        missing = [b for b in bands if b not in self._of_name]
        if missing:
            raise RfbenchError(
                f"{self.path}: band {', '.join(missing)} is needed; the image has {' '.join(self.names)} "
                "(--bands names them where the file does not)"
            )
        self.bands = bands
        self._numbers = [self._of_name[b] for b in bands]
        self._thumbnail = self._read(None, tuple(min(n, _THUMBNAIL_PX) for n in self.size))
        # Value = (stored + add) / divide, band by band.
        file, side = self._file, self.side
        scales, offsets = (np.array([v[i - 1] for i in self._numbers]) for v in (file.scales, file.offsets))
        own = bool((scales != 1).any() or (offsets != 0).any())
        if own and side.unit == "reflectance" and side.scale is None and not side.offset and (scales > 0).all():
            self._divide, self._add = 1 / scales, offsets / scales
            return
        scale = side.scale if side.scale is not None else usual_scale(self.path, self._thumbnail[0], side.unit)
        self._divide, self._add = np.full(len(self.bands), scale), np.full(len(self.bands), side.offset)

    def read(self, top: int, left: int, height: int, width: int) -> Image:
        """A window of the selected bands; values of pixels without data are 0."""
        stored, valid = self._read(Rectangle(left, top, width, height), (height, width))
        return self._image(stored, valid)

    def _read(self, window: Rectangle | None, shape: tuple[int, ...]) -> tuple[np.ndarray, Mask]:
        with self._reading():
            stored = self._file.read(self._numbers, window=window, out_shape=(len(self._numbers), *shape))
            # A NIR band that GDAL calls alpha, as it does in any 8-bit file, says nothing about what is valid.
            alpha = self._file.colorinterp.index(ColorInterp.alpha) + 1 if self._has_alpha else 0
            if alpha in self._of_name.values():
                valid = np.ones(shape, bool)
            else:
                valid = self._file.dataset_mask(window=window, out_shape=shape) > 0
        stored = np.moveaxis(stored, 0, 2)
        if stored.dtype.kind == "f":
            valid &= np.isfinite(stored).all(axis=2)
        if self.side.nodata is not None:
            # A pixel is without data only where every band says so: single zeros in one band are dark water.
            valid &= ~(stored == self.side.nodata).all(axis=2)
        return stored, valid

    def _image(self, stored: np.ndarray, valid: Mask) -> Image:
        values = (np.where(valid[:, :, None], stored, 0).astype(np.float64) + self._add) / self._divide
        values = np.where(valid[:, :, None], values, 0.0)
        if self.side.unit == "display" and (values.min() < 0 or values.max() > 1):
            raise RfbenchError(
                f"{self.path}: display values run from {values.min():.4g} to {values.max():.4g} after division by "
                f"{self._divide[0]:g}, expected [0, 1]; correct --unit or --input-scale"
            )
        return Image(values.astype(np.float32), self.side.unit, self.bands, valid, self.gsd_m)

    @property
    def gsd_m(self) -> float | None:
        """Side of a pixel in metres, None where the CRS does not tell."""
        crs = self._file.crs
        if crs is None or not crs.is_projected:
            return None
        return math.sqrt(abs(self._file.transform.determinant)) * float(crs.linear_units_factor[1])

    @property
    def _has_alpha(self) -> bool:
        return ColorInterp.alpha in self._file.colorinterp

    @property
    def may_have_holes(self) -> bool:
        """Whether the file can hold pixels without data."""
        plain = all(flags == [MaskFlags.all_valid] for flags in self._file.mask_flag_enums)
        is_float = any(np.dtype(d).kind == "f" for d in self._file.dtypes)
        return not plain or is_float or self.side.nodata is not None

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row of pixels, all bands."""
        return self.size[1] * sum(np.dtype(d).itemsize for d in self._file.dtypes)

    def georeference(self, size: tuple[int, int]) -> dict[str, Any]:
        """``crs`` and ``transform`` of a grid of ``size`` with the outline of this one; nothing where there is none."""
        if self._file.transform.is_identity and self._file.crs is None:
            return {}
        t, down, right = self._file.transform, self.size[0] / size[0], self.size[1] / size[1]
        return {
            "crs": self._file.crs,
            "transform": Affine(t.a * right, t.b * down, t.c, t.d * right, t.e * down, t.f),
        }

    def _warn_of_missing_georeference(self) -> None:
        file = self._file
        if not file.transform.is_identity or file.crs is not None:
            return
        found = "ground control points" if file.gcps[0] else "RPCs" if file.rpcs else ""
        what = f"only {found}, which are left out" if found else "no georeference"
        warnings.warn(f"{self.path} has {what}: the result will have none", stacklevel=1)

    def warn_of_odd_values(self) -> None:
        """Warn, from a thumbnail, of reflectance that looks like numbers of another scale or offset."""
        image = self._image(*self._thumbnail)
        if self.side.unit != "reflectance" or not image.valid.any():
            return
        low, high = np.percentile(image.values[image.valid], [1, 99], axis=0)
        scale = f"--input-scale {self._divide[0]:g}"
        if self._thumbnail[0].dtype == np.uint8:
            warnings.warn(f"{self.path} holds 8-bit numbers; if it is a picture, use --unit display", stacklevel=1)
        elif low.min() < -0.02:
            warnings.warn(f"{self.path}: reflectance goes down to {low.min():.3g}; is --offset right?", stacklevel=1)
        elif high.max() > 2 or high.max() < 0.005:
            warnings.warn(
                f"{self.path}: with {scale}, 99 % of the reflectance lies below {high.max():.3g}, expected about 0 to "
                "1; is the scale right?",
                stacklevel=1,
            )
        elif 0.1 <= low.min() < 0.2 and image.valid.sum() >= _ENOUGH_PIXELS and not self._add.any():
            warnings.warn(
                f"{self.path}: hardly a pixel lies below reflectance {low.min():.3g}; if it is a Sentinel-2 product of "
                "2022 or later, with 1000 added to its numbers, use --offset -1000",
                stacklevel=1,
            )

    def valid_pixels(self, side_px: int) -> Iterator[Array]:
        """All valid pixels of R, G, B, float32 (n, 3), a window at a time."""
        height, width = self.size
        for top in range(0, height, side_px):
            for left in range(0, width, side_px):
                image = self.read(top, left, min(side_px, height - top), min(side_px, width - left)).select(RGB)
                yield image.values[image.valid]


def filled(image: Image) -> Image:
    """Pixels without data take the nearest valid value, so that the hole's edge does not bleed into its neighbours."""
    if image.valid.all():
        return image
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~image.valid, return_distances=False, return_indices=True)
    return dataclasses.replace(image, values=image.values[tuple(nearest)], valid=np.ones_like(image.valid))
