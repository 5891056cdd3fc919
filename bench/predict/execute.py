"""Execute a plan: one model after the other predicts what is pending, and each batch is committed as it is done.

A model is loaded, predicts, and is let go before the next one is loaded, so memory holds the largest of them and not
all. What is done already is not done again. Nothing is scored here: that is ``bench.score``'s part.

On a processor a model computes in one thread, and other processes, each with the model, predict beside this one where
that pays: no bit depends on how many they are, since noise comes from names and every process computes alike. With a
cluster (``bench.executors.cluster``) all is predicted there. Only this process writes into the run folder.
"""

from __future__ import annotations

import datetime
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.core import memory, provenance, registry
from bench.core.contain import PluginFailed
from bench.core.device import set_threads
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.core.progress import Progress
from bench.core.typed import decode
from bench.data.captions import NONE, TEMPLATE
from bench.data.dataset import Record
from bench.executors.cluster import Cluster
from bench.executors.crew import CannotBegin, Crew, Feeder, Job, Units
from bench.models.call import Model
from bench.predict.plan import Prepared, make_room
from bench.predict.unit import Answered, Predictor, Recipe, identity_digest, keep, predict_unit, predictor, prepare_task
from bench.protocols.base import Task
from bench.records.folder import RunFolder
from bench.records.types import Software

Ids = tuple[str, ...]


class _LeftOut(PluginFailed):
    """A model that cannot be loaded after all; the others go on."""


_TRACEBACKS = 5  # kept of a session; the images after them fail alike
_A_PROCESS_PAYS_FROM_S = 12.0  # of work for each: starting one, importing torch and loading the model takes seconds
_AHEAD_THERE = 2  # units that each process of a cluster has before it
_FILES_AT_ONCE, _SETTLE_EVERY_S = 512, 2.0  # are had on the disk together
_LARGEST_BATCH = 64
_MEMORY_MARGIN = 1.2  # on what a process was seen to need


@dataclass
class Outcome:
    """What predicting left behind.

    Attributes
    ----------
    folders : of the models that ran, by label.
    left_out : why a model did not run after all: loading it failed.
    done, new : how many predictions were there already, and how many were made, by label.
    """

    folders: dict[str, RunFolder]
    left_out: dict[str, str] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    new: dict[str, int] = field(default_factory=dict)


def predict(prepared: Prepared, command_line: Sequence[str] = (), cluster: Cluster | None = None) -> Outcome:
    """Predict what is pending of a plan, on a ``cluster`` if not here. An interrupted call keeps every committed batch.

    Raises
    ------
    RfbenchError
        A folder holds another run, or another process runs in it.
    """
    flags = provenance.deterministic()
    if cluster is None:
        set_threads(prepared.device)
    outcome = Outcome({})
    for model in prepared.models:
        label = model.label
        make_room(prepared.folders[label], prepared.runs[label], fresh=prepared.request.fresh)
    with ExitStack() as locks:
        for model in prepared.models:
            folder = prepared.folders[model.label]
            locks.enter_context(folder.lock())
            folder.start(msgspec.structs.replace(prepared.runs[model.label], determinism=flags))
            report_other_software(folder)
        for model in prepared.models:
            folder = prepared.folders[model.label]
            about = {"stage": "predict", "data": prepared.request.data}
            folder.begin_session(session("cpu" if cluster is not None else prepared.device, command_line) | about)
            run = _Run(prepared, model, folder, cluster)
            try:
                outcome.done[model.label], outcome.new[model.label] = run.finish()
            except _LeftOut as error:
                outcome.left_out[model.label] = str(error)
                run.facts |= {"error": str(error), "traceback": error.traceback}
            else:
                folder.tidy()
                outcome.folders[model.label] = folder
            folder.end_session({"ended": now()} | run.facts)
    return outcome


def _pending(batches: Sequence[Sequence[Record]], folder: RunFolder) -> tuple[list[Ids], int]:
    """The batches that are still to be predicted (those with an image that is uncommitted, that failed, or whose file
    was damaged), and how many images there are in all.

    A batch is the unit of commit: with one image missing, all of it is run again.
    """
    damaged, pending = list[str](), list[Ids]()
    for batch in batches:
        done = [folder.predictions.is_done(r.id) for r in batch]
        if not all(done):
            pending.append(tuple(r.id for r in batch))
        for record, is_done in zip(batch, done, strict=True):
            item = None if is_done else folder.predictions.item(record.id)
            damaged += [record.id] if item is not None and not item.error else []
    if damaged:
        print(
            f"warning: {folder.path}: {len(damaged)} predictions are damaged ({one_line(damaged[0], 60)}"
            f"{', ...' if len(damaged) > 1 else ''}); they are made again",
            file=sys.stderr,
        )
    return pending, sum(map(len, batches))


