"""Finished runs as they are read: found in folders, typed whatever format wrote them, kept apart where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import NotComparable, RfbenchError, one_line
from bench.core.files import stem_of
from bench.core.typed import encode
from bench.records.folder import RunFolder
from bench.records.types import MetricRecord, Plan, RunRecord, Summary


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, ``run.json`` and ``summary.json``."""

    folder: RunFolder
    record: RunRecord
    summary: Summary

    @property
    def plan(self) -> Plan:
        """What was decided before the first image."""
        return self.record.plan

    @property
    def metrics(self) -> Mapping[str, MetricRecord]:
        """What was scored, by name."""
        return self.summary.metrics

    @property
    def name(self) -> str:
        """The folder's name, for messages and labels."""
        return one_line(self.folder.path.resolve().name, 80)

    @property
    def kinds(self) -> list[str]:
        """The estimates: the draw before the mean."""
        return sorted(self.summary.rows, key=lambda kind: (kind != "sample", kind))


def read_run(folder: RunFolder | Path) -> Run:
    """A finished run; RfbenchError for a folder that holds none, or one that is not finished."""
    folder = RunFolder(folder) if isinstance(folder, Path) else folder
    record, summary = folder.record(), folder.summary()
    if summary is None or not summary.rows:
        raise RfbenchError(
            f"{folder.path}: found no summary.json, expected a finished run; run the same command again to finish it "
            f"({one_line(record.command or 'rfbench run ...', 160)}), or leave the run out"
        )
    return Run(folder, record, summary)


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """The run folders among ``paths`` and one level below each; RfbenchError for a path that holds none."""
    found: list[RunFolder] = []
    seen: set[Path] = set()
    for path in paths:
        inside = [path] if RunFolder(path).is_run else sorted(p.parent for p in path.glob("*/run.json"))
        if not inside:
            raise RfbenchError(f"{path} holds no run (no run.json in it or one level below); give a folder made by run")
        for folder in inside:
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                found.append(RunFolder(folder))
    return found


def differences(a: Any, b: Any, name_a: str, name_b: str, where: str = "") -> list[str]:
    """What differs between two records or JSON values, one short line each, for messages."""
    a, b = (value if isinstance(value, dict | list | str | int | float | None) else encode(value) for value in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        lines = []
        for key in sorted({*a, *b}):
            inner = f"{where}.{key}" if where else str(key)
            lines += differences(a.get(key), b.get(key), name_a, name_b, inner)
        return lines
    if a == b:
        return []
    return [f"{where}: {name_a} {_brief(a)}, {name_b} {_brief(b)}"]


def _brief(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=False), 60)


def refuse_to_mix(
    a: Run,
    b: Run,
    metrics: Sequence[str] | None = None,
    *,
    verdict: str = "these runs cannot stand in one table",
    advice: str = "make a table of each",
    same_policy: bool = True,
    names: tuple[str, str] | None = None,
) -> None:
    """Raise NotComparable unless two runs may stand in one table: same data, same protocol, and one identity of each
    metric that both have.

    Images that another program made and that were held against a folder of pictures are of the same data where the ids
    and what was scored agree: the pictures' hashes.

    Parameters
    ----------
    metrics : of these alone; None for all.
    same_policy : without it, protocols may differ in ``policy`` alone: how the answer of a model of another scale comes
        to the grid belongs to the row, as the model's own options do; what is asked and compared is the same.
    names : what the runs are called in the message; their folders' paths unless given.
    """
    name_a, name_b = names or (str(a.folder.path), str(b.folder.path))
    parts = _other_data(a, b, name_a, name_b, same_policy=same_policy)
    for metric in sorted(a.metrics.keys() & b.metrics.keys()):
        if metrics is None or metric in metrics:
            first, second = a.metrics[metric].identity, b.metrics[metric].identity
            parts += differences(first, second, name_a, name_b, f"metric {metric}")
    if parts:
        raise NotComparable(f"{verdict}: {'; '.join(parts[:3])}; {advice}")


PICTURES = "pictures"
"""The protocol of images that were held against a folder of pictures, without a dataset."""


def _other_data(a: Run, b: Run, name_a: str, name_b: str, *, same_policy: bool) -> list[str]:
    """What differs of what two runs were asked and held against."""
    if PICTURES in (a.plan.protocol_name, b.plan.protocol_name):
        return _other_references(a, b, name_a, name_b)
    one, other = ({**run.plan.protocol, "policy": None} if not same_policy else run.plan.protocol for run in (a, b))
    return [
        *differences(one, other, name_a, name_b, "protocol"),
        *differences(a.plan.data, b.plan.data, name_a, name_b, "data"),
    ]


def _other_references(a: Run, b: Run, name_a: str, name_b: str) -> list[str]:
    """As pictures know neither protocol nor dataset, what was scored must be the same to the byte."""
    ids_a, ids_b = ([stem_of(i) for i in run.plan.data.ids] for run in (a, b))
    if set(ids_a) != set(ids_b):
        return [f"images: {name_a} has {len(ids_a)}, {name_b} {len(ids_b)}, and not of the same ids"]
    if not a.summary.references_sha256 or a.summary.references_sha256 != b.summary.references_sha256:
        return [f"references: the pictures that {name_a} was held against are not those of {name_b}"]
    return []
