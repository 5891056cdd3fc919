"""How near an image is to its reference, pixel by pixel or window by window: PSNR, SSIM, FSIM."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from bench.core.errors import Unavailable
from bench.core.image import Array
from bench.metrics.base import Estimate, Metric, Reference
from bench.metrics.networks import as_tensor, inference, quietly

IDENTICAL_DB = 100.0
"""PSNR of identical images, by definition; larger values, possible on large images, are cut to it."""

_WINDOW = 11  # what skimage makes of sigma 1.5 cut at 3.5 sigma


def _display(reference: Reference) -> Array:
    assert reference.display is not None  # ``needs`` says so
    return reference.display


class PsnrRgb(Metric):
    """Peak signal-to-noise ratio over all pixels and the three channels together, peak 1.

    ``10 log10(1 / MSE)`` in dB by ``skimage.metrics.peak_signal_noise_ratio``; more is better. A set's value is
    the mean of the images' dB, not the dB of the mean MSE. Identical images would be infinite and are 100 dB;
    so is everything above, which only images of more than 0.1 megapixel that differ in one grey level of one
    pixel reach.

    Traps: PSNR of the luma (``psnr_y``) is 1 to 30 dB higher on the same pair.
    """

    name = "psnr_rgb"
    title = "PSNR"
    unit = "dB"
    direction = "up"
    group = "fidelity"
    masks = True
    package = "skimage"
    parameters = ("rgb", "peak1", "cap100")
    summary = "Peak signal-to-noise ratio of RGB"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The PSNR of the valid pixels."""
        valid = reference.valid
        return _psnr(_display(reference)[valid], estimate.display[valid])


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
    unit = "dB"
    direction = "up"
    group = "fidelity"
    masks = True
    package = "skimage"
    parameters = ("bt601y16-235", "peak255", "cap100")
    summary = "Peak signal-to-noise ratio of the luma (BT.601, 16 to 235)"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The PSNR of the valid pixels' luma."""
        valid = reference.valid
        return _psnr(_luma(_display(reference)[valid]), _luma(estimate.display[valid]))


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Y of BT.601 (16 to 235) over 255, in double precision."""
    return (16.0 + rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966])) / 255.0


def _psnr(true: np.ndarray, test: np.ndarray) -> float:
    from skimage.metrics import peak_signal_noise_ratio

    true, test = true.astype(np.float64), test.astype(np.float64)
    if np.array_equal(true, test):
        return IDENTICAL_DB
    return min(float(peak_signal_noise_ratio(true, test, data_range=1.0)), IDENTICAL_DB)


class SsimRgb(Metric):
    """Structural similarity (Wang et al. 2004), each channel on its own, then averaged; 1 is identical.

    ``skimage.metrics.structural_similarity`` with the settings of the paper: Gaussian window 11x11 of sigma 1.5,
    population covariance, K1 = 0.01, K2 = 0.03, data range 1; mean over the windows that lie wholly in the image
    and, where pixels have no data, wholly on valid ones. Computed in double precision. Range -1 to 1.

    Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, IEEE TIP 13(4), 2004, doi:10.1109/TIP.2003.819861.

    Traps: skimage's defaults (7x7 uniform window, sample covariance) give another number, 0.641 for 0.673 on one
    pair; luma instead of RGB another (0.735); MATLAB's ``ssim.m`` halves images of 384 px and more first.
    """

    name = "ssim_rgb"
    title = "SSIM"
    direction = "up"
    group = "fidelity"
    masks = True
    min_side_px = _WINDOW
    package = "skimage"
    parameters = ("gauss11,1.5", "popcov", "range1")
    summary = "Structural similarity of RGB, Gaussian window"
    citation = "wang2004ssim"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The mean of the SSIM map over its whole windows."""
        from skimage.metrics import structural_similarity

        mean, image = structural_similarity(
            _display(reference).astype(np.float64),
            estimate.display.astype(np.float64),
            data_range=1.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        if reference.valid.all():
            return float(mean)
        whole = _whole_windows(reference.valid)
        if not whole.any():
            raise Unavailable(f"no window of {_WINDOW}x{_WINDOW} px without missing pixels")
        return float(image[whole].mean())


def _whole_windows(valid: np.ndarray) -> np.ndarray:
    """Where the window around a pixel lies in the image and on valid pixels."""
    from scipy.ndimage import minimum_filter

    return minimum_filter(valid.astype(np.uint8), size=_WINDOW, mode="constant", cval=0).astype(bool)


class Fsim(Metric):
    """Feature similarity of the luma: phase congruency and gradients (Zhang et al. 2011); 1 is identical.

    pyiqa's ``fsim`` with ``chromatic=False``: luma is Y of YIQ, sides of 384 px and more are average-pooled by
    round(side / 256), four scales and four orientations of log-Gabor filters. Meets the authors' MATLAB value
    on grey pictures to 1e-5. Range 0 to 1 in practice. A pair of flat images is 1.

    Source: L. Zhang, L. Zhang, X. Mou, D. Zhang, IEEE TIP 20(8), 2011, doi:10.1109/TIP.2011.2109730, eq. 5.

    Traps: pyiqa's own default is FSIMc (``fsimc`` here), which on one pair is 0.993 where FSIM is 0.9999.
    """

    name = "fsim"
    title = "FSIM"
    direction = "up"
    group = "fidelity"
    min_side_px = 8
    package = "pyiqa"
    licence = "PolyForm Noncommercial (pyiqa)"
    parameters = ("luma", "pool256")
    summary = "Feature similarity of the luma"
    citation = "zhang2011fsim"
    chromatic: ClassVar[bool] = False

    def setup(self) -> None:
        """Import pyiqa."""
        with quietly():
            from pyiqa.archs.fsim_arch import fsim
        self._fsim = fsim

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """FSIM of the displayed images."""
        device = self.setting.device
        with inference():
            score = self._fsim(
                as_tensor(estimate.display, device),
                as_tensor(_display(reference), device),
                chromatic=self.chromatic,
            )
        return float(score)


class Fsimc(Fsim):
    """FSIM with the chromatic term, I and Q of YIQ to the power 0.03 (Zhang et al. 2011, eq. 8 to 10).

    Everything else, and the traps, as ``fsim``.
    """

    name = "fsimc"
    title = "FSIMc"
    parameters = ("chromatic", "pool256")
    summary = "Feature similarity with chroma"
    citation = "zhang2011fsim"
    chromatic = True
