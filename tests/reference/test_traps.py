"""The traps in which numbers of one name stop being comparable: one test each, named after it.

Each shows that the trap is real (the other way gives another number), that ours goes one way, and that the identity,
or what is stored and printed beside the value, says which.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from bench.core.errors import RfbenchError
from bench.core.reason import Reason
from bench.metrics import realism
from bench.metrics.base import Score, SetScore, Setting
from bench.metrics.scorer import metric_class
from tests.reference import equations, network_equations, pictures, random_weights
from tests.reference.cases import official, tensors
from tests.reference.pictures import calibration_pair, eight_bit, held, noisy_pair, solid
from tests.reference.random_weights import ALEXNET, INCEPTION, KONIQ, accepted
from tests.runs import scored as scored_images

pytest.importorskip("torch")


def identity(name: str, **setting: Any) -> list[str]:
    """The parts of a metric's identity."""
    return metric_class(name)(Setting(**setting)).identity().split("|")


def assessed(name: str, pair: pictures.Pair, setting: Setting | None = None, **more: Any) -> Score:
    """The score of a pair, be it a reason."""
    pytest.importorskip(metric_class(name).package)
    return metric_class(name)(setting or official()).assess(*held(pair, **more))


def value(name: str, pair: pictures.Pair, setting: Setting | None = None, **more: Any) -> float:
    found = assessed(name, pair, setting, **more)
    assert found.value is not None, found.reason
    return found.value


def png(folder: Path, image: np.ndarray, white: int = 255, name: str = "a") -> Path:
    """A picture in [0, 1] as a PNG of 8 bit, or as an array file of 16."""
    folder.mkdir(exist_ok=True)
    stored = np.rint(image * white)
    if white == 255:
        Pillow.fromarray(stored.astype(np.uint8)).save(folder / f"{name}.png")
    else:
        np.save(folder / f"{name}.npy", stored.astype(np.uint16))
    return folder


def of_folders(pred: Path, ref: Path, *names: str, **options: Any) -> dict[str, Any]:
    """What ``rfbench score`` finds."""
    return scored_images(pred=pred, ref=ref, metrics=names, device="cpu", workers=0, **options)


# --- what a pixel is --------------------------------------------------------------------------------------------------


