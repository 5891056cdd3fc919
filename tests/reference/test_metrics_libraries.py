"""The metrics against other implementations of the same definitions, where those are installed."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bench.core.image import Image
from bench.metrics import physics, realism
from bench.metrics.base import Estimate, Metric, Reference, Setting
from bench.metrics.fidelity import Fsim, Fsimc, PsnrRgb, SsimRgb
from bench.metrics.physics import De00, SamRgb

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A smooth random picture and a noisy one, 8 bit, (96, 128, 3)."""
    random = np.random.default_rng(1)
    clean = gaussian_filter(random.random((96, 128, 3)), (3, 3, 0))
    clean = (clean - clean.min()) / np.ptp(clean)
    noisy = np.clip(clean + random.normal(0, 0.08, clean.shape), 0, 1)
    first, second = (np.float32(np.rint(x * 255) / 255) for x in (clean, noisy))
    return first, second


def value(metric: type[Metric], pair: tuple[np.ndarray, np.ndarray]) -> float:
    reference, prediction = pair
    valid = np.ones(reference.shape[:2], bool)
    lr = Image(reference[::4, ::4].copy(), "display", ("R", "G", "B"), valid[::4, ::4])
    score = metric(Setting()).assess(
        Estimate(prediction, prediction), Reference("a", "a", reference, reference, None, None, lr, valid)
    )
    assert score.reason is None
    assert score.value is not None
    return score.value


def tensors(pair: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and reference, double, (1, 3, H, W)."""
    first, second = (torch.from_numpy(np.moveaxis(x, 2, 0)[None].astype(np.float64)) for x in pair)
    return second, first


def test_psnr_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    theirs = image.peak_signal_noise_ratio(*tensors(pair), data_range=1.0)
    assert value(PsnrRgb, pair) == pytest.approx(float(theirs), abs=1e-5)  # it takes the logarithm in float32


def test_ssim_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    _, found = image.structural_similarity_index_measure(*tensors(pair), data_range=1.0, return_full_image=True)
    theirs = found[..., 5:-5, 5:-5].mean()  # its own mean counts the mirrored edges, 0.008 more here
    assert value(SsimRgb, pair) == pytest.approx(float(theirs), abs=1e-6)


def test_ssim_piq(pair: tuple[np.ndarray, np.ndarray]) -> None:
    piq = pytest.importorskip("piq")
    assert value(SsimRgb, pair) == pytest.approx(float(piq.ssim(*tensors(pair), downsample=False)), abs=1e-6)


@pytest.mark.parametrize("metric", [Fsim, Fsimc])
def test_fsim_piq(pair: tuple[np.ndarray, np.ndarray], metric: type[Metric]) -> None:
    pytest.importorskip("pyiqa")
    piq = pytest.importorskip("piq")
    theirs = piq.fsim(*(x.float() for x in tensors(pair)), chromatic=metric is Fsimc)
    assert value(metric, pair) == pytest.approx(float(theirs), abs=2e-5)


def test_sam_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    lit = tuple(np.maximum(x, np.float32(1 / 255)) for x in pair)  # its angle of black is NaN
    theirs = np.degrees(float(image.spectral_angle_mapper(*tensors(lit))))
    assert value(SamRgb, lit) == pytest.approx(theirs, abs=1e-5)


def test_de00_skimage(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("colour")
    color = pytest.importorskip("skimage.color")
    theirs = color.deltaE_ciede2000(*(color.rgb2lab(x.astype(np.float64)) for x in pair)).mean()
    assert value(De00, pair) == pytest.approx(float(theirs), abs=2e-3)


def test_quality_index_and_d_lambda_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    random = np.random.default_rng(2)
    fused = gaussian_filter(random.random((4, 64, 48)), (0, 2, 2)) + 0.2
    other = fused + random.normal(0, 0.02, fused.shape)
    batch = [torch.from_numpy(x[None]) for x in (fused, other)]
    ours = np.mean([physics.quality_index(a, b) for a, b in zip(fused, other, strict=True)])
    assert ours == pytest.approx(float(image.universal_image_quality_index(*batch)), abs=1e-9)
    theirs = float(image.spectral_distortion_index(*batch))
    assert physics.spectral_distortion(fused, other) == pytest.approx(theirs, abs=1e-6)
    assert physics.spectral_distortion(other, fused) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(("n", "dimensions"), [(40, 16), (16, 16), (12, 64), (2, 64)])
def test_frechet_torch_fidelity(n: int, dimensions: int) -> None:
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    random = np.random.default_rng(n)
    first = random.normal(0, 1, (n, dimensions)) @ random.normal(0, 1, (dimensions, dimensions))
    second = random.normal(0.3, 2, (n, dimensions))
    statistics = [fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (first, second)]
    theirs = fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert realism.frechet_distance(first, second) == pytest.approx(theirs, rel=1e-5 if n <= dimensions else 1e-9)


@pytest.mark.parametrize("n", [2, 30])
def test_kernel_distance_torch_fidelity(n: int) -> None:
    """torch-fidelity with one subset of all images is ours, whatever the order it draws them in."""
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    random = np.random.default_rng(n)
    pair = [random.normal(m, 1, (n, 32)) for m in (0.0, 0.2)]
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = kid.kid_features_to_metric(
            *(torch.from_numpy(x) for x in pair), kid_subsets=1, kid_subset_size=n, verbose=False
        )
    ours = realism.kernel_distance(*pair)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9, abs=1e-12)
