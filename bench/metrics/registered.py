"""Full-reference metrics after registration: ``NAME_reg`` is ``NAME`` of the prediction moved and recoloured to fit.

Two sensors never look at quite the same place, nor with the same gain. A metric of pixels then measures georeferencing
and calibration together with the model; what is left after both are taken out is the model's. Nobody should report the
second number without the first, so both are columns of one table, and the shift, gain and bias that were taken out are
kept for each image.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError
from bench.core.image import RGB, Array, Image, Mask, quantised
from bench.core.reason import Reason
from bench.metrics.base import Estimate, Metric, Reference, Score

SUFFIX = "_reg"
WINDOW_PX = 6
"""The largest shift that is looked for, on either axis, in pixels of the target grid; as much of the border is left out
of what is scored, and around pixels without data, whatever the shift was, so that all models are scored on the same
pixels. 6 px of 2 m are 12 m, somewhat more than an LR pixel of Sentinel-2."""

REVISION = 3
"""Raised whenever something here changes a number; part of the identity of every ``NAME_reg``."""

_LUMA = np.array([0.299, 0.587, 0.114])
_FINE_PX, _LOCAL_PX = 1.0, 7.0  # sigma of the Gaussians between which structure is looked at
_BLOCKS = 4  # an axis; each block has half the image's side
_SMALLEST_BLOCK_PX = 32
_LEAST_CORRELATION = 0.2
_STEPS = 4
_UPSAMPLING = 50  # of the correlation's peak: 0.02 px
_CORRELATED_PX2 = 4 * np.pi * _FINE_PX**2  # the area over which white noise is one sample after the fine Gaussian


@dataclass(frozen=True)
class Shift:
    """By how much a prediction was moved, down and to the right, px; ``correlation`` of structure at that place.

    ``why_none`` says why it was not moved at all.
    """

    row_px: float = 0.0
    col_px: float = 0.0
    correlation: float = 0.0
    why_none: str | None = None


def find_shift(moving: np.ndarray, fixed: np.ndarray, valid: Mask, window_px: int = WINDOW_PX) -> Shift:
    """The sub-pixel shift that brings ``moving`` onto ``fixed``, or none where the images do not say.

    Both are (H, W) luma. Structure is compared, not brightness: differences of Gaussians (sigma 1 and 7 px) over their
    local deviation, so that a slope in the sun, haze or snow does not outvote the rest. The shift is the peak of the
    cross-correlation (``skimage.registration.phase_cross_correlation`` without its whitening, which between a blurred
    and a sharp image finds noise), found again after moving until nothing is left, since the taper of the image pulls
    it to zero; in 4 x 4 overlapping blocks of half the side, of which the median is taken, so that change in a part
    of the scene does not move the whole. Images below 64 px are one block.

    No shift is reported where it would exceed the window, or where the structure does not correlate (below 0.2, and in
    small images below five standard deviations of what noise reaches): an invented shift is worse than none.

    Source: M. Guizar-Sicairos, S. T. Thurman, J. R. Fienup, Optics Letters 33(2), 2008, doi:10.1364/OL.33.000156.
    """
    ours, theirs = _structure(moving, valid), _structure(fixed, valid)
    height, width = ours.shape
    if min(height, width) < 2 * window_px + 8:
        return Shift(why_none=f"{height}x{width} px are too few to look for a shift in")
    whole = min(height, width) < 2 * _SMALLEST_BLOCK_PX
    side = (height, width) if whole else (height // 2, width // 2)
    tops, lefts = (
        (np.linspace(0, length - part, 1 if whole else _BLOCKS).astype(int))
        for length, part in zip((height, width), side, strict=True)
    )
    found = []
    for top in tops:
        for left in lefts:
            block = np.s_[top : top + side[0], left : left + side[1]]
            if theirs[block].any() and ours[block].any():
                found.append(_block_shift(ours[block], theirs[block], valid[block], window_px))
    if not found:
        return Shift(why_none="no structure to compare")
    row, col = (float(v) for v in np.median(found, axis=0))
    if max(abs(row), abs(col)) > window_px:
        return Shift(why_none=f"no match within {window_px} px")
    far = within(valid, window_px)
    moved, kept = _moved(ours[..., None], row, col)[..., 0][far], theirs[far]
    if not kept.size:
        return Shift(why_none="no pixel is far enough from those without data")
    correlation = float(np.sum(moved * kept) / np.sqrt(np.sum(moved**2) * np.sum(kept**2) + 1e-30))
    least = max(_LEAST_CORRELATION, 5.0 / np.sqrt(kept.size / _CORRELATED_PX2))
    if correlation < least:
        return Shift(correlation=correlation, why_none=f"structures correlate by {correlation:.2f}, below {least:.2f}")
    return Shift(row, col, correlation)


def _structure(luma: np.ndarray, valid: Mask) -> np.ndarray:
    """What is finer than 7 px and coarser than 1, over its local deviation; 0 where there is no data."""
    from scipy.ndimage import gaussian_filter

    def smooth(values: np.ndarray, sigma_px: float) -> np.ndarray:
        if valid.all():
            return np.asarray(gaussian_filter(values, sigma_px))
        # The mean of the pixels with data: an edge of what fills the others is in both images at one place.
        weight = np.maximum(gaussian_filter(valid.astype(np.float64), sigma_px), 1e-12)
        return np.asarray(gaussian_filter(np.where(valid, values, 0.0), sigma_px) / weight)

    whole = luma.astype(np.float64)
    around = smooth(whole, _LOCAL_PX)
    deviation = np.sqrt(smooth((whole - around) ** 2, _LOCAL_PX) + 1e-4)
    found = np.where(valid, (smooth(whole, _FINE_PX) - around) / deviation, 0.0)
    return found if np.ptp(whole[valid]) > 1e-6 else np.zeros_like(found)


def _block_shift(moving: np.ndarray, fixed: np.ndarray, valid: Mask, window_px: int) -> np.ndarray:
    from skimage.filters import window
    from skimage.registration import phase_cross_correlation

    taper = window(("tukey", 0.25), fixed.shape)
    total, current, kept = np.zeros(2), moving, valid
    for _ in range(_STEPS):
        target, source = ((side - side[kept].mean()) * kept * taper for side in (fixed, current))
        step, _, _ = phase_cross_correlation(target, source, upsample_factor=_UPSAMPLING, normalization=None)
        total = total + step
        if np.abs(total).max() > 4 * window_px or np.abs(step).max() < 1 / _UPSAMPLING:
            break
        current = _moved(moving[..., None], *total)[..., 0]
        if not valid.all():  # pixels that have data on both sides, or the mask's own shape pulls the shift to zero
            kept = valid & (_moved(valid[..., None].astype(np.float64), *total)[..., 0] > 0.99)
            if not kept.any():
                break
    return total


def _moved(values: np.ndarray, row_px: float, col_px: float) -> np.ndarray:
    """(H, W, C) moved down and to the right by cubic splines; edges are repeated."""
    from scipy.ndimage import shift

    if not row_px and not col_px:
        return values
    return np.stack([shift(v, (row_px, col_px), order=3, mode="nearest") for v in np.moveaxis(values, -1, 0)], axis=-1)


def _fit(moving: np.ndarray, fixed: np.ndarray) -> tuple[float, float]:
    """Gain and bias that bring ``moving`` (N,) nearest to ``fixed`` in the mean square; gain 1 where it is flat."""
    x, y = moving.astype(np.float64), fixed.astype(np.float64)
    spread = float(np.mean((x - x.mean()) ** 2))
    gain = float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 1e-10 else 1.0
    return gain, float(y.mean() - gain * x.mean())


@dataclass(frozen=True)
class Registration:
    """An estimate on the reference's place and colours, both without the border; and what was taken out."""

    estimate: Estimate
    shift: Shift
    gain: Mapping[str, float]
    bias: Mapping[str, float]

    def facts(self) -> dict[str, float]:
        """Numbers to keep: px for shifts, display units for biases."""
        shift = {"shift_row_px": self.shift.row_px, "shift_col_px": self.shift.col_px}
        gains = {f"gain_{band}": value for band, value in self.gain.items()}
        return {
            **shift,
            "correlation": self.shift.correlation,
            **gains,
            **{f"bias_{b}": v for b, v in self.bias.items()},
        }


