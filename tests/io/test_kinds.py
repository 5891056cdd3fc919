"""Kinds of files that gave a wrong number without a word: the right number, or one line, through every door."""

from __future__ import annotations

import shutil
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image as Pillow
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from bench.core.errors import RfbenchError
from bench.data import readers
from bench.data.dataset import FolderDataset
from bench.data.layouts import import_layout, parse_sides
from tests.io.content import (
    BANDS,
    RGB,
    by_run,
    by_score,
    by_upscale,
    by_validate,
    counts,
    dataset,
    display,
    mean_of,
    scene,
    tif,
)  # fmt: skip

HR = scene(60)
LR = mean_of(HR, 5)


def pair(folder: Path, lr: Path, hr: Path, lr_side: dict[str, Any], hr_side: dict[str, Any] | None = None) -> Path:
    return dataset(folder, hr, hr_side or lr_side, lr, lr_side)


def picture(values: np.ndarray) -> np.ndarray:
    """R, G, B of reflectance as 8-bit numbers."""
    return np.rint(np.clip(values[..., RGB] / 0.35, 0, 1) * 255).astype(np.uint8)


# --- A: scale and offset tags ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"),
    [(2.75e-5, -0.2, np.uint16), (1e-3, 0.0, np.int16), (1e-4, -0.1, np.uint16), (0.01, 0.0, np.float32)],
    ids=["landsat", "venus", "sentinel-2", "percent"],
)  # fmt: skip
def test_tags_are_honoured_on_both_sides(tmp_path: Path, scale: float, offset: float, dtype: Any) -> None:
    def stored(values: np.ndarray) -> np.ndarray:
        found = (values - offset) / scale
        return (found if dtype is np.float32 else np.rint(found)).astype(dtype)

    more = {"scales": [scale] * 4, "offsets": [offset] * 4}
    lr, hr = tif(tmp_path / "lr.tif", stored(LR), px=10, **more), tif(tmp_path / "hr.tif", stored(HR), **more)
    folder = pair(tmp_path, lr, hr, {"unit": "reflectance"})
    right = display(stored(HR) * scale + offset)
    np.testing.assert_allclose(by_run(folder, paired=True).image, right, atol=1e-5)
    np.testing.assert_allclose(by_upscale(hr).image, right, atol=1e-5)
    assert not [line for line in by_validate(folder) if "error" in line or "[file]" in line]
    pred = tmp_path / "pred"
    pred.mkdir()
    np.save(pred / "a.npy", right.astype(np.float32))
    value, error = by_score(pred, "--data", str(folder), "--scale", "1")
    assert value is not None and value > 70 and not error  # a half may be rounded up on one side and down on the other


def test_a_contradiction_of_tags_is_a_line_and_what_is_declared_holds(tmp_path: Path) -> None:
    hr = tif(tmp_path / "hr.tif", counts(HR), scales=[1e-3] * 4, offsets=[0.0] * 4)
    folder = dataset(tmp_path, hr, {"unit": "reflectance", "scale": 10000})
    line = "scale 10000 are declared and the file's own tags say x 0.001 +0; what is declared holds"
    assert any(line in text for text in by_validate(folder)) and any(line in note for note in by_run(folder).said)
    shown = by_upscale(hr, input_scale=10000)
    np.testing.assert_allclose(shown.image, display(counts(HR) / 1e4), atol=1e-5)
    assert any(line in text for text in shown.said)


# --- B: what has no data --------------------------------------------------------------------------


def test_nir_that_gdal_calls_alpha_is_nir_and_the_nodata_tag_holds(tmp_path: Path) -> None:
    a = np.rint(np.clip(HR[..., [2, 1, 0, 3]] / 0.5, 0.02, 1) * 255).astype(np.uint8)
    a[:, :24] = 0
    a[40:, 40:, 3] = 0  # water: NIR is 0, and there is a picture
    path = tif(tmp_path / "a.tif", a, names=None, nodata=0)
    valid = np.ones((60, 60), bool)
    valid[:, :24] = False
    folder = dataset(tmp_path, path, {"unit": "display", "bands": "R G B NIR"})
    seen, fine = by_run(folder), by_upscale(path, unit="display", bands="R G B NIR")
    for shown in (seen.image, fine.image):
        assert (~np.isnan(shown).any(axis=2) == valid).all()
        np.testing.assert_allclose(shown[valid], a[valid][:, :3] / 255, atol=1e-6)
    assert any("40 % of the pixels have no data" in line for line in by_validate(folder))


