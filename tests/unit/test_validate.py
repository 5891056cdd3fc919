"""``rfbench validate``: every fault that it names is made on purpose, and a clean dataset has none."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.cli.validate import command
from bench.core.errors import RfbenchError
from bench.core.image import Image
from bench.data import checks, readers, scenes
from bench.data.dataset import FolderDataset
from bench.data.embedded import FOLDER as EMBEDDED
from bench.data.layouts import import_layout
from bench.data.make import write_geotiff
from bench.data.validate import Problem, validate
from tests.conftest import write_dataset, write_rows

BANDS = ("R", "G", "B", "NIR")


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Three pairs that nothing can be said against: one scene each, GeoTIFFs on one ground."""
    write_dataset(tmp_path / "npy", count=3)
    folder = tmp_path / "clean"
    rows = []
    for i in range(3):
        for kind, gsd_m in (("lr", 8.0), ("hr", 2.0)):
            values = np.load(tmp_path / f"npy/{kind}/im{i}.npy")
            values[:2, :2] = 300 + 10 * np.arange(4)  # a dark corner, as every view of land has one
            write_geotiff(folder / f"{kind}/im{i}.tif", values, BANDS, gsd_m)
        write_geotiff(folder / f"mask/im{i}.tif", np.eye(60, 80, dtype=np.uint8)[:, :, None], ("RTS",), 2.0)
        rows.append({"id": f"im{i}", "scene_id": f"s{i}", "split": "train" if i == 2 else "test",
                     "lr": f"lr/im{i}.tif", "hr": f"hr/im{i}.tif", "mask": f"mask/im{i}.tif",
                     "lr_date": "2021-07-01", "hr_date": "2021-07-05"})  # fmt: skip
    write_rows(folder, rows)
    side = {"unit": "reflectance", "scale": 10000, "bands": "R G B NIR", "normalisation": "fixed[0,3000]"}
    info = {"format": 1, "name": "clean", "lr": side | {"gsd_m": 8}, "hr": side | {"gsd_m": 2}}
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def read(folder: Path, kind: str, i: int) -> np.ndarray:
    return readers.read(folder / f"{kind}/im{i}.tif").values.copy()


def write(folder: Path, kind: str, i: int, values: np.ndarray, gsd_m: float | None = None) -> None:
    write_geotiff(folder / f"{kind}/im{i}.tif", values, BANDS[: values.shape[2]], gsd_m or (8 if kind == "lr" else 2))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def found(folder: Path) -> list[Problem]:
    return validate(folder).problems


def test_a_clean_dataset_has_no_problem(clean: Path) -> None:
    report = validate(clean)
    assert report.problems == []
    assert (report.images, report.files) == (3, 9)
    assert {s: v["images"] for s, v in report.splits.items()} == {"test": 2, "train": 1}


def test_the_fingerprint_of_a_split_is_the_one_that_runs_record(clean: Path) -> None:
    dataset, report = FolderDataset(clean), validate(clean)
    assert report.splits["test"]["fingerprint"] == dataset.fingerprint(dataset.records("test"))
    assert report.fingerprint == dataset.fingerprint(dataset.all_records)


def test_the_embedded_scenes_are_clean() -> None:
    assert found(EMBEDDED) == []


# --- one fault each ---------------------------------------------------------------------------------------------


def missing(d: Path) -> None:
    (d / "hr/im1.tif").unlink()


def truncated(d: Path) -> None:
    (d / "hr/im1.tif").write_bytes((d / "hr/im1.tif").read_bytes()[:900])


def three_bands(d: Path) -> None:
    write(d, "hr", 1, read(d, "hr", 1)[:, :, :3])


def outside(d: Path) -> None:
    shutil.copy(d / "lr/im1.tif", d.parent / "elsewhere.tif")
    (d / "lr/im1.tif").unlink()
    (d / "lr/im1.tif").symlink_to(d.parent / "elsewhere.tif")


def other_order(d: Path) -> None:
    write_geotiff(d / "lr/im1.tif", read(d, "lr", 1), ("B", "G", "R", "NIR"), 8)


def shifted(d: Path) -> None:
    move(d / "hr/im1.tif", 40)


def nudged(d: Path) -> None:
    move(d / "hr/im1.tif", 12)


def move(path: Path, metres: float) -> None:
    import rasterio
    from rasterio.transform import from_origin

    with rasterio.open(path, "r+") as file:
        file.transform = from_origin(metres, 0, file.transform.a, file.transform.a)