def register(estimate: Estimate, reference: Reference, quantise: int | None) -> Registration:
    """Move and recolour an estimate to fit its reference; once for all metrics of one image and estimate.

    What is registered is what is scored, the displayed image as it was rounded, so that a run and its exported pictures
    have one number. The shift comes from the luma; gain and bias of each band are least squares over the pixels that
    are scored, in display units (and in reflectance for the bands of ``image``). Gains below 1 pull a wrong prediction
    to the mean, as every such fit does: compare gains too.
    """
    known: list[tuple[Estimate, Registration]] = reference.cache.setdefault("registrations", [])
    for other, made in known:  # by identity: estimates of one image are few, and hold arrays
        if other is estimate:
            return made
    assert reference.display is not None
    shift = find_shift(estimate.display @ _LUMA, reference.display @ _LUMA, reference.valid)
    valid = scored(reference.valid)
    moved = inside(_moved(_filled(estimate.display, reference.valid), shift.row_px, shift.col_px))
    target = inside(reference.display)
    gain, bias = {}, {}
    for i, band in enumerate(RGB):
        gain[band], bias[band] = _fit(moved[..., i][valid], target[..., i][valid]) if valid.any() else (1.0, 0.0)
    fitted = np.clip(moved * list(gain.values()) + list(bias.values()), 0, 1).astype(np.float32)
    result = Registration(
        dataclasses.replace(
            estimate,
            display=quantised(fitted, quantise),
            display_float=fitted,
            image=_image(estimate.image, reference, shift, valid),
            mean=None,
            std=None,
            draws=None,
        ),
        shift,
        gain,
        bias,
    )
    known.append((estimate, result))
    return result


