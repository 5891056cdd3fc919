"""Numerical tools: random streams, and scalar fields on the canvas, which is the view with a margin around it.

A field is a float64 array (rows, cols) with one value per HR pixel. Rows run down and columns to the right; a
direction is an angle in radians, 0 towards larger columns and pi/2 towards larger rows.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shape = tuple[int, int]

MARGIN_PX = 20  # ground simulated around the view, so that blur, shift and wrap-around stay outside it


def random_stream(seed: int, scene_id: str, purpose: str) -> np.random.Generator:
    """The generator of one purpose: its stream does not depend on what else was drawn, or in which order."""
    digest = hashlib.blake2b(f"{seed}/{scene_id}/{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def view(image: Array) -> Array:
    """A canvas (rows, cols, ...) without its margin."""
    return image[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]


def step(x: Array, width: float) -> Array:
    """Soft threshold: 0 far below zero, 1 far above it."""
    from scipy.special import expit

    return np.asarray(expit(x / width))


def bell(x: Array, width: float) -> Array:
    """1 at zero, falling to 1/e at `width` on both sides."""
    return np.asarray(np.exp(-((x / width) ** 2)))


def smooth(values: Array, sigma_px: float) -> Array:
    """Gaussian low pass."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, sigma_px, mode="nearest", truncate=3.0))


def resample(values: Array, rows: Array, cols: Array) -> Array:
    """Values at fractional rows and columns, linear between the pixels."""
    from scipy.ndimage import map_coordinates

    return np.asarray(map_coordinates(values, (rows, cols), order=1, mode="reflect"))


def frame(shape: Shape, row: float, col: float, direction_rad: float) -> tuple[Array, Array]:
    """Coordinates in px along and across a direction, from an origin at (row, col)."""
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    sin, cos = np.sin(direction_rad), np.cos(direction_rad)
    return (rows - row) * sin + (cols - col) * cos, (cols - col) * sin - (rows - row) * cos


def noise(
    rng: np.random.Generator,
    shape: Shape,
    spectral_slope: float,
    *,
    outer_px: float,
    smooth_px: float = 0.0,
    stretch: float = 1.0,
    along_rad: float = 0.0,
) -> Array:
    """Gaussian noise of zero mean and unit variance, with power ~ frequency**-spectral_slope.

    The power levels off above the wavelength `outer_px`; `smooth_px` is the sigma of a Gaussian low pass; `stretch`
    elongates the pattern along the direction `along_rad`.
    """
    from scipy import fft

    # An eighth larger than needed: the field is periodic, and the canvas must not show its repetition.
    rows, cols = (fft.next_fast_len(n + n // 8, real=True) for n in shape)
    f_row, f_col = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(cols)[None, :]
    f_along = f_col * np.cos(along_rad) + f_row * np.sin(along_rad)
    f_across = f_row * np.cos(along_rad) - f_col * np.sin(along_rad)
    square = (f_along * stretch) ** 2 + f_across**2
    amplitude = (square + outer_px**-2.0) ** (-spectral_slope / 4)
    amplitude *= np.exp(-2 * (np.pi * smooth_px) ** 2 * square)
    amplitude[0, 0] = 0.0
    spectrum = fft.rfft2(rng.standard_normal((rows, cols))) * amplitude
    values = fft.irfft2(spectrum, s=(rows, cols))[: shape[0], : shape[1]]
    return np.asarray((values - values.mean()) / values.std())


def line_distance(values: Array, floor: float = 0.25) -> Array:
    """Approximate distance in px to the zero line of a smooth field, signed like the field."""
    steepness = np.hypot(*np.gradient(values))
    return np.asarray(values / np.hypot(steepness, floor * steepness.mean()))
