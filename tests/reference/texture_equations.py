"""FSIM and NIQE written again from their papers and the constants of their authors' code, in float64."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import correlate
from scipy.special import gammaln

BLOCK_PX = 96


# --- FSIM: Zhang et al. 2011, with Kovesi's phase congruency ----------------------------------------------------------


def fsim(first: np.ndarray, second: np.ndarray, *, chromatic: bool = False, absolute: bool = True) -> float:
    """Eq. 5 (FSIM) or eq. 8 to 10 (FSIMc) of the TIP paper, for RGB (H, W, 3) in [0, 1].

    ``absolute`` raises the magnitude of a negative chromatic similarity to its power of 0.03, as the libraries do;
    otherwise it is the real part of the complex power, as in the authors' MATLAB code. The paper does not say.
    """
    factor = max(1, round(min(first.shape[:2]) / 256))
    yiq = [_yiq(_pooled(255.0 * x.astype(np.float64), factor)) for x in (first, second)]
    congruency = [phase_congruency(x[0]) for x in yiq]
    edges = [_scharr(x[0]) for x in yiq]
    similarity = _similar(*congruency, 0.85) * _similar(*edges, 160.0)
    if chromatic:
        chroma = _similar(yiq[0][1], yiq[1][1], 200.0) * _similar(yiq[0][2], yiq[1][2], 200.0)
        similarity = similarity * (np.abs(chroma) ** 0.03 if absolute else np.real(chroma.astype(complex) ** 0.03))
    weight = np.maximum(*congruency)
    return float((similarity * weight).sum() / weight.sum())


def _pooled(rgb: np.ndarray, factor: int) -> np.ndarray:
    height, width = (n // factor * factor for n in rgb.shape[:2])
    blocks = rgb[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return blocks.mean(axis=(1, 3))


def _yiq(rgb: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    return np.einsum("ij,hwj->ihw", matrix, rgb)


def _similar(a: np.ndarray, b: np.ndarray, constant: float) -> np.ndarray:
    return (2 * a * b + constant) / (a**2 + b**2 + constant)


def _scharr(luma: np.ndarray) -> np.ndarray:
    kernel = np.array([[3.0, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16
    return np.hypot(*(correlate(luma, k, mode="constant") for k in (kernel, kernel.T)))


def phase_congruency(luma: np.ndarray) -> np.ndarray:
    """Kovesi's PC_2: four scales (wavelengths 6, 12, 24, 48 px) by four orientations of log-Gabor filters."""
    height, width = luma.shape
    radius, theta = _frequencies(height, width)
    lowpass = 1 / (1 + (radius / 0.45) ** 30)
    radius[0, 0] = 1.0
    spectrum = np.fft.fft2(luma)
    energy_all, amplitude_all = np.zeros(luma.shape), np.zeros(luma.shape)
    for orientation in range(4):
        angle = orientation * math.pi / 4
        away = np.abs(np.angle(np.exp(1j * (theta - angle))))
        spread = np.exp(-(away**2) / (2 * (math.pi / 4 / 1.2) ** 2))
        responses, kernels = [], []
        for scale in range(4):
            log_gabor = np.exp(-(np.log(radius * 6 * 2**scale) ** 2) / (2 * math.log(0.55) ** 2)) * lowpass
            log_gabor[0, 0] = 0.0
            transfer = log_gabor * spread
            responses.append(np.fft.ifft2(spectrum * transfer))
            kernels.append(np.real(np.fft.ifft2(transfer)) * math.sqrt(height * width))
            if scale == 0:
                gain = (transfer**2).sum()
        total = sum(responses)
        unit = total / (np.abs(total) + np.finfo(np.float64).eps)
        turned = [r * np.conj(unit) for r in responses]  # real: along the mean phase; imaginary: across it
        energy = sum(t.real - np.abs(t.imag) for t in turned)
        noise = -_lower_median(np.abs(responses[0]) ** 2) / math.log(0.5) / gain
        squares = sum((k**2).sum() for k in kernels)
        products = sum((kernels[i] * kernels[j]).sum() for i in range(4) for j in range(i + 1, 4))
        tau = math.sqrt((2 * noise * squares + 4 * noise * products) / 2)
        threshold = (tau * math.sqrt(math.pi / 2) + 2.0 * math.sqrt((2 - math.pi / 2) * tau**2)) / 1.7
        energy_all += np.maximum(energy - threshold, 0)
        amplitude_all += sum(np.abs(r) for r in responses)
    return energy_all / amplitude_all