def swapped(d: Path) -> None:
    a, b = read(d, "lr", 1), read(d, "hr", 1)
    write(d, "lr", 1, b)
    write(d, "hr", 1, a)


def other_shape(d: Path) -> None:
    write(d, "lr", 1, read(d, "lr", 1)[:, :8])


def empty(d: Path) -> None:
    write(d, "lr", 1, np.full((15, 20, 4), np.nan, np.float32))


def holes(d: Path) -> None:
    values = read(d, "hr", 1).astype(np.float32)
    values[:10] = -np.inf
    write(d, "hr", 1, values)


def black_frame(d: Path) -> None:
    values = read(d, "hr", 1)
    values[:5] = 0
    write(d, "hr", 1, values)


def copied_to_train(d: Path) -> None:
    shutil.copy(d / "lr/im1.tif", d / "lr/im2.tif")


def repacked_to_train(d: Path) -> None:
    np.savez(d / "lr/im2.npz", image=read(d, "lr", 1)[:, :, [3, 0, 1, 2]], bands=np.array(["NIR", "R", "G", "B"]))
    edit(d / "pairs.csv", "lr/im2.tif", "lr/im2.npz")
    edit(d / "dataset.json", '"bands": "R G B NIR", ', "")


def copied_to_another_scene(d: Path) -> None:
    shutil.copy(d / "lr/im0.tif", d / "lr/im1.tif")


def lr_is_hr(d: Path) -> None:
    edit(d / "pairs.csv", "lr/im1.tif", "hr/im1.tif")


def scene_in_two_splits(d: Path) -> None:
    edit(d / "pairs.csv", "im2,s2", "im2,s1")


def gsd_against_sizes(d: Path) -> None:
    edit(d / "dataset.json", '"gsd_m": 8', '"gsd_m": 10')


def plus_1000(d: Path) -> None:
    write(d, "lr", 1, read(d, "lr", 1) + np.uint16(1000))


def offset_twice(d: Path) -> None:
    edit(d / "dataset.json", '"scale": 10000', '"offset": -1000, "scale": 10000')


def constant(d: Path) -> None:
    write(d, "hr", 1, np.full((60, 80, 4), 500, np.uint16))


def flat_band(d: Path) -> None:
    values = read(d, "hr", 1)
    values[:, :, 3] = 5
    write(d, "hr", 1, values)


def saturated(d: Path) -> None:
    values = read(d, "hr", 1)
    values[:30] += np.uint16(4000)
    write(d, "hr", 1, values)


def stretched(d: Path) -> None:
    values = read(d, "hr", 1).astype(float)
    low, high = np.percentile(values, [2, 98], axis=(0, 1))
    write(d, "hr", 1, (np.clip((values - low) / (high - low), 0, 1) * 2900).astype(np.uint16))


def unscaled(d: Path) -> None:
    edit(d / "dataset.json", '"scale": 10000', '"scale": 1')


def scaled_twice(d: Path) -> None:
    write(d, "lr", 1, read(d, "lr", 1).astype(np.float32) / 10000)


def cloud(d: Path) -> None:
    values = read(d, "lr", 1)
    values[4:9] = 6000
    write(d, "lr", 1, values)


def grey_mask(d: Path) -> None:
    write_geotiff(d / "mask/im1.tif", np.arange(60 * 80, dtype=np.uint8).reshape(60, 80, 1) % 9, ("RTS",), 2.0)


def small_mask(d: Path) -> None:
    write_geotiff(d / "mask/im1.tif", np.eye(50, 80, dtype=np.uint8)[:, :, None], ("RTS",), 2.0)


def years_apart(d: Path) -> None:
    edit(d / "pairs.csv", "2021-07-01", "2018-07-01")


def no_date(d: Path) -> None:
    edit(d / "pairs.csv", "2021-07-01", "July")


def mixed_unit(d: Path) -> None:
    rows = (d / "pairs.csv").read_text().splitlines()
    rows[0], rows[1], rows[2], rows[3] = rows[0] + ",hr_unit,hr_normalisation", rows[1] + ",,", rows[2] + ",,", (
        rows[3] + ',relative,"percentile[2,98]"'
    )  # fmt: skip
    (d / "pairs.csv").write_text("\n".join(rows))


