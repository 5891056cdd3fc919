"""SEN2SRLite's network and its hard constraint.

The network is SPAN (Wan et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution", CVPRW 2024) at
a small width. Its layers are trained as three convolutions beside a shortcut and run as the one 3x3 convolution that
equals them. The constraint (Aybar et al., "A radiometrically and spatially consistent super-resolution framework for
Sentinel-2", 2025) replaces the low frequencies of the answer by those of the LR, under a mask that comes as a file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 4
BANDS = 4
FULL, SMALL = (24, 6), (8, 2)
"""Features and blocks of the published network and of a small one."""


class Merged(nn.Module):
    """A 3x3 convolution that was trained as 1x1, 3x3 and 1x1 beside a 1x1 shortcut; ``merge`` makes it of them."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.sk = nn.Conv2d(before, after, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(before, 2 * before, 1), nn.Conv2d(2 * before, 2 * after, 3), nn.Conv2d(2 * after, after, 1)
        )
        self.eval_conv = nn.Conv2d(before, after, 3, padding=1)

    @torch.no_grad()
    def merge(self) -> None:
        (first, first_bias), (middle, middle_bias), (last, last_bias) = (_parameters(layer) for layer in self.conv)
        shortcut, shortcut_bias = _parameters(self.sk)
        inner, outer = first[:, :, 0, 0], last[:, :, 0, 0]
        weight = torch.einsum("om,mnyx,ni->oiyx", outer, middle, inner)
        weight[:, :, 1, 1] += shortcut[:, :, 0, 0]
        bias = outer @ (middle.sum((2, 3)) @ first_bias + middle_bias) + last_bias + shortcut_bias
        for mine, found in zip(_parameters(self.eval_conv), (weight, bias), strict=True):
            mine.copy_(found)

    def forward(self, x: Tensor) -> Tensor:
        return self.eval_conv(x)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A convolution's weight and bias."""
    return layer.get_parameter("weight"), layer.get_parameter("bias")


class Block(nn.Module):
    """Three layers whose answer is weighted by itself: attention without parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (Merged(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's answer, and what its first layer gave, activated."""
        first = F.silu(self.c1_r(x))
        found = self.c3_r(F.silu(self.c2_r(first)))
        return (found + x) * (torch.sigmoid(found) - 0.5), first


class Network(nn.Module):
    """Reflectance (N, 4, h, w) in R G B NIR to (N, 4, 4h, 4w)."""

    def __init__(self, width: int = FULL[0], blocks: int = FULL[1]) -> None:
        super().__init__()
        self.conv_1 = Merged(BANDS, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.conv_cat = nn.Conv2d(4 * width, width, 1)
        self.conv_2 = Merged(width, width)
        self.upsampler = nn.Sequential(nn.Conv2d(width, BANDS * SCALE**2, 3, padding=1), nn.PixelShuffle(SCALE))

    def merge(self) -> None:
        """Make the layers that run of those that were trained; once, after loading."""
        for module in self.modules():
            if isinstance(module, Merged):
                module.merge()

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv_1(x)
        # As published: every block reads the first features, not the block before it, so that those between the first
        # and the last have weights but no part in the answer.
        early, _ = self.blocks[0](features)
        late, inner = self.blocks[-1](features)
        return self.upsampler(self.conv_cat(torch.cat([features, self.conv_2(late), early, inner], 1)))


def constrained(answer: Tensor, lr: Tensor, mask: Tensor) -> Tensor:
    """``answer`` (N, C, H, W) with the frequencies of the enlarged ``lr`` (N, C, h, w) where ``mask`` (H, W) is 1.

    The mask has the zero frequency in its middle.
    """
    enlarged = F.interpolate(lr, size=answer.shape[2:], mode="bicubic", antialias=True)
    low = torch.fft.ifftshift(mask)
    mixed = torch.fft.fft2(enlarged) * low + torch.fft.fft2(answer) * (1 - low)
    return torch.fft.ifft2(mixed).real


def usual_mask(side: int) -> Tensor:
    """A mask for random weights, float32 (side, side): an ideal low pass at the LR's highest frequency."""
    axis = torch.arange(side) - side // 2
    return ((axis[:, None] ** 2 + axis[None] ** 2).sqrt() <= side // 2 // SCALE).float()
