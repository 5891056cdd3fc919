"""Images that another program wrote: a run's own pictures have the run's scores, foreign ones those of scikit-image."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench.cli.score import command
from bench.core import files
from bench.core.errors import RfbenchError
from bench.core.files import safe_name
from bench.metrics import realism
from bench.records.folder import RunFolder
from bench.reports.pictures import export
from bench.reports.scores import to_csv, to_json, to_markdown
from tests.conftest import picture, write_dataset
from tests.runs import run as run_models
from tests.runs import scored as scored_images

OF_IMAGES = ("psnr_rgb", "psnr_y", "ssim_rgb", "fsim", "fsimc", "logspec_l1", "sam_rgb", "de00")
OTHERS = ("fid_tf", "kid_tf", "lpips_alex", "sam_refl", "d_lambda", "qnr", "nll", "ece")
FAST = ("psnr_rgb", "ssim_rgb")


@pytest.fixture(autouse=True)
def features_for_fid(monkeypatch: pytest.MonkeyPatch) -> None:
    """FID and KID of something that needs no weights: an image's cells and their squares."""

    def cells(self: Any, display: np.ndarray) -> np.ndarray:
        h, w = display.shape[0] // 4, display.shape[1] // 4
        means = display[: 4 * h, : 4 * w].reshape(4, h, 4, w, 3).mean(axis=(1, 3)).ravel()
        return np.concatenate([means, means**2]).astype(np.float32)

    monkeypatch.setattr(realism._Inception, "missing", lambda self: None)
    monkeypatch.setattr(realism._Inception, "setup", lambda self: setattr(self, "_network", None))
    monkeypatch.setattr(realism._Inception, "_extract", cells)


