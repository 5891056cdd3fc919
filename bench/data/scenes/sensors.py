"""The two sensors: blur, sampling, spectral response, gains, haze, noise and digitisation.

`sense_hr` and `sense_lr` turn (rows, cols, 4) reflectance on the canvas into counts of the view. They also return
what they drew, because a benchmark of restoration wants to know the true degradation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.data.scenes.fields import Array, noise, view

Counts = NDArray[np.uint16]

BANDS = ("R", "G", "B", "NIR")
HR_SCALE = 5000  # counts per unit reflectance: 11 bits end at 0.41, above vegetation in NIR and below snow
LR_SCALE = 10000
HR_MAX, LR_MAX = 2047, 4095

# Rows: sensed band; columns: R, G, B, NIR of the ground; rows sum to 1. The HR bands are broad and overlap.
_HR_RESPONSE = np.array([[93, 5, 0, 2], [5, 90, 5, 0], [0, 8, 92, 0], [5, 0, 0, 95]]) / 100
_LR_RESPONSE = np.array([[98, 2, 0, 0], [1, 97, 2, 0], [0, 2, 98, 0], [0, 0, 0, 100]]) / 100
# Typical path reflectance; the LR product is not corrected for the atmosphere and looks bluer.
_HR_HAZE = np.array((0.002, 0.004, 0.007, 0.001))
_LR_HAZE = np.array((0.012, 0.019, 0.042, 0.003))


def apply_mtf(image: Array, sigma_px: float, sharpening: float = 0.0, shift_px: tuple[float, float] = (0, 0)) -> Array:
    """Gaussian point spread, unsharp masking (sigma 1 px) and shift (down, right) of (rows, cols, bands)."""
    from scipy import fft

    rows, cols = image.shape[:2]
    f_row, f_col = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(cols)[None, :]
    exponent = -2 * np.pi**2 * (f_row**2 + f_col**2)
    mtf = np.exp(exponent * sigma_px**2) * (1 + sharpening * (1 - np.exp(exponent)))
    transfer = mtf * np.exp(-2j * np.pi * (f_row * shift_px[0] + f_col * shift_px[1]))
    spectrum = fft.rfft2(image, axes=(0, 1)) * transfer[..., None]
    return np.asarray(fft.irfft2(spectrum, s=(rows, cols), axes=(0, 1)))


def _digitise(counts: Array, sigma: float, rng: np.random.Generator, top: int) -> Counts:
    """Add white noise, round, and saturate at `top`."""
    return np.clip(np.rint(counts + sigma * rng.standard_normal(counts.shape)), 0, top).astype(np.uint16)


def _per_band(name: str, values: Array) -> dict[str, float]:
    return {f"{name}_{band}": float(value) for band, value in zip(BANDS, values, strict=True)}


def sense_hr(radiance: Array, rng: np.random.Generator) -> tuple[Counts, dict[str, float]]:
    """(H, W, 4) counts of the high-resolution sensor from reflectance on the canvas, and what it drew."""
    sigma_px, sharpening = rng.normal(0.55, 0.03), rng.uniform(0.15, 0.45)
    gains, haze = 1 + rng.uniform(-0.03, 0.03, 4), _HR_HAZE * rng.uniform(0.3, 1.5)
    noise_counts = rng.uniform(2.5, 7.0)
    seen = view(apply_mtf(radiance, sigma_px, sharpening)) @ _HR_RESPONSE.T * gains + haze
    drawn = {"hr_psf_sigma_px": sigma_px, "hr_sharpening": sharpening, "hr_noise_counts": noise_counts}
    drawn |= _per_band("hr_gain", gains) | _per_band("hr_haze", haze)
    return _digitise(HR_SCALE * seen, noise_counts, rng, HR_MAX), drawn


def sense_lr(radiance: Array, factor: int, rng: np.random.Generator) -> tuple[Counts, dict[str, float]]:
    """(h, w, 4) DN of the low-resolution sensor from reflectance on the canvas, and what it drew."""
    sigma_px = rng.uniform(0.46, 0.58) * factor  # MTF 0.35 to 0.19 at the LR Nyquist frequency
    shift_row_px, shift_col_px = (float(shift) * factor for shift in rng.uniform(-0.3, 0.3, 2))
    gains, haze = 1 + rng.uniform(-0.04, 0.04, 4), _LR_HAZE * rng.uniform(0.5, 1.3)
    noise_dn = rng.uniform(20, 30)
    light = 1 + 0.03 * noise(rng, (radiance.shape[0], radiance.shape[1]), 4.0, outer_px=150, smooth_px=15)
    seen = view(apply_mtf(radiance * light[..., None], sigma_px, shift_px=(shift_row_px, shift_col_px)))
    height, width = seen.shape[0] // factor, seen.shape[1] // factor
    cells = seen.reshape(height, factor, width, factor, len(BANDS)).mean(axis=(1, 3))
    drawn = {"lr_psf_sigma_px": sigma_px, "lr_shift_row_px": shift_row_px, "lr_shift_col_px": shift_col_px}
    drawn |= {"lr_noise_dn": noise_dn} | _per_band("lr_gain", gains) | _per_band("lr_haze", haze)
    return _digitise(LR_SCALE * (cells @ _LR_RESPONSE.T * gains + haze), noise_dn, rng, LR_MAX), drawn