def _lower_median(values: np.ndarray) -> float:
    """Of an even number the lower of the two in the middle, which is torch's and so the libraries' median. MATLAB's is
    their mean, which moves FSIM by 4e-6 at 96x128 px and by 9e-4 at 8x8 px."""
    return float(np.sort(values, axis=None)[(values.size - 1) // 2])


def _frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Radius in cycles a pixel and angle from the rows' axis, as the libraries count it; zero frequency in the corner;
    odd sides reach 0.5 as in Kovesi's code."""
    axes = [np.fft.ifftshift((np.arange(n) - n // 2) / (n if n % 2 == 0 else n - 1)) for n in (height, width)]
    rows, columns = axes[0][:, None], axes[1][None, :]
    return np.hypot(rows, columns), np.arctan2(-columns, rows + 0 * columns)


# --- NIQE: Mittal et al. 2013, and the release's MATLAB files ---------------------------------------------------------


def niqe(display: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """Eq. 10 of the SPL paper (the paper's eq. 24) against the model N(mean, covariance) of 36 features."""
    blocks, _ = niqe_blocks(display)
    centre = blocks.mean(axis=0)
    own = np.cov(blocks, rowvar=False) if len(blocks) > 1 else np.zeros_like(covariance)
    return mahalanobis(mean, covariance, centre, own)


def mahalanobis(mean: np.ndarray, covariance: np.ndarray, other: np.ndarray, other_covariance: np.ndarray) -> float:
    """sqrt((m1 - m2)' ((S1 + S2) / 2)^+ (m1 - m2))."""
    values, vectors = np.linalg.eigh((covariance + other_covariance) / 2)
    kept = np.abs(values) > 36 * np.finfo(np.float64).eps * np.abs(values).max()
    along = vectors.T @ (np.ravel(mean) - other)
    return float(np.sqrt((along[kept] ** 2 / values[kept]).sum()))


def niqe_fit(displays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """``estimatemodelparam.m``: the blocks sharper than 0.75 of their image's sharpest, and one Gaussian for all."""
    chosen = []
    for display in displays:
        blocks, sharpness = niqe_blocks(display)
        chosen.append(blocks[sharpness > 0.75 * sharpness.max()])
    blocks = np.concatenate(chosen)
    return blocks.mean(axis=0), np.cov(blocks, rowvar=False)


def niqe_blocks(display: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 36 features of each 96x96 block at two scales, and its mean local deviation."""
    luma = np.round(255.0 * (display.astype(np.float64) @ np.array([0.299, 0.587, 0.114])))
    rows, columns = (n // BLOCK_PX for n in luma.shape)
    luma = luma[: rows * BLOCK_PX, : columns * BLOCK_PX]
    features, sharpness = [], []
    for scale in (1, 2):
        normalised, deviation = _normalised(luma)
        side = BLOCK_PX // scale
        at = [(i * side, j * side) for i in range(rows) for j in range(columns)]
        features.append([_block(normalised[i : i + side, j : j + side]) for i, j in at])
        if scale == 1:
            sharpness = [deviation[i : i + side, j : j + side].mean() for i, j in at]
            luma = halved(luma)
    return np.concatenate([np.array(f) for f in features], axis=1), np.array(sharpness)


def _normalised(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 1 to 3: (I - mu) / (sigma + 1) with a 7x7 Gaussian window of sigma 7/6; edges repeated."""
    at = np.arange(-3, 4)
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    mean = correlate(luma, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(luma**2, window, mode="nearest") - mean**2))
    return (luma - mean) / (deviation + 1), deviation


def _block(x: np.ndarray) -> list[float]:
    """Shape and mean scale of the block, and of its products with four shifted copies the fit of eq. 7 and its mean."""
    shape, left, right = _asymmetric(x)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _asymmetric(x * np.roll(x, shift, axis=(0, 1)))
        mean = (right - left) * math.exp(gammaln(2 / shape) - gammaln(1 / shape))
        features += [shape, mean, left, right]
    return features


_SHAPES = np.linspace(0.2, 10.0, 9801)
_RATIOS = np.exp(2 * gammaln(2 / _SHAPES) - gammaln(1 / _SHAPES) - gammaln(3 / _SHAPES))


def _asymmetric(x: np.ndarray) -> tuple[float, float, float]:
    """The asymmetric generalised Gaussian by its moments (Lasmar et al. 2009): shape, left and right scale."""
    left, right = (math.sqrt(np.mean(part**2)) for part in (x[x < 0], x[x > 0]))
    skew = left / right
    ratio = np.abs(x).mean() ** 2 / (x**2).mean() * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(_SHAPES[np.abs(_RATIOS - ratio).argmin()])
    scale = math.exp((gammaln(1 / shape) - gammaln(3 / shape)) / 2)
    return shape, left * scale, right * scale


def halved(image: np.ndarray) -> np.ndarray:
    """MATLAB's ``imresize(image, 0.5)``: bicubic (a = -0.5), widened to 8 px against aliasing, edges mirrored."""
    return _half(_half(image).T).T


def _half(image: np.ndarray) -> np.ndarray:
    length = image.shape[0]
    result = np.zeros((length // 2, image.shape[1]))
    for i in range(length // 2):
        centre = 2 * i + 0.5
        at = np.arange(math.floor(centre) - 4, math.floor(centre) + 6)
        weights = np.array([_cubic((centre - p) / 2) for p in at])
        mirrored = [p if 0 <= p < length else (-1 - p if p < 0 else 2 * length - 1 - p) for p in at]
        result[i] = (weights / weights.sum()) @ image[mirrored]
    return result


def _cubic(t: float) -> float:
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0
