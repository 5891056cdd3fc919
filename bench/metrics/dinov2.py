"""DINOv2's vision transformer, laid out as its released weights are, to be filled from a verified file.

torch-fidelity gets this network from torch.hub, which would download its authors' code and run it. This one is written
from the papers and the names of the released tensors; its numbers are held against another implementation of it.

Source: M. Oquab et al., TMLR 2024, arXiv:2304.07193; A. Dosovitskiy et al., ICLR 2021, arXiv:2010.11929; the gains of
its blocks: H. Touvron et al., ICCV 2021, arXiv:2103.17239.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

_HEAD = 64
"""Features of a head: all released sizes have as many heads as make this."""
_OFFSET = 0.1
"""What the released code adds to the number of patches before it scales the positions' grid, which the factor keeps."""


class DinoV2(nn.Module):
    """The network without a head: images (N, 3, H, W) of sides that patches divide, normalised as it was trained, to
    the normalised class token (N, width)."""

    def __init__(self, width: int, depth: int, *, grid: int = 37, patch_px: int = 14) -> None:
        """``grid``: patches a side that positions were trained for; ``patch_px``: their side."""
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # training's; it is in the file
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_px, stride=patch_px)})
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> DinoV2:
        """An empty network of the size of a file's tensors; KeyError where they are of another network."""
        _, positions, width = state["pos_embed"].shape
        depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        patch_px = state["patch_embed.proj.weight"].shape[-1]
        with torch.device("meta"):
            return cls(width, depth, grid=math.isqrt(positions - 1), patch_px=patch_px)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The class token after the last block."""
        patches = self.patch_embed["proj"](images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + self._positions(*patches.shape[-2:])
        return self.norm(self.blocks(tokens))[:, 0]

    def _positions(self, rows: int, columns: int) -> torch.Tensor:
        """The positions of a grid, (1, 1 + rows * columns, width): bicubic between those that were trained."""
        count = self.pos_embed.shape[1] - 1
        side = math.isqrt(count)
        if rows == columns == side:
            return self.pos_embed
        of_patches = self.pos_embed[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factors = (rows + _OFFSET) / side, (columns + _OFFSET) / side
        scaled = functional.interpolate(of_patches, scale_factor=factors, mode="bicubic")
        scaled = scaled.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], scaled], dim=1)


class _Block(nn.Module):
    """Attention and a perceptron of two layers, each added with a gain a feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.ls1 = nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))})
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls2 = nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.ls1["gamma"] * self._attention(self.norm1(tokens))
        hidden = functional.gelu(self.mlp["fc1"](self.norm2(tokens)))
        return tokens + self.ls2["gamma"] * self.mlp["fc2"](hidden)

    def _attention(self, tokens: torch.Tensor) -> torch.Tensor:
        images, count, width = tokens.shape
        of_heads = self.attn["qkv"](tokens).reshape(images, count, 3, width // _HEAD, _HEAD)
        query, key, value = of_heads.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        mixed: torch.Tensor = self.attn["proj"](seen.transpose(1, 2).reshape(images, count, width))
        return mixed
