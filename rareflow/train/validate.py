"""How a model does on the held-out scenes while it trains: numbers, and a sheet of pictures to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from rareflow.model import RareFlow
from rareflow.train.cache import Cache
from rareflow.train.chips import stream


def validate(model: RareFlow, cache: Cache, count: int, seed: int, u: float | None, sheet: Path) -> dict[str, float]:
    """Means over the first ``count`` chips of a sample's PSNR (dB), SSIM and gradient energy beside the HR's.

    The input is the cached LR on the HR grid. ``bicubic_psnr`` stands beside ``psnr`` for a yardstick. ``sheet`` gets
    a PNG of LR, sample and HR of the first chips.
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


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(float(np.square(a - b).mean()), 1e-10)))


def _gradient(image: np.ndarray) -> float:
    luma = image.mean(axis=2)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())
