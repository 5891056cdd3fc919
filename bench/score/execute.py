"""Score runs: what is missing of the metrics that were asked for, and only that, without any model.

Several runs of one protocol and dataset are scored together, image by image, so that a reference is read once and a
metric does its side of the work once for all of them. Each image is committed as it is done.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.core import provenance
from bench.core.device import resolve_device
from bench.core.errors import ItemError, RfbenchError
from bench.core.files import sha256
from bench.core.progress import Progress
from bench.core.reason import Reason
from bench.core.typed import decode
from bench.executors.cluster import Cluster
from bench.executors.processes import usual_workers
from bench.metrics.base import Estimate, Features, Metric, Reference, Score, Setting
from bench.metrics.registered import SUFFIX
from bench.metrics.scorer import POINT, Cost, ItemScores, Scorer, distributions
from bench.predict.execute import now, session
from bench.protocols.base import Protocol, Task
from bench.records.folder import RunFolder
from bench.records.predictions import references_digest
from bench.records.scores import ImageScores, Parts, unfitted
from bench.records.types import (
    FORMAT,
    Cell,
    ItemRecord,
    MetricRecord,
    MetricScores,
    Row,
    ScoreRecord,
    Software,
    Summary,
)
from bench.score.choice import choose_metrics, described
from bench.score.kept import Kept
from bench.score.pool import Scoring
from bench.score.reduce import OfTheSet, reduced, summarised
from bench.score.replay import estimates_of, tasks_of

LABELS = {"sample": "{}", "mean": "{}@mean"}
_A_PROCESS_PAYS_FROM = 16  # predictions: to start one and import torch in it takes seconds
_TRACEBACKS = 5  # kept of a session
_Unit = tuple[str, dict[int, tuple[str, ...]]]
"""An image, and the metrics that each run (by its place) needs of it."""
_Scored = tuple[dict[int, ItemScores | ItemError], dict[str, Cost]]
_UNSCORED = Reason("failed", "it was not scored")


@dataclass(frozen=True)
class Request:
    """What the user asked to be scored; the fields are the options of ``rfbench score``.

    ``metrics`` None stands for the default set, ``workers`` None for what the machine and the work suggest, ``data``
    None for where the run found its dataset. ``is_part`` scores parts of runs, and leaves what is said of all images to
    ``rfbench merge``. ``exact_libraries`` computes metrics by the libraries that define them.
    """

    metrics: tuple[str, ...] | None = None
    device: str = "auto"
    workers: int | None = None
    strict: bool = False
    weights_dir: Path | None = None
    data: str | None = None
    exact_libraries: bool = False
    is_part: bool = False


@dataclass
class Outcome:
    """What scoring left behind.

    Attributes
    ----------
    names : the metrics that were asked for, in order.
    skipped : why some of them were not computed; ``lacking_weights`` are those that want nothing else.
    there, computed : of each run, by folder, which metrics were scored already and which were scored now.
    failed : why images have no prediction, by reason, with how many of each.
    """

    folders: tuple[RunFolder, ...]
    names: tuple[str, ...] = ()
    skipped: dict[str, Reason] = field(default_factory=dict)
    lacking_weights: list[str] = field(default_factory=list)
    there: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    computed: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)


def score(
    runs: Sequence[RunFolder], request: Request, command_line: Sequence[str] = (), cluster: Cluster | None = None
) -> Outcome:
    """Score what is missing of some runs, and write their summaries; on a ``cluster``, if not here.

    Raises
    ------
    RfbenchError
        An unknown metric, a run without all predictions, data that are not those of a run, a folder in use.
    """
    outcome = Outcome(tuple(runs))
    device = cluster.device if cluster is not None else resolve_device(request.device)
    if device != "cpu" and cluster is None:
        provenance.deterministic()
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        plan = run.record().plan
        if run.is_format1:
            raise RfbenchError(
                f"{run.path}: an earlier version of rfbench made it, with one key for predictions and scores; it is "
                "read as it is, and to score it again run its command again"
            )
        alike = [plan.protocol, msgspec.to_builtins(plan.data)]
        groups.setdefault(json.dumps(alike, sort_keys=True), []).append(run)
    for group in groups.values():
        _Group(group, request, device, outcome, cluster).score(command_line)
    return outcome


@dataclass
class _Wanted:
    """A run while it is scored.

    Attributes
    ----------
    names : the metrics that its summary will have and that are computed here.
    open : of these, those that are not complete.
    carried : scores of open metrics of images that need not be computed again, by metric, image and estimate.
    """

    run: RunFolder
    items: dict[str, ItemRecord]
    summary: Summary | None
    names: tuple[str, ...]
    open: tuple[str, ...]
    carried: dict[str, dict[tuple[str, str], ScoreRecord]]

    @property
    def done(self) -> list[ItemRecord]:
        """The images that have a prediction."""
        return [item for item in self.items.values() if not item.error]


class _Group:
    """Runs of one protocol and dataset."""

    def __init__(
        self, runs: Sequence[RunFolder], request: Request, device: str, outcome: Outcome, cluster: Cluster | None
    ) -> None:
        self.cluster = cluster
        self.runs, self.request, self.device, self.outcome = runs, request, device, outcome
        self.tracebacks: list[str] = []
        self.costs: dict[str, Cost] = {}

    def score(self, command_line: Sequence[str]) -> None:
        """Score the group."""
        with ExitStack() as stack:
            for run in self.runs:
                stack.enter_context(run.lock())
            self.tasks = tasks_of(self.runs[0], self.request.data)
            protocol = self.tasks.protocol
            self.setting = Setting(
                self.device,
                self.request.weights_dir,
                protocol.quantise,
                protocol.border_px,
                self.request.exact_libraries,
            )
            self.choice = choose_metrics(self.request.metrics, self.setting, strict=self.request.strict)
            self.outcome.names = tuple(dict.fromkeys([*self.outcome.names, *self.choice.metrics]))
            self.outcome.skipped |= self.choice.skipped
            self.outcome.lacking_weights = self.choice.lacking_weights
            self.metrics = dict(self.choice.metrics)
            wanted = [self._wanted(run) for run in self.runs]
            for one in wanted:
                self._say(one)
            work = self._work(wanted)
            started = time.perf_counter()
            for one in wanted:
                if one.open:
                    asked = {"asked": self.request.metrics, "exact_libraries": self.request.exact_libraries}
                    one.run.begin_session(session(self.device, command_line) | {"stage": "score"} | asked)
            if work:
                self._score_images(wanted, work)
            for one in wanted:
                if not self.request.is_part:
                    self._finish(one)
                if one.open:
                    facts: dict[str, Any] = {"ended": now(), "score_s": round(time.perf_counter() - started, 3)}
                    facts["metrics"] = {name: dataclasses.asdict(cost) for name, cost in self.costs.items()}
                    if self.cluster is not None and work:
                        facts |= {"nodes": dict(self.cluster.nodes), "events": list(self.cluster.events)}
                    one.run.end_session(facts | ({"tracebacks": self.tracebacks} if self.tracebacks else {}))

    # --- what is missing --------------------------------------------------------------------------------------

    def _wanted(self, run: RunFolder) -> _Wanted:
        items = run.predictions.committed(self.tasks.ids) if self.request.is_part else run.predictions.table()
        summary = run.summary()
        names = list(self.choice.computed)
        if summary is not None and summary.predictions_sha256 != run.predictions.digest():
            # Images were predicted meanwhile: no number of the old summary is of all of them.
            names += [n for n in self._computable(summary) if n not in names]
        open_metrics, carried = [], {}
        for name in names:
            metric = self.metrics[name]
            folder = run.scored.metric(metric.identity(), name)
            found = folder.read()
            scores = folder.by_image() if found is not None and folder.is_intact() else {}
            passing = any(s.reason is not None and s.reason.may_pass for s in scores.values())
            if scores or found is not None:
                same = found is not None and found.predictions_sha256 == run.predictions.digest()
                if same and folder.is_intact() and not passing:
                    continue
            open_metrics.append(name)
            if metric.level == "image":
                hashes = folder.prediction_hashes() if scores else {}
                carried[name] = {
                    key: score for key, score in scores.items()
                    if not (score.reason is not None and score.reason.may_pass)
                    and key[0] in items and hashes.get(key[0]) == items[key[0]].prediction_sha256
                }  # fmt: skip
        return _Wanted(run, items, summary, tuple(names), tuple(open_metrics), carried)

    def _computable(self, summary: Summary) -> list[str]:
        """The metrics of an earlier summary that are the same here today."""
        found = []
        for name, record in summary.metrics.items():
            try:
                choice = choose_metrics((name,), self.setting)
            except RfbenchError:
                continue  # of a plugin that is gone
            if not choice.skipped and choice.metrics[name].identity() == unfitted(record.identity):
                self.metrics[name] = choice.metrics[name]
                found.append(name)
        return found

    def _say(self, one: _Wanted) -> None:
        there = tuple(n for n in one.names if n not in one.open)
        self.outcome.there[one.run.path] = there
        self.outcome.computed[one.run.path] = one.open
        for item in one.items.values():
            if item.error:
                self.outcome.failed[item.error] += 1
        if there or one.summary is not None:
            label = one.run.record().plan.model.label
            doing = f"computing {', '.join(one.open)}" if one.open else "nothing is left to compute"
            print(f"{label}: {len(there)} of {len(one.names)} metrics were there; {doing}", file=sys.stderr)

    def _work(self, wanted: Sequence[_Wanted]) -> list[tuple[str, dict[int, tuple[str, ...]]]]:
        """The images of which something is missing, with the metrics that each run needs (by its place)."""
        work = []
        for image_id in self.tasks.ids:
            needs: dict[int, tuple[str, ...]] = {}
            for i, one in enumerate(wanted):
                item = one.items.get(image_id)
                if item is None or item.error or not one.open:
                    continue
                assert item.prediction_sha256 is not None
                known = one.run.scored.image(image_id, item.prediction_sha256)
                names = tuple(n for n in one.open if not self._is_scored(one, known, n, image_id))
                if names:
                    needs[i] = names
            if needs:
                work.append((image_id, needs))
        return work

    def _is_scored(self, one: _Wanted, known: ImageScores, name: str, image_id: str) -> bool:
        if (image_id, "sample") in one.carried.get(name, {}):
            return True
        found = known.scores.get(self.metrics[name].identity())
        return found is not None and not any(s.reason is not None and s.reason.may_pass for s in found.values())

    # --- images -----------------------------------------------------------------------------------------------

    def _score_images(self, wanted: Sequence[_Wanted], work: Sequence[tuple[str, dict[int, tuple[str, ...]]]]) -> None:
        names = list(dict.fromkeys(n for _, needs in work for of_run in needs.values() for n in of_run))
        identities = {name: self.metrics[name].identity() for name in names}
        workers = self.request.workers
        if workers is None:
            predictions = sum(len(needs) for _, needs in work)
            workers = min(usual_workers(), len(work), predictions // _A_PROCESS_PAYS_FROM)
        label = ", ".join(one.run.record().plan.model.label for one in wanted if one.open)
        total = len(self.tasks.ids)
        crew = None if self.cluster is None else partial(self.cluster.crew, what="scoring")
        pool = Scoring[_Unit, _Scored](identities, self.setting, workers, crew)
        with Progress(total, total - len(work), label, ("score",)) as progress, pool as scoring:

            def commit(finished: Iterator[tuple[_Unit, _Scored]]) -> None:
                for (image_id, needs), (found, costs) in finished:
                    for name, cost in costs.items():
                        self.costs[name] = self.costs.get(name, Cost()) + cost
                    for i, of_run in needs.items():
                        self._commit(wanted[i], image_id, of_run, found[i])
                    progress.advance("score")

            for (image_id, needs), task in self._read_ahead(work):
                if isinstance(task, ItemError):
                    commit(iter([((image_id, needs), (dict.fromkeys(needs, task), {}))]))
                    continue
                runs = {i: (wanted[i].run.path, wanted[i].items[image_id], names) for i, names in needs.items()}
                if self.cluster is not None:  # its nodes do not see the run folders
                    read = _read(task, runs, self.tasks.protocol)
                    commit(scoring.submit((image_id, needs), _score_read, task.reference, *read))
                    continue
                commit(scoring.submit((image_id, needs), _score_image, task, runs, self.tasks.protocol))
            commit(scoring.drain())

    def _read_ahead(
        self, work: Sequence[tuple[str, dict[int, tuple[str, ...]]]]
    ) -> Iterator[tuple[tuple[str, dict[int, tuple[str, ...]]], Task | ItemError]]:
        """The work with its tasks; while one image is scored the next is read."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
            upcoming: Future[Task | ItemError] | None = reader.submit(self.tasks.task, work[0][0]) if work else None
            for i, one in enumerate(work):
                assert upcoming is not None
                task = upcoming.result()
                upcoming = reader.submit(self.tasks.task, work[i + 1][0]) if i + 1 < len(work) else None
                yield one, task

    def _commit(self, one: _Wanted, image_id: str, names: Sequence[str], found: ItemScores | ItemError) -> None:
        """Add to what is known of an image."""
        item = one.items[image_id]
        assert item.prediction_sha256 is not None
        known = one.run.scored.image(image_id, item.prediction_sha256)
        scores, facts = dict(known.scores), dict(known.facts)
        features: dict[str, np.ndarray] = {}
        for name in names:
            identity = self.metrics[name].identity()
            if isinstance(found, ItemError):
                self._keep(found.traceback)
                self.outcome.broken[str(found)] += 1
                scores[identity] = {"sample": ScoreRecord(reason=Reason("failed", str(found)))}
                continue
            scores[identity] = {}
            for kind, by_metric in found.scores.items():
                if name in by_metric:
                    scores[identity][kind] = _record(by_metric[name])
            for kind, of_kind in found.features.items():
                if name in of_kind:
                    scores[identity][kind] = ScoreRecord()
                    features |= {f"{identity}/{kind}/{key}": array for key, array in of_kind[name].items()}
            if name.endswith(SUFFIX):
                facts[identity] = {kind: dict(of_kind) for kind, of_kind in found.facts.items() if of_kind}
        if not isinstance(found, ItemError):
            for text in found.tracebacks:
                self._keep(text)
        one.run.scored.commit(msgspec.structs.replace(known, scores=scores, facts=facts), features)

    def _keep(self, traceback: str) -> None:
        if traceback and traceback not in self.tracebacks and len(self.tracebacks) < _TRACEBACKS:
            self.tracebacks.append(traceback)

    # --- the end ----------------------------------------------------------------------------------------------

    def _finish(self, one: _Wanted) -> None:
        """Write the metrics that were open, and the summary of all that is there."""
        run, items = one.run, one.items
        predictions = run.predictions.digest()
        cells: dict[str, dict[str, Cell]] = {}
        records: dict[str, MetricRecord] = {}
        hashes: dict[str, str] = {}
        kinds = self._kinds(one)
        for name in one.open:
            self._write_metric(one, name, kinds, predictions)
        current = {name: self.metrics[name].identity() for name in one.names}
        if one.summary is not None and one.summary.predictions_sha256 == predictions:
            kept = {n: unfitted(m.identity) for n, m in one.summary.metrics.items() if one.summary.scores.get(n)}
            current = {**kept, **current}
        for name, identity in current.items():
            folder = run.scored.metric(identity, name)
            found = folder.read()
            if found is not None:
                records[name], cells[name] = found.metric, found.cells
                hashes[name] = sha256(folder.path / "metric.json")
        for name, why in self.choice.skipped.items():
            if name not in records:
                records[name] = described(self.metrics[name])
                cells[name] = {
                    kind: Cell(identity=records[name].identity, reason=_of_kind(self.metrics[name], kind) or why)
                    for kind in kinds
                }
        label = run.record().plan.model.label
        kinds = [k for k in LABELS if any(k in of for of in cells.values())] or ["sample"]
        failed = tuple(sorted(item.id for item in items.values() if item.error))
        names = sorted(records)
        summary = Summary(
            format=FORMAT,
            plan_sha256=run.record().plan_sha256,
            status="some images failed" if failed else "complete",
            images=len(items),
            failed=failed,
            rows={
                kind: Row(
                    label=LABELS[kind].format(label), metrics={n: cells[n][kind] for n in names if kind in cells[n]}
                )
                for kind in kinds
            },
            metrics={n: records[n] for n in names},
            predictions_sha256=predictions,
            references_sha256=references_digest(items.values()),
            scores={n: hashes[n] for n in names if n in hashes},
        )
        if summary != one.summary:
            run.finish(summary)
        else:
            run.tidy()

    def _kinds(self, one: _Wanted) -> list[str]:
        """The estimates of a run: with the mean of the draws where an image has several."""
        for item in one.done:
            arrays, _ = one.run.predictions.read(item.id)
            several = "samples" in arrays and len(arrays["samples"]) > 1
            return ["sample", "mean"] if several else ["sample"]
        return ["sample"]

    def _write_metric(self, one: _Wanted, name: str, kinds: Sequence[str], predictions: str) -> None:
        metric = self.metrics[name]
        identity = metric.identity()
        scores: dict[tuple[str, str], ScoreRecord | None] = {}
        facts: dict[tuple[str, str], Mapping[str, float]] = {}
        for item in one.done:
            assert item.prediction_sha256 is not None
            known = one.run.scored.image(item.id, item.prediction_sha256)
            found = known.scores.get(identity, {})
            carried = one.carried.get(name, {})
            for kind in kinds:
                score = found.get(kind) or carried.get((item.id, kind))
                if score is None and "sample" in found:  # what failed as a whole was said of draw 0 alone
                    score = found["sample"] if found["sample"].reason is not None else None
                is_kept = score is not None and score.value is None and score.reason is None
                scores[item.id, kind] = None if is_kept else score or ScoreRecord(reason=_UNSCORED)
                facts[item.id, kind] = known.facts.get(identity, {}).get(kind, {})
        features: dict[str, np.ndarray | Parts] = {}
        cells = {}
        for kind in kinds:
            of_set = self._reduce(one, metric, kind, scores, features) if metric.level == "set" else None
            of_kind = [scores[item.id, kind] for item in one.done]
            cells[kind] = summarised(metric, of_kind, of_set)
        one.run.scored.metric(identity, name).write(
            MetricScores(
                metric=described(metric), cells=cells, predictions_sha256=predictions,
                device=self.device.partition(":")[0],
                software=decode(provenance.software(distributions([name], self.setting)), Software, "software"),
            ),
            {key: score for key, score in scores.items() if score is not None},
            facts,
            features,
            {item.id: item.prediction_sha256 for item in one.done},
        )  # fmt: skip

    def _reduce(
        self, one: _Wanted, metric: Metric, kind: str, scores: dict[tuple[str, str], ScoreRecord | None],
        kept: dict[str, np.ndarray | Parts],
    ) -> OfTheSet | None:  # fmt: skip
        """A metric of the set over the images that have its features; each image's share, if it has one, goes to
        ``scores`` and what is kept to ``kept``."""
        ids = [item.id for item in one.done if scores[item.id, kind] is None]
        features = Kept(one.run.scored.image_features, ids, f"{metric.identity()}/{kind}/")
        if not features:
            return None
        kept |= features.arrays(f"{kind}/")
        others = self._other_references(metric, set(features.ids)) if metric.fits_references else []
        found = reduced(metric, features, others)
        kept |= {f"{kind}/fitted:{key}": array for key, array in found.fitted.items()}
        for image_id, share in zip(features.ids, found.shares or (), strict=False):
            if share is not None:
                scores[image_id, kind] = ScoreRecord(value=share)
        return found

    def _other_references(self, metric: Metric, present: Collection[str]) -> list[Features]:
        """The features of the references whose images have none, so that a fit is the same for all models of a
        dataset."""
        found = []
        for image_id in self.tasks.ids:
            task = self.tasks.task(image_id) if image_id not in present else None
            features = metric.gather_reference(task.reference) if isinstance(task, Task) else None
            if features is not None and not isinstance(features, Score):
                found.append(features)
        return found


