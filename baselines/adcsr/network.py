"""The network of AdcSR, built from diffusers' blocks at its pruned widths.

Chen et al., "Adversarial Diffusion Compression for Real-World Image Super-Resolution", CVPR 2025 (arXiv 2411.13383):
the UNet of Stable Diffusion 2.1-base without time and text, three quarters as wide, works on the unshuffled LR image
itself and hands 256 channels, not a latent, to the last blocks of a VAE decoder of half the usual width. Everything
happens in one pass; nothing is drawn.

Upstream prunes a full UNet module by module; here the same layers are made at their final widths, so that neither the
base model nor its weights are needed. Parameter names are diffusers' own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.unets.unet_2d_blocks import (
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)
from torch import Tensor, nn

LR_MULTIPLE = 16
"""LR sides must be multiples of it: unshuffled by 2, then halved three times."""
_UNSHUFFLE = 2
_RGB = 3
_DOWN_LAYERS, _UP_LAYERS = 2, 3
_GROUPS = (32, 24, 16, 12, 8, 6, 4, 2, 1)  # the first that divides a normalisation's width


@dataclass(frozen=True)
class Config:
    """Widths of the network; the defaults are the published ones.

    Attributes
    ----------
    widths, heads : channels and attention heads of the four levels of the UNet.
    latent : channels that the UNet hands to the decoder.
    decoder : channels of the decoder's four blocks, outermost first; ``decoder_groups`` of its normalisations.
    """

    widths: tuple[int, int, int, int] = (240, 480, 960, 960)
    heads: tuple[int, int, int, int] = (5, 10, 20, 20)
    latent: int = 256
    decoder: tuple[int, int, int, int] = (64, 128, 256, 256)
    decoder_groups: int = 32


TINY = Config(widths=(40, 40, 80, 80), heads=(1, 1, 2, 2), latent=16, decoder=(8, 8, 16, 16), decoder_groups=4)
"""A network of the same shape that takes a moment on a processor."""


class UNet(nn.Module):
    """(N, 12, h, w) to (N, latent, h, w); h and w are multiples of 8."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths, heads = config.widths, config.heads
        # Without time (temb_channels) and without text (cross_attention_dim); groups are set below.
        shared = {"temb_channels": None, "resnet_eps": 1e-5, "resnet_groups": 1}
        attending = {"cross_attention_dim": None, "use_linear_projection": True}
        self.conv_in = nn.Conv2d(_RGB * _UNSHUFFLE**2, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            sizes = {"in_channels": before, "out_channels": width, "num_layers": _DOWN_LAYERS, **shared}
            self.down_blocks.append(
                CrossAttnDownBlock2D(num_attention_heads=heads[level], **attending, **sizes)
                if level < len(widths) - 1
                else DownBlock2D(add_downsample=False, **sizes)
            )
        self.mid_block = UNetMidBlock2DCrossAttn(
            in_channels=widths[-1], num_attention_heads=heads[-1], **attending, **shared
        )
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            sizes = {
                "in_channels": widths[max(0, level - 1)],
                "prev_output_channel": widths[min(level + 1, len(widths) - 1)],
                "out_channels": widths[level],
                "num_layers": _UP_LAYERS,
                "add_upsample": level > 0,
                **shared,
            }
            self.up_blocks.append(
                UpBlock2D(**sizes)
                if level == len(widths) - 1
                else CrossAttnUpBlock2D(num_attention_heads=heads[level], **attending, **sizes)
            )
        self.conv_norm_out = nn.GroupNorm(1, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], config.latent, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = next(n for n in _GROUPS if module.num_channels % n == 0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            x, states = block(x)
            skips += states
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x, tuple(skips[-_UP_LAYERS:]))
            del skips[-_UP_LAYERS:]
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Network(nn.Module):
    """(N, 3, h, w) in [-1, 1] to (N, 3, 4h, 4w) in about [-1, 1]; h and w are multiples of 16."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.unet = UNet(config)
        self.decoder = Decoder(
            in_channels=config.latent,
            out_channels=_RGB,
            up_block_types=("UpDecoderBlock2D",) * len(config.decoder),
            block_out_channels=config.decoder,
            layers_per_block=2,
            norm_num_groups=config.decoder_groups,
        )
        del self.decoder.conv_in  # the UNet's last convolution takes its place

    def forward(self, lr: Tensor) -> Tensor:
        x = self.decoder.mid_block(self.unet(F.pixel_unshuffle(lr, _UNSHUFFLE)))
        for block in self.decoder.up_blocks:
            x = block(x)
        return self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(x)))


def match_colours(image: Tensor, lr: Tensor) -> Tensor:
    """``image`` (N, C, H, W) with the mean and standard deviation of ``lr`` (N, C, h, w) in each image and channel.

    Deviations are the unbiased ones, as upstream's. A flat channel gets the mean alone.
    """
    mean, deviation = _moments(image)
    lr_mean, lr_deviation = _moments(lr)
    return (image - mean) / torch.where(deviation > 0, deviation, 1) * lr_deviation + lr_mean


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    count = image.shape[2] * image.shape[3]
    return image.mean((2, 3), keepdim=True), image.std((2, 3), correction=min(1, count - 1), keepdim=True)
