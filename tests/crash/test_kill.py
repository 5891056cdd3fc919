"""Kill a run at random moments and repeat the command: nothing computed is lost, the end is the same to the byte."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import install_plugin, write_dataset
from tests.runs import run as run_models

TREE_EXCEPTIONS = {"host.json"}


def command(data: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "bench.cli", "run", "--model", "bicubic", "--model", "noisy", "--data", str(data),
        "--metrics", "psnr_rgb,ssim_rgb,ece,crps,mean_error", "--batch-size", "2", "--workers", "1", "--out", str(out),
    ]  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in TREE_EXCEPTIONS
    }


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_ten_kills_and_a_resume_equal_an_uninterrupted_run(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", count=24)
    environment = os.environ | {"PYTHONPATH": str(install_plugin(tmp_path / "site")), "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(data, out), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    started = time.monotonic()
    assert start(tmp_path / "whole").wait(timeout=300) == 0
    whole_s = time.monotonic() - started

    generator = random.Random(7)
    killed, rounds = 0, 0
    while killed < 10:
        process = start(tmp_path / "killed")
        time.sleep(generator.uniform(0.05, 0.95) * whole_s)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)  # the process alone: its children must notice by themselves
            killed += 1
        elif killed < 10:  # it came to its end between two kills: begin anew
            assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
            rounds += 1
        process.wait()
        assert rounds < 20, "the kills come too late to prove anything"
    assert start(tmp_path / "killed").wait(timeout=300) == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")

    deadline = time.monotonic() + 20
    while orphans(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not orphans(tmp_path), "a scoring process outlived its killed parent"


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and the half-written file stays."""


def test_a_kill_at_every_rename_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_dataset(tmp_path / "data", count=3)
    request = dict(models=("bicubic",), data=str(data), metrics=("psnr_rgb", "d_lambda"), workers=0, batch_size=2)

    def run(out: Path) -> None:
        run_models(**request, out=out)

    run(tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    rename, unlink, left = Path.replace, Path.unlink, 0

    def replace_or_die(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return rename(self, target)

    def unlink_if_alive(self: Path, missing_ok: bool = False) -> None:
        if left >= 0:
            unlink(self, missing_ok)

    for at in range(40):
        out = tmp_path / f"killed{at}"
        left = at
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace_or_die)
            patch.setattr(Path, "unlink", unlink_if_alive)
            try:
                run(out)
                survived = True
            except Killed:
                survived = False
        run(out)
        assert tree(out) == expected, f"after a kill at rename {at}"
        if survived:
            break
    assert survived and at >= 10


def test_a_killed_scoring_process_is_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", count=40)
    environment = os.environ | {"PYTHONPATH": str(install_plugin(tmp_path / "site"))}
    process = subprocess.Popen(
        command(data, tmp_path / "out"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("*/scoring/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    for child in psutil.Process(process.pid).children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and "a scoring process was ended from outside" in errors, errors
    assert "Traceback" not in errors
    again = subprocess.run(
        command(data, tmp_path / "out"), env=environment, capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr


def orphans(folder: Path) -> list[int]:
    """Processes that still carry this test's folder in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("PYTHONPATH", "") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found