@pytest.mark.parametrize("ending", ["png", "tif", "palette.png", "grey.png"])
def test_transparency_is_validity(tmp_path: Path, ending: str) -> None:
    rgb, opaque = picture(HR), np.ones((60, 60), bool)
    opaque[:, :24] = False
    path = tmp_path / f"a.{ending}"
    bands = None
    if ending == "png":
        Pillow.fromarray(np.dstack([rgb, opaque * 255]).astype(np.uint8)).save(path)
    elif ending == "tif":
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        tif(path, np.dstack([rgb, opaque * 255]).astype(np.uint8), names=None, colorinterp=colours)
    elif ending == "palette.png":
        index = np.where(opaque, 1 + rgb[:, :, 0] // 64, 0).astype(np.uint8)
        image = Pillow.fromarray(index, "P") if False else Pillow.fromarray(index).convert("P")
        image.putdata(index.ravel().tolist())
        table = [0, 0, 0, 10, 20, 30, 60, 70, 80, 120, 130, 140, 200, 210, 220]
        image.putpalette(table)
        image.save(path, transparency=0)
        rgb = np.array(table, np.uint8).reshape(-1, 3)[index]
    else:
        grey = np.where(opaque, np.maximum(rgb[:, :, 0], 1), 0).astype(np.uint8)
        Pillow.fromarray(grey).save(path, transparency=0)
        rgb, bands = grey[:, :, None], "PAN"
    raster = readers.read(path)
    assert (raster.valid == opaque).all()
    np.testing.assert_array_equal(raster.values[opaque], rgb[opaque])
    if bands is None:
        folder = dataset(tmp_path, path, {"unit": "display"})
        assert (~np.isnan(by_run(folder).image).any(axis=2) == opaque).all()
        assert (~np.isnan(by_upscale(path, unit="display").image).any(axis=2) == opaque).all()


def test_a_band_that_is_lost_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    stored = np.dstack([HR, np.full(HR.shape[:2], np.nan)]).astype(np.float32)
    path = tif(tmp_path / "a.tif", stored, names=(*BANDS, "B10"))
    folder = dataset(tmp_path, path, {"unit": "reflectance"})
    seen = by_run(folder)
    np.testing.assert_allclose(seen.image, display(HR), atol=1e-6)
    assert any("band B10 has no data at all and is left out" in note for note in seen.said)
    np.testing.assert_allclose(by_upscale(path).image, display(HR), atol=1e-6)


# --- C: names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "order", "sensor"),
    [
        (("B1", "B2", "B3", "B4"), [0, 1, 2, 3], "planetscope"),
        (("B1", "B2", "B3", "B4", "B5"), [0, 1, 2, 3, 3], "rapideye"),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4"), [0, 1, 2, 3], "landsat-7"),
        (("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8"), [0, 0, 1, 1, 2, 3, 3, 3], "worldview-3"),
    ],
)  # fmt: skip
def test_numbers_need_a_sensor_or_colours(tmp_path: Path, names: Any, order: list[int], sensor: str) -> None:
    stored = counts(HR)[..., order].copy()
    path = tif(tmp_path / "a.tif", stored, names=names)
    bare = dataset(tmp_path, path, {"unit": "reflectance"})
    line = f"calls its bands {' '.join(names)}, which are other colours for other sensors"
    assert line in by_run(bare).refused and line in by_upscale(path).refused
    assert any(line in text for text in by_validate(bare))
    said = dataset(tmp_path, path, {"unit": "reflectance", "sensor": sensor})
    colours = {"worldview-3": [4, 2, 1]}.get(sensor, [2, 1, 0])
    right = np.clip(stored[..., colours] / 3000, 0, 1)
    np.testing.assert_allclose(by_run(said).image, right, atol=1e-6)
    np.testing.assert_allclose(by_upscale(path, sensor=sensor).image, right, atol=1e-6)


def test_declared_bands_act_in_score_too(tmp_path: Path) -> None:
    stored = np.rint(np.clip(HR / 0.6, 0, 1) * 255).astype(np.uint8)
    tif(tmp_path / "ref/a.tif", stored, names=("blue", "green", "red", "nir"), photometric="MINISBLACK")
    tif(tmp_path / "pred/a.tif", stored, names=("B1", "B2", "B3", "B4"), photometric="MINISBLACK")
    ref = ("--ref", str(tmp_path / "ref"))
    assert by_score(tmp_path / "pred", *ref, "--bands", "B G R NIR") == (100.0, "")
    assert by_score(tmp_path / "pred", *ref, "--sensor", "planetscope") == (100.0, "")
    value, error = by_score(tmp_path / "pred", *ref)
    assert value is None and "B1 B2 B3 B4, which are other colours for other sensors" in error


