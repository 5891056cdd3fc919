"""Upscaling georeferenced images: tiles, grids, holes, what numbers mean, and what a failure leaves behind."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from rasterio.crs import CRS
from rasterio.transform import from_origin

from bench.core import registry
from bench.core.errors import RfbenchError
from bench.core.image import RGB, Image
from bench.core.resample import resize
from bench.data.dataset import Pair, Record, Side
from bench.data.normalise import Normalisation
from bench.models import Adapter, Batch, ModelSpec, Prediction
from bench.models.call import Answer, Model
from bench.models.tiling import spans
from bench.protocols.base import Task
from bench.protocols.paired import Paired
from bench.score.estimates import estimates
from bench.upscale import upscale
from bench.upscale.percentiles import exact_percentiles
from bench.upscale.seams import Axis, Seams
from tests.conftest import ROOT, picture

UTM = CRS.from_epsg(32608)
GRID = from_origin(470890, 7550020, 10, 10)

pytestmark = pytest.mark.filterwarnings("error::UserWarning:bench.*")


def write(path: Path, values: np.ndarray, names: str = "B02 B03 B04 B08", **profile: Any) -> Path:
    """A GeoTIFF of (H, W, C) numbers, named and georeferenced unless told otherwise."""
    mask = profile.pop("mask", None)
    profile = {"crs": UTM, "transform": GRID} | profile
    h, w, c = values.shape
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", height=h, width=w, count=c, dtype=values.dtype, **profile
        ) as file:
            file.write(np.moveaxis(values, 2, 0))
            if names:
                file.descriptions = tuple(names.split())
            if mask is not None:
                file.write_mask(mask)
    return path


def numbers(seed: int, h: int, w: int, channels: int = 4) -> np.ndarray:
    """Sentinel-2's numbers of a smooth picture, uint16 (h, w, channels)."""
    return (picture(seed, h, w, channels) * 3000).astype(np.uint16)


def read(path: Path) -> np.ndarray:
    """The bands of a file as (H, W, C)."""
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, 2)


def whole_task(values: np.ndarray, scale: float, name: str, normalisation: str = "fixed[0,3000]") -> Task:
    """What ``rfbench run`` would ask of a model for the same image."""
    lr = Image(
        (values / 1e4).astype(np.float32), "reflectance", ("B", "G", "R", "NIR"), np.ones(values.shape[:2], bool)
    )
    sides = {"lr": Side(normalisation=normalisation), "hr": Side()}
    return Paired(scale=scale).prepare(Pair(Record(name, name, sides=sides), lr, None))


def whole_display(model: Model, task: Task, draws: int = 1, seed: int = 0) -> dict[str, Any]:
    """What metrics would see of the model's answer to the whole image."""
    (answer,) = model.predict([task], run_seed=seed, draws=draws)
    assert isinstance(answer, Answer), str(answer)
    return estimates(answer, task, Paired(quantise=8))


class Toned(Adapter):
    """Answers in display range as it is, with a deviation and a map, and says what that range is."""

    sides: tuple[Side | None, Side | None] = (None, None)

    def input_side(self) -> Side | None:
        return self.sides[0]

    def output_side(self) -> Side | None:
        return self.sides[1]

    def upscale(self, batch: Batch) -> Prediction:
        mean = np.stack([resize(i, batch.size) for i in batch.images])
        return Prediction(mean=mean, std=np.full_like(mean, 0.1), maps={"v": mean[..., 0] * 2})


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Adapter]], type[Any]]:
    """Makes an adapter the model ``mine`` for this test."""

    def make(adapter: type[Adapter]) -> type[Any]:
        fresh = type("Mine", (adapter,), {})
        module = ModuleType("upscale_example")
        module.Mine = fresh  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "upscale_example", module)
        spec = ModelSpec(name="mine", adapter="upscale_example:Mine")
        monkeypatch.setattr(registry, "load", lambda kind, name: spec if name == "mine" else load(kind, name))
        return fresh

    load = registry.load
    return make