def run_and_export(data: Path, out: Path, protocol: str) -> tuple[RunFolder, Path]:
    """A run of bicubic with every metric here, and the folder of its pictures (``hr`` beside it)."""
    options = dict(metrics=(*OF_IMAGES, *OTHERS), device="cpu", workers=0, out=out / "runs")
    (run,) = run_models(models=("bicubic",), protocol=protocol, data=str(data), **options).folders
    ((_, folder, _),) = export([run], out / "pictures", references=True)
    return run, folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pairs of 60x80 px; one id is no file name."""
    folder = write_dataset(tmp_path / "data", count=4)
    table = (folder / "pairs.csv").read_text()
    (folder / "pairs.csv").write_text(table.replace("\nim1,", "\nim1/ü,"))
    return folder


def pictures(folder: Path, names: str = "a b c", *, seed: int = 0, size: tuple[int, int] = (40, 48)) -> Path:
    """A folder of 8-bit PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names.split()):
        Image.fromarray(np.rint(picture(seed + i, *size) * 255).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the pictures a, b and c."""
    return pictures(tmp_path / "pred"), pictures(tmp_path / "ref", seed=10)


def run_command(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``rfbench score`` in this process; a user error is its message and 2."""
    done = CliRunner().invoke(command, [*map(str, words), "--device", "cpu", "--workers", "0"], standalone_mode=False)
    if isinstance(done.exception, RfbenchError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    assert done.exception is None, done.exception
    return done.return_value, done.stdout, done.stderr


def scored(pred: Path, ref: Path, **options: Any) -> dict[str, Any]:
    request = {"pred": pred, "ref": ref, "metrics": FAST, "device": "cpu", "workers": 0} | options
    return scored_images(**request)


def errors(document: dict[str, Any]) -> dict[str, str]:
    return {image["id"]: image["error"] for image in document["images"] if image["error"]}


# --- a run's own pictures -------------------------------------------------------------------------------------


def assert_like_run(run: RunFolder, document: dict[str, Any], metrics: tuple[str, ...], names: dict[str, str]) -> None:
    """Values of images and of the set are the run's to the last bit; ``names`` leads from ids to the document's."""
    frame = run.scores().set_index("id")
    images = {image["id"]: image for image in document["images"]}
    assert len(images) == len(frame)
    for image_id, row in frame.iterrows():
        image = images[names.get(str(image_id), str(image_id))]
        for metric in metrics:
            if np.isnan(row[metric]):
                assert metric not in image["scores"] and image["reasons"][metric]
            else:
                assert image["scores"][metric] == row[metric] and metric not in image["reasons"]
    summary = run.summary()
    assert summary is not None
    for metric in metrics:
        theirs = summary.rows["sample"].metrics[metric]
        found = document["summary"][metric]
        assert (found["value"], found["n"], found.get("std")) == (theirs.value, theirs.n, theirs.std)
        assert found["reason"] == (str(theirs.reason) if theirs.reason else None)
        assert document["identities"][metric] == theirs.identity


@pytest.mark.parametrize("protocol", ["paired", "paired:border_px=3,normalisation=percentile[2,98]", "bicubic-4x"])
def test_a_run_s_own_pictures_have_its_scores(data: Path, tmp_path: Path, protocol: str) -> None:
    run, pred = run_and_export(data, tmp_path, protocol)
    options: dict[str, Any] = {"metrics": (*OF_IMAGES, *OTHERS), "device": "cpu", "workers": 0}
    by_id = scored_images(pred=pred, data=str(data), protocol=protocol, **options)
    # What a picture cannot bring is a reason in both: the bands in reflectance and the distribution.
    assert_like_run(run, by_id, (*OF_IMAGES, "fid_tf", "kid_tf", "lpips_alex", "nll", "ece"), {})
    assert by_id["inputs"]["data"]["fingerprint"] == run.record().plan.data.fingerprint
    assert by_id["inputs"]["protocol"] == run.record().plan.protocol
    by_name = scored_images(pred=pred, ref=pred.parent / "hr", **options)
    names = {i: safe_name(i) for i in ("im1/ü",)}
    if "border" in protocol:  # the pictures have lost theirs; the scores are the same, the identities say how
        by_name["identities"] = {k: re.sub(r"\|(r\d+)$", r"|border3|\1", v) for k, v in by_name["identities"].items()}
    assert_like_run(run, by_name, (*OF_IMAGES, "fid_tf", "kid_tf"), names)
    for image in by_name["images"]:
        assert image["reasons"]["d_lambda"] == image["reasons"]["qnr"] == "no LR image"
        assert "no predictive distribution" in image["reasons"]["nll"] and "reflectance" in image["reasons"]["sam_refl"]


def test_holes_of_the_dataset_are_left_out_as_in_a_run(data: Path, tmp_path: Path) -> None:
    path = data / "hr" / "im2.npy"
    hr = np.load(path).astype(np.float32)
    hr[5:9, 10:14] = np.nan
    np.save(path, hr)
    run, pred = run_and_export(data, tmp_path, "paired")
    document = scored_images(pred=pred, data=str(data), metrics=(*OF_IMAGES, "fid_tf"), device="cpu", workers=0)
    assert_like_run(run, document, (*OF_IMAGES, "fid_tf"), {})
    (image,) = [i for i in document["images"] if i["id"] == "im2"]
    assert "psnr_rgb" in image["scores"] and "16 pixels without data" in image["reasons"]["fsim"]


def test_reflectance_has_the_scores_of_the_run_that_made_it(data: Path, tmp_path: Path) -> None:
    run, _ = run_and_export(data, tmp_path, "paired")
    pred = tmp_path / "reflectance"
    pred.mkdir()
    for image_id in run.record().plan.data.ids:
        arrays, header = run.predictions.read(image_id)
        assert header["unit"] == "reflectance" and header["bands"] == ["R", "G", "B", "NIR"]
        np.save(pred / f"{safe_name(image_id)}.npy", arrays["mean"])
    code, out, _ = run_command(
        "--pred", pred, "--data", data, "--unit", "reflectance", "--bands", "R G B NIR", "--format", "json",
        "--metrics", ",".join((*OF_IMAGES, *OTHERS)),
    )  # fmt: skip
    assert code == 0
    assert_like_run(run, json.loads(out), (*OF_IMAGES, "fid_tf", "sam_refl", "d_lambda", "nll"), {})


# --- foreign pictures -----------------------------------------------------------------------------------------


def test_a_foreign_folder_pair_agrees_with_scikit_image(tmp_path: Path) -> None:
    """8-bit PNG by Pillow against 16-bit TIFF by tifffile and float npy, in one command."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    tifffile = pytest.importorskip("tifffile")
    pred, ref = tmp_path / "pred", tmp_path / "ref"
    pred.mkdir()
    ref.mkdir()
    expected = {}
    for i, name in enumerate(("first", "second", "third")):
        truth = np.rint(picture(i, 50, 64) * 4095).astype(np.uint16)
        guess = np.rint(np.clip(truth / 4095 + 0.03, 0, 1) * 255).astype(np.uint8)
        tifffile.imwrite(ref / f"{name}.tif", truth, photometric="rgb")
        Image.fromarray(guess).save(pred / f"{name}.png")
        a, b = np.rint(truth / 4095 * 255) / 255, guess / 255
        ssim = structural_similarity(
            a, b, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        expected[name] = {"psnr_rgb": peak_signal_noise_ratio(a, b, data_range=1), "ssim_rgb": ssim}
    code, out, _ = run_command(
        "--pred", pred, "--ref", ref, "--scale", "4095", "--metrics", "psnr_rgb,ssim_rgb", "--format", "json"
    )
    assert code == 0
    document = json.loads(out)
    for image in document["images"]:
        for metric, value in expected[image["id"]].items():
            assert image["scores"][metric] == pytest.approx(value, abs=1e-5)
    assert [i["files"]["ref"]["scale"] for i in document["images"]] == [4095] * 3
    assert [i["files"]["pred"]["scale"] for i in document["images"]] == [255] * 3


def test_all_types_of_file_hold_the_same_picture(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    whole = np.rint(picture(3, 40, 40) * 255).astype(np.uint8)
    ref = pictures(tmp_path / "ref", "a png tif npy npz float chw", seed=3, size=(40, 40))
    for path in ref.iterdir():
        Image.fromarray(whole).save(path)
    pred = tmp_path / "pred"
    pred.mkdir()
    Image.fromarray(whole).save(pred / "png.PNG")
    np.save(pred / "npy.npy", whole)
    np.savez(pred / "npz.npz", image=whole)
    np.save(pred / "float.npy", (whole / 255).astype(np.float32))
    np.save(pred / "chw.npy", np.moveaxis(whole, 2, 0))
    profile = {"driver": "GTiff", "height": 40, "width": 40, "count": 3, "dtype": "uint8"}
    with rasterio.open(pred / "tif.tif", "w", **profile) as file:
        file.write(np.moveaxis(whole, 2, 0))
    document = scored(pred, ref, scale=1.0)
    assert {i["id"]: i["scores"]["psnr_rgb"] for i in document["images"]} == dict.fromkeys(
        ("png", "tif", "npy", "npz", "float", "chw"), 100.0
    )
    assert document["unmatched"] == {"pred": [], "ref": ["a"]}


def test_floats_a_little_beyond_white_are_cut_and_noted(tmp_path: Path) -> None:
    ref, pred = pictures(tmp_path / "ref", "a"), tmp_path / "pred"
    pred.mkdir()
    values = picture(0, 40, 48).astype(np.float32)
    values[0, 0], values[0, 1] = 1.2, -0.1
    np.save(pred / "a.npy", values)
    document = scored(pred, ref, scale=1.0)
    (note,) = document["images"][0]["notes"]
    assert note == "a.npy: 6 values beyond 0 to 1 were cut to it (-0.1 to 1.2)"
    np.save(pred / "a.npy", np.clip(values, 0, 1))
    assert scored(pred, ref, scale=1.0)["images"][0]["scores"] == document["images"][0]["scores"]


def test_a_white_that_makes_all_black_is_noted(tmp_path: Path) -> None:
    ref, pred = pictures(tmp_path / "ref", "a"), tmp_path / "pred"
    pred.mkdir()
    np.save(pred / "a.npy", picture(0, 40, 48))
    assert "black for a white of 65535" in scored(pred, ref, scale=65535.0)["images"][0]["notes"][0]


def test_bands_are_found_by_name(tmp_path: Path) -> None:
    ref, pred = pictures(tmp_path / "ref", "a"), tmp_path / "pred"
    pred.mkdir()
    with Image.open(ref / "a.png") as file:
        rgb = np.asarray(file)
    np.save(pred / "a.npy", np.concatenate([rgb[:, :, ::-1], rgb[:, :, :1]], axis=2))
    assert scored(pred, ref, bands="B G R NIR")["summary"]["psnr_rgb"]["value"] == 100.0
    np.savez(
        pred / "a.npz", image=np.concatenate([rgb[:, :, ::-1], rgb[:, :, :1]], axis=2), bands=["B02", "B03", "red", "x"]
    )
    (pred / "a.npy").unlink()
    assert scored(pred, ref)["summary"]["psnr_rgb"]["value"] == 100.0
    np.save(pred / "b.npy", np.zeros((4, 4, 4), np.uint8))
    pictures(ref, "b", size=(4, 4))
    (pred / "a.npz").unlink()
    with pytest.raises(RfbenchError, match="found 4 bands, expected names for them; give them with --bands"):
        scored(pred, ref)


@pytest.mark.parametrize("ending", ["npy", "tif"])
def test_bands_are_not_said_of_pictures_whose_format_says_them(ending: str, tmp_path: Path) -> None:
    """Predictions in B G R against PNG references: only the first are put into another order."""
    ref, pred = pictures(tmp_path / "ref", "a"), tmp_path / "pred"
    pred.mkdir()
    with Image.open(ref / "a.png") as file:
        turned = np.asarray(file)[:, :, ::-1]
    if ending == "npy":
        np.save(pred / "a.npy", turned)
    else:
        rasterio = pytest.importorskip("rasterio")
        profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": len(turned), "width": turned.shape[1]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no georeference
            with rasterio.open(pred / "a.tif", "w", **profile) as file:
                file.write(np.moveaxis(turned, 2, 0))
    assert scored(pred, ref, bands="B G R")["summary"]["psnr_rgb"]["value"] == 100.0
    assert scored(ref, pred, bands="B G R")["summary"]["psnr_rgb"]["value"] == 100.0
    assert scored(pred, ref)["summary"]["psnr_rgb"]["value"] < 30.0


def test_border_and_rounding_of_a_folder_pair(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    cut = scored(pred, ref, border_px=4, quantise="none")
    inner = [f.parent / "inner" for f in (pred / "x", ref / "x")]
    for folder, source in zip(inner, folders, strict=True):
        folder.mkdir()
        for path in source.glob("*.png"):
            with Image.open(path) as file:
                Image.fromarray(np.asarray(file)[4:-4, 4:-4]).save(folder / path.name)
    assert [i["scores"] for i in scored(*inner)["images"]] == [i["scores"] for i in cut["images"]]
    assert cut["identities"]["psnr_rgb"].endswith("|qnone|border4|r2")
    assert "--border-px 20 leaves nothing" in errors(scored(pred, ref, border_px=20))["a"]


def test_a_fit_on_references_does_not_depend_on_which_images_could_be_read(tmp_path: Path) -> None:
    pytest.importorskip("pyiqa")
    names = "a b c d e"
    pred, ref = pictures(tmp_path / "pred", names, size=(288, 384)), pictures(tmp_path / "ref", names, size=(288, 384))
    whole = scored(pred, ref, metrics=("niqe_ref",))
    (pred / "c.png").write_bytes(b"no picture")
    broken = scored(pred, ref, metrics=("niqe_ref",))
    assert broken["failed"] == ["c"] and broken["summary"]["niqe_ref"]["n"] == 4
    assert "|fit:" in whole["identities"]["niqe_ref"] == broken["identities"]["niqe_ref"]
    for one, other in zip(whole["images"], broken["images"], strict=True):
        assert one["scores"] == other["scores"] or other["id"] == "c"


# --- matching -------------------------------------------------------------------------------------------------


def test_files_without_a_partner_are_named_and_counted(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    pictures(pred, "x")
    pictures(ref, "y z")
    (pred / "README.txt").write_text("notes")
    (ref / "folder.png").mkdir()
    code, out, err = run_command("--pred", pred, "--ref", ref, "--metrics", "psnr_rgb", "--format", "json")
    document = json.loads(out)
    assert code == 0 and [i["id"] for i in document["images"]] == ["a", "b", "c"]
    assert document["unmatched"] == {"pred": ["x"], "ref": ["y", "z"]} and document["ignored"] == {"pred": 1, "ref": 1}
    assert "1 image has no reference: 'x'" in err and "2 references have no image: 'y', 'z'" in err
    assert "1 other entry in --pred was left alone" in err
    code, out, err = run_command("--pred", pred, "--ref", ref, "--metrics", "psnr_rgb", "--strict")
    assert code == 2 and out == "" and "found names without a partner (1 of images, 2 of references), first 'x'" in err


@pytest.mark.parametrize(
    ("pred_names", "ref_names", "message"),
    [
        ("0801_out 0802_out", "0801 0802", "nearest is '0801' (try --pred-name '{id}_out')"),
        ("Scene_A", "scene_a", "(upper and lower case differ)"),
        ("caf\u00e9", "cafe\u0301", "(they look alike but are other characters)"),
        ("tile_\u0430bc", "tile_abc", "'tile_\u0430bc' (tile_\\u0430bc), nearest is 'tile_abc'"),
        ("first", "99", "found 'first' where there is '99'"),
    ],
)
def test_nothing_matched_shows_the_nearest_names(tmp_path: Path, pred_names: str, ref_names: str, message: str) -> None:
    pred, ref = pictures(tmp_path / "pred", pred_names), pictures(tmp_path / "ref", ref_names)
    code, out, err = run_command("--pred", pred, "--ref", ref)
    assert code == 2 and out == "" and message in err and "\n" not in err


def test_names_with_an_affix(tmp_path: Path) -> None:
    ref = pictures(tmp_path / "ref", "a b")
    pred = pictures(tmp_path / "pred", "sr_a_x4 sr_b_x4 other")
    document = scored(pred, ref, pred_name="sr_{id}_x4")
    assert [i["id"] for i in document["images"]] == ["a", "b"]
    assert document["unmatched"] == {"pred": ["other.png"], "ref": []}
    for bad in ("x4", "{id}{id}"):
        with pytest.raises(RfbenchError, match=r"expected one \{id\} in it"):
            scored(pred, ref, pred_name=bad)
    with pytest.raises(RfbenchError, match="no name is so"):
        scored(pred, ref, pred_name="{id}_x8")


def test_ids_of_a_dataset_that_nobody_predicted(data: Path, tmp_path: Path) -> None:
    pred = pictures(tmp_path / "pred", "im0 im7", size=(60, 80))
    document = scored_images(pred=pred, data=str(data), metrics=("psnr_rgb",), device="cpu", workers=0)
    assert [i["id"] for i in document["images"]] == ["im0"]
    assert document["unmatched"] == {"pred": ["im7"], "ref": ["im1/ü", "im2", "im3"]}
    shutil.copy(pred / "im0.png", pred / "im1.png")
    (pred / "im0.png").unlink()
    with pytest.raises(RfbenchError, match=r"none of the 2 names in .* is an id of dataset tiny, split test"):
        scored_images(pred=pred, data=str(data), device="cpu")


# --- broken and hostile files ---------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG of 50,000 x 50,000 pixels that is a few dozen bytes long."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


def floats(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


GOOD = np.full((40, 48, 3), 100, np.uint8)
BAD_FILES = {
    "truncated.png": (png(np.random.default_rng(0).integers(0, 255, GOOD.shape, np.uint8))[:900], "cannot be read"),
    "bomb.png": (bomb(), "cannot be read (DecompressionBombError"),
    "claims.npy": (floats(GOOD)[:10] + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 9999, 3), }", ""),
    "empty.png": (b"", "cannot be read"),
    "text.jpg": (b"no picture", "cannot be read"),
    "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 48\nshowpage\n", "cannot be read"),
    "nothing.npy": (floats(np.zeros((0, 0, 3), np.uint8)), "0 x 0 x 3"),
    "pickle.npy": (floats(np.array([{"a": 1}], dtype=object)), "found object values"),
    "words.npy": (floats(np.full((40, 48, 3), "x")), "expected numbers"),
    "nan.npy": (floats(np.where(np.arange(40)[:, None, None] < 2, np.nan, GOOD / 255)), "found 96 pixels without data"),
    "inf.npy": (floats(np.full(GOOD.shape, -np.inf)), "found 1920 pixels without data"),
    "hole.png": (png(np.dstack([GOOD, np.where(np.arange(48) < 3, 0, 255) + np.zeros((40, 1), int)]).astype(np.uint8)),
                 "found 120 pixels without data (not finite, or transparent), expected none; fill them"),
    "grey.png": (png(GOOD[:, :, 0]), "grey.png has PAN and "),
    "small.png": (png(GOOD[:20, :20]), "found 20x20 px, expected 40x48 px, the size of "),
    "counts.npy": (floats(GOOD.astype(np.float32) * 40), "run from 4000 to 4000, expected 0 to 1; say what white is"),
    "minus.npy": (floats(np.full(GOOD.shape, -3, np.int16)), "run from -3 to -3, expected 0 to 1"),
    "huge.npy": (floats(np.full(GOOD.shape, 1e300)), "expected 0 to 1"),
    "scalar.npy": (floats(np.float32(3)), "expected"),
    "many.npy": (floats(np.zeros((2, 2, 2, 3), np.uint8)), "expected an array (H, W)"),
}  # fmt: skip


def test_a_broken_file_is_a_row_with_its_error(tmp_path: Path) -> None:
    pred, ref = tmp_path / "pred", tmp_path / "ref"
    pred.mkdir()
    ref.mkdir()
    for name in ["a.png", *BAD_FILES, "z.png"]:
        (pred / name).write_bytes(BAD_FILES.get(name, (png(GOOD), ""))[0])
        (ref / name).with_suffix(".png").write_bytes(png(GOOD))
    code, out, err = run_command(
        "--pred", pred, "--ref", ref, "--scale", 1, "--metrics", "psnr_rgb,fid_tf", "--format", "json"
    )
    document = json.loads(out)
    assert code == 1 and f"{len(BAD_FILES)} of {len(BAD_FILES) + 2} images failed" in err
    found = errors(document)
    assert set(found) == {name.partition(".")[0] for name in BAD_FILES} and document["failed"] == sorted(found)
    for name, (_, message) in BAD_FILES.items():
        error = found[name.partition(".")[0]]
        assert message in error and name in error and error.isprintable(), error
    good = [image for image in document["images"] if not image["error"]]
    assert [i["scores"] for i in good] == [{"psnr_rgb": 100.0}] * 2
    assert document["summary"]["psnr_rgb"] == {"value": 100.0, "n": 2, "reason": None, "std": 0.0}
    # A reader that knows scores and reasons alone also learns why.
    assert all(set(i["scores"]) | set(i["reasons"]) == {"psnr_rgb", "fid_tf"} for i in document["images"])
    assert "Traceback" not in err and len(err.splitlines()) < 20


def test_a_broken_reference_is_a_row_with_its_error(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    (ref / "a.png").write_bytes(bomb())
    Image.open(ref / "b.png").convert("L").save(ref / "b.png")
    found = errors(scored(pred, ref))
    assert "ref/a.png cannot be read" in found["a"]
    assert "pred/b.png has R G B and " in found["b"] and "ref/b.png has PAN; both need the bands R G B" in found["b"]


def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    """30 million pixels pass for a picture; beside a small reference they are not unpacked."""
    import tracemalloc

    pred, ref = tmp_path / "pred", pictures(tmp_path / "ref", "a b")
    pred.mkdir()
    Image.new("L", (6000, 5_000)).save(pred / "a.png")
    np.savez_compressed(pred / "b.npz", image=np.zeros((5_000, 6000, 1), np.uint8))
    tracemalloc.start()
    document = scored(pred, ref)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "found 5000x6000 px, expected 40x48 px" in errors(document)["a"]
    assert "found 5000x6000 px, expected 40x48 px" in errors(document)["b"]
    assert peak < 2e7


def test_two_files_of_one_name(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    shutil.copy(pred / "a.png", pred / "a.JPG")
    np.save(ref / "c.npy", GOOD)
    document = scored(pred, ref)
    found = errors(document)
    assert "found 'a.JPG' and 'a.png' for one name; keep one of them" in found["a"]
    assert "found 'c.npy' and 'c.png' for one name" in found["c"] and document["summary"]["psnr_rgb"]["n"] == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes and links here")
def test_links_and_pipes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, ref = folders
    outside = tmp_path / "secret.png"
    shutil.copy(pred / "a.png", outside)
    for name in "abc":
        (pred / f"{name}.png").rename(pred / f"kept_{name}.png")
    (pred / "a.png").symlink_to(outside)
    (pred / "b.png").symlink_to("kept_b.png")  # inside the folder: nothing is wrong with it
    os.mkfifo(pred / "c.png")
    pictures(ref, "d")
    (pred / "d.png").symlink_to("nowhere.png")
    document = scored(pred, ref)
    found = errors(document)
    assert set(found) == {"a", "c", "d"}
    assert "'a.png' is a link that leads out of its folder; copy the file" in found["a"]
    assert "is no regular file" in found["c"] and "is a broken link" in found["d"]
    linked = tmp_path / "link"
    linked.symlink_to(pred, target_is_directory=True)  # the folder itself may be one
    assert errors(scored(linked, ref)).keys() == found.keys()


HOSTILE = ["a\nb", "quo\"te,'s", "..a", "a..", " ", "-rf", "$(id)", "=1+1", "<b>|x|`", "\u202egnp", "ä", "x" * 200]


def test_hostile_names(tmp_path: Path) -> None:
    pred, ref = tmp_path / "pred", tmp_path / "ref"
    for folder in (pred, ref):
        folder.mkdir()
        for name in HOSTILE:
            (folder / f"{name}.png").write_bytes(png(GOOD))
    (pred / "a\nb.png").write_bytes(b"broken")
    (pred / "...png").write_bytes(b"")  # dots and no ending
    (pred / "only\n\x1b[31m.png").write_bytes(png(GOOD))
    code, out, err = run_command("--pred", pred, "--ref", ref, "--metrics", "psnr_rgb", "--format", "json")
    document = json.loads(out)
    assert code == 1 and [i["id"] for i in document["images"]] == sorted(HOSTILE)
    assert document["unmatched"]["pred"] == ["only\n\x1b[31m"] and document["ignored"]["pred"] == 1
    assert "\x1b" not in err and "\u202e" not in err
    assert all(line.startswith(("note:", "failed:", "images: ", "pred: ", "1 of ")) for line in err.splitlines()), err
    rows = list(csv.DictReader(io.StringIO(to_csv(document) + "\n", newline="")))
    shielded = [f"'{name}" if name[0] in "=+-@" else name for name in sorted(HOSTILE)]  # from spreadsheets
    assert [r["id"] for r in rows if r["level"] == "image"] == shielded
    assert all(line.isprintable() for line in to_markdown(document).splitlines())
    assert not (tmp_path / "png").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["pred", "ref"]


def test_a_name_that_is_not_utf_8(folders: tuple[Path, Path]) -> None:
    name = os.fsdecode(b"\xff\xfe.png")
    try:
        for folder in folders:
            (folder / name).write_bytes(png(GOOD))
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    document = scored(*folders)
    assert "its name is not UTF-8; rename the file" in errors(document)["\\xff\\xfe"]
    for text in (to_json(document), to_csv(document), to_markdown(document)):
        text.encode("utf-8")


def test_many_files_are_read_one_at_a_time(tmp_path: Path) -> None:
    import tracemalloc

    count = 150
    for folder in (tmp_path / "pred", tmp_path / "ref"):
        folder.mkdir()
        (folder / "x.npy").write_bytes(floats(np.full((200, 200, 3), 9, np.uint8)))
    scored(tmp_path / "pred", tmp_path / "ref", metrics=("psnr_rgb",))  # whatever is imported is so now
    for folder in (tmp_path / "pred", tmp_path / "ref"):
        for i in range(count):
            os.link(folder / "x.npy", folder / f"{i}.npy")
    tracemalloc.start()
    document = scored(tmp_path / "pred", tmp_path / "ref", metrics=("psnr_rgb",))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert document["summary"]["psnr_rgb"]["n"] == count + 1 and len(document["images"]) == count + 1
    assert peak < 10e6  # all pixels together are 36 MB as bytes, and 145 MB as floats


# --- the command ----------------------------------------------------------------------------------------------


def test_sixteen_bits_and_floats_must_say_what_white_is(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    values = np.zeros((40, 48, 3), np.uint16) + 2047
    np.save(ref / "a.npy", values)
    (ref / "a.png").unlink()
    code, out, err = run_command("--pred", pred, "--ref", ref, "--metrics", "psnr_rgb")
    assert code == 2 and out == ""
    assert "a.npy: found uint16 values up to 2047, expected to be told what white is; give it with --ref-scale" in err
    assert run_command("--pred", pred, "--ref", ref, "--metrics", "psnr_rgb", "--ref-scale", 4095)[0] == 0
    # Where images were scored already they are kept, and the one without a white is a row with its error.
    shutil.copy(ref / "b.png", ref / "a.png")
    (ref / "a.npy").rename(ref / "c.npy")
    (ref / "c.png").unlink()
    found = scored(pred, ref)
    assert "found uint16 values" in errors(found)["c"] and found["summary"]["psnr_rgb"]["n"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "found neither --ref nor --data, expected one of them"),
        (["--ref", "ref", "--data", "scenes"], "found both --ref and --data"),
        (["--ref", "nowhere"], "--ref: nowhere is not a folder; give the folder that holds the images"),
        (["--ref", "pred/a.png"], "--ref: pred/a.png is a file; give the folder"),
        (["--ref", "empty"], "--ref: found no image in empty (0 other entries), expected files that end in .tif"),
        (["--ref", "pred"], "--pred and --ref are one folder"),
        (["--ref", "ref", "--split", "test"], "--split goes with --data, found --ref; leave it out"),
        (["--ref", "ref", "--protocol", "paired"], "--protocol goes with --data"),
        (["--data", "scenes", "--border-px", "2"], "--border-px goes with --ref, found --data"),
        (["--data", "scenes", "--quantise", "none"], "--protocol paired:border_px=4,quantise=none"),
        (["--data", "scenes", "--ref-scale", "2"], "--ref-scale goes with --ref"),
        (["--data", "scene"], "did you mean scenes"),
        (["--data", "scenes", "--split", "train"], "it has test: choose with --split"),
        (["--data", "scenes", "--protocol", "pared"], "did you mean paired"),
        (["--ref", "ref", "--unit", "reflectance"], "--unit reflectance goes with --data"),
        (["--ref", "ref", "--scale", "0"], "--scale: found 0, expected a number above 0"),
        (["--ref", "ref", "--scale", "nan"], "--scale: found nan, expected a number above 0"),
        (["--ref", "ref", "--ref-scale", "inf"], "--ref-scale: found inf"),
        (["--ref", "ref", "--border-px", "-1"], "--border-px: found -1, expected 0 or more"),
        (["--ref", "ref", "--workers", "-1"], "--workers: found -1, expected 0 or more"),
        (["--ref", "ref", "--metrics", "psnr"], "did you mean psnr_y or psnr_rgb"),
        (["--ref", "ref", "--metrics", ","], "--metrics: found no name"),
        (["--ref", "ref", "--bands", "R R"], "expected different names"),
        (["--ref", "ref", "--bands", "B G R"], "found PNG and JPEG files alone, whose channels are R G B"),
        (["--ref", "ref", "--strict", "--metrics", "lpips_alex"], "--strict: 1 of 1 metrics cannot be computed"),
        (["--ref", "ref", "--device", "tpu"], "expected auto, cpu, cuda"),
        (["--ref", "ref", "--save", "ref"], "is a folder, expected a file"),
        (["--ref", "ref", "--save", "pred/a.png"], "is an image, expected a file"),
        (["--ref", "ref", "--save", "pred/b.png/s.json"], "cannot be written in"),
    ],
)
def test_wrong_input_is_one_line(
    words: list[str], message: str, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RFBENCH_WEIGHTS", str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(command, ["--pred", "pred", "--device", "cpu", *words], standalone_mode=False)
    assert isinstance(done.exception, RfbenchError) and done.exception.exit_code == 2, done.exception
    assert message in str(done.exception) and "\n" not in str(done.exception) and done.stdout == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "pred", "ref"]


def test_the_document_has_the_documented_keys(folders: tuple[Path, Path]) -> None:
    document = json.loads(to_json(scored(*folders, metrics=None)))
    assert document["format"] == 1
    text = (Path(__file__).resolve().parents[2] / "docs" / "score-json.md").read_text(encoding="utf-8")
    for key in [*document, *document["images"][0], *document["images"][0]["files"]["pred"]]:
        assert f"`{key}`" in text, key
    for image in document["images"]:
        assert not set(image["scores"]) & set(image["reasons"])
        assert set(image["scores"]) | set(image["reasons"]) == set(document["summary"]) == set(document["identities"])
        assert image["reasons"]["fid_tf"] == "one number for all images; it is in the summary"
    assert document["summary"]["fid_tf"]["value"] > 0 and document["summary"]["fid_tf"]["n"] == 3


def test_formats_and_the_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, ref = folders
    words = ("--pred", pred, "--ref", ref, "--metrics", "psnr_rgb,fid_tf,nll")
    code, markdown, _ = run_command(*words)
    assert code == 0 and "| PSNR (dB) ↑  |" in markdown and "- NLL: no predictive distribution" in markdown
    assert "3 of 3 images scored against a folder of references" in markdown and "fid_tf|inception" in markdown
    _, table, _ = run_command(*words, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(r["level"], r["metric"]) for r in rows if r["id"] in ("", "a")] == [
        (level, metric) for level in ("image", "set") for metric in ("psnr_rgb", "fid_tf", "nll")
    ]
    out = tmp_path / "new" / "scores.json"
    code, stdout, err = run_command(*words, "--format", "json", "--save", out)
    assert code == 0 and stdout == "" and f"scores: {out}" in err
    document = json.loads(out.read_text(encoding="utf-8"))
    mean = np.mean([float(r["value"]) for r in rows if r["metric"] == "psnr_rgb" and r["level"] == "image"])
    assert document["summary"]["psnr_rgb"]["value"] == pytest.approx(mean, abs=1e-12)
    assert not list(out.parent.glob(".*"))


def test_a_full_disk_loses_nothing(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = files.write_bytes

    def full(path: Path, data: bytes, **more: object) -> None:
        if path.name == "s.json":
            raise RfbenchError(f"cannot write {path}: No space left on device; free space")
        write(path, data, **more)

    monkeypatch.setattr(files, "write_bytes", full)
    code, out, err = run_command(
        "--pred",
        folders[0],
        "--ref",
        folders[1],
        "--metrics",
        "psnr_rgb",
        "--format",
        "json",
        "--save",
        tmp_path / "s.json",
    )
    assert code == 2 and "No space left on device; the result went to stdout instead" in err
    assert json.loads(out)["summary"]["psnr_rgb"]["n"] == 3 and not (tmp_path / "s.json").exists()


def test_an_interruption_writes_nothing(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.score.execute.score", interrupted)
    code, out, err = run_command("--pred", folders[0], "--ref", folders[1], "--save", tmp_path / "s.json")
    assert code == 130 and out == "" and "nothing was kept" in err and not (tmp_path / "s.json").exists()


@pytest.fixture
def reversed_scandir(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file system that lists its files the other way round."""
    scandir = os.scandir

    class Backwards(list[os.DirEntry[str]]):
        def __enter__(self) -> Backwards:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", lambda path: Backwards(reversed(list(scandir(path)))))
    yield


def test_the_order_of_the_files_changes_nothing(folders: tuple[Path, Path], request: pytest.FixtureRequest) -> None:
    before = to_json(scored(*folders, metrics=(*FAST, "kid_tf")))
    request.getfixturevalue("reversed_scandir")
    assert to_json(scored(*folders, metrics=(*FAST, "kid_tf"))) == before


def test_the_fingerprint_changes_with_any_byte(folders: tuple[Path, Path]) -> None:
    before = scored(*folders)["inputs"]
    with (folders[0] / "b.png").open("ab") as file:
        file.write(b"\0")
    after = scored(*folders)["inputs"]
    assert after["pred"] != before["pred"] and after["ref"] == before["ref"]


def test_a_dataset_s_image_that_cannot_be_read(data: Path, tmp_path: Path) -> None:
    pred = pictures(tmp_path / "pred", "im0 im2", size=(60, 80))
    (data / "hr" / "im2.npy").write_bytes(b"")
    code, out, _ = run_command("--pred", pred, "--data", data, "--metrics", "psnr_rgb", "--format", "json")
    document = json.loads(out)
    assert code == 1 and "hr/im2.npy cannot be read" in errors(document)["im2"]
    Image.fromarray(GOOD).save(pred / "im0.png")
    document = scored_images(pred=pred, data=str(data), metrics=("psnr_rgb",), device="cpu", workers=0)
    assert (
        "found 40x48 px, expected 60x80 px, the size of 'im0' under paired; make the image on that grid"
        in errors(document)["im0"]
    )


def test_two_spellings_of_one_id(data: Path, tmp_path: Path) -> None:
    text = (data / "pairs.csv").read_text()
    (data / "pairs.csv").write_text(text.replace("im1/ü", "im 1"))
    pred = pictures(tmp_path / "pred", "im0", size=(60, 80))
    for stem in ("im 1", safe_name("im 1")):
        shutil.copy(pred / "im0.png", pred / f"{stem}.png")
    document = scored_images(pred=pred, data=str(data), metrics=("psnr_rgb",), device="cpu", workers=0)
    assert "for one name; keep one of them" in errors(document)["im 1"]