def facts_of(estimate: Estimate, reference: Reference) -> dict[str, float]:
    """What registration took out of an estimate, ``reg_...`` by name; nothing where no metric asked for it."""
    made = [r for known, r in reference.cache.get("registrations", []) if known is estimate]
    return {f"reg_{name}": value for r in made for name, value in r.facts().items()}


def _image(image: Image | None, reference: Reference, shift: Shift, valid: Mask) -> Image | None:
    """The prediction in its own unit, moved, each band that the reference has too fitted to it."""
    if image is None:
        return None
    hr = reference.hr
    values = inside(_moved(_filled(image.values, reference.valid), shift.row_px, shift.col_px))
    for i, band in enumerate(image.bands):
        if hr is not None and hr.unit == image.unit and band in hr.bands and valid.any():
            gain, bias = _fit(values[..., i][valid], inside(hr.values)[..., hr.bands.index(band)][valid])
            values[..., i] = gain * values[..., i] + bias
    return dataclasses.replace(image, values=values.astype(np.float32), valid=inside(image.valid))


def inside(values: Any) -> Any:
    """An array (H, W, ...) without the border of the search window, in rows."""
    return np.ascontiguousarray(
        values[WINDOW_PX : values.shape[0] - WINDOW_PX, WINDOW_PX : values.shape[1] - WINDOW_PX]
    )


def within(valid: Mask, margin_px: int = WINDOW_PX) -> Mask:
    """The pixels (H, W) farther than the search window from the border and from every pixel without data: what a shift
    brings there was data, and no answer of a model to nothing."""
    from scipy.ndimage import minimum_filter

    return np.asarray(minimum_filter(valid, size=2 * margin_px + 1, mode="constant", cval=False))


