"""Colour and resolution are seen apart; seams are found where they are, and not where there are none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bench.check.pairs import scene
from bench.core.resample import resize
from bench.metrics.base import Score, Setting
from bench.metrics.scorer import chosen, metric_class
from bench.metrics.seams import strongest_comb
from tests.reference.pictures import clean

pytest.importorskip("torch")
SIDE = 192


def looks() -> tuple[np.ndarray, np.ndarray]:
    """LR on the grid, in other colours than HR; HR."""
    hr = clean(SIDE, SIDE, 4)
    low = resize(resize(hr, (SIDE // 4, SIDE // 4)), (SIDE, SIDE))
    return np.clip(low * np.float32([0.6, 0.8, 0.9]) + np.float32(0.1), 0, 1), hr


def of(display: np.ndarray, lr_display: np.ndarray | None, hr: np.ndarray) -> dict[str, Score]:
    estimate, reference = scene(SIDE, SIDE)
    estimate = dataclasses.replace(estimate, display=display.astype(np.float32))
    reference = dataclasses.replace(reference, display=hr, lr_display=lr_display, cache={})
    return {name: metric_class(name)(Setting()).assess(estimate, reference) for name in chosen(["style"])}


def values(display: np.ndarray, lr_display: np.ndarray, hr: np.ndarray) -> list[float]:
    found = of(display, lr_display, hr)
    assert list(found) == ["style_colour", "style_spectrum", "style_texture"]
    return [score.value if score.value is not None else np.nan for score in found.values()]


def test_colours_arrive_while_detail_stays() -> None:
    """What the best colour map of bicubic does."""
    low, hr = looks()
    mapped = np.clip((low - 0.1) / np.float32([0.6, 0.8, 0.9]), 0, 1)
    colour, spectrum, texture = values(mapped, low, hr)
    assert colour == pytest.approx(1, abs=0.15) and abs(spectrum) < 0.1 and abs(texture) < 0.25


def test_detail_arrives_while_colours_stay() -> None:
    low, hr = looks()
    sharp = np.clip(hr * np.float32([0.6, 0.8, 0.9]) + np.float32(0.1), 0, 1)
    colour, spectrum, texture = values(sharp, low, hr)
    assert abs(colour) < 0.15 and spectrum > 0.85 and texture > 0.85


def test_going_too_far_and_the_other_way() -> None:
    low, hr = looks()
    assert values(np.clip(1.3 * hr - 0.3 * low, 0, 1), low, hr)[0] > 1.1
    assert values(np.clip(1.3 * low - 0.3 * hr, 0, 1), low, hr)[0] < -0.1


def test_without_a_way_there_is_a_reason() -> None:
    _, hr = looks()
    assert all("look the same" in str(score.reason) for score in of(hr, hr, hr).values())
    assert all("no bands R G B" in str(score.reason) for score in of(hr, None, hr).values())


@pytest.mark.parametrize(("period", "offset"), [(60, 0), (48, 20), (16, 3)])
def test_a_comb_is_found_where_it_is(period: int, offset: int) -> None:
    """Tiles of slightly different brightness, in a picture with edges of its own."""
    hr = clean(SIDE, SIDE, 4).mean(axis=2).astype(np.float64)
    hr[:, 100:] += 0.3
    tiles = (np.arange(SIDE) - offset) // period % 2 * 0.1
    assert strongest_comb(hr).strength < 5.5
    found = strongest_comb(hr + tiles[:, None])
    assert found.lines == "rows" and found.strength > 8
    assert found.period_px == period and found.offset_px % period == (offset or period) % period


def test_an_image_without_contrast_has_no_seams_to_hold_against() -> None:
    flat: Score = metric_class("seams")(Setting()).assess(
        *(dataclasses.replace(s, display=np.full((64, 64, 3), np.float32(0.5))) for s in scene(64, 64))  # type: ignore[misc]
    )
    assert "no contrast" in str(flat.reason)
