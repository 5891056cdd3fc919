"""A crew of a cluster: actors of Ray, on this machine or on many.

Ray starts processes and carries units and results; all else is ours. Each actor makes its state once from names and
paths, so nothing is shipped but texts and results, and only the driver writes. Ray repeats nothing (a task whose
process dies would be executed four times otherwise): a unit whose actor is lost is given to another one by us, a line
says so, and a unit that lost three actors ends the run.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.core.errors import RfbenchError, Unavailable, one_line
from bench.executors.crew import Crew, Job, Key, Lost, Result

_TRIES = 3
_AHEAD = 2
"""Units that an actor has before it, so that it need not wait for the driver."""
_BEGIN_S = 300.0  # for a process to start on every node


@dataclass
class Cluster:
    """A cluster, and how it is used.

    Attributes
    ----------
    actors : how many processes work at once; 0 for one a core, or one a GPU.
    gpus_each : GPUs of an actor, perhaps a part of one; 0 on processors.
    allow_mixed : whether GPUs of several kinds may work on one run.
    events : what went wrong and was mended, for ``host.json``.
    nodes : the kinds of device that worked, with how many actors on each.
    """

    actors: int = 0
    gpus_each: float = 0.0
    allow_mixed: bool = False
    events: list[str] = field(default_factory=list)
    nodes: dict[str, int] = field(default_factory=dict)

    def crew(self, job: Job, what: str) -> Actors[Any, Any]:
        """Actors for a job. Raises RfbenchError where none can be started."""
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
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": actors or None} if address == "local" else {}
    try:
        ray.init(
            address=None if address == "local" else address, log_to_driver=False, logging_level=logging.ERROR, **own
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise RfbenchError(
            f"--address {one_line(address, 60)}: no cluster of Ray answers ({one_line(error, 120)}); start one with "
            "'ray start --head', or give --address local"
        ) from None
    try:
        yield Cluster(actors, gpus_each, allow_mixed)
    finally:
        ray.shutdown()


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
            self._state, self._is_built = self._job.begin(), True
        return function(self._state, *arguments)


@dataclass
class _Given:
    """A unit in an actor's hands."""

    key: Any
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    actor: int
    tries: int = 1


class Actors(Crew[Key, Result]):
    """The actors of a job."""

    def __init__(self, job: Job, what: str, cluster: Cluster) -> None:
        self._job, self._what, self._cluster = job, what, cluster
        self.size = cluster.count()
        self._actors = {i: self._start() for i in range(self.size)}
        self._given: dict[Any, _Given] = {}
        self._look_at_devices()

    @property
    def waiting(self) -> list[Key]:
        return [given.key for given in self._given.values()]

    def give(self, key: Key, work: Callable[..., Result], *arguments: Any) -> None:
        self._hand(key, work, arguments, tries=1)

    def take(self) -> Iterator[tuple[Key, Result]]:
        import ray

        done, _ = ray.wait(list(self._given), num_returns=1)
        for reference in done:
            given = self._given[reference]
            try:
                result = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                self._lost(reference, given, error)
                continue
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                if isinstance(cause, RfbenchError):
                    raise cause from None
                raise RfbenchError(f"a {self._what} actor failed: {one_line(cause, 200)}") from None
            del self._given[reference]
            yield given.key, result

    def close(self, *, finish: bool) -> None:
        import ray

        for actor in self._actors.values():
            ray.kill(actor, no_restart=True)
        self._actors, self._given = {}, {}

    # --- actors -----------------------------------------------------------------------------------------------

    def _start(self) -> Any:
        import ray

        share = {"num_gpus": self._cluster.gpus_each} if self._cluster.gpus_each else {"num_cpus": 1}
        remote = ray.remote(**share, max_restarts=0, max_task_retries=0)(_Worker)
        return remote.remote(self._job, sys.path)

    def _look_at_devices(self) -> None:
        """Ask each actor what it computes on; RfbenchError for GPUs of several kinds, whose last digits differ."""
        import ray

        asked = [actor.device.remote() for actor in self._actors.values()]
        try:
            found = ray.get(asked, timeout=_BEGIN_S)
        except ray.exceptions.GetTimeoutError:
            raise RfbenchError(
                f"the cluster has no room for {self.size} actors; give fewer --actors, or wait for it"
            ) from None
        except ray.exceptions.RayError as error:
            raise RfbenchError(
                f"an actor cannot begin ({one_line(error, 160)}); rfbench has to be installed on every node"
            ) from None
        for name in found:
            self._cluster.nodes[name] = self._cluster.nodes.get(name, 0) + 1
        kinds = sorted(set(found))
        if len(kinds) > 1 and not self._cluster.allow_mixed:
            raise RfbenchError(
                f"the actors have devices of {len(kinds)} kinds ({'; '.join(kinds[:3])}), whose last digits differ; "
                "insist with --allow-mixed"
            )

    def _hand(self, key: Any, work: Callable[..., Any], arguments: tuple[Any, ...], *, tries: int) -> None:
        """To the actor with the least before it."""
        busy = dict.fromkeys(self._actors, 0)
        for given in self._given.values():
            busy[given.actor] = busy.get(given.actor, 0) + 1
        if not self._actors:
            raise Lost(f"all {self._what} actors were lost")
        i = min(self._actors, key=lambda one: (busy[one], one))
        reference = self._actors[i].work.remote(work, arguments)
        self._given[reference] = _Given(key, work, arguments, i, tries)

    def _lost(self, reference: Any, given: _Given, error: Exception) -> None:
        """An actor is gone: another one takes its place, and this unit."""
        del self._given[reference]
        line = f"a {self._what} actor was lost with {one_line(given.key, 60)} in hand ({one_line(error, 100)})"
        if given.tries >= _TRIES:
            raise Lost(f"{line}, the third one; see what this image does to a node")
        self._cluster.events.append(line)
        print(f"warning: {line}; another one does it", file=sys.stderr)
        if given.actor in self._actors:
            del self._actors[given.actor]
            self._actors[max(self._actors, default=given.actor) + 1] = self._start()
        self._hand(given.key, given.work, given.arguments, tries=given.tries + 1)
