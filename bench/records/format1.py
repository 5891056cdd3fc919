"""Run folders of format 1, in which one key held predictions and scores, as today's records.

Their ``run.json`` has the metrics in its plan, and their reasons are words: what kind of reason one is, is told by how
it begins, which the version that wrote it never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.core.reason import Kind, Reason

FORMAT = 1
OF_THE_SET = "one number for all images; it is in summary.json"
_PLAN = ("protocol", "data", "seed", "draws", "dtype", "device", "batch_size")
_RUN = ("plan_sha256", "software", "command", "licences", "unlike_paper", "sources", "determinism", "allow_train",
        "seen_in_training")  # fmt: skip
_BEGINS: tuple[tuple[str, Kind], ...] = (
    ("weights ", "missing"), ("package ", "missing"), ("takes minutes ", "slow"), ("failed: ", "failed"),
    ("one number for all images", "set"),
)  # fmt: skip


_DOES_NOT_SAY = "an older run that does not say whether it is the paper's model; run it again"


def run_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``RunRecord`` from a ``run.json`` of format 1; LookupError or TypeError where it is none."""
    plan = found["plan"]
    model = dict(plan["model"])
    known = {key: model.pop(key) for key in ("label", "spec", "options") if model.get(key) is not None}
    options = {str(k): str(v) for k, v in dict(known.get("options", {})).items()}
    record = {key: found[key] for key in _RUN if found.get(key) is not None}
    return (
        {"unlike_paper": _DOES_NOT_SAY}
        | record
        | {
            "format": FORMAT,
            "plan": {key: plan[key] for key in _PLAN if key in plan}
            | {"model": {"label": "", **known, "options": options, "adapter": model}},
        }
    )


def metrics_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``MetricRecord`` by name from a ``run.json`` of format 1."""
    sources = found.get("sources")
    of_metrics = sources.get("metrics") if isinstance(sources, dict) else None
    metrics = {}
    for name, described in found["plan"]["metrics"].items():
        source = of_metrics.get(name) if isinstance(of_metrics, dict) else None
        about = {k: source[k] for k in ("package", "citation", "licence") if k in source} if source else {}
        keys = ("identity", "title", "unit", "direction", "group")
        metrics[name] = {"name": name, **{k: described[k] for k in keys}, **about}
    return metrics


def summary_json(found: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Summary`` from a ``summary.json`` of format 1 and the ``run.json`` beside it."""
    kept = ("plan_sha256", "status", "images", "failed", "predictions_sha256")
    return {key: found[key] for key in kept if key in found} | {
        "format": FORMAT,
        "scores": {"scores.parquet": found.get("scores_sha256", "")},
        "metrics": metrics_json(run),
        "rows": {
            kind: {"label": row["label"], "metrics": {m: _cell(cell) for m, cell in row["metrics"].items()}}
            for kind, row in found["rows"].items()
        },
    }


def reason(text: str) -> Reason:
    """What kind of reason words of format 1 are."""
    kind: Kind = next((kind for begin, kind in _BEGINS if text.startswith(begin)), "unfit")
    return Reason(kind, text)


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    why = cell.get("reason")
    found = {k: cell[k] for k in ("identity", "value", "n", "std", "reasons", "details") if k in cell}
    if why is not None:
        given = reason(str(why))
        found["reason"] = {"kind": given.kind, "text": given.text}
    return found