# --- D: what white is -----------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("ending", ["png", "tif", "npy"])
def test_pictures_of_more_bits_are_asked_about(tmp_path: Path, bits: int, ending: str) -> None:
    white = 2**bits - 1
    stored = np.rint(np.clip(HR[..., RGB] / 0.35, 0, 1) * white).astype(np.uint16)
    path = tmp_path / f"a.{ending}"
    if ending == "npy":
        np.save(path, stored)
    else:
        driver = {"png": "PNG", "tif": "GTiff"}[ending]
        tif(path, stored, names=None, driver=driver, photometric="RGB" if ending == "tif" else None, crs=None)
    folder = dataset(tmp_path, path, {"unit": "display"})
    line = f"display values up to {stored.max()} without a scale"
    assert line in by_run(folder).refused and line in by_upscale(path, unit="display").refused
    assert any(line in text for text in by_validate(folder))
    said = dataset(tmp_path, path, {"unit": "display", "scale": white})
    np.testing.assert_allclose(by_run(said).image, stored / white, atol=1e-6)


def test_8_bit_numbers_are_no_reflectance_and_units_have_hints(tmp_path: Path) -> None:
    path = tif(tmp_path / "a.tif", picture(HR), names=("R", "G", "B"))
    folder = dataset(tmp_path, path, {"unit": "reflectance"})
    line = "holds 8-bit numbers up to"
    assert line in by_run(folder).refused and line in by_upscale(path).refused
    assert any(line in text for text in by_validate(folder))
    with pytest.raises(RfbenchError, match="percent is reflectance with a scale of 100"):
        FolderDataset(dataset(tmp_path, path, {"unit": "percent"}))


# --- E and F: levels and fills --------------------------------------------------------------------


@pytest.mark.parametrize("times", [10, 25, 100, 10000])
def test_levels_of_a_pair_are_told_before_any_score(tmp_path: Path, times: int) -> None:
    lr = tif(tmp_path / "lr.tif", (LR / times).astype(np.float32), px=10)
    folder = pair(tmp_path, lr, tif(tmp_path / "hr.tif", counts(HR)), {"unit": "reflectance"})
    told = [line for line in by_validate(folder) if line.startswith("error")]
    assert told and ("times the LR's" in told[0] or "seem to be divided already" in told[0])
    assert by_run(folder, paired=True).refused


def test_an_offset_of_one_side_is_suspected(tmp_path: Path) -> None:
    hr = tif(tmp_path / "hr.tif", counts(HR))
    folder = pair(tmp_path, tif(tmp_path / "lr.tif", counts(LR) + np.uint16(1000), px=10), hr, {"unit": "reflectance"})
    assert any("lr: every band lies 0.1" in line and "[offset]" in line for line in by_validate(folder))


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [(np.int16, -9999), (np.int16, -32768), (np.float32, -9999), (np.float32, np.finfo(np.float32).min),
     (np.float32, 1e20), (np.uint16, 65535 * 1)],
)  # fmt: skip
def test_fills_that_nobody_declared_are_named(tmp_path: Path, dtype: Any, fill: float) -> None:
    stored = counts(HR).astype(dtype) if np.dtype(dtype).kind in "iu" else HR.astype(dtype)
    stored[:20, :20] = fill
    path = tif(tmp_path / "a.tif", stored)
    folder = dataset(tmp_path, path, {"unit": "reflectance"})
    shown = f"{float(dtype(fill)):.9g}"
    told = [line for line in by_validate(folder) if "[nodata]" in line]
    assert any(f"hold {shown} in band B G R NIR" in line and "11 %" in line for line in told), told
    if fill == 65535:  # reflectance of 6.5 is odd, and not impossible
        return
    for seen in (by_run(folder), by_upscale(path)):
        assert "a.tif" in seen.refused and f"hold {shown} in band" in seen.refused


# --- G: places and sizes --------------------------------------------------------------------------


