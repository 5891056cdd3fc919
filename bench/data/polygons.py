"""Polygons as masks, with a bound on the work: a file may name thousands of polygons, each as large as its image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError
from bench.core.image import Mask

Ring = npt.NDArray[np.float64]

_COVERS_AT_MOST = 100  # times that polygons may cover the image together, by the boxes about them
_ALWAYS_PX = 10**8  # what may be covered however small the image is


def drawn(polygons: Sequence[Sequence[Ring]], size: tuple[int, int]) -> Mask:
    """The pixels whose centre lies in a polygon, bool (height, width).

    Parameters
    ----------
    polygons : of each its rings (outlines and holes), each (n, 2) of x, y in pixels from the top left corner of the
        image, first point last too.

    Raises
    ------
    RfbenchError
        If the boxes about the polygons cover the image more than a hundred times together.
    """
    from rasterio.features import rasterize

    covered = 0.0
    edges = np.array([size[1], size[0]], np.float64)
    for polygon in polygons:
        low = np.clip(np.min([ring.min(0) for ring in polygon], axis=0), 0, edges)
        high = np.clip(np.max([ring.max(0) for ring in polygon], axis=0), 0, edges)
        covered += float(np.prod(high - low))
    if covered > max(_ALWAYS_PX, _COVERS_AT_MOST * size[0] * size[1]):
        raise RfbenchError(
            f"found {len(polygons)} polygons that cover the image more than {_COVERS_AT_MOST} times together"
        )
    shapes = [{"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon]} for polygon in polygons]
    if not shapes:
        return np.zeros(size, bool)
    return np.asarray(rasterize(shapes, out_shape=size, fill=0, default_value=1, dtype="uint8"), bool)
