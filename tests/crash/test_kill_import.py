"""Kill an import: nothing looks like a dataset, and the next import of the same one removes what was left."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.core.process import host, mark
from bench.data.dataset import FolderDataset
from bench.data.layouts import import_layout
from tests.conftest import ROOT

posix = pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")

# An import that stops in the middle of its second image, as a slow disk would make it.
SLOW = """
import sys, time
from pathlib import Path
from bench.data.layouts import import_layout
from bench.data.layouts.build import Builder
add = Builder.add
def slow(self, row):
    add(self, row)
    if len(self.rows) == 2:
        print("half", flush=True)
        time.sleep(60)
Builder.add = slow
import_layout("folder", Path(sys.argv[1]), Path(sys.argv[2]), name="x")
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        np.save(folder / f"{i}.npy", np.full((6, 7, 3), 40 * i, np.uint8))
    return folder


def half_done(source: Path, target: Path) -> subprocess.Popen[str]:
    """A process in the middle of an import."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(source), str(target)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def leavings(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


@posix
def test_the_next_import_removes_what_a_killed_one_left_and_no_living_one_s(pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "data [1]"  # a name that means something to glob and to regular expressions
    killed, living, other = (half_done(pictures, t) for t in (target, target, tmp_path / "data"))
    try:
        for process in (killed, other):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert not target.exists() and len(leavings(tmp_path)) == 3
        kept = [
            f".{target.name}.{living.pid}-{host()}.part",
            f".data.{other.pid}-{host()}.part",
        ]  # another target's are not ours
        assert import_layout("folder", pictures, target, name="x") == 3
        assert leavings(tmp_path) == sorted(kept)
        assert len(list((tmp_path / kept[0] / "hr").iterdir())) == 2
        assert len(FolderDataset(target).all_records) == 3
    finally:
        living.kill()
        living.wait()
        for process in (killed, living, other):
            assert process.stdout is not None
            process.stdout.close()


@posix
def test_a_folder_that_another_machine_works_in_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    """No process of this machine has its number, but it is marked."""
    import fcntl

    foreign = tmp_path / f".out.99999999-{host()}.part"
    foreign.mkdir()
    handle = os.open(foreign, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert import_layout("folder", pictures, tmp_path / "out", name="x") == 3
    assert foreign.is_dir()
    os.close(handle)  # the mark is gone, and a link to elsewhere is nobody's leavings
    shutil.rmtree(tmp_path / "out")
    link = tmp_path / f".out.99999998-{host()}.part"
    link.symlink_to(pictures)
    assert import_layout("folder", pictures, tmp_path / "out", name="x") == 3
    assert leavings(tmp_path) == [link.name] and len(list(pictures.iterdir())) == 3


@posix
def test_what_a_killed_process_of_our_own_number_left_is_not_built_on(pictures: Path, tmp_path: Path) -> None:
    left = tmp_path / f".out.{mark()}.part"
    (left / "hr").mkdir(parents=True)
    (left / "hr" / "stray.npy").write_bytes(b"half")
    assert import_layout("folder", pictures, tmp_path / "out", name="x") == 3
    assert not (tmp_path / "out" / "hr" / "stray.npy").exists() and not leavings(tmp_path)


@posix
def test_without_locks_the_name_says_whose_a_folder_is(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    of_ours, of_another = (tmp_path / f".out.99999999-{name}.part" for name in (host(), "0" * 6))
    for left in (of_ours, of_another):
        left.mkdir()
    assert import_layout("folder", pictures, tmp_path / "out", name="x") == 3
    assert leavings(tmp_path) == [of_another.name]