def gcps(x: float) -> Any:
    corners = [(0, 0), (0, 60), (60, 0), (60, 60)]
    points = [GroundControlPoint(row, column, x + 2 * column, 4e6 - 2 * row) for row, column in corners]
    return points, CRS.from_epsg(32632)


@pytest.mark.parametrize(
    ("how", "turn", "transform", "line"),
    [
        ("south-up", lambda v: v[::-1], Affine(2, 0, 5e5, 0, 2, 4e6 - 120), "stored upside down"),
        ("a quarter", lambda v: np.rot90(v), Affine(0, -2, 5e5 + 120, -2, 0, 4e6), "turned by 90 degrees"),
        ("mirrored", lambda v: v[:, ::-1], Affine(-2, 0, 5e5 + 120, 0, -2, 4e6), "stored mirrored"),
        ("elsewhere", lambda v: v, Affine.translation(5.05e5, 4e6) @ Affine.rotation(1) @ Affine.scale(2, -2),
         "shares 0.0 %"),
    ],
)  # fmt: skip
def test_validate_and_run_say_the_same_of_places(
    tmp_path: Path, how: str, turn: Any, transform: Any, line: str
) -> None:
    hr = tif(tmp_path / "hr.tif", np.ascontiguousarray(turn(counts(HR))), transform=transform)
    folder = pair(tmp_path, tif(tmp_path / "lr.tif", counts(LR), px=10), hr, {"unit": "reflectance"})
    refused = by_run(folder, paired=True).refused
    assert line in refused
    assert any(text.startswith("error: a: ") and refused in text for text in by_validate(folder))


def test_control_points_and_another_crs_are_places(tmp_path: Path) -> None:
    lr = tif(tmp_path / "lr.tif", counts(LR), px=10)
    for x, line in ((5e5, ""), (5.09e5, "shares 0.0 % of its ground")):
        hr = tif(tmp_path / "hr.tif", counts(HR), crs=None, transform=None, gcps=gcps(x))
        assert line in by_run(pair(tmp_path, lr, hr, {"unit": "reflectance"}), paired=True).refused or not line
    from rasterio.warp import transform_bounds

    west, south, east, north = transform_bounds("EPSG:32632", "EPSG:4326", 5e5, 4e6 - 120, 5e5 + 120, 4e6)
    grid = rasterio.transform.from_bounds(west, south, east, north, 60, 60)
    hr = tif(tmp_path / "hr.tif", counts(HR), crs="EPSG:4326", transform=grid)
    folder = pair(tmp_path, lr, hr, {"unit": "reflectance"})
    assert not by_run(folder, paired=True).refused and not [t for t in by_validate(folder) if "[extent]" in t]


@pytest.mark.parametrize(
    ("shape", "is_odd"), [((60, 60), False), ((61, 59), False), ((64, 60), True), ((70, 60), True)]
)
def test_sizes_that_no_rounding_explains(tmp_path: Path, shape: tuple[int, int], is_odd: bool) -> None:
    stored = counts(scene(70))[: shape[0], : shape[1]]
    nowhere = {"crs": None, "transform": None}
    lr = tif(tmp_path / "lr.tif", counts(LR), **nowhere)
    folder = pair(tmp_path, lr, tif(tmp_path / "hr.tif", stored, **nowhere), {"unit": "reflectance"})
    assert any("no rounding explains" in line for line in by_validate(folder)) == is_odd


