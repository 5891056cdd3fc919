"""RareFlow's objective (eq. 8-12) against numpy, scipy, scikit-image, diffusers and the package lpips."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab
from torch import Tensor

from rareflow import losses
from rareflow.errors import RareflowError
from rareflow.losses import (
    Compare,
    LossConfig,
    Lpips,
    colour_loss,
    frequency_loss,
    gaussian_blur,
    objective,
    srgb_to_lab,
    velocity_loss,
)

torch.set_num_threads(1)


def noise(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def pictures(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.02, 0.98, shape)).to(dtype)


def corner_mask(batch: int, height: int, width: int) -> Tensor:
    """Content in the upper left, another amount in every sample."""
    mask = torch.zeros(batch, 1, height, width, dtype=torch.bool)
    for i in range(batch):
        mask[i, :, : height - 2 - i % 3, : width - 1 - i % 2] = True
    return mask


# --- eq. 8 -----------------------------------------------------------------------------------------------------------

OMEGA_SQUARED: dict[str, Callable[[float], float]] = {
    "inv_sigma": lambda s: 1 / s**2,
    "one": lambda s: 1.0,
    "cosmap": lambda s: 2 / (math.pi * (1 - 2 * s + 2 * s**2)),
}


@pytest.mark.parametrize("omega", OMEGA_SQUARED)
def test_velocity_loss_is_the_weighted_error_of_x0(omega: str) -> None:
    sigmas = [1e-3, 0.25, 0.7, 1.0]
    v_hat, z0, eps = (noise(i, 4, 3, 5, 6) for i in range(3))
    got = velocity_loss(v_hat, z0, eps, torch.tensor(sigmas).double(), omega)
    for i, s in enumerate(sigmas):
        s = float(torch.tensor(s).double())
        z_t = (1 - s) * z0[i].numpy() + s * eps[i].numpy()
        x0_hat = z_t - s * v_hat[i].numpy()
        expected = OMEGA_SQUARED[omega](s) * np.mean((x0_hat - z0[i].numpy()) ** 2)
        assert got[i].item() == pytest.approx(expected, rel=1e-6)


def test_velocity_loss_down_to_sigma_zero() -> None:
    v_hat, z0, eps = (noise(i, 3, 2, 4, 4, dtype=torch.float32) for i in range(3))
    sigma = torch.tensor([0.0, 1e-30, 1e-6])
    plain = (v_hat.double() - (eps.double() - z0.double())).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(velocity_loss(v_hat, z0, eps, sigma).double(), plain, rtol=1e-6, atol=0)
    for omega in ("one", "cosmap"):
        assert velocity_loss(v_hat, z0, eps, sigma, omega)[0] == 0
    with pytest.raises(RareflowError, match="omega: found 'sqrt'"):
        velocity_loss(v_hat, z0, eps, sigma, "sqrt")


@pytest.mark.parametrize(("omega", "scheme"), [("inv_sigma", "sigma_sqrt"), ("cosmap", "cosmap"), ("one", "none")])
def test_velocity_loss_is_that_of_diffusers_with_preconditioned_outputs(omega: str, scheme: str) -> None:
    utils = pytest.importorskip("diffusers.training_utils")
    v_hat, z0, eps = (noise(i, 4, 3, 5, 6) for i in range(3))
    sigma = torch.tensor([0.01, 0.3, 0.6, 1.0]).double()
    s = sigma.view(-1, 1, 1, 1)
    x0_hat = (1 - s) * z0 + s * eps - s * v_hat
    expected = utils.compute_loss_weighting_for_sd3(scheme, sigma).double() * (x0_hat - z0).square().mean((1, 2, 3))
    torch.testing.assert_close(velocity_loss(v_hat, z0, eps, sigma, omega), expected, rtol=1e-5, atol=0)


# --- eq. 9 -----------------------------------------------------------------------------------------------------------


def dft(image: np.ndarray) -> np.ndarray:
    """The orthonormal 2-D DFT from its definition."""
    height, width = image.shape
    rows = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width)) / width)
    return rows @ image @ columns / math.sqrt(height * width)


def radial_weight(height: int, width: int, gamma: float) -> np.ndarray:
    def signed(i: int, n: int) -> float:
        return (i if i < (n + 1) // 2 else i - n) / n

    rho = np.array([[math.hypot(signed(i, height), signed(j, width)) for j in range(width)] for i in range(height)])
    return rho**gamma / np.mean(rho**gamma)


@pytest.mark.parametrize("size", [(5, 8), (6, 7)])
def test_frequency_loss_is_eq_9_by_default(size: tuple[int, int]) -> None:
    """|| W (|F(x)| - |F(y)|) ||_1 / n, W rising with the radial frequency as rho^gamma, coefficient by coefficient."""
    a, b = noise(0, 2, 3, *size), noise(1, 2, 3, *size)
    gamma = LossConfig().gamma
    weight = radial_weight(*size, gamma)
    for i in range(2):
        total = 0.0
        for p, q in zip(a[i].numpy(), b[i].numpy(), strict=True):
            fp, fq = dft(p), dft(q)
            for y in range(size[0]):
                for x in range(size[1]):
                    total += abs(weight[y, x] * (abs(fp[y, x]) - abs(fq[y, x])))
        for got in (frequency_loss(a, b, gamma), frequency_loss(a, b, gamma, compare=LossConfig().fft_compare)):
            assert got[i].item() == pytest.approx(total / (3 * size[0] * size[1]), rel=1e-9)


@pytest.mark.parametrize("compare", ["complex", "magnitude"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.7])
@pytest.mark.parametrize("size", [(5, 8), (6, 7)])
def test_frequency_loss_from_its_definition(compare: str, gamma: float, size: tuple[int, int]) -> None:
    a, b = noise(0, 2, 3, *size), noise(1, 2, 3, *size)
    got = frequency_loss(a, b, gamma, compare=compare)
    for i in range(2):
        terms = []
        for p, q in zip(a[i].numpy(), b[i].numpy(), strict=True):
            error = np.abs(dft(p) - dft(q)) if compare == "complex" else np.abs(dft(p)) - np.abs(dft(q))
            terms.append((radial_weight(*size, gamma) * error) ** 2)
        assert got[i].item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_frequency_loss_weighs_by_frequency() -> None:
    z0 = noise(0, 1, 2, 8, 12)
    squared = frequency_loss(z0 + 0.3, z0, 0.0, compare="complex")
    torch.testing.assert_close(squared, torch.tensor([0.09]).double())  # Parseval
    for compare in get_args(Compare):
        found = frequency_loss(z0 + 0.3, z0, 1.0, compare=compare)
        assert found.item() == pytest.approx(0, abs=1e-12)  # the mean has frequency 0
    x = torch.arange(12).double()
    slow, fast = (torch.cos(2 * torch.pi * k * x / 12).expand(1, 2, 8, 12) for k in (1, 4))
    for gamma in (1.0, 2.0):
        for compare, power in (("complex", 2), ("magnitude", 2), ("magnitude_l1", 1)):
            zero = torch.zeros_like(z0)
            ratio = frequency_loss(fast, zero, gamma, compare=compare) / frequency_loss(
                slow, zero, gamma, compare=compare
            )
            assert ratio.item() == pytest.approx(4 ** (power * gamma))


def test_only_the_magnitude_leaves_phases_free() -> None:
    z0 = noise(0, 1, 2, 8, 12)
    moved = z0.roll((3, 5), dims=(2, 3))
    for compare in ("magnitude", "magnitude_l1"):
        assert frequency_loss(moved, z0, 1.0, compare=compare).item() == pytest.approx(0, abs=1e-12)
    assert frequency_loss(moved, z0, 1.0, compare="complex").item() > 0.5
    with pytest.raises(RareflowError, match="expected one of magnitude_l1, magnitude, complex"):
        frequency_loss(moved, z0, 1.0, compare="phase")


def test_only_the_complex_difference_keeps_the_conditional_mean() -> None:
    """Given what the model knows, HR is ``mean`` plus or minus a texture: eq. 8 is minimal at ``mean``. So is eq. 9
    in its complex form; the magnitude forms pull the prediction towards a texture."""
    mean, texture = noise(0, 1, 1, 8, 8), noise(1, 1, 1, 8, 8)
    pull = {}
    for compare in get_args(Compare):
        x = mean.clone().requires_grad_()
        sum(frequency_loss(x, mean + s * texture, 1.0, compare=compare) for s in (1, -1)).backward()
        assert x.grad is not None
        pull[compare] = x.grad.abs().max().item()
    assert pull["complex"] < 1e-12 < 1e-3 < min(pull["magnitude"], pull["magnitude_l1"])


# --- colour (eq. 10-11) ----------------------------------------------------------------------------------------------


def test_lab_is_that_of_scikit_image() -> None:
    levels = torch.linspace(0, 1, 9).double()
    cube = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 27, 27)  # includes black, white, primaries
    rgb = torch.cat([cube, pictures(0, 2, 3, 27, 27), 0.05 * pictures(1, 1, 3, 27, 27)])  # the last is near black
    expected = rgb2lab(rgb.numpy(), channel_axis=1) / 100
    assert np.abs(srgb_to_lab(rgb).numpy() - expected).max() < 1e-4
    assert np.abs(srgb_to_lab(rgb.float()).numpy() - expected).max() < 1e-4
    torch.testing.assert_close(srgb_to_lab(rgb * 3 - 1), srgb_to_lab((rgb * 3 - 1).clamp(0, 1)))
    grey = srgb_to_lab(levels.view(1, 1, 3, 3).expand(1, 3, 3, 3))
    assert grey[:, 1:].abs().max() < 1e-14
    assert grey[0, 0, 2, 2].item() == pytest.approx(1)


def test_lab_has_a_finite_gradient_everywhere() -> None:
    values = torch.tensor([0.0, 1e-8, 0.04045, 0.0405, 0.09, 0.5, 1.0, -0.2, 1.3])
    rgb = torch.cartesian_prod(values, values, values).T.reshape(1, 3, 27, 27).clone().requires_grad_()
    lab = srgb_to_lab(rgb)
    (lab * torch.tensor([1.0, 0.3, 0.2]).view(1, 3, 1, 1)).sum().backward()
    assert rgb.grad is not None
    assert torch.isfinite(lab).all() and torch.isfinite(rgb.grad).all()
    assert (rgb.grad[(rgb < 0) | (rgb > 1)] == 0).all() and (rgb.grad[(rgb == 0) | (rgb == 1)] != 0).all()
    assert rgb.grad.abs().max() < 100
    dark = (0.02 * pictures(0, 1, 3, 2, 2)).requires_grad_()
    assert torch.autograd.gradcheck(srgb_to_lab, [dark])
    assert torch.autograd.gradcheck(srgb_to_lab, [pictures(1, 1, 3, 2, 2).requires_grad_()])


@pytest.mark.parametrize("size", [(40, 33), (19, 10), (7, 30), (2, 5), (1, 4), (1, 1)])
@pytest.mark.parametrize("sigma_px", [3.0, 0.8, 6.5])
def test_blur_is_that_of_scipy_whatever_the_size(size: tuple[int, int], sigma_px: float) -> None:
    image = noise(0, 2, 3, *size)
    expected = gaussian_filter(image.numpy(), sigma_px, mode="mirror", truncate=3, axes=(2, 3))
    np.testing.assert_allclose(gaussian_blur(image, sigma_px).numpy(), expected, atol=1e-12)


def test_blur_has_nineteen_taps_and_can_be_off() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    blurred = gaussian_blur(point, 3.0)
    assert (blurred > 0).sum() == 19 * 19 and blurred.sum().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(gaussian_blur(point, 0.0), point)


def lab_after_blur(image: np.ndarray, blur_px: float, mask: np.ndarray | None = None) -> np.ndarray:
    """(3, H, W) float64 by scipy and scikit-image."""

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0, blur_px, blur_px), mode="mirror", truncate=3)

    if mask is None:
        mask = np.ones((1, *image.shape[1:]))
    blurred = blur(image * mask) / np.maximum(blur(mask.astype(float)), 1e-9)
    return rgb2lab(np.clip(blurred, 0, 1), channel_axis=0) / 100


def lab_then_blur(image: np.ndarray, blur_px: float, mask: np.ndarray | None = None) -> np.ndarray:
    """The paper's order: (3, H, W) float64 by scikit-image, then scipy."""
    lab = rgb2lab(np.clip(image, 0, 1), channel_axis=0) / 100
    if mask is None:
        mask = np.ones((1, *image.shape[1:]))

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0, blur_px, blur_px), mode="mirror", truncate=3)

    return blur(lab * mask) / np.maximum(blur(mask.astype(float)), 1e-9)


