"""The end of a run: rows of all images, the reduction of set metrics, the summary."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench.core.files import digest
from bench.metrics.base import Features, Metric, Score
from bench.metrics.scorer import POINT, built
from bench.predict.plan import Plan
from bench.protocols.base import Task
from bench.records.folder import FORMAT, OF_THE_SET, Parts, RunFolder
from bench.score.kept import Kept

FACT = "fact:"
"""What the columns of a model's facts begin with."""
LABELS = {"sample": "{}", "mean": "{}@mean"}


def finish_run(plan: Plan, label: str, folder: RunFolder) -> int:
    """Write scores, features and summary of a run whose images are all committed; returns how many failed.

    Images are taken in the order of their ids and sums are exact (``math.fsum``), so neither batches nor workers nor
    an interruption can move a digit.
    """
    items = {r.id: folder.committed(r.id) for r in plan.records}
    metrics = {name: built(name, plan.setting) for name in plan.metrics}
    kinds = [k for k in LABELS if any(k in item["scores"] for item in items.values())] or ["sample"]
    done = [item for item in items.values() if not item["error"]]
    summaries: dict[str, Any] = {}
    all_features: dict[str, np.ndarray | Parts] = {}
    for kind in kinds:
        sets = {
            name: _reduce(plan, metric, kind, done, folder, all_features)
            for name, metric in metrics.items()
            if metric.level == "set" and name not in plan.skipped
        }
        for name, (_, shares) in sets.items():
            for item, share in zip(done, shares, strict=True):
                if share is not None:
                    item["scores"][kind][name] = {"value": share}
        summaries[kind] = {
            "label": LABELS[kind].format(label),
            "metrics": {
                name: _summarise(plan, metric, kind, done, sets.get(name, (None, []))[0])
                for name, metric in metrics.items()
            },
        }
    failed = sorted(item["id"] for item in items.values() if item["error"])
    scores_sha256 = folder.write_scores(list(_rows(plan, items, kinds)), _columns(plan.metrics, items.values()))
    summary = {
        "format": FORMAT,
        "plan_sha256": plan.runs[label]["plan_sha256"],
        "status": "some images failed" if failed else "complete",
        "images": len(items),
        "failed": failed,
        "scores_sha256": scores_sha256,
        "predictions_sha256": digest([[i["id"], i.get("prediction_sha256")] for i in items.values()]),
        "rows": summaries,
    }
    folder.finish(summary, all_features)
    return len(failed)


def _reduce(
    plan: Plan,
    metric: Metric,
    kind: str,
    done: Sequence[dict[str, Any]],
    folder: RunFolder,
    kept: dict[str, np.ndarray | Parts],
) -> tuple[dict[str, Any], list[float | None]]:
    """A set metric over the images that have its features: its summary, and each image's share where it has one."""
    features = Kept(folder.item_features, [item["id"] for item in done], kind, metric.name)
    shares: list[float | None] = [None] * len(done)
    if not features:
        return {}, shares
    kept |= features.arrays()
    others = _other_references(plan, metric, set(features.ids)) if metric.fits_references else []
    fitted: dict[str, np.ndarray] = {}
    found, of_each = reduced(metric, features, others, fitted)
    kept |= {f"{kind}/{metric.name}/fitted:{key}": array for key, array in fitted.items()}
    if of_each is not None:
        by_id = dict(zip(features.ids, of_each, strict=True))
        shares = [by_id.get(item["id"]) for item in done]
    return found, shares


def _other_references(plan: Plan, metric: Metric, present: set[str]) -> list[Features]:
    """The features of the references whose images have none, so that a fit is the same for all models of a dataset."""
    from bench.predict.execute import prepare_task  # which imports this module

    found = []
    for record in plan.records:
        if record.id not in present:
            task = prepare_task(plan.protocol, plan.dataset, record)
            features = metric.gather_reference(task.reference) if isinstance(task, Task) else None
            if features is not None and not isinstance(features, Score):
                found.append(features)
    return found