# --- tiles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "w"), [(1, 1), (30, 40), (7, 90)])
def test_an_image_in_one_tile_is_the_benchmark_s_image(tmp_path: Path, h: int, w: int) -> None:
    values = numbers(1, h, w)
    upscale(write(tmp_path / "a.tif", values), tmp_path / "b.tif", model="bicubic", tile=90)
    display = whole_display(Model("bicubic"), whole_task(values, 5, "a"))["sample"].display
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), np.rint(display * 255))


@pytest.mark.parametrize("scale", [5.0, 2.5, 4.03])
def test_tiles_are_blended_as_the_sealed_call_blends_them(tmp_path: Path, scale: float, plugin: Path) -> None:
    values = numbers(2, 80, 112)
    upscale(
        write(tmp_path / "a.tif", values), tmp_path / "b.tif", model="noisy", scale=scale, tile=48, seed=3, draws=3,
        uncertainty=True, output="float",
    )  # fmt: skip
    model = Model("noisy")
    model.spec = replace(model.spec, max_side_px=48)  # Model tiles the image itself, with the same tiles
    found = whole_display(model, whole_task(values, scale, "a"), draws=3, seed=3)["sample"]
    result = read(tmp_path / "b.tif")
    np.testing.assert_allclose(result[:, :, :3], found.display_float, atol=2e-7)
    np.testing.assert_allclose(result[:, :, 3], np.sqrt((found.std.astype(float) ** 2).mean(axis=2)), atol=1e-6)


def test_noise_belongs_to_the_place_and_not_to_the_tile(tmp_path: Path, plugin: Path) -> None:
    source = write(tmp_path / "a.tif", numbers(3, 64, 80))
    results = {}
    for tile in (80, 32):
        upscale(source, tmp_path / "b.tif", model="noisy:amount=0.2", scale=2, tile=tile, output="float")
        results[tile] = read(tmp_path / "b.tif")
    inner = np.abs(results[80] - results[32])
    # The model filters within its tile, so edges of tiles differ a little; other noise would differ by 0.1.
    assert inner.mean() < 0.005
    upscale(source, tmp_path / "b.tif", model="noisy:amount=0.2", scale=2, tile=80, output="float", seed=1)
    assert np.abs(read(tmp_path / "b.tif") - results[80]).mean() > 0.05


