"""What the README says of the embedded model holds on the scenes of the golden runs, which CI's gate makes again."""

from __future__ import annotations

import pandas as pd
import pytest
import rfbench

from tests.conftest import ROOT

METRICS = ["psnr_rgb", "ssim_rgb", "fsim", "de00", "logspec_l1"]


@pytest.fixture(scope="module")
def means() -> pd.DataFrame:
    """The mean of each metric by model and estimate (``sample``, ``mean``), over the scenes that all models have."""
    frame = rfbench.read_runs(str(ROOT / "results" / "golden")).to_frame()
    shared = frame.groupby("id")["model"].nunique() == 3
    assert shared.sum() >= 3
    return frame[frame["id"].map(shared)].groupby(["model", "estimate"])[METRICS].mean()


def test_a_sample_beats_bicubic_and_has_the_textures_and_features_of_the_hr(means: pd.DataFrame) -> None:
    sample, bicubic, affine = (means.loc[m, "sample"] for m in ("rareflow-tiny", "bicubic", "bicubic-affine"))
    assert sample["psnr_rgb"] >= bicubic["psnr_rgb"] + 1
    assert sample["de00"] < 0.75 * bicubic["de00"]
    assert sample["logspec_l1"] <= min(bicubic["logspec_l1"], affine["logspec_l1"]) / 3
    assert sample["fsim"] > max(bicubic["fsim"], affine["fsim"]) + 0.02


def test_the_mean_of_the_draws_is_nearer_to_the_hr_than_any_interpolation(means: pd.DataFrame) -> None:
    mean, bicubic, affine = (
        means.loc[row] for row in (("rareflow-tiny", "mean"), ("bicubic", "sample"), ("bicubic-affine", "sample"))
    )
    for metric in ("psnr_rgb", "ssim_rgb"):
        assert mean[metric] > max(bicubic[metric], affine[metric]), metric
