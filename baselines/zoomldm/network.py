"""ZoomLDM's networks: UNet and autoencoder on diffusers classes, and the summariser of image features.

Yellapragada et al., "ZoomLDM: Latent Diffusion Model for multi-scale image generation", CVPR 2025, arXiv:2411.16969.
The UNet and the VQ-f4 autoencoder are those of latent diffusion (Rombach et al., CVPR 2022) at sizes of their own; the
summariser turns a grid of features (one for each 256x256 px at the finest zoom) and the number of the zoom into the 65
tokens to which the UNet attends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNet2DConditionModel, VQModel
from torch import nn
from torchvision.models.vision_transformer import Encoder

FACTOR = 4  # px of a latent cell
LATENT_CHANNELS = 3
PATCH_PX = 256  # an image of the model, at every zoom
ZOOMS = 4  # index 0 is the finest; each next one halves the resolution
SLOTS = 64  # of features, besides the token of the zoom


@dataclass(frozen=True)
class Size:
    """The widths of the networks; the published ones of the NAIP model unless given.

    ``context`` is the width of the tokens, ``features`` that of the features that are summarised. ``vae_attends`` says
    whether the autoencoder attends in its middle, which takes most of the time of a small one.
    """

    channels: tuple[int, ...] = (192, 384, 576, 960)
    layers: int = 2
    groups: int = 32
    context: int = 512
    vae_channels: tuple[int, ...] = (128, 256, 512)
    vae_layers: int = 2
    codes: int = 8192
    features: int = 1024
    depth: int = 12
    heads: int = 8
    inner: int = 2048
    vae_attends: bool = True


FULL = Size()
# Few codes: where a latent lies between two, rounding chooses, and another code moves the whole image by a little.
SMALL = Size((16, 16, 32, 32), 1, 8, 16, (8, 8, 8), 1, 2, 32, 2, 2, 32, False)


def build_unet(size: Size = FULL) -> UNet2DConditionModel:
    """The noise predictor of latents (N, 3, 64, 64) with a context (N, 65, width); one head of attention a stage."""
    return UNet2DConditionModel(
        in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, block_out_channels=size.channels,
        layers_per_block=size.layers, norm_num_groups=size.groups, cross_attention_dim=size.context,
        attention_head_dim=1, sample_size=PATCH_PX // FACTOR,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
    )  # fmt: skip


def build_vae(size: Size = FULL) -> VQModel:
    """The autoencoder of latent diffusion's VQ-f4: a quarter of the side, 3 channels, a codebook of ``size.codes``."""
    depth = len(size.vae_channels)
    return VQModel(
        block_out_channels=size.vae_channels, layers_per_block=size.vae_layers, latent_channels=LATENT_CHANNELS,
        vq_embed_dim=LATENT_CHANNELS, num_vq_embeddings=size.codes, scaling_factor=1.0, norm_num_groups=size.groups,
        mid_block_add_attention=size.vae_attends, down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
    )  # fmt: skip


class Summariser(nn.Module):
    """Features on a square grid, and the zoom, to the UNet's context.

    Its names are the published ones (``cond_stage_model``); its encoder is torchvision's, as there.
    """

    def __init__(self, size: Size = FULL) -> None:
        super().__init__()
        self.mag_embedding = nn.Embedding(ZOOMS, size.context)
        self.dim_reduce = nn.Linear(size.features, size.context)
        self.pad_token = nn.Parameter(torch.zeros(1, 1, size.context))
        self.encoder = Encoder(
            SLOTS + 1, size.depth, size.heads, size.context, size.inner, 0.0, 0.0, partial(nn.LayerNorm, eps=1e-6)
        )
        self.final_proj = nn.Linear(size.context, size.context)
        self.layer_norm = nn.LayerNorm(size.context)

    def forward(self, features: torch.Tensor, zoom: int) -> torch.Tensor:
        """float (N, width, side, side) with side 1, 2, 4 or 8, to the context (N, 65, width)."""
        n, _, rows, columns = features.shape
        found = self.dim_reduce(features.flatten(2).transpose(1, 2))
        if (rows, columns) != (8, 8):  # features stand in the middle of the slots, padding around them
            count = found.shape[1]
            first = SLOTS // 2 - count // 2
            slots = self.pad_token.expand(n, SLOTS, -1).clone()
            slots[:, first : first + count] = found
            found = slots
        mark = self.mag_embedding(torch.full((n, 1), zoom, device=features.device))
        return self.layer_norm(self.final_proj(self.encoder(torch.cat([mark, found], dim=1))))


def standardised(features: torch.Tensor) -> torch.Tensor:
    """Features, float (N, width, side, side), with mean 0 and deviation 1 over each one's numbers, as in training."""
    deviation = features.std(dim=1, keepdim=True)
    return (features - features.mean(dim=1, keepdim=True)) / (deviation + 1e-8)


def cumulative_products() -> torch.Tensor:
    """The schedule: products of 1 - beta at 1000 times, float64; latent diffusion's "linear" between square roots."""
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)
