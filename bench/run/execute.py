"""Execute a plan: predict in this process, score in others, commit each image as it is done, resume by doing less.

Models of one run take turns on each batch, so a pair is read once and the reference's side of a metric is computed
once for all of them. Memory holds a bounded number of images, however many there are.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench.core import provenance
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.data.dataset import Record
from bench.metrics.base import Setting
from bench.metrics.scorer import ItemScores, Scorer
from bench.models.call import Answer, Model
from bench.protocols.base import Protocol, Task
from bench.run.estimates import estimates
from bench.run.finish import finish_run
from bench.run.plan import Plan
from bench.run.progress import Progress
from bench.store import RunFolder

_Scores = dict[str, ItemScores | ItemError]
_WORKER_LOST = (
    "a scoring process was ended from outside (out of memory?); run the same command again, with fewer --workers"
)
_WORKERS_AT_MOST = 4  # by default; each holds torch and the metrics' networks


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    folders: tuple[RunFolder, ...]
    failed: int


def execute(plan: Plan, command_line: Sequence[str] = ()) -> Outcome:
    """Run a plan to its end, or go on where an earlier run of the same plan stopped.

    Returns the run folders and how many images failed. An interrupted run keeps every committed image.
    """
    folders = {label: RunFolder(path) for label, path in plan.folders.items()}
    flags = provenance.deterministic()
    _set_threads()
    failed = 0
    with ExitStack() as stack:
        for label, folder in folders.items():
            stack.enter_context(folder.lock())
            folder.start(plan.runs[label] | {"determinism": flags}, _session(plan, command_line))
            _report_other_software(folder, plan.runs[label]["software"])
        pending = {label: _pending(plan, folder) for label, folder in folders.items()}
        work = [batch for batch in plan.batches() if any(r.id in ids for r in batch for ids in pending.values())]
        facts = _run_batches(plan, folders, pending, work) if work else {}
        for label, folder in folders.items():
            if pending[label] or folder.summary() is None:
                failed += finish_run(plan, label, folder)
            else:
                folder.tidy()
            folder.end_session({"ended": _now()} | facts.get(label, {}))
    return Outcome(tuple(folders.values()), failed)


def _pending(plan: Plan, folder: RunFolder) -> set[str]:
    """The images that are still to be done: the uncommitted ones, those that failed, all of a damaged run."""
    ids = [r.id for r in plan.records]
    summary = folder.summary()
    if summary is not None and not summary["failed"]:
        if folder.is_intact(ids):
            return set()
        print(f"warning: {folder.path} was complete but is damaged; it is made again", file=sys.stderr)
        folder.reopen()
    return {i for i in ids if not folder.is_done(i)}


def _session(plan: Plan, command_line: Sequence[str]) -> dict[str, Any]:
    request = plan.request
    return {
        "started": _now(),
        "machine": provenance.machine(plan.device),
        "device": plan.device,
        "workers": _workers(plan),
        "command_line": list(command_line),
        "data": request.data,
        "weights_dir": str(request.weights_dir) if request.weights_dir else None,
        "software": provenance.software(),
    }


def _report_other_software(folder: RunFolder, now: Mapping[str, Any]) -> None:
    first = folder.run()["software"]
    packages = first.get("packages", {})
    changed = [k for k, v in now["packages"].items() if packages.get(k) != v]
    changed += [k for k in ("rfbench", "python", "commit") if first.get(k) != now.get(k)]
    if changed:
        print(f"warning: {folder.path} was begun with other versions of {', '.join(changed)}", file=sys.stderr)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _set_threads() -> None:
    """One core is left to scoring; prediction has the others. The number does not depend on ``--workers``."""
    import torch

    torch.set_num_threads(max(1, provenance.cores() - 1))


def _workers(plan: Plan) -> int:
    if plan.request.workers is not None:
        return plan.request.workers
    return max(1, min(_WORKERS_AT_MOST, provenance.cores() - 1))


# --- prediction -----------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """An image on its way through scoring, with what its rows will need."""

    task: Task
    answers: dict[str, Answer]
    hashes: dict[str, str]


def _run_batches(
    plan: Plan, folders: dict[str, RunFolder], pending: dict[str, set[str]], work: list[tuple[Record, ...]]
) -> dict[str, dict[str, Any]]:
    """Predict and score what is pending; returns for each model how long it took and what memory made of it."""
    facts: dict[str, dict[str, Any]] = {}
    models = [m for m in plan.models if pending[m.label]]
    total = len(plan.records)
    left = sum(len(batch) for batch in work)
    label = ", ".join(m.label for m in models)
    with Progress(total, total - left, label) as progress, _Scoring(plan) as scoring:
        for model in models:
            model.load()
            if model.spec.supports_prompt and plan.protocol.captions == "dataset":
                model.adapter.prepare(sorted({r.caption for batch in work for r in batch}))
        for records, prepared in _prefetched(plan, work):
            tasks = [t for t in prepared if isinstance(t, Task)]
            jobs = {t.id: _Job(t, {}, {}) for t in tasks}
            for model in models:
                # A batch is the unit of commit: with one image missing, all of it is run again.
                if pending[model.label].isdisjoint({r.id for r in records}):
                    continue
                for record, task in zip(records, prepared, strict=True):
                    if not isinstance(task, Task):
                        folders[model.label].write_item(_error_item(record.id, record.scene_id, str(task)), {})
                started = time.perf_counter()
                _predict(plan, model, folders[model.label], tasks, jobs)
                mine = facts.setdefault(model.label, {"predicted": 0, "predict_s": 0.0})
                mine["predicted"] += len(tasks)
                mine["predict_s"] = round(mine["predict_s"] + time.perf_counter() - started, 6)
                mine["retreats"] = model.retreats
            progress.advance("predict", len(records))
            progress.advance("score", len(records) - len(tasks))
            for job in jobs.values():
                for done, scores in scoring.submit(job):
                    _commit(folders, done, scores)
                    progress.advance("score")
        for done, scores in scoring.drain():
            _commit(folders, done, scores)
            progress.advance("score")
    return facts


def _predict(plan: Plan, model: Model, folder: RunFolder, tasks: list[Task], jobs: dict[str, _Job]) -> None:
    request = plan.request
    answers = model.predict(tasks, run_seed=request.seed, draws=request.draws, policy=plan.protocol.policy)
    for task, answer in zip(tasks, answers, strict=True):
        if isinstance(answer, ItemError):
            folder.write_item(_error_item(task.id, task.scene_id, str(answer)), {})
            continue
        header = {"unit": answer.unit, "bands": answer.bands, "normalised": answer.normalised}
        jobs[task.id].hashes[model.label] = folder.write_prediction(task.id, answer.stored(), header)
        jobs[task.id].answers[model.label] = answer


def _prefetched(
    plan: Plan, work: list[tuple[Record, ...]]
) -> Iterator[tuple[tuple[Record, ...], list[Task | ItemError]]]:
    """Batches with their tasks; while one is predicted the next is read."""

    def prepare(records: tuple[Record, ...]) -> list[Task | ItemError]:
        return [_prepare(plan, record) for record in records]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
        upcoming: Future[list[Task | ItemError]] | None = reader.submit(prepare, work[0]) if work else None
        for i, records in enumerate(work):
            assert upcoming is not None
            tasks = upcoming.result()
            upcoming = reader.submit(prepare, work[i + 1]) if i + 1 < len(work) else None
            yield records, tasks


def _prepare(plan: Plan, record: Record) -> Task | ItemError:
    try:
        return plan.protocol.prepare(plan.dataset.load(record, plan.protocol.reads))
    except RfbenchError as error:
        return ItemError(one_line(error))
    except Exception as error:  # a reader or a plugin that fails loses its image, not the run
        return ItemError(f"{type(error).__name__}: {one_line(error, 200)}")


# --- scoring --------------------------------------------------------------------------------------------------


class _Scoring:
    """The scoring processes (none: this process). At most two images a process wait, so memory stays bounded."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._count = _workers(plan)
        self._names = plan.computed_metrics
        self._waiting: dict[Future[_Scores], _Job] = {}
        self._pool: ProcessPoolExecutor | None = None
        self._inline: Scorer | None = None

    def __enter__(self) -> _Scoring:
        if self._count:
            # Spawned, not forked: a fork would inherit torch's thread pools, and CUDA does not survive one.
            self._pool = ProcessPoolExecutor(
                self._count, multiprocessing.get_context("spawn"), _start_worker, (self._names, self._plan.setting)
            )
            self._pool.submit(_warm_up)
        else:
            self._inline = Scorer(self._names, self._plan.setting)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._pool:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def submit(self, job: _Job) -> Iterator[tuple[_Job, _Scores]]:
        """Hand an image over; yields whatever has been scored meanwhile."""
        if not job.answers:
            yield job, {}
            return
        work = (job.task, job.answers, self._plan.protocol)
        if self._pool is None:
            assert self._inline is not None
            yield job, _score_here(self._inline, *work)
            return
        try:
            self._waiting[self._pool.submit(_score, *work)] = job
        except BrokenProcessPool:
            raise RfbenchError(_WORKER_LOST) from None
        if len(self._waiting) > 2 * self._count:
            yield from self._finished(FIRST_COMPLETED)

    def drain(self) -> Iterator[tuple[_Job, _Scores]]:
        """Yield the rest."""
        while self._waiting:
            yield from self._finished(FIRST_COMPLETED)

    def _finished(self, when: str) -> Iterator[tuple[_Job, _Scores]]:
        done, _ = wait(self._waiting, return_when=when)
        for future in done:
            job = self._waiting.pop(future)
            try:
                yield job, future.result()
            except BrokenProcessPool:
                raise RfbenchError(_WORKER_LOST) from None


