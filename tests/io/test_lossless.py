"""One scene written in forty lossless ways has one score; what is not read is refused by name."""

from __future__ import annotations

import functools
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
from rasterio.enums import ColorInterp

from tests.io.content import (
    BANDS,
    bicubic,
    by_run,
    by_upscale,
    by_validate,
    counts,
    dataset,
    display,
    psnr,
    scene,
    score_of_bicubic,
    tif,
)  # fmt: skip

DN = counts(scene())
HOLE = np.zeros(DN.shape[:2], bool)
HOLE[:, :24] = True
VALID = ~HOLE
S2 = "B G R NIR"
Way = Callable[[Path], tuple[Path, dict[str, Any]]]
WAYS: dict[str, Way] = {}
HOLED: dict[str, Way] = {}
REFUSED: dict[str, tuple[Way, str]] = {}


def way(name: str, *, holed: bool = False) -> Callable[[Way], Way]:
    def keep(write: Way) -> Way:
        (HOLED if holed else WAYS)[name] = write
        return write

    return keep


def plain(name: str, **profile: Any) -> None:
    """A GeoTIFF of the same numbers that is stored in another way."""
    WAYS[name] = lambda folder: (tif(folder / "a.tif", DN, **profile), {})


plain("strips")
plain("tiles", tiled=True, blockxsize=16, blockysize=16)
plain("pixel-interleaved", interleave="pixel")
plain("band-interleaved", interleave="band")
plain("deflate-predictor", compress="deflate", predictor=2)
plain("lzw", compress="lzw")
plain("zstd", compress="zstd")
plain("lerc", compress="lerc")
plain("bigtiff", BIGTIFF="YES")
plain("big-endian", ENDIANNESS="BIG")
plain("nodata-that-is-nowhere", nodata=0)
plain("words", names=("blue", "Green", "RED", "nir"))
plain("pixel-is-point", AREA_OR_POINT="Point")
plain("no-georeference", crs=None, transform=None)
plain("tags-of-reflectance", scales=[1e-4] * 4, offsets=[0.0] * 4)


@way("int16")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN.astype(np.int16)), {}


@way("uint32")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN.astype(np.uint32)), {}


@way("float32")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", (DN / 1e4).astype(np.float32), predictor=3, compress="deflate"), {}


@way("float64-in-percent")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN / 100.0), {"scale": 100}


@way("offset-by-tags")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN + np.uint16(1000), scales=[1e-4] * 4, offsets=[-0.1] * 4), {}


@way("each-band-its-own-tags")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    stored = (DN * [1, 2, 4, 1] + [0, 0, 100, 500]).astype(np.uint16)
    return tif(folder / "a.tif", stored, scales=[1e-4, 5e-5, 2.5e-5, 1e-4], offsets=[0, 0, -0.0025, -0.05]), {}


@way("offset-declared")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN + np.uint16(1000)), {"offset": -1000}


@way("scale-declared")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN * np.uint16(4)), {"scale": 40000}


@way("declared-as-tagged")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = tif(folder / "a.tif", DN + np.uint16(1000), scales=[1e-4] * 4, offsets=[-0.1] * 4)
    return path, {"scale": 10000, "offset": -1000}


@way("order-by-names")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN[..., [3, 2, 1, 0]], names=("B08", "B04", "B03", "B02")), {}


@way("order-declared")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN[..., [2, 1, 0, 3]], names=None), {"bands": "R G B NIR"}


@way("a-band-more")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN[..., [0, 3, 1, 2, 3]], names=("B02", "B05", "B03", "B04", "B08")), {}


@way("planet-by-sensor")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN, names=("B1", "B2", "B3", "B4")), {"sensor": "PlanetScope"}


@way("landsat-by-sensor")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN, names=("SR_B2", "SR_B3", "SR_B4", "SR_B5")), {"sensor": "landsat-8"}


@way("naip-without-names")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN[..., [2, 1, 0, 3]], names=None), {"sensor": "naip"}


