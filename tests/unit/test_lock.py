"""One process at a time, with the system's locks and without."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from bench.core import process
from bench.core.errors import RfbenchError
from bench.core.lock import OWNER, Taken, lock
from tests.commands import hears

fcntl = pytest.importorskip("fcntl")

WITHOUT = """
import errno, fcntl
def flock(handle, how):
    raise OSError({number}, "No locks available")
fcntl.flock = flock
"""
HOLD = """
import sys, time, warnings
from pathlib import Path
from bench.core.lock import lock
warnings.simplefilter("ignore")
with lock(Path(sys.argv[1]), "runs"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, number: int | None) -> subprocess.Popen[str]:
    """A process that holds the folder; ``number`` is the error of a system without locks."""
    code = ("" if number is None else textwrap.dedent(WITHOUT).format(number=number)) + HOLD
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, preexec_fn=hears
    )
    assert started.stdout is not None and started.stdout.readline() == "held\n"
    return started


def end(started: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
    started.send_signal(how)
    started.wait(20)
    assert started.stdout is not None
    started.stdout.close()


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    first = holder(tmp_path, None)
    with (
        pytest.raises(Taken, match=r"another process runs in .*; choose another --out"),
        lock(tmp_path, "runs", remedy="choose another --out"),
    ):
        pass
    end(first)
    with lock(tmp_path, "runs"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_without_locks_gets_a_file_with_an_owner(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch, number)
    with pytest.warns(UserWarning, match="a file system without locks"), lock(tmp_path, "runs"):
        owner = json.loads((tmp_path / OWNER).read_text())
        assert owner["process"] == process.mark() and owner["host"]
        with pytest.raises(Taken, match=r"\.rfbench\.lock: on .*remove that file"), lock(tmp_path, "runs"):
            pass
    assert not list(tmp_path.iterdir())


def test_without_locks_a_killed_process_of_this_machine_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = holder(tmp_path, errno.ENOLCK)
    without_locks(monkeypatch, errno.ENOLCK)
    with pytest.raises(Taken), lock(tmp_path, "runs"):
        pass
    end(first)
    assert (tmp_path / OWNER).exists()
    with pytest.warns(UserWarning), lock(tmp_path, "runs"):
        pass
    (tmp_path / OWNER).write_text(json.dumps({"process": "99999999-ffffff", "host": "elsewhere\x1b[31m"}))
    with pytest.raises(Taken, match="on elsewhere"), lock(tmp_path, "runs"):  # of another machine nothing is known
        pass
    for content in ("", "[" * 100_000, "{}", "null"):
        (tmp_path / OWNER).write_text(content)
        with pytest.raises(Taken, match="whose name is not in it"), lock(tmp_path, "runs"):
            pass


@pytest.mark.parametrize("number", [None, errno.ENOLCK])
def test_whoever_waits_comes_in_later(
    tmp_path: Path, number: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = holder(tmp_path, number)
    if number is not None:
        without_locks(monkeypatch, number)
    threading.Timer(0.5, end, (first,)).start()
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *a, **k: None)
        with lock(tmp_path, "runs", wait=True):
            assert 0.3 < time.monotonic() - began < 20
    assert "another process runs in" in capsys.readouterr().err


def test_named_locks_of_one_folder_are_apart_and_leave_no_file(tmp_path: Path) -> None:
    with lock(tmp_path, "fetches a", name="a"), lock(tmp_path, "fetches b", name="b"), pytest.raises(Taken):  # noqa: SIM117
        with lock(tmp_path, "fetches a", name="a"):
            pass
    assert not list(tmp_path.iterdir())


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / ".a.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RfbenchError, match="cannot write into"), lock(tmp_path, "fetches a", name="a"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RfbenchError, match="choose another folder"), lock(tmp_path / "file" / "x", "runs"):
        pass


def test_of_many_processes_one_is_in(tmp_path: Path) -> None:
    """Each adds one to a number that it read before; without a lock some additions would be lost."""
    (tmp_path / "n").write_text("0")
    code = textwrap.dedent(WITHOUT).format(number=errno.ENOLCK) + textwrap.dedent("""
        import sys, time, warnings
        from pathlib import Path
        from bench.core.lock import lock
        warnings.simplefilter("ignore")
        place = Path(sys.argv[1])
        for _ in range(5):
            with lock(place / "locked", "counts", wait=True):
                n = int((place / "n").read_text())
                time.sleep(0.01)
                (place / "n").write_text(str(n + 1))
    """)
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(4)]
    for one in started:
        _, said = one.communicate(timeout=60)
        assert one.returncode == 0, said
    assert (tmp_path / "n").read_text() == "20" and not list((tmp_path / "locked").iterdir())


def test_no_lock_outlives_its_process(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    first = holder(tmp_path / "x", None)
    end(first, signal.SIGINT)
    with lock(tmp_path / "x", "runs"):
        pass
