"""The package's network and how it is asked for one image: its own steps, with noise that is given instead of drawn.

Donike et al., "Trustworthy Super-Resolution of Multispectral Sentinel-2 Imagery With Latent Diffusion", IEEE JSTARS 18,
2025. The LR image, enlarged bilinearly, is encoded into a latent of the LR's size; DDIM denoises a second latent beside
it; the decoded image gets each LR band's histogram.

``SRLatentDiffusion.forward`` of the package does the same with noise from torch's global generator on whatever device
it runs, for whole batches. Here the noise of each image and draw comes from outside, so that an image does not depend
on what is computed beside it or where.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

FACTOR = 4
CHANNELS = 4
"""Bands of the image, and channels of its latent."""


@dataclass(frozen=True)
class Config:
    """The published sizes, which the package's wheel does not carry (its repository's ``configs/config_10m.yaml``).

    ``window_px`` is the side of the LR image that the network takes.
    """

    window_px: int = 128
    autoencoder: dict[str, Any] = field(
        default_factory=lambda: {
            "embed_dim": 4, "double_z": True, "z_channels": 4, "resolution": 512, "in_channels": 4, "out_ch": 4,
            "ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
        }
    )  # fmt: skip
    unet: dict[str, Any] = field(
        default_factory=lambda: {
            "image_size": 128, "in_channels": 8, "model_channels": 160, "out_channels": 4, "num_res_blocks": 2,
            "attention_resolutions": [16, 8], "channel_mult": [1, 2, 2, 4], "num_head_channels": 32,
        }
    )  # fmt: skip


def tiny() -> Config:
    """A network of the same shape for windows of 32 px that takes a moment on a processor."""
    full = Config()
    return Config(
        window_px=32,
        autoencoder=full.autoencoder | {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1},
        unet=full.unet | {"model_channels": 32, "channel_mult": [1, 1, 1, 2], "num_res_blocks": 1},
    )


def build(config: Config, device: str) -> Any:
    """The package's ``SRLatentDiffusion``, which says much on stdout, where results belong."""
    from omegaconf import OmegaConf
    from opensr_model import SRLatentDiffusion

    settings = {
        "apply_normalization": False,
        "encode_conditioning": True,
        # The ends of the schedule are overwritten by the checkpoint's own.
        "denoiser_settings": {
            "linear_start": 0.0001, "linear_end": 0.0155, "timesteps": 1000, "parameterization": "eps",
            "sampling_eta": 0.95, "sampling_temperature": 1.0, "sampling_steps": 100,
        },
        "first_stage_config": config.autoencoder,
        "cond_stage_config": config.unet,
        "other": {
            "concat_mode": True, "cond_stage_trainable": False, "first_stage_key": "image",
            "cond_stage_key": "LR_image",
        },
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        return SRLatentDiffusion(OmegaConf.create(settings), device=device)


def noise_channels(steps: int) -> int:
    """How many channels of noise one image takes: for the encoding, the first latent, and each step."""
    return CHANNELS * (2 + steps)


def sample(
    model: Any, lr: Tensor, noises: Iterator[Tensor], *, steps: int, eta: float, temperature: float, histogram: bool
) -> Iterator[Tensor]:
    """One image for each noise.

    Parameters
    ----------
    model : of ``build``.
    lr : (1, 4, h, h), R, G, B, NIR in reflectance.
    noises : standard normal, (1, noise_channels(steps), h, h) each.
    steps, eta, temperature : of DDIM; ``histogram`` as the package's ``histogram_matching``.

    Yields
    ------
    (1, 4, 4h, 4h), reflectance; 0 where a band of the LR is exactly 0, which the package takes for missing.
    """
    from opensr_model.diffusion.utils import DDIMSampler
    from opensr_model.utils import apply_no_data_mask, create_no_data_mask

    side = lr.shape[-1] * FACTOR
    enlarged = F.interpolate(lr, size=(side, side), mode="bilinear", align_corners=False)
    encoded = model.model.first_stage_model.encode(enlarged)
    missing = create_no_data_mask(lr, target_size=side)
    sampler = DDIMSampler(model.model)
    sampler.make_schedule(ddim_num_steps=steps, ddim_eta=eta, verbose=False)
    model._X = lr.clone()  # what the decoder's histograms are taken from
    for noise in noises:
        for_encoding, latent, *for_steps = noise.split(CHANNELS, dim=1)
        condition = encoded.mean + encoded.std * for_encoding
        for index, moment in zip(reversed(range(steps)), reversed(sampler.ddim_timesteps), strict=True):
            # The package's step without its noise, then ours: the same sum in the same order.
            latent, _ = sampler.p_sample_ddim(x=latent, c=condition, t=int(moment), index=index, temperature=0.0)
            latent = latent + float(sampler.ddim_sigmas[index]) * for_steps[steps - 1 - index] * temperature
        yield apply_no_data_mask(model._tensor_decode(latent, spe_cor=histogram), missing)


def uncertainty(samples: Tensor) -> Tensor:
    """The package's ``uncertainty_map`` of its samples, (K, 4, H, W) to (H, W): twice their deviation, averaged over
    bands; reflectance."""
    return (2 * samples.std(dim=0)).mean(dim=0)
