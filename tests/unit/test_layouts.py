"""Imports of public layouts: the smallest fake of each, from import to table, and what is believed of them checked."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image as Pillow
from rasterio.transform import from_bounds, from_origin
from rasterio.warp import transform_bounds

from bench.cli import cli
from bench.core.errors import RfbenchError
from bench.data.coco import read_coco
from bench.data.dataset import FolderDataset, Pair
from bench.data.layouts import LAYOUTS, import_layout
from bench.data.layouts.build import L2A_BANDS
from bench.data.pickled import load_arrays
from bench.data.shapefile import MAX_BYTES, read_polygons
from bench.data.validate import validate
from tests.conftest import picture

EE = L2A_BANDS.split()


def rows(path: Path, table: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def tif(path: Path, values: np.ndarray, crs: str | None = None, transform: Any = None, bands: Any = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": values.dtype.name}
    if crs:
        profile |= {"crs": crs, "transform": transform}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(values, 2, 0))
        for i, band in enumerate(bands, 1):
            file.set_band_description(i, band)


def stack(seed: int, height: int, width: int, bands: int = 12) -> np.ndarray:
    """Reflectance x 10000 where band i is around 200 (i + 1), so that a mixed-up order shows."""
    levels = 200.0 * (1 + np.arange(bands))
    return np.round(levels * (0.8 + 0.4 * picture(seed, height, width, bands))).astype(np.uint16)


# --- the fakes --------------------------------------------------------------------------------------------------


def worldstrat(root: Path) -> None:
    split, meta = [], []
    for i, (aoi, hr_px, lr_px) in enumerate(
        [("Amnesty POI-20-2-2", (66, 66), (10, 10)), ("Landcover-1377171", (64, 66), (10, 11))]
    ):
        box = (10.0, 50.0, 10.0 + 0.0014, 50.0 + 0.0009)
        hr = np.round(4095 * picture(i, *hr_px, 4)).astype(np.uint16)
        tif(root / f"hr_dataset/{aoi}/{aoi}_ps.tiff", hr, "EPSG:4326", from_bounds(*box, hr_px[1], hr_px[0]))
        for n in (1, 3):
            lr = stack(10 * i + n, *lr_px).astype(np.float32) / 10000
            lr[0, :2] = 1.2
            name = root / f"lr_dataset/{aoi}/L2A/{aoi}-{n}-L2A_data.tiff"
            tif(name, lr, "EPSG:4326", from_bounds(*box, lr_px[1], lr_px[0]))
            tif(name.with_name(f"{aoi}-{n}-CLM.tiff"), np.zeros((*lr_px, 1), np.uint8))
            meta.append({"": aoi, "n": n, "lon": 10, "lat": 50, "lowres_date": f"2020-0{5 - n}-01",
                         "highres_date": "2020-02-10", "cloud_cover": 0.1 * n})  # fmt: skip
        split.append({"": i, "tile": aoi, "IPCC Class": "x", "split": ("train", "test")[i]})
    split.append({"": 2, "tile": "UNHCR-LBNs006446", "IPCC Class": "x", "split": "test"})
    rows(root / "metadata.csv", meta)
    rows(root / "stratified_train_val_test_split.csv", split)


def opensr(root: Path, **changes: Any) -> None:
    import pandas as pd

    for part, px in (("spot", 8), ("naip", 9)):
        lr = np.stack([np.moveaxis(stack(i, px, px), 2, 0) for i in range(2)])
        hr = np.stack([np.moveaxis(stack(5 + i, 4 * px, 4 * px, 4)[:, :, [2, 1, 0, 3]], 2, 0) for i in range(2)])
        content: dict[str, Any] = {
            "L2A": lr, "L1C": np.concatenate([lr, lr[:, :1]], 1), "HR": hr, "HRharm": hr // 2, "hr": hr * 0 + 7,
            "metadata": pd.DataFrame({"roi": ["ROI_0001", "ROI_0002"], "spatial": [0.1, 0.2]}),
        } | changes  # fmt: skip
        (root / part).mkdir(parents=True, exist_ok=True)
        (root / part / f"{part}.pkl").write_bytes(pickle.dumps(content))


def opensr_tif(root: Path) -> None:
    folder = root / "100" / "venus"
    for i in range(2):
        grid = (500_000 + 5000 * i, 4_600_000)
        lr = stack(i, 12, 12)
        tif(folder / f"L2A/ROI_{i:05d}__20210917T172951_20210917T173801_T14TLN.tif", lr, "EPSG:32631",
            from_origin(*grid, 10, 10))  # fmt: skip
        for name, factor in (("hr", 2), ("hr_harmonized", 1)):
            tif(folder / f"{name}/HR__ROI_{i:05d}__m_4411338_060_20210915.tif", stack(9 + i, 24, 24, 4) * factor,
                "EPSG:32631", from_origin(*grid, 5, 5))  # fmt: skip


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y - height / 2) / (height / 4)) ** 2 + ((x - width / 2) / (width / 5)) ** 2 <= 1


def outline(height: int, width: int, scale: float = 1.0) -> list[float]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    xy = np.stack([width / 2 + scale * width / 5 * np.cos(t) + 0.5, height / 2 + scale * height / 4 * np.sin(t) + 0.5])
    return [float(v) for v in xy.T.reshape(-1)]


def cyber2a(root: Path) -> None:
    names = [("train_nitze_001", 137, 291), ("train_yg_002", 158, 289), ("valtest_nitze_003", 295, 150),
             ("valtest_yg_004", 232, 286)]  # fmt: skip
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    lists: dict[str, list[str]] = {"train": [], "valtest": []}
    cocos: dict[str, dict[str, list[Any]]] = {
        k: {"info": [], "licenses": [], "images": [], "annotations": [], "categories": []} for k in lists
    }
    for i, (name, height, width) in enumerate(names):
        values = np.round(255 * (0.25 + 0.25 * picture(i, height, width))).astype(np.uint8)
        Pillow.fromarray(values).save(root / f"images/{name}.jpg", quality=92)
        Pillow.fromarray(ellipse(height, width).astype(np.uint8) * 255).save(root / f"masks/{name}.jpg", quality=75)
        key = name.split("_")[0]
        lists[key].append(f"{name}.jpg")
        number = len(cocos[key]["images"])
        cocos[key]["images"].append({"id": number, "file_name": f"{name}.jpg", "width": width, "height": height})
        polygons = [outline(height, width)] + ([[1.0, 1.0, 9.0, 1.0, 9.0, 6.0, 1.0, 6.0]] if i == 0 else [])
        for polygon in polygons:
            cocos[key]["annotations"].append(
                {"image_id": number, "category_id": 1, "segmentation": [polygon], "bbox": [0, 0, 9, 9], "area": 81,
                 "iscrowd": 0}
            )  # fmt: skip
    (root / "data_split.json").write_text(json.dumps(lists))
    for key, coco in cocos.items():
        (root / f"coco_rts_{key}.json").write_text(json.dumps(coco))


BANDS_8 = ["red", "green", "blue", "ndvi", "relative_elevation", "shaded_relief", "nir", "ndwi"]


def packed(mask: np.ndarray) -> str:
    """COCO's compressed run lengths, written from the published C code (rleToString)."""
    flat = mask.flatten(order="F").astype(int)
    edges = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(flat))), len(flat)]
    runs = np.diff(edges).tolist()
    runs = [0, *runs] if flat[0] else runs
    text = ""
    for i, run in enumerate(runs):
        x = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