def test_range() -> None:
    """[0, 1] and [0, 255] are one picture with two PSNR; LPIPS takes [-1, 1] and does not notice [0, 1]."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    pair = noisy_pair()
    bytes_of = [np.rint(x * 255) for x in pair]
    assert value("psnr_rgb", pair) == pytest.approx(peak_signal_noise_ratio(*bytes_of, data_range=255), abs=1e-4)
    wrong = structural_similarity(*(x.astype(np.float64) for x in pair), data_range=255, channel_axis=2)
    assert wrong > 0.99 > value("ssim_rgb", pair) + 0.3  # constants of the wrong range drown the picture
    loud = assessed("psnr_rgb", (np.float32(bytes_of[0]), np.float32(bytes_of[1])))
    assert loud.value is None and "expected [0, 1]" in str(loud.reason)
    assert "peak1" in identity("psnr_rgb") and "range1" in identity("ssim_rgb") and "peak255" in identity("psnr_y")

    pytest.importorskip("lpips")
    small = noisy_pair(64, 80)
    with accepted(ALEXNET) as setting:
        ours = value("lpips_alex", small, setting)
    unscaled = (np.float32((small[0] + 1) / 2), np.float32((small[1] + 1) / 2))  # [0, 1] taken for [-1, 1]
    linear = _linear_alex()
    trunk = random_weights.state(ALEXNET)
    assert ours == pytest.approx(network_equations.lpips(*small, "alex", trunk, linear), rel=1e-5)
    assert network_equations.lpips(*unscaled, "alex", trunk, linear) < 0.8 * ours
    assert {"v0.1", "alex"} <= set(identity("lpips_alex"))


def _linear_alex() -> list[Any]:
    import torch

    from bench import weights

    path = weights.find("LPIPS_v0.1_alex-df73285e.pth")
    state = torch.load(path, weights_only=True, map_location="cpu")
    return [state[f"lin{i}.model.1.weight"] for i in range(5)]


def test_channel_order(tmp_path: Path) -> None:
    """Blue first gives other numbers without a warning; here bands go by name, whatever their order in the file."""
    reference, prediction = noisy_pair()
    swapped = (reference[:, :, ::-1].copy(), prediction[:, :, ::-1].copy())
    assert abs(value("psnr_y", swapped) - value("psnr_y", (reference, prediction))) > 0.001
    assert abs(value("de00", swapped) - value("de00", (reference, prediction))) > 0.01
    ref = png(tmp_path / "ref", reference)
    pred = tmp_path / "pred"
    pred.mkdir()
    reversed_bytes = np.rint(prediction[:, :, ::-1] * 255).astype(np.uint8)
    np.savez(pred / "a.npz", image=reversed_bytes, bands=["B02", "B03", "B04"])
    found = of_folders(pred, ref, "psnr_y", "de00")["summary"]
    assert found["psnr_y"]["value"] == pytest.approx(value("psnr_y", (reference, prediction)), abs=1e-9)
    assert found["de00"]["value"] == pytest.approx(value("de00", (reference, prediction)), abs=1e-9)
    for name in ("psnr_rgb", "sam_rgb", "logspec_l1"):
        assert "rgb" in identity(name)
    assert "srgb" in identity("de00") and "yiq" in identity("niqe")


def test_twelve_bit_in_uint16(tmp_path: Path) -> None:
    """Taken for 16 bit, 12-bit data gains 24 dB; nobody guesses here."""
    from skimage.metrics import peak_signal_noise_ratio

    pair = noisy_pair(noise=0.007)
    stored = [np.rint(x * 4095).astype(np.uint16) for x in pair]
    right = float(peak_signal_noise_ratio(*stored, data_range=4095))
    assert peak_signal_noise_ratio(*stored) == pytest.approx(right + 20 * np.log10(65535 / 4095), abs=1e-9)
    folders = [png(tmp_path / side, x, 4095) for side, x in zip(("pred", "ref"), pair[::-1], strict=True)]
    with pytest.raises(RfbenchError, match=r"found uint16 values up to .* expected to be told what white is"):
        of_folders(*folders, "psnr_rgb")
    found = of_folders(*folders, "psnr_rgb", scale=4095)
    assert found["summary"]["psnr_rgb"]["value"] == pytest.approx(right, abs=0.01)
    assert [image["files"]["pred"]["scale"] for image in found["images"]] == [4095]
    assert "peak1" in identity("psnr_rgb")


def test_eight_bit_rounding(tmp_path: Path) -> None:
    """Rounding moves a good PSNR by whole dB; it happens once, for all, and the identity tells whether."""
    reference = np.random.default_rng(0).random((48, 64, 3))
    close = reference + np.random.default_rng(1).normal(0, 0.0006, reference.shape)
    ref, pred = (png(tmp_path / n, np.clip(x, 0, 1), 65535) for n, x in (("ref", reference), ("pred", close)))
    rounded = of_folders(pred, ref, "psnr_rgb", scale=65535)
    whole = of_folders(pred, ref, "psnr_rgb", scale=65535, quantise="none")
    assert whole["summary"]["psnr_rgb"]["value"] > rounded["summary"]["psnr_rgb"]["value"] + 2
    assert rounded["identities"]["psnr_rgb"].split("|")[-2] == "q8"
    assert whole["identities"]["psnr_rgb"].split("|")[-2] == "qnone"
    by_hand = (eight_bit(reference), eight_bit(np.clip(close, 0, 1)))
    assert rounded["summary"]["psnr_rgb"]["value"] == pytest.approx(equations.psnr(*by_hand), abs=0.02)
    assert not {"q8", "qnone"} & set(identity("nll")) and not {"q8", "qnone"} & set(identity("sam_refl"))


def test_border(tmp_path: Path) -> None:
    """A few pixels of bad edge move a score; what was cut is in the identity of everything."""
    reference, prediction = noisy_pair(noise=0.02)
    framed = prediction.copy()
    framed[:4], framed[-4:], framed[:, :4], framed[:, -4:] = 0, 0, 0, 0
    ref, pred = png(tmp_path / "ref", reference), png(tmp_path / "pred", framed)
    found = [of_folders(pred, ref, "psnr_rgb", "ssim_rgb", **o) for o in ({}, {"border_px": 4})]
    assert found[1]["summary"]["psnr_rgb"]["value"] > found[0]["summary"]["psnr_rgb"]["value"] + 10
    inner = (reference[4:-4, 4:-4].copy(), prediction[4:-4, 4:-4].copy())
    assert found[1]["summary"]["psnr_rgb"]["value"] == pytest.approx(value("psnr_rgb", inner), abs=1e-9)
    assert found[1]["summary"]["ssim_rgb"]["value"] == pytest.approx(value("ssim_rgb", inner), abs=1e-9)
    assert "border4" in found[1]["identities"]["psnr_rgb"].split("|")
    assert not any(part.startswith("border") for part in identity("psnr_rgb"))


# --- what is computed -------------------------------------------------------------------------------------------------


def test_window() -> None:
    """scikit-image's default window gives another SSIM, an 8x8 uniform one another Q."""
    from skimage.metrics import structural_similarity

    pair = noisy_pair()
    default = structural_similarity(*(x.astype(np.float64) for x in pair), data_range=1.0, channel_axis=2)
    assert abs(value("ssim_rgb", pair) - default) > 0.01
    assert {"gauss11,1.5", "popcov"} <= set(identity("ssim_rgb"))
    estimate, reference, (fused, upsampled, _) = pictures.pansharpening()
    ours = metric_class("d_lambda")().assess(estimate, reference).value
    pairs = [(b, c) for b in range(4) for c in range(4) if b != c]
    uniform = [_uniform_q(fused[b], fused[c]) - _uniform_q(upsampled[b], upsampled[c]) for b, c in pairs]
    assert abs(np.abs(uniform).mean() / ours - 1) > 0.02
    for name in ("d_lambda", "d_s", "qnr"):
        assert "uqi-gauss11,1.5" in identity(name)