def form_against_unit(d: Path) -> None:
    edit(d / "dataset.json", '"fixed[0,3000]"', '"display"')


def twice_an_id(d: Path) -> None:
    edit(d / "pairs.csv", "im2,s2", "im1,s2")


@pytest.mark.parametrize(
    ("fault", "severity", "check", "text"),
    [
        (missing, "error", "missing", "hr: hr/im1.tif is missing; add the file"),
        (truncated, "error", "corrupt", "cannot be read"),
        (three_bands, "error", "bands", "found 3 bands, expected R G B NIR"),
        (other_order, "error", "bands", "the file names its bands B G R NIR"),
        (outside, "error", "path", "lies outside the dataset"),
        (shifted, "error", "extent", "shares 75 % of its ground with the LR (edges left +5.0"),
        (nudged, "warning", "extent", "edges differ from the LR's by left +1.5, bottom +0.0, right +1.5, top +0.0"),
        (swapped, "error", "size", "the LR image of 60x80 px is larger than its HR of 15x20 px"),
        (other_shape, "error", "size", "do not show the same ground"),
        (empty, "error", "nodata", "found no valid pixel"),
        (holes, "warning", "nodata", "17 % of the pixels are not finite"),
        (holes, "warning", "nodata", "17 % of the pixels have no data"),
        (black_frame, "warning", "nodata", "8 % of the pixels are 0 in every band, which looks like undeclared nodata"),
        (copied_to_train, "error", "duplicate", "the same file as lr of 'im1' in split 'test', while this is 'train'"),
        (repacked_to_train, "error", "duplicate", "lr: the same pixels as lr of 'im1' in split 'test'"),
        (copied_to_another_scene, "warning", "duplicate", "the same file as lr of 'im0', which has another scene_id"),
        (lr_is_hr, "error", "duplicate", "hr: is the same file as its own lr"),
        (scene_in_two_splits, "error", "scene", "the scene 's1' lies in the splits test, train"),
        (gsd_against_sizes, "warning", "gsd", "the sizes say a scale of 4x4, gsd_m says 5 (10 m to 2 m)"),
        (gsd_against_sizes, "warning", "gsd", "lr: gsd_m is 10, the file's own pixels are 8 m"),
        (plus_1000, "warning", "offset", "an offset of +1000 is suspected"),
        (offset_twice, "warning", "offset", "was it taken off before?"),
        (constant, "warning", "constant", "hr: all bands hold one single value"),
        (flat_band, "warning", "constant", "hr: band NIR hold"),
        (saturated, "warning", "saturated", "fixed[0,3000] makes 50 % of the samples white"),
        (stretched, "warning", "percentile", "both ends of every visible band"),
        (unscaled, "error", "unit", "lr: the median reflectance is"),
        (scaled_twice, "error", "unit", "the numbers seem to be divided already"),
        (scaled_twice, "error", "mixed", "1 images have a level a hundred times off the others' (such as 'im1'"),
        (scaled_twice, "warning", "mixed", "more than one data type (1 float32, 2 uint16)"),
        (cloud, "warning", "cloud", "33 % of the pixels are bright and white"),
        (grey_mask, "warning", "mask", "found 9 values (0 to 8), expected two"),
        (small_mask, "error", "mask", "found 50x80 px, expected the size of lr 15x20 and hr 60x80"),
        (years_apart, "warning", "date", "LR and HR lie 1100 days apart"),
        (no_date, "warning", "date", "found 'July', expected YYYY-MM-DD"),
        (mixed_unit, "warning", "mixed", "hr: found more than one unit (2 reflectance, 1 relative)"),
        (mixed_unit, "warning", "mixed", "pairs of reflectance LR and relative HR: 1"),
        (form_against_unit, "error", "normalisation", "lr: normalisation display needs unit 'display'"),
        (twice_an_id, "error", "manifest", "the id 'im1' comes twice"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line(
    clean: Path, fault: Callable[[Path], None], severity: str, check: str, text: str
) -> None:
    fault(clean)
    problems = found(clean)
    matching = [p for p in problems if p.check == check and text in p.text]
    in_every_image = fault in (unscaled, offset_twice, gsd_against_sizes, form_against_unit)
    assert len(matching) == (3 if in_every_image else 1), problems
    assert matching[0].severity == severity
    assert "\n" not in str(matching[0]) and "; " in matching[0].text
    # What is merely noteworthy never makes the dataset unusable.
    result = CliRunner().invoke(command, [str(clean)], standalone_mode=False)
    assert result.return_value == (1 if any(p.severity == "error" for p in problems) else 0)
    assert result.stdout.splitlines()[: len(problems)] == [str(p) for p in problems]


def test_a_series_has_its_own_faults(clean: Path) -> None:
    values = np.full((3, 4, 15, 20), 800, np.uint16)
    values[1] = 7000
    series = clean / "series.npz"
    edit(clean / "pairs.csv", "lr_date", "series,lr_date")
    (clean / "pairs.csv").write_text((clean / "pairs.csv").read_text().replace(",2021-07-01", ",series.npz,2021-07-01"))
    np.savez(series, data=values, dates=np.array(["2021-07-01", "2021-07-08", "x"]), bands=np.array(BANDS))
    texts = [p.text for p in found(clean) if p.id == "im0"]
    assert any("1 of 3 dates are mostly bright and white (2021-07-08)" in t for t in texts)
    assert any("found the date 'x'" in t for t in texts)
    np.savez(series, data=values[:, :3, 1:], dates=np.array(["2021-07-01"] * 3), bands=np.array(BANDS[:3]))
    texts = [p.text for p in found(clean) if p.id == "im0" and p.severity == "error"]
    assert any("found images of 14x20 px" in t for t in texts) and any("no band NIR" in t for t in texts)


def test_places_in_two_reference_systems_are_compared(clean: Path) -> None:
    import rasterio
    from rasterio.transform import from_bounds, from_origin
    from rasterio.warp import transform_bounds

    def place(metres: float) -> list[str]:
        left, top = 500_000.0, 7_500_000.0
        with rasterio.open(clean / "lr/im1.tif", "r+") as file:
            file.crs, file.transform = "EPSG:32608", from_origin(left, top, 8, 8)
        box = (left + metres, top - 120, left + 160 + metres, top)
        degrees = transform_bounds("EPSG:32608", "EPSG:4326", *box)
        with rasterio.open(clean / "hr/im1.tif", "r+") as file:
            file.crs, file.transform = "EPSG:4326", from_bounds(*degrees, 80, 60)
        return [p.text for p in found(clean) if p.id == "im1" and p.check == "extent" and p.text.startswith("hr")]

    assert place(0) == []
    assert "shares" in place(80)[0]
    assert "gsd" not in {p.check for p in found(clean) if p.id == "im1"}


# --- the offset of baseline 04.00 -------------------------------------------------------------------------------


def view(values: np.ndarray) -> tuple[Image, np.ndarray]:
    mask = np.ones(values.shape[:2], bool)
    return Image((values / 10000).astype(np.float32), "reflectance", BANDS, mask), values


@pytest.mark.parametrize("seed", range(4))
def test_the_offset_is_suspected_in_unharmonised_scenes_only(seed: int) -> None:
    lr = scenes.make_scene(seed, f"scene_{seed}", (100, 100)).lr
    assert not checks.offset_suspected(*view(lr))
    assert checks.offset_suspected(*view(lr + np.uint16(1000)))


@pytest.mark.parametrize(
    ("what", "levels", "harmonised", "shifted"),
    [
        ("forest", (250, 400, 200, 2500), False, True),
        ("water", (150, 250, 350, 100), False, True),
        ("dry grass and soil", (1500, 1100, 700, 2600), False, True),
        # Too bright to tell: no band is dark, with or without the offset.
        ("cloud", (6000, 6000, 6100, 6500), False, False),
        ("fresh snow", (9000, 9200, 9300, 8000), False, False),
    ],
)
def test_the_offset_on_land_covers(what: str, levels: tuple[int, ...], harmonised: bool, shifted: bool) -> None:
    rng = np.random.default_rng(3)
    values = np.round(np.array(levels) * rng.uniform(0.85, 1.15, (40, 30, 1)) + rng.normal(0, 15, (40, 30, 4)))
    values = np.clip(values, 1, None)
    assert checks.offset_suspected(*view(values)) is harmonised, what
    assert checks.offset_suspected(*view(values + 1000)) is shifted, what


def test_a_black_frame_does_not_hide_the_offset() -> None:
    values = np.full((40, 30, 4), 1300.0) + np.arange(30)[None, :, None]
    values[:8] = 0
    assert checks.offset_suspected(*view(values))
    values[8:12, :, 2] = 400  # but dark pixels speak against it
    assert not checks.offset_suspected(*view(values))


# --- the fingerprint --------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_every_byte_of_every_image(clean: Path) -> None:
    first = validate(clean).fingerprint
    seen = {first}
    rng = np.random.default_rng(0)
    dataset = FolderDataset(clean)
    for path in sorted(clean.rglob("*.tif")):
        data = bytearray(path.read_bytes())
        for at in sorted({0, len(data) - 1, *map(int, rng.integers(0, len(data), 6))}):
            data[at] ^= 1
            path.write_bytes(data)
            # A byte that breaks the file is reported, and the fingerprint is of bytes all the same.
            seen_before = len(seen)
            seen.add(dataset.fingerprint(dataset.all_records))
            assert len(seen) == seen_before + 1, f"{path} byte {at}"
            data[at] ^= 1
        path.write_bytes(data)
    assert dataset.fingerprint(dataset.all_records) == first


def test_the_fingerprint_changes_with_every_field_that_matters(clean: Path) -> None:
    seen = {validate(clean).fingerprint}
    table, info = (clean / "pairs.csv").read_text(), (clean / "dataset.json").read_text()
    changes = [
        ("pairs.csv", "im0,", "im9,"), ("pairs.csv", "s0", "s9"), ("pairs.csv", "test", "val"),
        ("pairs.csv", "2021-07-01", "2021-07-02"), ("pairs.csv", "2021-07-05", "2021-07-06"),
        ("pairs.csv", "lr/im0.tif", "lr/im1.tif"), ("pairs.csv", "mask/im0.tif", ""),
        ("dataset.json", "clean", "other"), ("dataset.json", "10000", "9999"), ("dataset.json", "[0,3000]", "[0,3001]"),
        ("dataset.json", "R G B NIR", "B G R NIR"), ("dataset.json", '"gsd_m": 8', '"gsd_m": 9'),
        ("dataset.json", '"gsd_m": 8', '"gsd_m": 8, "offset": -1000'),
        ("dataset.json", '"gsd_m": 8', '"gsd_m": 8, "gamma": 2'),
        ("dataset.json", '"gsd_m": 2', '"gsd_m": 2, "nodata": 0'),
        ("dataset.json", '"gsd_m": 2', '"gsd_m": 2, "sensor": "Maxar"'),
    ]  # fmt: skip
    for name, old, new in changes:
        edit(clean / name, old, new)
        dataset = FolderDataset(clean)
        before = len(seen)
        seen.add(dataset.fingerprint(dataset.all_records))
        assert len(seen) == before + 1, (name, new)
        (clean / "pairs.csv").write_text(table)
        (clean / "dataset.json").write_text(info)


def test_times_order_and_other_files_do_not_change_the_fingerprint(clean: Path) -> None:
    first = validate(clean)
    os.utime(clean / "lr/im0.tif", (1, 1))
    rows = (clean / "pairs.csv").read_text().splitlines()
    (clean / "pairs.csv").write_text("\ufeff" + "\n".join([rows[0], *rows[:0:-1]]))
    info = json.loads((clean / "dataset.json").read_text())
    (clean / "dataset.json").write_text(json.dumps(dict(reversed(info.items())), indent=4))
    (clean / "lr/notes.txt").write_text("x")
    (clean / "lr/im0.tif").rename(clean / "lr/renamed.tif")
    edit(clean / "pairs.csv", "lr/im0.tif", "lr/renamed.tif")
    second = validate(clean)
    assert second.fingerprint == first.fingerprint and second.splits == first.splits
    assert second.problems == []


def test_what_is_read_beside_an_image_changes_the_fingerprint(clean: Path) -> None:
    import rasterio

    prints = [validate(clean).fingerprint]
    (clean / "hr/im0.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    prints.append(validate(clean).fingerprint)
    profile = {"driver": "GTiff", "height": 60, "width": 80, "count": 1, "dtype": "uint8"}
    with rasterio.open(clean / "hr/im0.tif.msk", "w", **profile) as file:
        file.write(np.r_["0", np.zeros((6, 80), np.uint8), np.ones((54, 80), np.uint8)], 1)
    report = validate(clean)
    assert len({*prints, report.fingerprint}) == 3
    assert [p.text[:30] for p in report.problems if p.id == "im0"] == ["hr: 10 % of the pixels have no"]


# --- real images ------------------------------------------------------------------------------------------------


def test_real_pairs_are_valid_with_their_warnings(shared: Path, tmp_path: Path) -> None:
    roles = ("paired", "paired_same_sensor", "rts_hr", "hr")
    import_layout("catalogue", shared / "data", tmp_path / "real", name="real", split="test", roles=roles)
    report = validate(tmp_path / "real")
    assert report.count("error") == 0 and report.images == 26
    by_id: dict[str, set[str]] = {}
    for problem in report.problems:
        by_id.setdefault(problem.id or "", set()).add(problem.check)
    tiny = {i for i in by_id if i.startswith("treesat")}
    # 6x6 px, and series that are cloud or snow on half of their dates.
    assert len(tiny) == 4 and all({"size", "cloud"} <= by_id[i] for i in tiny)
    assert "gsd" in by_id["spacenet_rotterdam_1"]  # 2 m imagery on a 1 m grid
    assert "nodata" in by_id["rts_18191cf6"]
    # Water is black in NIR: no hole, whatever GDAL calls the band.
    assert "naip_chesapeake_000181" not in by_id or "nodata" not in by_id["naip_chesapeake_000181"]
    assert any("relative HR" in p.text for p in report.problems)
    # All Sentinel-2 of it is harmonised or older than the offset.
    assert not any(p.check == "offset" for p in report.problems)


# --- the command ------------------------------------------------------------------------------------------------


def test_json_is_one_object_on_stdout(clean: Path) -> None:
    plus_1000(clean)
    missing(clean)
    result = CliRunner().invoke(command, [str(clean), "--json"], standalone_mode=False)
    document = json.loads(result.stdout)
    assert result.return_value == 1
    assert document["errors"] == 1 and document["warnings"] >= 1 and document["images"] == 3
    assert {"severity", "id", "check", "text"} == set(document["problems"][0])
    assert document["fingerprint"] == validate(clean).fingerprint
    assert "validate: 3 images" in result.stderr


@pytest.mark.parametrize("spoil", ["dataset.json", "pairs.csv", "all"])
def test_no_dataset_is_an_error_and_no_report(clean: Path, spoil: str) -> None:
    if spoil == "all":
        shutil.rmtree(clean)
    else:
        (clean / spoil).unlink()
    with pytest.raises(RfbenchError) as error:
        validate(clean)
    assert error.value.exit_code == 2


def test_an_empty_table_is_no_dataset(clean: Path) -> None:
    (clean / "pairs.csv").write_text("id,lr\n")
    with pytest.raises(RfbenchError, match="has no row"):
        validate(clean)


@pytest.mark.parametrize("name", ["a\0b.tif", "x" * 3000 + ".tif", "loop.tif"])
def test_impossible_file_names_are_one_line(clean: Path, name: str) -> None:
    (clean / "loop.tif").symlink_to(clean / "loop.tif")
    edit(clean / "pairs.csv", "lr/im1.tif", name)
    (problem,) = [p for p in found(clean) if p.check in ("path", "missing")]
    assert problem.severity == "error" and problem.id == "im1"
    dataset = FolderDataset(clean)
    with pytest.raises(RfbenchError):
        dataset.load(dataset.records("test")[1])


def test_hostile_names_stay_on_their_line(clean: Path) -> None:
    edit(clean / "pairs.csv", "lr/im1.tif", '"lr/\x1b[31m\u202e../../etc/passwd"')
    edit(clean / "pairs.csv", "2021-07-01", '"2021\u2028\x07<script>"')
    for problem in found(clean):
        assert str(problem).isprintable()


def test_a_pipe_that_never_speaks_is_not_waited_for(clean: Path) -> None:
    (clean / "lr/im1.tif").unlink()
    os.mkfifo(clean / "lr/im1.tif")
    problems: list[Problem] = []
    thread = threading.Thread(target=lambda: problems.extend(found(clean)), daemon=True)
    thread.start()
    thread.join(20)
    assert [p.check for p in problems] == ["missing"]


def test_memory_is_that_of_one_pair(tmp_path: Path) -> None:
    """Twelve pairs need no more than three do."""
    import tracemalloc

    peaks = []
    for count in (3, 12):
        folder = write_dataset(tmp_path / f"d{count}", count=count, hr_px=(240, 320))
        tracemalloc.start()
        validate(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.15 * peaks[0]
