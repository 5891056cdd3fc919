"""How near an image is to its reference, pixel by pixel or window by window: PSNR, SSIM, FSIM."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.core.errors import Unavailable
from bench.core.image import Array
from bench.metrics import kernels
from bench.metrics.base import Estimate, Library, Metric, Reference, Score
from bench.metrics.networks import as_tensor, inference, quietly
from bench.metrics.software import PYIQA, SKIMAGE, TORCH

if TYPE_CHECKING:
    import torch

IDENTICAL_DB = 100.0
"""PSNR of identical images, by definition; larger values, possible on large images, are cut to it."""

_SHIFT_PX = 3  # of PROBA-V's search
_WINDOW, _R = 11, 5  # what skimage makes of sigma 1.5 cut at 3.5 sigma, and its radius


def _display(reference: Reference) -> Array:
    assert reference.display is not None  # ``needs`` says so
    return reference.display


class PsnrRgb(Metric):
    """Peak signal-to-noise ratio over all pixels and the three channels together, peak 1.

    ``10 log10(1 / MSE)`` in dB, as ``skimage.metrics.peak_signal_noise_ratio`` has it; more is better. A set's value is
    the mean of the images' dB, not the dB of the mean MSE. Identical images would be infinite and are 100 dB;
    so is everything above, which only images of more than 0.1 megapixel that differ in one grey level of one
    pixel reach.

    Traps: PSNR of the luma (``psnr_y``) is 1 to 30 dB higher on the same pair.
    """

    name = "psnr_rgb"
    title = "PSNR"
    decimals = 2
    default = 1
    unit = "dB"
    direction = "up"
    group = "fidelity"
    masks = True
    package = "torch"
    software = (TORCH,)
    library = Library("skimage", SKIMAGE, 1e-9)
    revision = 2
    parameters = ("rgb", "peak1", "cap100")
    summary = "Peak signal-to-noise ratio of RGB"
    equation = "10 log10(1 / MSE), MSE = mean over pixels and channels of (x - y)^2"
    bounds = (0.0, IDENTICAL_DB)
    perfect = IDENTICAL_DB
    symmetric = True

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The PSNR of the valid pixels."""
        display = _display(reference)
        if self.exact is not None:
            return _psnr(reference.pixels(display), reference.pixels(estimate.display))
        with inference():
            ours, theirs = kernels.seen(estimate, reference, self.setting.device)
            error = kernels.mean((ours - theirs).square_())
        return IDENTICAL_DB if error == 0.0 else min(-10.0 * math.log10(error), IDENTICAL_DB)


