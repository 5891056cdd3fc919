"""The metrics written again from their papers' equations: float64, slow, and without the code that they check.

Windows are cut one by one, transforms are written as sums, quantiles come from the standard library. Images are arrays
(H, W, 3) in [0, 1], stacks of bands (B, H, W), features (N, d).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np


def psnr(first: np.ndarray, second: np.ndarray, peak: float = 1.0) -> float:
    """10 log10(peak^2 / MSE), the mean over all pixels and channels together."""
    squares = math.fsum(float(d) ** 2 for d in (np.float64(first) - np.float64(second)).ravel())
    return 10.0 * math.log10(peak**2 * first.size / squares)


def cpsnr(prediction: np.ndarray, reference: np.ndarray) -> float:
    """PROBA-V's: the largest PSNR over shifts of up to 3 px of the reference, each band without its mean difference."""
    height, width, bands = prediction.shape
    errors = []
    for u in range(7):
        for v in range(7):
            total = []
            for b in range(bands):
                apart = [
                    float(reference[i + u, j + v, b]) - float(prediction[i + 3, j + 3, b])
                    for i in range(height - 6)
                    for j in range(width - 6)
                ]
                bias = math.fsum(apart) / len(apart)
                total += [(a - bias) ** 2 for a in apart]
            errors.append(math.fsum(total) / len(total))
    return -10 * math.log10(min(errors))


def luma_bt601(rgb: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601 in 16 ... 235 for RGB in [0, 1]: 16 + 219 (0.299 R + 0.587 G + 0.114 B)."""
    r, g, b = np.moveaxis(rgb.astype(np.float64), 2, 0)
    return 16.0 + 219.0 * (0.299 * r + 0.587 * g + 0.114 * b)


def _gauss(side: int, sigma: float) -> np.ndarray:
    at = np.arange(side) - (side - 1) / 2
    weights = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def _each_window(*images: np.ndarray, side: int = 11) -> list[tuple[np.ndarray, ...]]:
    height, width = images[0].shape
    places = [(i, j) for i in range(height - side + 1) for j in range(width - side + 1)]
    return [tuple(x[i : i + side, j : j + side] for x in images) for i, j in places]


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13 to 17: weighted moments of each whole 11x11 window, mean over windows and channels."""
    weights = _gauss(11, 1.5)
    c1, c2 = 0.01**2, 0.03**2
    found = []
    for channel in range(first.shape[2]):
        for x, y in _each_window(np.float64(first[:, :, channel]), np.float64(second[:, :, channel])):
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return math.fsum(found) / len(found)


def quality_index(first: np.ndarray, second: np.ndarray) -> float:
    """Wang and Bovik 2002, eq. 1, with a Gaussian window: 4 cov mx my / ((vx + vy)(mx^2 + my^2)), mean over windows."""
    weights = _gauss(11, 1.5)
    found = []
    for x, y in _each_window(first.astype(np.float64), second.astype(np.float64)):
        mx, my = (weights * x).sum(), (weights * y).sum()
        spread = (weights * (x - mx) ** 2).sum() + (weights * (y - my) ** 2).sum()
        found.append(4 * (weights * (x - mx) * (y - my)).sum() * mx * my / (spread * (mx**2 + my**2)))
    return math.fsum(found) / len(found)


def d_lambda(fused: np.ndarray, multispectral: np.ndarray) -> float:
    """Eq. 38: the mean over ordered pairs of bands of |Q(F_b, F_c) - Q(M_b, M_c)|."""
    pairs = [(b, c) for b in range(len(fused)) for c in range(len(fused)) if b != c]
    differences = [
        quality_index(fused[b], fused[c]) - quality_index(multispectral[b], multispectral[c]) for b, c in pairs
    ]
    return math.fsum(map(abs, differences)) / len(pairs)


def d_s(fused: np.ndarray, multispectral: np.ndarray, pan: np.ndarray) -> float:
    """Eq. 39: the mean over bands of |Q(grad F_b, grad P) - Q(grad M_b, grad P)|, grad the Sobel magnitude."""
    edges = sobel(pan)
    differences = [
        quality_index(sobel(f), edges) - quality_index(sobel(m), edges)
        for f, m in zip(fused, multispectral, strict=True)
    ]
    return math.fsum(map(abs, differences)) / len(fused)


def sobel(image: np.ndarray) -> np.ndarray:
    """The magnitude of Sobel's gradient, the outermost pixels repeated beyond the edges."""
    x = np.pad(image.astype(np.float64), 1, mode="symmetric")
    kernel = np.array([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
    down, across = np.zeros(image.shape), np.zeros(image.shape)
    for i in range(3):
        for j in range(3):
            part = x[i : i + image.shape[0], j : j + image.shape[1]]
            down += kernel[i, j] * part
            across += kernel[j, i] * part
    return np.sqrt(down**2 + across**2)


def sam(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over pixels of arccos(u.v / (|u| |v|)) in degrees, for spectra (N, bands) that are not zero."""
    angles = []
    for u, v in zip(first.astype(np.float64), second.astype(np.float64), strict=True):
        cosine = math.fsum(u * v) / math.sqrt(math.fsum(u * u) * math.fsum(v * v))
        angles.append(math.degrees(math.acos(min(1.0, cosine))))
    return math.fsum(angles) / len(angles)


def lab(rgb: np.ndarray) -> tuple[float, float, float]:
    """CIE Lab of one sRGB colour in [0, 1] (IEC 61966-2-1) for the white of D65, 2 degree observer (CIE 15)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in map(float, rgb)]
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290)
    x, y, z = (sum(m * c for m, c in zip(row, linear, strict=True)) / w for row, w in zip(matrix, white, strict=True))

    def f(t: float) -> float:
        return t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29

    return 116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z))