@pytest.mark.parametrize(("cell", "scale", "tile"), [(4, 5, 21), (8, 5, 40), (4, 3, 25), (8, 2.5, 43)])
def test_noise_in_cells_of_a_latent_is_seamless(
    tmp_path: Path, register: Any, cell: int, scale: float, tile: int
) -> None:
    class Cells(Adapter):
        def upscale(self, batch: Batch) -> Prediction:
            size = -(-batch.size[0] // cell), -(-batch.size[1] // cell)
            noise = batch.noise(3, batch.size[0] / batch.images.shape[1] / cell, size)[:, 0]
            mean = 0.5 + 0.1 * noise.repeat(cell, axis=1).repeat(cell, axis=2)
            return Prediction(mean=np.clip(mean[:, : batch.size[0], : batch.size[1]], 0, 1).astype(np.float32))

    register(Cells)
    source = write(tmp_path / "a.tif", numbers(0, 70, 102))
    whole, tiled = (
        read(upscale(source, tmp_path / "b.tif", model="mine", scale=scale, output="float", tile=side))
        for side in (102, tile)
    )
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


@pytest.mark.parametrize(
    ("h", "w", "scale", "tile", "overlap"), [(50, 61, 3, 16, 8), (33, 40, 2.5, 20, 5), (9, 90, 5, 8, 4)]
)
def test_seams_give_each_pixel_once_and_hold_little(h: int, w: int, scale: float, tile: int, overlap: int) -> None:
    size = round(h * scale), round(w * scale)
    rows, columns = spans(h, size[0], tile, overlap), spans(w, size[1], tile, overlap)
    rng = np.random.default_rng(0)
    left_out = {(0, 0), (len(rows) - 1, 1)}
    total, weight, seen = np.zeros((*size, 2)), np.zeros(size), np.zeros(size, int)
    result = np.full((*size, 2), np.nan)
    seams = Seams(rows, columns)
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            shape = (row.out_stop - row.out_start, column.out_stop - column.out_start)
            layers = rng.random((*shape, 2)).astype(np.float32) if (r, c) not in left_out else None
            if layers is not None:  # the weights written down again: 1, and linear in the overlap with each neighbour
                share = np.outer(*(_triangle(axis, i) for axis, i in ((rows, r), (columns, c))))
                where = np.s_[row.out_start : row.out_stop, column.out_start : column.out_stop]
                total[where] += layers * share[:, :, None]
                weight[where] += share
            finished = seams.add(r, c, layers)
            if finished is not None:
                values, covered = finished
                place = np.s_[
                    row.out_start : row.out_start + len(values), column.out_start : column.out_start + values.shape[1]
                ]
                result[place] = np.where(covered[:, :, None], values, np.nan)
                seen[place] += 1
    assert seen.max() == 1 and (seen[weight > 0] == 1).all()
    np.testing.assert_array_equal(np.isfinite(result[:, :, 0]), weight > 0)
    np.testing.assert_allclose(
        result[weight > 0], (total / np.maximum(weight, 1e-9)[:, :, None])[weight > 0], atol=1e-5
    )


def _triangle(axis: list[Any], i: int) -> np.ndarray:
    span, n = axis[i], axis[i].out_stop - axis[i].out_start
    up = axis[i - 1].out_stop - span.out_start if i else 0
    down = span.out_stop - axis[i + 1].out_start if i + 1 < len(axis) else 0
    x = np.arange(n) + 0.5
    return np.minimum(1, x / up if up else 1) * np.minimum(1, (n - x) / down if down else 1)


@pytest.mark.parametrize("length", [257, 300, 499, 1000, 3000])
def test_no_more_than_the_overlap_waits(length: int) -> None:
    axis = Axis(length, 5 * length, 256, 16)
    for before, after in pairwise(axis.parts):
        assert 0 < before.out_stop - after.out_start <= 5 * 24  # the overlap, and at most one step of 8 px
    assert axis.parts[-1].out_stop == 5 * length and axis.tiles[-1].stop - axis.tiles[-1].start > 256 - 8


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    peaks = []
    for i, h in enumerate((64, 64, 640)):
        source = write(tmp_path / "a.tif", numbers(0, 64, 64)[np.arange(h) % 64])
        tracemalloc.start()
        upscale(source, tmp_path / "b.tif", model="nearest", tile=32)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert read(tmp_path / "b.tif").shape == (5 * h, 320, 3), i
    assert peaks[2] < 1.1 * peaks[1]  # the first call pays for imports


# --- the grid -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transform",
    [
        GRID,
        Affine.translation(5e5, 7e6) * Affine.rotation(23) * Affine.scale(10, -10.0),
        Affine(1e-4, 0, -135, 0, -2e-4, 68),
    ],
)
@pytest.mark.parametrize("scale", [5, 2.7])
def test_the_outline_stays(tmp_path: Path, transform: Affine, scale: float) -> None:
    upscale(
        write(tmp_path / "a.tif", numbers(0, 13, 29), transform=transform),
        tmp_path / "b.tif",
        model="nearest",
        scale=scale,
    )
    with rasterio.open(tmp_path / "a.tif") as lr, rasterio.open(tmp_path / "b.tif") as hr:
        assert hr.crs == UTM and hr.shape == (round(13 * scale), round(29 * scale))
        for x, y in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            corners = [np.array(f.transform * (x * f.width, y * f.height)) for f in (lr, hr)]
            np.testing.assert_allclose(corners[1], corners[0], rtol=1e-9)
        if transform == GRID and scale == 5:
            assert hr.res == (2, 2) and hr.bounds == lr.bounds


