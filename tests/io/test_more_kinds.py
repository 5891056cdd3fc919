"""More files of each kind: other sensors, containers and habits than those of ``test_kinds``."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from bench.core.errors import RfbenchError
from bench.data import bands, readers
from bench.data.dataset import FolderDataset
from tests.io.content import (
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
)
from tests.io.test_kinds import imported, pair, picture

HR = scene(60)
LR = mean_of(HR, 5)
DN = counts(HR)
HOLE = np.zeros((60, 60), bool)
HOLE[:24] = True


def deep(values: np.ndarray, bits: int) -> np.ndarray:
    """R, G, B of reflectance as a picture of ``bits``."""
    return np.rint(np.clip(values[..., RGB] / 0.35, 0, 1) * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


# --- A and D: scales, and what white is ----------------------------------------------------------------


def test_landsat_collection_2_without_tags_is_asked_about(tmp_path: Path) -> None:
    stored = np.rint((HR + 0.2) / 2.75e-5).astype(np.uint16)
    path = tif(tmp_path / "a.tif", stored, names=("SR_B2", "SR_B3", "SR_B4", "SR_B5"))
    folder = dataset(tmp_path, path, {"unit": "reflectance", "sensor": "landsat-8"})
    line = "as in Landsat Collection 2, whose reflectance is 2.75e-05 x stored - 0.2"
    assert line in by_run(folder).refused and line in by_upscale(path, sensor="landsat-8").refused
    assert any(line in text for text in by_validate(folder))
    said = {"scale": 1 / 2.75e-5, "offset": -0.2 / 2.75e-5}
    folder = dataset(tmp_path, path, {"unit": "reflectance", "sensor": "landsat-8"} | said)
    np.testing.assert_allclose(by_run(folder).image, display(stored * 2.75e-5 - 0.2), atol=1e-5)
    unknown = tif(tmp_path / "b.tif", stored)  # without a sensor it is a warning, and not a silence
    assert any("nothing is darker than 0.7" in text for text in by_validate(dataset(tmp_path, unknown, {})))
    assert any("hardly a pixel lies below reflectance 0.7" in text for text in by_upscale(unknown).said)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_white_of_few_bits_is_their_greatest_number(tmp_path: Path, bits: int) -> None:
    stored = deep(HR, bits)
    path = tif(tmp_path / "a.tif", stored, names=None, NBITS=bits, photometric="RGB", crs=None, transform=None)
    right = np.rint(stored * (255 / (2**bits - 1))) / 255
    folder = dataset(tmp_path, path, {"unit": "display"})
    np.testing.assert_allclose(by_run(folder).image, right, atol=1e-6)
    np.testing.assert_allclose(by_upscale(path, unit="display").image, right, atol=1e-6)
    assert any(f"its {bits} bits were brought to 8" in text for text in by_validate(folder))


@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_floats_that_may_be_reflectance_are_asked_about_or_said(tmp_path: Path, ending: str) -> None:
    values = (DN[..., RGB] / 1e4).astype(np.float32)
    (tmp_path / "src").mkdir()
    if ending == "tif":
        tif(tmp_path / "src/a.tif", values, names=("R", "G", "B"))
        with pytest.raises(RfbenchError, match="--unit reflectance --scale 1, for pictures --unit display"):
            imported(tmp_path / "src", tmp_path / "made")
    else:
        np.save(tmp_path / "src/a.npy", values)
        _, notes = imported(tmp_path / "src", tmp_path / "made")
        assert any("are taken as pictures, whose white is 1; for reflectance give --unit" in n for n in notes)


# --- B and F: what has no data -------------------------------------------------------------------------


def test_a_mask_of_one_band_counts_for_the_pixel(tmp_path: Path) -> None:
    path = tif(tmp_path / "a.tif", DN)
    masks = np.full((60, 60, 4), 255, np.uint8)
    masks[HOLE, 1] = 0
    tif(tmp_path / "a.tif.msk", masks, names=None, driver="GTiff")
    for shown in (by_run(dataset(tmp_path, path, {})).image, by_upscale(path).image):
        assert (np.isnan(shown).any(axis=2) == HOLE).all()


@pytest.mark.parametrize("written", ["-3.40282e+38", "-3.4028234663852886e+38", "-3.40282346638529E+38"])
def test_the_least_float_is_nodata_however_many_digits_it_is_written_with(tmp_path: Path, written: str) -> None:
    values = HR.astype(np.float32)
    values[HOLE] = np.finfo(np.float32).min
    path = tif(tmp_path / "a.tif", values)
    shown = by_run(dataset(tmp_path, path, {"nodata": float(written)})).image
    assert (np.isnan(shown).any(axis=2) == HOLE).all()
    assert (np.isnan(by_upscale(path, nodata=float(written)).image).any(axis=2) == HOLE).all()
    notes = "".join(
        f'<PAMRasterBand band="{i}"><NoDataValue>{written}</NoDataValue></PAMRasterBand>' for i in range(1, 5)
    )
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{notes}</PAMDataset>")
    assert (np.isnan(by_run(dataset(tmp_path, path, {})).image).any(axis=2) == HOLE).all()


@pytest.mark.parametrize(
    ("values", "side", "shown"),
    [
        (np.where(HOLE[..., None], -9999, HR).astype(np.float32), {"unit": "display"}, "-9999"),
        (np.where(HOLE[..., None], -1.7976931348623157e308, HR), {"unit": "reflectance"}, "-1.79769313e+308"),
    ],
    ids=["display", "float64"],
)
def test_values_beyond_all_others_are_named_as_fills(tmp_path: Path, values: Any, side: Any, shown: str) -> None:
    path = tif(tmp_path / "a.tif", values)
    line = f"40 % of the pixels hold {shown} in band"
    for said in (by_run(dataset(tmp_path, path, side)).refused, by_upscale(path, unit=side["unit"]).refused):
        assert line in said and "a fill that nobody declared" in said


def test_upscale_names_what_validate_names(tmp_path: Path) -> None:
    stored = DN.copy()
    stored[:, :6] = 65535
    said = by_upscale(tif(tmp_path / "a.tif", stored)).said
    assert any("10 % of the pixels hold 65535" in text and "give --nodata 65535" in text for text in said)


def test_colours_that_were_multiplied_by_alpha_are_told(tmp_path: Path) -> None:
    stored = np.dstack([picture(HR) // 2, np.full((60, 60), 128, np.uint8)])
    path = tif(tmp_path / "a.tif", stored, names=None, photometric="RGB", ALPHA="PREMULTIPLIED")
    folder = dataset(tmp_path, path, {"unit": "display"})
    line = "its colours are multiplied by its alpha"
    assert any(line in text for text in by_validate(folder)) and any(line in n for n in by_run(folder).said)


# --- C: names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "sensor", "right"),
    [
        ("Coastal Blue|Blue|Green I|Green|Yellow|Red|Red Edge|NIR", None, {"R": 5, "G": 3, "B": 1, "NIR": 7}),
        ("BAND_C|BAND_B|BAND_G|BAND_Y|BAND_R|BAND_RE|BAND_N|BAND_N2", None, {"R": 4, "G": 2, "B": 1, "NIR": 6}),
        ("Band_1_Blue|Band_2_Green|Band_3_Red|Band_4_NIR", None, {"R": 2, "G": 1, "B": 0, "NIR": 3}),
        ("B02_10m|B03_10m|B04_10m|B08_10m", None, {"R": 2, "G": 1, "B": 0, "NIR": 3}),
        ("blue (B2)|green (B3)|red (B4)|nir (B8)", None, {"R": 2, "G": 1, "B": 0, "NIR": 3}),
        ("sur_refl_b01|sur_refl_b02|sur_refl_b03|sur_refl_b04", "MODIS", {"R": 0, "NIR": 1, "B": 2, "G": 3}),
        ("B03|B04|B07|B11", "VENµS", {"B": 0, "G": 1, "R": 2, "NIR": 3}),
        ("1|2|3|4", "SuperDove", {"B": 0, "G": 1, "R": 2, "NIR": 3}),
        ("B1|B2|B3|B4", "SkySat", {"B": 0, "G": 1, "R": 2, "NIR": 3}),
        ("1|2|3|4", None, None),
        ("|".join(f"B{i:02}" for i in range(1, 13)), None, None),  # VENµS, or Landsat: not Sentinel-2's without B8A
    ],
)
def test_names_of_many_products(written: str, sensor: str | None, right: dict[str, int] | None) -> None:
    found = bands.named(written.split("|"), sensor)
    assert (found and {b: found.index(b) for b in right or {}}) == right


def test_an_order_that_was_taken_for_another_is_told(tmp_path: Path) -> None:
    lr = tif(tmp_path / "lr.tif", counts(LR)[..., :3], px=10, names=None)  # B G R, taken for R G B
    folder = pair(tmp_path, lr, tif(tmp_path / "hr.tif", DN), {"unit": "reflectance"})
    assert any("lr: its R is like the HR's B" in text for text in by_validate(folder))
    folder = pair(tmp_path, lr, tmp_path / "hr.tif", {"bands": "B G R"}, {"unit": "reflectance"})
    assert not [text for text in by_validate(folder) if "like the HR's B" in text]


# --- G and H: places and turns ---------------------------------------------------------------------------


def test_a_grid_of_ones_own_is_a_place(tmp_path: Path) -> None:
    own = {"crs": 'LOCAL_CS["site",UNIT["m",1]]'}
    folder = pair(tmp_path, tif(tmp_path / "lr.tif", counts(LR), px=10, **own), tif(tmp_path / "hr.tif", DN, **own), {})
    assert by_run(folder, paired=True).image is not None and not [t for t in by_validate(folder) if "extent" in t]


def test_both_sides_of_a_pair_are_not_one_image(tmp_path: Path) -> None:
    lr = tif(tmp_path / "lr.tif", DN)
    folder = pair(tmp_path, lr, tif(tmp_path / "hr.tif", DN, compress="lzw"), {})
    line = "hr: is the same pixels as its own lr"
    assert line in by_run(folder, paired=True).refused and any(line in text for text in by_validate(folder))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_deep_pictures_and_masks_are_turned_too(tmp_path: Path, orientation: int) -> None:
    undo: Callable[[Any], Any] = {
        3: lambda v: v[::-1, ::-1], 6: lambda v: np.rot90(v, 1), 8: lambda v: np.rot90(v, -1)
    }[orientation]  # fmt: skip
    shown, opaque = deep(HR, 16)[:44], ~HOLE[:44]
    (tmp_path / "pred").mkdir()
    path = tif(tmp_path / "pred/a.png", np.ascontiguousarray(undo(shown)), driver="PNG", names=None, crs=None,
               transform=None)  # fmt: skip
    add_exif(path, orientation)
    mask = np.ascontiguousarray(undo(opaque)).astype(np.uint8)[:, :, None] * 255
    tif(tmp_path / "pred/a.png.msk", mask, names=None, driver="GTiff", crs=None, transform=None)
    folder = dataset(tmp_path, path, {"unit": "display"})
    for image in (by_run(folder).image, by_upscale(path, unit="display").image):
        assert (np.isnan(image).any(axis=2) == ~opaque).all()
        np.testing.assert_allclose(image[opaque], (shown / 65535)[opaque], atol=1e-6)
    (tmp_path / "ref").mkdir()
    tif(tmp_path / "ref/a.png", shown, driver="PNG", names=None, crs=None, transform=None)
    (tmp_path / "pred/a.png.msk").unlink()
    assert by_score(tmp_path / "pred", "--ref", str(tmp_path / "ref"), "--scale", "65535") == (100.0, "")


def add_exif(path: Path, orientation: int) -> None:
    """Put an eXIf chunk before a PNG's pixels."""
    exif = Pillow.Exif()
    exif[274] = orientation
    raw = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(raw)) + b"eXIf" + raw + struct.pack(">I", zlib.crc32(b"eXIf" + raw))
    data = path.read_bytes()
    place = data.index(b"IDAT") - 4
    path.write_bytes(data[:place] + chunk + data[place:])


