"""SAM, CIEDE2000 and QNR against equations, closed forms, libraries and published values."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from bench.metrics import kernels, physics
from bench.metrics.physics import spectral_angle
from tests.reference import equations, pictures
from tests.reference.cases import Case, Values, by_library, furthest, score, score_of, tensors
from tests.reference.pictures import need, noisy_pair, pansharpening, reflectance, solid

# The 34 pairs of table 1 in G. Sharma, W. Wu, E. N. Dalal, Color Research and Application 30(1), 2005,
# doi:10.1002/col.20070, on the authors' page (ciede2000testdata): L a b, L a b, difference.
SHARMA = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


# --- SAM --------------------------------------------------------------------------------------------------------------


def _angle(first: np.ndarray, second: np.ndarray) -> float:
    found = spectral_angle(first, second).value
    assert found is not None
    return found


def _sam_equation() -> Values:
    first, second = noisy_pair(40, 50)
    return score("sam_rgb", (first, second)), equations.sam(first.reshape(-1, 3), second.reshape(-1, 3))


def _lit() -> pictures.Pair:
    """Without black pixels, of which torchmetrics' angle is NaN."""
    first, second = (np.maximum(x, np.float32(1 / 255)) for x in noisy_pair())
    return first, second


def _sam_torchmetrics() -> Values:
    need("torchmetrics")
    from torchmetrics.functional.image import spectral_angle_mapper

    return score("sam_rgb", _lit()), math.degrees(float(spectral_angle_mapper(*tensors(_lit()))))


def _four_bands() -> tuple[np.ndarray, np.ndarray]:
    truth = pictures.clean(40, 50, 5, 4)
    return truth, np.clip(truth + np.random.default_rng(5).normal(0, 0.05, truth.shape), 0.01, 1).astype(np.float32)


def _sam_refl(theirs: Any) -> Values:
    truth, guess = _four_bands()
    estimate, reference = pictures.held((truth[:, :, :3], guess[:, :, :3]), hr=reflectance(truth))
    estimate = pictures.Estimate(estimate.display, estimate.display_float, reflectance(guess))
    return score_of("sam_refl", estimate, reference), theirs(truth, guess)


def _sam_refl_torchmetrics(truth: np.ndarray, guess: np.ndarray) -> float:
    need("torchmetrics")
    from torchmetrics.functional.image import spectral_angle_mapper

    return math.degrees(float(spectral_angle_mapper(*tensors((truth, guess)))))


def _small_angle() -> Values:
    turned = math.radians(1e-6)
    return _angle(np.array([[1.0, 0.0]]), np.array([[math.cos(turned), math.sin(turned)]])), 1e-6


