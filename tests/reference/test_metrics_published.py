"""The metrics against values that others published: the authors' MATLAB code, IPOL, papers' tables."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from bench.core.image import Image
from bench.metrics import niqe, physics, realism, uncertainty
from bench.metrics.base import Estimate, Metric, Reference, Score, Setting
from bench.metrics.fidelity import Fsim, Fsimc, PsnrRgb, PsnrY, SsimRgb
from bench.metrics.perceptual import Dists, LpipsAlex, LpipsVgg

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def shared(name: str) -> Path:
    """A file of the reference folder beside the repository, or a skip."""
    path = SHARED / "reference" / name
    if not path.exists():
        pytest.skip(f"{path} is not here; it needs the reference values in {SHARED}")
    return path


def cases(name: str) -> Any:
    return json.loads(shared(name).read_text(encoding="utf-8"))


@cache
def setting() -> Setting:
    folder = SHARED / "weights"
    return Setting(weights_dir=folder if folder.is_dir() else None)


def picture(path: Path) -> np.ndarray:
    return np.asarray(Pillow.open(path).convert("RGB"), np.float32) / np.float32(255)


def assess(metric: type[Metric], reference: np.ndarray, prediction: np.ndarray) -> Score:
    ref, pred = reference.astype(np.float32), prediction.astype(np.float32)
    valid = np.ones(ref.shape[:2], bool)
    lr = Image(ref[::4, ::4].copy(), "display", ("R", "G", "B"), valid[::4, ::4])
    held = Reference("a", "a", ref, ref, None, None, lr, valid)
    return metric(setting()).assess(Estimate(pred, pred), held)


def value(metric: type[Metric], reference: np.ndarray, prediction: np.ndarray) -> float:
    score = assess(metric, reference, prediction)
    if score.value is None:
        pytest.skip(f"{metric.name}: {score.reason}")
    return score.value


@pytest.fixture(scope="module", params=["I03", "I06"])
def calibration(request: pytest.FixtureRequest) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """A TID2013 pair with the values of the authors' codes (pyiqa's calibration table)."""
    official = cases("tid_calibration.json")["cases"][request.param]["official"]
    pyiqa = pytest.importorskip("pyiqa")
    folder = Path(pyiqa.__file__).parents[1] / "ResultsCalibra"
    pair = [folder / side / f"{request.param}.bmp" for side in ("ref_dir", "dist_dir")]
    if not all(p.is_file() for p in pair):
        pytest.skip(f"the calibration pictures are not in {folder}")
    return official, picture(pair[0]), picture(pair[1])


def test_calibration_pairs_meet_the_official_values(calibration: Any) -> None:
    official, reference, prediction = calibration
    assert value(PsnrRgb, reference, prediction) == pytest.approx(official["psnr"], abs=0.006)
    assert value(Fsimc, reference, prediction) == pytest.approx(official["fsim"], abs=2e-4)
    # the Python implementations are 0.6 % off LIVE's MATLAB on the heavily distorted I03
    assert value(niqe.Niqe, reference, prediction) == pytest.approx(official["niqe"], rel=0.01)


def test_calibration_pairs_ssim_of_grey(calibration: Any) -> None:
    official, reference, prediction = calibration
    grey = [np.rint(255 * (x @ np.array([0.298936, 0.587043, 0.114021]))) / 255 for x in (reference, prediction)]
    stacked = [np.repeat(x[:, :, None], 3, axis=2) for x in grey]
    assert value(SsimRgb, stacked[0], stacked[1]) == pytest.approx(official["ssim"], abs=2e-4)


def test_psnr_y_is_the_luma_of_sr_papers(calibration: Any) -> None:
    """pyiqa's 56.54 dB on I06 are luma of full range; ours, of 16 to 235, is 20 log10(255/219) more."""
    official, reference, prediction = calibration
    ours = value(PsnrY, reference, prediction)
    expected = {21.11: 23.592, 27.01: 57.878}[official["psnr"]]
    assert ours == pytest.approx(expected, abs=1e-3)
    difference = (reference.astype(np.float64) - prediction) @ np.array([65.481, 128.553, 24.966]) / 219
    mse = (difference**2).mean()
    assert ours - 20 * np.log10(255 / 219) == pytest.approx(-10 * np.log10(mse), abs=1e-6)
    if official["psnr"] == 27.01:
        assert -10 * np.log10(mse + 1e-8) == pytest.approx(56.54, abs=0.005)


@pytest.mark.parametrize("metric", [LpipsAlex, Dists])
def test_calibration_pairs_deep(calibration: Any, metric: type[Metric]) -> None:
    official, reference, prediction = calibration
    key = {"lpips_alex": "lpips", "dists": "dists"}[metric.name]
    assert value(metric, reference, prediction) == pytest.approx(official[key], abs=2e-4)