# --- I, J and K: containers, names, and what a user is told -----------------------------------------------


@pytest.mark.parametrize(
    ("lay", "line"),
    [
        ("SAFE/GRANULE/x.jp2", "is a Sentinel-2 product and no image; stack its 10 m bands"),
        ("site/a.tif", "holds no image but the folders site; name one of them"),
        ("a.hdf", "make a GeoTIFF of its bands"), ("a.nc", "name one variable"), ("a.zip", "unpack it"),
        ("LC08_SR_B4.TIF LC08_SR_B3.TIF", r"are single bands \(B3 B4\) of one image; stack them"),
        ("T08_B02_10m.tif T08_B03_10m.tif", r"'gdalbuildvrt -separate s.vrt T08_\*_10m.tif"),
    ],
)  # fmt: skip
def test_folders_that_are_no_images_say_how_to_get_there(tmp_path: Path, lay: str, line: str) -> None:
    source = tmp_path / ("x.SAFE" if lay.startswith("SAFE") else "src")
    for name in lay.split():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".tif":
            tif(path, DN[..., :1], names=None)
        else:
            path.write_bytes(b"x")
    with pytest.raises(RfbenchError, match=line):
        imported(source, tmp_path / "made", unit="reflectance")


@pytest.mark.parametrize("names", ["lr_{}.tif hr_{}.tif", "{}-LR.tif {}-HR.tif"])
def test_pairs_in_one_folder(tmp_path: Path, names: str) -> None:
    low, high = names.split()
    for stem, seed in (("x", 0), ("y", 1)):
        image = scene(60, seed)
        tif(tmp_path / "src" / low.format(stem), counts(mean_of(image, 5)), px=10)
        tif(tmp_path / "src" / high.format(stem), counts(image))
    data, _ = imported(tmp_path / "src", tmp_path / "made", unit="reflectance")
    assert [(r.id, set(r.files)) for r in data.all_records] == [("x", {"lr", "hr"}), ("y", {"lr", "hr"})]
    np.testing.assert_allclose(by_run(FolderDataset(tmp_path / "made").folder, paired=True).image, display(DN / 1e4),
                               atol=1e-6)  # fmt: skip


def test_more_arrays_than_the_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=DN, quality=np.ones((60, 60), np.uint8))
    assert any("quality" in note for note in readers.read(tmp_path / "a.npz", bands=4).notes)