def _uniform_q(first: np.ndarray, second: np.ndarray) -> float:
    """Q of Wang and Bovik with their own window, 8x8 and uniform."""
    from numpy.lib.stride_tricks import sliding_window_view

    x, y = (sliding_window_view(a, (8, 8)).reshape(-1, 64) for a in (first, second))
    mx, my = x.mean(axis=1), y.mean(axis=1)
    covariance = ((x - mx[:, None]) * (y - my[:, None])).mean(axis=1)
    return float((4 * covariance * mx * my / ((x.var(axis=1) + y.var(axis=1)) * (mx**2 + my**2))).mean())


def test_luminance_or_rgb() -> None:
    """On TID2013 I06 PSNR is 27.01 dB in RGB and 57.88 dB of the luma."""
    pytest.importorskip("pyiqa")
    pair = calibration_pair("I06")
    assert value("psnr_rgb", pair) == pytest.approx(27.01, abs=0.006)
    assert value("psnr_y", pair) == pytest.approx(57.878, abs=1e-3)
    assert "rgb" in identity("psnr_rgb") and "bt601y16-235" in identity("psnr_y") and "luma" in identity("fsim")
    assert metric_class("psnr_y").title != metric_class("psnr_rgb").title


def test_chromatic_fsim() -> None:
    """pyiqa's and piq's default is FSIMc; the paper's equation has no chroma."""
    pytest.importorskip("pyiqa")
    pair = calibration_pair("I06")
    assert value("fsim", pair) > 0.9998
    assert value("fsimc", pair) == pytest.approx(0.9927, abs=2e-4)
    assert "luma" in identity("fsim") and "chromatic" in identity("fsimc")
    assert metric_class("fsim").title != metric_class("fsimc").title


def _few() -> list[pictures.Pair]:
    return [noisy_pair(96, 128, seed, noise=0.1) for seed in range(2)]


