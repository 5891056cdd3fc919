"""Imports of the field's own sets: the smallest fake of each, from import to table, and the traps of each told."""

from __future__ import annotations

import csv
import datetime
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image as Pillow
from rasterio.transform import from_origin

from bench.cli import cli
from bench.core.errors import RfbenchError
from bench.data import frames
from bench.data.dataset import FolderDataset, Pair
from bench.data.frames import load_frame
from bench.data.layouts import import_layout
from tests.conftest import picture
from tests.unit.test_layouts import stack, tif

# --- the fakes --------------------------------------------------------------------------------------------------


def sen2naip(root: Path) -> None:
    for i in range(2):
        folder = root / "cross-sensor" / f"ROI_{i:04d}"
        grid = (500_000 + 5000 * i, 4_600_000)
        tif(folder / "lr.tif", stack(i, 9, 9, 4), "EPSG:32631", from_origin(*grid, 10, 10))
        if i == 0:
            hr = np.round(255 * picture(i, 36, 36, 4)).astype(np.uint8)
            tif(folder / "hr.tif", hr, "EPSG:32631", from_origin(*grid, 2.5, 2.5))


def sen2naip_zip(root: Path) -> None:
    sen2naip(root / "x")
    with zipfile.ZipFile(root / "cross-sensor.zip", "w") as file:
        for path in sorted((root / "x").rglob("*.tif")):
            file.write(path, path.relative_to(root / "x"))
        file.writestr("cross-sensor/ROI_0000/metadata.json", "{}")
        file.writestr("../ROI_9999/lr.txt", "x")
        path.unlink()


PREFIX = "FAKE_C__31TCJ_2018-03-04"


def sen2venus(root: Path) -> None:
    site = root / "FAKE"
    site.mkdir(parents=True)
    (site / "LICENCE").write_text("Venus images: CC BY-NC 4.0\nmore\n")
    (site / f"{PREFIX}_patches.gpkg").write_bytes(b"")
    names = {}
    for name, px in (("10m_b2b3b4b8", 16), ("05m_b2b3b4b8", 32), ("20m_b4b5b6b8a", 8), ("05m_b4b5b6b8a", 32)):
        values = np.stack([np.moveaxis(stack(i, px, px, 4), 2, 0) for i in range(3)]).astype(np.int16)
        values[0, 0, 0, 0] = -40
        names[name] = f"{PREFIX}_{name}.pt"
        torch.save(torch.from_numpy(values), site / names[name])
    row = {
        "venus_product_id": "v", "sentinel2_product_id": "s", "tensor_05m_b2b3b4b8": names["05m_b2b3b4b8"],
        "tensor_10m_b2b3b4b8": names["10m_b2b3b4b8"], "tensor_05m_b5b6b7b8a": names["05m_b4b5b6b8a"],
        "tensor_20m_b5b6b7b8a": names["20m_b4b5b6b8a"], "s2_tile": "31TCJ", "vns_site": "FAKE", "date": "2018-03-04",
        "venus_zenith_angle": 10, "patches_gpkg": f"{PREFIX}_patches.gpkg", "nb_patches": 3,
    }  # fmt: skip
    with (site / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), delimiter="\t")
        writer.writeheader()
        writer.writerow(row)


def breizhsr(root: Path) -> None:
    for split, count, first in (("train", 1, 0), ("test", 2, 100)):
        table: dict[str, list[Any]] = {"spot6_image": [], "sen2_acquisitions": [], "dates_spot6": [], "split": []}
        for i in range(count):
            hr = np.round(255 * picture(first + i, 40, 40)).astype(np.uint8)
            tif(root / f"{split}/spot/{i}.tif", hr)
            dates = {}
            for day in (-12, 3, 40):
                tif(root / f"{split}/s2/{i}_{day}.tif", stack(first + i + day + 20, 10, 10, 3))
                dates[day] = f"/somewhere/else/{split}/s2/{i}_{day}.tif"
            table["spot6_image"].append(f"/somewhere/else/{split}/spot/{i}.tif")
            table["sen2_acquisitions"].append(dates)
            table["dates_spot6"].append(datetime.date(2018, 7, 1 + i))
            table["split"].append(split)
        pd.DataFrame(table).astype({"spot6_image": object}).to_pickle(root / f"dataset_{split}.pkl")


