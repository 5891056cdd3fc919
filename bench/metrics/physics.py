"""Whether spectra and colours are kept: SAM, CIEDE2000, and QNR of pansharpening with its two parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.core.errors import Unavailable
from bench.core.image import Image
from bench.core.resample import resize
from bench.metrics import kernels
from bench.metrics.base import Estimate, Library, Metric, Reference, Score
from bench.metrics.networks import inference, quietly
from bench.metrics.software import COLOUR, TORCH

if TYPE_CHECKING:
    import torch

WINDOW = 11
"""Side of the Gaussian window of Q, px."""


class SamRgb(Metric):
    """Spectral angle of the displayed RGB, in degrees, averaged over pixels; 0 where only brightness differs.

    The angle between the two spectra (r, g, b) of a pixel, ``2 atan2(|u - v|, |u + v|)`` of the unit spectra u and
    v. It is the arc cosine of their product, without its loss of digits near 0. Double precision. Pixels where
    either spectrum is zero (black) have no angle and are left out; if there is no other, that is a reason.

    Source: F. A. Kruse et al., Remote Sensing of Environment 44, 1993, doi:10.1016/0034-4257(93)90013-N.

    Traps: torchmetrics gives radians and NaN at zero spectra; ``sewar`` takes the angle over pixels instead of
    bands. Angles of display RGB depend on the normalisation; ``sam_refl`` does not.
    """

    name = "sam_rgb"
    title = "SAM"
    decimals = 2
    default = 9
    unit = "degrees"
    direction = "down"
    group = "physics"
    masks = True
    package = "torch"
    software = (TORCH,)
    revision = 2
    parameters = ("rgb", "deg", "skip0")
    summary = "Spectral angle of RGB"
    equation = "mean over pixels of 180/pi arccos(u.v / (|u| |v|))"
    bounds = (0.0, 90.0)
    perfect = 0.0
    symmetric = True
    citation = "kruse1993sips"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> Score:
        """The mean angle of the valid pixels."""
        with inference():
            return _mean_angle(*kernels.seen(estimate, reference, self.setting.device))


class SamRefl(Metric):
    """Spectral angle in reflectance, over all bands that prediction and reference share (at least two).

    Definition as ``sam_rgb``; not rounded, and not touched by the display's normalisation. PAN is left out.

    Source: as ``sam_rgb``.

    Traps: as ``sam_rgb``; and offsets: haze, or a baseline's +1000 left in, makes spectra alike and angles small.
    """

    name = "sam_refl"
    title = "SAM-refl"
    decimals = 2
    unit = "degrees"
    direction = "down"
    group = "physics"
    display = False
    needs = ("reference", "reflectance")
    masks = True
    package = "torch"
    software = (TORCH,)
    revision = 2
    parameters = ("refl", "sharedbands", "deg", "skip0")
    summary = "Spectral angle of reflectance, all shared bands"
    equation = "mean over pixels of 180/pi arccos(u.v / (|u| |v|))"
    bounds = (0.0, 180.0)
    perfect = 0.0
    symmetric = True
    citation = "kruse1993sips"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> Score:
        """The mean angle of the pixels that are valid on both sides."""
        assert estimate.image is not None and reference.hr is not None
        ours, theirs = estimate.image, reference.hr
        shared = tuple(b for b in theirs.bands if b in ours.bands and b != "PAN")
        if len(shared) < 2:
            raise Unavailable(
                f"prediction ({' '.join(ours.bands)}) and reference ({' '.join(theirs.bands)}) share "
                f"{len(shared)} band{'' if len(shared) == 1 else 's'}; an angle needs two"
            )
        _same_size(ours, theirs, "the reference")
        valid = reference.valid & ours.valid & theirs.valid
        return spectral_angle(ours.select(shared).values[valid], theirs.select(shared).values[valid])


def spectral_angle(first: np.ndarray, second: np.ndarray) -> Score:
    """The mean angle in degrees between the spectra of two arrays (N, bands); zero spectra are left out and counted.

    Raises
    ------
    Unavailable
        If no pixel has two spectra that are not zero.
    """
    import torch

    return _mean_angle(*(torch.from_numpy(np.array(x.T, np.float64, order="C")) for x in (first, second)))


def _mean_angle(first: torch.Tensor, second: torch.Tensor) -> Score:
    """``spectral_angle`` of tensors (bands, N) in double precision."""
    some = ((first * first).sum(dim=0) > 0) & ((second * second).sum(dim=0) > 0)
    left_out = some.numel() - int(some.sum())
    if left_out:
        if left_out == some.numel():
            raise Unavailable("every spectrum is zero on one side; zero has no angle")
        first, second = first[:, some], second[:, some]
    angle = kernels.mean(kernels.in_pieces(kernels.spectral_angles, first, second)[None])
    return Score(angle, note=f"{left_out} of {some.numel()} spectra are zero and left out" if left_out else None)


class De00(Metric):
    """CIEDE2000 colour difference, averaged over pixels; 0 is identical, 1 about just noticeable.

    sRGB to CIE Lab for D65 and the 2 degree observer, then CIE 2000 with kL = kC = kH = 1, as colour-science has it.

    Source: G. Sharma, W. Wu, E. N. Dalal, Color Research and Application 30(1), 2005, doi:10.1002/col.20070.

    Traps: with the white point of D50 the mean of a photograph moves from 15.5 to 15.8. Displayed satellite bands
    are taken as sRGB, which is a convention, not a measurement.
    """

    name = "de00"
    title = "ΔE00"
    decimals = 2
    default = 10
    direction = "down"
    group = "physics"
    masks = True
    package = "torch"
    software = (TORCH,)
    library = Library("colour", COLOUR, 1e-6)
    revision = 2
    parameters = ("srgb", "d65", "2deg", "k1,1,1")
    summary = "CIEDE2000 colour difference"
    equation = (
        "mean over pixels of sqrt((dL'/S_L)^2 + (dC'/S_C)^2 + (dH'/S_H)^2 + R_T (dC'/S_C)(dH'/S_H)), "
        "k_L = k_C = k_H = 1"
    )
    bounds = (0.0, math.inf)
    perfect = 0.0
    symmetric = True
    citation = "sharma2005ciede2000"

    def setup(self) -> None:
        """Import colour-science, which takes seconds, where it is asked for."""
        if self.exact is not None:
            with quietly():
                import colour
            self._colour = colour

    def reference_state(self, reference: Reference) -> torch.Tensor | None:
        """The reference's valid pixels in CIE Lab, (3, N)."""
        if self.exact is not None:
            return None
        assert reference.display is not None
        with inference():
            image = kernels.image_of(reference.cache, reference.display, self.setting.device)
            return kernels.in_pieces(kernels.lab, kernels.valid_pixels(image, reference.valid))

    def value(self, estimate: Estimate, reference: Reference, state: torch.Tensor) -> float:
        """The mean difference of the valid pixels."""
        if self.exact is not None:
            assert reference.display is not None
            sides = (reference.pixels(x).astype(np.float64) for x in (reference.display, estimate.display))
            first, second = (self._colour.XYZ_to_Lab(self._colour.sRGB_to_XYZ(x)) for x in sides)
            return float(np.mean(self._colour.delta_E(first, second, method="CIE 2000")))
        with inference():
            image = kernels.image_of(estimate.cache, estimate.display, self.setting.device)
            ours = kernels.in_pieces(kernels.lab, kernels.valid_pixels(image, reference.valid))
            return kernels.mean(kernels.in_pieces(kernels.ciede2000, state, ours)[None])


