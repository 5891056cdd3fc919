"""What runs cost: seconds and peak memory of each model and metric, as ``host.json`` of each run remembers them.

Nothing here is part of a result: two equal runs may have cost differently, and a run that was copied without its
``host.json`` has no costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.core import memory
from bench.core.errors import one_line
from bench.records.folder import RunFolder
from bench.reports.document import Cell, Document, Grid, Row, Section, figures, words
from bench.reports.numbers import shown
from bench.reports.render import data


@dataclass(frozen=True)
class Cost:
    """What a model's images, or a metric's scores, cost; None where it is not known.

    Attributes
    ----------
    count : images that were predicted, or predictions that were scored.
    each_s : seconds for one of them, in one process; ``load_s`` to load the model once.
    processes : the most that worked at once.
    host_bytes, device_bytes : the most memory of a process.
    machine : where.
    """

    name: str
    count: int
    each_s: float | None
    load_s: float | None = None
    processes: int = 1
    host_bytes: int | None = None
    device_bytes: int | None = None
    machine: str = ""


@dataclass(frozen=True)
class Costs:
    """The models in the order of the runs, and the metrics, the most expensive first."""

    models: tuple[Cost, ...]
    metrics: tuple[Cost, ...]


def costs(folders: Sequence[RunFolder]) -> Costs:
    """What some runs cost, over all their sessions."""
    models = tuple(_model(folder) for folder in folders)
    found: dict[str, list[Mapping[str, Any]]] = {}
    for folder in folders:
        for session in folder.sessions():
            of_metrics = session.get("metrics") if session.get("stage") == "score" else None
            for name, of_one in of_metrics.items() if isinstance(of_metrics, dict) else ():
                if isinstance(of_one, dict):
                    found.setdefault(one_line(name, 60), []).append(of_one)
    metrics = [_metric(name, sessions) for name, sessions in found.items()]
    return Costs(models, tuple(sorted(metrics, key=lambda cost: (-(cost.each_s or 0.0), cost.name))))


def _model(folder: RunFolder) -> Cost:
    sessions = [s for s in folder.sessions() if s.get("stage") == "predict" and _number(s.get("predicted"))]
    count = int(_sum(sessions, "predicted"))
    machine = sessions[-1].get("machine") if sessions else None
    facts = machine if isinstance(machine, dict) else {}
    return Cost(
        name=one_line(folder.record().plan.model.label, 60),
        count=count,
        each_s=_sum(sessions, "predict_s") / count if count else None,
        load_s=_most(sessions, "load_s"),
        processes=int(_most(sessions, "processes") or 1),
        host_bytes=_bytes(sessions, "peak_host_bytes"),
        device_bytes=_bytes(sessions, "peak_device_bytes"),
        machine=one_line(facts.get("accelerator") or facts.get("processor") or "", 60),
    )


def _metric(name: str, sessions: Sequence[Mapping[str, Any]]) -> Cost:
    count = int(_sum(sessions, "predictions"))
    return Cost(
        name=name,
        count=count,
        each_s=_sum(sessions, "seconds") / count if count else None,
        host_bytes=_bytes(sessions, "peak_host_bytes"),
        device_bytes=_bytes(sessions, "peak_device_bytes"),
    )


def _number(value: Any) -> float:
    """A number of a file that anybody may have written; 0 for anything else."""
    plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
    return float(value) if plain and math.isfinite(value) and value > 0 else 0.0


def _sum(sessions: Iterable[Mapping[str, Any]], key: str) -> float:
    return sum(_number(s.get(key)) for s in sessions)


def _most(sessions: Iterable[Mapping[str, Any]], key: str) -> float | None:
    return max((n for s in sessions if (n := _number(s.get(key)))), default=None)


def _bytes(sessions: Iterable[Mapping[str, Any]], key: str) -> int | None:
    most = _most(sessions, key)
    return int(most) if most is not None else None


# --- as it is shown -------------------------------------------------------------------------------------------

_NOTES = (
    "seconds are those of one process, memory is the most that one held (with a model's own process, where it has one)",
    "of metrics, seconds are for one model's image, the reference's side shared among the models scored together",
)


def document_of(found: Costs) -> Document:
    """Two grids: models, and metrics."""
    columns = ("images", "s an image", "s to load", "processes", "memory", "device memory")
    models = tuple(
        Row(cost.name, tuple(map(_cell, (
            str(cost.count), _seconds(cost.each_s), _seconds(cost.load_s), str(cost.processes),
            _memory(cost.host_bytes), _memory(cost.device_bytes), cost.machine,
        )))) for cost in found.models
    )  # fmt: skip
    metrics = tuple(
        Row(cost.name, tuple(map(_cell, (
            str(cost.count), _seconds(cost.each_s), _memory(cost.host_bytes), _memory(cost.device_bytes),
        )))) for cost in found.metrics
    )  # fmt: skip
    of_metrics = tuple(map(figures, ("predictions", "s each", "memory", "device memory")))
    sections = [Section("Models", Grid("model", (*map(figures, columns), words("machine")), models))]
    if metrics:
        sections.append(Section("Metrics", Grid("metric", of_metrics, metrics)))
    return Document(tuple(sections), notes=_NOTES)


def to_csv(found: Costs) -> str:
    """A line for each model and metric, at full precision."""
    head = ("kind", "name", "count", "each_s", "load_s", "processes", "host_bytes", "device_bytes", "machine")
    rows = [[kind, *(getattr(cost, key) for key in head[1:])] for kind, cost in _all(found)]
    return data.to_csv(head, rows)


def to_json(found: Costs) -> str:
    """The same in JSON."""
    keys = ("name", "count", "each_s", "load_s", "processes", "host_bytes", "device_bytes", "machine")
    return data.to_json(
        {"format": 1, "costs": [{"kind": kind} | {k: getattr(cost, k) for k in keys} for kind, cost in _all(found)]}
    )


def _all(found: Costs) -> list[tuple[str, Cost]]:
    return [*(("model", cost) for cost in found.models), *(("metric", cost) for cost in found.metrics)]


def _cell(text: str) -> Cell:
    return Cell(text=text)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else shown(seconds, None)


def _memory(size: int | None) -> str:
    return "" if size is None else memory.shown(size)
