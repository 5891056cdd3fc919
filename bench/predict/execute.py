"""Execute a plan: one model after the other predicts what is pending, and commits each batch as it is done.

A model is loaded, predicts, and is let go before the next one is loaded, so memory holds the largest of them and not
all. What is done already is not done again. Nothing is scored here: that is ``bench.score``'s part.
"""

from __future__ import annotations

import datetime
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from bench.core import provenance
from bench.core.contain import PluginFailed, described, kept_traceback
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.core.progress import Progress
from bench.core.typed import decode
from bench.data.captions import NONE, TEMPLATE
from bench.data.dataset import Dataset, Record
from bench.metrics.base import Reference
from bench.models.call import Answer, Model
from bench.predict.plan import Prepared, make_room
from bench.protocols.base import Protocol, Task
from bench.records.folder import RunFolder
from bench.records.types import ItemRecord, Software


class _LeftOut(PluginFailed):
    """A model that cannot be loaded after all; the others go on."""


_TRACEBACKS = 5  # kept of a session; the images after them fail alike


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


def predict(prepared: Prepared, command_line: Sequence[str] = ()) -> Outcome:
    """Predict what is pending of a plan. An interrupted call keeps every committed batch.

    Raises
    ------
    RfbenchError
        A folder holds another run, or another process runs in it.
    """
    flags = provenance.deterministic()
    _set_threads()
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
            folder.begin_session(session(prepared.device, command_line) | about)
            pending = _pending(prepared, folder)
            total, done = len(prepared.records), len(prepared.records) - len(pending)
            if done:
                print(f"{model.label}: {done} of {total} predictions were there", file=sys.stderr)
            outcome.done[model.label] = done
            facts: dict[str, Any] = {}
            try:
                if pending:
                    facts = _run(prepared, model, folder, pending)
                    outcome.new[model.label] = len(pending)
            except _LeftOut as error:
                outcome.left_out[model.label] = str(error)
                facts = {"error": str(error), "traceback": error.traceback}
            else:
                if pending or not folder.predictions.is_complete:
                    folder.predictions.finish(r.id for r in prepared.records)
                folder.tidy()
                outcome.folders[model.label] = folder
            folder.end_session({"ended": now()} | facts)
    return outcome


def _pending(prepared: Prepared, folder: RunFolder) -> set[str]:
    """The images that are still to be predicted: uncommitted ones, failed ones, and those whose file was damaged.

    A batch is the unit of commit: with one image missing, all of it is run again.
    """
    done = {r.id for r in prepared.records if folder.predictions.is_done(r.id)}
    damaged = [
        r.id for r in prepared.records
        if r.id not in done and (item := folder.predictions.item(r.id)) is not None and not item.error
    ]  # fmt: skip
    if damaged:
        print(
            f"warning: {folder.path}: {len(damaged)} predictions are damaged ({one_line(damaged[0], 60)}"
            f"{', ...' if len(damaged) > 1 else ''}); they are made again",
            file=sys.stderr,
        )
    return {r.id for batch in prepared.batches() if any(r.id not in done for r in batch) for r in batch}


def _run(prepared: Prepared, model: Model, folder: RunFolder, pending: set[str]) -> dict[str, Any]:
    """Predict the pending batches with one model; returns what ``host.json`` shall say of it."""
    work = [batch for batch in prepared.batches() if batch[0].id in pending]
    total, left = len(prepared.records), len(pending)
    tracebacks: list[str] = []
    spent = 0.0
    started = time.perf_counter()
    try:
        try:
            model.load()
            if model.spec.supports_prompt and prepared.protocol.captions not in (NONE, TEMPLATE):
                model.prepare(sorted({r.caption for batch in work for r in batch}))
        except RfbenchError as error:
            words = str(error) if str(error).startswith("model ") else f"model {model.label}: {error}"
            raise _LeftOut(words, getattr(error, "traceback", "")) from None
        loaded = time.perf_counter() - started
        with Progress(total, total - left, model.label, ("predict",)) as progress:
            for records, tasks in prefetched(prepared.protocol, prepared.dataset, work):
                began = time.perf_counter()
                _batch(prepared, model, folder, records, tasks, tracebacks)
                spent += time.perf_counter() - began
                progress.advance("predict", len(records))
        seen = {"retreats": model.retreats} | model.adapter.session()
    finally:
        model.close()
    facts = {"predicted": left, "load_s": round(loaded, 3), "predict_s": round(spent, 6), **seen}
    return facts | ({"tracebacks": tracebacks} if tracebacks else {})


def _batch(
    prepared: Prepared, model: Model, folder: RunFolder, records: Sequence[Record],
    tasks: Sequence[Task | ItemError], tracebacks: list[str],
) -> None:  # fmt: skip
    """Predict a batch and commit its images."""
    request = prepared.request
    good = [t for t in tasks if isinstance(t, Task)]
    answers = iter(model.predict(good, run_seed=request.seed, draws=request.draws, policy=prepared.protocol.policy))
    for record, task in zip(records, tasks, strict=True):
        answer = next(answers) if isinstance(task, Task) else task
        if isinstance(task, Task) and isinstance(answer, Answer):
            folder.predictions.commit(stored(folder, task, answer))
            continue
        assert isinstance(answer, ItemError)
        if answer.traceback and len(tracebacks) < _TRACEBACKS:
            tracebacks.append(answer.traceback)
        folder.predictions.commit(ItemRecord(id=record.id, scene_id=record.scene_id, error=str(answer)))


def stored(folder: RunFolder, task: Task, answer: Answer, files: Mapping[str, Any] | None = None) -> ItemRecord:
    """Write an answer's arrays; returns the record to commit."""
    header = {"unit": answer.unit, "bands": answer.bands, "normalised": answer.normalised}
    return ItemRecord(
        id=task.id,
        scene_id=task.scene_id,
        size_px=task.size,
        normalisation=task.normalisation,
        caption=task.caption,
        notes=(*task.notes, *answer.notes),
        facts=answer.facts,
        prediction_sha256=folder.predictions.write(task.id, answer.stored(), header),
        reference_sha256=reference_hash(task.reference),
        files=dict(files or {}),
    )


def reference_hash(reference: Reference) -> str | None:
    """The hash of the picture that an image is held against: its bytes as they are scored, and where it has data.

    Two runs with equal hashes were scored against the same pixels, whatever files and protocols these came from.
    """
    if reference.display is None:
        return None
    found = hashlib.sha256(str(reference.display.shape).encode())
    found.update(np.ascontiguousarray(reference.display).tobytes())
    found.update(np.packbits(reference.valid).tobytes())
    return found.hexdigest()


# --- reading ahead --------------------------------------------------------------------------------------------


def prefetched(
    protocol: Protocol, dataset: Dataset, work: Sequence[Sequence[Record]]
) -> Iterator[tuple[Sequence[Record], list[Task | ItemError]]]:
    """Batches with their tasks; while one is worked on the next is read."""

    def prepare(records: Sequence[Record]) -> list[Task | ItemError]:
        return [prepare_task(protocol, dataset, record) for record in records]

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
    except (Exception, SystemExit) as error:  # a reader or a plugin that fails loses its image, not the run
        return ItemError(described(error, 200), kept_traceback(error))


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


def _set_threads() -> None:
    """One core is left to reading and the system. Sums in torch depend on the number of threads."""
    import torch

    torch.set_num_threads(max(1, provenance.cores() - 1))
