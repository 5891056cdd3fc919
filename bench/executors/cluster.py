"""A crew of a cluster: actors of Ray, on this machine or on many.

Ray starts processes and carries units and results; all else is ours. Each actor makes its state once from names and
paths, so nothing is shipped but texts and results, and only the driver writes. Ray repeats nothing (a task whose
process dies would be executed four times otherwise): a unit whose actor is lost is given to another one by us, a line
says so, and a unit that lost three actors ends the run.
"""

from __future__ import annotations

import itertools
import logging
import os
import platform
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.core.errors import RfbenchError, Unavailable, one_line
from bench.executors.crew import CannotBegin, Crew, Job, Key, Lost, Result

_TRIES = 3
_BEGIN_S = 300.0  # for a process to start on every node
_OTHERS_S = 60.0  # for the others once one is there
_ANSWER_S = 10.0  # for a cluster to take a connection


@dataclass
class Cluster:
    """A cluster, and how it is used.

    Attributes
    ----------
    actors : how many processes work at once; 0 for one a core, or one a GPU.
    gpus_each : GPUs of an actor, perhaps a part of one; 0 on processors.
    allow_mixed : whether GPUs of several kinds may work on one run.
    events : what went wrong with the last crew and was mended, for ``host.json``.
    nodes : the kinds of device that its actors have had, with how many have each now.
    """

    actors: int = 0
    gpus_each: float = 0.0
    allow_mixed: bool = False
    events: list[str] = field(default_factory=list)
    nodes: dict[str, int] = field(default_factory=dict)

    def crew(self, job: Job, what: str) -> Actors[Any, Any]:
        """Actors for a job. Raises RfbenchError where none can be started."""
        self.events, self.nodes = [], {}
        return Actors(job, what, self)

    @property
    def device(self) -> str:
        """What an actor computes on."""
        return "cuda" if self.gpus_each else "cpu"

    def count(self) -> int:
        """How many actors there are to be."""
        import ray

        found = ray.cluster_resources()
        usual = found.get("GPU", 0) / self.gpus_each if self.gpus_each else found.get("CPU", 1)
        return self.actors or max(1, int(usual))


