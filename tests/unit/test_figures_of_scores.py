"""Figures of scores show the numbers of the run folders, and refuse what a table refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bench.cli.plot import command
from bench.core.errors import NotComparable, RfbenchError
from bench.records.folder import RunFolder
from bench.reports import figures
from tests.runs import run as run_models
from tests.scored_runs import scored_run

METRICS = ("psnr_rgb", "ssim_rgb", "niqe", "logspec_l1", "qnr")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    outcome = run_models(
        models=("nearest", "bicubic", "bicubic-affine"), metrics=METRICS, device="cpu", workers=0, limit=7,
        out=tmp_path_factory.mktemp("runs"),
    )  # fmt: skip
    return list(outcome.folders)


def draw(*words: object) -> Result:
    return CliRunner().invoke(command, [str(w) for w in words])


def test_series_are_the_scores_of_the_folders(runs: list[RunFolder]) -> None:
    found = figures.series(runs, "ssim_rgb")
    assert {s.label for s in found.series} == {"nearest", "bicubic", "bicubic-affine"}
    for one, run in zip(found.series, runs, strict=True):
        scores = run.scores().set_index("id")["ssim_rgb"]
        assert one.values == scores.to_dict() and one.number == pytest.approx(scores.mean(), rel=1e-12)
        assert one.inference is not None and one.inference.low < one.number < one.inference.high


def test_the_plane_has_two_metrics_of_each_row_and_its_best_corner_at_the_lower_left(runs: list[RunFolder]) -> None:
    found = figures.plane(runs)
    assert (found.distortion.metric, found.perception.metric) == ("psnr_rgb", "niqe")  # what needs no weights
    assert [x.number for x, _ in found.points] == pytest.approx([run.scores()["psnr_rgb"].mean() for run in runs])
    axes = figures.draw_plane(found).axes[0]
    assert axes.xaxis.get_inverted() and not axes.yaxis.get_inverted()
    shown = {
        line.get_label(): tuple(float(v[0]) for v in line.get_data())
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    assert shown == {x.label: (x.number, y.number) for x, y in found.points}


def test_no_perception_axis_ranks_nearest_best(runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated pixels have edges everywhere, and so nearly the spectrum of detail."""
    spectra = figures.series(runs, "logspec_l1").series
    assert min(spectra, key=lambda one: one.number).label == "nearest"
    monkeypatch.setattr("bench.reports.figures.scores.PERCEPTION", ("logspec_l1", "niqe"))
    assert figures.plane(runs).perception.metric == "niqe"
    monkeypatch.setattr("bench.reports.figures.scores.PERCEPTION", ("logspec_l1",))
    with pytest.raises(RfbenchError, match="that does not rank nearest neighbour best; give --perception METRIC"):
        figures.plane(runs)
    assert figures.plane(runs, perception="logspec_l1").perception.metric == "logspec_l1"  # the reader's own choice


def test_differences_are_one_row_minus_the_other_scene_by_scene(runs: list[RunFolder]) -> None:
    column, a, b, found = figures.scenes(runs, "psnr_rgb", ("bicubic-affine", "nearest"))
    ours, theirs = (runs[i].scores().set_index("id")["psnr_rgb"] for i in (2, 0))
    assert dict(zip(found.ids, found.differences, strict=True)) == (ours - theirs).to_dict()
    figure = figures.draw_scenes(column, a, b, found)
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    by_scene = dict(zip(found.scenes, found.differences, strict=True))  # one image a scene here
    assert names == sorted(by_scene, key=by_scene.__getitem__)
    better = int(np.sum(np.array(found.differences) > 0))
    assert f"better in {better} of 7 scenes" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("verb", [("plane",), ("distributions",), ("scenes", "--rows", "bicubic,nearest")])
@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_each_is_written_and_again_the_same(
    runs: list[RunFolder], tmp_path: Path, verb: tuple[str, ...], ending: str
) -> None:
    files = [tmp_path / f"{i}.{ending}" for i in (1, 2)]
    for file in files:
        assert draw(verb[0], runs[0].path.parent, *verb[1:], "--out", file).exit_code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(b"%PDF" if ending == "pdf" else b"\x89PNG")


def test_rows_without_a_number_are_left_out_with_the_reason(runs: list[RunFolder]) -> None:
    with pytest.raises(RfbenchError, match="no row has a number of qnr"):
        figures.series(runs, "qnr")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("scenes",), "3 models, a difference needs two; choose them with --rows"),
        (("scenes", "--rows", "bicubic"), "found 1 names, expected two rows"),
        (("scenes", "--rows", "bicubic,nearst"), "did you mean nearest"),
        (("distributions", "--metric", "psnr"), "did you mean psnr"),
        (("plane", "--perception", "qnr"), "no row has a number of qnr"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    runs: list[RunFolder], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = draw(words[0], runs[0].path.parent, *words[1:], "--out", tmp_path / "x.png")
    assert isinstance(done.exception, RfbenchError) and message in str(done.exception)
    assert not (tmp_path / "x.png").exists()


def test_runs_of_other_data_are_not_put_together(runs: list[RunFolder], tmp_path: Path) -> None:
    (fewer,) = run_models(
        models=("bicubic",), metrics=METRICS, device="cpu", workers=0, limit=2, out=tmp_path / "other"
    ).folders
    with pytest.raises(NotComparable):
        figures.series([*runs, fewer], "psnr_rgb")


def test_one_image_and_a_name_that_legends_would_leave_out(tmp_path: Path) -> None:
    one = [
        scored_run(tmp_path, n, {"psnr_rgb": {"i": 25.0 + k}, "de00": {"i": 5.0}}, label=f"_{n}")
        for k, n in enumerate("ab")
    ]
    axes = figures.draw_plane(figures.plane(one, "psnr_rgb", "de00")).axes[0]
    assert [t.get_text().strip() for t in axes.get_legend().get_texts()] == ["_a", "_b"]
    low, high = figures.draw_distributions(figures.series(one, "psnr_rgb")).axes[0].get_xlim()
    assert low < 25.0 and high > 26.0