@way("npy")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.save(folder / "a.npy", DN)
    return folder / "a.npy", {"bands": S2}


@way("npy-bands-first")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.save(folder / "a.npy", np.moveaxis(DN, 2, 0))
    return folder / "a.npy", {"bands": S2}


@way("npz")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.savez_compressed(folder / "a.npz", bands=np.array(BANDS), values=DN)
    return folder / "a.npz", {}


@way("jpeg-2000")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    rasterio.shutil.copy(
        tif(folder / "b.tif", DN), folder / "a.jp2", driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES"
    )
    return folder / "a.jp2", {"bands": S2}


@way("cloud-optimised")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    rasterio.shutil.copy(tif(folder / "b.tif", DN), folder / "a.tif", driver="COG", BLOCKSIZE=128)
    return folder / "a.tif", {}


@way("png-16")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = tif(folder / "a.png", DN[..., [2, 1, 0]], driver="PNG", names=None, crs=None, transform=None)
    return path, {"scale": 10000}


def turned(orientation: int) -> Way:
    """Stored so that a viewer has to turn it by tag 274 to see the scene."""

    def write(folder: Path) -> tuple[Path, dict[str, Any]]:
        undo = {3: DN[::-1, ::-1], 6: np.rot90(DN, 1), 8: np.rot90(DN, -1), 2: DN[:, ::-1]}[orientation]
        path = tif(folder / "a.tif", np.ascontiguousarray(undo), crs=None, transform=None)
        set_tag(path, 274, orientation)
        return path, {}

    return write


def set_tag(path: Path, number: int, value: int) -> None:
    """Set a tag of one short of a little-endian TIFF's first directory: another one, which nobody reads, gives way."""
    data = bytearray(path.read_bytes())
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    entries = [bytes(data[place + 2 + 12 * i : place + 14 + 12 * i]) for i in range(count)]
    own = struct.pack("<HHIHH", number, 3, 1, value, 0)
    entries = sorted([e for e in entries if e[:2] != own[:2]] + [own], key=lambda e: struct.unpack("<H", e[:2])[0])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    struct.pack_into("<I", data, 4, len(data))
    path.write_bytes(bytes(data) + directory)


for number in (2, 3, 6, 8):
    WAYS[f"orientation-{number}"] = turned(number)


@way("white-is-zero")
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = tif(folder / "a.tif", 65535 - DN, photometric="MINISBLACK")
    set_tag(path, 262, 0)
    return path, {}


# --- the same hole, said in every way ---------------------------------------------------------------------------