def challenge(root: Path) -> None:
    (root / "metadata").mkdir(parents=True)
    (root / "metadata/band_names.json").write_text(json.dumps(BANDS_8))
    coco: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "rts"}]}
    for i, part in enumerate(("train", "test")):
        image = np.zeros((48, 60, 8), np.float32)
        image[:, :, :3] = np.round(190 * picture(i, 48, 60))
        image[:, :, 6] = 650 + 2850 * picture(i + 5, 48, 60, 1)[:, :, 0]
        (root / part / "images").mkdir(parents=True)
        np.savez(root / part / f"images/{part}_{i}.npz", image=image)
    mask = ellipse(48, 60)
    coco["images"].append({"id": 7, "file_name": "train_0.npz", "width": 60, "height": 48})
    coco["annotations"].append({"image_id": 7, "segmentation": {"size": [48, 60], "counts": packed(mask)}})
    (root / "train/annotations").mkdir()
    (root / "train/annotations/instances_train.json").write_text(json.dumps(coco))


def mapping(root: Path) -> None:
    table = []
    for i, (tile, region) in enumerate([("t_1", "Banks"), ("t_2", "Banks"), ("t_3", "Peel")]):
        grid = from_origin(1000 * i, 0, 3, 3)
        tif(root / f"PLANET-RGB/{tile}.tif", np.round(255 * picture(i, 64, 64)).astype(np.uint8), "EPSG:3413", grid)
        label = ellipse(64, 64).astype(np.uint8)[:, :, None]
        label[:4] = 255
        tif(root / f"labels/{tile}.tif", label, "EPSG:3413", grid)
        table.append({"Tile_id": tile, "centroid_lat": 70, "centroid_lon": 0, "TrainClass": "Positive",
                      "RegionName": region, "UIDs": ""})  # fmt: skip
    rows(root / "metadata.csv", table)
    (root / "splits.yaml").write_text("train:\n  - Banks\ntest: [Peel]\n")


