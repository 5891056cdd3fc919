"""Masks of many annotations: the work is bounded by the file and the image, not by their product."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from bench.core.errors import RfbenchError
from bench.data.coco import read_coco
from bench.data.polygons import drawn
from tests.unit.test_layouts import UTM8, box, shapefile


def test_thousands_of_full_size_run_length_codes_cost_no_more_than_their_runs(tmp_path: Path) -> None:
    side, count = 3000, 5000
    runs = [[k, 1, side * side - k - 1] for k in range(count)]
    annotations = [{"image_id": 1, "segmentation": {"size": [side, side], "counts": counts}} for counts in runs]
    image = {"id": 1, "file_name": "x.jpg", "height": side, "width": side}
    (tmp_path / "c.json").write_text(json.dumps({"images": [image], "annotations": annotations}))
    began = time.perf_counter()
    mask = read_coco(tmp_path / "c.json")["x.jpg"].mask()
    assert time.perf_counter() - began < 3
    assert mask.sum() == count and mask[:side, 0].all()


def test_many_polygons_as_large_as_the_image_are_refused_before_they_are_drawn(tmp_path: Path) -> None:
    side = 4000
    whole = [0, 0, side, 0, side, side, 0, side]
    annotations = [{"image_id": 1, "segmentation": [whole] * 500}]
    image = {"id": 1, "file_name": "x.jpg", "height": side, "width": side}
    (tmp_path / "c.json").write_text(json.dumps({"images": [image], "annotations": annotations}))
    began = time.perf_counter()
    with pytest.raises(RfbenchError, match=r"'x\.jpg': found 500 polygons that cover the image more than 100 times"):
        read_coco(tmp_path / "c.json")["x.jpg"].mask()
    assert time.perf_counter() - began < 2
    import bench.data.shapefile as polygons_of

    shapefile(tmp_path / "a.shp", [[box(0, 0, 40000, 40000)]] * 500, None)
    with pytest.raises(RfbenchError, match="cover the image more than 100 times"):
        polygons_of.read_polygons(tmp_path / "a.shp").mask((side, side), UTM8, (0, 0, 40000, 40000))


def test_small_polygons_are_drawn_however_many_there_are() -> None:
    squares = [[box(x, y, x + 1, y + 1)] for x in range(0, 60, 2) for y in range(0, 40, 2)]
    expected = np.zeros((40, 60), bool)
    expected[::2, ::2] = True
    np.testing.assert_array_equal(drawn(squares * 20, (40, 60)), expected)
    assert not drawn([], (4, 5)).any()
    assert not drawn([[box(100, 100, 200, 200)]], (40, 60)).any()