@way("nodata-tag", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", np.where(HOLE[:, :, None], 65535, DN).astype(np.uint16), nodata=65535), {}


@way("nodata-in-one-band", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    stored = DN.astype(np.int16)
    stored[HOLE, 1] = -9999
    return tif(folder / "a.tif", stored, nodata=-9999), {}


@way("nodata-declared", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", np.where(HOLE[:, :, None], 0, DN).astype(np.uint16)), {"nodata": 0}


@way("not-a-number", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", np.where(HOLE[:, :, None], np.nan, DN / 1e4).astype(np.float32)), {}


@way("internal-mask", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", DN, mask=VALID), {}


@way("mask-beside", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    tif(folder / "a.tif.msk", np.where(HOLE, 0, 255).astype(np.uint8)[:, :, None], driver="GTiff", names=None)
    return tif(folder / "a.tif", DN), {}


@way("notes-beside", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    bands = "".join(f'<PAMRasterBand band="{i}"><NoDataValue>9</NoDataValue></PAMRasterBand>' for i in (1, 2, 3, 4))
    (folder / "a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    return tif(folder / "a.tif", np.where(HOLE[:, :, None], 9, DN).astype(np.uint16)), {}


@way("alpha", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    stored = np.dstack([DN, np.where(HOLE, 0, 65535)]).astype(np.uint16)
    colours = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined, ColorInterp.alpha]
    return tif(folder / "a.tif", stored, names=(*BANDS, ""), colorinterp=colours), {}


@way("alpha-declared", holed=True)
def _(folder: Path) -> tuple[Path, dict[str, Any]]:
    return tif(folder / "a.tif", np.dstack([DN, VALID * 7]).astype(np.uint16), names=None), {"bands": f"{S2} A"}


# --- refused by name ---------------------------------------------------------------------------------------------


def copied(ending: str, driver: str) -> Way:
    def write(folder: Path) -> tuple[Path, dict[str, Any]]:
        rasterio.shutil.copy(tif(folder / "b.tif", DN), folder / f"a.{ending}", driver=driver)
        return folder / f"a.{ending}", {"bands": S2}

    return write


def pages(folder: Path) -> tuple[Path, dict[str, Any]]:
    from PIL import Image as Pillow

    images = [Pillow.fromarray(np.ascontiguousarray(DN[..., i])) for i in range(4)]
    images[0].save(folder / "a.tif", save_all=True, append_images=images[1:])
    return folder / "a.tif", {"bands": S2}


def zipped(folder: Path) -> tuple[Path, dict[str, Any]]:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(tif(folder / "b.tif", DN), "a.tif")
    return folder / "a.zip", {}


REFUSED = {
    "netcdf": (copied("nc", "netCDF"), "a.nc: file type '.nc' is not read; name one variable"),
    "envi": (copied("img", "ENVI"), "a.img: file type '.img' is not read; make a GeoTIFF of it"),
    "vrt": (copied("vrt", "VRT"), "a.vrt: file type '.vrt' is not read; make a GeoTIFF of it"),
    "zip": (zipped, "a.zip: file type '.zip' is not read; unpack it"),
    "pages": (pages, "a.tif: has 4 pages of 1 band each, expected one page with all bands"),
}


def expected(valid: np.ndarray) -> float:
    """PSNR (dB) of the scene's bicubic, from the numbers themselves."""
    r = DN / 1e4
    filled = np.where(valid[:, :, None], r, np.median(r[valid], axis=0))
    low = bicubic(filled, (16, 16))
    seen = valid.reshape(16, 4, 16, 4).all(axis=(1, 3))
    low[~seen] = np.median(low[seen], axis=0)
    return psnr(bicubic(display(low), (64, 64)), display(r), valid)


@functools.cache
def base(holed: bool) -> float:
    """The score of the plainest way: that of independent arithmetic but for halves that are rounded otherwise."""
    with tempfile.TemporaryDirectory() as name:
        path, said = HOLED["nodata-tag"](Path(name)) if holed else WAYS["strips"](Path(name))
        found = score_of_bicubic(dataset(Path(name), path, {"unit": "reflectance"} | said))
    assert found == pytest.approx(expected(VALID if holed else np.ones_like(VALID)), abs=2e-3)
    return found


def test_there_are_forty_ways() -> None:
    assert len(WAYS) + len(HOLED) + len(REFUSED) >= 40 and len(REFUSED) <= 6


@pytest.mark.parametrize("name", [*WAYS, *HOLED])
def test_one_scene_has_one_score(tmp_path: Path, name: str) -> None:
    path, said = (WAYS | HOLED)[name](tmp_path)
    valid = VALID if name in HOLED else np.ones_like(VALID)
    folder = dataset(tmp_path, path, {"unit": "reflectance"} | said)
    assert score_of_bicubic(folder) == pytest.approx(base(name in HOLED), abs=1e-4)
    options = {"input_scale" if k == "scale" else k: v for k, v in said.items()}
    seen = by_upscale(path, **options)
    assert not seen.refused
    shown = display(DN / 1e4)
    assert np.isnan(seen.image).any(axis=2).tolist() == (~valid).tolist()
    np.testing.assert_allclose(seen.image[valid], shown[valid], atol=2e-7)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    write, line = REFUSED[name]
    path, said = write(tmp_path)
    folder = dataset(tmp_path, path, {"unit": "reflectance"} | said)
    assert line in by_run(folder).refused
    assert any(line in text for text in by_validate(folder))
