"""The task metric: a segmenter's finds in predictions against masks, counted by hand; a function and a class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.check.metrics import check_metric
from bench.check.pairs import scene
from bench.core import registry
from bench.core.errors import RfbenchError
from bench.metrics import task
from bench.metrics.base import SetScore, Setting
from bench.metrics.identity import rebuild
from bench.metrics.scorer import Scorer, chosen, metric_class


def bright(display: np.ndarray) -> np.ndarray:
    """Inside is what is brighter than the middle of the range."""
    return display.mean(axis=2) > 0.5


class Bright:
    """Scores instead of bool, made once."""

    made = 0

    def __init__(self) -> None:
        Bright.made += 1

    def segment(self, display: np.ndarray) -> np.ndarray:
        return display.mean(axis=2) - 0.5


@pytest.fixture(autouse=True)
def segmenters() -> Iterator[None]:
    known = dict(registry._registered)
    registry.register("segmenters", "bright", bright)
    registry.register("segmenters", "bright-class", Bright)
    yield
    registry._registered.clear()
    registry._registered.update(known)
    task.task_metric.cache_clear()


def of(masks: list[np.ndarray], found: list[np.ndarray], valid: np.ndarray | None = None) -> dict[str, SetScore]:
    """Task metrics of images in which the segmenter finds ``found``."""
    result = {}
    for name in chosen(["task:bright"]):
        metric = metric_class(name)(Setting())
        kept = []
        for mask, inside in zip(masks, found, strict=True):
            estimate, reference = scene(*mask.shape)
            estimate = dataclasses.replace(estimate, display=np.repeat(np.float32(inside)[..., None], 3, axis=2))
            reference = dataclasses.replace(
                reference, mask=mask, valid=reference.valid if valid is None else valid, cache={}
            )
            kept.append(metric.gather(estimate, reference))
        result[name.partition(":")[0]] = metric.combine(kept)  # type: ignore[arg-type]
    return result  # type: ignore[return-value]


def square(top: int, left: int, side: int, size: int = 20) -> np.ndarray:
    inside = np.zeros((size, size), bool)
    inside[top : top + side, left : left + side] = True
    return inside


def test_pixels_are_counted_over_all_images() -> None:
    """100 of the mask and 100 found, 50 of them the same; and an image without a slump in which 20 are found."""
    wrong = np.zeros((20, 20), bool)
    wrong[0] = True
    found = of([square(0, 0, 10), np.zeros((20, 20), bool)], [square(0, 5, 10), wrong])
    assert found["task_iou"].value == pytest.approx(50 / 170) and found["task_iou"].per_image == (50 / 150, 0.0)
    assert found["task_f1"].value == pytest.approx(100 / 220)
    assert found["task_area"].value == pytest.approx(0.2)


def test_pixels_without_data_are_not_counted() -> None:
    valid = np.ones((20, 20), bool)
    valid[:, 10:] = False
    found = of([square(0, 0, 10)], [square(0, 5, 10)], valid)
    assert found["task_iou"].value == 0.5 and found["task_area"].value == 0.5


def test_without_a_mask_or_anything_inside_there_is_a_reason() -> None:
    found: Any = of([np.zeros((20, 20), bool)], [square(0, 0, 3)])["task_iou"]
    assert str(found.reason) == "no mask of these images has a pixel inside"
    estimate, reference = scene(20, 20)
    without: Any = metric_class("task_iou:bright")(Setting()).gather(
        estimate, dataclasses.replace(reference, mask=None, cache={})
    )
    assert str(without.reason) == "no mask"


def test_a_class_is_made_once_and_gives_the_function_s_numbers() -> None:
    estimate, reference = scene(40, 50)
    counts = []
    for name in ("bright", "bright-class"):
        kept = Scorer(chosen([f"task:{name}"]), Setting()).score(reference, {"sample": estimate})
        counts += [of_metric["counts"].tolist() for of_metric in kept.features["sample"].values()]
    assert len(counts) == 6 and all(c == counts[0] for c in counts) and counts[0][0] > 0


def test_the_segmenter_is_in_the_identity() -> None:
    one, other = (metric_class(f"task_iou:{n}")(Setting()).identity() for n in ("bright", "slumps-tiny"))
    assert one.startswith("task_iou:bright|pooled|segmenter:") and one.split("|")[2] != other.split("|")[2]
    assert type(rebuild(other)) is metric_class("task_iou:slumps-tiny")


def test_what_a_segmenter_gives_is_looked_at() -> None:
    registry.register("segmenters", "odd", lambda display: display)
    estimate, reference = scene(20, 30)
    found: Any = metric_class("task_f1:odd")(Setting()).gather(estimate, reference)
    assert "gave float32 20x30x3, expected bool or scores of (20, 30)" in str(found.reason)


def test_unknown_names_are_told() -> None:
    with pytest.raises(RfbenchError, match="unknown segmenter 'brigt'; did you mean bright"):
        chosen(["task:brigt"])
    with pytest.raises(RfbenchError, match="unknown segmenter 'slump'"):
        chosen(["task_iou:slump"])


def test_the_promises_of_metrics_are_kept() -> None:
    pytest.importorskip("torch")
    report = check_metric("task_iou:slumps-tiny")
    assert [str(line) for line in report.lines if line.status == "fail"] == []


def test_the_tiny_segmenter_says_what_it_was_made_of() -> None:
    import json

    from baselines.slumps import WEIGHTS

    about = json.loads(Path(WEIGHTS).with_suffix(".json").read_text(encoding="utf-8"))
    assert about["what"].startswith("tiny") and "--seed 11" in about["data"]  # not the embedded scenes
    assert WEIGHTS.stat().st_size < 40_000