# --- H: orientation -------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_pictures_are_turned_as_viewers_turn_them(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    exif = Pillow.Exif()
    exif[274] = orientation
    (tmp_path / "ref").mkdir()
    (tmp_path / "pred").mkdir()
    path = tmp_path / "ref/a.jpg"
    Pillow.fromarray(picture(HR)[:44]).save(path, quality=95, subsampling=0, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Pillow.open(path)))
    Pillow.fromarray(shown).save(tmp_path / "pred/a.png")
    assert by_score(tmp_path / "pred", "--ref", str(tmp_path / "ref")) == (100.0, "")
    h, w = (n // 4 * 4 for n in shown.shape[:2])
    np.testing.assert_allclose(
        by_run(dataset(tmp_path, path, {"unit": "display"})).image, (shown / 255)[:h, :w], atol=1e-6
    )
    np.testing.assert_allclose(by_upscale(path, unit="display").image, shown / 255, atol=1e-6)


# --- I: containers, closed ------------------------------------------------------------------------


def test_a_vrt_reads_what_lies_beside_it_and_nothing_else(tmp_path: Path) -> None:
    for i, band in enumerate(BANDS):
        tif(tmp_path / f"{band}.tif", counts(HR)[..., [i]], names=(band,))
    sources = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><Description>{b}</Description><SimpleSource><SourceFilename '
        f'relativeToVRT="1">{b}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
        for i, b in enumerate(BANDS, 1)
    )
    vrt = f'<VRTDataset rasterXSize="60" rasterYSize="60">{sources}</VRTDataset>'
    path = tmp_path / "s.vrt"
    path.write_text(vrt)
    np.testing.assert_allclose(by_upscale(path).image, display(counts(HR) / 1e4), atol=1e-6)
    for old, new, line in (
        ("B02.tif", "/etc/passwd", "expected files of its own folder"), ("B02.tif", "../B02.tif", "of its own folder"),
        ("B02.tif", "/vsicurl/http://127.0.0.1/x.tif", "of its own folder"),
        ("B02.tif", "B02.xml", "a file of the type '.xml'"),
        ("<SimpleSource>", '<SimpleSource><PixelFunctionCode>', "XML"),
        ('band="1"', 'band="1" subClass="VRTRawRasterBand"', "a band of the class VRTRawRasterBand"),
        ("<VRTDataset ", '<!DOCTYPE x [<!ENTITY y "z">]><VRTDataset ', "entities"),
    ):  # fmt: skip
        path.write_text(vrt.replace(old, new, 1))
        assert line in by_upscale(path).refused


def test_bombs_are_refused_by_their_tags(tmp_path: Path) -> None:
    import struct

    def bomb(*tags: tuple[int, int, int, int], following: int = 0) -> Path:
        data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *t) for t in sorted(tags))
        path = tmp_path / "bomb.tif"
        path.write_bytes(data + struct.pack("<I", following))
        return path

    size = ((256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1))
    tiles = ((324, 4, 1, 8), (325, 4, 1, 10))
    strip = ((273, 4, 1, 8), (278, 4, 1, 16))
    for tags, following, line in (
        ((*size, (322, 4, 1, 16), (323, 4, 1, 2**27), *tiles), 0, "one tile claims 134217728x16 px"),
        ((*size, *strip, (279, 4, 1, 2**32 - 1)), 0, "a tile or strip of it lies behind its end"),
        ((*size, *strip, (279, 4, 1, 10), (42112, 2, 2**31 - 1, 8)), 0, "tag 42112 claims 2147483647 values"),
        ((*size, *strip, (279, 4, 1, 10)), 8, "its directories go in a circle"),
        ((*size[2:], (256, 4, 1, 1), (257, 4, 1, 11 * 10**6), (273, 4, 1, 8), (278, 4, 1, 1), (279, 4, 1, 3)), 0,
         "claims 11000000 tiles or strips"),
    ):  # fmt: skip
        path = bomb(*tags, following=following)
        for door in (lambda p: readers.read(p), lambda p: readers.georeference(p)):
            with pytest.raises(RfbenchError, match=line):
                door(path)
        assert line in by_upscale(path).refused


# --- J and K: names, and what a user is told ------------------------------------------------------


def imported(source: Path, target: Path, layout: str = "folder", **options: Any) -> tuple[FolderDataset, list[str]]:
    notes: list[str] = []
    import_layout(layout, source, target, name="x", note=notes.append, **options)
    return FolderDataset(target), notes


def test_names_of_pairs(tmp_path: Path) -> None:
    hr, lr = picture(HR), picture(LR)
    composed, decomposed = (unicodedata.normalize(form, "tjäle") for form in ("NFC", "NFD"))
    layouts = {
        "unicode": (f"lr/{decomposed}.png", f"hr/{composed}.png", composed), "case": ("LR/a.png", "HR/a.png", "a"),
        "factor": ("lr/0001x4.png", "hr/0001.png", "0001"), "one": ("x_lr.png", "x_hr.png", "x"),
    }  # fmt: skip
    for name, (low, high, stem) in layouts.items():
        for text, values in ((low, lr), (high, hr)):
            path = tmp_path / name / text
            path.parent.mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(values).save(path)
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7 Mac OS X")
        data, _ = imported(tmp_path / name, tmp_path / f"{name}-made")
        (record,) = data.all_records
        assert record.id == stem and set(record.files) == {"lr", "hr"}