def probav(root: Path) -> None:
    for split, band, number in (("train", "RED", 0), ("train", "NIR", 1), ("test", "RED", 1160)):
        folder = root / split / band / f"imgset{number:04d}"
        folder.mkdir(parents=True)
        for i in range(3):
            low = np.round(9000 * picture(i + number, 128, 128, 1)[..., 0] + 100).astype(np.uint16)
            clear = np.full((128, 128), 255, np.uint8)
            clear[: (40, 5, 90)[i]] = 0
            Pillow.fromarray(low).save(folder / f"LR{i:03d}.png")
            Pillow.fromarray(clear).save(folder / f"QM{i:03d}.png")
        if split == "train":
            high = np.round(9000 * picture(7 + number, 384, 384, 1)[..., 0] + 100).astype(np.uint16)
            status = np.full((384, 384), 255, np.uint8)
            status[:9] = 0
            Pillow.fromarray(high).save(folder / "HR.png")
            Pillow.fromarray(status).save(folder / "SM.png")


FAKES: dict[str, tuple[str, Callable[[Path], None], int, str]] = {
    "sen2naip": ("sen2naip", sen2naip, 1, "psnr_rgb"),
    "sen2naip zip": ("sen2naip", sen2naip_zip, 1, "psnr_rgb"),
    "sen2venus": ("sen2venus", sen2venus, 3, "psnr_rgb"),
    "breizhsr": ("breizhsr", breizhsr, 3, "psnr_rgb"),
}


@pytest.mark.parametrize("fake", FAKES)
def test_from_import_to_table(fake: str, tmp_path: Path) -> None:
    layout, make, count, metric = FAKES[fake]
    (tmp_path / "src").mkdir()
    make(tmp_path / "src")
    target = tmp_path / "data"
    words = ["data", "import", layout, str(tmp_path / "src"), str(target)]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert done.exception is None, done.exception
    assert f"{target}: {count} images" in done.stdout
    checked = CliRunner().invoke(cli, ["validate", str(target)], standalone_mode=False)
    assert checked.return_value == 0, checked.stdout
    out = tmp_path / "runs"
    words = ["run", "--model", "bicubic", "--protocol", "paired", "--data", str(target), "--metrics", metric]
    run = CliRunner().invoke(cli, [*words, "--workers", "0", "--out", str(out)], standalone_mode=False)
    assert run.return_value == 0, (run.stderr, run.exception)
    table = CliRunner().invoke(cli, ["table", str(out), "--format", "json"], standalone_mode=False)
    scores = json.loads(table.stdout)["rows"][0]["metrics"][metric]
    assert scores["n"] > 0 and 3 < scores["value"] < 60


def imported(tmp_path: Path, layout: str, make: Callable[[Path], None], **options: Any) -> tuple[dict[str, Pair], str]:
    """The pairs of a fake by id, and the notes."""
    source = tmp_path / "src"
    if not source.exists():
        source.mkdir()
        make(source)
    notes: list[str] = []
    target = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    import_layout(layout, source, target, name="x", note=notes.append, **options)
    dataset = FolderDataset(target)
    assert not list(tmp_path.glob(".*.part")) and not list(target.glob(".*"))
    return {r.id: dataset.load(r) for r in dataset.all_records}, "\n".join(notes)


# --- SEN2NAIP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sen2naip, sen2naip_zip])
def test_sen2naip_has_two_units_and_says_what_lacks(make: Callable[[Path], None], tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "sen2naip", make)
    (pair,) = pairs.values()
    assert pair.lr is not None and pair.hr is not None
    assert (pair.lr.unit, pair.hr.unit) == ("reflectance", "display") and pair.hr.bands == ("R", "G", "B", "NIR")
    assert np.median(pair.lr.values[..., 0]) < 0.1 and (pair.lr.gsd_m, pair.hr.gsd_m) == (10, 2.5)
    assert "1 ROIs ('ROI_0001') have no lr.tif or no hr.tif" in notes


