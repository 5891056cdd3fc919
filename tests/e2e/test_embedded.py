"""What the README says of the embedded model holds, on a quarter of the embedded scenes."""

from __future__ import annotations

import shutil

import pytest

from bench.data.dataset import FolderDataset
from bench.data.embedded import SCENES
from bench.reports.table.build import build_table
from tests.runs import run as run_models

METRICS = ("psnr_rgb", "ssim_rgb", "fsim", "de00", "logspec_l1", "nll", "ece")
COUNT = 4


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """The mean of each metric by row of the table (``rareflow-tiny``, ``rareflow-tiny@mean``, ``bicubic``, ...)."""
    whole = SCENES()
    assert isinstance(whole, FolderDataset)
    folder = shutil.copytree(whole.folder, tmp_path_factory.mktemp("embedded") / "some")
    lines = (folder / "pairs.csv").read_text(encoding="utf-8").splitlines()
    (folder / "pairs.csv").write_text("\n".join(lines[: COUNT + 1]) + "\n", encoding="utf-8")
    request = dict(
        models=("rareflow", "bicubic", "bicubic-affine"), data=str(folder), out=folder.parent / "runs",
        metrics=METRICS, workers=0,
    )  # fmt: skip
    table = build_table(run_models(**request).folders, METRICS)
    names = [column.metric for column in table.columns]
    return {row.label: dict(zip(names, [c.value for c in row.cells], strict=True)) for row in table.rows}


def test_a_sample_beats_bicubic_and_has_the_textures_of_the_hr(means: dict[str, dict[str, float]]) -> None:
    sample, bicubic, affine = (means[n] for n in ("rareflow-tiny", "bicubic", "bicubic-affine"))
    assert sample["psnr_rgb"] >= bicubic["psnr_rgb"] + 2
    assert sample["de00"] < 0.75 * bicubic["de00"]
    assert sample["logspec_l1"] <= min(bicubic["logspec_l1"], affine["logspec_l1"]) / 3


def test_a_sample_has_the_features_of_the_hr(means: dict[str, dict[str, float]]) -> None:
    pytest.importorskip("pyiqa")
    sample, bicubic, affine = (means[n] for n in ("rareflow-tiny", "bicubic", "bicubic-affine"))
    assert sample["fsim"] > max(bicubic["fsim"], affine["fsim"]) + 0.02


def test_the_mean_of_the_draws_is_nearer_to_the_hr_than_any_interpolation(means: dict[str, dict[str, float]]) -> None:
    mean, bicubic, affine = (means[n] for n in ("rareflow-tiny@mean", "bicubic", "bicubic-affine"))
    for metric in ("psnr_rgb", "ssim_rgb"):
        assert mean[metric] > max(bicubic[metric], affine[metric]), metric