def labels(root: Path) -> None:
    for i, where in enumerate(("Level 1/A1/uid1", "Level 2/B3/uid1", "Level 3/C2/uid2")):
        values = np.zeros((64, 64, 4), np.float32)
        values[:, :, :3] = np.round(255 * picture(min(i, 1) + i // 2, 64, 64))
        values[:, :, 3] = ellipse(64, 64)
        if i == 2:
            values[:9, :9] = -np.inf
        tif(root / f"data/raw/{where}.tif", values, "EPSG:3413", from_origin(i // 2 * 5000, 0, 2, 2))


UTM8 = "EPSG:32608"


def shapefile(path: Path, polygons: list[list[np.ndarray]], crs: str | None = UTM8, kind: int = 5) -> None:
    """Polygons, each a list of rings (n, 2), as the technical description of shapefiles has them."""
    records = b""
    for number, rings in enumerate(polygons, 1):
        points = np.concatenate(rings)
        starts = np.cumsum([0, *map(len, rings[:-1])])
        box = [*points.min(0), *points.max(0)]
        content = struct.pack("<i4dii", kind, *box, len(rings), len(points)) + starts.astype("<i4").tobytes()
        content += points.astype("<f8").tobytes()
        records += struct.pack(">ii", number, len(content) // 2) + content
    header = struct.pack(">i20xi", 9994, (100 + len(records)) // 2) + struct.pack("<ii8d", 1000, kind, *[0.0] * 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + records)
    if crs:
        path.with_suffix(".prj").write_text(rasterio.crs.CRS.from_string(crs).to_wkt())


def box(left: float, bottom: float, right: float, top: float) -> np.ndarray:
    return np.array([[left, bottom], [left, top], [right, top], [right, bottom], [left, bottom]])


LEFT, TOP = 470890.0, 7550020.0


def experts(root: Path) -> None:
    """Two sites; HR begins 12.5 m left of and above LR on a grid of its own, and ends before the last row of LR."""
    for i, (site, bands) in enumerate((("Peel", 7), ("Bykovsky", 10))):
        data = root / "01_Setup" / site / "data"
        tif(data / f"S2_2021082{i}T210019_2021082{i}T210020_T08WMA.tif", stack(i, 20, 21, bands), UTM8,
            from_origin(LEFT, TOP, 10, 10))  # fmt: skip
        hr = stack(i, 66, 69, 4)
        tif(data / f"PlanetScope_4763844_0870513_2021-08-0{i + 4}_2416_BGRN_SR.tif", hr, UTM8,
            from_origin(LEFT - 12.5, TOP + 12.5, 3.125, 3.125))  # fmt: skip
        tif(data / "L8_LC08_139232_20210721.tif", np.zeros((13, 14, 7), np.float32))
        results = root / "02_UserResults"
        for n in range(3):  # a square of 80 m, shifted by 20 m from expert to expert
            square = box(LEFT + 40 + 20 * n, TOP - 120, LEFT + 120 + 20 * n, TOP - 40)
            shapefile(results / f"#0{n + 1}" / f"{site}_digitized.shp", [[square]])


def pairs_csv(root: Path) -> None:
    (root / "hr").mkdir(parents=True)
    bands = ("B02", "B03", "B04", "B08")
    tif(root / "lr/a.tif", stack(1, 28, 41, 4), bands=bands)
    np.save(root / "lr/b.npy", stack(2, 30, 40, 4)[:, :, [2, 1, 0, 3]].astype(np.float32) / 10000)
    for stem, size, suffix in (("a", (141, 206), "png"), ("b", (150, 200), "jpg")):
        Pillow.fromarray(np.round(255 * picture(3, *size)).astype(np.uint8)).save(root / f"hr/{stem}.{suffix}")
    Pillow.fromarray(ellipse(141, 206)).save(root / "mask_a.png")
    rows(root / "my pairs.csv", [
        {"id": "slump a", "lr": "lr/a.tif", "hr": "hr/a.png", "mask": "mask_a.png", "caption": "A slump, by a stream.",
         "scene_id": "Peel", "date_lr": "2021-08-21", "date_hr": "2021-08-17", "gsd_lr_m": 10, "gsd_hr_m": 2,
         "bands_lr": "", "bands_hr": "R G B"},
        {"id": "b", "lr": "lr/b.npy", "hr": "hr/b.jpg", "mask": "", "caption": "", "scene_id": "", "date_lr": "",
         "date_hr": "", "gsd_lr_m": "", "gsd_hr_m": "", "bands_lr": "B04 B03 B02 B08", "bands_hr": ""},
    ])  # fmt: skip


FAKES: dict[str, tuple[str, Callable[[Path], None], str, int]] = {
    "worldstrat": ("worldstrat", worldstrat, "paired", 2),
    "opensr pickles": ("opensr-test", opensr, "paired", 4),
    "opensr files": ("opensr-test", opensr_tif, "paired", 2),
    "cyber2a": ("rts-cyber2a", cyber2a, "bicubic-4x", 4),
    "challenge": ("rts-challenge", challenge, "bicubic-4x", 2),
    "mapping": ("rts-mapping", mapping, "bicubic-4x", 3),
    "labels": ("rts-labels", labels, "bicubic-4x", 3),
    "experts": ("rts-experts", experts, "paired", 2),
    "csv": ("csv", pairs_csv, "paired", 2),
}


@pytest.mark.parametrize("fake", FAKES)
def test_from_import_to_table(fake: str, tmp_path: Path) -> None:
    layout, make, protocol, count = FAKES[fake]
    make(tmp_path / "src")
    target = tmp_path / "data"
    done = CliRunner().invoke(
        cli, ["data", "import", layout, str(tmp_path / "src"), str(target)], standalone_mode=False
    )
    assert done.exception is None, done.exception
    assert f"{target}: {count} images" in done.stdout
    checked = CliRunner().invoke(cli, ["validate", str(target)], standalone_mode=False)
    assert checked.return_value == 0, checked.stdout
    out = tmp_path / "runs"
    run = CliRunner().invoke(
        cli, ["run", "--model", "bicubic", "--protocol", protocol, "--data", str(target), "--metrics", "psnr_rgb",
              "--workers", "0", "--out", str(out)], standalone_mode=False,
    )  # fmt: skip
    assert run.return_value == 0, (run.stderr, run.exception)
    table = CliRunner().invoke(cli, ["table", str(out), "--format", "json"], standalone_mode=False)
    scores = json.loads(table.stdout)["rows"][0]["metrics"]["psnr_rgb"]
    tested = [r for r in FolderDataset(target).all_records if r.split == "test"]
    assert scores["n"] == len(tested) > 0 and 5 < scores["value"] < 60


def imported(tmp_path: Path, layout: str, make: Callable[[Path], None], **options: Any) -> tuple[dict[str, Pair], str]:
    """The pairs of a fake by id, and the notes."""
    source = tmp_path / "src"
    if not source.exists():
        make(source)
    notes: list[str] = []
    target = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    import_layout(layout, source, target, name="x", note=notes.append, **options)
    dataset = FolderDataset(target)
    assert not list(tmp_path.glob(".*.part"))
    return {r.id: dataset.load(r) for r in dataset.all_records}, "\n".join(notes)


def medians(pair: Pair, bands: str) -> np.ndarray:
    assert pair.lr is not None
    return np.median(pair.lr.select(tuple(bands.split())).values, axis=(0, 1)) * 10000


# --- WorldStrat -------------------------------------------------------------------------------------------------


def test_worldstrat_by_name_split_and_date(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "worldstrat", worldstrat)
    assert {i: p.record.split for i, p in pairs.items()} == {"Amnesty POI-20-2-2": "train", "Landcover-1377171": "test"}
    first = pairs["Amnesty POI-20-2-2"]
    # Number 3 (2020-02-01) is nearer to 2020-02-10 than number 1 (2020-04-01).
    assert (first.record.lr_date, first.record.hr_date) == ("2020-02-01", "2020-02-10")
    assert first.lr is not None and first.hr is not None
    assert first.lr.unit == "reflectance" and first.lr.values.max() == np.float32(1.2)
    np.testing.assert_allclose(medians(first, "R G B NIR"), [800, 600, 400, 1600], rtol=0.15)
    assert first.hr.unit == "relative" and first.hr.bands == ("R", "G", "B", "NIR") and first.hr.values.max() > 1000
    assert (first.lr.gsd_m, first.hr.gsd_m) == (10, 1.5)
    assert "1 areas ('UNHCR-LBNs006446') named by the split table lack their LR or HR" in notes
    assert "2 LR files name no bands: the usual order of 12 was taken" in notes
    assert "EPSG" not in notes and "float32" not in notes  # as believed, so nothing to say


def test_worldstrat_of_all_and_of_clearest_dates(tmp_path: Path) -> None:
    pairs, _ = imported(tmp_path, "worldstrat", worldstrat, dates="all")
    assert sorted(pairs)[:2] == ["Amnesty POI-20-2-2-1", "Amnesty POI-20-2-2-3"]
    assert {p.record.scene_id for p in pairs.values()} == {"Amnesty POI-20-2-2", "Landcover-1377171"}
    clearest, _ = imported(tmp_path, "worldstrat", worldstrat, dates="clearest")
    assert clearest["Landcover-1377171"].record.lr_date == "2020-04-01"
    with pytest.raises(RfbenchError, match="expected nearest, clearest, all, series"):
        imported(tmp_path, "worldstrat", worldstrat, dates="best")


def test_worldstrat_revisits_as_a_series(tmp_path: Path) -> None:
    source = tmp_path / "src"
    worldstrat(source)
    aoi = "Landcover-1377171"
    tif(source / f"lr_dataset/{aoi}/L2A/{aoi}-4-L2A_data.tiff", stack(4, 9, 11).astype(np.float32) / 10000)
    (source / f"lr_dataset/{aoi}/L2A/{aoi}-5-L2A_data.tiff").write_bytes(b"II*\0nonsense")
    pairs, notes = imported(tmp_path, "worldstrat", worldstrat, dates="series")
    assert set(pairs) == {"Amnesty POI-20-2-2", aoi}
    for i, pair in enumerate(pairs.values()):
        series, lr = pair.series, pair.lr
        assert series is not None and lr is not None
        assert series.dates == ("2020-02-01", "2020-04-01") and pair.record.lr_date == "2020-02-01"
        assert series.bands == tuple(EE)
        np.testing.assert_array_equal(series.values[0], lr.values)  # number 3, the earlier one
        np.testing.assert_array_equal(series.values[1, 1:], (stack(10 * i + 1, *lr.size) / 10000).astype("f4")[1:])
    assert notes.count("one date less in its series") == 2 and "its size is not that of" in notes
    report = validate(next(p for p in tmp_path.iterdir() if p.name.startswith("out")))
    assert not [p for p in report.problems if p.check in ("series", "date")]


def test_worldstrat_that_is_not_as_believed_says_so(tmp_path: Path) -> None:
    source = tmp_path / "src"
    worldstrat(source)
    aoi = "Landcover-1377171"
    box = transform_bounds("EPSG:4326", "EPSG:32632", 10.0, 50.0, 10.0014, 50.0009)
    for n in (1, 3):
        tif(source / f"lr_dataset/{aoi}/L2A/{aoi}-{n}-L2A_data.tiff", stack(n, 10, 11), "EPSG:32632",
            from_bounds(*box, 11, 10), EE)  # fmt: skip
    pairs, notes = imported(tmp_path, "worldstrat", worldstrat)
    np.testing.assert_allclose(medians(pairs[aoi], "R G B"), [800, 600, 400], rtol=0.15)
    assert "expected to be float32; found 1 of uint16" in notes
    assert "expected in EPSG:4326; found 1 of EPSG:32632" in notes
    assert "1 LR files hold numbers far above 1" in notes
    # Level L1C has another order: thirteen bands in the place of twelve must not be taken by position.
    tif(source / f"lr_dataset/{aoi}/L2A/{aoi}-3-L2A_data.tiff", stack(3, 10, 11, 13))
    pairs, notes = imported(tmp_path, "worldstrat", worldstrat)
    assert set(pairs) == {"Amnesty POI-20-2-2"} and "found 13 bands, expected 12" in notes and "L1C" in notes


def test_worldstrat_with_bands_in_another_order_is_not_taken_by_position(tmp_path: Path) -> None:
    source = tmp_path / "src"
    worldstrat(source)
    aoi = "Landcover-1377171"
    order = EE[::-1]
    tif(source / f"lr_dataset/{aoi}/L2A/{aoi}-3-L2A_data.tiff", stack(3, 10, 11).astype(np.float32) / 1e4, bands=order)
    pairs, notes = imported(tmp_path, "worldstrat", worldstrat)
    assert aoi not in pairs and "the file names its bands B12" in notes


def test_worldstrat_of_8_bit_is_display(tmp_path: Path) -> None:
    source = tmp_path / "src"
    worldstrat(source)
    for aoi in ("Amnesty POI-20-2-2", "Landcover-1377171"):
        (source / f"hr_dataset/{aoi}/{aoi}_ps.tiff").unlink()
        values = np.round(255 * picture(1, 66, 66, 4)).astype(np.uint8)
        tif(source / f"hr_dataset/8bit/{aoi}/{aoi}_ps_8bit.tiff", values)
    pairs, _ = imported(tmp_path, "worldstrat", worldstrat)
    assert all(p.hr is not None and p.hr.unit == "display" for p in pairs.values())


# --- the offset -------------------------------------------------------------------------------------------------


def test_an_offset_is_suspected_and_taken_off(tmp_path: Path) -> None:
    source = tmp_path / "src"
    opensr(source, L2A=np.stack([np.moveaxis(stack(i, 8, 8), 2, 0) for i in range(2)]) + np.uint16(1000),
           HR=np.ones((2, 4, 32, 32), np.uint16) * np.arange(500, 532, dtype=np.uint16),
           HRharm=np.ones((2, 4, 32, 32), np.uint16) * np.arange(500, 532, dtype=np.uint16))  # fmt: skip
    _, notes = imported(tmp_path, "opensr-test", opensr)
    assert "4 of 4 LR images (such as 'naip_0000') have nothing dark in any band" in notes
    pairs, notes = imported(tmp_path, "opensr-test", opensr, offset=-1000.0)
    assert "nothing dark" not in notes
    np.testing.assert_allclose(medians(pairs["spot_0000"], "R G B"), [800, 600, 400], rtol=0.15)
    _, notes = imported(tmp_path, "opensr-test", opensr, offset=1000.0)
    assert "products with +1000 need -1000" in notes


def test_an_offset_goes_to_the_reflectance_of_lr_alone(tmp_path: Path) -> None:
    pairs, _ = imported(tmp_path, "csv", pairs_csv, offset=-100.0)
    assert pairs["slump a"].record.sides["lr"].offset == -100 and not pairs["slump a"].record.sides["hr"].offset
    (tmp_path / "pictures").mkdir()
    Pillow.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "pictures/x.png")
    with pytest.raises(RfbenchError, match="--offset belongs to reflectance"):
        import_layout("folder", tmp_path / "pictures", tmp_path / "d", name="x", offset=-1000.0)


# --- opensr-test ------------------------------------------------------------------------------------------------


def test_opensr_pickles_by_name_and_reference(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "opensr-test", opensr)
    pair = pairs["naip_0001"]
    assert pair.lr is not None and pair.hr is not None
    assert pair.lr.size == (9, 9) and pair.hr.size == (36, 36) and len(pair.lr.bands) == 12
    np.testing.assert_allclose(medians(pair, "R G B NIR"), [800, 600, 400, 1600], rtol=0.15)
    assert "'hr' and 'hr_harm' are documented nowhere" in notes and "every image is a scene of its own" in notes
    raw, _ = imported(tmp_path, "opensr-test", opensr, reference="raw", level="L1C")
    lr, hr = raw["naip_0001"].lr, raw["naip_0001"].hr
    assert lr is not None and hr is not None and "B10" in lr.bands
    np.testing.assert_allclose(hr.values, pair.hr.values * 2, atol=2e-4)
    np.testing.assert_array_equal(hr.select(("R", "G", "B")).values, hr.values[:, :, :3])


def test_opensr_with_its_table_knows_scenes_and_dates(tmp_path: Path) -> None:
    source = tmp_path / "src"
    opensr(source)
    for part in ("spot", "naip"):
        table = [{"roi": f"ROI_{i}", "lr_gee_id": f"COPERNICUS/S2_SR/2021091{i}T172951_20210917T173801_T14TLN"}
                 for i in range(2)]  # fmt: skip
        rows(source / part / f"{part}_metadata.csv", table)
    pairs, notes = imported(tmp_path, "opensr-test", opensr)
    assert pairs["spot_0001"].record.scene_id == "spot ROI_1" and pairs["spot_0001"].record.lr_date == "2021-09-11"
    assert "scene of its own" not in notes


def test_opensr_files_keep_place_and_dates(tmp_path: Path) -> None:
    pairs, _ = imported(tmp_path, "opensr-test", opensr_tif)
    record = pairs["venus_ROI_00001"].record
    assert (record.lr_date, record.hr_date, record.sides["hr"].gsd_m) == ("2021-09-17", "2021-09-15", 5)
    report = validate(next(p for p in tmp_path.iterdir() if p.name.startswith("out")))
    assert not [p for p in report.problems if p.check in ("extent", "gsd")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"L2A": np.zeros((2, 13, 8, 8), np.uint16)}, "has the shape .2, 13, 8, 8., expected .N, 12"),
        ({"HRharm": None}, "holds no array 'HRharm'; its arrays are HR, L1C, L2A, hr"),
        ({"L2A": np.full((2, 12, 8, 8), 0.2, np.float32)}, "holds reflectance 0 to 1, expected numbers x 10000"),
        ({"L2A": np.zeros((3, 12, 8, 8), np.uint16)}, "found 3 LR and 2 HR images"),
    ],
)
def test_opensr_of_other_content_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RfbenchError, match=message):
        imported(tmp_path, "opensr-test", lambda root: opensr(root, **changes))
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_two_versions_of_opensr_are_refused(tmp_path: Path) -> None:
    opensr(tmp_path / "src" / "020")
    opensr(tmp_path / "src" / "100")
    with pytest.raises(RfbenchError, match=r"holds 'naip' twice \(020 and 100\)"):
        imported(tmp_path, "opensr-test", opensr)


class Evil:
    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.name}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "src/spot").mkdir(parents=True)
    (tmp_path / "src/spot/spot.pkl").write_bytes(pickle.dumps({"L2A": Evil(str(trap))}, protocol=protocol))
    done = CliRunner().invoke(
        cli, ["data", "import", "opensr-test", str(tmp_path / "src"), str(tmp_path / "out")], standalone_mode=False
    )
    assert isinstance(done.exception, RfbenchError) and "it may be hostile" in str(done.exception)
    assert "\n" not in str(done.exception) and "system" in str(done.exception)
    assert not trap.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "program",
    [
        b'cbuiltins\neval\n(S\'open("TRAP","w")\'\ntR.',
        b"cnumpy\nload\n(S'TRAP'\ntR.",  # a name of an allowed package: recorded, never called
        b"cpandas.io.pickle\nread_pickle\n(S'TRAP'\ntR.",
        b"cnumpy.f2py.diagnose\nrun\n)R.",
        b"(dS'L2A'\ncnumpy.core.multiarray\n_reconstruct\n(I1\nI2\nI3\ntRs.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",  # claims eight exabytes of text
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memory of two billion entries
        b"(" * 200_000,
        b"Pforeign\n.",
        b"\x80\x04\x82\x01.",
        b"",
        b".",
        b"\x80\x05N.",
    ],
)
def test_programs_that_are_no_arrays_end_in_one_line(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(program.replace(b"TRAP", str(tmp_path / "trap").encode()))
    try:
        assert load_arrays(path) == {}
    except RfbenchError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_any_protocol_are_what_was_pickled(tmp_path: Path, protocol: int) -> None:
    import pandas as pd

    arrays = {
        "a": np.arange(24, dtype=np.uint16).reshape(2, 3, 4), "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(10, dtype=">i4")[::2], "empty": np.zeros((0, 3)), "bool": np.array([True, False]),
    }  # fmt: skip
    others = {"table": pd.DataFrame({"x": [1, 2]}), "text": np.array(["a"]), "objects": np.array([None], object), 3: 4}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays | others, protocol=protocol))
    found = load_arrays(tmp_path / "x.pkl")
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


