"""Masks of COCO annotation files: polygons and run-length codes (plain and compressed) of one image as one mask.

Why not pycocotools: it makes a whole mask of each annotation (0.1 s for a large image, and a file may hold hundreds of
thousands), draws polygons by a rule of its own instead of by the centres of pixels, and reserves for a polygon as much
memory as its coordinates are large. Here the runs of all annotations are added up at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError, one_line
from bench.core.files import read_json
from bench.core.image import Mask
from bench.data.polygons import Ring, drawn
from bench.data.readers import MAX_SAMPLES


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file: its name, its size as the file claims it, and its annotations."""

    file_name: str
    size: tuple[int, int]
    annotations: tuple[dict[str, Any], ...]

    def mask(self) -> Mask:
        """The union of the annotations, bool (height, width); RfbenchError naming the image if one is malformed."""
        # How many runs of 1 begin, less how many end, at each pixel, counted down the columns.
        steps = np.zeros(math.prod(self.size) + 1, np.int32)
        polygons: list[list[Ring]] = []
        for number, annotation in enumerate(self.annotations, 1):
            try:
                segmentation = annotation.get("segmentation")
                if isinstance(segmentation, dict):
                    starts, ends = _runs_of_1(segmentation, self.size)
                    np.add.at(steps, starts, 1)
                    np.add.at(steps, ends, -1)
                elif isinstance(segmentation, list) and segmentation:
                    polygons += _polygons(segmentation)
                else:
                    raise RfbenchError("found no segmentation, expected polygons or a run-length code")
            except RfbenchError as error:
                raise RfbenchError(
                    f"annotation {number} of '{one_line(self.file_name, 80)}': {error}; correct the COCO file"
                ) from None
        mask = (np.cumsum(steps[:-1], out=steps[:-1]) > 0).reshape(self.size, order="F")
        try:
            return mask | drawn(polygons, self.size) if polygons else np.ascontiguousarray(mask)
        except RfbenchError as error:
            raise RfbenchError(f"'{one_line(self.file_name, 80)}': {error}; correct the COCO file") from None


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


def _polygons(polygons: Iterable[Any]) -> list[list[Ring]]:
    """Each of one ring; COCO counts x, y from the corner of the top left pixel."""
    found = []
    for flat in polygons:
        numbers = flat if isinstance(flat, list) else []
        if len(numbers) < 6 or len(numbers) % 2 or not all(_finite(n) for n in numbers):
            raise RfbenchError("found a polygon that is no list of at least three x, y")
        points = np.array(numbers, np.float64).reshape(-1, 2)
        found.append([np.concatenate([points, points[:1]])])
    return found


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _runs_of_1(code: dict[str, Any], size: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where runs of 1 begin and end, from lengths of runs of 0 and 1 in turn, down the columns."""
    if code.get("size") != list(size):
        raise RfbenchError(f"found a run-length code of size {one_line(code.get('size'), 40)}, expected {list(size)}")
    counts = code.get("counts")
    runs = _unpack(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in runs):
        raise RfbenchError("found run lengths that are no whole numbers of 0 or more")
    if sum(runs) != math.prod(size):
        raise RfbenchError(f"found run lengths of {one_line(sum(runs), 30)} px together, expected {math.prod(size)}")
    ends = np.cumsum(np.array(runs, np.int64))
    return ends[: len(ends) // 2 * 2 : 2], ends[1::2]


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
