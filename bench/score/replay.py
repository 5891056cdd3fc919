"""From a run back to what its metrics look at, without the model: stored predictions, and the data they answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.contain import described, kept_traceback
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.data.captions import OWN, with_captions
from bench.data.dataset import Dataset, Record
from bench.data.find import resolve_dataset
from bench.metrics.base import Estimate
from bench.models.call import MAP, Answer
from bench.predict.unit import prepare_task
from bench.protocols.base import Protocol, Task
from bench.protocols.find import recorded_protocol
from bench.records.folder import RunFolder
from bench.records.predictions import hash_of
from bench.records.run import PICTURES
from bench.records.types import ItemRecord
from bench.score.estimates import estimates


class Tasks(ABC):
    """What the images of a run were asked of and are held against, again.

    Attributes
    ----------
    protocol : how estimates are brought to display, and cut.
    ids : the run's images, in the order of its plan.
    """

    protocol: Protocol
    ids: tuple[str, ...]

    @abstractmethod
    def task(self, image_id: str) -> Task | ItemError:
        """An image's task, or what is wrong with its files."""


@dataclass(frozen=True)
class DatasetTasks(Tasks):
    """The tasks of a dataset under a protocol."""

    protocol: Protocol
    dataset: Dataset
    records: dict[str, Record]

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """The run's images."""
        return tuple(self.records)

    def task(self, image_id: str) -> Task | ItemError:
        return prepare_task(self.protocol, self.dataset, self.records[image_id])


def tasks_of(run: RunFolder, data: str | None = None) -> Tasks:
    """The tasks of a run.

    Parameters
    ----------
    data : the dataset's folder or name (of pictures, the folder of references); None for where the run found it.

    Raises
    ------
    RfbenchError
        Other data than the run had, or a protocol that is not the one of the run any more.
    """
    record = run.record()
    if record.plan.protocol_name == PICTURES:
        from bench.score.foreign import picture_tasks

        return picture_tasks(run, Path(data) if data is not None else None)
    protocol = recorded_protocol(record.plan.protocol)
    dataset, records = dataset_of(run, data)
    return DatasetTasks(protocol, dataset, {r.id: r for r in records})


def replay(
    run: RunFolder, data: str | None = None, ids: Collection[str] | None = None
) -> Iterator[tuple[Task, dict[str, Estimate]]]:
    """The tasks of a run with the estimates (``sample``, perhaps ``mean``) that are scored, one at a time.

    Images that failed have none and are left out.

    Parameters
    ----------
    data : as for ``tasks_of``.
    ids : only these images (every one of them must have a prediction); None for all.

    Raises
    ------
    RfbenchError
        A run whose images were not all predicted, a prediction that is not the one of the run, or what ``tasks_of``
        raises.
    """
    items = run.images()
    tasks = tasks_of(run, data)
    for image_id in ids or ():
        if image_id not in items or items[image_id].error:
            state = "failed in this run" if image_id in items else "is not among this run's images"
            raise RfbenchError(f"{run.path}: the image '{one_line(image_id, 80)}' {state}; choose others")
    for image_id, item in items.items():
        if not item.error and (ids is None or image_id in ids):
            task = tasks.task(image_id)
            if isinstance(task, ItemError):
                raise task
            yield task, estimates(stored_answer(run, item), task, tasks.protocol)


def dataset_of(run: RunFolder, data: str | None = None) -> tuple[Dataset, list[Record]]:
    """The dataset of a run and the run's records, in its order; RfbenchError unless all their bytes are the same."""
    plan = run.record().plan
    wanted, captions = plan.data, str(plan.protocol.get("captions", OWN))
    if data is None:
        data = said_by_host(run, "data")
        try:
            if data is None:
                raise RfbenchError("host.json does not say where it lies")
            dataset = with_captions(resolve_dataset(data), captions)
        except RfbenchError as error:
            raise RfbenchError(
                f"{run.path}: the dataset {one_line(wanted.name, 60)} was not found again ({one_line(error, 160)}); "
                "give it with --data"
            ) from None
    else:
        dataset = with_captions(resolve_dataset(data), captions)
    of_split = {r.id: r for r in dataset.records(wanted.split)}
    records = [of_split[i] for i in wanted.ids if i in of_split]
    fingerprint = dataset.fingerprint(records)
    if len(records) != len(wanted.ids) or fingerprint != wanted.fingerprint:
        raise RfbenchError(
            f"{run.path}: {one_line(data, 120)} is not the dataset of the run: found fingerprint {fingerprint[:12]}, "
            f"expected {wanted.fingerprint[:12]}; give the unchanged one with --data"
        )
    return dataset, records


def said_by_host(run: RunFolder, key: str) -> str | None:
    """What the latest session of ``host.json`` that says anything of ``key`` says; None where none does."""
    said: list[Any] = [s.get(key) for s in run.sessions() if isinstance(s.get(key), str)]
    return said[-1] if said else None


def stored_answer(run: RunFolder, item: ItemRecord) -> Answer:
    """The answer that was stored for an image; RfbenchError unless its file is the one that was committed."""
    path = run.predictions.path(item.id)
    if hash_of(path) != item.prediction_sha256:
        state = "is not the prediction that was scored" if path.is_file() else "is missing"
        raise RfbenchError(f"{path} {state}; restore it, or run it again into another --out")
    arrays, header = run.predictions.read(item.id)
    on_grid = {name: array for name, array in arrays.items() if not name.startswith(("native_", MAP))}
    maps = {name.removeprefix(MAP): array for name, array in arrays.items() if name.startswith(MAP)}
    return Answer(on_grid, header["unit"], tuple(header["bands"]), bool(header["normalised"]), maps=maps)


def estimates_of(run: RunFolder, item: ItemRecord, task: Task, protocol: Protocol) -> dict[str, Estimate] | ItemError:
    """The estimates of an image's stored answer, or why it cannot be brought to what metrics look at."""
    try:
        return estimates(stored_answer(run, item), task, protocol)
    except RfbenchError as error:
        return ItemError(one_line(error))
    except Exception as error:  # a protocol of a plugin
        return ItemError(described(error), kept_traceback(error))
