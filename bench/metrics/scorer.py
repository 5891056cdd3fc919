"""Scoring one image with many metrics: the work that a scoring process does."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from bench.core import memory, registry
from bench.core.contain import PluginFailed, contained, described, kept_traceback
from bench.core.errors import LONGEST_LINE, RfbenchError, one_line, unknown
from bench.core.image import Image
from bench.core.reason import Reason
from bench.metrics.base import Estimate, Features, Metric, Reference, Score, Setting
from bench.metrics.registered import SUFFIX, can_register, facts_of, registered
from bench.metrics.software import SCIPY, TORCH, Software
from bench.metrics.task import FAMILY, is_task, task_metric, task_names

POINT = "the mean of the draws is one image, not a distribution; its model's own row has this metric"


@dataclass
class ItemScores:
    """The scores and features of one image, by estimate (``sample``, ``mean``) and metric; ``facts`` that metrics found
    of an estimate, by name; ``tracebacks`` of metrics that failed, each once."""

    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    features: dict[str, dict[str, Features]] = field(default_factory=dict)
    facts: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def tracebacks(self) -> tuple[str, ...]:
        """What authors of metrics want to see."""
        found = (score.traceback for of_kind in self.scores.values() for score in of_kind.values())
        return tuple(dict.fromkeys(filter(None, found)))


def metric_class(name: str) -> type[Metric]:
    """The class that ``name`` stands for; ``pyiqa:NAME``, ``task_iou:SEGMENTER`` and ``NAME_reg`` included."""
    if name.startswith("pyiqa:") and not name.endswith(SUFFIX):
        from bench.metrics.pyiqa_any import pyiqa_metric

        return pyiqa_metric(name.removeprefix("pyiqa:"))
    if is_task(name):
        return task_metric(name)
    if name.endswith(SUFFIX) and name not in registry.points("metrics"):
        return registered(metric_class(name.removesuffix(SUFFIX)))
    found = registry.load("metrics", name)
    if not (isinstance(found, type) and issubclass(found, Metric)):
        raise RfbenchError(f"the metric '{name}' registers no subclass of bench.metrics.base.Metric")
    if found.name != name:
        raise RfbenchError(f"the metric '{name}' calls itself '{found.name}'; make the two names one")
    return found


@functools.cache
def default_set() -> tuple[str, ...]:
    """The metrics that are computed where none is named, in the order that their classes give (``Metric.default``).

    A plugin's metric may be one of them. One that cannot be loaded is none: asking for it by name says why.
    """
    found = []
    for name in registry.names("metrics"):
        with contextlib.suppress(RfbenchError):
            place = metric_class(name).default
            found += [(place, name)] if place is not None else []
    return tuple(name for _, name in sorted(found))


@functools.cache
def families() -> dict[str, tuple[str, ...]]:
    """The metrics that are asked for together by one name (``Metric.family``), in their order."""
    from bench.metrics.pyiqa_any import MODERN

    found = {"modern": [*enumerate(MODERN)]}
    for name in registry.names("metrics"):
        with contextlib.suppress(RfbenchError):
            family = metric_class(name).family
            if family is not None:
                found.setdefault(family[0], []).append((family[1], name))
    return {family: tuple(name for _, name in sorted(of)) for family, of in found.items()}


def groups() -> tuple[str, ...]:
    """The words that stand for several metrics, ``task:SEGMENTER`` left out."""
    return ("default", "all", "registered", *families())


def words() -> list[str]:
    """All that ``--metrics`` takes but for what other packages' networks are called (``pyiqa:NAME``): groups, the
    metrics of each registered segmenter, and metrics."""
    return [*groups(), *(FAMILY + name for name in registry.names("segmenters")), *registry.names("metrics")]


def are_metrics(name: str) -> bool:
    """Whether ``--metrics`` takes a word: a metric, or several by one name."""
    return (
        name in groups()
        or name.startswith(("pyiqa:", FAMILY))
        or is_task(name)
        or name.removesuffix(SUFFIX) in registry.points("metrics")
    )


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics of ``--metrics``, in order and once each; ``default``, ``all``, ``registered`` (those of the default
    set after registration), families (``opensr``) and ``task:SEGMENTER`` are understood."""
    found: list[str] = []
    for name in names or ("default",):
        if not are_metrics(name):
            known = [*registry.points("metrics"), *groups()]
            raise unknown("metric", name, known, hint="'rfbench ls metrics' lists them")
        if name == "default":
            found += default_set()
        elif name == "all":
            found += [*default_set(), *registry.names("metrics")]
        elif name == "registered":
            found += [n + SUFFIX for n in default_set() if can_register(metric_class(n))]
        elif name.startswith(FAMILY):
            found += task_names(name.removeprefix(FAMILY))
        elif is_task(name):
            found.append(metric_class(name).name)
        else:
            found += families().get(name, (name,))
    return tuple(dict.fromkeys(found))