def test_sen2naip_that_is_not_as_believed_says_so(tmp_path: Path) -> None:
    source = tmp_path / "src"
    sen2naip(source)
    hr = np.round(255 * picture(1, 40, 40, 4)).astype(np.uint16)
    tif(source / "cross-sensor/ROI_0000/hr.tif", hr)
    _, notes = imported(tmp_path, "sen2naip", sen2naip)
    assert "HR files are uint16, where uint8 is expected" in notes and "not of factor 4" in notes
    other = tmp_path / "other"
    (other / "x").mkdir(parents=True)
    (other / "x" / "sen2naipv2-unet-0001.part.taco").write_bytes(b"x")
    with pytest.raises(RfbenchError, match="TACO files, which are version 2"):
        import_layout("sen2naip", other, tmp_path / "y", name="x")


# --- SEN2VENuS --------------------------------------------------------------------------------------------------


def test_sen2venus_by_bands_scene_and_level(tmp_path: Path) -> None:
    pairs, _ = imported(tmp_path, "sen2venus", sen2venus)
    assert sorted(pairs) == [f"{PREFIX}_{i:04d}" for i in range(3)]
    pair = pairs[f"{PREFIX}_0000"]
    assert pair.lr is not None and pair.hr is not None and pair.lr.bands == ("B", "G", "R", "NIR")
    assert pair.record.scene_id == PREFIX and pair.lr.values.min() == pytest.approx(-0.004)
    assert pair.record.sides["hr"].gsd_m == 5 and pair.hr.size == (32, 32)
    red, notes = imported(tmp_path, "sen2venus", sen2venus, level="20m")
    one = next(iter(red.values()))
    assert one.lr is not None and one.lr.bands == ("B05", "B06", "B07", "B8A") and one.lr.size == (8, 8)
    assert "the files' names say b4b5b6b8a" in notes


def test_sen2venus_of_wrong_tensors_is_one_line(tmp_path: Path) -> None:
    source = tmp_path / "src"
    sen2venus(source)
    path = source / "FAKE" / f"{PREFIX}_05m_b2b3b4b8.pt"
    for wrong, message in (
        (torch.zeros(3, 4, 16, 16, dtype=torch.int16), "expected as many and x2"),
        (torch.zeros(3, 4, 32, 32), "expected int16"),
        (torch.zeros(3, 32, 32, dtype=torch.int16), r"expected a tensor \(N, 4"),
        ({"a": 1}, r"expected a tensor \(N, 4"),
    ):
        torch.save(wrong, path)
        with pytest.raises(RfbenchError, match=message) as caught:
            import_layout("sen2venus", source, tmp_path / "y", name="x")
        assert "\n" not in str(caught.value)
    path.write_bytes(b"no tensor")
    with pytest.raises(RfbenchError, match="cut or no tensor"):
        import_layout("sen2venus", source, tmp_path / "y", name="x")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "ALSACE.7z").write_bytes(b"")
    with pytest.raises(RfbenchError, match="unpack them"):
        import_layout("sen2venus", tmp_path / "z", tmp_path / "y", name="x")


# --- BreizhSR ---------------------------------------------------------------------------------------------------


def test_breizhsr_takes_the_nearest_date_and_all_as_a_series(tmp_path: Path) -> None:
    pairs, _ = imported(tmp_path, "breizhsr", breizhsr)
    assert sorted(pairs) == ["test_00000", "test_00001", "train_00000"]
    pair = pairs["test_00001"]
    assert pair.record.lr_date == "2018-07-05" and pair.record.hr_date == "2018-07-02"
    assert pair.series is not None and pair.series.dates == ("2018-06-20", "2018-07-05", "2018-08-11")
    assert pair.lr is not None and pair.hr is not None and pair.hr.unit == "display"
    np.testing.assert_allclose(pair.lr.values * 10000, stack(100 + 1 + 3 + 20, 10, 10, 3), atol=1e-2)