def test_an_image_without_a_georeference_works_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", numbers(0, 6, 6), crs=None, transform=None)
    with pytest.warns(UserWarning, match="no georeference: the result will have none"):
        upscale(tmp_path / "a.tif", tmp_path / "b.tif", model="nearest")
    points = [rasterio.control.GroundControlPoint(r, c, 10.0 * c, 10.0 * r) for r in (0, 6) for c in (0, 6)]
    write(tmp_path / "c.tif", numbers(0, 6, 6), transform=None, crs=UTM, gcps=points)
    with pytest.warns(UserWarning, match="only ground control points"):
        upscale(tmp_path / "c.tif", tmp_path / "b.tif", model="nearest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(tmp_path / "b.tif").shape == (30, 30, 3)


def test_the_file_says_what_it_is(tmp_path: Path, plugin: Path) -> None:
    source = write(tmp_path / "a.tif", numbers(0, 12, 12))
    upscale(source, tmp_path / "b.tif", model="noisy", caption="a slump by a river; schön", seed=7)
    with rasterio.open(tmp_path / "b.tif") as file:
        tags = file.tags()
        assert file.descriptions == RGB and [c.name for c in file.colorinterp] == ["red", "green", "blue"]
        assert file.profile["tiled"] and file.profile["compress"] == "deflate"
    expected = {"MODEL": "noisy", "SEED": "7", "CAPTION": "a slump by a river; schön", "SCALE": "5", "IMAGE_ID": "a"}
    assert {k: tags[f"RFBENCH_{k}"] for k in expected} == expected
    assert len(tags["RFBENCH_IDENTITY"]) == 64 and '"fixed[0,3000]"' in tags["RFBENCH_NORMALISATION"]
    upscale(source, tmp_path / "c.tif", model="noisy:amount=0.1")
    with rasterio.open(tmp_path / "c.tif") as file:
        assert file.tags()["RFBENCH_IDENTITY"] != tags["RFBENCH_IDENTITY"]
    assert sorted(p.name for p in tmp_path.glob("*.tif*")) == ["a.tif", "b.tif", "c.tif"]  # nothing beside the files


# --- holes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nodata", "mask", "nan", "alpha", "option"])
@pytest.mark.parametrize("output", ["display", "reflectance", "float"])
def test_holes_stay_holes_and_do_not_bleed(tmp_path: Path, kind: str, output: Any) -> None:
    values = np.full((64, 60, 3), 750, np.uint16)
    hole = np.zeros((64, 60), bool)
    hole[:40, :44] = hole[50, 50] = True
    holed = np.where(hole[:, :, None], 0, values).astype(np.uint16)
    profile: dict[str, Any] = {}
    if kind == "nodata":
        profile["nodata"] = 0
    elif kind == "mask":
        profile["mask"] = ~hole
    elif kind == "nan":
        holed, profile["nodata"] = np.where(hole[:, :, None], np.nan, values / 1e4).astype(np.float32), np.nan
    elif kind == "alpha":
        holed = np.concatenate([holed, np.where(hole, 0, 65535)[:, :, None].astype(np.uint16)], axis=2)
        profile |= {"photometric": "RGB", "ALPHA": "YES"}
    write(tmp_path / "a.tif", holed, names="" if kind == "alpha" else "R G B", **profile)
    calls = _count_calls(lambda: upscale(
        tmp_path / "a.tif", tmp_path / "b.tif", model="bicubic", tile=20, output=output,
        nodata=0 if kind == "option" else None,
    ))  # fmt: skip
    tiles = [(r, c) for r in Axis(64, 320, 20, 10).tiles for c in Axis(60, 300, 20, 10).tiles]
    full = sum(not hole[r.start : r.stop, c.start : c.stop].all() for r, c in tiles)
    assert calls == full < len(tiles)  # empty tiles were not predicted
    with rasterio.open(tmp_path / "b.tif") as file:
        result, valid = np.moveaxis(file.read(), 0, 2), file.dataset_mask() > 0
    np.testing.assert_array_equal(valid, ~hole.repeat(5, 0).repeat(5, 1))
    expected = {"display": 64, "reflectance": 750, "float": 0.25}[output]
    np.testing.assert_allclose(result[valid], expected, rtol=1e-6)


def _count_calls(do: Any) -> int:
    from baselines.interpolation import Bicubic

    count, original = [0], Bicubic.upscale

    def counted(self: Bicubic, batch: Batch) -> Prediction:
        count[0] += 1
        return original(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bicubic, "upscale", counted)
        do()
    return count[0]


def test_a_whole_image_has_no_mask_and_black_is_a_colour(tmp_path: Path) -> None:
    values = np.zeros((9, 9, 3), np.uint16)
    values[4:] = 3000
    upscale(write(tmp_path / "a.tif", values, "R G B"), tmp_path / "b.tif", model="nearest")
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.nodata is None and (file.dataset_mask() == 255).all() and file.read().min() == 0
    upscale(write(tmp_path / "a.tif", values, "R G B", mask=values[:, :, 0] >= 0), tmp_path / "b.tif", model="nearest")
    with rasterio.open(tmp_path / "b.tif") as file:
        assert (file.dataset_mask() == 255).all()


def test_a_nir_band_that_gdal_calls_alpha_makes_no_holes(tmp_path: Path) -> None:
    values = np.full((9, 9, 4), 90, np.uint8)
    values[:4, :, 3] = 0  # dark water
    with rasterio.open(write(tmp_path / "a.tif", values, "R G B NIR")) as file:
        assert (file.dataset_mask() == 0).any()
    upscale(tmp_path / "a.tif", tmp_path / "b.tif", model="nearest", unit="display")
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.nodata is None and (file.dataset_mask() == 255).all()


# --- what the numbers mean ------------------------------------------------------------------------------------


def test_reflectance_comes_back_as_it_was(tmp_path: Path) -> None:
    values = numbers(4, 20, 24)
    values[0, 0] = 0  # below 1 there is no data: the darkest number is 1
    values[1, 1] = 65535
    source = write(tmp_path / "a.tif", values)
    upscale(source, tmp_path / "b.tif", model="nearest", scale=1, output="reflectance")
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), np.maximum(values, 1))
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.descriptions == ("B", "G", "R", "NIR") and file.nodata == 0 and set(file.scales) == {1e-4}
        assert [c.name for c in file.colorinterp] == ["blue", "green", "red", "undefined"]
    # What was written is read again with its own scale.
    upscale(tmp_path / "b.tif", tmp_path / "c.tif", model="nearest", scale=1, output="reflectance")
    np.testing.assert_array_equal(read(tmp_path / "c.tif"), read(tmp_path / "b.tif"))


