"""SeeSR's published inference, from an 8-bit LR image to the answer before its last resize.

What stands here are the steps and defaults of the published ``test_seesr.py`` (commit in ``spec.py``): a small LR image
is first enlarged, the enlarged image is the ControlNet's condition and, encoded and noised, the start of the chain; 50
steps of DDPM with classifier-free guidance against a negative prompt; tiles of 96x96 latent cells beyond that; AdaIN.
The LR image and its enlargements are Pillow's, in 8 bit, resized by Pillow's bicubic, as there. The answer stays in
float, where the original rounds it to 8 bit (after the colour fix it cuts off, which darkens by half a grey level):
else the last digit of a sum, which differs from machine to machine, could move a pixel by a grey level. All noise is
given by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image

from baselines.seesr import colour, tiled_vae
from baselines.seesr.network import IMAGE_TOKENS, build_scheduler

CELL_PX = tiled_vae.FACTOR
NOISE_PER_STEP = 4  # channels of the latent
_SPREAD = 0.01  # of the Gaussian weights of latent tiles, in squares of a tile's side


@dataclass(frozen=True)
class Settings:
    """The published defaults of inference.

    ``process_px`` is the side below which answers are not made: a smaller LR is enlarged so that ``upscale`` brings its
    short side there. ``spacing`` is that of the times; ``tile_cells`` and ``overlap_cells`` are those of latent tiles,
    ``vae_encoder_px`` and ``vae_decoder_cells`` the autoencoder's.
    """

    steps: int = 50
    guidance: float = 5.5
    conditioning: float = 1.0
    start: str = "lr"
    start_step: int = 999
    process_px: int = 512
    align: str = "adain"
    tile_cells: int = 96
    overlap_cells: int = 4
    vae_encoder_px: int = 1024
    vae_decoder_cells: int = 224
    spacing: str = "leading"

    @property
    def noise_channels(self) -> int:
        """Channels of noise that one image takes: the start, the autoencoder's posterior, and one for each step."""
        return NOISE_PER_STEP * (self.steps + 2)


TURBO = Settings(steps=2, guidance=1.0, overlap_cells=32, spacing="trailing")
"""The published defaults of inference on SD-Turbo (``test_seesr_turbo.py``)."""


@dataclass(frozen=True)
class Networks:
    """All that inference runs, on one device in one dtype."""

    unet: Any
    controlnet: Any
    vae: Any
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Prompt:
    """Embeddings of the prompt and of the negative one, each float (1, 77, width), and image tokens (1, 145, 512)."""

    positive: torch.Tensor
    negative: torch.Tensor
    tokens: torch.Tensor


def work_size(lr: tuple[int, int], upscale: int, process_px: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) to which an LR image is first enlarged, and of the image that the networks see.

    The first is the LR's own size unless a side is below ``process_px // upscale``; the second is ``upscale`` times the
    first, rounded down to whole latent cells.
    """
    least = process_px // upscale
    if min(lr) < least:
        scale = least / min(lr)
        lr = (int(scale * lr[0]), int(scale * lr[1]))
    height, width = (max(CELL_PX, n * upscale // CELL_PX * CELL_PX) for n in lr)
    return lr, (height, width)


def condition_image(
    lr: np.ndarray, upscale: int, process_px: int, last: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """The enlarged LR that conditions the answer, from uint8 (h, w, 3); ``last`` is the kernel of the last resize."""
    enlarged, work = work_size(lr.shape[:2], upscale, process_px)
    image = Image.fromarray(lr)
    # Three resizes, as published: to the least size, by the factor, down to whole cells. Each rounds to 8 bit.
    bicubic = Image.Resampling.BICUBIC
    factor = (enlarged[0] * upscale, enlarged[1] * upscale)
    for (height, width), kernel in ((enlarged, bicubic), (factor, bicubic), (work, last)):
        if image.size != (width, height):
            image = image.resize((width, height), kernel)
    return image


@torch.no_grad()
def sample(
    condition: Image.Image, prompt: Prompt, noise: torch.Tensor, networks: Networks, settings: Settings
) -> np.ndarray:
    """One draw of the answer, float32 (H, W, 3) in [0, 1], of the size of its condition.

    Parameters
    ----------
    noise : standard normal, float32 (``settings.noise_channels``, H/8, W/8).
    """
    device, dtype = networks.device, networks.dtype
    rgb = torch.from_numpy(np.array(condition)).permute(2, 0, 1)[None].to(device, torch.float32) / 255
    drawn = noise[None].to(device).split(NOISE_PER_STEP, dim=1)
    scheduler = build_scheduler(settings.steps, settings.spacing)
    latent = drawn[0]
    if settings.start == "lr":
        moments = tiled_vae.encode(networks.vae, (rgb * 2 - 1).to(dtype), settings.vae_encoder_px).float()
        mean, log_variance = moments.chunk(2, dim=1)
        encoded = mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * drawn[1]
        encoded = encoded * networks.vae.config.scaling_factor
        latent = scheduler.add_noise(encoded, latent, torch.tensor([settings.start_step]))
    times = [int(t) for t in scheduler.timesteps if t <= settings.start_step]
    for i, t in enumerate(times):
        predicted = _noise(latent, t, rgb, prompt, networks, settings)
        latent = ddpm_step(scheduler, predicted, t, latent, drawn[2 + i])
    scaled = (latent / networks.vae.config.scaling_factor).to(dtype)
    decoded = tiled_vae.decode(networks.vae, scaled, settings.vae_decoder_cells)
    answer = (decoded.float() / 2 + 0.5).clamp(0, 1)
    if settings.align != "nofix":
        answer = {"adain": colour.adain, "wavelet": colour.wavelet}[settings.align](answer, rgb).clamp(0, 1)
    return answer[0].permute(1, 2, 0).cpu().numpy()


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 (H, W, 3) in [0, 1] to ``size`` = (height, width) by Pillow's bicubic, clipped."""
    bands = [
        Image.fromarray(np.ascontiguousarray(image[:, :, c])).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(band, np.float32) for band in bands], axis=2).clip(0, 1)


