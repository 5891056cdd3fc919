"""The context of an image that nobody described: its grid of features, found by inverting the model.

ZoomLDM is conditioned on features of the finest patches that an image covers, which for an LR nobody has. Its
super-resolution looks for those with which the model denoises the LR best: the LR as an image of its own zoom is made
noisy at times from late to early, the grid of features goes through the summariser to the UNet, and Adam moves it
against the error of the predicted noise. The features of the answer's patches are then parts of that grid.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from baselines.zoomldm.network import LATENT_CHANNELS, cumulative_products, standardised

Denoise = Callable[[torch.Tensor, int, torch.Tensor], torch.Tensor]
"""The noise in a latent (1, C, h, w) at a time, given standardised features (1, D, g, g); differentiable in those."""

EARLIEST, LATEST = 50, 950  # times, of 1000
RATE = 0.1  # Adam's
ALIKE = 0.05  # weight of the features' likeness to each other, which is rewarded: one image is of one kind of ground
_GROWN = 4096.0  # the loss is multiplied by it, so that half precision does not lose its gradient


def times(steps: int) -> tuple[int, ...]:
    """The times of the steps, from late to early."""
    return tuple(int(t) for t in torch.linspace(LATEST, EARLIEST, steps, dtype=torch.float64))


def noise_channels(steps: int) -> int:
    """Channels of noise over the LR's latent that an inversion takes."""
    return LATENT_CHANNELS * steps


def invert(latent: torch.Tensor, denoise: Denoise, start: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The features (D, g, g) that explain an image.

    Parameters
    ----------
    latent : of the image, float (1, C, h, w).
    start : the features to begin with, standard normal (D, g, g).
    noise : standard normal, (C * steps, h, w).
    """
    found = start.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([found], lr=RATE)
    products = cumulative_products()
    drawn = noise.split(LATENT_CHANNELS)
    for t, one in zip(times(len(drawn)), drawn, strict=True):
        product = float(products[t - 1])
        noisy = product**0.5 * latent + (1 - product) ** 0.5 * one[None]
        with torch.enable_grad(), _repeatable(latent.device):
            error = (denoise(noisy, t, standardised(found[None])) - one[None]).square().mean()
            loss = product**0.5 * (1 - product) * error - ALIKE * _likeness(found)
            (_GROWN * loss).backward()
        assert found.grad is not None
        found.grad /= _GROWN
        adam.step()
        adam.zero_grad()
    return found.detach()


def _likeness(features: torch.Tensor) -> torch.Tensor:
    """The mean cosine between any two of the features (D, g, g), each with itself among them."""
    units = torch.nn.functional.normalize(features.flatten(1), dim=0)
    return (units.T @ units).mean()


def _repeatable(device: torch.device) -> AbstractContextManager[object]:
    """Attention whose backward gives the same twice: the fused ones add in any order on a GPU."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()


def between(features: torch.Tensor, row: float, column: float) -> torch.Tensor:
    """The features (D,) at a place between those of a grid (D, rows, columns), on the sphere's shortest way.

    Beyond the last row or column stands the last again.
    """
    _, rows, columns = features.shape
    top, left = int(row), int(column)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    upper = _slerp(features[:, top, left], features[:, top, right], column - left)
    lower = _slerp(features[:, bottom, left], features[:, bottom, right], column - left)
    return _slerp(upper, lower, row - top)


def _slerp(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    if abs(cosine) > 0.9995:
        return torch.lerp(a, b, share)
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    first, second = (float(torch.sin(part * angle) / torch.sin(angle)) for part in (1 - share, share))
    return first * a + second * b