def test_scale_and_offset(tmp_path: Path) -> None:
    values = numbers(5, 8, 8)
    upscale(write(tmp_path / "a.tif", values), tmp_path / "a5.tif", model="nearest")
    expected = read(tmp_path / "a5.tif")
    shifted = write(tmp_path / "b.tif", values + np.uint16(1000))
    upscale(shifted, tmp_path / "b5.tif", model="nearest", offset=-1000)
    np.testing.assert_array_equal(read(tmp_path / "b5.tif"), expected)
    with rasterio.open(shifted, "r+") as file:
        file.scales, file.offsets = (1e-4,) * 4, (-0.1,) * 4
    upscale(shifted, tmp_path / "b5.tif", model="nearest")  # the file's own word holds
    np.testing.assert_array_equal(read(tmp_path / "b5.tif"), expected)
    upscale(write(tmp_path / "c.tif", (values / 1e4).astype(np.float32)), tmp_path / "c5.tif", model="nearest")
    np.testing.assert_array_equal(read(tmp_path / "c5.tif"), expected)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda v: (v / 500).astype(np.float32), {}, "expected about 0 to 1; is the scale right"),
        (lambda v: (v / 1e4).astype(np.float32), {"input_scale": 1e4}, "is the scale right"),
        (lambda v: v + 1000, {}, "use --offset -1000"),
        (lambda v: v, {"offset": -3000.0}, "is --offset right"),
    ],
)  # fmt: skip
def test_odd_values_are_pointed_out(tmp_path: Path, change: Any, options: dict[str, Any], message: str) -> None:
    source = write(tmp_path / "a.tif", change(numbers(6, 40, 40)))
    with pytest.warns(UserWarning, match=message) as caught:
        upscale(source, tmp_path / "b.tif", model="nearest", **options)
    assert len([w for w in caught if w.category is UserWarning]) == 1