def _record(score: Score) -> ScoreRecord:
    if score.reason is not None:
        return ScoreRecord(reason=score.reason, note=score.note)
    return ScoreRecord(value=score.value, note=score.note)


def _of_kind(metric: Metric, kind: str) -> Reason | None:
    """Why a metric means nothing to an estimate, whatever the image."""
    return Reason("unfit", POINT) if kind == "mean" and "distribution" in metric.needs else None


# --- in a scoring process -------------------------------------------------------------------------------------


def _score_image(
    scorer: Scorer, task: Task, runs: Mapping[int, tuple[Path, ItemRecord, tuple[str, ...]]], protocol: Protocol
) -> _Scored:
    """The scores of one image's predictions by all runs, each with the metrics that it lacks, and what they cost."""
    return _score_read(scorer, task.reference, *_read(task, runs, protocol))


def _read(
    task: Task, runs: Mapping[int, tuple[Path, ItemRecord, tuple[str, ...]]], protocol: Protocol
) -> tuple[dict[str, dict[str, Estimate]], dict[str, tuple[str, ...]], dict[int, ItemError]]:
    """The estimates of one image by all runs, the metrics that each lacks, and why some have no estimate."""
    found: dict[int, ItemError] = {}
    shown: dict[str, dict[str, Estimate]] = {}
    for i, (path, item, _) in runs.items():
        made = estimates_of(RunFolder(path), item, task, protocol)
        if isinstance(made, ItemError):
            found[i] = made
        else:
            shown[str(i)] = made
    return shown, {str(i): names for i, (_, _, names) in runs.items()}, found


def _score_read(
    scorer: Scorer, reference: Reference, shown: Mapping[str, Mapping[str, Estimate]],
    wanted: Mapping[str, tuple[str, ...]], without: Mapping[int, ItemError],
) -> _Scored:  # fmt: skip
    """The scores of what ``_read`` gave."""
    found: dict[int, ItemScores | ItemError] = dict(without)
    found |= {int(i): scores for i, scores in scorer.score_models(reference, shown, wanted).items()}
    return found, scorer.take_costs()
