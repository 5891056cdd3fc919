"""opensr-test's measures, slowly and in float64 from their definitions, without anyone's resampling or correlation.

Images are (C, H, W) in reflectance, without borders.
"""

from __future__ import annotations

import cmath
import math

import numpy as np

LAMBDA, TEMPERATURE = 0.05, 0.25


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Both axes by ``weights``."""
    rows, columns = (weights(n, m) for n, m in zip(image.shape[1:], size, strict=True))
    return np.stack([rows @ band @ columns.T for band in image.astype(np.float64)])


def weights(source: int, target: int) -> np.ndarray:
    """(target, source): a triangle as wide as the larger of both pixels around each new pixel's middle, sum 1."""
    found, step = np.zeros((target, source)), source / target
    for i in range(target):
        middle = (i + 0.5) * step - 0.5
        for j in range(source):
            found[i, j] = max(0.0, 1.0 - abs(j - middle) / max(step, 1.0))
    return found / found.sum(axis=1, keepdims=True)


def consistency(lr: np.ndarray, sr: np.ndarray) -> dict[str, float]:
    """Difference, angle in degrees, and length of the shift."""
    lr = lr.astype(np.float64)
    down = bilinear(sr, (lr.shape[1], lr.shape[2]))
    angles = []
    for r in range(lr.shape[1]):
        for c in range(lr.shape[2]):
            u, v = lr[:, r, c], down[:, r, c]
            angles.append(math.degrees(math.acos(min(1.0, (u @ v) / math.sqrt((u @ u) * (v @ v))))))
    return {
        "reflectance": float(np.abs(lr - down).mean()),
        "spectral": math.fsum(angles) / len(angles),
        "spatial": math.hypot(*shift(down[:3].mean(axis=0), lr[:3].mean(axis=0))),
    }


def shift(moving: np.ndarray, fixed: np.ndarray) -> tuple[float, float]:
    """The fiftieth of a pixel at which the whitened cross-correlation is largest, near its largest whole pixel."""
    spectrum = np.fft.fft2(fixed) * np.fft.fft2(moving).conj()
    spectrum /= np.maximum(np.abs(spectrum), 100 * np.finfo(np.float64).eps)
    whole = np.unravel_index(np.argmax(np.abs(np.fft.ifft2(spectrum))), spectrum.shape)
    start = [w - n if w > n // 2 else w for w, n in zip(whole, spectrum.shape, strict=True)]
    waves = [[cmath.exp(2j * math.pi * f) for f in np.fft.fftfreq(n)] for n in spectrum.shape]
    best = (-1.0, 0.0, 0.0)
    columns = {b: np.array([cmath.exp(cmath.log(w) * b / 50) for w in waves[1]])
               for b in range(50 * int(start[1]) - 37, 50 * int(start[1]) + 38)}  # fmt: skip
    for a in range(50 * int(start[0]) - 37, 50 * int(start[0]) + 38):
        rows = np.array([cmath.exp(cmath.log(w) * a / 50) for w in waves[0]]) @ spectrum
        for b, wave in columns.items():
            best = max(best, (abs(rows @ wave), a / 50, b / 50), key=lambda found: found[0])
    return best[1], best[2]


def matched(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Each value becomes the other image's value of the same rank; between ranks by straight lines."""
    bands = []
    for band, other in zip(image, like, strict=True):
        ordered = np.sort(other.ravel())
        below = np.searchsorted(np.sort(band.ravel()), band.ravel(), side="right") / band.size
        ranks = np.arange(1, ordered.size + 1) / ordered.size
        kept = np.append(np.diff(ordered) > 0, True)  # of equal values the last, which has their rank
        bands.append(np.interp(below, ranks[kept], ordered[kept]).reshape(band.shape))
    return np.stack(bands)


def moved(image: np.ndarray, by: tuple[float, float]) -> np.ndarray:
    """Down and to the right, between pixels by straight lines, edges repeated."""
    axes = [np.clip(np.arange(n) - step, 0, n - 1) for n, step in zip(image.shape[1:], by, strict=True)]
    parts = [(at.astype(int), np.minimum(at.astype(int) + 1, len(at) - 1), at - at.astype(int)) for at in axes]
    (top, bottom, down), (left, right, along) = parts
    rows = image[:, top] * (1 - down)[:, None] + image[:, bottom] * down[:, None]
    return rows[:, :, left] * (1 - along) + rows[:, :, right] * along


def fitted(image: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Each band by the gain and offset that bring it to LR; thrice, without what lies beyond three deviations."""
    small = bilinear(image, (low.shape[1], low.shape[2]))
    bands = []
    for band, x, y in zip(image.astype(np.float64), small, low.astype(np.float64), strict=True):
        pairs = list(zip(x.ravel(), y.ravel(), strict=True))
        kept = pairs
        for _ in range(3):
            gain, offset = np.polyfit(*zip(*kept, strict=True), 1)
            off = [abs(b - gain * a - offset) for a, b in pairs]
            limit = 3 * 1.4826 * float(np.median(off))
            kept = [pair for pair, apart in zip(pairs, off, strict=True) if apart <= limit]
        bands.append(gain * band + offset)
    return np.stack(bands)


def correctness(lr: np.ndarray, sr: np.ndarray, hr: np.ndarray, *, is_hr_fitted: bool) -> dict[str, float]:
    """Synthesis, and the mean memberships of the counted pixels."""
    hr, sr = hr.astype(np.float64), sr.astype(np.float64)
    up = bilinear(lr, (hr.shape[1], hr.shape[2]))
    if is_hr_fitted:
        hr = fitted(hr, lr)
    else:
        sr = matched(sr, hr)
    sr = moved(sr, shift(sr.mean(axis=0), hr.mean(axis=0)))

    def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.mean(np.abs(x - y) / np.abs(x + y + 1e-8), axis=0).ravel()

    known = sorted(apart(up, hr))
    threshold = known[int(0.75 * len(known)) - 1]
    shares = []
    for ref, im, om in zip(apart(up, hr), apart(sr, hr), apart(sr, up), strict=True):
        if ref > threshold or (not is_hr_fitted and max(im, om) > threshold):
            a, b = im / ref, om / ref
            bend = 1 - math.exp(-LAMBDA * (a + b - 1))
            near = [math.exp(-d / TEMPERATURE) for d in (a + b * bend, b + a * bend, math.exp(-LAMBDA * a * b))]
            shares.append([n / sum(near) for n in near])
    means = np.mean(shares, axis=0)
    names = ("improvement", "omission", "hallucination")
    return {"synthesis": float(np.abs(up - sr).mean())} | dict(zip(names, means.tolist(), strict=True))
