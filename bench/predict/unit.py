"""A unit of predicting: one batch of a run's plan, answered by a model, in whatever process that lies.

A process of a crew makes the model and its tasks from texts alone (``Recipe``): nothing is shipped to it but names, and
nothing comes back but records and the bytes of predictions, which the caller writes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core import memory, provenance
from bench.core.contain import described, kept_traceback
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.core.files import digest
from bench.data.captions import with_captions
from bench.data.dataset import Dataset, Record
from bench.data.find import resolve_dataset
from bench.metrics.base import Reference
from bench.models.call import Answer, Model
from bench.protocols.base import Protocol, Task
from bench.protocols.find import resolve_protocol
from bench.records.folder import RunFolder
from bench.records.predictions import serialised
from bench.records.types import ItemRecord


@dataclass(frozen=True)
class Made:
    """What became of an image: its record, and the bytes of its prediction (None where it failed).

    ``traceback`` is that of a plugin's error.
    """

    item: ItemRecord
    data: bytes | None = None
    traceback: str = ""


@dataclass(frozen=True)
class Answered:
    """A batch that was predicted.

    Attributes
    ----------
    seconds : of reading and the model's work.
    peak_host_bytes, peak_device_bytes : the most memory that the process (and its guest) ever held with the model.
    retreats : what running out of memory has changed in the process so far.
    """

    made: tuple[Made, ...]
    seconds: float
    peak_host_bytes: int = 0
    peak_device_bytes: int | None = None
    retreats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A model, a protocol and data as a request names them, for a process that makes them again.

    ``identity`` is the digest of all that can change a prediction: a process in which the model is another one (its
    code was edited meanwhile, a node has other weights) says so instead of predicting. So does one whose data have
    another ``fingerprint`` (of the first ``limit`` images), where one is given: for processes of other machines.
    """

    model: str
    protocol: str
    data: str
    split: str
    device: str
    dtype: str
    draws: int
    seed: int
    weights_dir: Path | None
    identity: str
    captions: tuple[str, ...] = ()
    limit: int | None = None
    fingerprint: str = ""


@dataclass
class Predictor:
    """A model with the tasks that it answers: what a process makes once, and ``predict_unit`` works with."""

    model: Model
    protocol: Protocol
    dataset: Dataset
    records: Mapping[str, Record]
    seed: int
    peak: memory.Peak

    def tasks(self, ids: Sequence[str]) -> list[Task | ItemError]:
        """The tasks of a batch, or why an image has none."""
        return [prepare_task(self.protocol, self.dataset, self.records[i]) for i in ids]

    def answer(self, ids: Sequence[str], tasks: Sequence[Task | ItemError]) -> tuple[Made, ...]:
        """Predict a batch."""
        good = [t for t in tasks if isinstance(t, Task)]
        model = self.model
        answers = iter(model.predict(good, run_seed=self.seed, draws=model.draws, policy=self.protocol.policy))
        found = [next(answers) if isinstance(task, Task) else task for task in tasks]
        return tuple(
            made_of(task, answer)
            if isinstance(task, Task) and isinstance(answer, Answer)
            else _failed(self.records[image_id], answer)
            for image_id, task, answer in zip(ids, tasks, found, strict=True)
        )


def predictor(recipe: Recipe, device: str | None = None) -> Predictor:
    """Make a model from its recipe and load it, on ``device`` if not the recipe's; for a process of a crew.

    RfbenchError where the model or the data are other ones here.
    """
    recipe = dataclasses.replace(recipe, device=device or recipe.device)
    provenance.deterministic()
    protocol = resolve_protocol(recipe.protocol)
    dataset = with_captions(resolve_dataset(recipe.data), protocol.captions)
    model = Model(recipe.model, device=recipe.device, dtype=recipe.dtype, weights_dir=recipe.weights_dir)
    model.draws = recipe.draws
    model.fit_to(dataset, recipe.split, protocol)
    if identity_digest(model) != recipe.identity:
        raise RfbenchError(f"model {model.label}: its code, options or weights are other ones in another process")
    records = sorted(dataset.records(recipe.split), key=lambda r: r.id)[: recipe.limit]
    if recipe.fingerprint and dataset.fingerprint(records) != recipe.fingerprint:
        raise RfbenchError(f"{recipe.data} holds other data than those of the run; bring the same files to every node")
    peak = memory.Peak()
    memory.restart_device_peak(recipe.device)
    model.load()
    if recipe.captions:
        model.prepare(recipe.captions)
    return Predictor(model, protocol, dataset, {r.id: r for r in records}, recipe.seed, peak)


def identity_digest(model: Model) -> str:
    """The digest of all of a model that can change a prediction."""
    return digest(model.identity())


def predict_unit(state: Predictor, ids: tuple[str, ...]) -> Answered:
    """Read and predict one batch, in a process of a crew."""
    began = time.perf_counter()
    made = state.answer(ids, state.tasks(ids))
    return Answered(
        made,
        time.perf_counter() - began,
        state.peak.seen(),
        state.model.device_peak_bytes(),
        tuple(state.model.retreats),
    )


# --- an image -------------------------------------------------------------------------------------------------


def prepare_task(protocol: Protocol, dataset: Dataset, record: Record) -> Task | ItemError:
    """The task of one record, or why it has none; nothing that a file or a plugin brings can raise."""
    try:
        return protocol.prepare(dataset.load(record, protocol.reads))
    except RfbenchError as error:
        return ItemError(one_line(error))
    except (Exception, SystemExit) as error:  # a reader or a plugin that fails loses its image, not the run
        return ItemError(described(error, 200), kept_traceback(error))


def made_of(task: Task, answer: Answer, files: Mapping[str, Any] | None = None) -> Made:
    """An answer as the record and the bytes that a run keeps of it."""
    header = {"unit": answer.unit, "bands": answer.bands, "normalised": answer.normalised}
    data = serialised(answer.stored(), header)
    item = ItemRecord(
        id=task.id,
        scene_id=task.scene_id,
        size_px=task.size,
        normalisation=task.normalisation,
        caption=task.caption,
        notes=(*task.notes, *answer.notes),
        facts=answer.facts,
        prediction_sha256=hashlib.sha256(data).hexdigest(),
        reference_sha256=reference_hash(task.reference),
        files=dict(files or {}),
    )
    return Made(item, data)


def _failed(record: Record, why: Answer | ItemError) -> Made:
    assert isinstance(why, ItemError)
    return Made(ItemRecord(id=record.id, scene_id=record.scene_id, error=str(why)), None, why.traceback)


def keep(folder: RunFolder, made: Made) -> None:
    """Write an image's prediction, then commit its record."""
    if made.data is not None:
        folder.predictions.write_bytes(made.item.id, made.data)
    folder.predictions.commit(made.item)


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
