"""One process at a time in a folder, on file systems of every kind.

The system's own lock (flock) is taken where there is one: it ends with its process, however that ended, so none can be
stale. Some file systems have none (many network ones: ENOLCK, ENOSYS, EOPNOTSUPP). There a file stands for the lock,
with its owner's machine and process in it, and a warning says so: such a file outlives a process that is killed, which
is seen where the owner was of this machine, and told with the file's name where it was of another.

    with lock(folder, what="a run"):
        ...
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.core.errors import RfbenchError, RfbenchWarning, one_line
from bench.core.process import is_left, mark

_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
_LOOK_EVERY_S = 0.2
_LARGEST_OWNER = 4096  # bytes of a lock file
OWNER = ".rfbench.lock"
"""The name of the file that stands for the lock of a folder where the system has none."""


class Taken(RfbenchError):
    """Another process has the lock."""


@contextmanager
def lock(
    folder: Path,
    what: str,
    *,
    name: str = "",
    wait: bool = False,
    remedy: str = "wait for it",
    elsewhere: str = "choose another folder",
) -> Iterator[None]:
    """Hold ``folder`` (made if need be), or what is called ``name`` in it, for this process alone.

    Parameters
    ----------
    what : what the other process is doing there, for the line that says so: "another process WHAT in FOLDER".
    name : of one of several locks in the folder; the folder itself where empty.
    wait : whether to wait for the other process, after a line on stderr, instead of raising.
    remedy : the next step where it does not wait.
    elsewhere : the next step where nothing can be written there.

    Raises
    ------
    Taken
        If another process holds it, and ``wait`` is False.
    RfbenchError
        If the folder cannot be made or opened.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _handle(folder, name)
    except OSError as error:
        raise RfbenchError(f"cannot write into {folder}: {error.strerror}; {elsewhere}") from None
    said = f"another process {what} in {folder}"
    try:
        held = _system_lock(handle, said, wait, remedy)
        if held:
            if name and not _is_still_there(handle, folder / _file(name)):
                # Whoever had it removed the file at its end: this is a lock that nobody else will meet.
                with lock(folder, what, name=name, wait=wait, remedy=remedy, elsewhere=elsewhere):
                    yield
                return
            try:
                yield
            finally:
                if name:
                    with contextlib.suppress(OSError):
                        (folder / _file(name)).unlink()
            return
    finally:
        os.close(handle)
    with _owner_file(folder / (OWNER if not name else f"{_file(name)}.owner"), said, wait, remedy, elsewhere):
        yield


def _file(name: str) -> str:
    return f".{name}.lock"


def _handle(folder: Path, name: str) -> int:
    if not name:
        return os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(folder / _file(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _is_still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _system_lock(handle: int, said: str, wait: bool, remedy: str) -> bool:
    """Whether the system's lock is ours; False where it has none for this file."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno not in _TAKEN:
            return False
    if not wait:
        raise Taken(f"{said}; {remedy}")
    print(f"{one_line(said)}; waiting", file=sys.stderr)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


@contextmanager
def _owner_file(path: Path, said: str, wait: bool, remedy: str, elsewhere: str) -> Iterator[None]:
    """The lock as a file that names its owner."""
    told = False
    while not _made(path, elsewhere):
        owner = _owner(path)
        if owner is not None and is_left(owner[0]):
            # Of two that find it left, one takes its name away: the other's rename fails, and it looks again.
            aside = path.with_name(f"{path.name}.{mark()}.part")
            with contextlib.suppress(OSError):
                path.replace(aside)
                aside.unlink()
            continue
        who = f"on {one_line(owner[1], 60)}" if owner is not None else "whose name is not in it"
        if not wait:
            raise Taken(f"{said} ({path.name}: {who}); {remedy}, or remove that file if no process is there any more")
        if not told:
            print(f"{one_line(said)} ({path}: {who}); waiting", file=sys.stderr)
            told = True
        time.sleep(_LOOK_EVERY_S)
    warnings.warn(
        f"{path.parent} is on a file system without locks; the file {path.name} keeps other processes out, and is to "
        "be removed by hand if the machine goes down",
        RfbenchWarning,
        stacklevel=4,
    )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _made(path: Path, elsewhere: str) -> bool:
    """Whether the file could be made by this process; it never shows without its owner's name."""
    part = path.with_name(f"{path.name}.{mark()}.part")
    part.unlink(missing_ok=True)
    try:
        with part.open("x", encoding="utf-8") as file:
            json.dump({"process": mark(), "host": platform.node()}, file)
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with path.open("x", encoding="utf-8") as file:
                    json.dump({"process": mark(), "host": platform.node()}, file)
            except FileExistsError:
                return False
    except OSError as error:
        raise RfbenchError(f"cannot write into {path.parent}: {error.strerror}; {elsewhere}") from None
    finally:
        part.unlink(missing_ok=True)
    return True


def _owner(path: Path) -> tuple[str, str] | None:
    """Process and host of a lock file; None where it does not say."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST_OWNER))
        return str(found["process"]), str(found["host"])
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
