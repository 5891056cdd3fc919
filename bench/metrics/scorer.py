"""Scoring one image with many metrics: the work that a scoring process does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.core import registry
from bench.core.errors import RfbenchError, unknown
from bench.metrics.base import Estimate, Features, Metric, Reference, Score, Setting
from bench.metrics.registered import SUFFIX, can_register, facts_of, registered

# The paper's columns (decisions: names). `all` stands for every registered metric.
DEFAULT = (
    "psnr_rgb", "ssim_rgb", "fsim", "lpips_alex", "dists", "fid_tf", "niqe", "maniqa_koniq", "sam_rgb", "de00",
    "nll", "ece",
)  # fmt: skip
# 39 s an image at 2 cores against 0.4 s for all others together: only where it was asked for by name.
SLOW_ON_CPU = ("maniqa_koniq", "maniqa_pipal")
POINT = "the mean of the draws is one image, not a distribution; its model's own row has this metric"


@dataclass
class ItemScores:
    """The scores and features of one image, by estimate (``sample``, ``mean``) and metric; ``facts`` that metrics found
    of an estimate, by name."""

    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    features: dict[str, dict[str, Features]] = field(default_factory=dict)
    facts: dict[str, dict[str, float]] = field(default_factory=dict)


def metric_class(name: str) -> type[Metric]:
    """The class that ``name`` stands for, ``pyiqa:NAME`` and ``NAME_reg`` included."""
    if name.startswith("pyiqa:") and not name.endswith(SUFFIX):
        from bench.metrics.pyiqa_any import pyiqa_metric

        return pyiqa_metric(name.removeprefix("pyiqa:"))
    if name.endswith(SUFFIX) and name not in registry.points("metrics"):
        return registered(metric_class(name.removesuffix(SUFFIX)))
    found = registry.load("metrics", name)
    if not (isinstance(found, type) and issubclass(found, Metric)):
        raise RfbenchError(f"the metric '{name}' registers no subclass of bench.metrics.base.Metric")
    if found.name != name:
        raise RfbenchError(f"the metric '{name}' calls itself '{found.name}'; make the two names one")
    return found


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics of ``--metrics``, in order and once each; ``default``, ``all`` and ``registered`` (those of the
    default set after registration) are understood."""
    found: list[str] = []
    for name in names or ("default",):
        if name == "default":
            found += DEFAULT
        elif name == "all":
            found += [*DEFAULT, *registry.names("metrics")]
        elif name == "registered":
            found += [n + SUFFIX for n in DEFAULT if can_register(metric_class(n))]
        elif name.startswith("pyiqa:") or name.removesuffix(SUFFIX) in registry.points("metrics"):
            found.append(name)
        else:
            known = [*registry.points("metrics"), "default", "all", "registered"]
            raise unknown("metric", name, known, hint="'rfbench ls metrics' lists them")
    return tuple(dict.fromkeys(found))


class Scorer:
    """A set of metrics that score images one after the other; loads each when the first image needs it."""

    def __init__(self, names: Sequence[str], setting: Setting, identities: Mapping[str, str] | None = None) -> None:
        """``identities`` are those of the plan; a metric that has another one by now is a reason."""
        self.metrics = [metric_class(name)(setting) for name in names]
        for metric in self.metrics:
            metric.planned_identity = (identities or {}).get(metric.name)

    def score(self, reference: Reference, estimates: Mapping[str, Estimate]) -> ItemScores:
        """Score the estimates of one model's image against its reference; nothing that an image brings can raise."""
        return self.score_models(reference, {"": estimates})[""]

    def score_models(
        self, reference: Reference, estimates: Mapping[str, Mapping[str, Estimate]]
    ) -> dict[str, ItemScores]:
        """Score what several models made of one image, by model and kind of estimate.

        Metric by metric, so that each does the reference's side once for all models and then lets it go: memory holds
        one metric's features of the reference, which are many times the image. A score is computed from the same two
        sides whether its model is alone or not.
        """
        found = {label: ItemScores() for label in estimates}
        for label, of_model in estimates.items():
            found[label].scores.update({kind: {} for kind in of_model})
        for metric in self.metrics:
            for label, of_model in estimates.items():
                for kind, estimate in of_model.items():
                    _score(metric, kind, estimate, reference, found[label])
            reference.cache.pop(metric.name, None)
        for label, of_model in estimates.items():
            found[label].facts.update({kind: facts_of(estimate, reference) for kind, estimate in of_model.items()})
        return found


def _score(metric: Metric, kind: str, estimate: Estimate, reference: Reference, result: ItemScores) -> None:
    if kind == "mean" and "distribution" in metric.needs:
        result.scores[kind][metric.name] = Score(reason=POINT)
    elif metric.level == "image":
        result.scores[kind][metric.name] = metric.assess(estimate, reference)
    else:
        features = metric.gather(estimate, reference)
        if isinstance(features, Score):
            result.scores[kind][metric.name] = features
        else:
            result.features.setdefault(kind, {})[metric.name] = features
