"""Sampling the patches of an image together, held to an LR: ZoomLDM's super-resolution, written anew.

An image of any size is a grid of patches at the answer's zoom. All are sampled at once, and at each time, from noise to
image, x is moved ``inner`` times before it is denoised by a step, so that the patches, put together and brought down,
come to agree with the LR:

1. x0, the clean latent that the UNet predicts from x, is decoded. Its difference to the LR says in which direction e
   the latent should move.
2. How x0 answers to a step along e is a finite difference, g = (x0(x + h e) - x0(x)) / h, divided by its largest
   number. It stands for the gradient through the UNet, which is never computed.
3. x moves by ``rate`` g.

There are two published ways to find e, and both are here (``Settings.push``):

``encoder`` : ZoomLDM's own, of its joint sampling of scales. The difference to the LR, enlarged, is a direction among
    images; what the encoder makes of a small step along it is e. No gradient is computed.
``decoder`` : that of the sampler that ZoomLDM's README refers to: Graikos et al., "Fast constrained sampling in
    pre-trained diffusion models", NeurIPS 2025 (github.com/cvlab-stonybrook/fast-constrained-sampling at dc59d71,
    stable-diffusion/superres.ipynb). e is minus the gradient of the distance to the LR, through the decoder.

The step is DDIM's with the variance of one time of the schedule. The two sources differ in its end: with ``encoder``
the last step leads to the schedule's first entry and its x is the answer, with ``decoder`` to the second and the answer
is the last x0.

Ours and not theirs: the LR covers a corner of the grid, in pixels of any size, and only that corner is held to it; all
noise is given, image by image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from baselines.zoomldm.network import FACTOR, LATENT_CHANNELS, PATCH_PX, cumulative_products

CELLS = PATCH_PX // FACTOR  # of a patch's latent, a side

Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""The noise in the latents (P, C, h, w) of all patches at a time from 1 to 1000."""
Coder = Callable[[torch.Tensor], torch.Tensor]
"""Latents to images (P, 3, H, W), about [-1, 1], or back; a decoder is differentiable."""


@dataclass(frozen=True)
class Settings:
    """Those of ZoomLDM's super-resolution; ``guidance`` w makes the noise (1 + w) with context - w without."""

    stride: int = 50
    inner: int = 5
    rate: float = 0.5
    difference: float = 0.005
    guidance: float = 2.0
    push: Literal["encoder", "decoder"] = "encoder"

    @property
    def times(self) -> tuple[int, ...]:
        """From 1000 down in steps of ``stride``, all above 0."""
        return tuple(range(1000, 0, -self.stride))

    @property
    def noise_channels(self) -> int:
        """Channels of noise that one image takes: the start, and one for each time."""
        return LATENT_CHANNELS * (len(self.times) + 1)


FAST_CONSTRAINED = Settings(inner=10, rate=0.1, guidance=0.0, push="decoder")
"""The published values of the sampler whose push is ``decoder``."""


