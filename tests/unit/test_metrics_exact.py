"""``--exact-libraries``: the libraries that define metrics, beside our own kernels and never mixed with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli import cli
from bench.metrics.base import Setting
from bench.metrics.scorer import distributions, metric_class
from bench.records.folder import RunFolder

pytest.importorskip("torch")
NAMES = ("psnr_rgb", "ssim_rgb", "de00", "sam_rgb")


def said(*words: str) -> str:
    done = CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
    assert done.return_value in (0, None), done.output
    return done.output


def numbers(folder: Path) -> dict[str, tuple[str, Any]]:
    """Identity and value of each metric of a run."""
    summary = RunFolder(folder).summary()
    assert summary is not None
    return {n: (summary.metrics[n].identity, summary.rows["sample"].metrics[n].value) for n in NAMES}


def test_a_run_is_scored_by_the_libraries_where_they_are_asked_for(tmp_path: Path) -> None:
    out, names = tmp_path / "runs", ",".join(NAMES)
    said("run", "--model", "bicubic", "--limit", "2", "--metrics", names, "--out", str(out), "--workers", "0")
    ours = numbers(out / "bicubic")
    scoring = ("score", str(out / "bicubic"), "--metrics", names, "--workers", "0")
    said(*scoring, "--exact-libraries")
    theirs = numbers(out / "bicubic")
    for name in NAMES:
        library = metric_class(name).library
        if library is None:
            assert theirs[name] == ours[name]  # it has no other definition than ours
            continue
        assert f"by:{library.package}" in theirs[name][0] and theirs[name][0] != ours[name][0]
        assert theirs[name][1] == pytest.approx(ours[name][1], abs=library.tolerance, rel=0)
    again = said(*scoring)
    assert numbers(out / "bicubic") == ours and "4 of 4 metrics were there; nothing is left to compute" in again


def test_the_software_of_a_number_is_what_computed_it() -> None:
    assert distributions(["de00"]) == ("torch",)
    assert distributions(["de00"], Setting(exact=True)) == ("colour-science",)
