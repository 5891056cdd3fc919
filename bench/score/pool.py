"""The scoring processes: each holds the metrics and their networks and scores whole images, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic

from bench.core.errors import RfbenchError
from bench.executors.crew import Crew, Job, Key, Lost, Result
from bench.metrics.base import Setting
from bench.metrics.scorer import Scorer

_REMEDY = "run the same command again, with fewer --workers"


class Scoring(Generic[Key, Result]):
    """The scoring processes (none: this process). At most two images a process wait, so memory stays bounded.

    A unit of work is a function of a module with arguments that can be pickled; it is called with the process's
    ``Scorer`` before them, in one thread. Results come back in any order, each with the key it was submitted under.
    """

    def __init__(
        self,
        identities: Mapping[str, str],
        setting: Setting,
        workers: int,
        crew: Callable[[Job], Crew[Key, Result]] | None = None,
    ) -> None:
        """``identities`` of the metrics to compute, by name, as planned: one that has another by then is a reason.

        ``crew`` makes the processes of a job; those of this machine unless given.
        """
        self._job = Job(Scorer, (tuple(identities), setting, dict(identities)))
        self._make, self._count = crew, workers
        self._crew: Crew[Key, Result] | None = None
        self._inline: Scorer | None = None

    def __enter__(self) -> Scoring[Key, Result]:
        if self._make is not None:
            self._crew = self._make(self._job)
        elif self._count:
            from bench.executors.processes import Processes

            processes = Processes[Key, Result](self._job, self._count, "scoring")
            processes.warm_up()
            self._crew = processes
        else:
            self._inline = self._job.build(*self._job.arguments)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._crew is not None:
            self._crew.close(finish=kind is None)

    def submit(self, key: Key, work: Callable[..., Result], *arguments: Any) -> Iterator[tuple[Key, Result]]:
        """Hand an image over; yields whatever has been scored meanwhile."""
        if self._crew is None:
            assert self._inline is not None
            yield key, _in_one_thread(self._inline, work, arguments)
            return
        try:
            self._crew.give(key, work, *arguments)
        except Lost as error:
            raise RfbenchError(f"{error}; {_REMEDY}") from None
        if len(self._crew.waiting) > 2 * self._crew.size:
            yield from self._finished()

    def drain(self) -> Iterator[tuple[Key, Result]]:
        """Yield the rest."""
        while self._crew is not None and self._crew.waiting:
            yield from self._finished()

    def _finished(self) -> Iterator[tuple[Key, Result]]:
        assert self._crew is not None
        try:
            yield from self._crew.take()
        except Lost as error:
            raise RfbenchError(f"{error}; {_REMEDY}") from None


def _in_one_thread(scorer: Scorer, work: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """Score with one thread, here as in a scoring process: sums in torch depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(scorer, *arguments)
    finally:
        torch.set_num_threads(threads)
