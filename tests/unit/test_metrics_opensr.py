"""opensr-test's measures: cases that are computed by hand, odd scales, and what the second family mends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bench.core.image import Image
from bench.metrics import opensr
from bench.metrics.base import Estimate, Reference
from bench.metrics.scorer import chosen

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
    """At a scale that does not divide 16, and with one band; bilinear upsampling against HR of other radiometry."""
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


def test_the_class_map_lies_on_the_reference_s_grid() -> None:
    """The left half does nothing and the right half is HR: omission and improvement, none in the border."""
    random = np.random.default_rng(1)
    bands = ("R", "G", "B")
    hr = np.float32(0.1 + 0.2 * gaussian_filter(random.random((100, 120, 3)), (1, 1, 0)))
    low = torch.nn.functional.interpolate(
        torch.from_numpy(hr).movedim(2, 0)[None], scale_factor=0.25, mode="bilinear", antialias=True
    )
    up = torch.nn.functional.interpolate(low, scale_factor=4, mode="bilinear", antialias=True)
    sr = hr.copy()
    sr[:, :60] = up[0].movedim(0, 2).numpy()[:, :60]
    images = [Image(np.ascontiguousarray(x), "reflectance", bands, np.ones(x.shape[:2], bool))
              for x in (low[0].movedim(0, 2).numpy(), sr, hr)]  # fmt: skip
    reference = Reference("a", "a", hr, hr, images[2], None, images[0], images[2].valid)
    found = opensr.class_map(Estimate(sr, sr, images[1]), reference, "hr")
    assert found.shape == (100, 120)
    inner = found[16:-16, 16:-16]
    assert (found == opensr.UNCOUNTED).sum() == found.size - inner.size + (inner == opensr.UNCOUNTED).sum()
    left, right = inner[:, :40], inner[:, 48:]
    omitted, improved = opensr.CLASSES.index("omission"), opensr.CLASSES.index("improvement")
    assert (left == omitted).sum() > 0.9 * (left != opensr.UNCOUNTED).sum() > 0
    assert (right == improved).sum() > 0.9 * (right != opensr.UNCOUNTED).sum() > 0


def test_one_name_asks_for_the_family() -> None:
    names = chosen(["psnr_rgb", "opensr"])
    assert names[:2] == ("psnr_rgb", "opensr_reflectance") and len(names) == 11
    assert chosen(["modern"])[:2] == ("pyiqa:topiq_fr", "pyiqa:afine_fr")
    assert names[5:8] == tuple(f"opensr_{name}" for name in opensr.CLASSES)
    with pytest.raises(Exception, match="did you mean opensr or"):
        chosen(["opensrr"])