class PsnrY(Metric):
    """PSNR of the luma as super-resolution papers report it: Y of BT.601, 16 to 235, against a peak of 255.

    ``Y = 16 + 65.481 R + 128.553 G + 24.966 B`` for RGB in [0, 1] (MATLAB's ``rgb2ycbcr`` of doubles), not
    rounded, as in EDSR, BasicSR and SwinIR. Identical images are 100 dB, as for ``psnr_rgb``.

    Traps: three definitions are in use. On pair I06 of pyiqa's calibration set this one gives 57.88 dB. The same
    with Y rounded to 8 bit (``rgb2ycbcr`` of a uint8 image) is infinite there. Luma of full range, 0 to 255,
    gives 56.56 dB, always 20 log10(255/219) = 1.32 dB less; the 56.54 dB of pyiqa's ``psnry`` are that
    with its 1e-8 added to the error.
    """

    name = "psnr_y"
    title = "PSNR-Y"
    decimals = 2
    unit = "dB"
    direction = "up"
    group = "fidelity"
    masks = True
    package = "skimage"
    software = (SKIMAGE,)
    parameters = ("bt601y16-235", "peak255", "cap100")
    summary = "Peak signal-to-noise ratio of the luma (BT.601, 16 to 235)"
    equation = "10 log10(255^2 / MSE), MSE = mean over pixels of (Y(x) - Y(y))^2"
    bounds = (0.0, IDENTICAL_DB)
    perfect = IDENTICAL_DB
    symmetric = True

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The PSNR of the valid pixels' luma."""
        return _psnr(_luma(reference.pixels(_display(reference))), _luma(reference.pixels(estimate.display)))


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Y of BT.601 (16 to 235) over 255, in double precision."""
    return (16.0 + rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966])) / 255.0


def _psnr(true: np.ndarray, test: np.ndarray) -> float:
    from skimage.metrics import peak_signal_noise_ratio

    true, test = true.astype(np.float64), test.astype(np.float64)
    if np.array_equal(true, test):
        return IDENTICAL_DB
    return min(float(peak_signal_noise_ratio(true, test, data_range=1.0)), IDENTICAL_DB)


class Cpsnr(Metric):
    """PSNR as the PROBA-V challenge counts it: at the best whole-pixel shift up to 3 px, without the mean difference.

    In reflectance, over the bands that prediction and reference share, so that one band is enough: 3 px are cut from
    every side of the prediction, the reference is cut at each of the 49 places that this leaves, the mean difference of
    each band over the pixels with data is taken from the prediction, and the smallest mean square error of all places
    counts, against a peak of 1. Identical images are 100 dB.

    Source: M. Märtens, D. Izzo, A. Krzic, D. Cox, Astrodynamics 3, 2019, doi:10.1007/s42064-019-0059-8, eq. 3 to 6.

    Traps: the challenge's values are of 16-bit numbers over 65535, so its peak is that and its dB are others, by
    20 log10 of the ratio of both peaks; its score is each image's over a baseline's. A sub-pixel shift stays an error,
    which ``psnr_rgb_reg`` takes out.
    """

    name = "cpsnr"
    title = "cPSNR"
    decimals = 2
    unit = "dB"
    direction = "up"
    group = "fidelity"
    display = False
    needs = ("reference", "reflectance")
    masks = True
    min_side_px = 2 * _SHIFT_PX + 1
    parameters = ("refl", "sharedbands", "shift3px", "bias", "peak1", "cap100")
    summary = "PSNR of reflectance at the best shift, without bias (PROBA-V)"
    equation = "max over shifts of -10 log10 mean (HR - SR - b)^2, b = mean (HR - SR) of each band"
    bounds = (-math.inf, IDENTICAL_DB)
    perfect = IDENTICAL_DB
    symmetric = False  # the borders of two images are not cut alike
    citation = "martens2019probav"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> Score:
        """The number, with the shift and what the mean difference was."""
        assert estimate.image is not None and reference.hr is not None
        ours, theirs = estimate.image, reference.hr
        bands = tuple(b for b in theirs.bands if b in ours.bands and b != "PAN")
        if not bands:
            raise Unavailable("prediction and reference share no band")
        valid = reference.valid & ours.valid & theirs.valid
        found = corrected_error(ours.select(bands).values, theirs.select(bands).values, valid)
        if found is None:
            raise Unavailable("no pixel with data is left at any shift")
        error, shift, bias = found
        value = IDENTICAL_DB if error == 0.0 else min(-10.0 * math.log10(error), IDENTICAL_DB)
        return Score(value, note=f"at a shift of {shift[0]:+d}, {shift[1]:+d} px; mean difference {bias:+.4f}")


def corrected_error(
    prediction: np.ndarray, reference: np.ndarray, valid: np.ndarray
) -> tuple[float, tuple[int, int], float] | None:
    """The smallest mean square error of two images (H, W, C) over whole-pixel shifts, each without its mean difference
    in each band; the shift, down and to the right, of the reference; and the mean difference there. None where no place
    has a pixel with data."""
    d = _SHIFT_PX
    inner = prediction[d:-d, d:-d].astype(np.float64)
    best = None
    for down in range(2 * d + 1):
        for right in range(2 * d + 1):
            where = np.s_[down : down + inner.shape[0], right : right + inner.shape[1]]
            kept = valid[where] & valid[d:-d, d:-d]
            if not kept.any():
                continue
            difference = (reference[where].astype(np.float64) - inner)[kept]
            bias = difference.mean(axis=0)
            error = float(((difference - bias) ** 2).mean())
            if best is None or error < best[0]:
                best = error, (down - d, right - d), float(bias.mean())
    return best


class SsimRgb(Metric):
    """Structural similarity (Wang et al. 2004), each channel on its own, then averaged; 1 is identical.

    As ``skimage.metrics.structural_similarity`` with the settings of the paper: Gaussian window 11x11 of sigma 1.5,
    population covariance, K1 = 0.01, K2 = 0.03, data range 1; mean over the windows that lie wholly in the image
    and, where pixels have no data, wholly on valid ones. Computed in double precision. Range -1 to 1.

    Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, IEEE TIP 13(4), 2004, doi:10.1109/TIP.2003.819861.

    Traps: skimage's defaults (7x7 uniform window, sample covariance) give another number, 0.641 for 0.673 on one
    pair; luma instead of RGB another (0.735); MATLAB's ``ssim.m`` halves images of 384 px and more first.
    """

    name = "ssim_rgb"
    title = "SSIM"
    decimals = 3
    default = 2
    direction = "up"
    group = "fidelity"
    masks = True
    min_side_px = _WINDOW
    package = "torch"
    software = (TORCH,)
    library = Library("skimage", SKIMAGE, 1e-9)
    revision = 2
    parameters = ("gauss11,1.5", "popcov", "range1")
    summary = "Structural similarity of RGB, Gaussian window"
    equation = (
        "(2 m_x m_y + C1)(2 c_xy + C2) / ((m_x^2 + m_y^2 + C1)(v_x + v_y + C2)), C1 = 0.01^2, C2 = 0.03^2, "
        "mean over windows"
    )
    bounds = (-1.0, 1.0)
    perfect = 1.0
    symmetric = True
    citation = "wang2004ssim"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The mean of the SSIM map over its whole windows."""
        whole = None if reference.valid.all() else _whole_windows(reference.valid)
        if whole is not None and not whole.any():
            raise Unavailable(f"no window of {_WINDOW}x{_WINDOW} px without missing pixels")
        if self.exact is not None:
            return _ssim_by_skimage(_display(reference), estimate.display, whole)
        with inference():
            ours = kernels.image_of(estimate.cache, estimate.display, self.setting.device)
            theirs = kernels.image_of(reference.cache, _display(reference), self.setting.device)
            found = kernels.ssim_map(ours, theirs, state)
            if whole is not None:
                found = kernels.valid_pixels(found, whole)
            return kernels.mean(found)

    def reference_state(self, reference: Reference) -> kernels.Moments | None:
        """The reference's side of every window."""
        if self.exact is not None:
            return None
        with inference():
            return kernels.ssim_side(kernels.image_of(reference.cache, _display(reference), self.setting.device))


