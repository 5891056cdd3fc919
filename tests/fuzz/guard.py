# ruff: noqa: PTH100, PTH115, PTH118 - the hook sees every opening of a file, and texts are quicker than paths
"""What an input may do: take some seconds and some memory, write below its output folder and the folder for temporary
files (which must be empty again at the end), and end in one line.

Writes, processes and connections are seen by Python's audit events. What libraries in C do beside Python is seen by
looking: the input's files must be as they were, and the working directory empty.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS = 5.0  # of computing; on a machine that does other things too, _PATIENCE times as long by the clock
_PATIENCE = 6
BYTES = 1500 * 1000**2  # of addresses
RESIDENT_BYTES = 1000 * 1000**2  # beside the 0.5 GB of a command that reads: 1.5 GB in all
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# event -> which of its arguments are paths that change, and which is the folder's descriptor, if any
_CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.setxattr": ((0, None),),
}
_REFUSED = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
    "socket.connect",
    "socket.bind",
    "socket.sendto",
    "socket.getaddrinfo",
    "pickle.find_class",
)


class Hang(BaseException):
    """The time is up. No ``except Exception`` takes it."""


class Forbidden(BaseException):
    """A write outside the output folder, a process, a connection, a function out of a pickle."""


class _Watch:
    """The state of the audit hook, which cannot be taken away again once it is there."""

    allowed: tuple[str, ...] = ()
    seen: list[str] = []
    installed = False


def _hook(event: str, details: tuple[Any, ...]) -> None:
    if not _Watch.allowed:
        return
    if event in _REFUSED and not _is_reader(event, details):
        _refuse(f"{event}{details!r:.200}")
    if event == "open" and isinstance(details[2], int) and details[2] & _WRITING:
        _check(event, details[0], None)
    for path, folder in _CHANGES.get(event, ()):
        _check(event, details[path], details[folder] if folder is not None else None)


def _is_reader(event: str, details: tuple[Any, ...]) -> bool:
    """Whether the process is the one that decodes images apart, which our own reader starts by a fixed command."""
    return event == "subprocess.Popen" and list(details[1])[1:] == ["-P", "-m", "bench.data.readers.apart"]


def _check(event: str, path: Any, folder: int | None) -> None:
    if isinstance(path, int) or path is None:  # a descriptor: its opening was seen
        return
    text = os.fsdecode(path)
    if folder is not None and folder >= 0:
        text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    # The folder is followed, and the name too where it is opened; a link itself can be removed.
    where = os.path.realpath(text) if event == "open" else os.path.join(*_parent(text))
    # That a peak of memory is counted from now on is asked for by writing there; nothing is kept.
    harmless = ("/dev/null", f"/proc/{os.getpid()}/clear_refs")
    if where not in harmless and not any(f"{where}/".startswith(f"{folder}/") for folder in _Watch.allowed):
        _refuse(f"{event} of {where!r}, outside of the output folder")


def _parent(path: str) -> tuple[str, str]:
    head, tail = os.path.split(os.path.abspath(path))
    return os.path.realpath(head), tail


def _refuse(what: str) -> None:
    _Watch.seen.append(what)
    raise Forbidden(what)


def _alarm(number: int, frame: FrameType | None) -> None:
    raise Hang(f"longer than {SECONDS:g} s")


@contextlib.contextmanager
def watched(*allowed: Path) -> Iterator[list[str]]:
    """Run the block under guard, free to write below ``allowed``; yields the list of what it tried and must not.

    Raises
    ------
    Hang
        After ``SECONDS``; where a library in C does not return, the caller of this process must end it.
    Forbidden
        At the first forbidden act.
    """
    if not _Watch.installed:
        sys.addaudithook(_hook)
        _Watch.installed = True
    _Watch.seen = seen = []
    _Watch.allowed = tuple(os.path.realpath(folder) for folder in allowed)
    before = {s: signal.signal(s, _alarm) for s in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE * SECONDS)
    try:
        yield seen
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        _Watch.allowed = ()


def limit_memory() -> None:
    """Let this process take at most 1.5 GB of addresses beyond those it has: what asks for more gets a MemoryError."""
    most = _status("VmSize") + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def reset_peak() -> None:
    """Forget the highest resident memory so far."""
    with contextlib.suppress(OSError):  # a system without it keeps the highest of all inputs
        Path("/proc/self/clear_refs").write_text("5")


def resident_bytes() -> int:
    """The resident memory now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The highest resident memory since ``reset_peak``."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
