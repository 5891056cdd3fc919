"""NIQE and its model fitted on references; metrics of pyiqa by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bench import weights
from bench.core.errors import RfbenchError, Unavailable
from bench.core.image import Image
from bench.metrics import niqe
from bench.metrics.base import Estimate, Reference, SetScore, Setting
from bench.metrics.niqe import Niqe, NiqeRef
from bench.metrics.pyiqa_any import pyiqa_metric

ROOT = Path(__file__).resolve().parents[2]


def textured(seed: int, height: int = 192, width: int = 192, blur: float = 1.0) -> np.ndarray:
    """A picture with fine and coarse texture, 8 bit."""
    random = np.random.default_rng(seed)
    layers = [gaussian_filter(random.random((height, width, 1)), (s, s, 0)) * s for s in (blur, 4, 12)]
    x = np.repeat(sum(layers), 3, axis=2)
    return np.float32(np.rint((x - x.min()) / np.ptp(x) * 255) / 255)


def pair(reference: np.ndarray, prediction: np.ndarray | None = None) -> tuple[Estimate, Reference]:
    guess = reference if prediction is None else prediction
    valid = np.ones(reference.shape[:2], bool)
    lr = Image(reference[::4, ::4].copy(), "display", ("R", "G", "B"), valid[::4, ::4])
    return Estimate(guess, guess), Reference("a", "a", reference, reference, None, None, lr, valid)


@pytest.fixture(scope="module")
def setting() -> Setting:
    beside = ROOT.parent / "shared" / "weights"
    found = Setting(weights_dir=beside if beside.is_dir() else None)
    try:
        weights.find(Niqe.weights_files[0], found.weights_dir)
    except Unavailable as error:
        pytest.skip(str(error))
    return found


def model(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    parameters = loadmat(weights.find(Niqe.weights_files[0], setting.weights_dir))
    return np.ravel(parameters["mu_prisparam"]), parameters["cov_prisparam"]


@pytest.mark.parametrize(("height", "width"), [(192, 288), (200, 100), (96, 96)])
def test_block_features_give_pyiqas_niqe(setting: Setting, height: int, width: int) -> None:
    """The features that ``niqe_ref`` keeps, with the LIVE model, are pyiqa's number."""
    display = textured(0, height, width)
    found = niqe.block_features(display)
    blocks, sharpness = found.features, found.sharpness
    assert (
        found.left_out == 0 and blocks.shape == ((height // 96) * (width // 96), 36) and len(sharpness) == len(blocks)
    )
    ours = niqe.distance(*model(setting), *niqe._gaussian(blocks))
    assert Niqe(Setting()).assess(*pair(display)).value == pytest.approx(ours, rel=1e-12)
    exact = Niqe(replace(setting, exact=True))
    assert exact.assess(*pair(display)).value == pytest.approx(ours, rel=5e-6)  # its window is of single precision


def test_the_published_figures_come_with_us(setting: Setting, tmp_path: Path) -> None:
    """They are the release's to the last bit, and a value needs no file; the library asks for the release's own."""
    mean, covariance = niqe.published()
    theirs = model(setting)
    assert (mean == theirs[0]).all() and (covariance == theirs[1]).all()
    text = (ROOT / "bench" / "metrics" / "live.json").read_text(encoding="utf-8")
    assert "Copyright (c) 2011 The University of Texas at Austin" in text
    assert json.loads(text)["sha256"] == weights.listed()[Niqe.weights_files[0]].sha256
    bare = Niqe(Setting(weights_dir=tmp_path))
    assert bare.missing() is None and bare.identity() == "niqe|live|yiq|block96|w:fa2aa4d1|q8|r2"
    assert "by:pyiqa" in Niqe(Setting(exact=True)).identity()


@pytest.mark.parametrize("grey", [64, 128, 153, 200, 254])
def test_flat_blocks_are_left_out_and_counted(grey: int) -> None:
    """Saturated snow over half of an image once gave 10.1 to 42.6 with its grey level."""
    display, middle = textured(2, 288, 288), textured(2, 288, 288)
    # The two levels meet the texture within the blocks that are left out.
    display[:180], middle[:180] = np.float32(grey / 255), np.float32(100 / 255)
    found = Niqe(Setting()).assess(*pair(display))
    assert found.note == "6 of 9 blocks are flat and left out"
    assert found.value == pytest.approx(Niqe(Setting()).assess(*pair(middle)).value, rel=1e-3)
    left_out = NiqeRef(Setting()).gather(*pair(display))
    assert left_out["left_out"] == 6 and len(left_out["prediction"]) == 3


def test_flat_and_small_images_are_reasons(setting: Setting) -> None:
    flat = np.full((100, 100, 3), 0.5, np.float32)
    for metric in (Niqe(setting), NiqeRef(setting)):
        method: Any = metric.assess if metric.level == "image" else metric.gather
        assert "flat" in str(method(*pair(flat)).reason)
        assert "smaller than 96 px" in str(method(*pair(textured(0, 95, 100))).reason)


def test_sharpness_is_the_mean_local_deviation() -> None:
    """A block of fine noise beside a smooth one: only the first is used for the fit."""
    half = textured(0)
    half[:, 96:] = np.float32(0.5 + 0.02 * (textured(1, 192, 96, blur=8) - 0.5))
    sharpness = niqe.block_features(half).sharpness
    assert niqe._sharp(sharpness).sum() == 2
    doubled = niqe.block_features(np.float32(np.rint(textured(0) * 127) / 255)).sharpness
    whole = niqe.block_features(np.float32(np.rint(textured(0) * 127) * 2 / 255)).sharpness
    assert whole / doubled == pytest.approx(np.full(4, 2.0), rel=0.02)


@pytest.fixture(scope="module")
def gathered(setting: Setting) -> list[Any]:
    """The features of eight images that are their own references."""
    return [NiqeRef(setting).gather(*pair(textured(s, 288, 288))) for s in range(8)]


def test_fit_on_references(setting: Setting, gathered: list[Any]) -> None:
    metric = NiqeRef(setting)
    references = [textured(s, 288, 288) for s in range(8)]
    own = metric.combine(gathered)
    blurred = [np.float32(gaussian_filter(r, (1.5, 1.5, 0))) for r in references]
    worse = metric.combine([metric.gather(*pair(r, b)) for r, b in zip(references, blurred, strict=True)])
    assert isinstance(own, SetScore) and isinstance(worse, SetScore)
    assert worse.value > 1.5 * own.value > 0
    assert own.details["fit_sha256"] == worse.details["fit_sha256"]
    assert own.details["images"] == 8 and 36 < own.details["blocks"] <= 72
    assert own.per_image is not None and np.mean(own.per_image) == pytest.approx(own.value)

    # the fit by hand, on the blocks of each reference above 0.75 of its peak
    sharp = [b.features[b.sharpness > 0.75 * b.sharpness.max()] for b in map(niqe.block_features, references)]
    blocks = np.concatenate(sharp)
    fit = blocks.mean(axis=0), np.cov(blocks, rowvar=False)
    other = niqe.block_features(blurred[0]).features
    by_hand = niqe.distance(*fit, other.mean(axis=0), np.cov(other, rowvar=False))
    assert worse.per_image[0] == pytest.approx(by_hand, rel=1e-9)


def test_the_order_of_references_does_not_matter(setting: Setting, gathered: list[Any]) -> None:
    metric, features = NiqeRef(setting), gathered
    there, back = metric.combine(features), metric.combine(features[::-1])
    assert isinstance(there, SetScore) and isinstance(back, SetScore)
    assert there.fit == back.fit and there.per_image == back.per_image[::-1]
    assert all((there.fitted[k] == back.fitted[k]).all() for k in ("mean", "covariance"))


def test_references_without_a_prediction_belong_to_the_fit(setting: Setting, gathered: list[Any]) -> None:
    """Two models, one of which failed on an image, are held against one fit."""
    metric = NiqeRef(setting)
    whole = metric.combine(gathered)
    some = metric.combine(gathered[:7], [metric.gather_reference(pair(textured(7, 288, 288))[1])])
    less = metric.combine(gathered[:7])
    assert whole.fit == some.fit != less.fit
    assert some.per_image == whole.per_image[:7] and some.details["images"] == 7 and some.details["references"] == 8
    assert "smaller than 96 px" in str(metric.gather_reference(pair(textured(0, 95, 200))[1]).reason)

    metric.planned_fit = whole.fit
    assert metric.combine(gathered) == whole
    other = metric.combine(gathered[:7])
    assert str(other.reason) == f"these references give the fit {less.fit}, expected {whole.fit}"


def test_a_fit_s_hash_survives_rounding_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.normal(1, 2, (200, 36))
    mean, covariance = niqe._gaussian(blocks)
    same = niqe.fit_hash(mean * (1 + 1e-12), covariance * (1 - 1e-12))
    assert niqe.fit_hash(mean, covariance) == same
    moved = mean.copy()
    moved[3] += 1e-4
    assert niqe.fit_hash(moved, covariance) != same
    assert niqe.fit_hash(mean, covariance * 1.001) != same


# --- the published procedure, written out -----------------------------------------------------------------------------


def halved(image: np.ndarray) -> np.ndarray:
    """MATLAB's ``imresize(image, 0.5)``: bicubic of a = -0.5, stretched by two, edges mirrored."""

    def rows(x: np.ndarray) -> np.ndarray:
        d = np.abs((np.arange(-3, 5) - 0.5) / 2)  # from the middle between two pixels
        kernel = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2) * (d < 2)
        padded = np.pad(x, ((3, 4), (0, 0)), mode="symmetric")
        return sum(k * padded[i : i + len(x) : 2] for i, k in enumerate(kernel / kernel.sum()))

    return rows(rows(image).T).T


def normalised(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean-subtracted, contrast-normalised coefficients and the local deviation, 7x7 Gaussian of sigma 7/6."""
    from scipy.ndimage import correlate

    line = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    mean = correlate(image, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(image**2, window, mode="nearest") - mean**2))
    return (image - mean) / (deviation + 1), deviation


def asymmetric(x: np.ndarray) -> tuple[float, float, float]:
    """Shape and the two scales of an asymmetric generalised Gaussian, by moments, shapes in steps of 0.001."""
    from scipy.special import gamma

    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
    left, right = np.sqrt((x[x < 0] ** 2).mean()), np.sqrt((x[x > 0] ** 2).mean())
    g = left / right
    r = np.abs(x).mean() ** 2 / (x**2).mean() * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = shapes[((ratios - r) ** 2).argmin()]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def described(block: np.ndarray) -> list[float]:
    from scipy.special import gamma

    shape, left, right = asymmetric(block)
    found = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric(block * np.roll(block, shift, (0, 1)))
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return found


def by_the_paper(display: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mittal, Soundararajan, Bovik 2013, sections II-A to II-D, in NumPy and SciPy alone: features and sharpness."""
    image = np.rint(display.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) * 255)
    high, wide = (n // 96 for n in image.shape)
    image = image[: 96 * high, : 96 * wide]
    features, sharpness = [], []
    for scale, side in ((image, 96), (halved(image), 48)):
        coefficients, deviation = normalised(scale)
        corners = [(i * side, j * side) for j in range(wide) for i in range(high)]
        features.append([described(coefficients[i : i + side, j : j + side]) for i, j in corners])
        sharpness.append([deviation[i : i + side, j : j + side].mean() for i, j in corners])
    return np.concatenate(features, axis=1), np.array(sharpness[0])


def test_the_fit_is_the_published_procedure_written_out(setting: Setting) -> None:
    """Features, sharp blocks, fit and distance against an implementation that shares no code with pyiqa's."""
    references = [textured(s, 288, 288, blur=1 + s % 3) for s in range(10)]
    found = [by_the_paper(r) for r in references]
    for reference, (features, sharpness) in zip(references, found, strict=True):
        own = niqe.block_features(reference)
        order = [int(np.abs(own.features - f).sum(axis=1).argmin()) for f in features]  # theirs are column by column
        np.testing.assert_allclose(own.sharpness[order], sharpness, rtol=1e-9)
        # shapes are searched in steps of 0.001, of which rounding may take the next
        np.testing.assert_allclose(own.features[order], features, rtol=5e-3, atol=2e-3)
        assert np.median(np.abs(own.features[order] / features - 1)) < 1e-10
    blocks = np.concatenate([f[s > 0.75 * s.max()] for f, s in found])
    mean, covariance = blocks.mean(axis=0), np.cov(blocks, rowvar=False)
    guesses = [np.float32(np.rint(255 * gaussian_filter(r, (1, 1, 0))) / 255) for r in references]

    def by_hand(display: np.ndarray) -> float:
        own = by_the_paper(display)[0]
        inverse = np.linalg.pinv((covariance + np.cov(own, rowvar=False)) / 2)
        difference = mean - own.mean(axis=0)
        return float(np.sqrt(difference @ inverse @ difference))

    metric = NiqeRef(setting)
    score = metric.combine([metric.gather(*pair(r, g)) for r, g in zip(references, guesses, strict=True)])
    assert score.details["blocks"] == len(blocks)
    assert score.per_image[:3] == pytest.approx([by_hand(g) for g in guesses[:3]], rel=2e-3)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(score.fitted["mean"], mean, atol=1e-3 * deviation.max())
    np.testing.assert_allclose(score.fitted["mean"] / deviation, mean / deviation, atol=5e-3)


def test_the_written_out_procedure_meets_the_live_model(setting: Setting) -> None:
    """With the model of the LIVE release the implementation above gives pyiqa's NIQE: it is NIQE that is fitted."""
    mean, covariance = model(setting)
    display = textured(3, 288, 384)
    own = by_the_paper(display)[0]
    inverse = np.linalg.pinv((covariance + np.cov(own, rowvar=False)) / 2)
    difference = mean - own.mean(axis=0)
    by_hand = float(np.sqrt(difference @ inverse @ difference))
    assert Niqe(setting).assess(*pair(display)).value == pytest.approx(by_hand, rel=2e-3)


def test_too_few_blocks_is_a_reason(setting: Setting) -> None:
    metric = NiqeRef(setting)
    found = metric.combine([metric.gather(*pair(textured(s))) for s in range(2)])
    assert not isinstance(found, SetScore)
    assert "a fit of 36 features needs at least 37" in str(found.reason)


# --- pyiqa by name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "needs", "direction"),
    [("gmsd", ("reference",), "down"), ("vif", ("reference",), "up"), ("piqe", (), "down"), ("musiq", (), "up")],
)
def test_pyiqa_metric_says_what_pyiqa_says(name: str, needs: tuple[str, ...], direction: str) -> None:
    metric = pyiqa_metric(name)
    assert (metric.name, metric.needs, metric.direction) == (f"pyiqa:{name}", needs, direction)
    assert "PolyForm Noncommercial" in metric.licence
    begin = f"pyiqa:{name}|{'FR' if needs else 'NR'}|{metric.parameters[1]}"
    if name == "musiq":  # its weights may be here or not
        assert metric(Setting()).identity().startswith(f"{begin}|w:")
    else:
        assert metric(Setting()).identity() == f"{begin}|q8|r1"
    assert pyiqa_metric(name) is metric


@pytest.mark.parametrize("name", ["gmsd", "ssim", "psnry", "entropy"])
def test_pyiqa_metric_is_pyiqas_number(name: str) -> None:
    import pyiqa
    import torch

    reference = textured(0)
    prediction = np.float32(np.clip(reference + np.random.default_rng(0).normal(0, 0.05, reference.shape), 0, 1))
    score = pyiqa_metric(name)(Setting()).assess(*pair(reference, prediction))
    plain = pyiqa.create_metric(name, device="cpu")
    inputs = [torch.from_numpy(np.moveaxis(x, 2, 0)[None].copy()) for x in (prediction, reference)]
    with torch.no_grad():
        theirs = plain(*inputs) if plain.metric_mode == "FR" else plain(inputs[0])
    assert score.value == pytest.approx(float(theirs), rel=1e-6)


def test_unknown_and_set_metrics_are_refused() -> None:
    with pytest.raises(RfbenchError, match=r"unknown pyiqa metric 'nique'; did you mean .*niqe"):
        pyiqa_metric("nique")
    for name in ("fid", "inception_score"):
        with pytest.raises(RfbenchError, match="use fid_tf"):
            pyiqa_metric(name)


def test_missing_weights_are_a_reason_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With empty caches nothing is fetched, printed or written."""
    import socket

    from huggingface_hub import constants
    from pyiqa.utils import download_util

    def connect(*args: Any) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path / "pyiqa"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    images = pair(textured(0))
    names = {
        "brisque": "brisque_svm_weights.pth",
        "maniqa": "model.safetensors of timm/vit_base_patch8_224",
        "cnniqa": "CNNIQA_koniq10k-e6f14c91.pth",
        "lpips": "alexnet-owt",
    }
    for name, file in names.items():
        score = pyiqa_metric(name)(Setting()).assess(*images)
        assert score.value is None
        assert f"pyiqa:{name} needs the file {file}" in str(score.reason)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    out = capfd.readouterr()
    assert out.out == "" and out.err == ""