def test_a_cut_pickle_is_one_line(tmp_path: Path) -> None:
    opensr(tmp_path)
    whole = (tmp_path / "spot/spot.pkl").read_bytes()
    for length in range(1, len(whole), len(whole) // 40):
        (tmp_path / "x.pkl").write_bytes(whole[:length])
        with pytest.raises(RfbenchError, match=r"x\.pkl"):
            load_arrays(tmp_path / "x.pkl")


# --- thaw slumps ------------------------------------------------------------------------------------------------


def test_the_teaching_copy(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "rts-cyber2a", cyber2a)
    assert {i: p.record.split for i, p in pairs.items()} == {
        "train_nitze_001": "train", "train_yg_002": "train", "valtest_nitze_003": "test", "valtest_yg_004": "test",
    }  # fmt: skip
    for i, (height, width) in (("train_yg_002", (158, 289)), ("valtest_nitze_003", (295, 150))):
        mask = pairs[i].mask
        assert mask is not None and mask.shape == (height, width)
        assert (mask ^ ellipse(height, width)).mean() < 0.01  # drawn from the polygon, not from 17 grey levels
    first = pairs["train_nitze_001"].mask
    assert first is not None and first[1:6, 1:9].all() and not first[6:12, :9].any()  # the second instance
    assert "do not say their ground sampling distance" in notes and "share less" not in notes
    known, notes = imported(tmp_path, "rts-cyber2a", cyber2a, hr_gsd_m=4.0)
    hr = known["train_yg_002"].hr
    assert hr is not None and hr.gsd_m == 4 and "sampling" not in notes


def test_a_teaching_copy_with_gaps_says_so(tmp_path: Path) -> None:
    source = tmp_path / "src"
    cyber2a(source)
    (source / "images/train_yg_002.jpg").rename(source / "images/other.jpg")
    (source / "masks/train_yg_002.jpg").rename(source / "masks/other.jpg")
    name = "valtest_yg_004.jpg"
    Pillow.fromarray(np.roll(ellipse(232, 286), 90, 1).astype(np.uint8) * 255).save(source / "masks" / name)
    pairs, notes = imported(tmp_path, "rts-cyber2a", cyber2a)
    assert "1 images ('train_yg_002.jpg') named in data_split.json are no file" in notes
    assert "1 images ('other.jpg') are in no list" in notes
    assert "1 images ('valtest_yg_004') have COCO polygons and a mask JPEG that share less" in notes
    mask = pairs["other"].mask  # from the JPEG, thresholded
    assert mask is not None and (mask ^ ellipse(158, 289)).mean() < 0.005


def test_the_challenge_takes_colours_by_name(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "rts-challenge", challenge)
    pair = pairs["train_0"]
    assert pair.hr is not None and pair.mask is not None
    np.testing.assert_array_equal(pair.mask, ellipse(48, 60))
    np.testing.assert_allclose(pair.hr.values * 255, np.round(190 * picture(0, 48, 60)), atol=1e-3)
    assert pairs["test_1"].mask is None and "stored as float32 (2)" in notes
    turned = [BANDS_8[i] for i in (6, 1, 2, 3, 4, 5, 0, 7)]
    (tmp_path / "src/metadata/band_names.json").write_text(json.dumps({"bands": turned}))
    with pytest.raises(RfbenchError, match="no image was found to import"):  # now 'red' is where NIR lies: out of range
        imported(tmp_path, "rts-challenge", challenge)


def test_mapping_tiles_split_by_region_and_ignore(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "rts-mapping", mapping)
    assert {i: (p.record.split, p.record.scene_id) for i, p in pairs.items()} == {
        "t_1": ("train", "Banks"), "t_2": ("train", "Banks"), "t_3": ("test", "Peel"),
    }  # fmt: skip
    mask = pairs["t_1"].mask
    assert mask is not None and not mask[:4].any() and mask[32, 32]
    assert "3 tiles have pixels to ignore (255)" in notes and "3 tiles are not 512x512 px" in notes
    assert pairs["t_1"].hr is not None and pairs["t_1"].hr.gsd_m == 3
    (tmp_path / "src/splits.yaml").write_text("train: [Banks]\ntest: [Peel, Banks]\n")
    with pytest.raises(RfbenchError, match="the region 'Banks' is in two splits"):
        imported(tmp_path, "rts-mapping", mapping)
    (tmp_path / "src/splits.yaml").write_text("!!python/object/apply:os.system ['touch trap']")
    with pytest.raises(RfbenchError, match="is not readable YAML"):
        imported(tmp_path, "rts-mapping", mapping)


def test_label_chips_keep_their_holes_and_their_scene(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "rts-labels", labels)
    assert set(pairs) == {"uid1_level1_A1", "uid1_level2_B3", "uid2"}
    assert pairs["uid1_level1_A1"].record.scene_id == pairs["uid1_level2_B3"].record.scene_id == "uid1"
    hr, mask = pairs["uid2"].hr, pairs["uid2"].mask
    assert hr is not None and mask is not None
    assert hr.unit == "display" and (~hr.valid).sum() == 81 and hr.gsd_m == 2
    np.testing.assert_array_equal(mask[9:, 9:], ellipse(64, 64)[9:, 9:])
    assert "1 chips have pixels without data" in notes and "lie in several folders" in notes


def test_sites_of_experts_are_cut_to_what_both_sensors_cover(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "rts-experts", experts)
    assert set(pairs) == {"Peel", "Bykovsky"}
    peel = pairs["Peel"]
    assert peel.lr is not None and peel.hr is not None and peel.mask is not None
    assert (peel.record.lr_date, peel.record.hr_date) == ("2021-08-20", "2021-08-04")
    assert (peel.lr.gsd_m, peel.hr.gsd_m) == (10, 3.125) and peel.hr.unit == "reflectance"
    # HR covers 193.75 m down and 203.125 m across from the LR's corner: 19 rows and 20 columns of the LR, 190 m and
    # 200 m, are 60.8 and 64 HR pixels, which begin 4 pixels into its grid.
    assert (peel.lr.size, peel.hr.size) == ((19, 20), (61, 64)) and peel.mask.shape == (61, 64)
    np.testing.assert_array_equal(peel.hr.values, stack(0, 66, 69, 4)[4:65, 4:68] / np.float32(10000))
    np.testing.assert_array_equal(peel.lr.values, stack(0, 20, 21, 7)[:19, :20] / np.float32(10000))
    np.testing.assert_allclose(medians(peel, "B G R NIR"), [200, 400, 600, 1400], rtol=0.2)
    assert pairs["Bykovsky"].lr is not None and pairs["Bykovsky"].lr.bands[6:] == ("NIR", "B8A", "B11", "B12")
    assert peel.hr.bands == ("B", "G", "R", "NIR")
    # Two of three drew what lies 60 to 140 m from the left; pixel centres lie 3.125 m apart from 1.5625 m on.
    x, y = (np.arange(n) * 3.125 + 1.5625 for n in (64, 61))
    np.testing.assert_array_equal(peel.mask, ((y > 40) & (y < 120))[:, None] & ((x > 60) & (x < 140)))
    assert "at least 2 of 3 experts drew" in notes and "Peel: 19x20 px of the LR are taken" in notes
    assert "HR lies up to 0.2 of its pixels off" in notes  # 61 pixels for 60.8


def test_a_site_without_its_large_file_or_an_expert_says_so(tmp_path: Path) -> None:
    source = tmp_path / "src"
    experts(source)
    (pointer,) = (source / "01_Setup/Peel/data").glob("Planet*")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    (source / "02_UserResults/#02/Peel_digitized.shp").write_bytes(b"nonsense")
    for path in (source / "02_UserResults").glob("*/Bykovsky*"):
        path.unlink()
    shutil.copytree(source / "01_Setup/Bykovsky", source / "01_Setup/[B]ykovsky")  # no pattern that fits the other
    shapefile(source / "02_UserResults/#01/[B]ykovsky_digitized.shp", [])
    pairs, notes = imported(tmp_path, "rts-experts", experts, offset=-1000.0)
    peel = pairs["Peel"]
    assert peel.hr is None and peel.lr is not None and peel.lr.size == (20, 21) and peel.mask is not None
    assert peel.record.sides["lr"].offset == -1000
    x, y = (np.arange(n) * 10 + 5 for n in (21, 20))  # one of the two that are left: from 40 to 160 m
    np.testing.assert_array_equal(peel.mask, ((y > 40) & (y < 120))[:, None] & ((x > 40) & (x < 160)))
    assert "Peel has an LR alone" in notes and "is a Git LFS pointer and not the image" in notes
    assert "one expert less, #02: " in notes and "Bykovsky has no mask" in notes and pairs["Bykovsky"].mask is None
    empty = pairs["[B]ykovsky"].mask
    assert empty is not None and not empty.any() and "at least 1 of 1 experts" in notes


def test_sites_that_do_not_meet_are_not_paired(tmp_path: Path) -> None:
    source = tmp_path / "src"
    experts(source)
    for site, crs, left in (("Peel", UTM8, LEFT + 5000), ("Bykovsky", "EPSG:32652", LEFT)):
        (path,) = (source / f"01_Setup/{site}/data").glob("Planet*")
        tif(path, stack(0, 66, 69, 4), crs, from_origin(left, TOP, 3.125, 3.125))
    pairs, notes = imported(tmp_path, "rts-experts", experts)
    assert all(p.hr is None for p in pairs.values())
    assert (
        "does not lie where the Sentinel-2 file does" in notes and "is in EPSG:32652, the Sentinel-2 file in" in notes
    )


def test_hr_that_is_no_reflectance_is_relative(tmp_path: Path) -> None:
    source = tmp_path / "src"
    experts(source)
    (path,) = (source / "01_Setup/Peel/data").glob("Planet*")
    tif(path, stack(0, 66, 69, 4) * np.float32(1e-4), UTM8, from_origin(LEFT, TOP, 3.125, 3.125))
    pairs, notes = imported(tmp_path, "rts-experts", experts)
    assert pairs["Peel"].hr is not None and pairs["Peel"].hr.unit == "relative"
    assert "Peel: HR is float32 and no reflectance x 10000 as believed" in notes


# --- shapefiles -------------------------------------------------------------------------------------------------


def test_polygons_with_holes_and_in_another_crs(tmp_path: Path) -> None:
    hole = box(30, 30, 50, 50)[::-1]
    shapefile(tmp_path / "a.shp", [[box(10, 10, 70, 70), hole], [box(80, 0, 90, 10)]], None)
    found = read_polygons(tmp_path / "a.shp").mask((10, 10), UTM8, (0, 0, 100, 100))
    expected = np.zeros((10, 10), bool)
    expected[3:9, 1:7] = expected[9, 8] = True
    expected[5:7, 3:5] = False
    np.testing.assert_array_equal(found, expected)
    # The same place in degrees: 0.01 degrees are about 0.4 and 1.1 km there.
    from rasterio.warp import transform

    xs, ys = transform(UTM8, "EPSG:4326", *box(LEFT, TOP - 500, LEFT + 500, TOP).T.tolist())
    shapefile(tmp_path / "b.shp", [[np.stack([xs, ys], 1)]], "EPSG:4326", kind=15)
    found = read_polygons(tmp_path / "b.shp").mask((10, 20), UTM8, (LEFT, TOP - 1000, LEFT + 2000, TOP))
    expected = np.zeros((10, 20), bool)
    expected[:5, :5] = True
    np.testing.assert_array_equal(found, expected)
    shapefile(tmp_path / "none.shp", [])
    assert not read_polygons(tmp_path / "none.shp").mask((4, 5), UTM8, (0, 0, 1, 1)).any()


def spoilt(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", "no readable shapefile"),
        (lambda data: data[:-5], "cut inside of a record"),
        (lambda data: data[:150], "cut inside of a record"),
        (lambda data: data[:103], "no readable shapefile"),
        (spoilt(0, b"PK"), "does not begin as one"),
        (spoilt(32, b"\1"), "found shapes of type 1, expected polygons"),
        (spoilt(104, b"\0\0\0\1"), "cut inside of a record"),
        (spoilt(104, b"\xff\xff\xff\xff"), "cut inside of a record"),
        (spoilt(108, b"\3"), "found a shape of type 3"),
        (spoilt(144, b"\xff\xff\xff\x7f"), "polygon of 2147483647 rings"),
        (spoilt(148, b"\xff\xff\xff\x7f"), "and 2147483647 points in"),
        (spoilt(148, b"\2\0\0\0"), "fewer than three points"),
        (spoilt(152, b"\1"), "make no sense"),
        (spoilt(156, np.float64(np.nan).tobytes()), "make no sense"),
        (lambda data: data + b"\0" * (MAX_BYTES - len(data) + 1), "expected at most"),
        (lambda data: data[:100] + data[100:] * 10_001, "more than 10000 polygons"),
    ],
)
def test_malformed_shapefiles_are_one_line(tmp_path: Path, spoil: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "a.shp"
    shapefile(path, [[box(0, 0, 1, 1)]])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RfbenchError, match=message) as caught:
        read_polygons(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("crs", "corner", "message"),
    [
        ("nonsense", 0.0, "its CRS cannot be brought to that of the image"),
        (rasterio.crs.CRS.from_epsg(4326).to_wkt(), 1e6, "its CRS cannot be brought to that of the image"),
        ("", 1e300, "nowhere near the image"),
    ],
)
def test_polygons_that_lie_nowhere_are_one_line(tmp_path: Path, crs: str, corner: float, message: str) -> None:
    path = tmp_path / "a.shp"
    shapefile(path, [[box(corner, corner, 2 * corner + 1, 2 * corner + 1)]], None)
    path.with_suffix(".prj").write_text(crs)
    with pytest.raises(RfbenchError, match=message):
        read_polygons(path).mask((4, 5), UTM8, (LEFT, TOP - 40, LEFT + 50, TOP))


