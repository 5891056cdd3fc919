"""``rfbench upscale`` as a user meets it: a georeferenced image in, a finer one out, errors of one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.commands import rfbench
from tests.conftest import ROOT, install_plugin
from tests.unit.test_upscale import numbers, write


def test_an_image_becomes_a_finer_one_with_uncertainty(tmp_path: Path) -> None:
    site = install_plugin(tmp_path / "site")
    source = write(tmp_path / "s2.tif", numbers(0, 50, 70), nodata=0)
    words = ["upscale", str(source), "fine.tif", "--model", "noisy:amount=0.1", "--uncertainty", "--tile", "32"]
    done = rfbench(*words, "--caption", "a slump", site=site, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tiles 12 of 12" in done.stderr and done.stderr.endswith("wrote fine.tif\n") and not done.stdout
    with rasterio.open(source) as lr, rasterio.open(tmp_path / "fine.tif") as hr:
        assert hr.bounds == lr.bounds and hr.crs == lr.crs and hr.res == (2, 2) and hr.shape == (250, 350)
        assert hr.descriptions == ("R", "G", "B", "uncertainty") and hr.tags()["RFBENCH_CAPTION"] == "a slump"
        assert 0.02 < np.mean(hr.read(4)) / 255 < 0.1
    first = (tmp_path / "fine.tif").read_bytes()
    assert rfbench(*words, "--caption", "a slump", site=site, cwd=tmp_path).returncode == 0
    assert (tmp_path / "fine.tif").read_bytes() == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.tif", "out.tif", "--model", "bicubic"], "nowhere.tif is missing"),
        (["s2.tif", "out.tif", "--model", "bicubc"], "did you mean bicubic"),
        (["s2.tif", "out.tif", "--model", "bicubic", "--scale", "900"], "expected a number from 1 to 16"),
        (["s2.tif", "out.tif", "--model", "bicubic", "--uncertainty"], "gives no draws"),
        (["s2.tif", "s2.tif", "--model", "bicubic"], "is the input itself"),
        (["s2.tif"], "Missing argument 'OUT.tif'"),
    ],
)
def test_errors_are_one_line_and_exit_with_2(tmp_path: Path, words: list[str], message: str) -> None:
    write(tmp_path / "s2.tif", numbers(0, 9, 9))
    done = rfbench("upscale", *words, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert message in line and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["s2.tif"]


def test_help_needs_no_torch() -> None:
    call = "from bench.cli.upscale import command; command(['--help'], standalone_mode=False)"
    code = f"import sys; {call}; print({{'torch', 'rasterio', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("set()")
