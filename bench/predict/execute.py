"""Execute a plan: predict in this process, score in others, commit each image as it is done, resume by doing less.

Models of one run take turns on each batch, so a pair is read once and the reference's side of a metric is computed
once for all of them. Memory holds a bounded number of images, however many there are.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench.core import provenance
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.core.progress import Progress
from bench.data.captions import NONE, TEMPLATE
from bench.data.dataset import Dataset, Record
from bench.metrics.base import Estimate
from bench.metrics.scorer import ItemScores, Scorer, distributions
from bench.models.call import Answer, Model
from bench.predict.plan import Plan
from bench.protocols.base import Protocol, Task
from bench.records.folder import RunFolder
from bench.score.estimates import estimates
from bench.score.finish import finish_run
from bench.score.kept import named
from bench.score.pool import Scoring, usual_workers

_Scores = dict[str, ItemScores | ItemError]


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
        "software": provenance.software(distributions(plan.metrics)),
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
    return usual_workers(predicting=True)


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
    pool = Scoring[_Job, _Scores](plan.identities, plan.setting, _workers(plan))
    with Progress(total, total - left, label) as progress, pool as scoring:
        for model in models:
            model.load()
            if model.spec.supports_prompt and plan.protocol.captions not in (NONE, TEMPLATE):
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
                mine |= {"retreats": model.retreats} | model.adapter.session()
            progress.advance("predict", len(records))
            progress.advance("score", len(records) - len(tasks))
            for job in jobs.values():
                if not job.answers:
                    progress.advance("score")
                    continue
                for done, scores in scoring.submit(job, _score, job.task, job.answers, plan.protocol):
                    _commit(folders, done, scores)
                    progress.advance("score")
        for model in models:
            model.adapter.close()
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
        return [prepare_task(plan.protocol, plan.dataset, record) for record in records]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
        upcoming: Future[list[Task | ItemError]] | None = reader.submit(prepare, work[0]) if work else None
        for i, records in enumerate(work):
            assert upcoming is not None
            tasks = upcoming.result()
            upcoming = reader.submit(prepare, work[i + 1]) if i + 1 < len(work) else None
            yield records, tasks


def prepare_task(protocol: Protocol, dataset: Dataset, record: Record) -> Task | ItemError:
    """The task of one record, or why it has none; nothing that a file or a plugin brings can raise."""
    try:
        return protocol.prepare(dataset.load(record, protocol.reads))
    except RfbenchError as error:
        return ItemError(one_line(error))
    except Exception as error:  # a reader or a plugin that fails loses its image, not the run
        return ItemError(f"{type(error).__name__}: {one_line(error, 200)}")


# --- scoring --------------------------------------------------------------------------------------------------


def _score(scorer: Scorer, task: Task, answers: Mapping[str, Answer], protocol: Protocol) -> _Scores:
    """The scores of one image's answers by all models, in a scoring process."""
    found: _Scores = {}
    shown: dict[str, dict[str, Estimate]] = {}
    for label, answer in answers.items():
        try:
            shown[label] = estimates(answer, task, protocol)
        except RfbenchError as error:  # an answer that cannot be brought to display
            found[label] = ItemError(f"{label}: {one_line(error)}")
    return found | scorer.score_models(task.reference, shown)


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
            "facts_of_estimate": found.facts,
            "scores": {
                kind: {
                    name: {"value": s.value} if s.reason is None else {"reason": str(s.reason)}
                    for name, s in by_metric.items()
                }
                for kind, by_metric in found.scores.items()
            },
        }
        folders[label].write_item(item, named(found))


def _notes(found: ItemScores) -> list[str]:
    """What metrics noted, such as pixels that they left out."""
    return [f"{name}: {s.note}" for name, s in found.scores.get("sample", {}).items() if s.note]


def _error_item(image_id: str, scene_id: str, error: str) -> dict[str, Any]:
    return {"id": image_id, "scene_id": scene_id, "error": error, "scores": {}, "notes": []}