class DLambda(Metric):
    """Spectral distortion of a sharpened image: how far the similarities among its bands moved; 0 is none.

    ``mean over b != c of |Q(F_b, F_c) - Q(M_b, M_c)|``, F the prediction's bands in the LR's own unit, M the same bands
    of the LR image brought to the prediction's size (antialiased bicubic, a = -0.5), exponent 1. Q is the
    universal quality index of Wang and Bovik with a Gaussian window 11x11 of sigma 1.5, mean over whole windows.
    Needs at least two bands, no reference. Range 0 to 2, in practice below 1.

    Source: L. Alparone et al., PE&RS 74(2), 2008, doi:10.14358/PERS.74.2.193.

    Traps: torchmetrics and sewar take M at its own size (0.127 for 0.021 on one case); Q with the original's 8x8
    uniform window is another number. An image that equals the upsampled LR scores 0. The LR image must cover the
    same ground as the prediction: nothing is cut off on one side only.
    """

    name = "d_lambda"
    title = "D_λ"
    decimals = 3
    direction = "down"
    group = "physics"
    display = False
    needs = ("lr",)
    min_side_px = WINDOW
    parameters = ("ms-bicubic", "p1", "uqi-gauss11,1.5")
    summary = "Spectral distortion against the LR bands"
    equation = "mean over pairs of bands b != c of |Q(F_b, F_c) - Q(M_b, M_c)|"
    bounds = (0.0, 2.0)
    on_satellite = (
        "Made for sharpened satellite bands. It holds relations between bands against those of the LR image: "
        "small where the colours of the LR were kept, also where they are wrong against the HR, and where "
        "nothing was sharpened at all."
    )
    citation = "alparone2008qnr wang2002uqi"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The mean absolute difference over pairs of bands."""
        fused, upsampled = _bands(estimate, reference)
        return spectral_distortion(fused, upsampled)


class DS(Metric):
    """Spatial distortion of a sharpened image: how far its edges agree with PAN's otherwise than the LR's do.

    ``mean over b of |Q(grad F_b, grad P) - Q(grad M_b, grad P)|``: grad is the magnitude of the Sobel gradient
    (edges mirrored), P the panchromatic image; F, M and Q as for ``d_lambda``, all at the prediction's size. Range
    0 to 2, in practice below 1.

    Source: the gradient form of the QNR family; the original (Alparone et al. 2008, doi:10.14358/PERS.74.2.193)
    takes Q of the bands themselves, at two scales.

    Traps: the two forms are different metrics of one name. It measures change, not gain: an image that equals the
    upsampled LR scores 0, one as sharp as PAN does not. PAN must be in the bands' unit; that is not checked
    beyond its name.
    """

    name = "d_s"
    title = "D_s"
    decimals = 3
    direction = "down"
    group = "physics"
    display = False
    needs = ("lr", "pan")
    min_side_px = WINDOW
    parameters = ("ms-bicubic", "sobel", "q1", "uqi-gauss11,1.5")
    summary = "Spatial distortion against the panchromatic image"
    equation = "mean over bands b of |Q(grad F_b, grad P) - Q(grad M_b, grad P)|"
    bounds = (0.0, 2.0)
    on_satellite = (
        "Made for sharpened satellite bands with their own PAN of the same moment. It measures change of the "
        "agreement with PAN, not gain: doing nothing scores 0."
    )
    citation = "alparone2008qnr wang2002uqi"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The mean absolute difference over bands."""
        fused, upsampled = _bands(estimate, reference)
        return spatial_distortion(fused, upsampled, _pan(estimate, reference))


