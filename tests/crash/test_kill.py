"""Kill a run at random moments and repeat the command: nothing computed is lost, the end is the same to the byte.

Three kills in CI, one of them of a run with a scoring process; RFBENCH_TEST_KILLS=30 for as many.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.commands import Started
from tests.commands import start as start_command
from tests.conftest import install_plugin, write_dataset
from tests.runs import run as run_models

TREE_EXCEPTIONS = {"host.json"}
KILLS = int(os.environ.get("RFBENCH_TEST_KILLS", "3"))


def start(data: Path, out: Path, site: Path, workers: int) -> Started:
    return start_command(
        "run", "--model", "bicubic", "--model", "noisy", "--data", str(data), "--metrics",
        "psnr_rgb,ssim_rgb,ece,crps,mean_error", "--batch-size", "2", "--workers", str(workers), "--out", str(out),
        site=site,
    )  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in TREE_EXCEPTIONS
    }


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_kills_and_a_resume_equal_an_uninterrupted_run(tmp_path: Path) -> None:
    data, site = write_dataset(tmp_path / "data", count=16), install_plugin(tmp_path / "site")
    started = time.monotonic()
    assert start(data, tmp_path / "whole", site, 0).wait() == 0
    whole_s = time.monotonic() - started

    generator = random.Random(7)
    killed, rounds = 0, 0
    while killed < KILLS:
        # One of three has a scoring process, which must notice by itself that its parent is gone.
        process = start(data, tmp_path / "killed", site, int(killed % 3 == 2))
        time.sleep(generator.uniform(0.05, 0.95) * whole_s)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)  # the process alone
            killed += 1
        else:  # it came to its end between two kills: begin anew
            assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
            rounds += 1
        process.wait()
        assert rounds < 2 * KILLS, "the kills come too late to prove anything"
    assert start(data, tmp_path / "killed", site, 1).wait() == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")

    deadline = time.monotonic() + 20
    while orphans(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not orphans(tmp_path), "a scoring process outlived its killed parent"


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and the half-written file stays."""


def test_a_kill_at_every_rename_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_dataset(tmp_path / "data", count=2)
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
    data, site = write_dataset(tmp_path / "data", count=40), install_plugin(tmp_path / "site")
    process = start(data, tmp_path / "out", site, 1)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("*/scoring/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.ppid() != process.pid:  # a fork of the command's own parent of forks
                child.kill()
    assert process.wait() == 2 and "a scoring process was ended from outside" in process.stderr, process.stderr
    assert "Traceback" not in process.stderr
    again = start(data, tmp_path / "out", site, 1)
    assert again.wait() == 0, again.stderr


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
