"""The scoring processes: each holds the metrics and their networks and scores whole images, one after the other."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from bench.core import provenance
from bench.core.errors import RfbenchError
from bench.core.process import shielded
from bench.metrics.base import Setting
from bench.metrics.scorer import Scorer

Key = TypeVar("Key")
Result = TypeVar("Result")
_WORKER_LOST = (
    "a scoring process was ended from outside (out of memory?); run the same command again, with fewer --workers"
)
_WORKERS_AT_MOST = 4  # by default; each holds torch and the metrics' networks


def usual_workers(*, predicting: bool) -> int:
    """How many scoring processes there are where nobody says: one a core, of which prediction keeps one for itself."""
    return max(1, min(_WORKERS_AT_MOST, provenance.cores() - predicting))


class Scoring(Generic[Key, Result]):
    """The scoring processes (none: this process). At most two images a process wait, so memory stays bounded.

    A unit of work is a function of a module with arguments that can be pickled; it is called with the process's
    ``Scorer`` before them, in one thread. Results come back in any order, each with the key it was submitted under.
    """

    def __init__(self, identities: Mapping[str, str], setting: Setting, workers: int) -> None:
        """``identities`` of the metrics to compute, by name, as planned: one that has another by then is a reason."""
        self._work, self._count = (tuple(identities), setting, dict(identities)), workers
        self._waiting: dict[Future[Result], Key] = {}
        self._pool: ProcessPoolExecutor | None = None
        self._inline: Scorer | None = None

    def __enter__(self) -> Scoring[Key, Result]:
        if self._count:
            # Spawned, not forked: a fork would inherit torch's thread pools, and CUDA does not survive one.
            self._pool = ProcessPoolExecutor(
                self._count, multiprocessing.get_context("spawn"), _start_worker, self._work
            )
            with shielded():
                self._pool.submit(_warm_up)
        else:
            self._inline = Scorer(*self._work)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._pool:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def submit(self, key: Key, work: Callable[..., Result], *arguments: Any) -> Iterator[tuple[Key, Result]]:
        """Hand an image over; yields whatever has been scored meanwhile."""
        if self._pool is None:
            assert self._inline is not None
            yield key, _in_one_thread(self._inline, work, arguments)
            return
        try:
            with shielded():  # a process may be started now
                self._waiting[self._pool.submit(_in_worker, work, arguments)] = key
        except BrokenProcessPool:
            raise RfbenchError(_WORKER_LOST) from None
        if len(self._waiting) > 2 * self._count:
            yield from self._finished()

    def drain(self) -> Iterator[tuple[Key, Result]]:
        """Yield the rest."""
        while self._waiting:
            yield from self._finished()

    def _finished(self) -> Iterator[tuple[Key, Result]]:
        done, _ = wait(self._waiting, return_when=FIRST_COMPLETED)
        for future in done:
            key = self._waiting.pop(future)
            try:
                yield key, future.result()
            except BrokenProcessPool:
                raise RfbenchError(_WORKER_LOST) from None


_worker: Scorer | None = None


def _start_worker(names: tuple[str, ...], setting: Setting, identities: Mapping[str, str]) -> None:
    """In a scoring process: one thread, so that processes do not spin on each other's cores."""
    global _worker
    import signal

    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    os.dup2(2, 1)  # the command's stdout is for its results, whatever a metric or a library prints
    warnings.showwarning = _unheard
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    _worker = Scorer(names, setting, identities)
    _exit_with_parent()


def _unheard(*warning: object, **how: object) -> None:
    """Libraries' notices are for us, not for the user; what is ours the main process has said."""


def _exit_with_parent() -> None:
    """End this process when its parent is gone, however it ended: no orphan keeps memory or a GPU."""
    import threading

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()  # returns at once if the parent died while this process was starting
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _warm_up() -> None:
    """Import torch while the main process loads its models."""
    import torch

    torch.set_num_threads(1)


def _in_worker(work: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    assert _worker is not None
    return _in_one_thread(_worker, work, arguments)


def _in_one_thread(scorer: Scorer, work: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """Score with one thread, here as in a scoring process: sums in torch depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(scorer, *arguments)
    finally:
        torch.set_num_threads(threads)