# --- COCO -------------------------------------------------------------------------------------------------------


def coco_file(path: Path, segmentation: Any, size: tuple[int, int] = (7, 5)) -> Path:
    image = {"id": 1, "file_name": "x.jpg", "height": size[0], "width": size[1]}
    path.write_text(json.dumps({"images": [image], "annotations": [{"image_id": 1, "segmentation": segmentation}]}))
    return path


def test_run_lengths_of_any_mask_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        mask = rng.random((61, 47)) < share
        for counts in (packed(mask), None):
            flat = mask.flatten(order="F").astype(int)
            edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
            plain = np.diff([0, *edges, flat.size]).tolist()
            code = {"size": [61, 47], "counts": counts if counts is not None else plain}
            found = read_coco(coco_file(tmp_path / "c.json", code, (61, 47)))["x.jpg"].mask()
            np.testing.assert_array_equal(found, mask)


def test_a_polygon_covers_the_pixels_whose_centre_it_holds(tmp_path: Path) -> None:
    found = read_coco(coco_file(tmp_path / "c.json", [[1, 2, 4, 2, 4, 6, 1, 6], [0, 0, 1, 0, 1, 1, 0, 1]]))[
        "x.jpg"
    ].mask()
    expected = np.zeros((7, 5), bool)
    expected[2:6, 1:4] = expected[0, 0] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        None, [], {}, [[1, 2]], [[1, 2, 3, 4, 5]], [["a"] * 6], [[1e300] * 6], {"size": [7, 5], "counts": [10**12]},
        {"size": [5, 7], "counts": [35]}, {"size": [7, 5], "counts": "P" * 100}, {"size": [7, 5], "counts": "\x00"},
        {"size": [7, 5], "counts": [-1, 36]}, {"size": [7, 5], "counts": [34]},
        {"size": [7, 5], "counts": "ooooooooooo"},
    ],
)  # fmt: skip
def test_malformed_annotations_are_one_line(tmp_path: Path, segmentation: Any) -> None:
    image = read_coco(coco_file(tmp_path / "c.json", segmentation))["x.jpg"]
    with pytest.raises(RfbenchError, match=r"annotation 1 of 'x.jpg': found .*; correct"):
        image.mask()