@contextmanager
def cluster(address: str, *, actors: int = 0, gpus_each: float = 0.0, allow_mixed: bool = False) -> Iterator[Cluster]:
    """A cluster of Ray: ``local`` starts one in this machine, ``auto`` finds the one that runs here, ``HOST:PORT`` is
    that of another machine.

    Raises
    ------
    Unavailable
        Without the package.
    RfbenchError
        Where no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise Unavailable("the package ray is not installed; pip install 'rfbench[ray]' installs it") from None
    # Nothing is told to anybody, and no page is served. Actors stand back for others no more than this process does.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_DEDUP_LOGS="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        RAY_IGNORE_UNHANDLED_ERRORS="1",
    )
    _look_for(address)
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": actors or None} if address == "local" else {}
    try:
        # "local" and not None, which would join whatever cluster a file in /tmp/ray tells of, even one long gone.
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray has many kinds, some of them private
        raise _no_cluster(address, one_line(error, 120)) from None
    try:
        yield Cluster(actors, gpus_each, allow_mixed)
    finally:
        ray.shutdown()


def _look_for(address: str) -> None:
    """RfbenchError where nothing listens at HOST:PORT, at once: Ray itself looks for the better part of a minute."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    host, colon, port = address.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) < 2**16):
        if address in ("auto", "local") or "://" in address:
            return
        raise RfbenchError(f"--address: found '{one_line(address, 60)}', expected auto, local or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or one_line(error)) from None


def _no_cluster(address: str, why: str) -> RfbenchError:
    return RfbenchError(
        f"--address {one_line(address, 60)}: no cluster of Ray answers ({why}); start one with 'ray start --head', or "
        "give --address local"
    )


class _OtherKind(RfbenchError):
    """An actor was ended, since its device is of another kind than those of the others."""


class _Worker:
    """In an actor: makes the state once, and works on units."""

    def __init__(self, job: Job, path: list[str]) -> None:
        # Before torch: one thread on a processor, whatever Ray has given the process.
        from bench.executors.processes import one_thread

        sys.path += [folder for folder in path if folder not in sys.path]
        one_thread()
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._job, self._state, self._is_built = job, None, False

    def device(self) -> str:
        """The kind of device that it computes on, and the process's number."""
        from bench.core import provenance

        if os.environ.get("CUDA_VISIBLE_DEVICES"):
            import torch

            if torch.cuda.is_available():
                return torch.cuda.get_device_name(0)
        return str(provenance.machine("cpu")["processor"])

    def work(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """One unit."""
        import torch

        if not self._is_built:
            torch.set_num_threads(1)
            try:
                self._state, self._is_built = self._job.begin(), True
            except CannotBegin as error:
                raise CannotBegin(f"on {platform.node()}: {error}") from None
        return function(self._state, *arguments)


@dataclass
class _Given:
    """A unit that did not come back yet; ``actor`` is who has it, and ``lost`` how many were lost at work on it."""

    key: Any
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    lost: int = 0
    actor: int = -1


class Actors(Crew[Key, Result]):
    """The actors of a job.

    One that is lost is replaced where the cluster has room for another; units go only to those that have begun, so that
    a node which is gone for good makes the rest slower and stops nothing.
    """

    def __init__(self, job: Job, what: str, cluster: Cluster) -> None:
        self._job, self._what, self._cluster = job, what, cluster
        self.size = cluster.count()
        self._numbers = itertools.count()
        self._ready: dict[int, Any] = {}
        self._kinds: dict[int, str] = {}
        self._starting: dict[Any, tuple[int, Any]] = {}  # by what says that it has begun
        self._given: dict[Any, _Given] = {}
        self._homeless: list[_Given] = []  # while no actor is there to take them
        try:
            for _ in range(self.size):
                self._start()
            self._wait_for_all()
        except BaseException:
            self.close(finish=False)
            raise

    @property
    def waiting(self) -> list[Key]:
        return [given.key for given in (*self._given.values(), *self._homeless)]

    def give(self, key: Key, work: Callable[..., Result], *arguments: Any) -> None:
        self._hand(_Given(key, work, arguments))

    def take(self) -> Iterator[tuple[Key, Result]]:
        import ray

        # Where nobody works, those that start have their time; where somebody does, a unit takes as long as it takes.
        limit = None if self._given else _BEGIN_S
        done, _ = ray.wait([*self._starting, *self._given], num_returns=1, timeout=limit)
        if not done:
            raise Lost(f"all {self._what} actors were lost, and the cluster has no room for another")
        for reference in done:
            if reference in self._starting:
                self._replaced(reference)
                continue
            at_work = self._at_work(self._given[reference].actor)
            given = self._given.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                if isinstance(cause, RfbenchError):
                    raise cause from None
                raise RfbenchError(f"a {self._what} actor failed: {one_line(cause, 200)}") from None
            except ray.exceptions.RayError as error:  # the actor is gone, or its node with the result
                self._lost(given, at_work, error)
                continue
            yield given.key, result

    def close(self, *, finish: bool) -> None:
        import ray

        for actor in (*self._ready.values(), *(actor for _, actor in self._starting.values())):
            ray.kill(actor, no_restart=True)
        self._ready, self._starting, self._given, self._homeless = {}, {}, {}, []

    # --- actors -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        import ray

        share = {"num_gpus": self._cluster.gpus_each} if self._cluster.gpus_each else {"num_cpus": 1}
        remote = ray.remote(**share, max_restarts=0, max_task_retries=0)(_Worker)
        actor: Any = remote.remote(self._job, sys.path)
        self._starting[actor.device.remote()] = next(self._numbers), actor

    def _wait_for_all(self) -> None:
        """Until each actor says what it computes on, or has had its time while another is there: it joins when it can.

        Raises
        ------
        RfbenchError
            Where none can begin, or they have devices of several kinds.
        """
        import ray

        ends, failed = time.monotonic() + _BEGIN_S, 0
        while self._starting:
            done, _ = ray.wait([*self._starting], num_returns=1, timeout=max(ends - time.monotonic(), 0))
            if not done and not self._ready:
                raise RfbenchError("the cluster has no room for an actor; wait for it")
            if not done:
                self._note(
                    f"{len(self._ready)} of {self.size} {self._what} actors have room; the others join when they do"
                )
                return
            try:
                self._begun(done[0])
                ends = min(ends, time.monotonic() + _OTHERS_S)
            except Lost as error:  # perhaps with a node that is gone since
                failed += 1
                if failed >= _TRIES:
                    raise RfbenchError(f"{error}; rfbench has to be installed on every node") from None
                self._note(f"{error}; another one is started")
                self._start()

    def _begun(self, reference: Any) -> None:
        """An actor has begun: units are given to it. Lost where it could not; _OtherKind, and it is ended, where the
        last digits of its device differ."""
        import ray

        number, actor = self._starting.pop(reference)
        try:
            kind = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise Lost(f"a {self._what} actor cannot begin ({one_line(error, 160)})") from None
        nodes = self._cluster.nodes
        if nodes and kind not in nodes and not self._cluster.allow_mixed:
            ray.kill(actor, no_restart=True)
            raise _OtherKind(
                f"the {self._what} actors have devices of two kinds ({'; '.join(sorted([*nodes, kind]))}), whose "
                "last digits differ; insist with --allow-mixed"
            )
        self._ready[number], self._kinds[number] = actor, kind
        nodes[kind] = nodes.get(kind, 0) + 1
        homeless, self._homeless = self._homeless, []
        for given in homeless:
            self._hand(given)

    def _replaced(self, reference: Any) -> None:
        """One that comes late, perhaps in place of another, has begun or could not; others work for hours by then, and
        go on without it."""
        try:
            self._begun(reference)
        except (Lost, _OtherKind) as error:
            if not (self._ready or self._starting):
                raise
            late = "; the one that came late is ended" if isinstance(error, _OtherKind) else ""
            self._note(f"{error}{late}")

    def _hand(self, given: _Given) -> None:
        """To the actor with the least before it."""
        if not self._ready:
            self._homeless.append(given)
            return
        busy = Counter(other.actor for other in self._given.values())
        given.actor = min(self._ready, key=lambda number: (busy[number], number))
        self._given[self._ready[given.actor].work.remote(given.work, given.arguments)] = given

    def _at_work(self, actor: int) -> _Given:
        """The unit that an actor works on: the first that it was given, those behind it wait."""
        return next(given for given in self._given.values() if given.actor == actor)

    def _lost(self, given: _Given, at_work: _Given, error: Exception) -> None:
        """A unit's actor is gone, or its result: the unit goes to whoever is there, and another actor is started.

        Of the units that an actor had, each comes here; the loss counts once, and for the one that it worked on.
        """
        import ray

        is_actor = isinstance(error, ray.exceptions.RayActorError)
        if not is_actor:  # a result was lost with its node; the actor's next unit tells of the actor
            at_work = given
        if not is_actor or self._ready.pop(given.actor, None) is not None:
            at_work.lost += 1
            line = f"a {self._what} actor was lost with {one_line(at_work.key, 60)} in hand ({one_line(error, 100)})"
            if at_work.lost >= _TRIES:
                raise Lost(f"{line}, the third one; see what this image does to a node")
            self._note(f"{line}; another one does it")
        if is_actor and (kind := self._kinds.pop(given.actor, None)) is not None:
            self._cluster.nodes[kind] -= 1
            self._start()
        self._hand(given)

    def _note(self, line: str) -> None:
        self._cluster.events.append(line)
        print(f"warning: {line}", file=sys.stderr)
