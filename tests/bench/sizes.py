"""Models with random weights: ``tiny`` (the embedded one's size), ``mid`` (for a processor), ``sd3``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn

from rareflow.base import controlnet_fresh
from rareflow.captions import Captions
from rareflow.config import Config, load_config, with_changes
from rareflow.flow import Field
from rareflow.model import RareFlow
from rareflow.networks import Codec, Gates, Masks, name_dropout
from rareflow.uncertainty import Scale

_SD3_VAE: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16, "norm_num_groups": 32,
    "mid_block_add_attention": True, "scaling_factor": 1.5305, "shift_factor": 0.0609,
}  # fmt: skip
_SD3_TRANSFORMER: dict[str, Any] = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
    "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 192, "qk_norm": None,
}  # fmt: skip
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"vae": {"scaling_factor": 0.9, "shift_factor": 0.05}},
    # diffusers' pipeline gives its VAE pixels, and not squares of them: one of the same latents
    "tiny-pixels": {
        "vae": {
            "in_channels": 3, "out_channels": 3, "block_out_channels": [16, 32, 64],
            "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
            "scaling_factor": 0.9, "shift_factor": 0.05,
        },
        "sampling": {"moving_grid": False},
    },
    "mid": {
        "vae": _SD3_VAE | {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1},
        "transformer": _SD3_TRANSFORMER | {
            "num_layers": 12, "num_attention_heads": 6, "joint_attention_dim": 512, "caption_projection_dim": 384,
            "pooled_projection_dim": 512,
        },
        "control": {"layers": 6}, "text": {"positions": 77}, "sampling": {"moving_grid": False},
    },
    "sd3": {
        "vae": _SD3_VAE, "transformer": _SD3_TRANSFORMER, "control": {"layers": 12}, "text": {"positions": 333},
        "sampling": {"steps": 28, "moving_grid": False},
    },
}  # fmt: skip


class FixedCaptions(Captions):
    """One random embedding for every caption, as a stored one would come."""

    def __init__(self, config: Config) -> None:
        generator = torch.Generator("cpu").manual_seed(0)
        shape = config.text.positions, config.transformer["joint_attention_dim"]
        self.tokens = torch.randn(shape, generator=generator, device="cpu")
        self.pooled = torch.randn(config.transformer["pooled_projection_dim"], generator=generator, device="cpu")

    def get(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.tokens.repeat(len(captions), 1, 1), self.pooled.repeat(len(captions), 1)


def config_of(size: str) -> Config:
    """``tiny``, or what differs from it."""
    return with_changes(load_config("tiny"), {"name": size, **_SIZES[size]})


def random_model(config: Config, device: str = "cpu", dtype: torch.dtype = torch.float32) -> RareFlow:
    """A model whose every part has random weights that matter, the control's outputs among them, on any device.

    As in a loaded checkpoint the gates are float32, and the VAE too (float16 for half precision on a GPU).
    """
    torch.manual_seed(0)
    with torch.device(device):
        vae, transformer = AutoencoderKL(**config.vae), SD3Transformer2DModel(**config.transformer)
        control = controlnet_fresh(transformer, config.control.layers)
        masks = Masks()
        gates = Gates(config.control.layers, masks, config.uncertainty.p_do)
    for module in (*control.controlnet_blocks, control.pos_embed_input.proj):
        nn.init.normal_(module.weight, std=0.02)
    with torch.no_grad():  # a posterior without width, for comparisons with what samples from it
        vae.encoder.conv_out.weight[config.vae["latent_channels"] :] = 0
        vae.encoder.conv_out.bias[config.vae["latent_channels"] :] = -60
    name_dropout(control, masks, config.uncertainty.p_do)
    half = torch.float16 if dtype != torch.float32 and device != "cpu" else torch.float32
    for part, kind in ((transformer, dtype), (control, dtype), (vae, half), (gates, torch.float32)):
        nn.Module.to(part, dtype=kind).eval().requires_grad_(False)
    field = Field(transformer, control, gates, config.control.s_ctrl)
    return RareFlow(
        config, field, Codec(vae), FixedCaptions(config), masks, Scale(1.0, 1.0), {}, torch.device(device), dtype
    )