@pytest.mark.parametrize(
    "document",
    [[], {"images": 3, "annotations": []}, {"images": [{"id": 1}], "annotations": []},
     {"images": [{"id": 1, "file_name": "x", "height": 10**9, "width": 10**9}], "annotations": []},
     {"images": [], "annotations": [{"image_id": [1]}]}],
)  # fmt: skip
def test_a_file_that_is_no_coco_is_refused(tmp_path: Path, document: Any) -> None:
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(RfbenchError, match=r"c\.json"):
        read_coco(tmp_path / "c.json")


# --- a table of one's own, and options --------------------------------------------------------------------------


def test_a_table_says_what_it_assumed(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "csv", pairs_csv, lr_gsd_m=20.0)
    first, second = pairs["slump a"], pairs["b"]
    assert first.lr is not None and first.hr is not None and second.lr is not None and first.mask is not None
    assert first.lr.bands == ("B", "G", "R", "NIR") and second.lr.bands == ("R", "G", "B", "NIR")
    np.testing.assert_allclose(medians(first, "B G R"), [200, 400, 600], rtol=0.15)
    np.testing.assert_allclose(medians(second, "B G R"), [200, 400, 600], rtol=0.15)
    assert (first.lr.gsd_m, second.lr.gsd_m) == (10, 20)  # the table's own, and the option's
    assert first.record.caption == "A slump, by a stream." and first.record.scene_id == "Peel"
    assert "1 float32 LR files are taken as reflectance 0 to 1" in notes
    assert "2 8-bit HR files are taken as display" in notes


