"""Polygons of an ESRI shapefile (``.shp`` and ``.prj``), as the technical description of July 1998 lays them out.

Only what masks need: rings and the CRS. Attributes (``.dbf``) and the index (``.shx``) are not read.

Why not pyshp: a record whose length is negative leads it back to where it was, for ever; where a polygon's rings begin
it does not look at; and points become a million tuples. With the walk over the records and the checks of the rings that
would have to stand before it, nothing would be saved. pyogrio brings a GDAL of its own, whose readers are many.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.files import read_text
from bench.core.image import Mask
from bench.data.polygons import Ring, drawn

MAX_BYTES = 2**24
MAX_POLYGONS = 10_000  # more of them, each as large as the image, would take minutes to draw
_MAX_PX = 1e6
_LONGEST_WKT = 20_000
_TYPES = {5: "Polygon", 15: "PolygonZ", 25: "PolygonM"}  # x and y lie at the same place in all three
_HEADER_BYTES = 100


@dataclass(frozen=True)
class Polygons:
    """The polygons of a file.

    Attributes
    ----------
    rings : for each polygon its rings (outlines and holes), each float64 (n, 2) of x, y, first point last too.
    crs : WKT of the ``.prj`` file; None where there is none.
    """

    rings: tuple[tuple[Ring, ...], ...]
    crs: str | None

    def mask(self, size: tuple[int, int], crs: str, bounds: tuple[float, float, float, float]) -> Mask:
        """The pixels whose centre lies in a polygon, bool (height, width).

        ``bounds`` is (left, bottom, right, top) of the whole image in ``crs``. Polygons without a CRS of their own are
        taken to be in that one. Raises RfbenchError for a CRS that cannot be brought to it, and for polygons that lie
        nowhere near the image.
        """
        left, bottom, right, top = bounds
        pixel = np.array([(right - left) / size[1], (bottom - top) / size[0]])
        shapes: list[list[Ring]] = []
        for polygon in self._in(crs):
            in_px = [(ring - (left, top)) / pixel for ring in polygon]
            if not all((np.abs(ring) < _MAX_PX).all() for ring in in_px):
                raise RfbenchError("its polygons lie nowhere near the image; look at its CRS")
            shapes.append(in_px)
        return drawn(shapes, size)

    def _in(self, crs: str) -> tuple[tuple[Ring, ...], ...]:
        """The rings in another CRS."""
        if self.crs is None or not self.rings:
            return self.rings
        from rasterio.crs import CRS
        from rasterio.warp import transform

        points = np.concatenate([ring for polygon in self.rings for ring in polygon])
        try:
            own, wanted = CRS.from_wkt(self.crs), CRS.from_string(crs)
            x, y = (points[:, 0], points[:, 1]) if own == wanted else transform(own, wanted, *points.T.tolist())
        except Exception as error:  # GDAL and PROJ have classes of their own for a CRS or a place that they cannot take
            raise RfbenchError(f"its CRS cannot be brought to that of the image: {one_line(error, 100)}") from None
        moved = np.stack([x, y], axis=1)
        if not np.isfinite(moved).all():
            raise RfbenchError("its polygons lie outside of what the CRS of the image covers")
        lengths = np.cumsum([len(ring) for polygon in self.rings for ring in polygon])
        parts = iter(np.split(moved, lengths[:-1]))
        return tuple(tuple(next(parts) for _ in polygon) for polygon in self.rings)


def read_polygons(path: Path) -> Polygons:
    """The polygons of a shapefile; records without a shape are passed over.

    Raises
    ------
    RfbenchError
        If the file is missing, larger than 16 MiB, cut or malformed, or holds other shapes than polygons.
    """
    try:
        if not path.is_file():
            raise RfbenchError(f"{path} is missing")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RfbenchError(f"{path} holds {size} bytes, expected at most {MAX_BYTES}; simplify its polygons")
        data = path.read_bytes()
        projection = path.with_suffix(".prj")
        crs = read_text(projection)[:_LONGEST_WKT].strip() if projection.is_file() else ""
        rings = _records(data)
    except (struct.error, ValueError) as error:
        raise RfbenchError(f"{path} is no readable shapefile ({one_line(error, 100)}); save it again") from None
    except OSError as error:
        raise RfbenchError(f"{path} cannot be read ({error.strerror}); allow reading it") from None
    return Polygons(rings, crs or None)


def _records(data: bytes) -> tuple[tuple[Ring, ...], ...]:
    code, kind = struct.unpack_from(">i", data)[0], struct.unpack_from("<i", data, 32)[0]
    if code != 9994:
        raise ValueError("it does not begin as one")
    if kind not in _TYPES:
        raise ValueError(f"found shapes of type {kind}, expected polygons")
    found, at = [], _HEADER_BYTES
    while at < len(data):
        words = struct.unpack_from(">ii", data, at)[1]
        content = data[at + 8 : at + 8 + 2 * words]
        if words < 2 or len(content) < 2 * words:
            raise ValueError("it is cut inside of a record")
        at += 8 + 2 * words
        if struct.unpack_from("<i", content)[0]:  # 0 is a record without a shape
            found.append(_polygon(content))
        if len(found) > MAX_POLYGONS:
            raise ValueError(f"found more than {MAX_POLYGONS} polygons")
    return tuple(found)


def _polygon(content: bytes) -> tuple[Ring, ...]:
    """Type, box, numbers of rings and points, the rings' first points, then all points."""
    kind, parts, points = struct.unpack_from("<i32xii", content)
    if kind not in _TYPES:
        raise ValueError(f"found a shape of type {kind}, expected polygons")
    if not 0 < parts <= points or 44 + 4 * parts + 16 * points > len(content):
        raise ValueError(f"found a polygon of {parts} rings and {points} points in {len(content)} bytes")
    starts = np.frombuffer(content, "<i4", parts, 44).tolist()
    xy = np.frombuffer(content, "<f8", 2 * points, 44 + 4 * parts).reshape(-1, 2)
    if starts[0] != 0 or sorted(set(starts)) != starts or starts[-1] >= points or not np.isfinite(xy).all():
        raise ValueError("found a polygon whose rings or points make no sense")
    rings = []
    for first, last in zip(starts, [*starts[1:], points], strict=True):
        ring = xy[first:last]
        ring = ring if (ring[0] == ring[-1]).all() else np.concatenate([ring, ring[:1]])
        if len(ring) < 4:
            raise ValueError("found a ring of fewer than three points")
        rings.append(ring)
    return tuple(rings)
