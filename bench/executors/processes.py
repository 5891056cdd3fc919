"""A crew of processes of this machine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from bench.core import provenance
from bench.core.process import context, exit_with_parent, shielded
from bench.executors.crew import Crew, Job, Key, Lost, Result

AT_MOST = 4
"""Processes where nobody says how many; each holds torch and a model, or the metrics' networks."""
_ENDED = "a {what} process was ended from outside (out of memory?)"


def usual_workers() -> int:
    """How many processes there are where nobody says: one a core."""
    return max(1, min(AT_MOST, provenance.cores()))


class Processes(Crew[Key, Result]):
    """``count`` processes, started as units come, each computing in one thread."""

    def __init__(self, job: Job, count: int, what: str, own: Sequence[Any] = ()) -> None:
        """``what`` the processes do, for messages: ``predicting``, ``scoring``. Each gets one of ``own`` for itself, a
        last argument of its job, where there are any."""
        self.size = count
        self._what = what
        self._waiting: dict[Future[Result], Key] = {}
        started = context("torch", __name__, job.build.__module__)
        shares = started.SimpleQueue() if own else None
        for one in own:
            assert shares is not None
            shares.put(one)
        self._pool = ProcessPoolExecutor(count, started, _begin, (dict(os.environ), job, shares))

    @property
    def waiting(self) -> list[Key]:
        return list(self._waiting.values())

    @property
    def numbers(self) -> list[int]:
        """The processes that were started so far."""
        return [*(self._pool._processes or ())]

    def warm_up(self) -> None:
        """Let a first process import torch and make its state while nothing is there to be worked on."""
        with shielded():
            self._pool.submit(_nothing)

    def give(self, key: Key, work: Callable[..., Result], *arguments: Any) -> None:
        try:
            with shielded():  # a process may be started now
                self._waiting[self._pool.submit(_work, work, arguments)] = key
        except BrokenProcessPool:
            raise Lost(_ENDED.format(what=self._what)) from None

    def take(self) -> Iterator[tuple[Key, Result]]:
        done, _ = wait(self._waiting, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                result = future.result()
            except BrokenProcessPool:
                raise Lost(_ENDED.format(what=self._what)) from None
            yield self._waiting.pop(future), result

    def close(self, *, finish: bool) -> None:
        self._pool.shutdown(wait=finish, cancel_futures=True)


# --- in a process of the crew ---------------------------------------------------------------------------------


class _Here:
    """What this process is for."""

    job: Job | None = None
    own: tuple[Any, ...] = ()
    state: Any = None
    is_built = False


def _begin(environment: dict[str, str], job: Job, shares: Any) -> None:
    import signal

    os.environ.clear()  # it may be that of an earlier moment, when the first process was started
    os.environ.update(environment)
    one_thread()
    os.dup2(2, 1)  # the command's stdout is for its results, whatever a model, a metric or a library prints
    warnings.showwarning = _unheard
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    exit_with_parent()
    _Here.job, _Here.own = job, () if shares is None else (shares.get(),)


def one_thread() -> None:
    """Before torch is imported: one thread, so that processes do not spin on each other's cores, and sums in torch,
    which depend on the number of threads, are the same in all. A fork has torch already, and this from its parent."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"


def _unheard(*warning: object, **how: object) -> None:
    """Libraries' notices are for us, not for the user; what is ours the main process has said."""


def _state() -> Any:
    """The process's state, made by its first unit: what making it raises is that unit's error."""
    if not _Here.is_built:
        import torch

        torch.set_num_threads(1)
        assert _Here.job is not None
        _Here.state, _Here.is_built = _Here.job.begin(*_Here.own), True
    return _Here.state


def _nothing() -> None:
    _state()


def _work(work: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    return work(_state(), *arguments)