def test_measurements_lead_to_the_options_that_say_so(tmp_path: Path) -> None:
    tif(tmp_path / "src/a.tif", counts(HR), names=None)
    with pytest.raises(RfbenchError, match=r"--unit reflectance --scale 10000 --bands 'B G R NIR'"):
        imported(tmp_path / "src", tmp_path / "made")
    said = {"unit": "reflectance", "scale": 10000.0, "bands": "B G R NIR"}
    data, _ = imported(tmp_path / "src", tmp_path / "made", **said)  # the same target again: nothing was left there
    assert data.all_records[0].sides["hr"].gsd_m == 2.0
    with pytest.raises(RfbenchError, match=r"'rfbench data import folder .*src DST' makes one"):
        FolderDataset(tmp_path / "src")


def test_what_is_said_of_a_side_acts_on_it_alone_or_is_refused(tmp_path: Path) -> None:
    tif(tmp_path / "src/lr/a.tif", counts(LR) + np.uint16(1000), px=10)
    tif(tmp_path / "src/hr/a.tif", picture(HR), names=("R", "G", "B"))
    sides = parse_sides({"lr": ["unit=reflectance offset=-1000"], "hr": ["unit=display"]})
    data, _ = imported(tmp_path / "src", tmp_path / "made", sides=sides)
    (record,) = data.all_records
    assert (record.sides["lr"].unit, record.sides["lr"].offset) == ("reflectance", -1000)
    assert (record.sides["hr"].unit, record.sides["hr"].offset) == ("display", None)
    with pytest.raises(RfbenchError, match="--pan: no image has the side PAN, so it cannot act"):
        imported(tmp_path / "src", tmp_path / "b", sides=sides | {"pan": {"unit": "relative"}})
    for text, line in (
        ("unit", "expected KEY=VALUE"),
        ("colour=red", "unknown field 'colour'"),
        ("scale=x", "a number"),
    ):
        with pytest.raises(RfbenchError, match=line):
            parse_sides({"hr": [text]})


def test_an_offset_without_lr_acts_on_the_hr(tmp_path: Path) -> None:
    tif(tmp_path / "src/a.tif", counts(HR) + np.uint16(1000))
    data, _ = imported(tmp_path / "src", tmp_path / "made", unit="reflectance", offset=-1000.0)
    np.testing.assert_allclose(by_run(data.folder).image, display(counts(HR) / 1e4), atol=1e-6)


def test_sidecars_are_copied_and_honoured(tmp_path: Path) -> None:
    tif(tmp_path / "src/a.tif", picture(HR), names=("R", "G", "B"))
    opaque = np.ones((60, 60), bool)
    opaque[:, :24] = False
    tif(tmp_path / "src/a.tif.msk", (opaque * 255).astype(np.uint8)[:, :, None], driver="GTiff", names=None)
    data, _ = imported(tmp_path / "src", tmp_path / "made")
    assert (data.folder / "hr/a.tif.msk").is_file()
    assert (~np.isnan(by_run(data.folder).image).any(axis=2) == opaque).all()
    before = data.fingerprint(data.all_records)
    shutil.copy(data.folder / "hr/a.tif", data.folder / "hr/a.tif.msk")
    assert data.fingerprint(data.all_records) != before


def test_arrays_are_named_and_masks_may_be_bool(tmp_path: Path) -> None:
    dn = counts(HR)
    np.savez(tmp_path / "two.npz", lr=dn[::5, ::5, :3], hr=dn[..., :3])
    with pytest.raises(RfbenchError, match="holds the arrays lr, hr, expected one image"):
        readers.read(tmp_path / "two.npz")
    np.savez(tmp_path / "named.npz", bands=np.array(BANDS), values=dn)
    assert readers.read(tmp_path / "named.npz").bands == BANDS
    np.save(tmp_path / "mask.npy", HR[..., 0] > 0.1)
    assert (readers.read(tmp_path / "mask.npy").values[:, :, 0] > 0).tolist() == (HR[..., 0] > 0.1).tolist()


def test_rounding_of_floats_is_no_error(tmp_path: Path) -> None:
    values = (picture(HR) / 255).astype(np.float32)
    values[5, 5], values[6, 6] = np.nextafter(np.float32(1), np.float32(2)), -1e-9
    np.save(tmp_path / "a.npy", values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = by_run(dataset(tmp_path, tmp_path / "a.npy", {"unit": "display"})).image
    np.testing.assert_array_equal(shown, np.clip(values, 0, 1))
