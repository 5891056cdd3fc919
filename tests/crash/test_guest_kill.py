"""Kill host and guest of a run at random moments: no process stays, no image is lost, the end is the same to the byte.

Two hosts and three guests in CI; RFBENCH_TEST_KILLS=10 for ten of each.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import CODE
from tests.conftest import installed, write_dataset
from tests.crash.test_kill import tree
from tests.guests import fake_environment, family, install_guests, left_behind
from tests.runs import run as run_models

KILLS = os.environ.get("RFBENCH_TEST_KILLS")
HOSTS, GUESTS = (int(KILLS), int(KILLS)) if KILLS else (2, 3)
METRICS = ("psnr_rgb", "ece")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With the plugin installed, its environment there, data, and ``whole``: a run that nothing disturbed."""
    found = tmp_path_factory.mktemp("kills")
    write_dataset(found / "data", count=16)
    site = install_guests(found / "site")
    with pytest.MonkeyPatch.context() as patch, installed(site, "rfbench_guests", "rfbench_guests.shim"):
        patch.setenv("RFBENCH_ENVS", str(found / "envs"))
        patch.setenv("TMPDIR", str(found))
        patch.setattr("tempfile.tempdir", None)
        patch.setenv("PACE_S", "0.1")
        fake_environment(importlib.import_module("rfbench_guests").HOME)
        assert run(found, "whole") == 0
        yield found


def run(folder: Path, out: str) -> int:
    """A run in this process; how many images failed."""
    request = dict(models=("guest-noisy",), data=str(folder / "data"), metrics=METRICS, batch_size=2, draws=2,
                   workers=0, out=folder / out)  # fmt: skip
    return run_models(**request).failed.total()


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    """The same run as a command."""
    words = ["run", "--model", "guest-noisy", "--data", str(folder / "data"), "--metrics", ",".join(METRICS),
             "--batch-size", "2", "--draws", "2", "--workers", "0", "--out", str(folder / out)]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "site"), str(CODE)]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_killed_host_leaves_nothing_and_the_resumed_run_is_the_same(folder: Path) -> None:
    generator, kills, rounds = random.Random(3), 0, 0
    while kills < HOSTS:
        process = start(folder, "killed")
        while process.poll() is None and not family(folder):
            time.sleep(0.02)
        time.sleep(generator.uniform(0.0, 3.0))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)  # the host alone: what it started must notice by itself
            kills += 1
        elif (folder / "killed").exists():  # it came to its end between two kills: begin anew
            assert tree(folder / "killed") == tree(folder / "whole")
            shutil.rmtree(folder / "killed")
            rounds += 1
        process.wait()
        assert not left_behind(folder)
        assert rounds < 2 * HOSTS, "the kills come too late to prove anything"
    assert run(folder, "killed") == 0
    assert tree(folder / "killed") == tree(folder / "whole")
    assert not left_behind(folder)


class Killer(threading.Thread):
    """Kills the guests of this process at random moments, ``left`` times."""

    def __init__(self, folder: Path, seed: int, left: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.random, self.left, self.stop = folder, random.Random(seed), left, threading.Event()

    def run(self) -> None:
        while self.left and not self.stop.wait(self.random.uniform(0.05, 0.8)):
            guest = next((p for p in family(self.folder) if os.getpgid(p.pid) == p.pid), None)
            if guest is not None:
                guest.kill()
                self.left -= 1


def test_a_killed_guest_loses_no_image_and_the_run_is_the_same(folder: Path) -> None:
    left, rounds = GUESTS, 0
    while left:
        assert rounds < 2 * GUESTS, "the guest is never there to be killed"
        rounds += 1
        killer = Killer(folder, rounds, left)
        killer.start()
        failed = run(folder, f"guest-{rounds}")
        killer.stop.set()
        killer.join()
        if failed:  # killed twice on one image: a row with its error, and the same command tries it again
            assert run(folder, f"guest-{rounds}") == 0
        assert tree(folder / f"guest-{rounds}") == tree(folder / "whole")
        sessions = json.loads((folder / f"guest-{rounds}" / "guest-noisy" / "host.json").read_text())["sessions"]
        told = [text for session in sessions for text in session.get("restarts", [])]
        assert len(told) >= min(1, left - killer.left) and all("was ended by SIGKILL" in text for text in told)
        assert not left_behind(folder)
        left = killer.left
