"""The generator of ESRGAN (Wang et al., ECCVW 2018) as Satlas trained it: the dates stand one behind another as bands.

Names are those of the published state: ``body.N.rdbM.convK``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RGB_CHANNELS = 3
FULL, SMALL = (64, 23, 32), (8, 2, 4)
"""Width, blocks and growth of the published network and of a small one."""
_RESIDUAL, _SLOPE = 0.2, 0.2


class Dense(nn.Module):
    """Five convolutions, each of which reads all that came before it."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 6):
            after = width if i == 5 else growth
            self.add_module(f"conv{i}", nn.Conv2d(width + (i - 1) * growth, after, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for i in range(1, 5):
            layer = self.get_submodule(f"conv{i}")
            found.append(F.leaky_relu(layer(torch.cat(found, 1)), _SLOPE))
        return self.get_submodule("conv5")(torch.cat(found, 1)) * _RESIDUAL + x


class DenseThrice(nn.Module):
    """Three dense blocks and a shortcut around them."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.rdb3(self.rdb2(self.rdb1(x))) * _RESIDUAL + x


class Network(nn.Module):
    """(N, 3 dates, h, w) in [0, 1] to (N, 3, 4h, 4w) in about [0, 1]."""

    def __init__(self, dates: int, width: int = FULL[0], blocks: int = FULL[1], growth: int = FULL[2]) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(RGB_CHANNELS * dates, width, 3, padding=1)
        self.body = nn.Sequential(*(DenseThrice(width, growth) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(width, width, 3, padding=1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(width, RGB_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for layer in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2, mode="nearest")), _SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), _SLOPE))
