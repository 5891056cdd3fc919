"""Images on the grid: bicubic enlargement of the LR, and padding to what the networks need."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def upsample(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The LR (B, 3, h, w) in [0, 1] on a grid of ``size``: bicubic (a = -0.5), clipped to [0, 1]."""
    if images.shape[-2:] == size:
        return images
    larger = functional.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
    return larger.clamp(0, 1)


def shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) on a coarser grid, by area."""
    return images if images.shape[-2:] == size else functional.interpolate(images, size=size, mode="area")


def pad_to(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., H, W) continued to the bottom and right by repeated reflection, for images of any size, 1x1 included."""
    for dim, wanted in zip((-2, -1), size, strict=True):
        have = images.shape[dim]
        if wanted > have:
            period = max(2 * (have - 1), 1)
            index = torch.arange(wanted, device=images.device) % period
            images = images.index_select(dim, torch.where(index < have, index, period - index))
    return images


def next_multiple(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The sides, each raised to the next multiple."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple
