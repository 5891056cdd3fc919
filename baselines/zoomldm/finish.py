"""The last part of ZoomLDM's large images: patches sharpened and joined, and decoded without seams.

The sampled patches are put together, made noisy again as at a time ``start``, and denoised once more through windows
that overlap by three quarters, each under the features at its own place; where windows overlap, their clean latents are
averaged. Then overlapping windows are decoded and blended. Written after ``large_image_gen`` of ZoomLDM at faca5d8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from baselines.zoomldm.network import FACTOR, LATENT_CHANNELS, PATCH_PX
from baselines.zoomldm.sampler import CELLS, Step

Predict = Callable[[torch.Tensor, int, int, int], torch.Tensor]
"""The noise in a window (1, C, 64, 64) at a time, whose upper left cell is (row, column) of the whole."""
STEP_CELLS = 16  # between windows
_WIDTH = 0.8  # of the bell that weighs the pixels of a decoded window, in halves of its side


def times(start: int, stride: int) -> tuple[int, ...]:
    """From ``start`` down in steps of ``stride``, all above 0; none for 0."""
    return tuple(range(start, 0, -stride))


def noise_channels(start: int, stride: int) -> int:
    """Channels of noise that one image takes."""
    return LATENT_CHANNELS * (len(times(start, stride)) + 1) if start else 0


@torch.no_grad()
def sharpen(latent: torch.Tensor, predict: Predict, noise: torch.Tensor, start: int, stride: int) -> torch.Tensor:
    """The latent (1, C, h, w) of a whole image, noised to the time ``start`` and denoised through windows.

    Parameters
    ----------
    noise : standard normal (1, ``noise_channels``, h, w).
    """
    drawn = noise.chunk(len(times(start, stride)) + 1, dim=1)
    product = Step.of(start, stride).product
    x = product**0.5 * latent + (1 - product) ** 0.5 * drawn[0]
    for t, one in zip(times(start, stride), drawn[1:], strict=True):
        step = Step.of(t, stride)
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for row, column in windows(x):
            window = (..., slice(row, row + CELLS), slice(column, column + CELLS))
            total[window] += step.clean(x[window], predict(x[window], t, row, column))
            count[window] += 1
        clean = total / count
        x = step.next(clean, (x - step.product**0.5 * clean) / (1 - step.product) ** 0.5, one)
    return x


@torch.no_grad()
def decode(latent: torch.Tensor, decoder: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The image (1, 3, 4h, 4w) of the latent (1, C, h, w) of a whole image."""
    axis = torch.linspace(-1, 1, PATCH_PX, device=latent.device)
    bell = torch.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / _WIDTH**2)
    total = latent.new_zeros(1, 3, *(FACTOR * n for n in latent.shape[2:]))
    weight = torch.zeros_like(total)
    for row, column in windows(latent):
        rows, columns = (slice(FACTOR * n, FACTOR * n + PATCH_PX) for n in (row, column))
        part = decoder(latent[:, :, row : row + CELLS, column : column + CELLS])
        total[:, :, rows, columns] += part * bell
        weight[:, :, rows, columns] += bell
    return total / weight


def windows(latent: torch.Tensor) -> Iterator[tuple[int, int]]:
    """The upper left cells of the windows of a latent whose sides are multiples of a patch's."""
    for row in range(0, latent.shape[2] - CELLS + 1, STEP_CELLS):
        for column in range(0, latent.shape[3] - CELLS + 1, STEP_CELLS):
            yield row, column