def test_fid_s_resize() -> None:
    """Bilinear from half pixels instead of TensorFlow's moves FID by percents with the same weights."""
    pytest.importorskip("torch_fidelity")
    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as module

    from bench.metrics.networks import quietly, replaced

    def half_pixel(image: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(np.moveaxis(np.rint(image * 255), 2, 0)[None].astype(np.float32))
        return torch.nn.functional.interpolate(x, (299, 299), mode="bilinear").round().to(torch.uint8)

    with accepted(INCEPTION) as setting:
        metric = metric_class("fid_tf")(setting)
        ours = metric.combine([metric.gather(*held(pair)) for pair in _few()])
    state = random_weights.state(INCEPTION)
    with quietly(), replaced(module, load_state_dict_from_url=lambda *args, **kwargs: state):
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    with torch.inference_mode():
        other = [np.concatenate([network(half_pixel(p[side]))[0].numpy() for p in _few()]) for side in (1, 0)]
    assert isinstance(ours, SetScore) and abs(realism.frechet_distance(*other) / ours.value - 1) > 0.01
    assert "tf1resize" in identity("fid_tf") and "inception-v3-compat" in identity("fid_tf")


def test_fid_s_bias_at_small_n() -> None:
    """Equal distributions: FID falls with N and is far from 0, KID is around 0 at any N. N is stored beside both."""
    random = np.random.default_rng(0)
    spread = 1 / np.sqrt(np.arange(1, 257))

    def sets(n: int) -> list[dict[str, np.ndarray]]:
        draws = [random.normal(0, 1, (n, 256)) * spread for _ in range(2)]
        return [{"prediction": a, "reference": b} for a, b in zip(*draws, strict=True)]

    fid, kid = metric_class("fid_tf")(), metric_class("kid_tf")()
    found = {n: [m.combine(sets(n)) for m in (fid, kid)] for n in (10, 50, 400)}
    fids = [results[0].value for results in found.values()]
    assert fids == sorted(fids, reverse=True) and fids[0] > 4 * fids[2] > 0
    assert fids[0] > (spread**2).sum()  # more than the whole variance, between samples of one distribution
    assert all(abs(k.value) < 0.03 for _, k in found.values())
    for n, results in found.items():
        assert [r.details["images"] for r in results] == [n, n]
    assert "cov-unbiased" in identity("fid_tf") and {"unbiased", "all"} <= set(identity("kid_tf"))


def test_maniqa_s_crops() -> None:
    """A grid of 20 crops, not random ones, whose last row is never used: one value, but not the official code's."""
    arch_util = pytest.importorskip("pyiqa.archs.arch_util")
    import torch

    rows = torch.arange(512.0)[None, None, :, None].expand(1, 1, 512, 512)
    seen = arch_util.uniform_crop(rows, crop_size=224, crop_num=20)
    assert int(seen.max()) == 439  # rows 440 to 511 of 512 are never seen
    corners = realism._crop_grid(512, 512)
    assert sum(corners.values()) == 20 and max(top for top, _ in corners) + 223 == 439
    assert len(realism._crop_grid(200, 200)) == 1  # 20 times the same: computed once
    assert "crops20grid" in identity("maniqa_koniq")


def test_maniqa_s_checkpoints() -> None:
    """A checkpoint belongs to its scale; the two that papers use are two metrics here."""
    koniq, pipal = (set(identity(n)) for n in ("maniqa_koniq", "maniqa_pipal"))
    assert {"koniq", "scale0.8"} <= koniq and {"pipal", "scale0.13"} <= pipal
    hashes = [next(p for p in parts if p.startswith("w:")) for parts in (koniq, pipal)]
    assert hashes == ["w:a207f8ab", "w:ae6d356b"]
    assert metric_class("maniqa_koniq").title != metric_class("maniqa_pipal").title

    pytest.importorskip("pyiqa")
    import torch

    crop = tensors((pictures.clean(225, 225, 8),) * 2, "float32")[0]
    state = {k.removeprefix("module."): v for k, v in random_weights.state(KONIQ).items()}
    with random_weights.narrow_maniqa() as build, torch.inference_mode():
        networks = [build(scale=scale, test_sample=1) for scale in (0.8, 0.13)]
        for network in networks:
            network.load_state_dict(state)  # it fits either scale, and nothing warns
        right, wrong = (float(network(crop)) for network in networks)
    assert abs(wrong / right - 1) > 0.02


# --- small, flat, incomplete ------------------------------------------------------------------------------------------


def test_images_under_224_px() -> None:
    """MANIQA's official code stops; pyiqa enlarges, and the identity says so."""
    assert realism._enlarged(150, 200)[:2] == (225, 300) and realism._enlarged(225, 300)[2] is None
    assert sum(realism._crop_grid(96, 96).values()) == 20
    assert "up225" in identity("maniqa_koniq")


def test_images_under_96_px() -> None:
    """NIQE has no block, and says so; above, its value still hangs on the size."""
    small = assessed("niqe", noisy_pair(95, 200))
    assert small.value is None and "95x200 px is smaller than 96 px" in str(small.reason)
    image = pictures.clean(288, 288, 1)
    whole = value("niqe", (image, image))
    part = value("niqe", (image[:96, :96].copy(),) * 2)
    assert abs(part / whole - 1) > 0.01
    assert "block96" in identity("niqe") and "block96" in identity("niqe_ref")


def test_images_under_31_px() -> None:
    """AlexNet has nothing left of 30 px: a reason, not a crash. VGG goes on to 16."""
    pytest.importorskip("lpips")
    with accepted(ALEXNET) as setting:
        small = assessed("lpips_alex", noisy_pair(30, 40), setting)
        assert small.value is None and "30x40 px is smaller than 31 px" in str(small.reason)
        assert value("lpips_alex", noisy_pair(31, 40), setting) > 0
    assert metric_class("lpips_vgg").min_side_px == 16
    assert "smaller than 11 px" in str(assessed("ssim_rgb", noisy_pair(10, 40)).reason)


def test_flat_images() -> None:
    """No texture: SSIM's constants decide, the angle of two greys is 0, NIQE has nothing to describe and says so."""
    grey, darker = solid((0.5, 0.5, 0.5), 96), solid((0.25, 0.25, 0.25), 96)
    grey, darker = eight_bit(grey), eight_bit(darker)
    a, b = float(grey[0, 0, 0]), float(darker[0, 0, 0])
    by_hand = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert value("ssim_rgb", (grey, darker)) == pytest.approx(by_hand, abs=1e-6)
    assert value("sam_rgb", (grey, darker)) == pytest.approx(0.0, abs=1e-6)
    assert value("logspec_l1", (grey, darker)) == pytest.approx(0.0, abs=1e-6)
    assert "flat" in str(assessed("niqe", (grey, grey)).reason)


@pytest.mark.parametrize("name", ["psnr_rgb", "psnr_y", "ssim_rgb", "sam_rgb", "de00"])
def test_masked_pixels_are_left_out(name: str) -> None:
    """What lies under the mask moves nothing; metrics that cannot leave pixels out give a reason instead."""
    reference, prediction = noisy_pair()
    valid = np.ones(reference.shape[:2], bool)
    valid[:, 70:] = False
    spoiled = prediction.copy()
    spoiled[:, 70:] = 0
    part = (reference[:, :70].copy(), prediction[:, :70].copy())
    assert value(name, (reference, spoiled), valid=valid) == pytest.approx(value(name, part), rel=1e-9)
    assert assessed(name, (reference, spoiled), valid=~valid & False).reason == Reason("unfit", "no pixel with data")


@pytest.mark.parametrize("name", ["fsim", "lpips_alex", "dists", "niqe", "logspec_l1"])
def test_masked_pixels_are_a_reason_where_they_cannot_be_left_out(name: str) -> None:
    valid = np.ones((96, 128), bool)
    valid[3, :5] = False
    assert "5 pixels without data" in str(metric_class(name)().assess(*held(noisy_pair(), valid=valid)).reason)


def test_zero_spectra() -> None:
    """Black has no angle: 0/0 in torchmetrics, left out and counted here."""
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional.image import spectral_angle_mapper

    reference, prediction = noisy_pair()
    black = reference.copy()
    black[:10] = 0
    assert not np.isfinite(float(spectral_angle_mapper(*tensors((black, prediction)))))
    found = assessed("sam_rgb", (black, prediction))
    rest = (reference[10:].copy(), prediction[10:].copy())
    assert found.value == pytest.approx(value("sam_rgb", rest), rel=1e-9)
    assert re.fullmatch(r"\d+ of 12288 spectra are zero and left out", str(found.note))
    assert "skip0" in identity("sam_rgb") and "skip0" in identity("sam_refl")
    assert "every spectrum is zero" in str(assessed("sam_rgb", (np.zeros_like(black), prediction)).reason)