def test_matlab_grey_pair() -> None:
    data = cases("matlab_gray.json")
    reference, prediction = (picture(shared(data["pair"][k])) for k in ("ref", "dist"))
    assert value(Fsim, reference, prediction) == pytest.approx(data["values"]["fsim_luminance_matlab"], abs=1e-5)
    assert value(SsimRgb, reference, prediction) == pytest.approx(0.68238, abs=2e-5)
    pooled = [x.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3)) for x in (reference, prediction)]
    matlab = data["values"]["ssim_matlab_with_downsampling_factor_2"]
    assert value(SsimRgb, pooled[0], pooled[1]) == pytest.approx(matlab, abs=3e-3)


def test_matlab_grey_pair_dists() -> None:
    data = cases("matlab_gray.json")
    reference, prediction = (picture(shared(data["pair"][k])) for k in ("ref", "dist"))
    assert value(Dists, reference, prediction) == pytest.approx(data["values"]["dists_official"], abs=1e-3)


def test_ipol_camera() -> None:
    """PSNR and SSIM of IPOL's imdiff on scikit-image's camera picture with seeded noise."""
    data = pytest.importorskip("skimage.data")
    camera = data.camera()
    noise = 20 * np.random.RandomState(5).randn(*camera.shape)  # the published recipe
    noisy = np.clip(camera + noise, 0, 255).astype(camera.dtype)
    pair = [np.repeat((x / 255.0)[:, :, None], 3, axis=2) for x in (camera, noisy)]
    assert value(PsnrRgb, pair[0], pair[1]) == pytest.approx(22.409353363576034, abs=1e-4)
    assert value(SsimRgb, pair[0], pair[1]) == pytest.approx(0.357959091663361, abs=1e-3)


def test_niqe_published() -> None:
    """BasicSR publishes 5.7296 for YCbCr luma; with YIQ luma the same code gives 5.7318."""
    data = cases("niqe.json")
    baboon = picture(shared(data["published"]["image"]))
    assert value(niqe.Niqe, baboon, baboon) == pytest.approx(data["published"]["niqe"], rel=1e-3)


@pytest.mark.parametrize("image", ["live_image1.png", "live_image4.png"])
def test_niqe_two_implementations(image: str) -> None:
    found = cases("niqe.json")["two_implementations_agree"]["values"][image]
    display = picture(shared(f"images/{image}"))
    assert value(niqe.Niqe, display, display) == pytest.approx(found["basicsr_numpy_matlab_gray"], rel=2e-4)


def test_lpips_vgg_published() -> None:
    data = cases("deep_published.json")
    pair = [picture(shared(data["lpips_vgg"][k])) for k in ("ref", "dist")]
    assert value(LpipsVgg, pair[0], pair[1]) == pytest.approx(data["lpips_vgg"]["lpips_v0.1_vgg"], abs=6e-4)


def test_maniqa_published() -> None:
    data = cases("deep_published.json")
    for image, found in data["maniqa_koniq"]["values"].items():
        display = picture(shared(image))
        # the official code's 20 random crops are pooled otherwise than pyiqa's grid
        assert value(realism.ManiqaKoniq, display, display) == pytest.approx(found["readme"], abs=0.02)


# 17 of the 34 pairs of Sharma, Wu, Dalal (2005), table 1: L a b, L a b, difference
SHARMA = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
"""


def test_ciede2000_of_sharma() -> None:
    colour = pytest.importorskip("colour")
    rows = np.array([[float(x) for x in line.split()] for line in SHARMA.split("\n") if line])
    assert len(rows) == 17
    assert np.abs(colour.delta_E(rows[:, :3], rows[:, 3:6], method="CIE 2000") - rows[:, 6]).max() < 5e-5


def test_de00_of_primaries() -> None:
    """White against black is 100 by definition of L; red against green is 86.6 in sRGB, D65."""
    solid = [np.broadcast_to(np.float32(c), (4, 4, 3)) for c in ((1, 1, 1), (0, 0, 0), (1, 0, 0), (0, 1, 0))]
    assert value(physics.De00, solid[0], solid[1]) == pytest.approx(100.0, abs=1e-3)
    assert value(physics.De00, solid[2], solid[3]) == pytest.approx(86.608, abs=0.01)


@pytest.mark.parametrize(
    ("x", "y", "degrees"),
    [
        ((1, 0, 0), (1, 1, 0), 45.0),
        ((1, 2, 3), (2, 4, 6), 0.0),
        ((1, 0, 0), (0, 0, 1), 90.0),
        ((1, 1, 0), (1, 1, 0), 0.0),
    ],
)
def test_sam_closed_form(x: tuple[int, ...], y: tuple[int, ...], degrees: float) -> None:
    assert physics.spectral_angle(np.array([x]), np.array([y])).value == pytest.approx(degrees, abs=1e-12)


def test_spectral_cases() -> None:
    """torchmetrics' values; its D_lambda keeps single precision inside, hence 1e-6."""
    values = cases("spectral_cases.json")["values"]
    arrays = np.load(shared("spectral_cases.npz"))
    for case, found in values.items():
        fused, hr, ms = (arrays[f"{case}_{k}"].astype(np.float64) for k in ("fused", "hr", "ms"))
        by_pixel = [np.moveaxis(a, 0, 2).reshape(-1, len(a)) for a in (fused, hr)]
        assert physics.spectral_angle(*by_pixel).value == pytest.approx(found["sam_deg(fused,hr)"], abs=1e-6)
        quality = np.mean([physics.quality_index(a, b) for a, b in zip(fused, hr, strict=True)])
        assert quality == pytest.approx(found["uqi(fused,hr)"], abs=1e-9)
        assert physics.spectral_distortion(fused, ms) == pytest.approx(found["d_lambda(fused,ms)"], abs=1e-6)
        ratio = fused.shape[1] // ms.shape[1]
        repeated = ms.repeat(ratio, axis=1).repeat(ratio, axis=2)
        expected = found["d_lambda(fused, ms repeated to fused size)"]
        assert physics.spectral_distortion(fused, repeated) == pytest.approx(expected, abs=1e-6)


