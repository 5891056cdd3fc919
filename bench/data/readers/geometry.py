"""Where a file's pixels lie: any grid that is a plane, rotated, south-up or fixed by control points too."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError, one_line

Points = npt.NDArray[np.float64]
_FEWEST_POINTS = 3


@dataclass(frozen=True)
class Georeference:
    """Where a file's pixels lie.

    Attributes
    ----------
    crs : of the map, None for a grid of its own.
    transform : a, b, c, d, e, f of x = a column + b row + c and y = d column + e row + f, from the outer corner of the
        first pixel (the pixel's centre of a PixelIsPoint file lies half a pixel inside).
    size : (height, width) in pixels.
    pixel_m : (height, width) of a pixel in metres, None where the map's unit is unknown.
    by_points : whether the transform was fitted to ground control points.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]
    size: tuple[int, int]
    pixel_m: tuple[float, float] | None
    by_points: bool = False

    @classmethod
    def north_up(
        cls,
        crs: str | None,
        bounds: tuple[float, float, float, float],
        size: tuple[int, int],
        pixel_m: tuple[float, float] | None = None,
    ) -> Georeference:
        """The grid of ``size`` in (left, bottom, right, top)."""
        left, bottom, right, top = bounds
        return cls(crs, ((right - left) / size[1], 0.0, left, 0.0, (bottom - top) / size[0], top), size, pixel_m)

    @property
    def corners(self) -> Points:
        """x, y of the corners (4, 2): those of the first row's begin and end, then the last row's end and begin."""
        h, w = self.size
        return self.at(np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float64))

    def at(self, pixels: Points) -> Points:
        """x, y (n, 2) of places (column, row) (n, 2)."""
        a, b, c, d, e, f = self.transform
        return np.column_stack([a * pixels[:, 0] + b * pixels[:, 1] + c, d * pixels[:, 0] + e * pixels[:, 1] + f])

    def pixels(self, places: Points) -> Points:
        """Columns and rows (n, 2) of places x, y (n, 2)."""
        a, b, c, d, e, f = self.transform
        x, y = places[:, 0] - c, places[:, 1] - f
        determinant = a * e - b * d
        return np.column_stack([(e * x - b * y) / determinant, (a * y - d * x) / determinant])

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of what the corners span."""
        low, high = self.corners.min(axis=0), self.corners.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def is_south_up(self) -> bool:
        """Whether rows run from south to north."""
        return self.transform[4] > 0 and self.transform[1] == 0 == self.transform[3]


def of(file: Any, path: Path) -> Georeference | None:
    """The georeference of an opened rasterio dataset and what lies beside it; None where there is none.

    Raises RfbenchError for one that GDAL or PROJ cannot read.
    """
    from bench.data.readers import sidecars

    try:
        crs, grid, by_points = file.crs, tuple(map(float, tuple(file.transform)[:6])), False
        if file.transform.is_identity and file.gcps[0]:
            fitted = _fitted(file.gcps[0])
            if fitted is None:
                return None
            crs, grid, by_points = file.gcps[1], fitted, True
        elif file.transform.is_identity:
            beside = sidecars.notes(path)
            if beside.transform is not None:  # GDAL's order
                c, a, b, f, d, e = beside.transform
                crs, grid = beside.crs or crs, (a, b, c, d, e, f)
            else:
                found = sidecars.world(path)
                if found is None:
                    return None
                c, a, b, f, d, e = found
                grid = (a, b, c, d, e, f)
        return _checked(crs, grid, (file.height, file.width), by_points)
    except RfbenchError:
        raise
    except Exception as error:  # whatever GDAL and PROJ meet in a broken header
        raise RfbenchError(
            f"{path}: its georeference cannot be read ({type(error).__name__}: {one_line(error, 100)}); write it again"
        ) from error


def _checked(crs: Any, grid: Sequence[float], size: tuple[int, int], by_points: bool) -> Georeference | None:
    import rasterio

    a, b, c, d, e, f = grid
    if not all(map(math.isfinite, grid)) or not math.isfinite(a * e - b * d) or a * e - b * d == 0:
        return None
    if isinstance(crs, str):
        crs = rasterio.crs.CRS.from_string(crs)
    metres: tuple[float, float] | None = (math.hypot(b, e), math.hypot(a, d))
    if crs is not None and crs.is_geographic:
        place = Georeference(None, (a, b, c, d, e, f), size, None)
        latitude = np.deg2rad((place.bounds[1] + place.bounds[3]) / 2)
        metres = (math.hypot(b, e) * 110_574.0, math.hypot(a, d) * 111_320.0 * float(np.cos(latitude)))
    elif crs is not None:
        to_metres = _metres_of(crs)
        metres = None if to_metres is None else (math.hypot(b, e) * to_metres, math.hypot(a, d) * to_metres)
    found = Georeference(crs.to_string() if crs is not None else None, (a, b, c, d, e, f), size, metres, by_points)
    return found if np.isfinite(found.corners).all() else None


def _metres_of(crs: Any) -> float | None:
    """The metres of a map's unit; None for a grid of somebody's own (LOCAL_CS), whose unit PROJ does not tell."""
    try:
        return float(crs.linear_units_factor[1])
    except Exception:  # GDAL has a class of its own for it
        return None


def _fitted(points: Sequence[Any]) -> tuple[float, ...] | None:
    """The plane of least squares through ground control points; None where they do not fix one."""
    places = np.array([(p.col, p.row, 1.0) for p in points], np.float64)
    targets = np.array([(p.x, p.y) for p in points], np.float64)
    if len(places) < _FEWEST_POINTS or not np.isfinite(targets).all() or np.linalg.matrix_rank(places) < 3:
        return None
    solution, *_ = np.linalg.lstsq(places, targets, rcond=None)
    (a, d), (b, e), (c, f) = solution
    return (float(a), float(b), float(c), float(d), float(e), float(f))


def brought(points: Points, source: str | None, target: str | None) -> Points:
    """Places x, y (n, 2) of one CRS in another. RfbenchError where PROJ cannot."""
    if source == target or source is None or target is None:
        return points
    from rasterio.warp import transform

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x, y = transform(source, target, points[:, 0].tolist(), points[:, 1].tolist())
    except Exception as error:  # GDAL and PROJ have classes of their own for a CRS that they cannot take
        raise RfbenchError(one_line(error, 80)) from None
    found = np.column_stack([x, y])
    if not np.isfinite(found).all():
        raise RfbenchError("a place has no coordinates there")
    return found


def overlap(first: Points, second: Points) -> float:
    """The area that two convex outlines (n, 2) share, as a share of the larger one."""
    shared = first if _area(first) > 0 else first[::-1]
    clip = second if _area(second) > 0 else second[::-1]
    for start, end in zip(clip, np.roll(clip, -1, axis=0), strict=True):
        if not len(shared):
            return 0.0
        edge = end - start
        side = edge[0] * (shared[:, 1] - start[1]) - edge[1] * (shared[:, 0] - start[0])
        kept: list[Any] = []
        for i, (here, before) in enumerate(zip(shared, np.roll(shared, 1, axis=0), strict=True)):
            was, now = side[i - 1], side[i]
            if (was >= 0) != (now >= 0):
                kept.append(before + (here - before) * (was / (was - now)))
            if now >= 0:
                kept.append(here)
        shared = np.array(kept).reshape(-1, 2)
    largest = max(abs(_area(first)), abs(_area(second)))
    return abs(_area(shared)) / largest if len(shared) > 2 and largest > 0 else 0.0


def _area(outline: Points) -> float:
    x, y = (outline - outline.mean(axis=0)).T
    return float(0.5 * (x * np.roll(y, -1) - y * np.roll(x, -1)).sum())


TURNS = {
    (0, 1, 2, 3): "", (3, 2, 1, 0): "upside down", (1, 0, 3, 2): "mirrored", (2, 3, 0, 1): "turned by 180 degrees",
    (1, 2, 3, 0): "turned by 90 degrees", (3, 0, 1, 2): "turned by 90 degrees",
    (0, 3, 2, 1): "turned and mirrored", (2, 1, 0, 3): "turned and mirrored",
}  # fmt: skip
"""What the order of corners says of two images of the same ground: the corner of one at each corner of the other."""
