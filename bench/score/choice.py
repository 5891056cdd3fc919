"""Which metrics are computed, and why others are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.core.errors import RfbenchError
from bench.core.reason import Reason
from bench.metrics import scorer
from bench.metrics.base import Metric, Setting
from bench.records.types import MetricRecord


@dataclass(frozen=True)
class Choice:
    """The metrics that were asked for, constructed, and which of them cannot, or shall not, be computed here."""

    metrics: Mapping[str, Metric]
    skipped: Mapping[str, Reason]

    @property
    def lacking_weights(self) -> list[str]:
        """Those that are skipped for want of weights alone."""
        return [name for name in self.skipped if self.metrics[name].lacking_weights()]

    @property
    def computed(self) -> dict[str, Metric]:
        """Those that are computed, by name."""
        return {name: metric for name, metric in self.metrics.items() if name not in self.skipped}


def choose_metrics(asked: Sequence[str] | None, setting: Setting, *, strict: bool = False) -> Choice:
    """The metrics of ``--metrics``; None stands for the default set.

    RfbenchError for an unknown name and, with ``strict``, for the first that cannot be computed.
    """
    if asked is not None and not asked:
        raise RfbenchError("--metrics: found no name, expected some, such as default,niqe_ref")
    names = scorer.chosen(asked)
    metrics = {name: scorer.built(name, setting) for name in names}
    skipped: dict[str, Reason] = {}
    for name, metric in metrics.items():
        why = metric.missing()
        if why is None and metric.slow_on_cpu and name not in (asked or ()) and setting.device == "cpu":
            why = Reason("slow", "takes minutes an image on a processor", f"ask for it with --metrics default,{name}")
        if why is not None:
            skipped[name] = why
    if strict and skipped:
        name, first = next(iter(skipped.items()))
        raise RfbenchError(
            f"--strict: {len(skipped)} of {len(names)} metrics cannot be computed, first {name}: {first}"
        )
    return Choice(metrics, skipped)


def described(metric: Metric) -> MetricRecord:
    """What a run keeps of a metric, for readers of its numbers."""
    return MetricRecord(
        name=metric.name,
        identity=metric.identity(),
        title=metric.title,
        unit=metric.unit,
        direction="" if metric.describes else metric.direction,
        group=metric.group,
        decimals=metric.decimals,
        package=metric.package,
        citation=metric.citation,
        licence=metric.licence,
    )
