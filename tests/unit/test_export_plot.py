"""Pictures and figures of finished runs: they are exactly what the metrics saw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from PIL import Image

from bench.cli.export import command as export_command
from bench.cli.plot import command as plot_command
from bench.core.errors import NotComparable, RfbenchError
from bench.core.files import safe_name, sha256, write_json
from bench.core.image import quantised
from bench.protocols.find import recorded_protocol
from bench.records.folder import RunFolder
from bench.reports import figures
from bench.reports.pictures import eight_bit, export
from bench.score.replay import replay
from tests.runs import run as run_models

IDS = ("a $x$/1", "b", "c")  # sorted; the first is no file name and would be a formula
SHAPES = ((40, 40), (40, 40), (40, 60))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs in reflectance, LR 5 times smaller; the HR of the third is wider than high."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    folder.mkdir()
    rng = np.random.default_rng(5)
    lines = ["id,lr,hr"]
    for i, ((h, w), name) in enumerate(zip(SHAPES, IDS, strict=True)):
        hr = rng.uniform(0.0, 0.35, (h // 4, w // 4, 3)).repeat(4, 0).repeat(4, 1).astype(np.float32)
        np.save(folder / f"hr{i}.npy", hr)
        np.save(folder / f"lr{i}.npy", hr.reshape(h // 5, 5, w // 5, 5, 3).mean((1, 3)))
        lines.append(f"{name},lr{i}.npy,hr{i}.npy")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    side = {"unit": "reflectance", "scale": 1, "bands": "R G B"}
    write_json(folder / "dataset.json", {"format": 1, "name": "tiny", "lr": side, "hr": side})
    return folder


def make_runs(data: Path, out: Path, *models: str, protocol: str = "paired") -> list[RunFolder]:
    outcome = run_models(
        models=models,
        protocol=protocol,
        data=str(data),
        metrics=("psnr_rgb", "ssim_rgb"),
        device="cpu",
        workers=0,
        out=out,
    )
    assert not outcome.failed
    return list(outcome.folders)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    return make_runs(data, tmp_path_factory.mktemp("runs"), "nearest", "bicubic")


@pytest.fixture
def drawn(runs: list[RunFolder], tmp_path: Path) -> RunFolder:
    """A run of a model with three draws in display range, as the runner would have left it."""
    folder = RunFolder(tmp_path / "drawn")
    shutil.copytree(runs[0].path, folder.path)
    summary = folder.summary()
    assert summary is not None
    mean = replace(summary.rows["sample"], label="drawn@mean")
    folder.finish(replace(summary, rows=summary.rows | {"mean": mean}))
    rng = np.random.default_rng(1)
    items = folder.images()
    for name, shape in zip(IDS, SHAPES, strict=True):
        arrays = {"samples": rng.uniform(0, 1, (3, *shape, 3)).astype(np.float32)}
        arrays["native_samples"] = arrays["samples"][:, :8, :8]
        header = {"unit": "display", "bands": ["R", "G", "B"], "normalised": True}
        digest = folder.predictions.write(name, arrays, header)
        folder.predictions.commit(replace(items[name], prediction_sha256=digest))
    folder.predictions.finish(IDS)
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


# --- replay ---------------------------------------------------------------------------------------------------


def test_replay_gives_what_was_scored(runs: list[RunFolder]) -> None:
    frame = runs[1].scores().set_index("id")
    for task, found in replay(runs[1]):
        reference = task.reference.display
        assert reference is not None and list(found) == ["sample"]
        mse = np.mean((found["sample"].display.astype(np.float64) - reference) ** 2)
        assert -10 * np.log10(mse) == pytest.approx(frame.loc[task.id, "psnr_rgb"], abs=1e-9)


def test_replay_of_some_images(runs: list[RunFolder]) -> None:
    assert [task.id for task, _ in replay(runs[0], ids=["c", IDS[0]])] == [IDS[0], "c"]
    with pytest.raises(RfbenchError, match="'d' is not among this run's images"):
        list(replay(runs[0], ids=["d"]))


def test_replay_of_draws(drawn: RunFolder) -> None:
    _, found = next(replay(drawn, ids=["b"]))
    draws = drawn.predictions.read("b")[0]["samples"]
    assert np.array_equal(found["sample"].display, quantised(draws[0], 8))
    assert np.array_equal(found["mean"].display, quantised(draws.mean(0, dtype=np.float64).astype(np.float32), 8))


def test_replay_refuses_other_data(runs: list[RunFolder], data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    assert len(list(replay(runs[0], str(other)))) == 3  # the same bytes elsewhere are the same data
    array = np.load(other / "hr1.npy")
    array[0, 0, 0] += 0.01
    np.save(other / "hr1.npy", array)
    with pytest.raises(RfbenchError, match=r"not the dataset of the run: found fingerprint .* give the unchanged one"):
        list(replay(runs[0], str(other)))


def test_replay_says_when_the_data_has_gone(runs: list[RunFolder], tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(runs[0].path, copy.path)
    host = json.loads((copy.path / "host.json").read_text())
    host["sessions"][-1]["data"] = str(tmp_path / "gone")
    write_json(copy.path / "host.json", host)
    with pytest.raises(RfbenchError, match=r"tiny was not found again .* give it with --data"):
        list(replay(copy))
    (copy.path / "host.json").unlink()
    with pytest.raises(RfbenchError, match="give it with --data"):
        list(replay(copy))


def test_replay_refuses_a_changed_prediction(drawn: RunFolder) -> None:
    path = drawn.path / "predictions" / "b.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(RfbenchError, match="is not the prediction that was scored"):
        list(replay(drawn))
    path.unlink()
    with pytest.raises(RfbenchError, match="is missing"):
        list(replay(drawn, ids=["b"]))


def test_replay_leaves_failed_images_out(drawn: RunFolder) -> None:
    drawn.predictions.commit(replace(drawn.images()["b"], error="nearest: no memory"))
    drawn.predictions.finish(IDS)
    assert [task.id for task, _ in replay(drawn)] == [IDS[0], "c"]
    with pytest.raises(RfbenchError, match="'b' failed in this run"):
        list(replay(drawn, ids=["b"]))


def test_replay_needs_predictions(runs: list[RunFolder], tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    shutil.copy(runs[0].path / "run.json", tmp_path / "half")
    with pytest.raises(RfbenchError, match=r"found no images\.parquet"):
        list(replay(RunFolder(tmp_path / "half")))


def test_protocols_come_back_from_their_identity(runs: list[RunFolder]) -> None:
    identity = runs[0].record().plan.protocol
    changed = identity | {"normalisation": "percentile[2,98]", "quantise": None, "border_px": 3, "scale": 2.5}
    assert recorded_protocol(changed).identity() == changed
    with pytest.raises(RfbenchError, match=r"not the one of the run .*kernel"):
        recorded_protocol(identity | {"name": "bicubic-4x", "kernel": "another"})


# --- export ---------------------------------------------------------------------------------------------------


def test_pictures_are_what_metrics_saw(runs: list[RunFolder], tmp_path: Path) -> None:
    exported = list(export(runs, tmp_path, references=True))
    assert [(folder.name, count) for _, folder, count in exported] == [("nearest", 3), ("bicubic", 3)]
    for task, found in replay(runs[1]):
        name = f"{safe_name(task.id)}.png"
        shown = pixels(tmp_path / "bicubic" / name).astype(np.float32) / np.float32(255)
        assert np.array_equal(shown, found["sample"].display)
        assert task.reference.display is not None
        assert np.array_equal(pixels(tmp_path / "hr" / name), eight_bit(task.reference.display))
        assert pixels(tmp_path / "lr" / name).shape[:2] == task.lr.size


def test_scores_of_exported_pictures_are_the_scores_of_the_run(
    runs: list[RunFolder], data: Path, tmp_path: Path
) -> None:
    list(export(runs[1:], tmp_path))
    (again,) = make_runs(data, tmp_path / "again", f"files:folder={tmp_path / 'bicubic'}")
    assert list(again.scores()["psnr_rgb"]) == list(runs[1].scores()["psnr_rgb"])


def test_the_mean_of_the_draws(drawn: RunFolder, runs: list[RunFolder], tmp_path: Path) -> None:
    list(export([drawn], tmp_path / "out", estimate="mean"))
    draws = drawn.predictions.read("c")[0]["samples"]
    expected = eight_bit(draws.mean(0, dtype=np.float64).astype(np.float32))
    assert np.array_equal(pixels(tmp_path / "out" / "drawn" / "c.png"), expected)
    with pytest.raises(RfbenchError, match="found no mean of several draws"):
        list(export(runs, tmp_path / "none", estimate="mean"))


def test_a_border_is_cut(data: Path, tmp_path: Path) -> None:
    found = make_runs(data, tmp_path / "runs", "bicubic", protocol="paired:border_px=3,quantise=none")
    words = [str(found[0].path), "--out", str(tmp_path / "out"), "--references"]
    done = CliRunner().invoke(export_command, words)
    assert done.exit_code == 0, done.output
    assert "border of 3 px" in done.stderr and "quantise=none" in done.stderr
    assert pixels(tmp_path / "out" / "bicubic" / "b.png").shape == (34, 34, 3)
    assert pixels(tmp_path / "out" / "hr" / "b.png").shape == (34, 34, 3)
    content = figures.panel(found)
    assert {tile.pixels.shape[:2] for tile in content.rows[1] if tile.pixels is not None} == {(34, 34)}


def test_two_runs_with_one_name(runs: list[RunFolder], tmp_path: Path) -> None:
    shutil.copytree(runs[0].path, tmp_path / "nearest")
    with pytest.raises(RfbenchError, match="as those of another run"):
        list(export([runs[0], RunFolder(tmp_path / "nearest")], tmp_path / "out"))
    shutil.copytree(runs[0].path, tmp_path / "hr")
    with pytest.raises(RfbenchError, match="as those of the references"):
        list(export([RunFolder(tmp_path / "hr")], tmp_path / "out", references=True))


# --- panels ---------------------------------------------------------------------------------------------------


def test_panel_content(runs: list[RunFolder]) -> None:
    content = figures.panel(runs)
    assert content.heads == ("LR", "nearest", "bicubic", "HR")
    assert [row[0].caption for row in content.rows] == list(IDS)
    psnr = runs[1].scores().set_index("id").loc["b", "psnr_rgb"]
    assert content.rows[1][2].caption == f"{psnr:.2f} dB"
    # The LR, enlarged as squares, is what the model `nearest` makes of it.
    lr, nearest = content.rows[0][0].pixels, content.rows[0][1].pixels
    assert lr is not None and nearest is not None and np.array_equal(lr, nearest)


def test_panel_of_chosen_images_and_a_crop(runs: list[RunFolder]) -> None:
    content = figures.panel(runs[:1], ["c", "b", "c"], crop_px=10)
    assert [row[0].caption for row in content.rows] == ["c", "b"]
    whole = figures.panel(runs[:1], ["c"]).rows[0][2].pixels
    part = content.rows[0][2].pixels
    assert whole is not None and part is not None
    assert np.array_equal(part, whole[15:25, 25:35])
    assert figures.panel(runs[:1], ["b"], crop_px=1000).rows[0][1].pixels is not None


def test_a_panel_writes_the_metric_that_is_asked_for(runs: list[RunFolder]) -> None:
    content = figures.panel(runs, ["b"], metric="ssim_rgb")
    ssim = runs[1].scores().set_index("id").loc["b", "ssim_rgb"]
    assert content.rows[0][2].caption == f"SSIM {ssim:.3f}"
    assert "SSIM of the whole image, more is better" in content.explained
    with pytest.raises(RfbenchError, match="lpips_alex"):
        figures.panel(runs, ["b"], metric="lpips_alex")


def test_an_inset_is_framed_and_enlarged_in_every_picture(runs: list[RunFolder]) -> None:
    content = figures.panel(runs, ["b"], inset=(4, 6, 10))
    figure = figures.draw_panel(content)
    count = len(content.heads)
    assert len(figure.axes) == 2 * count and "enlarged" in content.explained
    pictures, corners = figure.axes[::2], figure.axes[1::2]
    for tile, picture, corner in zip(content.rows[0], pictures, corners, strict=True):
        assert tile.pixels is not None and len(picture.patches) == 2
        assert np.array_equal(corner.images[0].get_array(), tile.pixels[6:16, 4:14])
    for wrong in ((35, 0, 10), (-1, 0, 10), (0, 0, 0)):
        with pytest.raises(RfbenchError, match=r"--inset: found .* within the 40x40 px of b"):
            figures.panel(runs, ["b"], inset=wrong)
    with pytest.raises(RfbenchError, match="expected three numbers"):
        words = ["panel", str(runs[0].path), "--out", "x.png", "--inset", "1,2"]
        CliRunner().invoke(plot_command, words, catch_exceptions=False)


def test_a_map_has_a_bar_of_its_colours(tmp_path: Path) -> None:
    picture = figures.Tile(np.zeros((8, 8, 3), np.uint8), "a")
    content = figures.Panel(("LR", "deviation of draws"), ((picture, picture),), {1: 0.125})
    figure = figures.draw_panel(content)
    bar = figure.axes[-1]
    assert [text.get_text() for text in bar.get_xticklabels()] == ["0", "0.12 or more"]
    assert bar.get_position().x0 == pytest.approx(figure.axes[1].get_position().x0)


def test_names_are_whole(tmp_path: Path) -> None:
    name = "T32TQM_20240817T101559_tile_0012_of_0144_north_of_the_river"
    tile = figures.Tile(np.zeros((8, 8, 3), np.uint8), name)
    figure = figures.draw_panel(figures.Panel((*"abcdef",), ((tile,) * 6,)))
    written = "".join(text.get_text() for text in figure.texts)
    assert written.count(name) == 6


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_panel_files(runs: list[RunFolder], tmp_path: Path, ending: str) -> None:
    words = ["panel", *(str(r.path) for r in runs), "--ids", "b,c", "--crop", "20"]
    files = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
    for file in files:
        done = CliRunner().invoke(plot_command, [*words, "--out", str(file)])
        assert done.exit_code == 0, done.output
    assert sha256(files[0]) == sha256(files[1])
    if ending == "png":
        with Image.open(files[0]) as picture:
            assert 1000 <= picture.width <= 2000  # a README's column is 1000 px wide


def test_panel_draws_hostile_names_and_missing_references(tmp_path: Path) -> None:
    square = np.zeros((4, 4, 3), np.uint8)
    tile = figures.Tile(square, "$\\frac{ \u202e" + "long " * 40)
    content = figures.Panel(("LR", "$x_", "HR"), ((tile, tile, figures.Tile(None, "")),))
    figures.save(figures.draw_panel(content), tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 1000


def test_panel_refusals(runs: list[RunFolder], data: Path, tmp_path: Path) -> None:
    other = make_runs(data, tmp_path / "runs", "bicubic", protocol="bicubic-4x")
    with pytest.raises(NotComparable, match="protocol"):
        figures.panel([*runs, *other])
    with pytest.raises(NotComparable, match="protocol"):
        list(export([*runs[:1], *other], tmp_path / "out", references=True))
    with pytest.raises(RfbenchError, match="expected 1 or more"):
        figures.panel(runs, crop_px=0)
    with pytest.raises(RfbenchError, match=r"expected .*\.png or \.pdf"):
        figures.save(figures.draw_panel(figures.Panel(("LR",), ())), tmp_path / "x.gif")
    with pytest.raises(RfbenchError, match=r"ends in \.png or \.pdf"):
        CliRunner().invoke(plot_command, ["panel", str(runs[0].path), "--out", "x.gif"], catch_exceptions=False)


def test_an_lr_that_the_protocol_does_not_read_may_be_broken(data: Path, tmp_path: Path) -> None:
    """``bicubic-4x`` makes its LR from the HR."""
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    (copy / "lr0.npy").write_bytes(b"broken")
    found = make_runs(copy, tmp_path / "runs", "bicubic", protocol="bicubic-4x")
    assert [count for _, _, count in export(found, tmp_path / "out", references=True)] == [3]
    assert figures.panel(found).heads == ("LR", "bicubic", "HR")