def scored(valid: Mask) -> Mask:
    """The pixels that are scored, without the border."""
    return np.asarray(inside(within(valid)))


def _filled(values: Array, valid: Mask) -> np.ndarray:
    """In double precision, with the mean of each band where there is no data: splines reach a little beyond."""
    values = values.astype(np.float64)
    if valid.any() and not valid.all():
        values[~valid] = values[valid].mean(axis=0)
    return values


def _cropped(reference: Reference) -> Reference:
    def image(whole: Image | None) -> Image | None:
        return whole and dataclasses.replace(whole, values=inside(whole.values), valid=inside(whole.valid))

    def array(whole: Array | Mask | None) -> Any:
        return None if whole is None else inside(whole)

    return dataclasses.replace(
        reference,
        display=array(reference.display),
        display_float=array(reference.display_float),
        lr_display=array(reference.lr_display),
        hr=image(reference.hr),
        pan=image(reference.pan),
        valid=scored(reference.valid),
        mask=array(reference.mask),
        cache={},
    )


@functools.cache
def registered(base: type[Metric]) -> type[Metric]:
    """The metric ``NAME_reg``: ``base`` after registration.

    Raises
    ------
    RfbenchError
        For a metric that compares no image with a reference: of sets, without a reference, of distributions.
    """
    if issubclass(base, _Registered):
        raise RfbenchError(f"unknown metric '{base.name}{SUFFIX}': {base.name} is registered already; leave it out")
    if not can_register(base):
        raise RfbenchError(
            f"unknown metric '{base.name}{SUFFIX}': {base.name} is no comparison of one image with its reference, so "
            "registration means nothing to it; leave it out"
        )
    attributes = {
        "__doc__": f"``{base.name}`` of the prediction registered to its reference (``bench.metrics.registered``).\n\n"
        f"    {base.__doc__}",
        "__module__": __name__,
        "name": base.name + SUFFIX,
        "title": f"{base.title} reg.",
        "min_side_px": base.min_side_px + 2 * WINDOW_PX,
        "parameters": (*base.parameters, *parameters()),
        "summary": f"{base.summary}, after registration" if base.summary else "",
        "default": None,
        "symmetric": None,  # it is the prediction that is moved and fitted
        "base": base,
    }
    return type(f"{base.__name__}Registered", (_Registered, base), attributes)


def parameters() -> tuple[str, ...]:
    """What registration adds to an identity."""
    return (f"reg{WINDOW_PX}px,blocks{_BLOCKS},spline3", "lsqgain+bias", f"reg-r{REVISION}")


def can_register(base: type[Metric]) -> bool:
    """Whether a metric compares one image with its reference."""
    return base.level == "image" and "reference" in base.needs and not {"distribution", "pan", "lr"} & {*base.needs}


class _Registered(Metric):
    base: type[Metric]

    def reference_state(self, reference: Reference) -> Any:
        """The cropped reference, and what ``base`` keeps of it."""
        cropped = _cropped(reference)
        return cropped, self.base.reference_state(self, cropped)

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float | Score:
        """The score of the registered prediction; notes say where no shift was found."""
        cropped, of_base = state
        found = register(estimate, reference, self.setting.quantise)
        if not cropped.valid.any():
            why = f"no pixel is {WINDOW_PX} px inside the data, which registration leaves out"
            return Score(reason=Reason("unfit", why))
        score = self.base.value(self, found.estimate, cropped, of_base)
        score = score if isinstance(score, Score) else Score(float(score))
        note = f"not moved: {found.shift.why_none}" if found.shift.why_none else None
        return dataclasses.replace(score, note="; ".join(n for n in (score.note, note) if n) or None)

    def _unmet(self, estimate: Estimate, reference: Reference) -> str | None:
        if reference.display is None or not estimate.display.size:
            return "registration needs bands R G B on both sides"
        return super()._unmet(estimate, reference)
