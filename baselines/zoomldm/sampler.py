"""Super-resolution with ZoomLDM by constrained sampling: a reimplementation.

ZoomLDM generates patches; its super-resolution is a way of sampling that keeps the patch, brought down to the LR's
size, close to the LR. The notebook with the authors' own procedure could not be read, so this follows the published
sampler of the same authors for the same task, to which ZoomLDM's README refers: Graikos et al., "Fast constrained
sampling in pre-trained diffusion models", NeurIPS 2025, as in github.com/cvlab-stonybrook/fast-constrained-sampling at
dc59d71 (stable-diffusion/superres.ipynb).

At each time t, from noise to image, x is moved ``inner`` times and then denoised by a step:

1. x0, the clean latent that the UNet predicts from x, is decoded and brought down; e is minus the gradient of the
   distance to the LR with respect to x0, divided by its largest number.
2. How x0 answers to a step along e is a finite difference, g = (x0(x + h e) - x0(x)) / h, divided by its largest
   number. It stands for the gradient through the UNet, which is never computed.
3. x moves by ``rate`` g.

The step is DDIM's with the variance of one time of the schedule, as there. The answer is the last x0, decoded.

Ours and not theirs: the LR covers a corner of the patch and only that corner is held to it, so any size and factor will
do; all noise is given, image by image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from baselines.zoomldm.network import LATENT_CHANNELS, cumulative_products

Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""The noise in a latent (1, C, h, w) at a time from 1 to 1000."""
Decode = Callable[[torch.Tensor], torch.Tensor]
"""A latent to an image (1, 3, H, W), about [-1, 1]; differentiable."""


@dataclass(frozen=True)
class Settings:
    """The published values; ``guidance`` w makes the noise (1 + w) with context - w without."""

    stride: int = 50
    inner: int = 10
    rate: float = 0.1
    difference: float = 0.005
    guidance: float = 0.0

    @property
    def times(self) -> tuple[int, ...]:
        """From 1000 down in steps of ``stride``, all above 0."""
        return tuple(range(1000, 0, -self.stride))

    @property
    def noise_channels(self) -> int:
        """Channels of noise that one image takes: the start, and one for each time."""
        return LATENT_CHANNELS * (len(self.times) + 1)


def reduction(length: int, out_length: int) -> torch.Tensor:
    """The matrix (out_length, length) of an antialiased cubic reduction (a = -0.5) along an axis.

    A product with it is differentiable and the same each time, which torch's own backward on a GPU is not.
    """
    unit = torch.eye(length)[None, None]
    return F.interpolate(unit, size=(out_length, length), mode="bicubic", antialias=True)[0, 0]


class Constraint:
    """What the image must be when brought down: an LR, float (1, 3, h, w) in [-1, 1], of a corner of ``size`` px."""

    def __init__(self, lr: torch.Tensor, size: tuple[int, int]) -> None:
        self.lr, self.size = lr, size
        self.rows, self.columns = (reduction(n, m).to(lr.device) for n, m in zip(size, lr.shape[2:], strict=True))

    def down(self, image: torch.Tensor) -> torch.Tensor:
        """The corner of an image (1, 3, H, W), brought down to the LR's size."""
        corner = image[:, :, : self.size[0], : self.size[1]]
        return self.rows @ corner @ self.columns.T

    def distance(self, image: torch.Tensor) -> torch.Tensor:
        """The Euclidean distance of the image, brought down, to the LR."""
        return torch.linalg.vector_norm(self.lr - self.down(image))


@torch.no_grad()
def sample(
    predict: Predict, decode: Decode, constraint: Constraint, noise: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """The clean latent of one draw.

    Parameters
    ----------
    noise : standard normal, float32 (C, h, w) with the latent's channels for the start and for each time
        (``settings.noise_channels``).
    """
    products = cumulative_products()
    betas = 1 - products / torch.cat([torch.ones(1, dtype=products.dtype), products[:-1]])
    drawn = noise[None].chunk(len(settings.times) + 1, dim=1)
    x = drawn[0]
    clean = torch.zeros_like(x)
    for i, t in enumerate(settings.times):
        # As published: the time runs from 1 and the tables from 0; the last step leads to the second entry.
        product, before = float(products[t - 1]), float(products[max(t - 1 - settings.stride, 1)])
        variance = float(betas[t - 1]) * (1 - before) / (1 - product)

        def denoised(x: torch.Tensor, t: int = t, product: float = product) -> tuple[torch.Tensor, torch.Tensor]:
            predicted = predict(x, t)
            return (x - (1 - product) ** 0.5 * predicted) / product**0.5, predicted

        clean, predicted = denoised(x)
        for _ in range(settings.inner):
            direction = _largest_one(-_gradient(clean, decode, constraint))
            moved, _ = denoised(x + settings.difference * direction)
            x = x + settings.rate * _largest_one((moved - clean) / settings.difference)
            clean, predicted = denoised(x)
        rest = max(0.0, 1 - before - variance)
        x = before**0.5 * clean + rest**0.5 * predicted + variance**0.5 * drawn[1 + i]
    return clean


def _gradient(latent: torch.Tensor, decode: Decode, constraint: Constraint) -> torch.Tensor:
    """Of the distance to the LR, with respect to the clean latent."""
    with torch.enable_grad():
        leaf = latent.detach().requires_grad_(True)
        return torch.autograd.grad(constraint.distance(decode(leaf)), leaf)[0]


def _largest_one(x: torch.Tensor) -> torch.Tensor:
    """Divided by its largest magnitude; zeros stay zeros."""
    return x / x.abs().max().clamp(min=torch.finfo(x.dtype).tiny)