def test_uncertainty_toolbox_three_samples() -> None:
    """The data of uncertainty-toolbox's own tests."""
    mu, sigma, y = np.array([1.0, 2, 3]), np.array([0.1, 0.5, 1.0]), np.array([1.5, 3, 2])
    assert uncertainty.gaussian_nll(y, mu, sigma) == pytest.approx(4.920361108686675, abs=1e-12)
    levels = np.linspace(0, 1, 100)
    coverage = uncertainty.quantile_coverage(y, mu, sigma, levels)
    assert np.abs(coverage - levels).mean() == pytest.approx(0.23757575757575758, abs=1e-12)
    # its proportions are of mu - y, the mirror image of ours; the mean over symmetric levels is the same
    mirrored = uncertainty.quantile_coverage(-y, -mu, sigma, np.array([0, 0.25, 0.5, 1]))
    assert mirrored == pytest.approx([0, 2 / 3, 2 / 3, 1])
    for level, quantiles in (
        (0.01, [0.76736521, 0.83682606, 0.67365213]),
        (0.75, [1.06744898, 2.33724488, 3.67448975]),
    ):
        # a value just below each quantile is covered at that level, one just above is not
        for i, quantile in enumerate(quantiles):
            ends = [quantile - 1e-7, quantile + 1e-7]
            at = uncertainty.quantile_coverage(np.array(ends), mu[[i, i]], sigma[[i, i]], np.array([level]))
            assert at == pytest.approx([0.5])


def test_uncertainty_toolbox_cases() -> None:
    arrays = np.load(shared("uncertainty_cases.npz"))
    for case, found in cases("uncertainty_cases.json")["values"].items():
        mu, sigma, y = (arrays[f"{case}_{k}"].astype(np.float64) for k in ("mu", "sd", "y"))
        assert uncertainty.gaussian_nll(y, mu, sigma) == pytest.approx(found["nll_gaussian_mean"], abs=1e-9)
        levels = np.linspace(0, 1, 100)
        coverage = uncertainty.quantile_coverage(-y, -mu, sigma, levels)  # see above
        assert np.abs(coverage - levels).mean() == pytest.approx(found["mace_quantile_100"], abs=1e-9)
        for level, share in found["coverage_at_levels"].items():
            assert coverage[np.abs(levels - float(level)).argmin()] == pytest.approx(share, abs=1e-12)


def test_crps_against_its_integral() -> None:
    """The closed form is the integral of (F(x) - 1[x >= y])^2; at y = mu it is sigma (sqrt(2) - 1) / sqrt(pi)."""
    assert uncertainty.gaussian_crps(np.zeros(1), np.zeros(1), np.ones(1)) == pytest.approx(0.2336949772)
    from scipy.integrate import quad
    from scipy.stats import norm

    for y, mu, sigma in ((0.3, 0.1, 0.2), (0.9, 0.5, 0.05)):
        below, _ = quad(lambda x, m=mu, s=sigma: norm.cdf(x, m, s) ** 2, mu - 12 * sigma, y, epsabs=1e-12)
        above, _ = quad(lambda x, m=mu, s=sigma: norm.sf(x, m, s) ** 2, y, mu + 20 * sigma, epsabs=1e-12)
        found = uncertainty.gaussian_crps(np.array([y]), np.array([mu]), np.array([sigma]))
        assert found == pytest.approx(below + above, abs=1e-8)


def test_frechet_cases() -> None:
    """torch-fidelity, pytorch-fid and clean-fid on given features; the last with fewer samples than dimensions."""
    arrays = np.load(shared("frechet_cases.npz"))
    for case, found in cases("frechet_cases.json")["values"].items():
        first, second = (arrays[name] for name in sorted(n for n in arrays.files if n.startswith(case)))
        for theirs in found["distance"].values():
            assert realism.frechet_distance(first, second) == pytest.approx(theirs, rel=1e-6)