# --- CIEDE2000 --------------------------------------------------------------------------------------------------------


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Our step from two lists of Lab colours (N, 3) to their differences."""
    import torch

    return kernels.ciede2000(*(torch.from_numpy(np.ascontiguousarray(x.T)) for x in (first, second))).numpy()


def _sharma() -> Values:
    rows = np.array([[float(x) for x in line.split()] for line in SHARMA.split("\n") if line])
    assert len(rows) == 34
    found = _difference(rows[:, :3], rows[:, 3:6])
    return furthest(zip(found.tolist(), rows[:, 6].tolist(), strict=True))


def _sharma_equation() -> Values:
    random = np.random.default_rng(34)
    first, second = (random.uniform([0, -100, -100], [100, 100, 100], (500, 3)) for _ in range(2))
    found = _difference(first, second)
    return furthest((f, equations.ciede2000(a, b)) for f, a, b in zip(found.tolist(), first, second, strict=True))


def _de00_equation() -> Values:
    pair = noisy_pair(40, 50)
    return score("de00", pair), equations.de00(*pair)


def _de00_skimage() -> Values:
    from skimage.color import deltaE_ciede2000, rgb2lab

    theirs = deltaE_ciede2000(*(rgb2lab(x.astype(np.float64)) for x in noisy_pair())).mean()
    return score("de00", noisy_pair()), float(theirs)


# --- QNR --------------------------------------------------------------------------------------------------------------


@cache
def _equation(name: str) -> float:
    _, _, (fused, upsampled, pan) = pansharpening()
    if name == "d_lambda":
        return equations.d_lambda(fused, upsampled)
    if name == "d_s":
        return equations.d_s(fused, upsampled, pan)
    return (1 - _equation("d_lambda")) * (1 - _equation("d_s"))


def _pan(name: str, theirs: Any) -> Values:
    estimate, reference, arrays = pansharpening()
    return score_of(name, estimate, reference), theirs(*arrays)


def _batch(*stacks: np.ndarray) -> list[Any]:
    import torch

    return [torch.from_numpy(x[None].copy()) for x in stacks]


def _d_lambda_torchmetrics(fused: np.ndarray, upsampled: np.ndarray, pan: np.ndarray) -> float:
    need("torchmetrics")
    from torchmetrics.functional.image import spectral_distortion_index

    return float(spectral_distortion_index(*_batch(fused, upsampled)))


def _d_s_torchmetrics(fused: np.ndarray, upsampled: np.ndarray, pan: np.ndarray) -> float:
    """Its Q of the gradients of all images, with 'both scales' the fused size."""
    need("torchmetrics")
    from torchmetrics.functional.image import spatial_distortion_index

    stacks = [fused, upsampled, np.repeat(pan[None], len(fused), axis=0)]
    edges = _batch(*(np.stack([equations.sobel(band) for band in stack]) for stack in stacks))
    return float(spatial_distortion_index(*edges, edges[2]))


def _qnr_torchmetrics(*arrays: np.ndarray) -> float:
    return (1 - _d_lambda_torchmetrics(*arrays)) * (1 - _d_s_torchmetrics(*arrays))


def _q_torchmetrics() -> Values:
    need("torchmetrics")
    from torchmetrics.functional.image import universal_image_quality_index

    _, _, (fused, upsampled, _) = pansharpening()
    ours = np.mean([physics.quality_index(a, b) for a, b in zip(fused, upsampled, strict=True)])
    return float(ours), float(universal_image_quality_index(*_batch(fused, upsampled)))


def _kept(what: str) -> Values:
    """torchmetrics' values of two kept cases: the furthest of their kind."""
    values, arrays = pictures.arrays_of_others("spectral_cases")
    found = []
    for case, expected in values.items():
        fused, hr, ms = (arrays[f"{case}_{k}"].astype(np.float64) for k in ("fused", "hr", "ms"))
        if what == "sam":
            spectra = [np.moveaxis(a, 0, 2).reshape(-1, len(a)) for a in (fused, hr)]
            found.append((_angle(*spectra), expected["sam_deg(fused,hr)"]))
        else:
            ratio = fused.shape[1] // ms.shape[1]
            repeated = ms.repeat(ratio, axis=1).repeat(ratio, axis=2)
            given = {"d_lambda(fused,ms)": ms, "d_lambda(fused, ms repeated to fused size)": repeated}
            found += [(physics.spectral_distortion(fused, m), expected[key]) for key, m in given.items()]
    return furthest(iter(found))


def _upsampled_lr(name: str) -> float:
    """What scores an image that equals the LR brought to its size."""
    estimate, reference, (_, upsampled, _) = pansharpening()
    same = pictures.Estimate(estimate.display, estimate.display_float, reflectance(np.moveaxis(upsampled, 0, 2)))
    return score_of(name, same, reference)


