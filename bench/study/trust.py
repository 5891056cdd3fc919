"""Which metric agrees with the votes, and so deserves trust on this data.

*Accuracy*: of two systems' answers to one image about which people have a preference, how often the metric prefers the
same; a metric that calls them equal is half right; 0.5 is a coin. *Tau*: Kendall's tau-b of the metric and the votes
over all images and systems that were judged. Both with intervals over scenes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.core.errors import NotComparable, one_line
from bench.records.folder import RunFolder
from bench.stats.means import LEAST_SCENES, LEVEL, Inference, generator, mean_of
from bench.stats.pairing import RowScores, row_scores
from bench.study.votes import Study

_RESAMPLES = 999


@dataclass(frozen=True)
class Trust:
    """``accuracy`` over ``pairs`` of answers, ``tau`` over ``samples``; None without any, with the ``reason``."""

    metric: str
    title: str
    accuracy: Inference | None
    pairs: int
    tau: float | None
    tau_low: float | None
    tau_high: float | None
    samples: int
    reason: str = ""


def of_systems(study: Study, runs: Sequence[RunFolder]) -> dict[str, RowScores]:
    """The scores of each system of the study by its label; NotComparable for a run that is none of them."""
    known = {s.plan_sha256: s.label for s in study.key.systems}
    found = {}
    for run in runs:
        label = known.get(run.record().plan_sha256)
        if label is None:
            raise NotComparable(
                f"{run.path} is not one of the runs that the study was made of ({', '.join(known.values())})"
            )
        found[label] = row_scores(run)[0]
    return found


def trust(study: Study, runs: Sequence[RunFolder]) -> list[Trust]:
    """Every metric of the runs, best first."""
    scores = of_systems(study, runs)
    first = next(iter(scores.values()))
    votes, scenes = shares_of(study)
    found = []
    for metric, described in first.run.metrics.items():
        sign = 1.0 if described.direction == "up" else -1.0
        values = {
            (image, system): sign * value
            for system, e in scores.items()
            for image, value in e.values.get(metric, {}).items()
        }
        title = one_line(described.title, 40)
        if not values:
            found.append(Trust(metric, title, None, 0, None, None, None, 0, "it has no number for each image"))
            continue
        accuracy, pairs = _accuracy(study, values, votes, scenes)
        tau, low, high, samples = _tau(values, votes, scenes)
        reason = "" if accuracy or tau is not None else "no two answers that were judged differ in it and in the votes"
        found.append(Trust(metric, title, accuracy, pairs, tau, low, high, samples, reason))
    return sorted(found, key=lambda t: (-(t.accuracy.value if t.accuracy else -1.0), -(t.tau or -2.0), t.metric))


def shares_of(study: Study) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """How a system's answer to an image was judged, the mean of its shares in clarity and parity by (image, system);
    and the scene of each image."""
    of: dict[tuple[str, str], list[float]] = defaultdict(list)
    scenes: dict[str, str] = {}
    for question in ("clarity", "parity"):
        for v in study.counted(question):
            of[v.image, v.system].append(v.share)
            scenes[v.image] = v.scene
    return {key: float(np.mean(shares)) for key, shares in of.items()}, scenes


def _accuracy(
    study: Study, values: Mapping[tuple[str, str], float], votes: Mapping[tuple[str, str], float],
    scenes: Mapping[str, str],
) -> tuple[Inference | None, int]:  # fmt: skip
    """People's preference between two answers is what they said of the two side by side, where they were asked that;
    else which of them was judged better."""
    direct: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for v in study.counted("between"):
        a, b, share = (v.system, v.other, v.share) if v.system < v.other else (v.other, v.system, 1.0 - v.share)
        direct[v.image, a, b].append(share - 0.5)
    prefers = {key: float(np.sum(shares)) for key, shares in direct.items()}
    for image in {i for i, _ in votes}:
        judged = sorted(s for i, s in votes if i == image)
        for a, b in itertools.combinations(judged, 2):
            prefers.setdefault((image, a, b), votes[image, a] - votes[image, b])
    right, of = [], []
    for (image, a, b), preference in sorted(prefers.items()):
        if preference and (image, a) in values and (image, b) in values:
            difference = values[image, a] - values[image, b]
            right.append(0.5 if difference == 0 else float((difference > 0) == (preference > 0)))
            of.append(scenes[image])
    return (mean_of(right, of) if right else None), len(right)


def _tau(
    values: Mapping[tuple[str, str], float], votes: Mapping[tuple[str, str], float], scenes: Mapping[str, str]
) -> tuple[float | None, float | None, float | None, int]:
    from scipy import stats

    keys = sorted(values.keys() & votes.keys())
    x, y = (np.array([of[k] for k in keys]) for of in (values, votes))
    if len(keys) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None, None, None, len(keys)
    tau = float(stats.kendalltau(x, y).statistic)
    names = sorted({scenes[image] for image, _ in keys})
    if len(names) < LEAST_SCENES:
        return tau, None, None, len(keys)
    index = [np.array([i for i, (image, _) in enumerate(keys) if scenes[image] == name]) for name in names]
    rng, drawn = generator("Kendall's tau", names), []
    for _ in range(_RESAMPLES):
        chosen = np.concatenate([index[g] for g in rng.integers(0, len(names), len(names))])
        again = float(stats.kendalltau(x[chosen], y[chosen]).statistic)
        if np.isfinite(again):
            drawn.append(again)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return tau, float(low), float(high), len(keys)
