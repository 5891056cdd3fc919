"""How far a prediction has moved, and seams, against their definitions and what is known without computing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from bench.core.resample import resize
from bench.metrics.niqe import published
from tests.reference import equations, pictures, texture_equations
from tests.reference.cases import Case, Values, furthest, score, score_of
from tests.reference.pictures import clean, eight_bit

Looks = tuple[np.ndarray, np.ndarray, np.ndarray]
"""LR brought to the grid, prediction and HR as they are displayed."""


@cache
def looks(height: int, width: int, *, is_grey: bool = False) -> Looks:
    """HR of other colours than LR, and a prediction that is half way in pixels, with some noise."""
    hr = clean(height, width, 7)
    if is_grey:
        hr = np.repeat(hr[:, :, :1], 3, axis=2)
    low = eight_bit(np.clip(resize(resize(hr, (height // 4, width // 4)), (height, width)) * 0.7 + 0.1, 0, 1))
    noise = np.random.default_rng(11).normal(0, 0.02, (height, width, 1))
    return low, eight_bit(0.5 * low + 0.5 * hr + noise), hr


def ours(name: str, of: Looks) -> float:
    """The metric of three displayed images."""
    low, prediction, hr = of
    estimate, reference = pictures.held((hr, prediction))
    return score_of(name, estimate, replace(reference, lr_display=low))


def by_equation(name: str, look: Callable[[np.ndarray], np.ndarray], of: Looks) -> Values:
    """The statistics by an equation, and the foot on the line between two of them."""
    return ours(name, of), equations.way(*(look(x) for x in of))


def _texture(display: np.ndarray) -> np.ndarray:
    return texture_equations.niqe_blocks(display)[0].mean(axis=0) / np.sqrt(np.diag(published()[1]))


def ends(name: str) -> Values:
    """LR has 0 and HR has 1: the furthest."""
    low, _, hr = looks(96, 192)
    return furthest(iter([(ours(name, (low, low, hr)), 0.0), (ours(name, (low, hr, hr)), 1.0)]))


def _between() -> Values:
    """Grey of two brightnesses without texture but for a step: the foot is their difference in L."""
    step = np.zeros((32, 32, 3), np.float32)
    step[:, 16:] = 0.1
    levels = [step + np.float32(level) for level in (0.2, 0.35, 0.6)]
    of = levels[0], levels[1], levels[2]
    return ours("style_colour", of), equations.way(*(equations.lab_statistics(x[::8, ::8]) for x in of))


def _turned() -> Values:
    pair = pictures.noisy_pair(72, 96)
    turned = tuple(np.ascontiguousarray(np.moveaxis(x, 0, 1)) for x in pair)
    return score("seams", pair), score("seams", (turned[0], turned[1]))


_LUMA = np.array([0.299, 0.587, 0.114])
CASES = [
    Case("style_colour", "equation", "Lab pixel by pixel, the foot number by number",
         lambda: by_equation("style_colour", equations.lab_statistics, looks(40, 48)), 1e-9),
    Case("style_colour", "closed form", "0 of the LR itself and 1 of the HR image: the furthest",
         lambda: ends("style_colour"), 1e-12),
    Case("style_colour", "closed form", "a grey step between two others", _between, 1e-9),
    Case("style_spectrum", "equation", "transforms as matrix products, ring by ring",
         lambda: by_equation("style_spectrum", equations.log_spectra, looks(40, 40)), 1e-9),
    Case("style_spectrum", "closed form", "0 of the LR itself and 1 of the HR image: the furthest",
         lambda: ends("style_spectrum"), 1e-12),
    Case("style_texture", "equation", "NIQE's features in float64, grey pictures",
         lambda: by_equation("style_texture", _texture, looks(96, 192, is_grey=True)), 1e-3,
         note="shapes lie on a grid of 0.001"),
    Case("style_texture", "closed form", "0 of the LR itself and 1 of the HR image: the furthest",
         lambda: ends("style_texture"), 1e-12),
    Case("seams", "equation", "every comb, line by line",
         lambda: (score("seams", pictures.noisy_pair(64, 96)),
                  equations.comb(pictures.noisy_pair(64, 96)[1].astype(np.float64) @ _LUMA)), 1e-9),
    Case("seams", "closed form", "the same of an image that is turned", _turned, 1e-9),
]  # fmt: skip