@pytest.mark.parametrize("order", [None, "lab_then_blur", "blur_then_lab"])
@pytest.mark.parametrize("masked", [False, True])
def test_colour_loss_from_its_definition(masked: bool, order: str | None) -> None:
    """Without an order, that of eq. 11."""
    coarse = lab_after_blur if order == "blur_then_lab" else lab_then_blur
    given = {} if order is None else {"order": order}
    target = gaussian_blur(pictures(0, 3, 3, 24, 31), 1.0)
    prediction = 0.6 * target + 0.5 * pictures(1, 3, 3, 24, 31) - 0.05  # leaves [0, 1] in places
    mask = corner_mask(3, 24, 31) if masked else None
    got = colour_loss(prediction, target, 3.0, mask, **given)
    assert LossConfig().color_order == "lab_then_blur"
    for i in range(3):
        m = None if mask is None else mask[i].numpy()
        content = np.ones((24, 31), bool) if m is None else m[0]
        p, q = (coarse(x[i].numpy(), 3.0, m)[:, content] for x in (prediction, target))
        expected = np.abs(p - q).mean()
        expected += np.abs(p.mean(axis=1) - q.mean(axis=1)).mean() + np.abs(p.std(axis=1) - q.std(axis=1)).mean()
        assert got[i].item() == pytest.approx(expected, abs=1e-4)
        assert expected > 0.02