_worker: Scorer | None = None


def _start_worker(names: tuple[str, ...], setting: Setting) -> None:
    """In a scoring process: one thread, so that processes do not spin on each other's cores."""
    global _worker
    import signal

    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    _worker = Scorer(names, setting)
    _exit_with_parent()


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


def _score(task: Task, answers: Mapping[str, Answer], protocol: Protocol) -> _Scores:
    assert _worker is not None
    return _score_here(_worker, task, answers, protocol)


def _score_here(scorer: Scorer, task: Task, answers: Mapping[str, Answer], protocol: Protocol) -> _Scores:
    """Score with one thread, here as in a scoring process: sums in torch depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: _Scores = {}
    try:
        for label, answer in answers.items():
            try:
                found[label] = scorer.score(task.reference, estimates(answer, task, protocol))
            except RfbenchError as error:  # an answer that cannot be brought to display
                found[label] = ItemError(f"{label}: {one_line(error)}")
    finally:
        torch.set_num_threads(threads)
    return found


# --- commit ---------------------------------------------------------------------------------------------------


def _commit(folders: dict[str, RunFolder], job: _Job, scores: _Scores) -> None:
    task = job.task
    for label, answer in job.answers.items():
        found = scores[label]
        if isinstance(found, ItemError):
            folders[label].write_item(_error_item(task.id, task.scene_id, str(found)), {})
            continue
        item = {
            "id": task.id,
            "scene_id": task.scene_id,
            "error": None,
            "size_px": list(task.size),
            "normalisation": task.normalisation,
            "caption": task.caption,
            "notes": [*task.notes, *answer.notes, *_notes(found)],
            "prediction_sha256": job.hashes[label],
            "facts": answer.facts,
            "scores": {
                kind: {
                    name: {"value": s.value} if s.reason is None else {"reason": s.reason}
                    for name, s in by_metric.items()
                }
                for kind, by_metric in found.scores.items()
            },
        }
        features = {
            f"{kind}/{name}/{key}": array
            for kind, by_metric in found.features.items()
            for name, kept in by_metric.items()
            for key, array in kept.items()
        }
        folders[label].write_item(item, features)


def _notes(found: ItemScores) -> list[str]:
    """What metrics noted, such as pixels that they left out."""
    return [f"{name}: {s.note}" for name, s in found.scores.get("sample", {}).items() if s.note]


def _error_item(image_id: str, scene_id: str, error: str) -> dict[str, Any]:
    return {"id": image_id, "scene_id": scene_id, "error": error, "scores": {}, "notes": []}