@dataclass(frozen=True)
class Step:
    """One DDIM step of the schedule from ``time`` to that ``stride`` before it, with the variance of one time."""

    product: float
    before: float
    variance: float

    @classmethod
    def of(cls, time: int, stride: int, last: int = 0) -> Step:
        """``last`` is the entry of the schedule that the last step leads to; times run from 1 and entries from 0."""
        products = cumulative_products()
        product, before = float(products[time - 1]), float(products[max(time - 1 - stride, last)])
        beta = 1 - product / (float(products[time - 2]) if time > 1 else 1.0)
        return cls(product, before, beta * (1 - before) / (1 - product))

    def clean(self, x: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """x0 from x and the noise in it."""
        return (x - (1 - self.product) ** 0.5 * predicted) / self.product**0.5

    def next(self, clean: torch.Tensor, predicted: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """x at the next time."""
        rest = max(0.0, 1 - self.before - self.variance)
        return self.before**0.5 * clean + rest**0.5 * predicted + self.variance**0.5 * drawn


def resizing(length: int, out_length: int) -> torch.Tensor:
    """The matrix (out_length, length) of a cubic resize along an axis (a = -0.5), antialiased where it reduces.

    A product with it is differentiable and the same each time, which torch's own backward on a GPU is not.
    """
    unit = torch.eye(length)[None, None]
    return F.interpolate(unit, size=(out_length, length), mode="bicubic", antialias=True)[0, 0]


def joined(patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Patches (rows * columns, C, h, w), row by row, as one image (1, C, rows * h, columns * w)."""
    rows, columns = grid
    _, c, h, w = patches.shape
    return patches.reshape(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(1, c, rows * h, columns * w)


def parted(image: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The reverse of ``joined``."""
    rows, columns = grid
    c, h, w = image.shape[1], image.shape[2] // rows, image.shape[3] // columns
    return image.reshape(c, rows, h, columns, w).permute(1, 3, 0, 2, 4).reshape(rows * columns, c, h, w)


class Constraint:
    """What the patches must be when put together and brought down.

    Parameters
    ----------
    lr : float (1, 3, h, w) in [-1, 1], the LR of the upper left corner of ``size`` px.
    grid : rows and columns of patches.
    """

    def __init__(self, lr: torch.Tensor, size: tuple[int, int], grid: tuple[int, int] = (1, 1)) -> None:
        self.lr, self.size, self.grid = lr, size, grid
        self.down_rows, self.down_columns = (
            resizing(n, m).to(lr.device) for n, m in zip(size, lr.shape[2:], strict=True)
        )
        self.up_rows, self.up_columns = (resizing(m, n).to(lr.device) for n, m in zip(size, lr.shape[2:], strict=True))

    def down(self, patches: torch.Tensor) -> torch.Tensor:
        """The corner of the patches (P, 3, H, W), brought down to the LR's size."""
        corner = joined(patches, self.grid)[:, :, : self.size[0], : self.size[1]]
        return self.down_rows @ corner @ self.down_columns.T

    def distance(self, patches: torch.Tensor) -> torch.Tensor:
        """The Euclidean distance of the patches, brought down, to the LR."""
        return torch.linalg.vector_norm(self.lr - self.down(patches))

    def missing(self, patches: torch.Tensor) -> torch.Tensor:
        """What the patches (P, 3, H, W) lack of the LR, enlarged to their own pixels; 0 outside of the corner."""
        lacking = self.up_rows @ (self.lr - self.down(patches)) @ self.up_columns.T
        (rows, columns), (height, width) = self.grid, patches.shape[2:]
        right, bottom = columns * width - self.size[1], rows * height - self.size[0]
        return parted(F.pad(lacking, (0, right, 0, bottom)), self.grid)


@torch.no_grad()
def sample(
    predict: Predict,
    encode: Coder,
    decode: Coder,
    constraint: Constraint,
    noise: torch.Tensor,
    settings: Settings,
) -> torch.Tensor:
    """The latents (P, C, h, w) of one draw.

    Parameters
    ----------
    noise : standard normal, float32 (P, channels, h, w) with the latent's channels for the start and for each time
        (``settings.noise_channels``).
    """
    drawn = noise.chunk(len(settings.times) + 1, dim=1)
    x = drawn[0]
    clean = torch.zeros_like(x)
    for i, t in enumerate(settings.times):
        step = Step.of(t, settings.stride, last=0 if settings.push == "encoder" else 1)
        predicted = predict(x, t)
        clean = step.clean(x, predicted)
        for _ in range(settings.inner):
            if settings.push == "encoder":
                direction = _through_encoder(clean, encode, decode, constraint, settings.difference)
            else:
                direction = _through_decoder(clean, decode, constraint)
            nearby = x + settings.difference * _largest_one(direction)
            moved = step.clean(nearby, predict(nearby, t))
            x = x + settings.rate * _largest_one((moved - clean) / settings.difference)
            predicted = predict(x, t)
            clean = step.clean(x, predicted)
        x = step.next(clean, predicted, drawn[1 + i])
    return x if settings.push == "encoder" else clean


def _through_encoder(
    clean: torch.Tensor, encode: Coder, decode: Coder, constraint: Constraint, difference: float
) -> torch.Tensor:
    image = decode(clean)
    return encode(image + difference * _largest_one(constraint.missing(image))) - encode(image)


def _through_decoder(clean: torch.Tensor, decode: Coder, constraint: Constraint) -> torch.Tensor:
    with torch.enable_grad():
        leaf = clean.detach().requires_grad_(True)
        return -torch.autograd.grad(constraint.distance(decode(leaf)), leaf)[0]


def _largest_one(x: torch.Tensor) -> torch.Tensor:
    """Each patch divided by its largest magnitude; zeros stay zeros."""
    return x / x.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