def test_colour_loss_sees_coarse_colour_and_not_texture() -> None:
    target = gaussian_blur(pictures(0, 1, 3, 48, 48), 4.0)
    chequer = 0.1 * (-1.0) ** (torch.arange(48)[:, None] + torch.arange(48))
    cast = target + torch.tensor([0.03, 0.0, -0.03]).view(1, 3, 1, 1)
    assert colour_loss(target, target).item() == 0
    for order, most in (("lab_then_blur", 0.012), ("blur_then_lab", 1e-3)):
        chequered, cast_over = (colour_loss(x, target, order=order).item() for x in (target + chequer, cast))
        assert chequered < most < 30e-3 < cast_over


def test_colour_loss_of_flat_images_has_a_finite_gradient() -> None:
    flat = torch.full((2, 3, 12, 12), 0.4, requires_grad=True)
    other = torch.full((2, 3, 12, 12), 0.5)
    for target in (other, flat.detach()):
        (gradient,) = torch.autograd.grad(colour_loss(flat, target).sum(), flat)
        assert torch.isfinite(gradient).all()


# --- all of them -----------------------------------------------------------------------------------------------------

SIGMA, EPS = torch.tensor([0.125, 0.625, 0.875]), noise(9, 3, 3, 20, 20).bfloat16()  # exact in every precision
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "velocity": lambda a, b, m: velocity_loss(
        a, b, EPS[..., : a.shape[2], : a.shape[3]].to(a), SIGMA.to(a), "cosmap", m
    ),
    "frequency": lambda a, b, m: frequency_loss(a, b, 1.0, m),
    "complex": lambda a, b, m: frequency_loss(a, b, 1.0, m, "complex"),
    "magnitude": lambda a, b, m: frequency_loss(a, b, 1.0, m, "magnitude"),
    "colour": lambda a, b, m: colour_loss(a, b, 1.0, m),
    "blur first": lambda a, b, m: colour_loss(a, b, 1.0, m, "blur_then_lab"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    a, b = pictures(0, 3, 3, 5, 6).requires_grad_(), pictures(1, 3, 3, 5, 6)
    mask = corner_mask(3, 5, 6)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, b, None), [a], fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, b, mask), [a], fast_mode=True)