def reduced(
    metric: Metric,
    features: Sequence[Features],
    others: Sequence[Features] = (),
    fitted: dict[str, np.ndarray] | None = None,
) -> tuple[dict[str, Any], Sequence[float | None] | None]:
    """A set metric of the features of its images: value, n, reason, details; and each image's share if it has one.

    ``others`` are features of references alone, for a metric that fits them; ``fitted`` takes its model, whose hash is
    in the identity of such a value.
    """
    result = metric.combine(features, others)
    if isinstance(result, Score):
        return {"value": None, "n": len(features), "reason": str(result.reason)}, None
    found: dict[str, Any] = {"value": result.value, "n": len(features), "reason": None}
    if result.details:
        found["details"] = dict(result.details)
    if result.fit:
        found["identity"] = metric.identity(result.fit)
    if fitted is not None:
        fitted |= result.fitted
    return found, result.per_image


def _summarise(
    plan: Plan, metric: Metric, kind: str, done: Sequence[dict[str, Any]], of_set: dict[str, Any] | None
) -> dict[str, Any]:
    """One cell of the summary."""
    name = metric.name
    skipped = plan.skipped.get(name)
    if skipped is not None and kind == "mean" and "distribution" in metric.needs:
        skipped = POINT
    return summarised(metric, [item["scores"].get(kind, {}).get(name, {}) for item in done], of_set, skipped)


def summarised(
    metric: Metric, scores: Sequence[Mapping[str, Any]], of_set: Mapping[str, Any] | None, skipped: str | None = None
) -> dict[str, Any]:
    """One metric over all images: value, n, spread, why there is none or why some images have none.

    Parameters
    ----------
    scores : of each image its ``value`` or its ``reason``, or neither.
    of_set : what ``reduced`` found, for a set metric that some image had features for.
    skipped : why the metric was not computed at all.
    """
    cell: dict[str, Any] = {"value": None, "n": 0, "reason": skipped, "identity": metric.identity()}
    if skipped is not None:
        return cell
    values = [s["value"] for s in scores if s.get("value") is not None]
    reasons = Counter(s["reason"] for s in scores if s.get("reason"))
    if of_set:
        cell |= of_set
    elif values and metric.level == "image":
        mean = math.fsum(values) / len(values)
        cell |= {"value": mean, "n": len(values)}
        if len(values) > 1:
            cell["std"] = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    if cell["value"] is None and cell["reason"] is None:
        cell["reason"] = reasons.most_common(1)[0][0] if reasons else "no image was scored"
    if reasons:
        cell["reasons"] = dict(sorted(reasons.items()))
    return cell


def _columns(metrics: Sequence[str], items: Iterable[dict[str, Any]]) -> list[str]:
    facts = sorted({name for item in items for kind in LABELS for name in _facts(item, kind)})
    plain = [
        "id",
        "scene_id",
        "estimate",
        "height_px",
        "width_px",
        "error",
        "notes",
        "normalisation",
        "prediction_sha256",
    ]
    return plain + [c for m in metrics for c in (m, f"{m}:reason")] + [FACT + name for name in facts]


def _rows(plan: Plan, items: dict[str, dict[str, Any]], kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each image and estimate; a metric without a value has its reason beside it."""
    for item in items.values():
        for kind in kinds if not item["error"] else kinds[:1]:
            height, width = item.get("size_px") or (None, None)
            row: dict[str, Any] = {
                "id": item["id"],
                "scene_id": item["scene_id"],
                "estimate": kind,
                "height_px": height,
                "width_px": width,
                "error": item["error"],
                "notes": "; ".join(item.get("notes", [])) or None,
                "normalisation": json.dumps(item.get("normalisation"), sort_keys=True),
                "prediction_sha256": item.get("prediction_sha256"),
            }
            for metric in plan.metrics:
                score = item["scores"].get(kind, {}).get(metric, {})
                value = score.get("value")
                reason = (
                    score.get("reason") or plan.skipped.get(metric) or ("no score" if item["error"] else OF_THE_SET)
                )
                row[metric] = math.nan if value is None else float(value)
                row[f"{metric}:reason"] = reason if value is None else None
            yield row | {FACT + name: value for name, value in _facts(item, kind).items()}


def _facts(item: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What a model said of an image, and what metrics found of this estimate of it."""
    return {**item.get("facts", {}), **item.get("facts_of_estimate", {}).get(kind, {})}
