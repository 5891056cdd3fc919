"""Readers, manifests and normalisations: real layouts, odd sizes, and files that lie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from bench.core.errors import RfbenchError
from bench.core.image import Image, quantised
from bench.data import bands, readers
from bench.data.dataset import FolderDataset, Side, read_image
from bench.data.embedded import SCENES
from bench.data.layouts import import_layout
from bench.data.make import write_geotiff, write_scenes
from bench.data.normalise import Normalisation
from tests.conftest import ROOT, write_rows


def image(values: np.ndarray, unit: str = "reflectance", valid: np.ndarray | None = None) -> Image:
    values = np.asarray(values, np.float32)
    names = tuple("RGB"[: values.shape[2]])
    mask = np.ones(values.shape[:2], bool) if valid is None else valid
    return Image(values, unit, names, mask)  # type: ignore[arg-type]


# --- normalisation ----------------------------------------------------------------------------------------------


def test_fixed_range_is_in_units_of_ten_thousandths() -> None:
    fitted = Normalisation.parse("fixed[0,3000]").fit(image(np.zeros((2, 2, 3))))
    values = np.array([-0.1, 0.0, 0.15, 0.3, 1.2]).reshape(1, 5, 1).repeat(3, 2)
    np.testing.assert_allclose(fitted.apply(image(values))[0, :, 0], [0, 0, 0.5, 1, 1], atol=1e-7)


def test_percentiles_are_per_band_and_of_valid_pixels_only() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (40, 50, 3)) * [1, 2, 3]
    valid = np.ones((40, 50), bool)
    values[:5], valid[:5] = 1000, False
    fitted = Normalisation.parse("percentile[2,98]").fit(image(values, "relative", valid))
    expected = np.percentile(values[5:].reshape(-1, 3).astype(np.float32).astype(float), [2, 98], axis=0)
    np.testing.assert_allclose([fitted.low, fitted.high], expected, rtol=1e-12)
    display = fitted.apply(image(values, "relative", valid))
    assert (display[:5] == 0).all() and display.min() == 0 and display.max() == 1


def test_a_flat_band_is_0() -> None:
    """Eq. 14, pixel by pixel: (x - low) / (high - low) clipped to [0, 1], and 0 where the percentiles coincide."""
    values = np.random.default_rng(1).uniform(0, 1, (6, 7, 3))
    values[:, :, 1] = 0.25
    values[0, 0, 1] = 0.9  # one wild pixel of 42 leaves the percentiles where they are
    form = Normalisation.parse("percentile[5,95]")
    fitted = form.fit(image(values))
    for seen in (values, values + 0.1):
        display = fitted.apply(image(seen))
        for y, x, band in np.ndindex(values.shape):
            low, high = np.percentile(values[:, :, band].astype(np.float32).astype(float), [5, 95])
            expected = 0.0 if high == low else min(max((seen[y, x, band] - low) / (high - low), 0.0), 1.0)
            assert display[y, x, band] == pytest.approx(expected, abs=1e-6)
        assert not display[:, :, 1].any()


def test_gamma_is_applied_last() -> None:
    fitted = Normalisation.parse("fixed[0,10000]").fit(image(np.zeros((1, 1, 3))), gamma=0.5)
    np.testing.assert_allclose(fitted.apply(image(np.full((1, 1, 3), 0.25))), 0.5, atol=1e-7)


@pytest.mark.parametrize(
    "text", ["fixed", "fixed[3,1]", "percentile[2,198]", "percentile[a,b]", "", "fixed[nan,3]", "fixed[0,1e999]"]
)
def test_unknown_normalisations_are_refused(text: str) -> None:
    with pytest.raises(RfbenchError, match="normalisation"):
        Normalisation.parse(text)


def test_relative_numbers_take_percentiles_only() -> None:
    with pytest.raises(RfbenchError, match="declare percentile"):
        Normalisation.parse("fixed[0,3000]").fit(image(np.zeros((2, 2, 3)), "relative"))


def test_rounding_to_8_bit_happens_once() -> None:
    once = quantised(np.linspace(0, 1, 1001, dtype=np.float32), 8)
    np.testing.assert_array_equal(quantised(once, 8), once)
    np.testing.assert_array_equal(np.rint(once * 255) / np.float32(255), once)
    assert len(np.unique(once)) == 256


# --- readers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("count", [1, 3, 4, 12])
def test_geotiff_of_any_depth_and_band_count(tmp_path: Path, dtype: str, count: int) -> None:
    values = (np.arange(6 * 7 * count).reshape(6, 7, count) % 200).astype(dtype)
    names = tuple(f"b{i}" for i in range(count))
    write_geotiff(tmp_path / "x.tif", values, names, 10.0)
    raster = readers.read(tmp_path / "x.tif")
    np.testing.assert_array_equal(raster.values, values)
    assert raster.bands == names and raster.values.dtype == dtype


def test_12_bit_values_in_uint16_stay_raw(tmp_path: Path) -> None:
    values = np.full((3, 3, 3), 4095, np.uint16)
    write_geotiff(tmp_path / "x.tif", values, ("B04", "B03", "B02"), 10.0)
    read = read_image(tmp_path / "x.tif", Side())
    np.testing.assert_allclose(read.values, 0.4095)
    assert read.bands == ("R", "G", "B")


@pytest.mark.parametrize("suffix", ["png", "jpg", "npy", "npz"])
def test_other_files(tmp_path: Path, suffix: str) -> None:
    values = np.full((6, 8, 3), 100, np.uint8)
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, values)
    elif suffix == "npz":
        np.savez(path, image=np.moveaxis(values, 2, 0), bands=np.array(["B04", "B03", "B02"]))
    else:
        Pillow.fromarray(values).save(path)
    read = read_image(path, Side(unit="display"))
    assert read.size == (6, 8) and read.bands == ("R", "G", "B")
    np.testing.assert_allclose(read.values, 100 / 255, atol=0.01)


def test_12_bit_display_values_need_a_scale(tmp_path: Path) -> None:
    """Taking 65535 for white would make 12-bit images nearly black and their PSNR 20 dB too good."""
    write_geotiff(tmp_path / "x.tif", np.full((3, 3, 3), 4095, np.uint16), ("R", "G", "B"), 2.0)
    with pytest.raises(RfbenchError, match="uint16 display values up to 4095 without a scale"):
        read_image(tmp_path / "x.tif", Side(unit="display"))
    np.testing.assert_allclose(read_image(tmp_path / "x.tif", Side(unit="display", scale=4095)).values, 1.0)


def test_a_16_bit_png_keeps_its_bits(tmp_path: Path) -> None:
    import rasterio

    values = (np.arange(60).reshape(4, 5, 3) * 997).astype(np.uint16)
    profile = {"driver": "PNG", "height": 4, "width": 5, "count": 3, "dtype": "uint16"}
    with rasterio.open(tmp_path / "x.png", "w", **profile) as file:
        file.write(np.moveaxis(values, 2, 0))
    np.testing.assert_array_equal(readers.read(tmp_path / "x.png").values, values)
    np.testing.assert_allclose(read_image(tmp_path / "x.png", Side(unit="display")).values, values / 65535, atol=1e-7)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", image=np.zeros((64, 64, 3)))
    monkeypatch.setattr(readers.limits, "MAX_SAMPLES", 1000)
    with pytest.raises(RfbenchError, match="holds an array of"):
        readers.read(tmp_path / "x.npz")


@pytest.mark.parametrize(("dtype", "side"), [("u1", 5793), ("f8", 4097)])
def test_a_claim_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path, dtype: str, side: int) -> None:
    """One row and column less are read and interpreted below 2 GB (tests/fuzz/corpus)."""
    import tracemalloc

    import rasterio

    profile = {"driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": np.dtype(dtype).name,
               "SPARSE_OK": True, "tiled": True, "blockxsize": 1024, "blockysize": 1024}  # fmt: skip
    with rasterio.open(tmp_path / "x.tif", "w", **profile):
        pass
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (side, side)}
        )
    tracemalloc.start()
    for name in ("x.tif", "x.npy"):
        with pytest.raises(RfbenchError, match=f"its header claims {side} x {side}"):
            readers.read(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_arithmetic_in_blocks_of_rows_is_that_of_the_whole_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    stored = rng.normal(0.1, 0.3, (1500, 401, 3))  # two blocks, the second one short
    stored[700:705, 7] = np.nan
    np.save(tmp_path / "x.npy", stored)
    side = Side(unit="reflectance", offset=-0.1, scale=3.7, gamma=0.8)
    found = read_image(tmp_path / "x.npy", side)
    valid = np.isfinite(stored).all(axis=2)
    expected = np.where(valid[:, :, None], (stored - 0.1) / 3.7, 0).astype(np.float32)
    np.testing.assert_array_equal(found.values, expected)
    for form in ("fixed[0,3000]", "percentile[2,98]"):
        fitted = Normalisation.parse(form).fit(found, 0.8)
        low, high = np.array(fitted.low), np.array(fitted.high)
        if form.startswith("percentile"):
            limits = np.percentile(expected[valid].astype(np.float64), [2, 98], axis=0)
            np.testing.assert_array_equal([low, high], limits)
        display = np.clip((expected.astype(np.float64) - low) / (high - low), 0, 1) ** 0.8
        np.testing.assert_array_equal(fitted.apply(found), np.where(valid[:, :, None], display, 0).astype(np.float32))


def test_values_that_four_bytes_cannot_hold_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 4, 3), np.float32))
    with pytest.raises(RfbenchError, match="more than a number of 4 bytes holds"):
        read_image(tmp_path / "x.npy", Side(scale=1e-300))


def test_an_alpha_channel_and_not_a_number_are_no_data(tmp_path: Path) -> None:
    rgba = np.full((4, 4, 4), 200, np.uint8)
    rgba[0, 0, 3] = 0
    Pillow.fromarray(rgba).save(tmp_path / "x.png")
    assert (~readers.read(tmp_path / "x.png").valid).sum() == 1
    floats = np.full((4, 4, 3), 0.5, np.float32)
    floats[1, 1, 0], floats[2, 2] = np.nan, -np.inf
    np.save(tmp_path / "x.npy", floats)
    read = read_image(tmp_path / "x.npy", Side(unit="relative"))
    assert (~read.valid).sum() == 2 and np.isfinite(read.values).all()


def test_a_fourth_band_of_8_bits_is_no_alpha_channel(tmp_path: Path) -> None:
    """GDAL takes NIR for alpha: its zeros over water would be pixels without data."""
    values = np.full((4, 4, 4), 90, np.uint8)
    values[:2, :, 3] = 0
    write_geotiff(tmp_path / "named.tif", values, ("R", "G", "B", "NIR"), 1.0)
    write_geotiff(tmp_path / "plain.tif", values, ("", "", "", ""), 1.0)
    write_geotiff(tmp_path / "alpha.tif", values, ("R", "G", "B", "alpha"), 1.0)
    assert readers.read(tmp_path / "named.tif").valid.all()
    assert readers.read(tmp_path / "plain.tif", bands=("R", "G", "B", "NIR")).valid.all()
    transparent = [
        readers.read(tmp_path / "plain.tif", bands=("R", "G", "B")), readers.read(tmp_path / "alpha.tif"),
        readers.read(tmp_path / "plain.tif", bands=("R", "G", "B", "ALPHA")), readers.read(tmp_path / "plain.tif"),
    ]  # fmt: skip
    for raster in transparent:
        assert raster.values.shape == (4, 4, 3) and raster.valid.sum() == 8
    assert read_image(tmp_path / "alpha.tif", Side(unit="display")).bands == ("R", "G", "B")
    values[3, 3, 3] = 91  # no alpha channel has three values of its own without a name
    write_geotiff(tmp_path / "plain.tif", values, ("", "", "", ""), 1.0)
    with pytest.raises(RfbenchError, match=r"found 4 bands, expected names for them.*'R G B A'"):
        read_image(tmp_path / "plain.tif", Side(unit="display"))


def test_a_mask_beside_an_image_holds_and_its_notes_too(tmp_path: Path) -> None:
    import rasterio

    values = np.full((4, 4, 3), 90, np.uint8)
    write_geotiff(tmp_path / "x.tif", values, ("R", "G", "B"), 1.0)
    with rasterio.open(tmp_path / "x.tif.msk", "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8") as file:
        file.update_tags(**{f"INTERNAL_MASK_FLAGS_{i}": "2" for i in (1, 2, 3)})
    (tmp_path / "x.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Description>B</Description></PAMRasterBand></PAMDataset>'
    )
    raster = readers.read(tmp_path / "x.tif")
    assert not raster.valid.any() and raster.bands == ("B", "G", "B")


def test_declared_nodata_needs_all_bands(tmp_path: Path) -> None:
    values = np.full((4, 4, 3), 500, np.uint16)
    values[0, 0], values[1, 1, 0] = 0, 0
    np.save(tmp_path / "x.npy", values)
    assert (~read_image(tmp_path / "x.npy", Side(nodata=0)).valid).sum() == 1


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"run": "code"}], dtype=object), allow_pickle=True)
    with pytest.raises(RfbenchError, match=r"x\.npy: found object values"):
        readers.read(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tif", b"II*\x00\x08\x00", "cannot be read"),
        ("x.tif", b"", "cannot be read"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "cannot be read"),
        ("x.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
        ("x.npz", b"PK\x03\x04", "cannot be read"),
        ("x.bmp", b"BM", "file type '.bmp' is not read"),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RfbenchError, match=message) as caught:
        readers.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_header_that_claims_terabytes_is_refused_before_reading(tmp_path: Path) -> None:
    header = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 3), }".ljust(117) + b"\n"
    (tmp_path / "x.npy").write_bytes(header + len(text).to_bytes(2, "little") + text)
    with pytest.raises(RfbenchError, match=r"x\.npy"):
        readers.read(tmp_path / "x.npy")


def test_series_without_pickle(tmp_path: Path) -> None:
    data = np.zeros((3, 4, 6, 5), np.uint16)
    np.savez(tmp_path / "s.npz", data=data, dates=np.array(["2020-01-01"] * 3), bands=np.array(["B02"] * 4))
    series = readers.read_series(tmp_path / "s.npz")
    assert series.values.shape == (3, 6, 5, 4) and series.dates[0] == "2020-01-01"
    np.savez(tmp_path / "t.npz", data=data, dates=np.array(["2020-01-01"]), bands=np.array(["B02"] * 4))
    with pytest.raises(RfbenchError, match="1 dates, 4 bands"):
        readers.read_series(tmp_path / "t.npz")


# --- bands ------------------------------------------------------------------------------------------------------


def test_bands_by_name() -> None:
    assert bands.parse("B02 B03 B04 B08") == ("B", "G", "R", "NIR")
    assert bands.parse("B2,B3,B4,B5,B8A") == ("B", "G", "R", "B05", "B8A")
    with pytest.raises(RfbenchError, match="R"):
        bands.parse("B04 red")


def test_bands_that_contradict_the_file_are_refused(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "x.tif", np.zeros((3, 3, 4), np.uint16), ("B02", "B03", "B04", "B08"), 10.0)
    assert read_image(tmp_path / "x.tif", Side()).bands == ("B", "G", "R", "NIR")
    with pytest.raises(RfbenchError, match="names its bands B G R NIR, the dataset declares R G B NIR"):
        read_image(tmp_path / "x.tif", Side(bands="R G B NIR"))


def test_the_wrong_number_of_bands_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 5, 1), np.uint8))
    with pytest.raises(RfbenchError, match="found 1 band, expected R G B"):
        read_image(tmp_path / "x.npy", Side(unit="display", bands="R G B"))
    np.save(tmp_path / "y.npy", np.zeros((5, 6, 7), np.uint8))
    with pytest.raises(RfbenchError, match="found 7 bands, expected names for them"):
        read_image(tmp_path / "y.npy", Side(unit="display"))


def test_digital_numbers_declared_as_display_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((5, 5, 3), 200.0, np.float32))
    with pytest.raises(RfbenchError, match=r"display values run from 200 to 200.*expected \[0, 1\]"):
        read_image(tmp_path / "x.npy", Side(unit="display"))


# --- manifests --------------------------------------------------------------------------------------------------


def test_rows_override_the_sides(dataset: Path) -> None:
    row = {
        "id": "a",
        "lr": "lr/im0.npy",
        "hr": "hr/im0.npy",
        "hr_unit": "relative",
        "hr_normalisation": "percentile[2,98]",
    }
    write_rows(dataset, [row])
    (record,) = FolderDataset(dataset).records("test")
    assert (record.sides["lr"].unit, record.sides["hr"].unit) == ("reflectance", "relative")
    assert str(record.sides["hr"].declared) == "percentile[2,98]" and record.scene_id == "a"


def test_a_table_with_bom_and_semicolons_is_read(dataset: Path) -> None:
    (dataset / "pairs.csv").write_bytes(b"\xef\xbb\xbfid;hr;caption\na;hr/im0.npy;one, two\n")
    (record,) = FolderDataset(dataset).records("test")
    assert record.caption == "one, two"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,hr\na,hr/im0.npy\na,hr/im1.npy\n", "id 'a' comes twice"),
        ("id,hrr\na,hr/im0.npy\n", "did you mean hr"),
        ("id,caption\na,b\n", "neither lr nor hr"),
        ("id,hr\n,hr/im0.npy\n", "found no id"),
        ("id,hr\na\n", "another number of cells"),
        ("id,hr,hr\na,hr/im0.npy,hr/im1.npy\n", "the column 'hr' comes twice"),
        ("id,hr,hr_gsd_m\na,hr/im0.npy,inf\n", "expected a number"),
        ("id,hr,hr_gsd_m\na,hr/im0.npy,two\n", "hr_gsd_m: found 'two', expected a number"),
        ("id,hr,hr_unit\na,hr/im0.npy,reflectence\n", "did you mean reflectance"),
        ('id,hr\n"a\nb",hr/im0.npy\n', "one printable line"),
    ],
)
def test_broken_tables_say_where(dataset: Path, table: str, message: str) -> None:
    (dataset / "pairs.csv").write_text(table)
    with pytest.raises(RfbenchError, match=message):
        FolderDataset(dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format: found 2, expected 1"),
        ({"lr": {"unit": "dn"}}, "unknown unit 'dn'"),
        ({"lr": {"scale": "1e4"}}, "expected a number"),
        ({"lr": {"gsd": 10}}, "did you mean gsd_m"),
        ({"lr": {"normalisation": "fixed"}}, "expected fixed"),
        ({"licnce": "x"}, "did you mean licence"),
        ({"name": ""}, "found no name, expected one"),
    ],
)
def test_broken_infos_say_where(dataset: Path, change: dict[str, object], message: str) -> None:
    info = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(info | change))
    with pytest.raises(RfbenchError, match=message):
        FolderDataset(dataset)


def test_files_outside_the_dataset_are_refused(dataset: Path) -> None:
    np.save(dataset.parent / "secret.npy", np.zeros((4, 4, 3)))
    (dataset / "hr" / "link.npy").symlink_to(dataset.parent / "secret.npy")
    write_rows(dataset, [{"id": "a", "hr": "../secret.npy"}, {"id": "b", "hr": "hr/link.npy"}])
    found = FolderDataset(dataset)
    for record in found.records("test"):
        with pytest.raises(RfbenchError, match="lies outside the dataset"):
            found.load(record)


def test_an_unknown_split_names_those_there_are(dataset: Path) -> None:
    with pytest.raises(RfbenchError, match="no images in the split 'val'; it has test"):
        FolderDataset(dataset).records("val")


def test_the_fingerprint_follows_every_byte_that_matters(dataset: Path) -> None:
    def fingerprint() -> str:
        found = FolderDataset(dataset)
        return found.fingerprint(found.records("test"))

    first = fingerprint()
    (dataset / "notes.txt").write_text("nothing that matters")
    rows = (dataset / "pairs.csv").read_text().splitlines()
    (dataset / "pairs.csv").write_text("\n".join([rows[0], *rows[:0:-1]]))
    assert fingerprint() == first
    (dataset / "pairs.csv").write_text((dataset / "pairs.csv").read_text().replace("number 3", "number three"))
    second = fingerprint()
    assert second != first
    lr = np.load(dataset / "lr" / "im4.npy")
    lr[0, 0, 0] += 1
    np.save(dataset / "lr" / "im4.npy", lr)
    assert fingerprint() not in (first, second)


# --- importers --------------------------------------------------------------------------------------------------


def test_a_plain_folder_becomes_an_hr_dataset(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    for i in range(3):
        Pillow.fromarray(np.full((9, 11, 3), 50 * i, np.uint8)).save(source / f"picture {i}.png")
    assert import_layout("folder", source, tmp_path / "out", name="pictures", split="test") == 3
    records = FolderDataset(tmp_path / "out").records("test")
    assert [r.id for r in records] == ["picture 0", "picture 1", "picture 2"]
    assert all(set(r.files) == {"hr"} for r in records)
    with pytest.raises(RfbenchError, match="is not empty"):
        import_layout("folder", source, tmp_path / "out", name="pictures", split="test")


def test_lr_and_hr_folders_become_pairs(tmp_path: Path) -> None:
    for side, n in (("lr", 6), ("hr", 30)):
        (tmp_path / "src" / side).mkdir(parents=True)
        np.save(tmp_path / "src" / side / "a.npy", np.zeros((n, n, 3), np.uint8))
    assert import_layout("folder", tmp_path / "src", tmp_path / "out", name="x", split="val") == 1
    np.save(tmp_path / "src" / "lr" / "b.npy", np.zeros((6, 6, 3), np.uint8))
    with pytest.raises(RfbenchError, match="has no HR image of the same name"):
        import_layout("folder", tmp_path / "src", tmp_path / "out2", name="x", split="val")
    assert not (tmp_path / "out2").exists()
    (tmp_path / "src" / "lr" / "b.npy").unlink()
    np.save(tmp_path / "src" / "hr" / "c.npy", np.zeros((30, 30, 3), np.uint8))
    with pytest.raises(RfbenchError, match=r"c.npy has no image of the same name in .*lr"):
        import_layout("folder", tmp_path / "src", tmp_path / "out2", name="x", split="val")


def test_an_import_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    np.save(tmp_path / "src" / "a.npy", np.zeros((6, 6, 4), np.uint8))
    with pytest.raises(RfbenchError, match="found 4 bands, expected names for them"):
        import_layout("folder", tmp_path / "src", tmp_path / "out", name="x", split="test")
    with pytest.raises(RfbenchError, match="unknown unit 'foo'"):
        import_layout("folder", tmp_path / "src", tmp_path / "out", name="x", split="test", unit="foo")
    assert [p.name for p in tmp_path.iterdir()] == ["src"]
    assert (
        import_layout(
            "folder", tmp_path / "src", tmp_path / "out", name="x", split="test", bands="B G R NIR", scale=100
        )
        == 1
    )
    (record,) = FolderDataset(tmp_path / "out").records("test")
    assert (record.sides["hr"].bands, record.sides["hr"].scale) == ("B G R NIR", 100)
    Pillow.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / "src" / "a.png")
    with pytest.raises(RfbenchError, match="would have the same id"):
        import_layout("folder", tmp_path / "src", tmp_path / "out2", name="x", split="test")


def test_scenes_never_overwrite_a_dataset_of_the_user(dataset: Path) -> None:
    with pytest.raises(RfbenchError, match="holds something else than scenes"):
        write_scenes(dataset, count=1, seed=1)
    write_scenes(dataset.parent / "made", count=1, seed=1, hr_px=(50, 50), command="rfbench data scenes DST")
    write_scenes(dataset.parent / "made", count=2, seed=1, hr_px=(50, 50), command="rfbench data scenes DST")
    assert len(FolderDataset(dataset.parent / "made").records("test")) == 2


def test_a_catalogue_names_its_units(shared: Path, tmp_path: Path) -> None:
    count = import_layout(
        "catalogue",
        shared / "data",
        tmp_path / "real",
        name="real",
        split="test",
        roles=["paired", "paired_same_sensor"],
    )
    dataset = FolderDataset(tmp_path / "real")
    records = {r.id: r for r in dataset.records("test")}
    assert count == len(records) == 8
    dione = dataset.load(records["dione_lt_0277"])
    assert dione.lr is not None and dione.hr is not None and dione.series is not None
    assert dione.lr.unit == "reflectance" and dione.lr.bands == ("B", "G", "R", "NIR")
    assert dione.hr.unit == "relative" and dione.series.values.shape[1:3] == (32, 32)
    shanghai = dataset.load(records["spacenet_shanghai_1920"])
    assert shanghai.hr is None and shanghai.pan is not None and shanghai.pan.size == (1300, 1300)
    assert records["treesat_abies_alba_1_1005"].caption.startswith("Dense conifer")


def test_a_file_that_cannot_be_read_is_named_by_the_fingerprint(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("bench.data.dataset.sha256", refuse)
    found = FolderDataset(dataset)
    with pytest.raises(RfbenchError, match=r"lr/im0\.npy cannot be read \(Permission denied\); allow it"):
        found.fingerprint(found.records("test"))


def test_the_embedded_scenes_have_the_fingerprint_of_published_tables() -> None:
    """However a manifest is read: a number of it that becomes another type would make other data of the same files."""
    scenes = SCENES()
    shown = scenes.fingerprint(scenes.records("test"))[:12]
    assert f"24 images, fingerprint {shown};" in (ROOT / "results" / "embedded" / "table.md").read_text()