@pytest.mark.parametrize("rubbish", [7.0, math.nan])
@pytest.mark.parametrize("name", LOSSES)
def test_what_lies_under_the_mask_changes_nothing(name: str, rubbish: float) -> None:
    a, b, mask = pictures(0, 3, 3, 12, 14), pictures(1, 3, 3, 12, 14), corner_mask(3, 12, 14)
    results = []
    for value in (0.5, rubbish):
        p = torch.where(mask, a, value).requires_grad_()
        loss = LOSSES[name](p, torch.where(mask, b, value), mask)
        (gradient,) = torch.autograd.grad(loss.sum(), p)
        assert (gradient[~mask.expand_as(p)] == 0).all() and gradient.abs().sum() > 0
        results.append((loss, gradient))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", LOSSES)
def test_a_mask_of_content_only_and_none_at_all(name: str) -> None:
    a, b = pictures(0, 3, 3, 12, 14), pictures(1, 3, 3, 12, 14)
    everything = torch.ones(3, 1, 12, 14)
    torch.testing.assert_close(LOSSES[name](a, b, everything), LOSSES[name](a, b, None))
    assert (LOSSES[name](a, b, everything * 0) == 0).all()


def test_masked_losses_of_padded_latents_are_those_of_the_latents() -> None:
    v_hat, z0, eps = (noise(i, 1, 4, 9, 7) for i in range(3))
    sigma = torch.tensor([0.4]).double()
    mask = torch.nn.functional.pad(torch.ones(1, 1, 9, 7), (0, 5, 0, 3))
    padded = [torch.nn.functional.pad(t, (0, 5, 0, 3), value=3.0) for t in (v_hat, z0, eps)]
    torch.testing.assert_close(velocity_loss(*padded, sigma, mask=mask), velocity_loss(v_hat, z0, eps, sigma))
    squared, whole = frequency_loss(*padded[:2], 0.0, mask, "complex"), frequency_loss(v_hat, z0, 0.0, None, "complex")
    torch.testing.assert_close(squared, whole)
    # A longer zero-padded DFT samples the same spectrum elsewhere: with gamma > 0 equal up to that.
    torch.testing.assert_close(frequency_loss(*padded[:2], 1.0, mask), frequency_loss(v_hat, z0, 1.0), rtol=0.1, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_inputs_are_compared_in_float32(name: str) -> None:
    a, b = pictures(0, 3, 3, 20, 20).bfloat16(), pictures(1, 3, 3, 20, 20).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = LOSSES[name](a, b, None)
    assert got.dtype == torch.float32 and got.shape == (3,)
    torch.testing.assert_close(got.double(), LOSSES[name](a.double(), b.double(), None), rtol=1e-4, atol=0)


# --- LPIPS -----------------------------------------------------------------------------------------------------------

ALEXNET = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


@pytest.fixture(scope="module")
def trunk_state() -> dict[str, Tensor]:
    """Random convolutions in the shapes and under the names of torchvision's file."""
    state = {}
    for i, (out, into, side) in ALEXNET.items():
        state[f"features.{i}.weight"] = noise(i, out, into, side, side).float() * math.sqrt(2 / (into * side**2))
        state[f"features.{i}.bias"] = noise(i + 1, out).float() * 0.1
    return state


@pytest.fixture(scope="module")
def folder(trunk_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    torch.save(trunk_state, path / "alexnet-owt-7be5be79.pth")
    return path


@pytest.fixture
def trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with the random trunk's hash as the expected one."""
    found = hashlib.sha256((folder / "alexnet-owt-7be5be79.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(losses, "_TRUNK_SHA256", found)
    return folder


def test_lpips_names_what_is_missing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (None, tmp_path):
        assert "alexnet-owt-7be5be79.pth" in (Lpips.missing(where) or "") and "missing" in (Lpips.missing(where) or "")
        with pytest.raises(RareflowError, match=r"LPIPS: alexnet-owt-7be5be79\.pth .*lambda_lpips to 0$"):
            Lpips(where)
    found = hashlib.sha256((folder / "alexnet-owt-7be5be79.pth").read_bytes()).hexdigest()[:8]
    with pytest.raises(RareflowError, match=rf"alexnet-owt-7be5be79\.pth .* sha256 {found}..., expected 7be5be79"):
        Lpips(folder)
    monkeypatch.setattr(losses, "_TRUNK_SHA256", found)
    assert Lpips.missing(folder) is None
    monkeypatch.setattr(losses, "_HEADS_SHA256", "0" * 64)
    assert "alex.pth of the package lpips has the sha256 df73285e..., expected 00000000" in (
        Lpips.missing(folder) or ""
    )


def test_lpips_is_that_of_the_package(trusted: Path, trunk_state: dict[str, Tensor]) -> None:
    import lpips

    before = torch.random.get_rng_state()
    network = Lpips(trusted)
    assert torch.equal(torch.random.get_rng_state(), before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).requires_grad_(False)
    for part, i in zip((f"slice{n}" for n in range(1, 6)), ALEXNET, strict=True):
        convolution = dict(getattr(reference.net, part).named_children())[str(i)]
        convolution.load_state_dict({k: trunk_state[f"features.{i}.{k}"] for k in ("weight", "bias")})
    a, b = pictures(0, 2, 3, 64, 71).float(), gaussian_blur(pictures(1, 2, 3, 64, 71), 2.0).float()
    expected = reference(a, b, normalize=True).view(-1)
    assert expected.min() > 0.05
    network.train()  # the package has dropout before its heads: it must stay off
    torch.testing.assert_close(network(a, b), expected, rtol=1e-4, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(network(a, b), expected, rtol=1e-4, atol=1e-6)
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(network(a, b).sum(), a)
    (wanted,) = torch.autograd.grad(reference(a, b, normalize=True).sum(), a)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-6)
    assert not any(p.requires_grad for p in network.parameters())
    with pytest.raises(RareflowError, match="found images of 30x64 px"):
        network(a[:, :, :30, :64], b[:, :, :30, :64])


def test_lpips_mask_and_dead_features(trusted: Path) -> None:
    network = Lpips(trusted)
    a, b, mask = pictures(0, 2, 3, 96, 64).float(), pictures(1, 2, 3, 96, 64).float(), torch.ones(2, 1, 96, 64)
    torch.testing.assert_close(network(a, b, mask), network(a, b))
    mask[:, :, 48:] = 0
    values = [network(torch.where(mask > 0, a, v), torch.where(mask > 0, b, v), mask) for v in (0.0, math.nan)]
    assert torch.equal(*values) and values[0].min() > 0
    # The mean over content: close to that of the content alone.
    torch.testing.assert_close(values[0], network(a[:, :, :48], b[:, :, :48]), rtol=0.05, atol=0)
    for convolution in (m for m in network.features.modules() if isinstance(m, torch.nn.Conv2d)):
        convolution.bias.fill_(-1e3)  # every feature is 0
    a.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is slow
        anomalies = torch.autograd.detect_anomaly()
    with anomalies:
        (gradient,) = torch.autograd.grad(network(a, b).sum(), a)
    assert torch.equal(network(a, b), torch.zeros(2)) and torch.equal(gradient, torch.zeros_like(a))


# --- eq. 12 ----------------------------------------------------------------------------------------------------------


class Decoder:
    """Latents (B, 4, h, w) to images (B, 3, 4h, 4w), counting its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, z: Tensor) -> Tensor:
        self.calls += 1
        mixed = torch.einsum("ij,bjhw->bihw", noise(50, 3, 4).to(z) * 0.05, z)
        return 0.5 + torch.nn.functional.interpolate(mixed, scale_factor=4, mode="bilinear")


class FakeLpips(torch.nn.Module):
    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        return losses._mean((prediction - target).abs(), mask)


def batch(count: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    v_hat, z0, eps = (noise(i, count, 4, 8, 10, dtype=dtype) for i in range(3))
    sigma = torch.linspace(0, 1, count, dtype=dtype)
    s = sigma.view(-1, 1, 1, 1)
    target = pictures(3, count, 3, 32, 40, dtype=dtype)
    return {"v_hat": v_hat, "z_t": (1 - s) * z0 + s * eps, "z0": z0, "eps": eps, "sigma": sigma, "target": target}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("domain", "power"), [("latent", 2), ("pixel", 3), ("latent", 0)])
def test_objective_from_its_definition(domain: str, power: int, masked: bool) -> None:
    config = LossConfig(omega="one", gamma=1.3, blur_px=2.0, fft_domain=domain, high_noise_power=power)
    data, decode = batch(), Decoder()
    data["v_hat"].requires_grad_()
    mask = corner_mask(4, 8, 10) if masked else None
    total, terms = objective(config, **data, decode=decode, lpips=FakeLpips(), mask=mask)
    sigma, z0, target = data["sigma"].numpy(), data["z0"].numpy(), data["target"].numpy()
    content = np.ones((4, 1, 8, 10)) if mask is None else mask.numpy()
    x0_hat = data["z_t"].numpy() - sigma[:, None, None, None] * data["v_hat"].detach().numpy()
    x0_hat = np.where(content, x0_hat, z0)
    image = Decoder()(torch.from_numpy(x0_hat)).numpy()
    pixels = content.repeat(4, axis=2).repeat(4, axis=3)
    pairs = (x0_hat, z0, content) if domain == "latent" else (image, target, pixels)
    late = (1 - sigma) ** power
    expected = {
        "base": [np.mean(((x0_hat - z0) ** 2)[i][:, content[i, 0] > 0]) for i in range(4)],
        "fft": 2.0 * late * frequency_loss(*map(torch.from_numpy, pairs[:2]), 1.3, torch.from_numpy(pairs[2])).numpy(),
        "color": 25.0
        * late
        * colour_loss(*map(torch.from_numpy, (image, target)), 2.0, torch.from_numpy(pixels)).numpy(),
        "lpips": 0.5 * late * [np.mean(np.abs(image - target)[i][:, pixels[i, 0] > 0]) for i in range(4)],
    }
    means = {name: np.mean(values) for name, values in expected.items()}
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(means, rel=1e-9)
    assert total.item() == pytest.approx(sum(means.values()), rel=1e-9)
    assert decode.calls == 1 and total.requires_grad and not any(v.requires_grad for v in terms.values())


def test_terms_of_weight_zero_are_left_out() -> None:
    data, nothing = batch(), {"lambda_fft": 0.0, "lambda_color": 0.0, "lambda_lpips": 0.0}
    for extra, names, calls in (
        ({}, ["base"], 0),
        ({"lambda_fft": 1.0}, ["base", "fft"], 0),
        ({"lambda_fft": 1.0, "fft_domain": "pixel"}, ["base", "fft"], 1),
        ({"lambda_color": 1.0}, ["base", "color"], 1),
        ({"lambda_lpips": 1.0}, ["base", "lpips"], 1),
    ):
        decode = Decoder()
        config = LossConfig(**(nothing | extra))
        total, terms = objective(config, **data, decode=decode, lpips=FakeLpips())
        assert list(terms) == names and decode.calls == calls
        assert total.item() == pytest.approx(sum(v.item() for v in terms.values()))


def test_lpips_without_a_network_is_left_out_by_name() -> None:
    data, decode = batch(), Decoder()
    with pytest.warns(RuntimeWarning, match="LPIPS is left out of the objective: lambda_lpips is 0.5"):
        _, terms = objective(LossConfig(lambda_color=0), **data, decode=decode)
    assert list(terms) == ["base", "fft"] and decode.calls == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective(LossConfig(lambda_lpips=0), **data, decode=decode)


def test_objective_of_a_batch_is_the_mean_of_its_samples_and_has_their_gradients() -> None:
    config, data = LossConfig(lambda_lpips=0), batch(8)
    data["v_hat"].requires_grad_()
    total, _ = objective(config, **data, decode=Decoder())
    (gradient,) = torch.autograd.grad(total, data["v_hat"])
    singles = [objective(config, **{k: v[i : i + 1] for k, v in data.items()}, decode=Decoder())[0] for i in range(8)]
    torch.testing.assert_close(total, torch.stack(singles).mean())
    # At sigma = 1 only eq. 8 is left, at sigma = 0 the prediction does not depend on v.
    for i in (0, -1):
        error = (data["v_hat"] - (data["eps"] - data["z0"]))[i]
        torch.testing.assert_close(gradient[i], 2 * error / error.numel() / 8)
    small = {k: (v[1:3, :, :4, :4] if v.ndim == 4 else v[1:3]).detach() for k, v in data.items()}
    small["target"] = data["target"][1:3, :, :16, :16]
    v_hat = small.pop("v_hat").requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: objective(config, v_hat=v, **small, decode=Decoder())[0], [v_hat], fast_mode=True
    )


@pytest.mark.parametrize("domain", ["latent", "pixel"])
def test_objective_ignores_padding(domain: str) -> None:
    """With errors and rubbish in the padding of everything that a training loop pads or predicts."""
    config, mask = LossConfig(fft_domain=domain), corner_mask(4, 8, 10)
    enlarged = torch.nn.functional.interpolate(mask.double(), scale_factor=4) > 0
    results = []
    for value in (0.0, 50.0, math.nan):
        data = batch()
        data |= {k: torch.where(mask, data[k], value) for k in ("v_hat", "z_t", "eps")}
        data["target"] = torch.where(enlarged, data["target"], value)
        data["v_hat"].requires_grad_()
        total, terms = objective(config, **data, decode=Decoder(), lpips=FakeLpips(), mask=mask)
        (gradient,) = torch.autograd.grad(total, data["v_hat"])
        assert (gradient[~mask.expand_as(gradient)] == 0).all() and set(terms) == {"base", "fft", "color", "lpips"}
        results.append((total, gradient))
    for total, gradient in results[1:]:
        assert torch.equal(total, results[0][0]) and torch.equal(gradient, results[0][1])


def test_objective_under_autocast_is_that_of_float32() -> None:
    data = batch(dtype=torch.float32)
    config = LossConfig(lambda_lpips=0)
    expected, _ = objective(config, **data, decode=Decoder())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # The decoder may work in half precision; what compares its images does not.
        total, _ = objective(config, **data, decode=lambda z: Decoder()(z).bfloat16())
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=1e-3)


def test_shapes_that_would_broadcast_are_refused() -> None:
    data = batch()
    for change in ({"v_hat": data["v_hat"][:, :1]}, {"sigma": data["sigma"][:1]}):
        with pytest.raises(ValueError, match="expected four of"):
            objective(LossConfig(lambda_lpips=0), **(data | change), decode=Decoder())
    with pytest.raises(ValueError, match="for a target of"):
        objective(LossConfig(lambda_lpips=0), **(data | {"target": data["target"][:, :, :-1]}), decode=Decoder())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"omega": "sigma"}, "loss.omega: found 'sigma', expected one of inv_sigma, one, cosmap"),
        ({"fft_domain": "image"}, "loss.fft_domain: found 'image'"),
        ({"fft_compare": "phase"}, "loss.fft_compare: found 'phase'"),
        ({"color_order": "blur"}, "loss.color_order: found 'blur', expected one of lab_then_blur, blur_then_lab"),
        ({"lambda_color": -1.0}, "loss.lambda_color: found -1.0, expected a finite number of 0 or more"),
        ({"gamma": math.nan}, "loss.gamma: found nan"),
        ({"blur_px": math.inf}, "loss.blur_px: found inf"),
    ],
)
def test_bad_choices_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(RareflowError, match=message):
        LossConfig(**values)
