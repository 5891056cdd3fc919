"""Every comparison of a metric with something independent of it, in one table.

The tests of this folder run the table; ``python -m tests.precision`` prints it as ``docs/precision.md``. A new
comparison is a new ``Case`` below, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench import weights
from bench.core.errors import RfbenchError, Unavailable
from bench.metrics.base import Metric, Reference, Score, Setting
from bench.metrics.scorer import metric_class
from tests.reference import pictures
from tests.reference.pictures import BESIDE, Lacking, Pair

Kind = Literal["equation", "closed form", "library", "published"]
Values = tuple[float, float]
"""Ours and theirs."""


@dataclass(frozen=True)
class Case:
    """One number held against another.

    Attributes
    ----------
    metric : the registered metric.
    kind : what the other number is: a slow float64 computation from the paper's equation, a value known without
        computing, another program's on the same input, or one that others published.
    against : what it is, in words; with the metric it names the case.
    measure : gives both numbers, or raises ``Lacking`` with what is missing here.
    tolerance : the most by which they may differ, absolute, or of their size where ``relative``.
    note : what explains a difference that is more than rounding.
    """

    metric: str
    kind: Kind
    against: str
    measure: Callable[[], Values]
    tolerance: float
    relative: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """The case's name in tests."""
        return f"{self.metric}: {self.against}"


def difference(case: Case, values: Values) -> float:
    """By how much the two numbers differ, in the unit of the case's tolerance."""
    ours, theirs = values
    return abs(ours - theirs) / (abs(theirs) if case.relative else 1.0)


def cases() -> tuple[Case, ...]:
    """All of them, metric by metric."""
    from tests.reference import (
        cases_draws,
        cases_fidelity,
        cases_modern,
        cases_networks,
        cases_opensr,
        cases_physics,
        cases_realism,
        cases_style,
        cases_uncertainty,
    )

    modules = (
        cases_fidelity, cases_networks, cases_realism, cases_modern, cases_style, cases_physics, cases_opensr,
        cases_uncertainty, cases_draws,
    )  # fmt: skip
    found: list[Case] = [case for module in modules for case in module.CASES]
    assert len({c.name for c in found}) == len(found), "two cases of one name"
    return tuple(found)


# --- what the cases share ---------------------------------------------------------------------------------------------


def official() -> Setting:
    """Where the official weights are looked for: beside the repository, then in the usual folders."""
    folder = BESIDE / "weights"
    return Setting(weights_dir=folder if folder.is_dir() else None)


def score(name: str, pair: Pair, setting: Setting | None = None) -> float:
    """The metric of one pair; Lacking where weights or a package are missing."""
    return score_of(name, *pictures.held(pair), setting=setting)


def published(name: str, pair: Callable[[], Pair], value: float) -> Values:
    """The metric of a public pair beside what was published for it; the weights are asked for before the pair."""
    ready(name)
    return score(name, pair()), value


def score_of(name: str, estimate: pictures.Estimate, reference: Reference, setting: Setting | None = None) -> float:
    """The metric ``name`` of an estimate."""
    metric = ready(name, setting)
    found = metric.assess(estimate, reference)
    if found.value is None:
        raise AssertionError(f"{name}: {found.reason}")
    return found.value


def by_library(name: str, pair: Pair | None = None) -> Values:
    """The metric by our own kernel and by the library that defines it."""
    setting = replace(official(), exact=True)
    pair = pictures.noisy_pair(101, 128) if pair is None else pair
    return score(name, pair), score(name, pair, setting)


def score_set(name: str, pairs: list[Pair], setting: Setting | None = None) -> float:
    """A set metric of several pairs."""
    metric = ready(name, setting)
    features = [metric.gather(*pictures.held(pair)) for pair in pairs]
    reasons = [f.reason for f in features if isinstance(f, Score)]
    result = Score(reason=reasons[0]) if reasons else metric.combine(features)
    if result.value is None:
        raise AssertionError(f"{name}: {result.reason}")
    return result.value


def ready(name: str, setting: Setting | None = None) -> Metric:
    """The metric, with the official weights unless a setting says otherwise."""
    metric = metric_class(name)(setting or official())
    pictures.need(metric.package)
    lacking = [file for file in metric.weights_files if not _here(file, metric.setting)]
    if lacking:
        raise Lacking("the weights " + " and ".join(lacking))
    why = metric.missing()
    if why is not None:
        raise Lacking(why)
    return metric


def _here(file: str, setting: Setting) -> bool:
    try:
        weights.find(file, setting.weights_dir)
    except (Unavailable, RfbenchError):
        return False
    return True


def furthest(pairs: Iterator[Values]) -> Values:
    """Of many comparisons the one that differs most."""
    return max(pairs, key=lambda p: abs(p[0] - p[1]) if math.isfinite(p[0]) else math.inf)


def tensors(pair: Pair, dtype: str = "float64") -> tuple:
    """Prediction and reference as tensors (1, 3, H, W), the order in which the libraries take them."""
    import torch

    reference, prediction = (np.moveaxis(x, 2, 0)[None].astype(dtype) for x in pair)
    return torch.from_numpy(prediction), torch.from_numpy(reference)
