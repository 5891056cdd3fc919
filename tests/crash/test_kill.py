"""Kill a run at random moments and repeat the command: nothing computed is lost, the end is the same to the byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import install_plugin, write_dataset

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
    killed = 0
    for _ in range(10):
        process = start(tmp_path / "killed")
        time.sleep(generator.uniform(0.25, 1.0) * whole_s * 0.9)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)  # the process alone: its children must notice by themselves
            killed += 1
        process.wait()
    assert killed >= 3, "the kills came too late to prove anything"
    assert start(tmp_path / "killed").wait(timeout=300) == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")

    deadline = time.monotonic() + 20
    while orphans(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not orphans(tmp_path), "a scoring process outlived its killed parent"


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
