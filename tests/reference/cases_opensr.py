"""opensr-test's measures against their definitions, cases computed by hand, and the package."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np

from bench.metrics import opensr
from tests.reference import opensr_equations as equations
from tests.reference import pictures
from tests.reference.cases import Case, Values, furthest, score_of
from tests.reference.pictures import reflectance

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]
"""LR, prediction and HR, float32 (C, H, W) in reflectance."""

PACKAGE = {
    "reflectance": "reflectance", "spectral": "spectral", "spatial": "spatial", "synthesis": "synthesis",
    "improvement": "im_metric", "omission": "om_metric", "hallucination": "ha_metric",
}  # fmt: skip
HAND = (
    (0.3, (0.964663, 0.017668, 0.017668)),
    (0.2, (0.017668, 0.964663, 0.017668)),
    (0.25, (0.559744, 0.373771, 0.066485)),
    (0.6, (0.007512, 0.000437, 0.992051)),
)
"""Of LR 0.2 and HR 0.3 everywhere: what the prediction is, and the memberships of every pixel."""


@cache
def triple(seed: int, scale: int, lr_px: int) -> Triple:
    """Textured scenes: HR, its area mean with the gain and offset of another sensor, and a prediction between HR and
    the enlarged LR, half a pixel aside, with noise."""
    random_of = np.random.default_rng(1000 + seed)
    side = lr_px * scale
    hr = 0.03 + 0.4 * np.moveaxis(pictures.clean(side, side, seed, 4), 2, 0).astype(np.float64)
    low = hr.reshape(4, lr_px, scale, lr_px, scale).mean(axis=(2, 4)) * random_of.uniform(0.8, 1.2, (4, 1, 1)) + 0.01
    up = equations.bilinear(low, (side, side))
    sr = 0.5 * up + 0.5 * equations.moved(hr, (0.5, -1.0)) + random_of.normal(0, 0.005, hr.shape)
    return np.float32(low), np.float32(np.maximum(sr, 1e-3)), np.float32(hr)


def ours(measure: str, of: Triple) -> float:
    """The registered metric of a triple."""
    lr, sr, hr = (reflectance(np.moveaxis(x, 0, 2)) for x in of)
    display = hr.values[:, :, :3]
    _, reference = pictures.held((display, display), hr=hr, lr=lr)
    return score_of(f"opensr_{measure}", pictures.Estimate(display, display, sr), reference)


def _cut(of: Triple, scale: int) -> Triple:
    lr, sr, hr = of
    c = math.ceil(16 / scale)
    s = c * scale
    return lr[:, c:-c, c:-c], sr[:, s:-s, s:-s], hr[:, s:-s, s:-s]


@cache
def _equation(kind: str) -> dict[str, float]:
    lr, sr, hr = _cut(triple(3, 4, 24), 4)
    if kind == "consistency":
        return equations.consistency(lr, sr)
    return equations.correctness(lr, sr, hr, is_hr_fitted=kind == "h")


def by_equation(measure: str) -> Values:
    """A scene at scale 4, for the consistency with LR, the package's correctness, or that of the second family."""
    kind = "consistency" if measure in ("reflectance", "spectral", "spatial") else "h" if measure[-2:] == "_h" else "sr"
    return ours(measure, triple(3, 4, 24)), _equation(kind)[measure.removesuffix("_h")]


KEPT = Path(__file__).parent / "opensr_test_1.3.3.json"
"""What the package gives these scenes, made by ``python -m tests.reference.opensr_package``."""

SCENES = 10
SIZES = ((2, 40), (4, 24), (8, 14))
"""Scale, and side of the LR image, px."""


def by_package(measure: str) -> Values:
    """Of thirty scenes the one that differs most."""
    values = json.loads(KEPT.read_text(encoding="utf-8"))["values"]
    return furthest(
        (ours(measure, triple(seed, scale, lr_px)), values[f"x{scale}"][seed][PACKAGE[measure]])
        for scale, lr_px in SIZES
        for seed in range(SCENES)
    )


def by_hand(measure: str) -> Values:
    """The four cases of constant images: the furthest."""

    def flat(value: float, side: int) -> np.ndarray:
        return np.full((3, side, side), value, np.float32)

    def found(sr: float) -> float:
        made = opensr.correctness(flat(0.2, 8), flat(sr, 16), flat(0.3, 16), harmonise="", border_px=0, threshold=0.0)
        return float(getattr(made, measure))

    return furthest((found(sr), expected[opensr.CLASSES.index(measure)]) for sr, expected in HAND)


def _angle() -> Values:
    lr, sr = np.zeros((3, 8, 8), np.float32), np.zeros((3, 8, 8), np.float32)
    lr[0], sr[:2] = 0.1, 0.1
    return opensr.consistency(lr, sr, (0, 1, 2), border_px=0).spectral, 45.0


def _rolled() -> Values:
    noise = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    return opensr.consistency(noise, np.roll(noise, (1, 2), (1, 2)), (0, 1, 2), border_px=0).spatial, math.sqrt(5)


def _nothing_done(measure: str) -> Values:
    """LR enlarged bilinearly, against HR that is half as bright again: the same as against HR itself."""
    lr, _, hr = triple(5, 4, 24)
    up = np.float32(equations.bilinear(lr, hr.shape[1:]))
    return ours(measure, (lr, up, np.float32(1.5 * hr))), ours(measure, (lr, up, hr))


_SAME = "opensr-test 1.3.3, ten textured scenes at scale 2, 4 and 8: the furthest"
CASES = [
    *(Case(f"opensr_{m}", "equation", "its definition in float64, pixel by pixel", lambda m=m: by_equation(m), 1e-6)
      for m in (*PACKAGE, "improvement_h", "omission_h", "hallucination_h")),
    *(Case(f"opensr_{m}", "library", _SAME, lambda m=m: by_package(m), 1e-6,
           note="computed once with the package, in double precision") for m in PACKAGE),
    Case("opensr_spectral", "closed form", "(0.1, 0, 0) against (0.1, 0.1, 0): 45 degrees", _angle, 1e-5),
    Case("opensr_spatial", "closed form", "noise rolled by (1, 2) px: sqrt(5)", _rolled, 1e-6),
    *(Case(f"opensr_{m}", "closed form", "four cases of constant images by hand: the furthest",
           lambda m=m: by_hand(m), 1e-6, note="published to six digits") for m in opensr.CLASSES),
    *(Case(f"opensr_{m}_h", "closed form", "doing nothing has one value whatever the brightness of HR",
           lambda m=m: _nothing_done(f"{m}_h"), 1e-6) for m in opensr.CLASSES),
]  # fmt: skip