class _Run:
    """One model and its pending batches. ``facts`` are what ``host.json`` shall say of it."""

    def __init__(self, prepared: Prepared, model: Model, folder: RunFolder, cluster: Cluster | None = None) -> None:
        self.cluster = cluster
        self.prepared, self.model, self.folder = prepared, model, folder
        self.facts: dict[str, Any] = {}
        self._lock = threading.Lock()  # what a crew brings is kept in another thread
        self._tracebacks: list[str] = []
        self._retreats: dict[str, None] = {}
        self._is_loaded, self._settled = False, time.monotonic()
        self._peak = memory.Peak()
        self._spent_s, self._spent_here_s, self._batches_here = 0.0, 0.0, 0
        self._peak_bytes, self._device_peak_bytes = 0, list[int]()

    def finish(self) -> tuple[int, int]:
        """Predict what is pending; returns how many images were there, and how many were predicted."""
        model, folder = self.model, self.folder
        self._peak.restart()
        memory.restart_device_peak(model.device)
        try:
            size = model.batch_size or folder.record().batch_size_found or self._find_batch_size()
            pending, total = _pending(self.prepared.batches(size), folder)
            left = sum(map(len, pending))
            if total > left:
                print(f"{model.label}: {total - left} of {total} predictions were there", file=sys.stderr)
            if pending:
                self._run(pending, total)
        finally:
            if self._is_loaded:
                self._close()
            if self._tracebacks:
                self.facts["tracebacks"] = self._tracebacks
            folder.predictions.settle()
        if self.prepared.request.shard is None and (pending or not folder.predictions.is_complete):
            folder.predictions.finish(r.id for r in self.prepared.records)
        return total - left, left

    def _run(self, pending: list[Ids], total: int) -> None:
        left = sum(map(len, pending))
        captions = self._captions({i for batch in pending for i in batch})
        if self.cluster is None:
            self._load(captions)
        with Progress(total, total - left, self.model.label, ("predict",)) as progress:
            if self.cluster is None:
                self._predict(Units(pending), captions, progress)
            else:
                self._predict_there(self.cluster, Units(pending), captions, progress)
        self.facts |= {"predicted": left, "predict_s": round(self._spent_s, 6)} | self.model.adapter.session()

    def _close(self) -> None:
        """Let the model go, and say what it took."""
        self._saw(self._peak.seen(), self.model.device_peak_bytes(), self.model.retreats)
        self.model.close()
        memory.give_back()
        after = memory.resident_bytes()
        self.facts |= {
            "peak_host_bytes": self._peak_bytes,
            "peak_device_bytes": max(self._device_peak_bytes, default=None),
            "closed_host_bytes": after,
            "retreats": [*self._retreats],
        }
        most, held = memory.shown(self._peak_bytes), memory.shown(after)
        print(f"{self.model.label}: done; memory {most} at most, {held} now", file=sys.stderr)

    def _captions(self, wanted: Collection[str]) -> tuple[str, ...]:
        """The captions to come, of a model that reads the dataset's."""
        if not self.model.spec.supports_prompt or self.prepared.protocol.captions in (NONE, TEMPLATE):
            return ()
        return tuple(sorted({r.caption for r in self.prepared.records if r.id in wanted}))

    def _find_batch_size(self) -> int:
        """The most images that the device's memory holds at once with a margin, kept in ``run.json`` for those who go
        on with the run."""
        record = self.prepared.records[0]
        self._load(self._captions({record.id}))
        task = prepare_task(self.prepared.protocol, self.prepared.dataset, record)
        if isinstance(task, ItemError):
            found = 1
        else:
            found = self.model.largest_batch(task, policy=self.prepared.protocol.policy, at_most=_LARGEST_BATCH)
        self.folder.rewrite(msgspec.structs.replace(self.folder.record(), batch_size_found=found))
        print(f"{self.model.label}: batches of {found} fit into the device's memory", file=sys.stderr)
        return found

    def _load(self, captions: Sequence[str]) -> None:
        if self._is_loaded:  # to find how many images fit
            if captions:
                self.model.prepare(captions)
            return
        started = time.perf_counter()
        try:
            self.model.load()
            if captions:
                self.model.prepare(captions)
        except RfbenchError as error:
            words = str(error) if str(error).startswith("model ") else f"model {self.model.label}: {error}"
            raise _LeftOut(words, getattr(error, "traceback", "")) from None
        self._is_loaded = True
        self.facts["load_s"] = round(time.perf_counter() - started, 3)

    # --- predicting -------------------------------------------------------------------------------------------

    def _predict(self, units: Units[Ids], captions: tuple[str, ...], progress: Progress) -> None:
        """Predict all units: this process from the front, other processes, once they pay, from the end."""
        prepared = self.prepared
        records = {r.id: r for r in prepared.records}
        state = Predictor(
            self.model, prepared.protocol, prepared.dataset, records, prepared.request.seed, self._peak
        )  # fmt: skip
        helpers = _Helpers(self, captions, lambda answered: self._keep(answered, progress))
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader, helpers:
            ahead: tuple[Ids, Future[list[Task | ItemError]]] | None = None
            while True:
                helpers.start_where_they_pay(units)
                batch = units.take_front()
                if batch is None:
                    if helpers.join():
                        continue  # one was lost, and what it had in hand is to be done here
                    return
                tasks = ahead[1].result() if ahead is not None and ahead[0] == batch else state.tasks(batch)
                following = units.front()
                ahead = (following, reader.submit(state.tasks, following)) if following is not None else None
                began = time.perf_counter()
                made = state.answer(batch, tasks)
                seconds = time.perf_counter() - began
                self._spent_here_s, self._batches_here = self._spent_here_s + seconds, self._batches_here + 1
                self._keep(Answered(made, seconds), progress)

    def _predict_there(
        self, cluster: Cluster, units: Units[Ids], captions: tuple[str, ...], progress: Progress
    ) -> None:
        """Predict all units on a cluster; this process only writes."""
        if self.is_of_this_process:
            raise _LeftOut(f"model {self.model.label}: it is known to this process alone, and to no other of a cluster")
        job = Job(predictor, (self.recipe(captions, everywhere=True),))
        with cluster.crew(job, "predicting") as crew:
            feeder = Feeder(
                crew, units, predict_unit, lambda _, answered: self._keep(answered, progress), ahead=_AHEAD_THERE
            )  # fmt: skip
            feeder.work()
            self.facts |= {"processes": crew.size, "nodes": dict(cluster.nodes), "events": list(cluster.events)}
        if isinstance(feeder.error, CannotBegin):
            raise _LeftOut(f"model {self.model.label}: {feeder.error}")
        if feeder.error is not None:
            raise feeder.error
        self.facts |= {"peak_host_bytes": self._peak_bytes, "retreats": [*self._retreats]}
        self.facts["peak_device_bytes"] = max(self._device_peak_bytes, default=None)

    def _keep(self, answered: Answered, progress: Progress) -> None:
        """Commit a batch, from whatever process it came."""
        with self._lock:
            for made in answered.made:
                keep(self.folder, made)
                if made.traceback and len(self._tracebacks) < _TRACEBACKS:
                    self._tracebacks.append(made.traceback)
            if (
                self.folder.predictions.unsettled >= _FILES_AT_ONCE
                or time.monotonic() - self._settled > _SETTLE_EVERY_S
            ):
                self.folder.predictions.settle(wait=False)
                self._settled = time.monotonic()
            self._spent_s += answered.seconds
            self._saw(answered.peak_host_bytes, answered.peak_device_bytes, answered.retreats)
            progress.advance("predict", len(answered.made))

    def _saw(self, host: int, device: int | None, retreats: Sequence[str]) -> None:
        self._peak_bytes = max(self._peak_bytes, host)
        self._device_peak_bytes += [device] if device is not None else []
        self._retreats |= dict.fromkeys(retreats)

    # --- other processes --------------------------------------------------------------------------------------

    def helpers_that_pay(self, units: int) -> int:
        """How many processes beside this one the work that is left, the cores and the memory suggest."""
        workers = self.prepared.request.workers
        if len(self.prepared.devices) > 1:
            return min(len(self.prepared.devices) - 1, max(units, 0))
        if self.prepared.device != "cpu" or units < 1:
            return 0
        if workers is not None:
            return min(max(workers, 1) - 1, units)
        if not self._batches_here:
            return 0
        left_s = units * self._spent_here_s / self._batches_here
        count = min(provenance.cores() - 1, units, int(left_s / _A_PROCESS_PAYS_FROM_S))
        available = memory.available_bytes()
        if count > 0 and available is not None:
            count = min(count, int(available / (_MEMORY_MARGIN * max(self._peak.seen(), 1))))
        return max(count, 0)

    def recipe(self, captions: tuple[str, ...], *, everywhere: bool = False) -> Recipe:
        """From what another process makes the model and its tasks; ``everywhere``: of another machine, by whole paths,
        with the data's hash."""
        request, model = self.prepared.request, self.model
        data = str(Path(request.data).absolute()) if everywhere and Path(request.data).exists() else request.data
        return Recipe(
            limit=request.limit if everywhere else None,
            fingerprint=self.prepared.runs[model.label].plan.data.fingerprint if everywhere else "",
            model=model.text_everywhere() if everywhere else model.text,
            protocol=request.protocol,
            data=data,
            split=request.split,
            device=model.device,
            dtype=model.dtype,
            draws=model.draws,
            seed=request.seed,
            weights_dir=request.weights_dir.absolute() if request.weights_dir is not None else None,
            identity=identity_digest(model),
            captions=captions,
        )

    @property
    def is_of_this_process(self) -> bool:
        """Whether the model, the protocol or the dataset is known to this process alone, as a notebook's is."""
        request = self.prepared.request
        named: tuple[tuple[registry.Kind, str], ...] = (
            ("models", self.model.text), ("protocols", request.protocol), ("datasets", request.data)
        )  # fmt: skip
        return any(registry.is_in_process(kind, text.partition(":")[0]) for kind, text in named)