def test_a_table_of_unscaled_floats_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "src"
    pairs_csv(source)
    np.save(source / "lr/b.npy", stack(2, 30, 40, 4)[:, :, [2, 1, 0, 3]].astype(np.float32))
    pairs, notes = imported(tmp_path, "csv", pairs_csv)
    np.testing.assert_allclose(medians(pairs["b"], "B G R"), [200, 400, 600], rtol=0.15)
    assert "1 float32 LR files are taken as reflectance x 10000" in notes


def test_a_table_must_say_what_deep_hr_files_mean(tmp_path: Path) -> None:
    source = tmp_path / "src"
    pairs_csv(source)
    tif(source / "hr/a.tif", stack(3, 141, 206, 4), bands=("R", "G", "B", "NIR"))
    table = source / "my pairs.csv"
    table.write_text(table.read_text().replace("hr/a.png", "hr/a.tif").replace("R G B", ""))
    with pytest.raises(RfbenchError, match="row 2: the HR file is uint16, and nothing says what its numbers mean"):
        imported(tmp_path, "csv", pairs_csv)
    table.write_text(table.read_text().replace("bands_hr", "unit_hr").replace("10,2,,", "10,2,,reflectance"))
    pairs, _ = imported(tmp_path, "csv", pairs_csv)
    assert pairs["slump a"].hr is not None and pairs["slump a"].hr.unit == "reflectance"