def built(name: str, setting: Setting) -> Metric:
    """The metric ``name``, ready to say its identity and what it lacks.

    One whose own code fails at that (``__init__``, ``identity``, ``missing``) is given as a stand-in that has its name
    and title and is missing for that reason, so that it costs its own column alone.

    Raises
    ------
    RfbenchError
        For an unknown name, or a plugin that cannot be loaded.
    """
    kind = metric_class(name)
    try:
        with contained("failed"):
            metric = kind(setting)
            said = metric.identity()
            if not isinstance(said, str) or one_line(said, LONGEST_LINE) != said:
                raise TypeError(f"identity() gave {one_line(repr(said), 80)}, expected one line of text")
            metric.missing()
            return metric
    except (PluginFailed, MemoryError) as error:
        said = str(error) if isinstance(error, PluginFailed) else f"failed: {described(error)}"
        why = Score(reason=Reason("failed", said), traceback=kept_traceback(error.__cause__ or error))
        broken = {n: getattr(kind, n) for n in ("name", "title", "unit", "direction", "group", "level", "needs")}
        stand_in: type[Metric] = type(f"Broken{kind.__name__}", (_Broken,), {"__doc__": kind.__doc__, **broken})
        assert issubclass(stand_in, _Broken)
        return stand_in(setting, why)


class _Broken(Metric):
    """In place of a metric that cannot be made."""

    def __init__(self, setting: Setting, why: Score) -> None:
        super().__init__(setting)
        self._why = why

    def identity(self, fit: str = "") -> str:
        return f"{self.name}|broken"

    def missing(self) -> Reason | None:
        return self._why.reason

    def assess(self, estimate: Estimate, reference: Reference) -> Score:
        return self._why

    def gather(self, estimate: Estimate, reference: Reference) -> Features | Score:
        return self._why


def distributions(names: Iterable[str], setting: Setting = Setting()) -> tuple[str, ...]:
    """The installable packages that compute some metrics, each once: what a run records the versions of."""
    found: list[Software] = []
    for kind in map(metric_class, names):
        found += [kind.library.software] if setting.exact and kind.library is not None else kind.software
    return tuple(dict.fromkeys(software.distribution for software in found))


@functools.cache
def software_of(package: str) -> Software:
    """The software that an import package comes from, as the registered metrics that it computes say; of a package that
    computes none here, its name alone."""
    for name in registry.names("metrics"):
        with contextlib.suppress(RfbenchError):
            kind = metric_class(name)
            if kind.package == package and kind.software:
                return kind.software[0]
    return {"torch": TORCH, "scipy": SCIPY}.get(package, Software(package))


@dataclass(frozen=True)
class Cost:
    """What a metric cost: ``seconds`` for ``predictions`` (one of each model's image), and the most memory that the
    process held meanwhile."""

    predictions: int = 0
    seconds: float = 0.0
    peak_host_bytes: int = 0
    peak_device_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.predictions + other.predictions,
            self.seconds + other.seconds,
            max(self.peak_host_bytes, other.peak_host_bytes),
            max(self.peak_device_bytes, other.peak_device_bytes),
        )


