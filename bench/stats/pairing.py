"""The scores of run folders, image by image, and what two of them have in common.

Images are paired by id, never by their place in a file. All numbers come from ``scores.parquet`` and
``features.safetensors``, so no model, no image and no network is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.core.errors import RfbenchError, one_line
from bench.core.files import sha256
from bench.records.folder import OF_THE_SET, RunFolder
from bench.stats.means import Inference, mean_of

if TYPE_CHECKING:
    from bench.metrics.base import Metric


@dataclass(frozen=True)
class Estimates:
    """The scores of one estimate of a run: draw 0 (``sample``), or the mean of the draws (``mean``).

    Attributes
    ----------
    kind : the estimate.
    scenes : the scene of each image, by id.
    values : by metric, the number of each image that has one, by id.
    reasons : by metric, why the others have none, by id.
    numbers : by metric, the mean or the set's number as ``summary.json`` has it, where it has one.
    """

    folder: RunFolder
    plan: Mapping[str, Any]
    kind: str
    scenes: Mapping[str, str]
    values: Mapping[str, Mapping[str, float]]
    reasons: Mapping[str, Mapping[str, str]]
    numbers: Mapping[str, float]

    def is_of_the_set(self, metric: str) -> bool:
        """Whether a metric's number is not the mean of its images', which such a metric as ECE may have too."""
        values, number = self.values[metric], self.numbers.get(metric)
        if number is None:
            return False
        return not values or not math.isclose(math.fsum(values.values()) / len(values), number, rel_tol=1e-9)

    def behind(self, metric: str) -> list[str]:
        """The images behind a metric's number, sorted: with a number of their own, or with a share in the set's."""
        values, reasons = self.values.get(metric, {}), self.reasons.get(metric, {})
        return sorted(i for i in self.scenes if i in values or reasons.get(i) == OF_THE_SET)


@dataclass(frozen=True)
class Paired:
    """A metric of two estimates on the images that both have it for.

    Attributes
    ----------
    ids : the images, sorted; ``scenes`` of each, and ``differences`` a - b of each (none for a metric of the set).
    a, b : the mean over these images, or the set's number; None where there is none.
    inference : of the difference, None with a ``reason``.
    left_out : how many of the run's images are not among them, by reason.
    """

    ids: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    differences: tuple[float, ...] = ()
    a: float | None = None
    b: float | None = None
    inference: Inference | None = None
    reason: str | None = None
    left_out: Mapping[str, int] | None = None


def estimates(folder: RunFolder) -> list[Estimates]:
    """The estimates of a finished run, the draw before the mean.

    RfbenchError where its scores are not those that its summary was made of, or an image has no scene.
    """
    record, summary = folder.run(), folder.summary()
    path = folder.path / "scores.parquet"
    if summary is None:
        raise RfbenchError(f"{folder.path}: found no summary.json, expected a finished run; run the same command again")
    if not path.is_file() or sha256(path) != summary.get("scores_sha256"):
        raise RfbenchError(f"{path} is not the file that summary.json was made of; run the same command again")
    frame = folder.scores()
    metrics = list(record["plan"]["metrics"])
    columns = ["id", "scene_id", "estimate", *metrics, *(f"{m}:reason" for m in metrics)]
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise RfbenchError(f"{path}: found no column '{one_line(missing[0], 60)}'; run the same command again")
    found = []
    for kind in sorted(summary["rows"], key=lambda k: (k != "sample", k)):
        rows = frame.loc[frame["estimate"] == kind, columns].to_dict("records")
        ids = [row["id"] for row in rows]
        twice = [i for i, count in Counter(ids).items() if count > 1]
        alone = [row["id"] for row in rows if not isinstance(row["scene_id"], str) or not row["scene_id"]]
        if twice or alone:
            what = f"image '{one_line(twice[0], 60)}' twice" if twice else f"no scene of '{one_line(alone[0], 60)}'"
            raise RfbenchError(f"{path}: found {what}; run the same command again")
        values: dict[str, dict[str, float]] = {m: {} for m in metrics}
        reasons: dict[str, dict[str, str]] = {m: {} for m in metrics}
        for row in rows:
            for metric in metrics:
                value = row[metric]
                if isinstance(value, int | float) and math.isfinite(value):
                    values[metric][row["id"]] = float(value)
                else:
                    reasons[metric][row["id"]] = one_line(row[f"{metric}:reason"] or "no score", 200)
        scenes = {row["id"]: row["scene_id"] for row in rows}
        cells = {m: cell["value"] for m, cell in summary["rows"][kind]["metrics"].items()}
        numbers = {m: float(v) for m, v in cells.items() if v is not None}
        found.append(Estimates(folder, record["plan"], kind, scenes, values, reasons, numbers))
    return found


def one_of(estimates: Estimates, metric: str) -> Inference | None:
    """The mean of one estimate's own numbers with its interval; None for a metric of the set or without numbers."""
    values = estimates.values.get(metric, {})
    if not values or estimates.is_of_the_set(metric):
        return None
    ids = sorted(values)
    return mean_of([values[i] for i in ids], [estimates.scenes[i] for i in ids])


