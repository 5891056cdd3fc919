"""Which process this is, and whether another one still runs: for the marks that files of living processes carry."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

_MARK = re.compile(r"([0-9]{1,10})-([0-9a-f]{6})")


@functools.cache
def host() -> str:
    """Six hex digits for this machine, boot and space of process numbers: only there does a number name a process."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - no path, a name
    return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "replace"), digest_size=3).hexdigest()


def mark() -> str:
    """What this process writes into the names of its temporary files: ``NUMBER-HOST``."""
    return f"{os.getpid()}-{host()}"


def is_left(text: str) -> bool:
    """Whether a ``mark`` is that of a process of this machine that is gone; of other machines nothing is known."""
    found = _MARK.fullmatch(text)
    return found is not None and found[2] == host() and not is_running(int(found[1]))


def is_running(number: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # there is one, of another user
        return True
    return True


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Processes that are started within the block do not see what a terminal sends to all of them: Ctrl-C, its end.

    This process decides what that means, and ends them. A signal that comes within the block is seen at its end. The
    helper of multiprocessing is started first, for it lifts what is held back here.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    held = (signal.SIGINT, signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, held)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def context(*modules: str) -> BaseContext:
    """How processes that compute are started: as forks of one that has imported ``modules`` and has done nothing else.

    The process that asks is never forked itself: its threads, locks and CUDA would not survive that. There is one such
    parent in a command, with the modules of whoever asks first. Where a fork is no safe thing at all (macOS, Windows),
    or the parent's socket has no place (no temporary folder, or one with a path of a hundred letters), each process
    starts from nothing.
    """
    import multiprocessing

    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return _forks_of_one(modules)
    return multiprocessing.get_context("spawn")


def exit_with_parent() -> None:
    """End this process when its parent is gone, however it ended: no orphan keeps memory or a GPU."""
    import multiprocessing
    import threading

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()  # returns at once if the parent died while this process was starting
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _forks_of_one(modules: Sequence[str]) -> BaseContext:
    import multiprocessing
    from multiprocessing import forkserver

    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([*modules])
    # It finds modules where this process does, and not first in the current folder; libraries in C count their threads
    # as they are imported.
    own = {
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path), "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        with shielded():
            forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return made


def forget_socket() -> None:
    """Remove the folder of that parent's socket, before an end that leaves Python no time to do it."""
    if "multiprocessing.forkserver" in sys.modules:
        import multiprocessing.util

        with contextlib.suppress(OSError):
            shutil.rmtree(multiprocessing.util.get_temp_dir(), ignore_errors=True)


def descendants(of: int) -> list[int]:
    """The numbers of all processes below ``of``, as far as the system tells (Linux), parents first."""
    children: dict[int, list[int]] = {}
    proc = Path("/proc")
    for entry in proc.iterdir() if proc.is_dir() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # After the name in parentheses, which may hold anything: state, then the parent's number.
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, at = list(children.get(of, ())), 0
    while at < len(found):
        found += children.get(found[at], ())
        at += 1
    return found