@pytest.mark.parametrize("path", ["../secret.tif", "/etc/passwd", "lr", "a\0b", "x" * 5000, "lr/../../secret.tif"])
def test_files_outside_a_table_s_folder_are_refused(tmp_path: Path, path: str) -> None:
    source = tmp_path / "src"
    pairs_csv(source)
    (tmp_path / "secret.tif").write_bytes((source / "lr/a.tif").read_bytes())
    table = source / "my pairs.csv"
    table.write_text(table.read_text().replace("lr/a.tif", path))
    with pytest.raises(RfbenchError, match=r"row 2 names .*, which is no file below|is not a readable CSV"):
        imported(tmp_path, "csv", pairs_csv)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["secret.tif", "src"]


def test_one_broken_file_of_a_public_set_does_not_cost_the_others(tmp_path: Path) -> None:
    source = tmp_path / "src"
    cyber2a(source)
    broken = source / "images/train_yg_002.jpg"
    broken.write_bytes(broken.read_bytes()[:700])
    labels(tmp_path / "l")
    (tmp_path / "l/data/raw/Level 3/C2/uid2.tif").write_bytes(b"II*\0nonsense")
    notes: list[str] = []
    assert import_layout("rts-labels", tmp_path / "l", tmp_path / "d", name="x", note=notes.append) == 2
    assert any(n.startswith("uid2 is left out: ") for n in notes)
    pairs, text = imported(tmp_path, "rts-cyber2a", cyber2a)
    assert len(pairs) == 3 and "train_yg_002" in text


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worldstrat(tmp_path / "src")

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(RfbenchError, match="No space left on device; free space or choose a folder"):
        import_layout("worldstrat", tmp_path / "src", tmp_path / "out", name="x")
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_a_disk_that_fills_at_written_images_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opensr(tmp_path / "src")

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RfbenchError, match="No space left on device"):
        import_layout("opensr-test", tmp_path / "src", tmp_path / "out", name="x")
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_errors_do_not_name_the_folder_that_vanishes(tmp_path: Path) -> None:
    pairs_csv(tmp_path / "src")
    table = tmp_path / "src/my pairs.csv"
    text = table.read_text()
    table.write_text(text.replace("R G B", "R G"))
    with pytest.raises(RfbenchError, match=r"^slump a: hr/slump_a~\w+\.png: found 3 bands"):
        imported(tmp_path, "csv", pairs_csv)
    table.write_text(text.replace("\nb,", "\nslump a,"))
    with pytest.raises(RfbenchError, match=r"^the id 'slump a' comes twice"):
        imported(tmp_path, "csv", pairs_csv)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_folder_and_a_full_target_are_one_line(tmp_path: Path, layout: str) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(RfbenchError, match=str(tmp_path)):
        import_layout(layout, tmp_path / "src", tmp_path / "out", name="x")
    assert [p.name for p in tmp_path.iterdir()] == ["src"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(RfbenchError, match="is not empty"):
        import_layout(layout, tmp_path / "src", tmp_path / "full", name="x")
    with pytest.raises(RfbenchError, match="is not a folder"):
        import_layout(layout, tmp_path / "none", tmp_path / "out", name="x")


def test_options_of_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError, match="--dates belongs to worldstrat, not to folder; leave it out"):
        import_layout("folder", tmp_path, tmp_path / "out", name="x", dates="all")
    with pytest.raises(RfbenchError, match="--role belongs to catalogue, not to csv"):
        import_layout("csv", tmp_path, tmp_path / "out", name="x", roles=("paired",))
    with pytest.raises(RfbenchError, match="unknown layout 'worldstart'; did you mean worldstrat"):
        import_layout("worldstart", tmp_path, tmp_path / "out", name="x")


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    for fake, (layout, make, _, _) in FAKES.items():
        make(tmp_path / fake)
        for out in ("a", "b"):
            options = {"dates": "series"} if layout == "worldstrat" else {}
            import_layout(layout, tmp_path / fake, tmp_path / f"{fake} {out}", name="x", **options)
        a, b = ({p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()}
                for r in (tmp_path / f"{fake} a", tmp_path / f"{fake} b"))  # fmt: skip
        assert a == b, fake


def test_help_names_every_layout() -> None:
    text = CliRunner().invoke(cli, ["data", "import", "--help"]).output
    for name in LAYOUTS:
        assert f"  {name}  " in text