def pair(a: Estimates, b: Estimates, metric: str) -> Paired:
    """A metric of ``a`` minus that of ``b``, over the images that both have."""
    if metric not in a.plan["metrics"] or metric not in b.plan["metrics"]:
        return Paired(reason="not part of both runs")
    if a.is_of_the_set(metric) or b.is_of_the_set(metric):
        return _pair_sets(a, b, metric)
    mine, theirs = a.values[metric], b.values[metric]
    ids = tuple(sorted(mine.keys() & theirs.keys()))
    reasons = Counter(_reason(a, b, metric, i) for i in sorted({*a.scenes, *b.scenes} - set(ids)))
    if not ids:
        return Paired(reason=_most(reasons, a, b, metric), left_out=dict(reasons))
    _check_scenes(a, b, ids)
    differences = tuple(mine[i] - theirs[i] for i in ids)
    scenes = tuple(a.scenes[i] for i in ids)
    means = [math.fsum(side[i] for i in ids) / len(ids) for side in (mine, theirs)]
    inference = mean_of(differences, scenes)
    return Paired(ids, scenes, differences, means[0], means[1], inference, left_out=dict(reasons))


def _pair_sets(a: Estimates, b: Estimates, metric: str) -> Paired:
    from bench.metrics.base import SetScore
    from bench.stats.sets import set_difference

    rule = _definition(a.plan, metric)
    if isinstance(rule, str):
        return Paired(reason=rule)
    found = []
    for side in (a, b):
        features = side.folder.features(side.kind, metric)
        if not features or metric not in side.numbers:
            return Paired(reason=_without_features(side, metric))
        ids = side.behind(metric)
        if len(ids) != len(features):
            return Paired(reason=f"{len(features)} images have features, {len(ids)} should have")
        again = rule.combine(features)
        if not isinstance(again, SetScore) or not math.isclose(again.value, side.numbers[metric], rel_tol=1e-4):
            return Paired(reason="its number is not that of the kept features alone, so no part of it can be judged")
        found.append(dict(zip(ids, features, strict=True)))
    common = sorted(found[0].keys() & found[1].keys())
    reasons = Counter(_reason(a, b, metric, i) for i in sorted({*a.scenes, *b.scenes} - set(common)))
    if not common:
        return Paired(reason=_most(reasons, a, b, metric), left_out=dict(reasons))
    _check_scenes(a, b, common)
    first, second = ([side[i] for i in common] for side in found)
    scenes = tuple(a.scenes[i] for i in common)
    inference = set_difference(rule, first, second, scenes)
    if isinstance(inference, str):
        return Paired(reason=inference, left_out=dict(reasons))
    numbers = [rule.combine(side) for side in (first, second)]
    values = [n.value if isinstance(n, SetScore) else None for n in numbers]
    return Paired(tuple(common), scenes, (), values[0], values[1], inference, left_out=dict(reasons))


def _definition(plan: Mapping[str, Any], metric: str) -> Metric | str:
    """The metric as it is installed here, which reduces the features; or why it is not the run's."""
    from bench.metrics.base import Setting
    from bench.metrics.scorer import metric_class

    protocol = plan["protocol"]
    try:
        setting = Setting(quantise=protocol.get("quantise"), border_px=int(protocol.get("border_px") or 0))
        found = metric_class(metric)(setting)
        identity = found.identity()
    except (RfbenchError, TypeError, ValueError) as error:
        return f"its definition is not here: {one_line(error, 120)}"
    theirs = plan["metrics"][metric]["identity"]
    if identity != theirs:
        return f"it is defined otherwise here ({identity}) than in the run ({one_line(theirs, 120)})"
    return found


def _reason(a: Estimates, b: Estimates, metric: str, image: str) -> str:
    for side in (a, b):
        why = side.reasons[metric].get(image)
        if why and why != OF_THE_SET:
            return why
    return "it is in one of the runs only"


def _without_features(side: Estimates, metric: str) -> str:
    if metric in side.numbers:
        return f"one number for all images, and {side.folder.path.name} did not keep its features"
    return Counter(side.reasons[metric].values()).most_common(1)[0][0] if side.reasons[metric] else "no number"


def _most(reasons: Counter[str], a: Estimates, b: Estimates, metric: str) -> str:
    why = reasons.most_common(1)[0][0] if reasons else "no image was scored"
    return f"no image has it in both runs ({why})" if a.values[metric] and b.values[metric] else why


def _check_scenes(a: Estimates, b: Estimates, ids: Sequence[str]) -> None:
    other = next((i for i in ids if a.scenes[i] != b.scenes[i]), None)
    if other is not None:
        raise RfbenchError(
            f"image '{one_line(other, 60)}' is of scene '{one_line(a.scenes[other], 60)}' in {a.folder.path} and of "
            f"'{one_line(b.scenes[other], 60)}' in {b.folder.path}; run both again on one dataset"
        )
