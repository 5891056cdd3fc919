"""The image that is upscaled: an image file of any size, read in windows by the rules of ``bench.data.readers``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from bench.core.errors import RfbenchError, one_line
from bench.core.image import RGB, Array, Image, Mask
from bench.data import fills, readers
from bench.data.meaning import LANDSAT_C2, Scaling, Side, Voice, most_plausible, names_of, scaling_of
from bench.data.readers import Part, containers

_THUMBNAIL_PX = 512
_FILL_SHARE = 0.01  # of the pixels: less may be what is brightest
_ENOUGH_PIXELS = 1000  # to expect a dark one among them
_VOICE = Voice(
    bands='name them in their order with --bands "B G R NIR"',
    white="declare what white is with --input-scale (255, 2047, 4095, 65535)",
    scale="correct --offset or --input-scale",
    unit="correct --unit or --input-scale",
    who="--bands says",
    wrong_bands="correct --bands or leave it out",
    nodata="give --nodata",
    picture="if it is a picture, use --unit display, else --input-scale",
)


class Raster:
    """The source file, read in windows: float32 in the side's unit, with what is valid. A context manager."""

    def __init__(self, path: Path, side: Side) -> None:
        self.path, self.side = path, side
        with self._reading():
            self._source = containers.open_any(path)
        try:
            header = self._source.header
            self.size: tuple[int, int] = header.size
            self.bands: tuple[str, ...] = ()
            declared = side.band_names
            # Numbers are looked at only where they must tell NIR from alpha.
            undecided = header.count == 4 and any(header.alpha)
            sample = self._stored(range(4), None, self._thumbnail_size) if undecided else np.zeros((1, 1, header.count))
            self._layers = readers.layers_of(header, declared, sample)
            data = self._layers.data
            written = [header.names[i] for i in data]
            self.names = names_of(path, written if all(written) else None, len(data), side, _VOICE, header.is_picture)
            self._of_name = dict(zip(self.names, data, strict=True))
            fill, notes = readers.nodata_of(header, data, side.nodata)
            self._fill = dict(zip(data, fill, strict=True))
            with self._reading():
                self._place = self._source.place()
            for note in (*header.notes, *notes):
                warnings.warn(f"{path}: {note}", stacklevel=1)
            self._warn_of_missing_georeference()
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (RfbenchError, MemoryError):
            raise
        except Exception as error:  # whatever a decoder meets in a broken file
            why = one_line(error.__cause__ or error, 160)
            raise RfbenchError(
                f"{self.path} cannot be read ({type(error).__name__}: {why}); replace the file"
            ) from error

    @property
    def _thumbnail_size(self) -> tuple[int, int]:
        return min(self.size[0], _THUMBNAIL_PX), min(self.size[1], _THUMBNAIL_PX)

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
        self._thumbnail = self._read(None, self._thumbnail_size)
        header = self._source.header
        scales, offsets = ([v[i] for i in self._numbers] for v in (header.scales, header.offsets))
        has_tags = any(s != 1 or o != 0 for s, o in zip(scales, offsets, strict=True))
        self._scaling: Scaling = scaling_of(
            self.path,
            self._thumbnail[0],
            scales if has_tags else None,
            offsets if has_tags else None,
            self.side,
            _VOICE,
        )
        for note in self._scaling.notes:
            warnings.warn(f"{self.path}: {note}", stacklevel=1)

    def read(self, top: int, left: int, height: int, width: int) -> Image:
        """A window of the selected bands; values of pixels without data are 0."""
        part = (slice(top, top + height), slice(left, left + width))
        return self._image(*self._read(part, (height, width)))

    def _stored(self, bands: Any, part: Part | None, shape: tuple[int, int]) -> np.ndarray:
        with self._reading():
            found: np.ndarray = self._source.stored(bands, part, shape)
        return found

    def _read(self, part: Part | None, shape: tuple[int, int]) -> tuple[np.ndarray, Mask]:
        # Where 0 in every band is no data, every band must be looked at, and not those alone that a model reads.
        all_count = any(self._fill[i] == 0 for i in self._layers.data)
        numbers = list(self._layers.data) if all_count else self._numbers
        stored = self._stored(numbers, part, shape)
        with self._reading():
            mask = self._source.mask(part, shape)
        if self._layers.alpha is not None:
            opaque = self._stored([self._layers.alpha], part, shape)[:, :, 0] > 0
            mask = opaque if mask is None else mask & opaque
        chosen = stored[:, :, [numbers.index(i) for i in self._numbers]]
        fill = [self._fill[i] for i in self._numbers]
        valid, empty = readers.valid_pixels(chosen, [None if v == 0 else v for v in fill], mask)
        for i in empty:  # a band that is read and has no data here: there is none of the image either
            band, none = chosen[:, :, i], fill[i]
            valid &= np.isfinite(band) if none is None else np.isfinite(band) & ~readers.equals(band, none)
        if all_count:
            valid &= readers.valid_pixels(
                stored, [self._fill[i] if self._fill[i] == 0 else None for i in numbers], None
            )[0]
        return chosen, valid

    def _image(self, stored: np.ndarray, valid: Mask) -> Image:
        values = np.where(valid[:, :, None], self._scaling.apply(np.where(valid[:, :, None], stored, 0)), 0.0)
        low, high = most_plausible(self.side.unit)
        if self.side.unit == "display":
            if values.min() < low or values.max() > high:
                fill = fills.extreme(stored, values, valid, self.bands, low, high)
                raise RfbenchError(
                    f"{self.path}: display values run from {values.min():.4g} to {values.max():.4g} after "
                    f"{self._scaling.text()}, expected [0, 1]; "
                    + (f"{fill}: {_VOICE.nodata}, or {_VOICE.unit}" if fill else _VOICE.unit)
                )
            values = np.clip(values, 0.0, 1.0)
        return Image(values.astype(np.float32), self.side.unit, self.bands, valid, self.gsd_m)

    @property
    def gsd_m(self) -> float | None:
        """Side of a pixel in metres, None where the georeference does not tell."""
        if self._place is None or self._place.crs is None or self._place.pixel_m is None:
            return None
        return math.sqrt(self._place.pixel_m[0] * self._place.pixel_m[1])

    @property
    def may_have_holes(self) -> bool:
        """Whether the file can hold pixels without data."""
        header = self._source.header
        has_fill = any(v is not None for v in self._fill.values())
        has_mask = self._source.mask((slice(0, 1), slice(0, 1)), (1, 1)) is not None
        return has_fill or has_mask or self._layers.alpha is not None or header.dtype.kind == "f"

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row of pixels, all bands."""
        return self.size[1] * self._source.header.count * self._source.header.dtype.itemsize

    def georeference(self, size: tuple[int, int]) -> dict[str, Any]:
        """``crs`` and ``transform`` of a grid of ``size`` with the outline of this one; nothing where there is none."""
        if self._place is None or self._place.by_points:
            return {}
        a, b, c, d, e, f = self._place.transform
        down, right = self.size[0] / size[0], self.size[1] / size[1]
        return {"crs": self._place.crs, "transform": Affine(a * right, b * down, c, d * right, e * down, f)}

    def _warn_of_missing_georeference(self) -> None:
        if self._place is not None and not self._place.by_points:
            return
        found = "ground control points" if self._place is not None else self._source.other_place()
        what = f"only {found}, which are left out" if found else "no georeference"
        warnings.warn(f"{self.path} has {what}: the result will have none", stacklevel=1)

    def warn_of_odd_values(self) -> None:
        """Look at a thumbnail: refuse or name fill values that nobody declared, warn of another scale or offset."""
        stored, valid = self._thumbnail
        image, raster = self._image(stored, valid), readers.Raster(stored, None, valid)
        if self.side.unit != "reflectance" or not image.valid.any():
            return
        for fill in fills.far(image, raster):
            if fill.value != 0 and fill.share >= _FILL_SHARE:
                warnings.warn(f"{self.path}: {fill}; give --nodata {fill.value:.9g} if so", stacklevel=1)
        for fill in fills.impossible(image, raster):
            raise RfbenchError(f"{self.path}: {fill}; declare --nodata {fill.value:.9g} if it is, or correct the scale")
        low, high = np.percentile(image.values[image.valid], [1, 99], axis=0)
        scale = f"--input-scale {self._scaling.divide[0]:g}"
        if low.min() < -0.02:
            warnings.warn(f"{self.path}: reflectance goes down to {low.min():.3g}; is --offset right?", stacklevel=1)
        elif high.max() > 2 or high.max() < 0.005:
            warnings.warn(
                f"{self.path}: with {scale}, 99 % of the reflectance lies below {high.max():.3g}, expected about 0 to "
                "1; is the scale right?",
                stacklevel=1,
            )
        elif low.min() > 0.5:
            warnings.warn(
                f"{self.path}: hardly a pixel lies below reflectance {low.min():.2g}, expected some below 0.1; is the "
                f"scale right (--input-scale, --offset; Landsat Collection 2: {LANDSAT_C2})?",
                stacklevel=1,
            )
        elif 0.1 <= low.min() < 0.2 and image.valid.sum() >= _ENOUGH_PIXELS and not self._scaling.add.any():
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
