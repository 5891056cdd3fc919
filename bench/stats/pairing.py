"""The scores of run folders, image by image, and what two of them have in common.

Images are paired by id, never by their place in a file. All numbers come from the tables of scores and the features
that metrics of the set kept, so no model, no image and no network is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.core.errors import RfbenchError, one_line
from bench.core.files import stem_of
from bench.records.folder import REASON, RunFolder
from bench.records.predictions import hash_of
from bench.records.run import PICTURES, Run, read_run
from bench.records.scores import OF_THE_SET
from bench.stats.means import Inference, mean_of

if TYPE_CHECKING:
    from bench.metrics.base import Metric


@dataclass(frozen=True)
class RowScores:
    """The scores of one estimate of a run: draw 0 (``sample``), or the mean of the draws (``mean``).

    Attributes
    ----------
    run : the run.
    kind : the estimate.
    scenes : the scene of each image, by id.
    values : by metric, the number of each image that has one, by id.
    reasons : by metric, why the others have none, by id.
    numbers : by metric, the mean or the set's number as ``summary.json`` has it, where it has one.
    known_as : what the run itself calls images that are called here as another run calls them.
    """

    run: Run
    kind: str
    scenes: Mapping[str, str]
    values: Mapping[str, Mapping[str, float]]
    reasons: Mapping[str, Mapping[str, str]]
    numbers: Mapping[str, float]
    known_as: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        """Whether its images are another program's, held against a folder of pictures."""
        return self.run.plan.protocol_name == PICTURES

    def is_of_the_set(self, metric: str) -> bool:
        """Whether a metric's number is not the mean of its images', which such a metric as ECE may have too."""
        values, number = self.values[metric], self.numbers.get(metric)
        if number is None:
            return False
        return not values or not math.isclose(math.fsum(values.values()) / len(values), number, rel_tol=1e-9)

    def behind(self, metric: str) -> list[str]:
        """The images behind a metric's number, in the order of the run's own ids: with a number of their own, or with a
        share in the set's."""
        values, reasons = self.values.get(metric, {}), self.reasons.get(metric, {})
        found = (i for i in self.scenes if i in values or reasons.get(i) == OF_THE_SET)
        return sorted(found, key=lambda i: self.known_as.get(i, i))


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


def row_scores(folder: RunFolder) -> list[RowScores]:
    """The scores of a finished run, a row for each estimate, the draw before the mean.

    RfbenchError where its scores are not those that its summary was made of, or an image has no scene.
    """
    run = read_run(folder)
    _refuse_changed_scores(run)
    frame = folder.scores()
    metrics = list(run.metrics)
    columns = ["id", "scene_id", "estimate", *metrics, *(m + REASON for m in metrics)]
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise RfbenchError(f"{folder.path}: found no column '{one_line(missing[0], 60)}'; run the same command again")
    found = []
    for kind in run.kinds:
        rows = frame.loc[frame["estimate"] == kind, columns].to_dict("records")
        ids = [row["id"] for row in rows]
        twice = [i for i, count in Counter(ids).items() if count > 1]
        alone = [row["id"] for row in rows if not isinstance(row["scene_id"], str) or not row["scene_id"]]
        if twice or alone:
            what = f"image '{one_line(twice[0], 60)}' twice" if twice else f"no scene of '{one_line(alone[0], 60)}'"
            raise RfbenchError(f"{folder.path}: found {what}; run the same command again")
        values: dict[str, dict[str, float]] = {m: {} for m in metrics}
        reasons: dict[str, dict[str, str]] = {m: {} for m in metrics}
        for row in rows:
            for metric in metrics:
                value = row[metric]
                if isinstance(value, int | float) and math.isfinite(value):
                    values[metric][row["id"]] = float(value)
                else:
                    reasons[metric][row["id"]] = one_line(row[metric + REASON] or "no score", 200)
        scenes = {row["id"]: row["scene_id"] for row in rows}
        cells = run.summary.rows[kind].metrics
        numbers = {m: cell.value for m, cell in cells.items() if cell.value is not None}
        found.append(RowScores(run, kind, scenes, values, reasons, numbers))
    return found


def _refuse_changed_scores(run: Run) -> None:
    """RfbenchError unless the tables of scores are those that the summary was made of."""
    path = run.folder.path
    expected = {path / "scores.parquet": run.summary.scores.get("scores.parquet", "")} if run.folder.is_format1 else {}
    for metric in run.metrics.values() if not run.folder.is_format1 else ():
        if metric.name in run.summary.scores:
            scored = run.folder.scored.metric(metric.identity, metric.name)
            found = scored.read()
            expected[scored.path / "metric.json"] = run.summary.scores[metric.name]
            expected[scored.path / "scores.parquet"] = found.scores_sha256 if found else ""
    for file, sha256 in expected.items():
        if hash_of(file) != sha256:
            raise RfbenchError(f"{file} is not the file that summary.json was made of; run the same command again")