class Qnr(Metric):
    """Quality with no reference: ``(1 - D_lambda)(1 - D_s)`` of ``d_lambda`` and ``d_s``; 1 is best.

    Source: as these two.

    Traps: those of its parts; not comparable with a QNR whose D_s is Alparone's.
    """

    name = "qnr"
    title = "QNR"
    decimals = 3
    direction = "up"
    group = "physics"
    display = False
    needs = ("lr", "pan")
    min_side_px = WINDOW
    parameters = ("ms-bicubic", "sobel", "p1,q1", "uqi-gauss11,1.5")
    summary = "Quality with no reference, of pansharpening"
    equation = "(1 - D_lambda)(1 - D_s)"
    bounds = (-1.0, 1.0)
    on_satellite = (
        "Made for pansharpening. It asks whether LR colours and PAN edges were kept; doing nothing to the LR "
        "scores 1, so it is no measure of super-resolution by itself."
    )
    citation = "alparone2008qnr wang2002uqi"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The product."""
        fused, upsampled = _bands(estimate, reference)
        spatial = spatial_distortion(fused, upsampled, _pan(estimate, reference))
        return (1.0 - spectral_distortion(fused, upsampled)) * (1.0 - spatial)


def spectral_distortion(fused: np.ndarray, upsampled: np.ndarray) -> float:
    """D_lambda of two stacks of bands (B, H, W) of one size, float64, at least two bands."""
    ours, theirs = _Moments(fused), _Moments(upsampled)
    pairs = [(b, c) for b in range(len(fused)) for c in range(b + 1, len(fused))]
    return float(np.mean([abs(ours.quality(b, c) - theirs.quality(b, c)) for b, c in pairs]))


def spatial_distortion(fused: np.ndarray, upsampled: np.ndarray, pan: np.ndarray) -> float:
    """D_s of two stacks of bands (B, H, W) and a panchromatic image (H, W) of one size, float64."""
    edges = _gradient(pan)
    with_fused = [quality_index(_gradient(band), edges) for band in fused]
    with_upsampled = [quality_index(_gradient(band), edges) for band in upsampled]
    return float(np.mean(np.abs(np.subtract(with_fused, with_upsampled))))


def quality_index(first: np.ndarray, second: np.ndarray) -> float:
    """Wang and Bovik's universal quality index of two images (H, W), Gaussian window 11x11 of sigma 1.5.

    ``4 cov(x, y) mean(x) mean(y) / ((var(x) + var(y)) (mean(x)^2 + mean(y)^2))``, mean over the windows that lie
    wholly in the image. As in torchmetrics, the denominator has the smallest double added, so windows that are
    constant on both sides count as 0. Range -1 to 1.

    Source: Z. Wang, A. C. Bovik, IEEE SPL 9(3), 2002, doi:10.1109/97.995823.
    """
    return _Moments(np.stack([first, second])).quality(0, 1)


class _Moments:
    """Local means and variances of a stack of bands, from which Q of any two follows."""

    def __init__(self, bands: np.ndarray) -> None:
        self.bands = bands
        self.mean = [_smooth(b) for b in bands]
        self.variance = [np.maximum(_smooth(b * b) - m * m, 0.0) for b, m in zip(bands, self.mean, strict=True)]

    def quality(self, b: int, c: int) -> float:
        """Q of two bands."""
        product = self.mean[b] * self.mean[c]
        covariance = _smooth(self.bands[b] * self.bands[c]) - product
        spread = self.variance[b] + self.variance[c]
        below = (self.mean[b] ** 2 + self.mean[c] ** 2) * spread + np.finfo(np.float64).eps
        return float((4.0 * product * covariance / below).mean())


def _smooth(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    half = WINDOW // 2
    return gaussian_filter(image, 1.5, radius=half)[half:-half, half:-half]


def _gradient(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import sobel

    return np.hypot(sobel(image, axis=0, mode="reflect"), sobel(image, axis=1, mode="reflect"))


def _bands(estimate: Estimate, reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """The prediction's bands and the same of the LR image at its size, (B, H, W) float64; or Unavailable."""
    image, lr = estimate.image, reference.lr
    assert lr is not None  # ``needs`` says so
    if image is None:
        raise Unavailable("the model predicts display images; this metric needs bands in the LR's unit")
    if image.unit != lr.unit:
        raise Unavailable(f"the prediction is in {image.unit}, the LR image in {lr.unit}")
    shared = tuple(b for b in image.bands if b != "PAN" and b in lr.bands)
    if len(shared) < 2:
        raise Unavailable(
            f"prediction ({' '.join(image.bands)}) and LR image ({' '.join(lr.bands)}) share {len(shared)} "
            f"band{'' if len(shared) == 1 else 's'}; this metric needs two"
        )
    missing = int((~image.valid).sum() + (~lr.valid).sum())
    if missing:
        raise Unavailable(f"{missing} pixels without data in the prediction or the LR image")
    fused = np.moveaxis(image.select(shared).values, 2, 0).astype(np.float64)
    upsampled = resize(lr.select(shared).values, image.size)
    return fused, np.moveaxis(upsampled, 2, 0).astype(np.float64)


def _pan(estimate: Estimate, reference: Reference) -> np.ndarray:
    pan = reference.pan
    assert pan is not None and estimate.image is not None
    if pan.unit != estimate.image.unit:
        raise Unavailable(f"the panchromatic image is in {pan.unit}, the prediction in {estimate.image.unit}")
    _same_size(estimate.image, pan, "the panchromatic image")
    if not pan.valid.all():
        raise Unavailable(f"{int((~pan.valid).sum())} pixels without data in the panchromatic image")
    return pan.values[:, :, 0].astype(np.float64)


def _same_size(ours: Image, theirs: Image, what: str) -> None:
    if ours.size != theirs.size:
        raise Unavailable(
            f"the prediction has {ours.size[0]}x{ours.size[1]} px, {what} {theirs.size[0]}x{theirs.size[1]}"
        )