def test_pictures_and_relative_numbers(tmp_path: Path) -> None:
    values = (picture(7, 9, 9) * 255).astype(np.uint8)
    source = write(tmp_path / "a.tif", values, "")
    with pytest.raises(RfbenchError, match=r"8-bit numbers .* if it is a picture, use --unit display"):
        upscale(source, tmp_path / "b.tif", model="nearest")
    upscale(source, tmp_path / "b.tif", model="nearest", scale=1, unit="display")
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), values)
    upscale(source, tmp_path / "b.tif", model="nearest", scale=1, unit="relative", output="float")
    image = Image(values.astype(np.float32), "relative", RGB, np.ones((9, 9), bool))
    expected = Normalisation.parse("percentile[2,98]").fit(image).apply(image)
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), expected)
    with pytest.raises(RfbenchError, match="'relative', expected reflectance; use --output display"):
        upscale(source, tmp_path / "b.tif", model="nearest", unit="relative", output="reflectance")
    with pytest.raises(RfbenchError, match="declare what white is"):
        upscale(
            write(tmp_path / "c.tif", values.astype(np.uint16), ""), tmp_path / "d.tif", model="nearest", unit="display"
        )


def test_percentiles_are_of_the_whole_image(tmp_path: Path) -> None:
    values = numbers(8, 64, 80)
    values[:30] += 2000  # tiles of their own would look alike
    upscale(
        write(tmp_path / "a.tif", values), tmp_path / "b.tif", model="bicubic", tile=32,
        normalisation="percentile[2,98]", output="float",
    )  # fmt: skip
    model = Model("bicubic")
    model.spec = replace(model.spec, max_side_px=32)
    found = whole_display(model, whole_task(values, 5, "a", "percentile[2,98]"))["sample"]
    np.testing.assert_allclose(read(tmp_path / "b.tif"), found.display_float, atol=2e-7)