CASES = [
    Case("sam_rgb", "equation", "arccos of the normalised product, pixel by pixel", _sam_equation, 1e-6),
    *(
        Case(
            "sam_rgb",
            "closed form",
            f"the angle between {x} and {y}",
            lambda x=x, y=y, d=degrees: (_angle(np.array([x]), np.array([y])), d),
            1e-12,
        )
        for x, y, degrees in (((1, 0, 0), (1, 1, 0), 45.0), ((1, 2, 3), (2, 4, 6), 0.0), ((1, 0, 0), (0, 0, 1), 90.0))
    ),
    Case("sam_rgb", "closed form", "an angle of 1e-6 degrees",
         _small_angle, 1e-9, relative=True, note="in an arc cosine the digits would be lost"),
    Case("sam_rgb", "library", "torchmetrics, radians turned into degrees", _sam_torchmetrics, 1e-5),
    Case("sam_refl", "equation", "arccos of the normalised product, four bands",
         lambda: _sam_refl(lambda a, b: equations.sam(a.reshape(-1, 4), b.reshape(-1, 4))), 1e-6),
    Case("sam_refl", "library", "torchmetrics, four bands", lambda: _sam_refl(_sam_refl_torchmetrics), 1e-5),
    Case("sam_refl", "library", "torchmetrics on two kept cases: the furthest", lambda: _kept("sam"), 1e-6,
         note="computed once with torchmetrics 1.9.0"),
    Case("de00", "published", "the 34 pairs of Sharma et al. 2005, table 1: the furthest", _sharma, 5.1e-5,
         note="published to four decimals; the difference step alone"),
    Case("de00", "equation", "500 random pairs of Lab colours, eq. 28-34: the furthest", _sharma_equation, 1e-9),
    Case("de00", "equation", "sRGB to Lab (D65) and eq. 28-34, pixel by pixel", _de00_equation, 1e-6),
    Case("de00", "closed form", "white against black: 100",
         lambda: (score("de00", (solid((1, 1, 1)), solid((0, 0, 0)))), 100.0), 1e-3),
    Case("de00", "library", "colour-science (`--exact-libraries`)", lambda: by_library("de00"), 1e-6),
    Case("de00", "library", "skimage.color", _de00_skimage, 2e-3, note="its white point has other last digits"),
    Case("d_lambda", "equation", "eq. 38, window by window, the LR brought to the fused size",
         lambda: _pan("d_lambda", lambda *_: _equation("d_lambda")), 1e-9),
    Case("d_lambda", "library", "torchmetrics, given the LR at the fused size",
         lambda: _pan("d_lambda", _d_lambda_torchmetrics), 1e-6, note="it keeps Q in float32"),
    Case("d_lambda", "library", "torchmetrics on two kept cases, MS at its own and at the fused size: the furthest",
         lambda: _kept("d_lambda"), 1e-6, note="computed once with torchmetrics 1.9.0; it keeps Q in float32"),
    Case("d_lambda", "library", "torchmetrics, its Q alone", _q_torchmetrics, 1e-9),
    Case("d_lambda", "closed form", "0 of the upsampled LR itself", lambda: (_upsampled_lr("d_lambda"), 0.0), 1e-12),
    Case("d_s", "equation", "eq. 39 with Sobel's gradient, window by window",
         lambda: _pan("d_s", lambda *_: _equation("d_s")), 1e-9),
    Case("d_s", "library", "torchmetrics, given the gradients, all at the fused size",
         lambda: _pan("d_s", _d_s_torchmetrics), 1e-6, note="it keeps Q in float32"),
    Case("d_s", "closed form", "0 of the upsampled LR itself", lambda: (_upsampled_lr("d_s"), 0.0), 1e-12),
    Case("qnr", "equation", "the product of eq. 38 and 39", lambda: _pan("qnr", lambda *_: _equation("qnr")), 1e-9),
    Case("qnr", "library", "torchmetrics, as for its parts", lambda: _pan("qnr", _qnr_torchmetrics), 1e-6),
    Case("qnr", "closed form", "1 of the upsampled LR itself", lambda: (_upsampled_lr("qnr"), 1.0), 1e-12),
]  # fmt: skip