def test_breizhsr_matched_by_histogram_is_a_variant(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "breizhsr", breizhsr, reference="histogram")
    pair = pairs["test_00000"]
    assert pair.lr is not None and pair.hr is not None and pair.hr.unit == "reflectance"
    for band in range(3):
        for share in (5, 50, 95):
            found, wanted = (np.percentile(image.values[..., band], share) for image in (pair.hr, pair.lr))
            assert abs(found - wanted) < 0.005
    assert "its published numbers are near, not the same" in notes
    with pytest.raises(RfbenchError, match="expected raw or histogram"):
        imported(tmp_path, "breizhsr", breizhsr, reference="harmonised")


def test_breizhsr_without_a_file_goes_on_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "src"
    breizhsr(source)
    (source / "test/spot/0.tif").unlink()
    pairs, notes = imported(tmp_path, "breizhsr", breizhsr)
    assert "test_00000" not in pairs and "1 items lack a file" in notes


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("ran",)


def test_tables_are_read_without_running_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.pkl"
    table = pd.DataFrame(
        {"a": pd.Series(["x", "y"], dtype=object), "n": [1, 2], "m": [5, 6], "p": pd.Series([Path("q/r"), Path("s")]),
         "d": [{-3: "u", 5: "v"}, {}], "t": [datetime.date(2018, 5, 1), datetime.date(2019, 12, 31)]}
    )  # fmt: skip
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(table, protocol=protocol))
        found = load_frame(path)
        assert found == {
            "a": ["x", "y"], "n": [1, 2], "m": [5, 6], "p": ["q/r", "s"], "d": [{-3: "u", 5: "v"}, {}],
            "t": ["2018-05-01", "2019-12-31"],
        }  # fmt: skip
    for content, message in (
        (pickle.dumps(Evil()), "asks for builtins.print"),
        (pickle.dumps([1]), "found no pandas table"),
        (pickle.dumps(table)[:200], "not a readable table"),
        (b"", "not a readable table"),
    ):
        path.write_bytes(content)
        with pytest.raises(RfbenchError, match=message):
            load_frame(path)
    assert capsys.readouterr().out == ""
    many = pd.DataFrame({"d": [dict.fromkeys(range(200), "x") for _ in range(200)]})
    path.write_bytes(pickle.dumps(many))
    assert len(load_frame(path)["d"]) == 200  # more numbers as keys than a pickle of arrays may have
    assert frames._LARGEST_DAY > 366 * 100


# --- PROBA-V ----------------------------------------------------------------------------------------------------


def test_probav_masks_choice_and_splits(tmp_path: Path) -> None:
    pairs, notes = imported(tmp_path, "proba-v", probav)
    assert sorted(pairs) == ["NIR_imgset0001", "RED_imgset0000", "RED_imgset1160"]
    pair = pairs["RED_imgset0000"]
    assert pair.lr is not None and pair.hr is not None and pair.lr.bands == ("R",) and pair.lr.unit == "relative"
    assert not pair.lr.valid[:5].any() and pair.lr.valid[5:].all()  # the clearest of three
    assert not pair.hr.valid[:9].any() and pair.hr.valid[9:].all() and pair.hr.values[pair.hr.valid].max() <= 1
    assert pair.series is not None and pair.series.values.shape == (3, 128, 128, 1)
    assert pairs["RED_imgset1160"].hr is None and pairs["RED_imgset1160"].record.split == "test"
    assert "1 sets have no HR" in notes and pairs["NIR_imgset0001"].record.split == "train"


def test_probav_of_more_bits_is_one_line(tmp_path: Path) -> None:
    source = tmp_path / "src"
    probav(source)
    path = source / "train/RED/imgset0000/LR001.png"
    Pillow.fromarray(np.full((128, 128), 20_000, np.uint16)).save(path)
    with pytest.raises(RfbenchError, match="expected 14-bit numbers"):
        import_layout("proba-v", source, tmp_path / "y", name="x")