def _ssim_by_skimage(true: Array, test: Array, whole: np.ndarray | None) -> float:
    from skimage.metrics import structural_similarity

    mean, image = structural_similarity(
        true.astype(np.float64),
        test.astype(np.float64),
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(mean) if whole is None else float(image[_R:-_R, _R:-_R][whole].mean())


def _whole_windows(valid: np.ndarray) -> np.ndarray:
    """Which windows hold valid pixels alone, (H - 10, W - 10)."""
    from scipy.ndimage import minimum_filter

    found = minimum_filter(valid.astype(np.uint8), size=_WINDOW, mode="constant", cval=0)
    return np.asarray(found[_R:-_R, _R:-_R], bool)


class Fsim(Metric):
    """Feature similarity of the luma: phase congruency and gradients (Zhang et al. 2011); 1 is identical.

    Luma is Y of YIQ in [0, 255], sides of 384 px and more are average-pooled by round(side / 256), four scales and four
    orientations of log-Gabor filters, in single precision as pyiqa's ``fsim`` with ``chromatic=False``. Meets the
    authors' MATLAB value on grey pictures to 1e-5. Range 0 to 1 in practice. Two flat images have no feature to weigh,
    0/0: equal ones are 1, and others are a reason (what pyiqa gives for them, 0.45 to 1, is made of rounding and of the
    image's border).

    Source: L. Zhang, L. Zhang, X. Mou, D. Zhang, IEEE TIP 20(8), 2011, doi:10.1109/TIP.2011.2109730, eq. 5.

    Traps: pyiqa's own default is FSIMc (``fsimc`` here), which on one pair is 0.993 where FSIM is 0.9999.
    """

    name = "fsim"
    title = "FSIM"
    decimals = 3
    default: ClassVar[int | None] = 3
    direction = "up"
    group = "fidelity"
    min_side_px = 8
    package = "torch"
    software = (TORCH,)
    library = Library("pyiqa", PYIQA, 1e-6, "PolyForm Noncommercial (pyiqa)")
    revision = 3
    parameters = ("luma", "pool256")
    summary = "Feature similarity of the luma"
    equation = (
        "sum S_PC S_G PC_m / sum PC_m, S = (2 a b + T) / (a^2 + b^2 + T), T_PC = 0.85, T_G = 160, "
        "PC_m = max(PC_x, PC_y)"
    )
    bounds = (0.0, 1.0)
    perfect = 1.0
    symmetric = True
    citation = "zhang2011fsim"
    chromatic: ClassVar[bool] = False

    def setup(self) -> None:
        """Keep filters of the sizes that were met; import pyiqa where it is asked for."""
        self._bank = functools.lru_cache(maxsize=4)(_bank)
        if self.exact is not None:
            with quietly():
                from pyiqa.archs.fsim_arch import FSIM

                self._pyiqa = FSIM(chromatic=self.chromatic).to(self.setting.device)

    def reference_state(self, reference: Reference) -> _Maps | None:
        """The reference's side of the comparison."""
        return None if self.exact is not None else self._maps(_display(reference))

    def value(self, estimate: Estimate, reference: Reference, state: _Maps) -> float:
        """FSIM of the displayed images."""
        import torch

        displays = estimate.display, _display(reference)
        if all(np.ptp(x, axis=(0, 1)).max() == 0.0 for x in displays):
            if np.array_equal(*displays):
                return 1.0
            raise Unavailable("both images are flat, and not the same; there is no feature to compare")
        with inference():
            if self.exact is not None:
                return float(self._pyiqa(*(as_tensor(x, self.setting.device) for x in displays)))
            ours = self._maps(estimate.display)
            weight = torch.maximum(ours.congruency, state.congruency)
            local = (
                _alike(ours.gradient, state.gradient, 160) * _alike(ours.congruency, state.congruency, 0.85) * weight
            )
            if self.chromatic:
                local *= (_alike(ours.i, state.i, 200) * _alike(ours.q, state.q, 200)).abs() ** 0.03
            return float(local.sum() / weight.sum())

    def _maps(self, display: Array) -> _Maps:
        import torch

        with inference():
            x = as_tensor(display, self.setting.device) * 255.0
            factor = round(min(x.shape[-2:]) / 256)
            x = (torch.nn.functional.avg_pool2d(x, factor) if factor > 1 else x)[0]
            luma, i, q = (w[0] * x[0] + w[1] * x[1] + w[2] * x[2] for w in _YIQ)
            scharr = torch.tensor([[3.0, 0.0, -3.0], [10.0, 0.0, -10.0], [3.0, 0.0, -3.0]], device=x.device) / 16
            slopes = torch.nn.functional.conv2d(luma[None, None], torch.stack([scharr, scharr.mT])[:, None], padding=1)
            gradient = torch.hypot(slopes[0, 0], slopes[0, 1])
            filters, gain = self._bank(*luma.shape, self.setting.device)
            return _Maps(_phase_congruency(luma, filters, gain), gradient, i, q)


_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def _alike(a: torch.Tensor, b: torch.Tensor, constant: float) -> torch.Tensor:
    """Eq. 4 and 6 of the paper."""
    return (2.0 * a * b + constant) / (a * a + b * b + constant)


def _bank(height: int, width: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-Gabor filters of a size, (orientations, scales, H, W) as an FFT has them, and what they make of noise.

    Wavelengths of 6, 12, 24 and 48 px, a bandwidth of 0.55, angular deviation pi / 4.8, and a low pass of cutoff 0.45
    and order 15; frequencies of odd sides reach 0.5, as in Kovesi's code. Angles are counted from the rows' axis, as
    pyiqa and piq do and MATLAB's code does not: a filter takes half of the plane, and of an even side's highest
    frequency there is one half alone, so only it can tell.
    """
    import torch

    axes = (np.fft.ifftshift((np.arange(n) - n // 2) / (n if n % 2 == 0 else n - 1)) for n in (height, width))
    rows, columns = np.meshgrid(*axes, indexing="ij")
    radius, theta = np.hypot(rows, columns), np.arctan2(-columns, rows)
    low = 1.0 / (1.0 + (radius / 0.45) ** 30)
    radius[0, 0] = 1.0
    radial = [np.exp(-(np.log(radius * 6 * 2**s) ** 2) / (2 * math.log(0.55) ** 2)) * low for s in range(_SCALES)]
    bank = np.empty((_ORIENTATIONS, _SCALES, height, width))
    for o in range(_ORIENTATIONS):
        away = np.abs(np.angle(np.exp(1j * (theta - o * math.pi / _ORIENTATIONS))))
        bank[o] = np.stack(radial) * np.exp(-(away**2) / (2 * (math.pi / 4.8) ** 2))
    bank[..., 0, 0] = 0.0
    filters = torch.from_numpy(bank.astype(np.float32)).to(device)
    return filters, _noise_gain(filters)


_ORIENTATIONS, _SCALES = 4, 4


@dataclass(frozen=True)
class _Maps:
    """What FSIM compares of one image, each (H, W): phase congruency, gradient of the luma, I and Q."""

    congruency: torch.Tensor
    gradient: torch.Tensor
    i: torch.Tensor
    q: torch.Tensor


def _noise_gain(filters: torch.Tensor) -> torch.Tensor:
    """The noise threshold of each orientation over the root of the median squared response at the finest scale.

    The response to Gaussian noise has a Rayleigh distributed amplitude. Its scale follows from that median and from
    the filters' inner products; the threshold is its mean and two standard deviations, divided by 1.7 as the published
    code does. It depends on the filters alone, thus on the image's size.

    Source: P. Kovesi, Videre 1(3), 1999, section 3, and the code published with FSIM.
    """
    import torch

    height, width = filters.shape[-2:]
    waves = torch.fft.ifft2(filters).real * math.sqrt(height * width)
    # 2 sum(a_i^2) + 4 sum(a_i a_j, i < j) = 2 sum(a_i)^2
    energy = 2 * (waves.sum(dim=1) ** 2).sum(dim=(-2, -1))
    noise = energy / (filters[:, 0] ** 2).sum(dim=(-2, -1)) / -math.log(0.5)
    tau = (noise / 2).sqrt()
    return tau * (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7


def _phase_congruency(luma: torch.Tensor, filters: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Where the Fourier components of an image (H, W) are in phase, (H, W) in [0, 1].

    Orientation by orientation, so that the responses stay in the processor's cache. With the complex responses z of the
    scales and the unit vector u of their sum, the energy is the sum of ``Re(z u*) - |Im(z u*)|`` over the scales, whose
    first part is that of the sum.

    Source: P. Kovesi, Videre 1(3), 1999, eq. 12; L. Zhang et al., IEEE TIP 20(8), 2011, eq. 3.
    """
    import torch

    eps = torch.finfo(luma.dtype).eps
    spectrum = torch.view_as_real(torch.fft.fft2(luma))
    energy, amplitude = torch.full_like(luma, eps), torch.full_like(luma, eps)
    for bank, factor in zip(filters, gain, strict=True):
        z = torch.fft.ifft2(torch.view_as_complex(spectrum * bank[..., None]))
        re, im = z.real.contiguous(), z.imag.contiguous()  # planes: a processor takes several numbers of one at a time
        squares = (re * re).addcmul_(im, im)
        total_re, total_im = re.sum(dim=0), im.sum(dim=0)
        length = (total_re * total_re).addcmul_(total_im, total_im).sqrt_().add_(eps)
        along_re, along_im = total_re / length, total_im / length
        across = (im * along_re).sub_(re * along_im).abs_().sum(dim=0)
        threshold = factor * squares[0].median().sqrt()
        in_phase = (total_re * along_re).addcmul_(total_im, along_im)
        energy += (in_phase - across - threshold).clamp_(min=0)
        amplitude += squares.sqrt_().sum(dim=0)
    return energy / amplitude


class Fsimc(Fsim):
    """FSIM with the chromatic term, I and Q of YIQ to the power 0.03 (Zhang et al. 2011, eq. 8 to 10).

    Everything else, and the traps, as ``fsim``.
    """

    name = "fsimc"
    title = "FSIMc"
    decimals = 3
    default = None
    parameters = ("chromatic", "pool256")
    summary = "Feature similarity with chroma"
    equation = "sum S_PC S_G |S_I S_Q|^0.03 PC_m / sum PC_m, T_I = T_Q = 200, the rest as fsim"
    bounds = (0.0, 1.0)
    perfect = 1.0
    symmetric = True
    citation = "zhang2011fsim"
    chromatic = True