@pytest.mark.parametrize("n", [1, 2, 3, 1000])
def test_exact_percentiles_are_numpy_s(n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(0, 1, (n, 3)).astype(np.float32)
    values[:, 1] = np.round(values[:, 1] * 2)  # -0 and 0, and many alike
    values[:, 2] = rng.integers(-3, 3, n) * 1e-3
    percents = [0, 2, 25, 50, 98, 99.9, 100]
    found = exact_percentiles(lambda: np.array_split(values, 7), percents)
    np.testing.assert_array_equal(found, np.percentile(values.astype(np.float64), percents, axis=0))


def test_percentiles_of_nothing() -> None:
    with pytest.raises(RfbenchError, match="without a single valid pixel"):
        exact_percentiles(lambda: [np.zeros((0, 3), np.float32)], [2, 98])


def test_a_model_s_own_normalisation_and_the_way_back(tmp_path: Path, register: Any) -> None:
    mine = register(Toned)
    values = numbers(9, 12, 12)
    rgb = values[:, :, [2, 1, 0]] / 1e4
    source = write(tmp_path / "a.tif", values)

    def run(**options: Any) -> np.ndarray:
        return read(upscale(source, tmp_path / "b.tif", model="mine", scale=1, **options)).astype(float)

    np.testing.assert_allclose(run(output="float"), rgb / 0.3, atol=1e-6)
    np.testing.assert_allclose(run(output="reflectance"), np.clip(values[:, :, [2, 1, 0]], 1, None), atol=1)
    mine.sides = (Side(normalisation="fixed[500,4500]", gamma=0.6), Side(normalisation="fixed[0,1400]", gamma=0.8))
    display = np.clip((rgb - 0.05) / 0.4, 0, 1) ** 0.6
    np.testing.assert_allclose(run(output="float"), display, atol=1e-6)
    np.testing.assert_allclose(run(output="reflectance"), np.maximum(1400 * display ** (1 / 0.8), 1), atol=0.51)
    np.testing.assert_allclose(
        run(output="float", normalisation="fixed[0,3000]", gamma=1.0), np.clip(rgb / 0.3, 0, 1), atol=1e-6
    )
    mine.sides = (None, Side(normalisation="percentile[2,98]"))
    with pytest.raises(RfbenchError, match="has no way back"):
        run(output="reflectance")


# --- uncertainty ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["display", "reflectance", "float"])
def test_uncertainty_is_a_band_and_colours_stay(tmp_path: Path, plugin: Path, output: Any) -> None:
    values = numbers(10, 22, 20)
    source = write(tmp_path / "a.tif", values, nodata=0)
    plain = read(upscale(source, tmp_path / "b.tif", model="noisy", output=output))
    result = read(upscale(source, tmp_path / "c.tif", model="noisy", output=output, uncertainty=True, draws=5))
    np.testing.assert_array_equal(result[:, :, :3], plain)
    found = whole_display(Model("noisy"), whole_task(values, 5, "a"), draws=5)
    unit = {"display": 255, "reflectance": 3000, "float": 1}[output]
    expected = unit * np.sqrt((found["sample"].std.astype(float) ** 2).mean(axis=2))
    np.testing.assert_allclose(result[:, :, 3], expected, rtol=1e-4)
    with rasterio.open(tmp_path / "c.tif") as file:
        assert file.dtypes == ("float32",) * 4 and file.descriptions == (*RGB, "uncertainty")
        assert [c.name for c in file.colorinterp][3] == "undefined"  # not an alpha channel
    mean = read(upscale(source, tmp_path / "d.tif", model="noisy", output="float", estimate="mean", draws=5))
    np.testing.assert_allclose(mean, found["mean"].display_float, atol=1e-6)


def test_a_deviation_and_maps_are_bands_too(tmp_path: Path, register: Any) -> None:
    register(Toned)
    values = numbers(11, 40, 40)
    upscale(write(tmp_path / "a.tif", values), tmp_path / "b.tif", model="mine", uncertainty=True, scale=2, tile=32)
    result = read(tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.descriptions == (*RGB, "uncertainty", "v")
    inside = (result[:, :, :3] > 30).all(axis=2) & (result[:, :, :3] < 225).all(axis=2)
    np.testing.assert_allclose(result[:, :, 3][inside], 25.5, rtol=1e-5)
    np.testing.assert_allclose(result[:, :, 4] * 255 / 2, result[:, :, 0], atol=0.51)


# --- failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "bicubc"}, "did you mean bicubic"),
        ({"scale": 500}, "expected a number from 1 to 16"),
        ({"scale": float("nan")}, "expected a number from 1 to 16"),
        ({"uncertainty": True}, "bicubic gives no draws, deviation or maps"),
        ({"draws": 3}, "bicubic has no draws"),
        ({"estimate": "mean"}, "bicubic has no draws"),
        ({"tile": 2}, "--tile: found 2, expected 8 or more"),
        ({"bands": "R G"}, "found 4 bands, expected R G; name them in their order"),
        ({"bands": "R G B NIR"}, "the file names its bands B G R NIR"),
        ({"normalisation": "fixed[5,1]"}, "expected a low limit below a high one"),
        ({"unit": "relative", "normalisation": "fixed[0,3000]"}, "does not go with unit 'relative'"),
        ({"unit": "radiance"}, "unknown unit"),
        ({"output": "png"}, "unknown output"),
        ({"gamma": 0.0}, "gamma: found 0"),
        ({"device": "tpu"}, "expected auto, cpu, cuda"),
        ({"nodata": 7.0}, "holds no pixel with data"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_and_leaves_nothing(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    source = write(tmp_path / "a.tif", np.full((6, 6, 4), 7, np.uint16))
    (tmp_path / "b.tif").write_text("an older result")
    with warnings.catch_warnings(), pytest.raises(RfbenchError, match=message) as caught:
        warnings.simplefilter("ignore")
        upscale(source, tmp_path / "b.tif", **({"model": "bicubic"} | options))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "b.tif").read_text() == "an older result" and len(list(tmp_path.iterdir())) == 2


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    good = write(tmp_path / "a.tif", numbers(0, 300, 300), compress="deflate")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "text.tif").write_text("no image")
    gray = write(tmp_path / "gray.tif", numbers(0, 5, 5, 1), "")
    two = write(tmp_path / "two.tif", numbers(0, 5, 5, 2), "R R")
    cases = [
        (tmp_path / "nowhere.tif", "out.tif", "nowhere.tif is missing"),
        (tmp_path, "out.tif", "is no file"),
        (cut, "out.tif", r"cut.tif cannot be read: .* it is cut or damaged"),
        (tmp_path / "text.tif", "out.tif", r"text.tif cannot be read"),
        (gray, "out.tif", "band R, G, B is needed; the image has PAN"),
        (two, "out.tif", "two bands are called R"),
        (good, "a.tif", "is the input itself"),
        (good, "nowhere/out.tif", "folder .*nowhere is missing"),
        (good, "out.png", "found the ending '.png', expected .tif"),
    ]
    before = sorted(tmp_path.iterdir())
    for source, target, message in cases:
        with pytest.raises(RfbenchError, match=message) as caught:
            upscale(source, tmp_path / target, model="bicubic", tile=64)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


FULL_DISK = """
import resource, sys
from bench.core.errors import RfbenchError
from bench.upscale import upscale
source, target, whole = *sys.argv[1:3], int(sys.argv[3])
for share in (0.3, 0.99):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(whole * share), -1))
    try:
        upscale(source, target, model="nearest")
    except RfbenchError as error:
        print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of file size are a matter of Linux")
def test_a_full_disk_is_noticed_even_at_the_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = write(tmp_path / "a.tif", rng.integers(1, 3000, (100, 100, 3)).astype(np.uint16), "R G B")
    target = tmp_path / "b.tif"
    before = upscale(source, target, model="nearest").read_bytes()
    words = [sys.executable, "-c", FULL_DISK, str(source), str(target), str(len(before))]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.count(f"cannot write {target}: ") == 2 == len(done.stdout.splitlines())
    assert target.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from baselines.interpolation import Bicubic
    from bench.cli.upscale import command

    calls: list[int] = []

    def interrupted(self: Bicubic, batch: Batch) -> Prediction:
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return Prediction(mean=np.stack([resize(i, batch.size) for i in batch.images]))

    monkeypatch.setattr(Bicubic, "upscale", interrupted)
    source = write(tmp_path / "a.tif", numbers(0, 60, 60))
    words = [str(source), str(tmp_path / "b.tif"), "--model", "bicubic", "--tile", "20"]
    done = CliRunner().invoke(command, words, standalone_mode=False)
    assert done.return_value == 130 and "was not written" in done.output
    assert list(tmp_path.iterdir()) == [source]


def test_running_out_of_memory_is_said_once(tmp_path: Path, register: Any) -> None:
    class Small(Toned):
        def upscale(self, batch: Batch) -> Prediction:
            if batch.images.shape[1] > 16:
                raise MemoryError
            return super().upscale(batch)

    register(Small)
    source = write(tmp_path / "a.tif", numbers(0, 64, 80))
    with pytest.warns(UserWarning, match="run in tiles of 16 LR px; --tile of that size saves") as caught:
        upscale(source, tmp_path / "b.tif", model="mine", tile=32)
    assert len({str(w.message) for w in caught if w.category is UserWarning}) == 1


# --- real images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lr_only/rts_s2_peel/s2.tif", "lr_only/chips/rts_s2_peel_chip1_lr.tif"])
def test_real_sentinel_2(tmp_path: Path, shared: Path, name: str) -> None:
    source = shared / "data" / name
    upscale(source, tmp_path / "b.tif", model="bicubic", tile=100)
    with rasterio.open(source) as lr, rasterio.open(tmp_path / "b.tif") as hr:
        assert hr.crs == lr.crs and hr.bounds == lr.bounds and hr.res == (2, 2)
        assert hr.shape == (5 * lr.height, 5 * lr.width)
        # Area means of the fine grid are the coarse pixels again, at their places.
        back = hr.read().reshape(3, lr.height, 5, lr.width, 5).mean(axis=(2, 4))
        rgb = np.clip(lr.read([3, 2, 1]) / 3000 * 255, 0, 255)
        assert np.corrcoef(back.ravel(), rgb.ravel())[0, 1] > 0.98
        assert np.abs(back - rgb).mean() < 3
