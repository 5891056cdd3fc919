"""How a model does on the held-out scenes while it trains: numbers, and a sheet of pictures to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from rareflow.flow import add_noise
from rareflow.losses import velocity_loss
from rareflow.model import RareFlow
from rareflow.noise import normal
from rareflow.train.cache import Cache, Item
from rareflow.train.chips import stream

_LEVELS = (0.125, 0.375, 0.625, 0.875)


def validate(model: RareFlow, cache: Cache, count: int, seed: int, u: float | None, sheet: Path) -> dict[str, float]:
    """Means over the first ``count`` chips of the velocity loss, and of a sample's PSNR (dB), SSIM and gradient energy
    beside the HR's.

    The loss is that of eq. 8 as ``inv_sigma`` has it, at four noise levels; it tells models apart that samples cannot,
    since these trade PSNR against detail. The input is the cached LR on the HR grid. ``bicubic_psnr`` stands beside
    ``psnr`` for a yardstick. ``sheet`` gets a PNG of LR, sample and HR of the first chips.
    """
    rows: list[np.ndarray] = []
    numbers: list[dict[str, float]] = []
    for item in cache.items[:count]:
        up, hr = (cache.images([item], kind, 0, 0, item.bucket)[0].permute(1, 2, 0).numpy() for kind in ("up", "hr"))
        up, hr = (image[: item.valid[0], : item.valid[1]] for image in (up, hr))
        image_seed = int(stream(seed, "validation", item.chip.id).integers(2**62))
        result = model.upscale(
            up[None], item.valid, captions=[item.chip.caption if model.config.text.captions else ""],
            seeds=[(image_seed,)], u=u,
        )  # fmt: skip
        sample = result.samples[0, 0]
        numbers.append(
            {
                "loss": _loss(model, cache, item, image_seed, float(result.u[0])),
                "psnr": _psnr(sample, hr),
                "bicubic_psnr": _psnr(up, hr),
                "ssim": float(structural_similarity(sample, hr, channel_axis=2, data_range=1.0)),
                "gradient": _gradient(sample) / max(_gradient(hr), 1e-9),
                "u": float(result.u[0]),
            }
        )
        if len(rows) < 6:
            side = min(item.valid[0], item.valid[1], 256)
            rows.append(np.concatenate([i[:side, :side] for i in (up, sample, hr)], axis=1))
    width = max(r.shape[1] for r in rows)
    page = np.concatenate([np.pad(r, ((0, 2), (0, width - r.shape[1]), (0, 0))) for r in rows])
    sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((page * 255).round().astype(np.uint8)).save(sheet)
    return {key: float(np.mean([n[key] for n in numbers])) for key in numbers[0]}


def _loss(model: RareFlow, cache: Cache, item: Item, seed: int, u: float) -> float:
    """The mean velocity loss of a chip over ``_LEVELS``, its noise drawn by name."""
    factor, n = model.codec.factor, len(_LEVELS)
    cells = item.bucket[0] // factor, item.bucket[1] // factor
    z0, x = (cache.latents([item], k, 0, 0, cells).expand(n, -1, -1, -1).to(model.device) for k in ("z0", "x"))
    eps = torch.cat([normal([seed], tuple(z0.shape[1:]), "held out", level) for level in _LEVELS]).to(model.device)
    sigma = torch.tensor(_LEVELS, device=model.device)
    caption = item.chip.caption if model.config.text.captions else ""
    tokens, pooled = (t.to(model.device, model.dtype) for t in model.captions.get([caption] * n))
    noisy = add_noise(z0, eps, sigma).to(model.dtype)
    with torch.no_grad():
        v = model.field.velocity(noisy, sigma, x.to(model.dtype), tokens, pooled, torch.full_like(sigma, u))
    inside = [slice(0, -(-side // factor)) for side in item.valid]
    v, z0, eps = (t[:, :, inside[0], inside[1]] for t in (v, z0, eps))
    return float(velocity_loss(v.float(), z0, eps, sigma).mean())


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(float(np.square(a - b).mean()), 1e-10)))


def _gradient(image: np.ndarray) -> float:
    luma = image.mean(axis=2)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())
