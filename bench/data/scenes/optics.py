"""What the ground reflects: end-member spectra through the season, their mixture, fine texture, and sunlight."""

from __future__ import annotations

import numpy as np

from bench.data.scenes.fields import Array, noise, smooth
from bench.data.scenes.ground import HR_GSD_M, Ground, Layer

# Contrast of the 2-10 m texture, and surface reflectance in R, G, B, NIR: one spectrum, or early, peak and autumn.
_ENDMEMBERS: dict[str, tuple[float, tuple[tuple[float, ...], ...]]] = {
    "sedge": (0.055, ((0.080, 0.074, 0.050, 0.20), (0.058, 0.070, 0.041, 0.31), (0.080, 0.071, 0.044, 0.24))),
    "shrub": (0.11, ((0.050, 0.049, 0.036, 0.19), (0.035, 0.049, 0.029, 0.35), (0.060, 0.048, 0.032, 0.25))),
    "heath": (0.075, ((0.076, 0.069, 0.052, 0.17), (0.066, 0.066, 0.046, 0.23), (0.076, 0.064, 0.046, 0.20))),
    "lichen": (0.08, ((0.100, 0.092, 0.073, 0.21), (0.088, 0.085, 0.064, 0.23), (0.096, 0.086, 0.065, 0.22))),
    "gravel": (0.10, ((0.135, 0.122, 0.100, 0.190),)),
    "wet mud": (0.03, ((0.096, 0.091, 0.078, 0.160),)),
    "dry mud": (0.045, ((0.168, 0.151, 0.122, 0.250),)),
    "headwall": (0.12, ((0.032, 0.031, 0.027, 0.048),)),
    "ice": (0.08, ((0.300, 0.320, 0.330, 0.270),)),
    "shore": (0.06, ((0.120, 0.108, 0.084, 0.170),)),
    "clear water": (0.018, ((0.019, 0.027, 0.024, 0.010),)),
    "silty water": (0.012, ((0.074, 0.080, 0.063, 0.030),)),
}
_NAMES = tuple(_ENDMEMBERS)
SNOW = np.array((0.74, 0.75, 0.76, 0.68))


def mix(layers: list[Layer]) -> Array:
    """(K, rows, cols) end-member fractions, summing to 1, of layers painted one over the other."""
    fractions = np.zeros((len(_NAMES), *layers[0][1].shape))
    for name, weight in layers:
        fractions *= 1 - weight
        fractions[_NAMES.index(name)] += weight
    return fractions


def spectra_on(day: int, tint: Array) -> Array:
    """(K, 4) end-member reflectance on a day of the year: brown spring, green July, rusty autumn."""
    greening, senescence = 1 / (1 + np.exp((np.array((182, 238)) - day) / 6.0))
    stage = np.array((1 - greening, greening * (1 - senescence), greening * senescence))
    rows = (np.array(spectra) for _, spectra in _ENDMEMBERS.values())
    return np.stack([tint * (stage @ row) if len(row) == 3 else row[0] for row in rows])


def texture(fractions: Array, rng: np.random.Generator) -> Array:
    """(rows, cols, 4) factor near 1: fine texture whose contrast depends on the cover, partly other in NIR."""
    shape = (fractions.shape[1], fractions.shape[2])
    fine = noise(rng, shape, 0.6, outer_px=20, smooth_px=0.5)
    clumps = noise(rng, shape, 2.4, outer_px=9, smooth_px=0.9)
    contrast = np.einsum("k,krc->rc", np.array([grain for grain, _ in _ENDMEMBERS.values()]), fractions)
    visible = contrast * (0.35 * fine + 0.75 * clumps)
    infrared = 0.45 * visible + 0.5 * contrast * noise(rng, shape, 1.6, outer_px=12, smooth_px=0.6)
    return np.exp(np.stack((visible, 0.95 * visible, 0.9 * visible, infrared), axis=-1))


def illumination(ground: Ground, azimuth_rad: float, altitude_rad: float) -> Array:
    """Irradiance relative to level ground under a sun at `azimuth_rad` clockwise from north, which is up."""
    # The fractal is smoothed, as its pixel-scale roughness would look like bare rock; cuts are real steps.
    relief = 0.8 * smooth(ground.elevation_m, 4.0) + 0.2 * smooth(ground.elevation_m, 1.5)
    d_row, d_col = np.gradient(relief - smooth(ground.drop_m, 0.7), HR_GSD_M)
    towards_sun = d_row * np.cos(azimuth_rad) - d_col * np.sin(azimuth_rad)
    cosine = np.sin(altitude_rad) + np.cos(altitude_rad) * towards_sun
    direct = np.clip(cosine / np.sin(altitude_rad) / np.sqrt(1 + d_row**2 + d_col**2), 0.0, 1.8)
    return np.asarray(0.35 + 0.65 * direct)