def ciede2000(first: Sequence[float], second: Sequence[float]) -> float:
    """Sharma, Wu, Dalal 2005, eq. 2 to 22 (the paper's eq. 28-34), of two Lab colours, kL = kC = kH = 1."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean_c = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(mean_c**7 / (mean_c**7 + 25**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1 = math.degrees(math.atan2(b1, a1)) % 360 if c1 else 0.0
    h2 = math.degrees(math.atan2(b2, a2)) % 360 if c2 else 0.0
    turn = h2 - h1
    if c1 * c2 == 0:
        turn, mean_h = 0.0, h1 + h2
    elif abs(turn) <= 180:
        mean_h = (h1 + h2) / 2
    else:
        mean_h = (h1 + h2 + (360 if h1 + h2 < 360 else -360)) / 2
        turn += 360 if turn < -180 else -360
    d_l, d_c = l2 - l1, c2 - c1
    d_h = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * math.cos(math.radians(mean_h - 30))
        + 0.24 * math.cos(math.radians(2 * mean_h))
        + 0.32 * math.cos(math.radians(3 * mean_h + 6))
        - 0.20 * math.cos(math.radians(4 * mean_h - 63))
    )
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / math.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    r_c = 2 * math.sqrt(mean_c**7 / (mean_c**7 + 25**7))
    r_t = -math.sin(math.radians(60 * math.exp(-(((mean_h - 275) / 25) ** 2)))) * r_c
    return math.sqrt((d_l / s_l) ** 2 + (d_c / s_c) ** 2 + (d_h / s_h) ** 2 + r_t * (d_c / s_c) * (d_h / s_h))


def de00(first: np.ndarray, second: np.ndarray) -> float:
    """The mean of CIEDE2000 over the pixels of two sRGB images."""
    pairs = zip(first.reshape(-1, 3), second.reshape(-1, 3), strict=True)
    return math.fsum(ciede2000(lab(a), lab(b)) for a, b in pairs) / (first.size // 3)


def nll_sum(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> float:
    """Eq. 35: the sum over samples of ln(2 pi sigma^2) / 2 + (y - mu)^2 / (2 sigma^2)."""
    terms = zip(y.ravel().tolist(), mu.ravel().tolist(), sigma.ravel().tolist(), strict=True)
    return math.fsum(0.5 * math.log(2 * math.pi * s * s) + (v - m) ** 2 / (2 * s * s) for v, m, s in terms)


def ece(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray, levels: Sequence[float]) -> float:
    """Eq. 36-37: the mean over levels of |share of y at or below the quantile - level|, weights 1 / M."""
    values = list(zip(y.ravel().tolist(), mu.ravel().tolist(), sigma.ravel().tolist(), strict=True))
    errors = []
    for level in levels:
        z = NormalDist().inv_cdf(level)
        errors.append(abs(sum(v <= m + s * z for v, m, s in values) / len(values) - level))
    return math.fsum(errors) / len(errors)


def crps(y: float, mu: float, sigma: float, steps: int = 20000) -> float:
    """The integral of (F(x) - 1[x >= y])^2 for F = N(mu, sigma^2), by the midpoint rule on both sides of y."""
    low, high = min(y, mu - 9 * sigma), max(y, mu + 9 * sigma)
    cdf = NormalDist(mu, sigma).cdf

    def midpoint(start: float, end: float, f: Callable[[float], float]) -> float:
        width = (end - start) / steps
        return width * math.fsum(f(start + (i + 0.5) * width) for i in range(steps))

    return midpoint(low, y, lambda x: cdf(x) ** 2) + midpoint(y, high, lambda x: (1 - cdf(x)) ** 2)


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Eq. 26: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), unbiased covariances.

    The root's trace is that of the symmetric (S1^(1/2) S2 S1^(1/2))^(1/2). Both covariances live in the span of the
    centred features; in more dimensions than that they are turned into it first.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    shift = float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum())
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    if a.shape[1] > len(a) + len(b):
        basis = np.linalg.qr(np.concatenate([a, b]).T)[0]
        a, b = a @ basis, b @ basis
    s1, s2 = a.T @ a / (len(a) - 1), b.T @ b / (len(b) - 1)
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s2 @ root), 0)).sum()
    return shift + float(np.trace(s1) + np.trace(s2) - 2 * cross)


def kid(first: np.ndarray, second: np.ndarray) -> float:
    """Binkowski et al. 2018, section 4: the unbiased squared MMD with the kernel (x.y / d + 1)^3, pair by pair."""

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        return (math.fsum(p * q) / len(p) + 1.0) ** 3

    x, y = first.astype(np.float64), second.astype(np.float64)
    n, m = len(x), len(y)
    xx = math.fsum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = math.fsum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * math.fsum(kernel(p, q) for p in x for q in y) / (n * m)


def log_spectra(image: np.ndarray) -> np.ndarray:
    """Of each channel the logarithm of the power of each ring; the transform as two matrix products."""
    height, width = image.shape[:2]
    side = min(height, width)
    columns = [0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n) for n in (height, width)]
    window = columns[0][:, None] * columns[1][None, :]
    waves = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / math.sqrt(n) for n in (height, width)]
    rings: dict[int, list[tuple[int, int]]] = {}
    for i in range(height):
        for j in range(width):
            fy, fx = min(i, height - i) / height, min(j, width - j) / width
            rings.setdefault(round(math.hypot(fy, fx) * side), []).append((i, j))
    floor = (1 / 255) ** 2 / 12 * (window**2).mean()

    def spectrum(channel: np.ndarray) -> list[float]:
        x = (channel - channel.mean()) * window
        power = np.abs(waves[0] @ x @ waves[1]) ** 2
        return [math.log(np.mean([power[p] for p in rings[k]]) + floor) for k in range(1, side // 2 + 1)]

    return np.array([spectrum(image[:, :, c].astype(np.float64)) for c in range(image.shape[2])])


def logspec_l1(first: np.ndarray, second: np.ndarray) -> float:
    """The definition of ``logspec_l1``, its rings frequency by frequency."""
    differences = np.abs(log_spectra(first) - log_spectra(second)).ravel().tolist()
    return math.fsum(differences) / len(differences)


def lab_statistics(display: np.ndarray) -> np.ndarray:
    """Mean and deviation of L, a and b over the pixels of an sRGB image."""
    colours = np.array([lab(pixel) for pixel in display.reshape(-1, 3)])
    return np.concatenate([colours.mean(axis=0), np.sqrt(((colours - colours.mean(axis=0)) ** 2).mean(axis=0))])


def way(start: np.ndarray, found: np.ndarray, end: np.ndarray) -> float:
    """The t for which start + t (end - start) is nearest to ``found``, where the derivative of the distance is zero."""
    pairs = list(zip(start.ravel(), found.ravel(), end.ravel(), strict=True))
    return math.fsum((f - s) * (e - s) for s, f, e in pairs) / math.fsum((e - s) ** 2 for s, _, e in pairs)


def comb(luma: np.ndarray) -> float:
    """The strongest comb of steps, period by period, offset by offset and line by line."""
    best = -math.inf
    for image in (luma.astype(np.float64), luma.astype(np.float64).T):
        n = image.shape[1] - 1
        steps = [math.fsum(abs(row[c + 1] - row[c]) for row in image) / len(image) for c in range(n)]
        mirrored = [abs(i) if i < n else 2 * (n - 1) - i for i in range(-4, n + 4)]
        around = [[steps[mirrored[c + 4 + d]] for d in range(-4, 5) if d] for c in range(n)]
        excess = [s - float(np.median(a)) for s, a in zip(steps, around, strict=True)]
        middle = float(np.median(excess))
        deviation = 1.4826 * float(np.median([abs(e - middle) for e in excess]))
        for period in range(8, n // 3 + 1):
            for offset in range(period):
                lines = excess[offset::period]
                if len(lines) >= 3:
                    best = max(best, (math.fsum(lines) - max(lines)) / deviation / math.sqrt(len(lines) - 1))
    return best