class _Helpers:
    """The processes that predict beside this one; none until they pay. Leaving ends them."""

    def __init__(self, run: _Run, captions: tuple[str, ...], done: Callable[[Answered], None]) -> None:
        self._run, self._captions, self._done = run, captions, done
        self._may_start = not run.is_of_this_process
        self._crew: Crew[Ids, Answered] | None = None
        self._feeder: Feeder[Ids, Answered] | None = None

    def __enter__(self) -> _Helpers:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._crew is not None:
            self._crew.close(finish=kind is None)

    def start_where_they_pay(self, units: Units[Ids]) -> None:
        """Start the processes if it is time to."""
        count = self._run.helpers_that_pay(len(units) - 1) if self._may_start else 0
        if not count:
            return
        from bench.executors.processes import Processes

        self._may_start = False
        self._run.facts["processes"] = 1 + count
        others = self._run.prepared.devices[1:]
        self._crew = Processes(Job(predictor, (self._run.recipe(self._captions),)), count, "predicting", others)
        self._feeder = Feeder(self._crew, units, predict_unit, lambda _, answered: self._done(answered))
        self._feeder.start()

    def join(self) -> bool:
        """Wait for what the processes have in hand; True where one failed, and its work was put back."""
        if self._feeder is None:
            return False
        self._feeder.join()
        error, self._feeder = self._feeder.error, None
        if error is None:
            return False
        said = error if isinstance(error, RfbenchError) else f"{type(error).__name__}: {one_line(error)}"
        print(f"warning: {self._run.model.label}: {said}; the rest is predicted in one process", file=sys.stderr)
        return True


# --- how it was made ------------------------------------------------------------------------------------------


def session(device: str, command_line: Sequence[str]) -> dict[str, Any]:
    """What ``host.json`` says of a session when it begins."""
    return {
        "started": now(),
        "machine": provenance.machine(device),
        "device": device,
        "command_line": list(command_line),
        "software": provenance.software(),
    }


def report_other_software(folder: RunFolder) -> None:
    """Warn where a run was begun with other versions than those that are here."""
    first, here = folder.record().software, decode(provenance.software(), Software, "software")
    changed = [k for k, v in here.packages.items() if first.packages.get(k) != v]
    changed += [k for k in ("rfbench", "python", "commit") if getattr(first, k) != getattr(here, k)]
    if changed:
        print(f"warning: {folder.path} was begun with other versions of {', '.join(changed)}", file=sys.stderr)


def now() -> str:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