class Scorer:
    """A set of metrics that score images one after the other; loads each when the first image needs it."""

    def __init__(self, names: Sequence[str], setting: Setting, identities: Mapping[str, str] | None = None) -> None:
        """``identities`` are those of the plan; a metric that has another one by now is a reason."""
        self.metrics = [built(name, setting) for name in names]
        for metric in self.metrics:
            metric.planned_identity = (identities or {}).get(metric.name)
        self._device = setting.device
        self._peak = memory.Peak(alone=True)
        self._costs: dict[str, Cost] = {}

    def take_costs(self) -> dict[str, Cost]:
        """What the metrics cost since this was asked last."""
        found, self._costs = self._costs, {}
        return found

    @contextlib.contextmanager
    def _watched(self, metric: Metric, models: int) -> Iterator[None]:
        if not models:
            yield
            return
        self._peak.restart()
        memory.restart_device_peak(self._device)
        began = time.perf_counter()
        yield
        cost = Cost(models, time.perf_counter() - began, self._peak.seen(), memory.device_peak_bytes(self._device) or 0)
        self._costs[metric.name] = cost + self._costs.get(metric.name, Cost())

    def score(self, reference: Reference, estimates: Mapping[str, Estimate]) -> ItemScores:
        """Score the estimates of one model's image against its reference; nothing that an image brings can raise."""
        return self.score_models(reference, {"": estimates})[""]

    def score_models(
        self,
        reference: Reference,
        estimates: Mapping[str, Mapping[str, Estimate]],
        wanted: Mapping[str, Collection[str]] | None = None,
    ) -> dict[str, ItemScores]:
        """Score what several models made of one image, by model and kind of estimate.

        ``wanted`` names the metrics for each model; None stands for all metrics for each.

        Metric by metric, so that each does the reference's side once for all models and then lets it go: memory holds
        one metric's features of the reference, which are many times the image. A score is computed from the same two
        sides whether its model is alone or not.
        """
        # A metric that writes into what it is given would change the columns after it.
        reference = read_only(reference)
        estimates = {label: {kind: read_only(e) for kind, e in of.items()} for label, of in estimates.items()}
        found = {label: ItemScores() for label in estimates}
        for label, of_model in estimates.items():
            found[label].scores.update({kind: {} for kind in of_model})
        for metric in self.metrics:
            labels = [label for label in estimates if wanted is None or metric.name in wanted[label]]
            with self._watched(metric, len(labels)):
                for label in labels:
                    for kind, estimate in estimates[label].items():
                        _score(metric, kind, estimate, reference, found[label])
            reference.cache.pop(metric.name, None)
        for label, of_model in estimates.items():
            found[label].facts.update({kind: facts_of(estimate, reference) for kind, estimate in of_model.items()})
        return found


Side = TypeVar("Side", Reference, Estimate)


def read_only(side: Side) -> Side:
    """The same images as views that cannot be written to; its cache stays its own."""

    def view(found: Any) -> Any:
        if isinstance(found, Image):
            return dataclasses.replace(found, values=view(found.values), valid=view(found.valid))
        if not isinstance(found, np.ndarray):
            return found
        seen = found.view()
        seen.flags.writeable = False
        return seen

    names = (f.name for f in dataclasses.fields(side) if f.init)
    return dataclasses.replace(side, **{name: view(getattr(side, name)) for name in names})


def _score(metric: Metric, kind: str, estimate: Estimate, reference: Reference, result: ItemScores) -> None:
    if kind == "mean" and "distribution" in metric.needs:
        result.scores[kind][metric.name] = Score(reason=Reason("unfit", POINT))
    elif metric.level == "image":
        result.scores[kind][metric.name] = metric.assess(estimate, reference)
    else:
        features = metric.gather(estimate, reference)
        if isinstance(features, Score):
            result.scores[kind][metric.name] = features
        else:
            result.features.setdefault(kind, {})[metric.name] = features
