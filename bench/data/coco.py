"""Masks of COCO annotation files: polygons and run-length codes (plain and compressed) of one image as one mask."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.files import read_json
from bench.core.image import Mask
from bench.data.readers import MAX_SAMPLES


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file: its name, its size as the file claims it, and its annotations."""

    file_name: str
    size: tuple[int, int]
    annotations: tuple[dict[str, Any], ...]

    def mask(self) -> Mask:
        """The union of the annotations, bool (height, width); RfbenchError naming the image if one is malformed."""
        mask = np.zeros(self.size, bool)
        for number, annotation in enumerate(self.annotations, 1):
            try:
                mask |= _mask_of(annotation.get("segmentation"), self.size)
            except RfbenchError as error:
                raise RfbenchError(
                    f"annotation {number} of '{one_line(self.file_name, 80)}': {error}; correct the COCO file"
                ) from None
        return mask


def read_coco(path: Path) -> dict[str, CocoImage]:
    """The images of a COCO file by file name, with their annotations."""
    document = read_json(path)
    lists = [document.get(k) for k in ("images", "annotations")] if isinstance(document, dict) else [None]
    if not all(isinstance(x, list) and all(isinstance(i, dict) for i in x) for x in lists):
        raise RfbenchError(f"{path}: expected a COCO file with the lists 'images' and 'annotations'")
    images, annotations = lists
    of_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in annotations or []:
        key = annotation.get("image_id")
        if not isinstance(key, int | str):
            raise RfbenchError(f"{path}: found an annotation with the image_id {one_line(key, 40)}, expected a number")
        of_image.setdefault(key, []).append(annotation)
    found: dict[str, CocoImage] = {}
    for image in images or []:
        name, key = image.get("file_name"), image.get("id")
        size = (image.get("height"), image.get("width"))
        if not isinstance(name, str) or not isinstance(key, int | str) or not all(_whole(n) for n in size):
            raise RfbenchError(f"{path}: an image has no valid id, file_name, height and width; correct the COCO file")
        if math.prod(size) > MAX_SAMPLES:
            raise RfbenchError(f"{path}: '{one_line(name, 80)}' claims {size[0]}x{size[1]} px, expected an image")
        if name in found:
            raise RfbenchError(f"{path}: the image '{one_line(name, 80)}' comes twice; names must differ")
        found[name] = CocoImage(name, size, tuple(of_image.get(key, [])))
    return found


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _mask_of(segmentation: Any, size: tuple[int, int]) -> Mask:
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, size)
    if isinstance(segmentation, list) and segmentation:
        return _polygons(segmentation, size)
    raise RfbenchError("found no segmentation, expected polygons or a run-length code")


def _polygons(polygons: Iterable[Any], size: tuple[int, int]) -> Mask:
    """Pixels whose centre lies inside; COCO counts x, y from the corner of the top left pixel."""
    from rasterio.features import rasterize

    shapes = []
    for flat in polygons:
        numbers = flat if isinstance(flat, list) else []
        if len(numbers) < 6 or len(numbers) % 2 or not all(_finite(n) for n in numbers):
            raise RfbenchError("found a polygon that is no list of at least three x, y")
        points = [list(p) for p in zip(numbers[::2], numbers[1::2], strict=True)]
        shapes.append({"type": "Polygon", "coordinates": [[*points, points[0]]]})
    return np.asarray(rasterize(shapes, out_shape=size, fill=0, default_value=1, dtype="uint8"), bool)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _run_lengths(code: dict[str, Any], size: tuple[int, int]) -> Mask:
    """Lengths of runs of 0 and 1 in turn, down the columns."""
    if code.get("size") != list(size):
        raise RfbenchError(f"found a run-length code of size {one_line(code.get('size'), 40)}, expected {list(size)}")
    counts = code.get("counts")
    runs = _unpack(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in runs):
        raise RfbenchError("found run lengths that are no whole numbers of 0 or more")
    if sum(runs) != math.prod(size):
        raise RfbenchError(f"found run lengths of {one_line(sum(runs), 30)} px together, expected {math.prod(size)}")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(size, order="F")


def _unpack(text: str) -> list[int]:
    """The compressed form: groups of 5 bits as characters from '0' on, from the third run on as differences."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            group = ord(text[at]) - 48 if at < len(text) else -1
            if not 0 <= group < 64 or shift > 35:
                raise RfbenchError("found a compressed run-length code that is cut or has foreign characters")
            value |= (group & 0x1F) << shift
            more, shift, at = bool(group & 0x20), shift + 5, at + 1
        if group & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
