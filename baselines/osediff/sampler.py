"""OSEDiff's one step, from the enlarged LR to the answer before its last resize (``test_osediff.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from baselines.seesr import colour, tiled_vae
from baselines.seesr.network import build_scheduler
from baselines.seesr.sampler import in_tiles

_TIME = 999
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class Settings:
    """The published defaults of inference.

    ``process_px`` is the side below which answers are not made, ``tile_cells`` and ``overlap_cells`` are those of
    latent tiles, ``vae_encoder_px`` and ``vae_decoder_cells`` the autoencoder's.
    """

    process_px: int = 512
    align: str = "adain"
    tile_cells: int = 96
    overlap_cells: int = 32
    vae_encoder_px: int = 1024
    vae_decoder_cells: int = 224


@torch.no_grad()
def answer(
    condition: Image.Image, prompt: torch.Tensor, noise: torch.Tensor, unet: Any, vae: Any, settings: Settings
) -> np.ndarray:
    """The answer, float32 (H, W, 3) in [0, 1], of the size of its condition.

    Parameters
    ----------
    prompt : its embedding, float (1, 77, width).
    noise : of the autoencoder's posterior, standard normal float32 (4, H/8, W/8).
    """
    device, dtype = prompt.device, prompt.dtype
    rgb = torch.from_numpy(np.array(condition)).permute(2, 0, 1)[None].to(device, torch.float32) / 255
    moments = tiled_vae.encode(vae, (rgb * 2 - 1).to(dtype), settings.vae_encoder_px)
    mean, log_variance = moments.float().chunk(2, dim=1)
    latent = mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise[None].to(device)
    latent = latent * vae.config.scaling_factor

    def predict(part: torch.Tensor, *_: slice) -> torch.Tensor:
        return unet(part.to(dtype), _TIME, encoder_hidden_states=prompt, return_dict=False)[0].float()

    predicted = in_tiles(latent, settings.tile_cells, settings.overlap_cells, predict)
    # The one step of the schedule ends at the clean latent, which is what the noise leaves of this one.
    share = float(build_scheduler(1).alphas_cumprod[_TIME])
    clean = (latent - (1 - share) ** 0.5 * predicted) / share**0.5
    decoded = tiled_vae.decode(vae, (clean / vae.config.scaling_factor).to(dtype), settings.vae_decoder_cells)
    image = (decoded.float().clamp(-1, 1) + 1) / 2
    if settings.align != "nofix":
        image = {"adain": colour.adain, "wavelet": colour.wavelet}[settings.align](image, rgb).clamp(0, 1)
    return image[0].permute(1, 2, 0).cpu().numpy()
