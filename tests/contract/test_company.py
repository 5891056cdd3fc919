"""A score is the same to the bit whatever is scored with it: other models, other metrics before, another order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from bench.check.pairs import NOISE, scene
from bench.core import registry
from bench.metrics.base import Estimate, Reference, SetScore
from bench.metrics.scorer import ItemScores, Scorer, metric_class
from tests.contract.test_metrics import SIBLINGS, random_weights
from tests.unit.test_metrics_speed import SET

NAMES = [n for n in registry.names("metrics") if n not in {*SIBLINGS, *SET, "maniqa_koniq"}]
"""The set is looked at there, all at once; MANIQA sees no reference and takes long."""
MODELS = {"near": NOISE, "far": 3 * NOISE}


def images(side: int, count: int) -> list[tuple[Reference, dict[str, dict[str, Estimate]]]]:
    """References of two shapes and what two models made of each, with caches that hold nothing yet."""
    found = []
    for i in range(count):
        size = (side, side + 8 * (i % 2))
        reference = scene(*size, i)[1]
        found.append((reference, {label: {"sample": scene(*size, i, noise)[0]} for label, noise in MODELS.items()}))
    return found


def results(name: str, scored: Sequence[ItemScores], scorer: Scorer) -> object:
    """A model's number, or all that its set's number is made of and it, as bits."""
    if metric_class(name).level == "image":
        return [s.scores["sample"][name] for s in scored]
    features = [s.features["sample"][name] for s in scored]
    found = scorer.metrics[0].combine(features)
    assert isinstance(found, SetScore)
    return [{k: v.tobytes() for k, v in f.items()} for f in features], found.value.hex(), found.per_image


@pytest.mark.parametrize("name", [*NAMES, "psnr_rgb_reg"])
def test_company_moves_no_bit(name: str) -> None:
    kind = metric_class(name)
    with random_weights(name) as setting:
        side = max(64, kind.min_side_px) if kind.level == "image" else max(120, kind.min_side_px)
        count = max(2, kind.min_images) if kind.level == "set" else 2
        together, alone = Scorer([name], setting), Scorer([name], setting)
        of_all = [together.score_models(reference, dict(reversed(of.items()))) for reference, of in images(side, count)]
        for label in MODELS:
            of_one = [
                alone.score(dataclasses.replace(reference, cache={}), of[label])
                for reference, of in reversed(images(side, count))
            ][::-1]
            assert results(name, [of[label] for of in of_all], together) == results(name, of_one, alone)