def one_of(scored: RowScores, metric: str) -> Inference | None:
    """The mean of one estimate's own numbers with its interval; None for a metric of the set or without numbers."""
    values = scored.values.get(metric, {})
    if not values or scored.is_of_the_set(metric):
        return None
    ids = sorted(values)
    return mean_of([values[i] for i in ids], [scored.scenes[i] for i in ids])


def number_over(scored: RowScores, metric: str, ids: Collection[str]) -> tuple[float | None, int, str]:
    """A metric over some of a row's images: the mean, or the set's number of their features; how many are behind it,
    and why there is none."""
    from bench.metrics.base import SetScore

    if not scored.is_of_the_set(metric):
        values = [v for i, v in scored.values[metric].items() if i in ids]
        if values:
            return math.fsum(values) / len(values), len(values), ""
        reasons = Counter(why for i, why in scored.reasons[metric].items() if i in ids)
        return None, 0, reasons.most_common(1)[0][0] if reasons else "no image was scored"
    rule = _definition(scored.run, metric)
    features, behind = scored.run.folder.features(scored.kind, metric), scored.behind(metric)
    if isinstance(rule, str) or len(features) != len(behind):
        return None, 0, rule if isinstance(rule, str) else _without_features(scored, metric)
    here = [one for i, one in zip(behind, features, strict=True) if i in ids]
    found = rule.combine(here) if here else None
    if not isinstance(found, SetScore):
        return None, len(here), str(found.reason) if found is not None and found.reason else "no image was scored"
    return found.value, len(here), ""


def pair(a: RowScores, b: RowScores, metric: str) -> Paired:
    """A metric of ``a`` minus that of ``b``, over the images that both have."""
    if metric not in a.run.metrics or metric not in b.run.metrics:
        return Paired(reason="not part of both runs")
    a, b = alike(a, b)
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


def alike(a: RowScores, b: RowScores) -> tuple[RowScores, RowScores]:
    """Foreign pictures know neither ids nor scenes, only the names of files: they get those of the run that does."""
    if a.is_foreign and not b.is_foreign:
        return _called(a, b), b
    if b.is_foreign and not a.is_foreign:
        return a, _called(b, a)
    return a, b


def _called(pictures: RowScores, other: RowScores) -> RowScores:
    """``pictures`` under the ids and with the scenes of ``other``."""
    names = {stem_of(i): i for i in other.scenes}
    ids = {i: names.get(stem_of(i), i) for i in pictures.scenes}
    return replace(
        pictures,
        scenes={ids[i]: other.scenes.get(ids[i], scene) for i, scene in pictures.scenes.items()},
        values={m: {ids[i]: v for i, v in of.items()} for m, of in pictures.values.items()},
        reasons={m: {ids[i]: why for i, why in of.items()} for m, of in pictures.reasons.items()},
        known_as={new: old for old, new in ids.items()},
    )


def _pair_sets(a: RowScores, b: RowScores, metric: str) -> Paired:
    from bench.metrics.base import SetScore
    from bench.stats.sets import set_difference

    rule = _definition(a.run, metric)
    if isinstance(rule, str):
        return Paired(reason=rule)
    found = []
    for side in (a, b):
        features = side.run.folder.features(side.kind, metric)
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


def _definition(run: Run, metric: str) -> Metric | str:
    """The metric as it is installed here, which reduces the features; or why it is not the run's."""
    from bench.metrics.base import Setting
    from bench.metrics.scorer import metric_class

    protocol = run.plan.protocol
    try:
        setting = Setting(quantise=protocol.get("quantise"), border_px=int(protocol.get("border_px") or 0))
        found = metric_class(metric)(setting)
        identity = found.identity()
    except (RfbenchError, TypeError, ValueError) as error:
        return f"its definition is not here: {one_line(error, 120)}"
    theirs = run.metrics[metric].identity
    if identity != theirs:
        return f"it is defined otherwise here ({identity}) than in the run ({one_line(theirs, 120)})"
    return found


def _reason(a: RowScores, b: RowScores, metric: str, image: str) -> str:
    for side in (a, b):
        why = side.reasons[metric].get(image)
        if why and why != OF_THE_SET:
            return why
    return "it is in one of the runs only"


def _without_features(side: RowScores, metric: str) -> str:
    if metric in side.numbers:
        return f"one number for all images, and {side.run.name} did not keep its features"
    return Counter(side.reasons[metric].values()).most_common(1)[0][0] if side.reasons[metric] else "no number"


def _most(reasons: Counter[str], a: RowScores, b: RowScores, metric: str) -> str:
    why = reasons.most_common(1)[0][0] if reasons else "no image was scored"
    return f"no image has it in both runs ({why})" if a.values[metric] and b.values[metric] else why


def _check_scenes(a: RowScores, b: RowScores, ids: Sequence[str]) -> None:
    other = next((i for i in ids if a.scenes[i] != b.scenes[i]), None)
    if other is not None:
        raise RfbenchError(
            f"image '{one_line(other, 60)}' is of scene '{one_line(a.scenes[other], 60)}' in {a.run.folder.path} and "
            f"of '{one_line(b.scenes[other], 60)}' in {b.run.folder.path}; run both again on one dataset"
        )
