"""Writing that survives kills, power cuts and folders that others made."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.core import files, process
from bench.core.errors import RfbenchError
from bench.core.files import atomic_path, finish_commit, read_json, write_bytes, write_json, write_together
from bench.core.places import home, kept, scratch

posix = pytest.mark.skipif(os.name != "posix", reason="signals and links of POSIX")


def gone() -> str:
    """The mark of a process that has been."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return f"{int(done.stdout)}-{process.host()}"


def test_the_disk_has_the_bytes_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    before = Path.replace

    def replace(self: Path, target: Any) -> Any:
        told.append("name")
        return before(self, target)

    def fsync(handle: int) -> None:
        told.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    write_json(tmp_path / "run.json", {"a": 1})
    assert told[0] == "file" and told[1] == "name" and len(told) == 3
    told.clear()
    write_json(tmp_path / "run.json", {"a": 1}, durable=False)
    assert told == ["name"]


@posix
def test_no_link_is_followed_for_writing(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.mkdir()
    (run / "predictions").symlink_to(outside)
    with pytest.raises(RfbenchError, match="predictions is a link to elsewhere"):
        write_bytes(run / "predictions" / "a.safetensors", b"x", within=run)
    (outside / "precious").write_text("kept")
    (run / "run.json").symlink_to(outside / "precious")
    write_bytes(run / "run.json", b"new", within=run)  # the link itself is replaced
    (run / f".host.json.{process.mark()}.part").symlink_to(outside / "precious")
    write_bytes(run / "host.json", b"new", within=run)
    assert [p.name for p in outside.iterdir()] == ["precious"] and (outside / "precious").read_text() == "kept"
    assert not (run / "run.json").is_symlink() and not (run / "host.json").is_symlink()


def test_the_next_command_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    left = tmp_path / f".table.md.{gone()}.part"
    living = tmp_path / f".table.md.{os.getppid()}-{process.host()}.part"
    elsewhere = tmp_path / ".table.md.99999999-ffffff.part"
    for path in (left, living, elsewhere):
        path.write_text("half")
    files._swept.clear()
    write_bytes(tmp_path / "table.md", b"whole")
    assert not left.exists() and living.exists() and elsewhere.exists()


def _die_at(folder: Path, count: int) -> None:
    """Renew two files and be killed before the ``count``-th rename or removal."""
    steps = [0]

    def counted(before: Any) -> Any:
        def step(self: Path, *args: Any, **named: Any) -> Any:
            steps[0] += 1
            if steps[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(self, *args, **named)

        return step

    Path.replace, Path.unlink, Path.write_bytes = map(counted, (Path.replace, Path.unlink, Path.write_bytes))  # type: ignore[method-assign, assignment]
    write_together(folder, {"summary.json": b"new", "history/log.json": b"new", "features": None})
    os._exit(7)


@posix
def test_files_that_belong_together_are_renewed_together(tmp_path: Path) -> None:
    seen = set()
    for count in range(1, 40):
        folder = tmp_path / str(count)
        (folder / "history").mkdir(parents=True)
        for name in ("summary.json", "history/log.json", "features"):
            (folder / name).write_bytes(b"old")
        child = multiprocessing.get_context("fork").Process(target=_die_at, args=(folder, count))
        child.start()
        child.join()
        finish_commit(folder)
        found = {(folder / name).read_bytes() for name in ("summary.json", "history/log.json")}
        assert len(found) == 1, f"killed before step {count}: {found}"
        assert (folder / "features").exists() == (found == {b"old"})
        seen |= found
        assert not (folder / files.JOURNAL).exists()
        if child.exitcode == 7:
            break
    assert seen == {b"old", b"new"} and child.exitcode == 7 and count > 6


@posix
def test_a_journal_from_elsewhere_moves_nothing_outside(tmp_path: Path) -> None:
    folder, outside = tmp_path / "golden", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "x").write_text("kept")
    (outside / ".x.0.part").write_text("theirs")
    (folder / "link").symlink_to(outside)
    names = ["../outside/x", str(outside / "x"), "link/x", 3, None, "absent"]
    write_json(folder / files.JOURNAL, {"files": names, "gone": names})
    finish_commit(folder)
    assert (outside / "x").read_text() == "kept" and (outside / ".x.0.part").exists()
    assert not (folder / files.JOURNAL).exists()


def test_nothing_changes_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_together(tmp_path, {"a": b"old", "b": b"old"})
    before = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if "b" in self.name:
            raise OSError(28, "No space left on device")
        return before(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RfbenchError, match="No space left on device; nothing in it was changed"):
        write_together(tmp_path, {"a": b"new", "b": b"new"})
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir()) == [("a", b"old"), ("b", b"old")]


def test_a_user_without_a_home_has_a_folder_of_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("RFBENCH_WEIGHTS", raising=False)
    assert kept("weights", "RFBENCH_WEIGHTS") == home() / ".cache" / "rfbench" / "weights"
    assert home().parent == tmp_path and home().stat().st_mode & 0o077 == 0
    home().rmdir()
    (tmp_path / f"rfbench-home-{os.getuid()}").symlink_to("/")
    with pytest.raises(RfbenchError, match="set HOME"):
        home()


def test_a_scratch_folder_ends_with_its_block_or_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"rfbench-score-{gone()}-abcdefgh"
    other = tmp_path / f"rfbench-score-{process.mark()}-abcdefgh"
    left.mkdir()
    other.mkdir()
    with pytest.raises(ValueError, match="boom"), scratch("score") as folder:
        assert folder.is_dir() and not left.exists() and other.exists()
        raise ValueError("boom")
    assert list(tmp_path.iterdir()) == [other]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(RfbenchError, match="set TMPDIR"), scratch("score"):
        pass


def test_a_write_that_fails_leaves_no_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise ValueError("boom")
    assert not list(tmp_path.iterdir())
    with pytest.raises(RfbenchError, match="is missing"):
        read_json(tmp_path / "x")
