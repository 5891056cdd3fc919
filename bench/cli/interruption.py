"""Ctrl-C, SIGTERM and SIGHUP: every command ends within five seconds, with one line that is true for it, and no orphan.

The first signal raises KeyboardInterrupt in the command, so that locks are given back and temporary files removed. A
second one, or four seconds, end the process where it stands: what it wrote was atomic, and what it left in temporary
files the next command sweeps. Either way the processes below it are ended, and Python's own end is skipped, which would
wait for the threads and processes of pools.

Signals are watched by a thread too: Python's own handlers wait until the main thread is back from a call into C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

import click

LIMIT_S = 4.0
"""How long a command may take to give back what it holds."""
_WATCHED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_GOES_ON = "the same command goes on from here"
_ANEW = "nothing was written, the same command begins anew"
_AFTER = {
    "run": _GOES_ON, "merge": _GOES_ON, "predict": _GOES_ON, "score": _GOES_ON, "train": _GOES_ON, "ablate": _GOES_ON,
    "ood": _GOES_ON,
    "caption": _GOES_ON, "weights fetch": _GOES_ON, "envs build": "the same command may be repeated",
    "data scenes": "the same command begins anew",
    "data import": _ANEW, "upscale": _ANEW, "table": _ANEW, "compare": _ANEW, "plot": _ANEW, "cite": _ANEW,
}  # fmt: skip
_OTHERWISE = "no file was left half-written"


class _Seen:
    """What has come so far."""

    number = 0
    count = 0
    line = ""
    told = False
    watching = 0  # the process that has a thread for it: commands called one after another in one share it
    code: int | None = None


_lock = threading.RLock()  # a signal may come while the main thread is leaving


def prepare() -> None:
    """Take over the signals of this process, except those that it was started to ignore (``nohup``)."""
    watched = [n for n in _WATCHED if signal.getsignal(n) is not signal.SIG_IGN]
    for number in watched:
        signal.signal(number, _on_signal)
    if _Seen.watching == os.getpid():
        return
    _Seen.watching = os.getpid()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, watched), name="interruption", daemon=True).start()
    # What a process that is ended leaves of multiprocessing's, its own helper removes; nobody needs to read of it.
    quiet = "ignore:resource_tracker"
    before = os.environ.get("PYTHONWARNINGS", "")
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet


def leave() -> NoReturn:
    """Tell the one line, end what runs below this process, and this process."""
    from bench.core.process import descendants, forget_socket

    code = 128 + (_Seen.number or signal.SIGINT) if _Seen.code is None else _Seen.code
    if not _lock.acquire(timeout=1.0):  # another thread is leaving, and does not come to its end
        os._exit(code)
    with _lock:
        if not _Seen.told:
            _Seen.told = True
            number = _Seen.number or signal.SIGINT
            what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
            with contextlib.suppress(OSError, ValueError):
                if sys.stderr.isatty():
                    sys.stderr.write("\r\x1b[K\x1b[?25h")  # a bar's line, and the cursor that it hid
                print(f"error: {what}; {_Seen.line or promise()}", file=sys.stderr, flush=True)
        helper = _helper()
        for _ in range(3):
            below = [n for n in descendants(os.getpid()) if n != helper]
            for one in below:
                with contextlib.suppress(OSError):
                    os.kill(one, signal.SIGKILL)
            if not below:
                break
            time.sleep(0.02)
        forget_socket()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def finish(code: int) -> None:
    """The command is done and has told its own line: a signal from now on ends the process with its code."""
    _Seen.told, _Seen.code = True, code
    if _Seen.count:
        leave()


def promise() -> str:
    """What is true after the command that runs now."""
    context, words = click.get_current_context(silent=True), list[str]()
    while context is not None and context.parent is not None:  # without the program's own name, whatever it was
        words.insert(0, context.info_name or "")
        context = context.parent
    return _AFTER.get(" ".join(words), _OTHERWISE)


def _on_signal(number: int, frame: FrameType | None) -> None:
    _Seen.count += 1
    if _Seen.count > 1 or _Seen.code is not None:
        leave()
    _Seen.number, _Seen.line = number, promise()
    raise KeyboardInterrupt


def _watch(reading: int, watched: list[int]) -> None:
    """Leave at the second signal, or at the end of the time, whatever the main thread does."""
    count = 0
    while True:
        for number in os.read(reading, 64):
            if number not in watched:
                continue
            count += 1
            if count == 1:
                _Seen.number = number
                threading.Thread(target=_leave_after, args=(LIMIT_S,), daemon=True).start()
            else:
                _leave_after(0.2)  # the main thread's handler is first where it can be


def _leave_after(seconds: float) -> None:
    time.sleep(seconds)
    leave()


def _helper() -> int | None:
    """The process that removes multiprocessing's shared names when this one is gone; it ends by itself then."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    tracker = getattr(module, "_resource_tracker", None)
    found = getattr(tracker, "_pid", None)
    return found if isinstance(found, int) else None