def ddpm_step(
    scheduler: DDPMScheduler, predicted: torch.Tensor, t: int, latent: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """x at the next time of the schedule (Ho et al., arXiv:2006.11239, eq. 6 and 7), with given noise.

    diffusers' own step draws its noise from a generator, whose state would depend on what was drawn before.
    """
    before = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    product = float(scheduler.alphas_cumprod[t])
    product_before = float(scheduler.alphas_cumprod[before]) if before >= 0 else 1.0
    alpha = product / product_before
    clean = (latent - math.sqrt(1 - product) * predicted) / math.sqrt(product)
    of_clean = math.sqrt(product_before) * (1 - alpha) / (1 - product)
    of_latent = math.sqrt(alpha) * (1 - product_before) / (1 - product)
    variance = max((1 - product_before) / (1 - product) * (1 - alpha), 1e-20)
    return of_clean * clean + of_latent * latent + (math.sqrt(variance) * noise if t > 0 else 0)


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where latent tiles begin along an axis: evenly, the last one moved back to end with the axis."""
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    return [min(i * (tile - overlap), length - tile) for i in range(count)]


def tile_weights(side: int) -> torch.Tensor:
    """Gaussian weights of a latent tile, float32 (side, side). The rows' centre is half a cell off, as published."""
    at = torch.arange(side, dtype=torch.float64) / side

    def bell(centre: float) -> torch.Tensor:
        return torch.exp(-((at - centre / side) ** 2) / (2 * _SPREAD))

    return torch.outer(bell(side / 2), bell((side - 1) / 2)).float()


def in_tiles(
    latent: torch.Tensor, tile_cells: int, overlap_cells: int, predict: Callable[[torch.Tensor, slice, slice], Any]
) -> torch.Tensor:
    """What ``predict`` says of a latent, in overlapping tiles with Gaussian weights where it is larger than one.

    ``predict`` is given cells of the latent, and the rows and columns that they are of it.
    """
    height, width = latent.shape[2:]
    if height * width <= tile_cells**2:
        return predict(latent, slice(0, height), slice(0, width))
    side = min(tile_cells, height, width)
    overlap = min(overlap_cells, side - 1)
    weights = tile_weights(side).to(latent.device)
    total, weight = torch.zeros_like(latent), torch.zeros_like(latent)
    for top in tile_starts(height, side, overlap):
        for left in tile_starts(width, side, overlap):
            rows, columns = slice(top, top + side), slice(left, left + side)
            total[..., rows, columns] += weights * predict(latent[..., rows, columns], rows, columns)
            weight[..., rows, columns] += weights
    return total / weight


def _noise(
    latent: torch.Tensor, t: int, rgb: torch.Tensor, prompt: Prompt, networks: Networks, settings: Settings
) -> torch.Tensor:
    """The guided noise, in tiles where the latent is larger than one."""

    def predict(part: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
        high, wide = (slice(s.start * CELL_PX, s.stop * CELL_PX) for s in (rows, columns))
        return _guided(part, t, rgb[..., high, wide], prompt, networks, settings)

    return in_tiles(latent, settings.tile_cells, settings.overlap_cells, predict)


def _guided(
    latent: torch.Tensor, t: int, rgb: torch.Tensor, prompt: Prompt, networks: Networks, settings: Settings
) -> torch.Tensor:
    """Noise predicted from the negative prompt and from the prompt, and the step beyond the latter."""
    guided = settings.guidance > 1
    text = torch.cat([prompt.negative, prompt.positive]) if guided else prompt.positive
    n = len(text)
    x, image = (v.to(networks.dtype).expand(n, -1, -1, -1) for v in (latent, rgb))
    text, tokens = text.to(networks.dtype), prompt.tokens.to(networks.dtype).expand(n, -1, -1)
    downs, middle = networks.controlnet(
        x, t, encoder_hidden_states=text, controlnet_cond=image, conditioning_scale=settings.conditioning,
        cross_attention_kwargs={IMAGE_TOKENS: tokens}, return_dict=False,
    )  # fmt: skip
    predicted = networks.unet(
        x, t, encoder_hidden_states=text, cross_attention_kwargs={IMAGE_TOKENS: tokens},
        down_block_additional_residuals=downs, mid_block_additional_residual=middle, return_dict=False,
    )[0].float()  # fmt: skip
    if not guided:
        return predicted
    negative, positive = predicted.chunk(2)
    return negative + settings.guidance * (positive - negative)
