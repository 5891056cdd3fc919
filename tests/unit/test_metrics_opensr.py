"""opensr-test's measures: cases that are computed by hand, odd scales, and what the second family mends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bench.metrics import opensr

torch = pytest.importorskip("torch")


def flat(value: float, side: int) -> np.ndarray:
    return np.full((3, side, side), value, np.float32)


@pytest.mark.parametrize(
    ("sr", "expected"),
    [
        (0.3, (0.964663, 0.017668, 0.017668)),
        (0.2, (0.017668, 0.964663, 0.017668)),
        (0.25, (0.559744, 0.373771, 0.066485)),
        (0.6, (0.007512, 0.000437, 0.992051)),
    ],
)
def test_constant_images_by_hand(sr: float, expected: tuple[float, float, float]) -> None:
    found = opensr.correctness(flat(0.2, 8), flat(sr, 16), flat(0.3, 16), harmonise="", border_px=0, threshold=0.0)
    assert (found.improvement, found.omission, found.hallucination) == pytest.approx(expected, abs=1e-6)
    assert found.coverage == 1.0 and (found.classes == np.argmax(expected)).all()


def test_consistency_by_hand() -> None:
    lr, sr = np.zeros((3, 8, 8), np.float32), np.zeros((3, 8, 8), np.float32)
    lr[0], sr[:2] = 0.1, 0.1
    assert opensr.consistency(lr, sr, (0, 1, 2), border_px=0).spectral == pytest.approx(45.0, abs=1e-6)
    noise = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    for shift, expected in (((1, 2), math.sqrt(5)), ((3, 4), 5.0)):
        found = opensr.consistency(noise, np.roll(noise, shift, (1, 2)), (0, 1, 2), border_px=0)
        assert found.spatial == pytest.approx(expected, abs=1e-6)
    assert math.isnan(opensr.consistency(noise, np.roll(noise, (4, 4), (1, 2)), (0, 1, 2), border_px=0).spatial)


@pytest.mark.parametrize("bands", [1, 4])
def test_doing_nothing_is_omission_whatever_the_sensor(bands: int) -> None:
    """At a scale that does not divide 16, and with one band; bilinear upsampling against HR images of other radiometry."""
    random = np.random.default_rng(0)
    layers = [gaussian_filter(random.random((bands, 200, 200)), (0, s, s)) * s for s in (1, 4, 12)]
    hr = sum(layers)
    hr = np.float32(0.05 + 0.3 * (hr - hr.min()) / np.ptp(hr))
    low = torch.nn.functional.interpolate(torch.from_numpy(hr)[None], scale_factor=0.2, mode="bilinear", antialias=True)
    up = torch.nn.functional.interpolate(low, scale_factor=5, mode="bilinear", antialias=True)[0].numpy()
    for gain, offset in ((1.0, 0.0), (1.5, 0.0), (1.0, 0.2)):
        found = opensr.correctness(low[0].numpy(), up, np.float32(hr * gain + offset), harmonise="hr")
        assert found.omission > 0.9 and found.improvement < 0.06
        assert found.coverage == pytest.approx(0.25, abs=0.01)
