"""``rfbench score`` as a user meets it: the same bytes from any number of processes, one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from bench.reports.scores import to_json
from tests.commands import rfbench
from tests.conftest import picture
from tests.runs import scored


def test_the_command_and_processes_change_no_byte(tmp_path: Path) -> None:
    """A folder pair through the command with two scoring processes, and here with none."""
    for folder, seed in (("pred", 0), ("ref", 10)):
        (tmp_path / folder).mkdir()
        for i in range(5):
            values = np.rint(picture(seed + i, 40, 48) * 255).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "pred" / "2.png").write_bytes(b"broken")
    metrics = ("psnr_rgb", "ssim_rgb", "logspec_l1")
    words = ("--pred", "pred", "--ref", "ref", "--metrics", ",".join(metrics), "--device", "cpu", "--workers", "2")
    done = rfbench("score", *words, "--format", "json", "--save", "s.json", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and "1 of 5 images failed" in done.stderr
    options = dict(pred=tmp_path / "pred", ref=tmp_path / "ref", metrics=metrics, device="cpu", workers=0)
    here = to_json(scored(**options)).replace(f"{tmp_path}/", "")
    assert (tmp_path / "s.json").read_text(encoding="utf-8") == here + "\n"
    assert json.loads(here)["summary"]["psnr_rgb"]["n"] == 4


def test_nothing_matched_is_one_line_with_exit_code_2(tmp_path: Path) -> None:
    for folder, name in (("pred", "tile_1_x4"), ("ref", "tile_1")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.png").write_bytes(b"")
    done = rfbench("score", "--pred", "pred", "--ref", "ref", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(
        "error: none of the 1 names in pred is in ref: found 'tile_1_x4', nearest is 'tile_1'"
    )
    assert len(done.stderr.splitlines()) == 1
