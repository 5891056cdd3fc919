"""SeeSR's networks on diffusers classes: Stable Diffusion 2's UNet and ControlNet with a second cross-attention.

Wherever the UNet or the ControlNet of Stable Diffusion 2 attends to text, SeeSR runs a second transformer of the same
width right after it that attends to 145 image tokens of a tagger (Wu et al., "SeeSR: Towards Semantics-Aware Real-World
Image Super-Resolution", CVPR 2024, arXiv:2311.16518). Each text transformer is therefore wrapped together with its
image transformer; everything else is diffusers' own, built from a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, Transformer2DModel, UNet2DConditionModel
from torch import nn

TOKENS, TOKEN_WIDTH = 145, 512
"""The image tokens of one image: a pooled one and 12x12 of places, brought to 512 numbers each."""
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
IMAGE_TOKENS = "image_tokens"  # the name under which they travel through diffusers' cross_attention_kwargs
# Stable Diffusion 2's schedule; the published scheduler configuration is for PNDM, from which SeeSR makes a DDPM one.
SCHEDULE = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "steps_offset": 1, "prediction_type": "epsilon", "timestep_spacing": "leading",
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """The widths of the networks; the published ones unless given.

    ``channels`` and ``heads`` are those of the UNet's four stages, ``text_width`` is the width of text embeddings,
    ``groups`` that of group normalisation, ``condition_channels`` the ControlNet's on its way from the image to the
    latent grid, ``vae_channels`` the autoencoder's.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: tuple[int, ...] = (5, 10, 20, 20)
    text_width: int = 1024
    layers: int = 2
    groups: int = 32
    condition_channels: tuple[int, ...] = (16, 32, 96, 256)
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    vae_layers: int = 2

    def shared(self) -> dict[str, Any]:
        """What UNet and ControlNet have in common, in diffusers' words."""
        return {
            "in_channels": 4,
            "block_out_channels": self.channels,
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "layers_per_block": self.layers,
            "attention_head_dim": self.heads,
            "cross_attention_dim": self.text_width,
            "use_linear_projection": True,
            "norm_num_groups": self.groups,
        }


FULL = Size()
SMALL = Size((32, 32, 64, 64), (2, 2, 4, 4), 32, 1, 8, (8, 8, 16, 16), (32, 32, 32, 32))


class TextThenImage(nn.Module):
    """A text transformer and the image transformer behind it, in the place of the text transformer alone."""

    def __init__(self, text: Transformer2DModel, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.text = text
        self.image = Transformer2DModel(
            heads, width // heads, in_channels=width, num_layers=1, cross_attention_dim=TOKEN_WIDTH,
            norm_num_groups=groups, use_linear_projection=True,
        )  # fmt: skip

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        **_: object,
    ) -> tuple[torch.Tensor]:
        """As ``Transformer2DModel.forward`` with ``return_dict=False``; diffusers' masks are None here."""
        tokens = (cross_attention_kwargs or {})[IMAGE_TOKENS]
        hidden_states = self.text(hidden_states, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        return self.image(hidden_states, encoder_hidden_states=tokens, return_dict=False)


def build_unet(size: Size = FULL) -> UNet2DConditionModel:
    """The noise predictor. Called with ``cross_attention_kwargs={IMAGE_TOKENS: float (N, 145, 512)}``."""
    ups = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    return _with_image_attention(UNet2DConditionModel(out_channels=4, up_block_types=ups, **size.shared()), size)


def build_controlnet(size: Size = FULL) -> ControlNetModel:
    """The ControlNet; its condition is RGB in [0, 1] at the size of the answer."""
    net = ControlNetModel(conditioning_embedding_out_channels=size.condition_channels, **size.shared())
    return _with_image_attention(net, size)


def build_vae(size: Size = FULL) -> AutoencoderKL:
    """Stable Diffusion 2's autoencoder: an eighth of the side, 4 channels, factor 0.18215."""
    depth = len(size.vae_channels)
    return AutoencoderKL(
        block_out_channels=size.vae_channels, layers_per_block=size.vae_layers, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * depth, up_block_types=("UpDecoderBlock2D",) * depth,
        norm_num_groups=32, sample_size=512,
    )  # fmt: skip


def build_scheduler(steps: int, spacing: str = "leading") -> DDPMScheduler:
    """Stable Diffusion 2's noise schedule with ``steps`` time steps set; SD-Turbo's has them ``trailing``."""
    scheduler = DDPMScheduler(**SCHEDULE | {"timestep_spacing": spacing})
    scheduler.set_timesteps(steps)
    return scheduler


def published_names(net: nn.Module) -> dict[str, str]:
    """The name of each parameter of a network by the name that it has in the published files.

    There the image transformers stand in lists of their own: ``X.attentions.0.text.Y`` here is ``X.attentions.0.Y``
    there, and ``X.attentions.0.image.Y`` is ``X.image_attentions.0.Y``.
    """
    return {_published(name): name for name in net.state_dict()}


def from_published(net: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published tensors under this network's names; names that it does not have stay, so that a check finds them."""
    known = published_names(net)
    return {known.get(name, name): tensor for name, tensor in tensors.items()}


def vae_from_published(net: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The autoencoder's published tensors; older files have diffusers' former names of attention."""
    return {_renewed(name): tensor for name, tensor in tensors.items()}


def turbo_unet(turbo: Mapping[str, torch.Tensor], seesr: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The UNet of the turbo variant under published names: SD-Turbo's, with SeeSR's image transformers."""
    return {**turbo, **{name: tensor for name, tensor in seesr.items() if "image_attentions" in name}}


def _renewed(name: str) -> str:
    for old, new in _OLD_ATTENTION.items() if ".attentions." in name else ():
        name = name.replace(old, new)
    return name


def _published(name: str) -> str:
    name = re.sub(r"attentions\.(\d+)\.image\.", r"image_attentions.\1.", name)
    return re.sub(r"(?<!image_)attentions\.(\d+)\.text\.", r"attentions.\1.", name)


def _with_image_attention(net: Any, size: Size) -> Any:
    for block, width, heads in _stages(net, size):
        block.attentions = nn.ModuleList(TextThenImage(a, width, heads, size.groups) for a in block.attentions)
    return net


def _stages(net: Any, size: Size) -> Iterator[tuple[Any, int, int]]:
    """Each block that attends, with its width and its number of heads."""
    stages = list(zip(size.channels, size.heads, strict=True))
    pairs = [*zip(net.down_blocks, stages, strict=True), (net.mid_block, stages[-1])]
    pairs += zip(getattr(net, "up_blocks", ()), stages[::-1], strict=False)
    for block, (width, heads) in pairs:
        if hasattr(block, "attentions"):
            yield block, width, heads
