"""Situations that people reported in public, from files to the score of a run: the right number, by arithmetic of our
own, or the line that says what is wrong."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from PIL import Image as Pillow
from PIL import ImageOps
from rasterio.enums import ColorInterp

from bench.core.errors import RfbenchError
from bench.data.dataset import FolderDataset
from bench.data.layouts import import_layout, parse_sides
from tests.io.content import (
    BANDS,
    RGB,
    bicubic,
    by_score,
    by_upscale,
    by_validate,
    counts,
    display,
    mean_of,
    psnr,
    scene,
    tif,
)  # fmt: skip
from tests.runs import run

H = scene(120, 1)
L = mean_of(H, 5)
DN = counts(H)
OPAQUE = np.ones((128, 128), bool)
OPAQUE[:, :52] = False


def made(source: Path, layout: str = "folder", **options: Any) -> Path:
    import_layout(layout, source, source.with_name("made"), name="x", **options)
    return source.with_name("made")


def table(folder: Path, text: str) -> Path:
    (folder / "pairs.csv").write_text(text)
    return folder


def psnr_of_run(data: Path, protocol: str = "paired") -> dict[str, float | None]:
    """PSNR (dB) of each image of a run of ``bicubic``."""
    out = data.with_name("out")
    done = run(models=("bicubic",), data=str(data), protocol=protocol, metrics=("psnr_rgb",), workers=0, out=out)
    frame = done.folders[0].scores()
    values = frame["psnr_rgb"] if "psnr_rgb" in frame else [None] * len(frame)
    return {i: None if v is None or v != v else float(v) for i, v in zip(frame["id"], values, strict=True)}


def paired(lr: np.ndarray, hr: np.ndarray, valid: Any = slice(None)) -> float:
    """PSNR (dB) of the enlarged LR; both in display range."""
    return psnr(np.clip(bicubic(lr, hr.shape[:2]), 0, 1), hr, valid)


def made_smaller(shown: np.ndarray, valid: np.ndarray | None = None) -> float:
    """PSNR (dB) under bicubic-4x of a picture; what has no data is filled with the median before it is made smaller."""
    h, w = shown.shape[:2]
    filled = shown if valid is None else np.where(valid[..., None], shown, np.median(shown[valid], axis=0))
    again = np.clip(bicubic(bicubic(filled, (h // 4, w // 4)), (h, w)), 0, 1)
    return psnr(again, shown, slice(None) if valid is None else valid)


@pytest.mark.parametrize(("scale", "offset", "dtype"), [(1e-4, -0.1, np.uint16), (1e-3, 0.0, np.int16)])
def test_01_scale_and_offset_tags(tmp_path: Path, scale: float, offset: float, dtype: Any) -> None:
    def stored(image: np.ndarray) -> np.ndarray:
        return np.rint((image - offset) / scale).astype(dtype)

    tags = {"scales": [scale] * 4, "offsets": [offset] * 4}
    for side, image, px in (("lr", L, 10), ("hr", H, 2)):
        tif(tmp_path / f"src/{side}/a.tif", stored(image), px=px, **tags)
    data = made(table(tmp_path / "src", "id,lr,hr,unit_hr\na,lr/a.tif,hr/a.tif,reflectance\n"), "csv")
    assert by_validate(data) == []
    lr, hr = (display(stored(i) * scale + offset) for i in (L, H))
    assert psnr_of_run(data)["a"] == pytest.approx(paired(lr, hr), abs=2e-3)
    np.testing.assert_allclose(by_upscale(tmp_path / "src/lr/a.tif").image, lr, atol=1e-5)


def test_02_nir_that_gdal_calls_alpha(tmp_path: Path) -> None:
    image = np.rint(np.clip(scene(128, 5)[..., [2, 1, 0, 3]] / 0.5, 0.02, 1) * 255).astype(np.uint8)
    image[~OPAQUE] = 0
    tif(tmp_path / "src/a.tif", image, names=None, nodata=0)
    data = made(tmp_path / "src", bands="R G B NIR")
    right = made_smaller(image[..., :3] / 255, OPAQUE)
    assert psnr_of_run(data, "bicubic-4x")["a"] == pytest.approx(right, abs=0.1)  # blocks that touch the collar


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_03_deep_pictures_are_asked_about(tmp_path: Path, ending: str) -> None:
    stored = np.rint(np.clip(scene(96)[..., RGB] / 0.35, 0, 1) * 4095).astype(np.uint16)
    driver = {"png": "PNG", "tif": "GTiff"}[ending]
    tif(tmp_path / f"src/a.{ending}", stored, names=None, driver=driver, crs=None, transform=None)
    with pytest.raises(RfbenchError, match=r"for pictures of more than 8 bits what white is \(--scale 4095, 65535\)"):
        made(tmp_path / "src")
    data = made(tmp_path / "src", scale=4095.0)
    assert psnr_of_run(data, "bicubic-4x")["a"] == pytest.approx(made_smaller(stored / 4095), abs=2e-3)


def test_04_numbers_of_another_sensor(tmp_path: Path) -> None:
    tif(tmp_path / "src/lr/a.tif", counts(L), px=10)
    tif(tmp_path / "src/hr/a.tif", DN, names=("B1", "B2", "B3", "B4"))
    rows = "id,lr,hr,unit_hr{}\na,lr/a.tif,hr/a.tif,reflectance{}\n"
    with pytest.raises(RfbenchError, match="B1 B2 B3 B4, which are other colours for other sensors"):
        made(table(tmp_path / "src", rows.format("", "")), "csv")
    right = paired(display(counts(L) / 1e4), display(DN / 1e4))
    data = made(table(tmp_path / "src", rows.format(",bands_hr", ",B G R NIR")), "csv")
    assert psnr_of_run(data)["a"] == pytest.approx(right, abs=2e-3)
    np.testing.assert_allclose(
        by_upscale(tmp_path / "src/hr/a.tif", bands="B G R NIR").image, display(DN / 1e4), atol=1e-6
    )


def test_05_nodata_in_one_band(tmp_path: Path) -> None:
    lr, hr = counts(L).astype(np.int16), DN.astype(np.int16)
    lr[:8, :12, [0, 2]] = hr[:40, :60, [0, 2]] = -9999
    tif(tmp_path / "src/lr/a.tif", lr, px=10, nodata=-9999)
    tif(tmp_path / "src/hr/a.tif", hr, nodata=-9999)
    data = made(table(tmp_path / "src", "id,lr,hr,unit_hr\na,lr/a.tif,hr/a.tif,reflectance\n"), "csv")
    valid = np.ones((120, 120), bool)
    valid[:40, :60] = False
    right = paired(display(counts(L) / 1e4), display(DN / 1e4), valid)
    assert psnr_of_run(data)["a"] == pytest.approx(right, abs=0.1)  # the LR's hole is filled before it is enlarged
    assert (np.isnan(by_upscale(tmp_path / "src/hr/a.tif").image).any(axis=2) == ~valid).all()


def test_06_alpha_of_five(tmp_path: Path) -> None:
    image = np.rint(np.clip(scene(128)[..., [2, 1, 0, 3]] / 0.5, 0.02, 1) * 255).astype(np.uint8)
    image[~OPAQUE] = 0
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined, ColorInterp.alpha]
    stored = np.dstack([image, OPAQUE * 255]).astype(np.uint8)
    tif(tmp_path / "src/a.tif", stored, names=("Red", "Green", "Blue", "NIR", ""), colorinterp=colours)
    right = made_smaller(image[..., :3] / 255, OPAQUE)
    data = made(tmp_path / "src", bands="R G B NIR")
    assert psnr_of_run(data, "bicubic-4x")["a"] == pytest.approx(right, abs=0.1)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_08_pictures_are_turned(tmp_path: Path, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[274] = orientation
    for name in ("src/lr", "src/hr", "pred"):
        (tmp_path / name).mkdir(parents=True)
    stored = np.rint(np.clip(scene(64, 1)[..., RGB] / 0.35, 0, 1) * 255).astype(np.uint8)
    Pillow.fromarray(stored).save(tmp_path / "src/hr/a.jpg", quality=95, subsampling=0, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Pillow.open(tmp_path / "src/hr/a.jpg")))
    low = np.rint(mean_of(shown.astype(float), 4)).astype(np.uint8)
    Pillow.fromarray(low).save(tmp_path / "src/lr/a.png")
    assert psnr_of_run(made(tmp_path / "src"))["a"] == pytest.approx(paired(low / 255, shown / 255), abs=2e-3)
    Pillow.fromarray(shown).save(tmp_path / "pred/a.png")
    assert by_score(tmp_path / "pred", "--ref", str(tmp_path / "src/hr")) == (100.0, "")


def test_09_the_offset_acts_without_lr(tmp_path: Path) -> None:
    image = scene(96)
    tif(tmp_path / "src/a.tif", counts(image) + np.uint16(1000), px=10, nodata=0)
    data = made(tmp_path / "src", unit="reflectance", scale=10000.0, offset=-1000.0)
    low = bicubic(counts(image) / 1e4, (24, 24))
    right = psnr(np.clip(bicubic(display(low), (96, 96)), 0, 1), display(counts(image) / 1e4))
    assert psnr_of_run(data, "bicubic-4x")["a"] == pytest.approx(right, abs=2e-3)


def test_10_pictures_are_no_reflectance(tmp_path: Path) -> None:
    stored = np.rint(np.clip(scene(96)[..., RGB] / 0.35, 0, 1) * 255).astype(np.uint8)
    tif(tmp_path / "src/a.tif", stored, names=("R", "G", "B"))
    with pytest.raises(RfbenchError, match=r"holds 8-bit numbers .* if these are pictures, give --unit display"):
        made(tmp_path / "src", unit="reflectance")
    assert psnr_of_run(made(tmp_path / "src"), "bicubic-4x")["a"] == pytest.approx(made_smaller(stored / 255), abs=2e-3)


def test_11_fills_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    fills = {
        "i16": (np.int16, 1e4, -9999),
        "f32": (np.float32, 1, np.finfo(np.float32).min),
        "e20": (np.float32, 1, 1e20),
    }
    rows = ["id,lr,hr,unit_lr,unit_hr,scale_lr,scale_hr"]
    for name, (dtype, scale, fill) in fills.items():
        for side, image, px in (("lr", L, 10), ("hr", H, 2)):
            stored = (np.rint(image * scale) if scale > 1 else image).astype(dtype)
            stored[: 80 // px, : 80 // px] = fill
            tif(tmp_path / f"src/{side}/{name}.tif", stored, px=px)
        rows.append(f"{name},lr/{name}.tif,hr/{name}.tif,reflectance,reflectance,{scale:g},{scale:g}")
    data = made(table(tmp_path / "src", "\n".join(rows) + "\n"), "csv")
    told = by_validate(data)
    for name, (dtype, _, fill) in fills.items():
        shown = f"hold {float(dtype(fill)):.9g} in band"
        assert any(f"{name}: lr:" in line and shown in line and line.startswith("error") for line in told)
        with pytest.raises(RfbenchError, match=rf"{name}\.tif: lr: .* {re.escape(shown)}"):
            dataset = FolderDataset(data)
            dataset.load(next(r for r in dataset.all_records if r.id == name))


def test_12_other_ground_and_upside_down(tmp_path: Path) -> None:
    tif(tmp_path / "src/lr/a.tif", counts(L), px=10)
    tif(tmp_path / "src/hr/a.tif", DN[::-1].copy(), transform=Affine(2, 0, 5e5, 0, 2, 4e6 - 240))
    data = made(table(tmp_path / "src", "id,lr,hr,unit_hr\na,lr/a.tif,hr/a.tif,reflectance\n"), "csv")
    assert any(line.startswith("error") and "stored upside down" in line for line in by_validate(data))
    assert psnr_of_run(data)["a"] is None


def test_13_sizes_that_no_rounding_explains(tmp_path: Path) -> None:
    rows = ["id,lr,hr,unit_hr"]
    for name, rows_px in (("fits", 120), ("odd", 124)):
        nowhere = {"crs": None, "transform": None}
        tif(tmp_path / f"src/lr/{name}.tif", counts(L), **nowhere)
        tif(tmp_path / f"src/hr/{name}.tif", counts(scene(132, 1))[:rows_px, :120], **nowhere)
        rows.append(f"{name},lr/{name}.tif,hr/{name}.tif,reflectance")
    told = by_validate(made(table(tmp_path / "src", "\n".join(rows) + "\n"), "csv"))
    assert [line for line in told if "no rounding explains" in line and ": odd:" in line]
    assert not [line for line in told if ": fits:" in line and "rounding" in line]


@pytest.mark.parametrize("how", ["msk", "aux.xml"])
def test_14_what_lies_beside_a_file(tmp_path: Path, how: str) -> None:
    image = np.rint(np.clip(scene(128)[..., RGB] / 0.5, 0.02, 1) * 255).astype(np.uint8)
    image[~OPAQUE] = 255
    path = tif(tmp_path / "src/a.tif", image, names=("R", "G", "B"))
    if how == "msk":
        tif(path.with_name("a.tif.msk"), (OPAQUE * 255).astype(np.uint8)[..., None], names=None, driver="GTiff")
    else:
        bands = "".join(f'<PAMRasterBand band="{i}"><NoDataValue>255</NoDataValue></PAMRasterBand>' for i in (1, 2, 3))
        path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    right = made_smaller(image / 255, OPAQUE)
    assert psnr_of_run(made(tmp_path / "src"), "bicubic-4x")["a"] == pytest.approx(right, abs=0.1)
    assert (np.isnan(by_upscale(path, unit="display").image).any(axis=2) == ~OPAQUE).all()


def test_15_one_page_a_band(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    pages = [Pillow.fromarray(np.ascontiguousarray(DN[..., i])) for i in range(4)]
    pages[0].save(tmp_path / "src/a.tif", save_all=True, append_images=pages[1:])
    line = "has 4 pages of 1 band each, expected one page with all bands"
    with pytest.raises(RfbenchError, match=line):
        made(tmp_path / "src", unit="reflectance", bands="B G R NIR")
    assert line in by_upscale(tmp_path / "src/a.tif", bands="B G R NIR").refused


def test_17_containers_are_read_by_name_or_say_how(tmp_path: Path) -> None:
    source, right = tif(tmp_path / "a.tif", DN), display(DN / 1e4)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(source, "a.tif")
    for ending, driver in (("nc", "netCDF"), ("img", "ENVI")):
        rasterio.shutil.copy(source, tmp_path / f"a.{ending}", driver=driver)
    (tmp_path / "x.SAFE/GRANULE").mkdir(parents=True)
    (tmp_path / "x.SAFE/MTD_MSIL2A.xml").write_text("<a/>")
    for name in ("a.zip", "a.zip/a.tif", "a.img"):
        np.testing.assert_allclose(
            by_upscale(tmp_path / name, folder=tmp_path, bands="B G R NIR").image, right, atol=1e-6
        )
    for name, line in (("x.SAFE", "stack its 10 m bands"), ("x.SAFE/MTD_MSIL2A.xml", "stack its 10 m bands"),
                       ("a.nc", "Band1")):  # fmt: skip
        assert line in by_upscale(tmp_path / name, folder=tmp_path, bands="B G R NIR").refused
    band = Path(f"NETCDF:{tmp_path / 'a.nc'}:Band1")
    assert "band" in by_upscale(band, folder=tmp_path).refused  # read, and found to be one band


def test_19_masks_and_arrays(tmp_path: Path) -> None:
    for name in ("src/hr", "src/mask", "two/src"):
        (tmp_path / name).mkdir(parents=True)
    picture = np.rint(np.clip(H[..., RGB] / 0.35, 0, 1) * 255).astype(np.uint8)
    Pillow.fromarray(picture).save(tmp_path / "src/hr/a.png")
    np.save(tmp_path / "src/mask/a.npy", picture[..., 0] > 120)
    assert psnr_of_run(made(tmp_path / "src"), "bicubic-4x")["a"] == pytest.approx(
        made_smaller(picture / 255), abs=2e-3
    )
    np.savez(tmp_path / "two/src/a.npz", lr=DN[::5, ::5, :3], hr=DN[..., :3])
    with pytest.raises(RfbenchError, match="holds the arrays lr, hr, expected one image"):
        made(tmp_path / "two/src", unit="reflectance")


def test_23_percent_and_radiance(tmp_path: Path) -> None:
    rows = ["id,lr,hr,unit_hr"]
    for name, times in (("percent", 100), ("radiance", 400)):
        tif(tmp_path / f"src/lr/{name}.tif", (L * times).astype(np.float32), px=10)
        tif(tmp_path / f"src/hr/{name}.tif", DN)
        rows.append(f"{name},lr/{name}.tif,hr/{name}.tif,reflectance")
    data = made(table(tmp_path / "src", "\n".join(rows) + "\n"), "csv")
    told = [line for line in by_validate(data) if line.startswith("error")]
    assert all(any(f": {name}:" in line for line in told) for name in ("percent", "radiance"))
    assert set(psnr_of_run(data).values()) == {None}


def test_options_of_one_side(tmp_path: Path) -> None:
    tif(tmp_path / "src/lr/a.tif", counts(L) + np.uint16(1000), px=10)
    tif(tmp_path / "src/hr/a.tif", DN)
    sides = parse_sides({"lr": ["unit=reflectance offset=-1000"], "hr": ["unit=reflectance"]})
    right = paired(display(counts(L) / 1e4), display(DN / 1e4))
    assert psnr_of_run(made(tmp_path / "src", sides=sides))["a"] == pytest.approx(right, abs=2e-3)
    assert BANDS == ("B02", "B03", "B04", "B08")
