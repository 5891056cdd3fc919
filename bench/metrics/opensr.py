"""opensr-test's measures of Sentinel-2 systems: is the sensor's own signal kept, and is what was added true?

Three questions. *Consistency*: what the prediction, brought back to LR, has lost of it. *Synthesis*: how much was
added. *Correctness*: of what was added, how much lies towards the HR image (improvement), was left out (omission), or
is neither in the LR nor in the HR image (hallucination). All from images in reflectance, in the bands that all have.

Beside the package's own measures stands a second family, ``opensr_*_h``, without its two defects: there the HR
image is first brought to the LR's radiometry, so that a model is not praised for what only differs between two sensors;
and the same pixels are counted for every model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from bench.core.errors import Unavailable
from bench.core.image import RGB, Image
from bench.metrics.base import Estimate, Metric, Need, Reference
from bench.metrics.networks import inference
from bench.metrics.software import SKIMAGE, TORCH

if TYPE_CHECKING:
    import torch

BORDER_PX = 16
LIMIT_PX = 5.0
SHARE = 0.75
LAMBDA, TEMPERATURE = 0.05, 0.25
CLASSES = ("improvement", "omission", "hallucination")
UNCOUNTED = 255


@dataclass(frozen=True)
class Consistency:
    """How far the prediction, brought to LR, is from it: mean absolute difference, angle in degrees, shift in LR px."""

    reflectance: float
    spectral: float
    spatial: float


@dataclass(frozen=True)
class Correctness:
    """Where the prediction lies between LR and HR.

    Attributes
    ----------
    synthesis : mean absolute difference from the LR image brought to the grid.
    improvement, omission, hallucination : mean memberships of the counted pixels; together 1.
    coverage : the share of pixels that are counted.
    classes : uint8 (H, W), the index in ``CLASSES`` of a pixel's largest membership, ``UNCOUNTED`` where it has none.
    """

    synthesis: float
    improvement: float
    omission: float
    hallucination: float
    coverage: float
    classes: np.ndarray


def consistency(lr: np.ndarray, sr: np.ndarray, rgb: tuple[int, ...], border_px: int | None = None) -> Consistency:
    """Of an LR image (C, h, w) and a prediction (C, s h, s w) in reflectance; ``rgb`` are the bands that a shift is
    looked for in. ``border_px`` is cut on the prediction's grid: in whole LR pixels, by default 16 px or a little more.
    """
    low, high, scale = _cropped(lr, sr, border_px)
    with inference():
        down = _down(high, scale)
        spectral = math.nan if low.shape[0] < 2 else float(_angle(low, down).nanmean())
        shift = _shift(low[list(rgb)], down[list(rgb)])
        distance = math.hypot(*shift)
        return Consistency(float((low - down).abs().mean()), spectral, distance if distance <= LIMIT_PX else math.nan)


def correctness(
    lr: np.ndarray, sr: np.ndarray, hr: np.ndarray, *, harmonise: Literal["sr", "hr", ""] = "sr",
    border_px: int | None = None, threshold: float | None = None,
) -> Correctness:  # fmt: skip
    """Of an LR image (C, h, w), a prediction and an HR image (C, s h, s w) in reflectance.

    Parameters
    ----------
    harmonise : ``sr`` brings the prediction to the HR image (histograms, then place) as opensr-test does; ``hr`` the HR
        image to the LR's radiometry and the prediction to the HR's place, and counts the pixels where these two differ;
        empty leaves all as they are.
    threshold : the relative difference above which a pixel counts; None for the one that a quarter of the pixels'
        difference of LR and HR is above.
    """
    low, high, scale = _cropped(lr, sr, border_px)
    truth = _cropped(lr, hr, border_px)[1]
    with inference():
        up = _up(low, scale)
        if harmonise == "sr":
            high = _matched(high, truth)
        elif harmonise == "hr":
            truth = _fitted(truth, low, _down(truth, scale))
        if harmonise:
            high = _moved(high, _shift(high, truth))
        d_ref, d_im, d_om = (_relative(a, b) for a, b in ((up, truth), (high, truth), (high, up)))
        if threshold is None:
            threshold = float(d_ref.flatten().kthvalue(int(SHARE * d_ref.numel())).values)
        counted = d_ref > threshold
        if harmonise != "hr":
            counted = counted | (d_im > threshold) | (d_om > threshold)
        share = float(counted.double().mean())
        if share == 0.0:
            raise Unavailable("no pixel is counted: LR and HR differ by the same everywhere")
        members = _memberships(d_im[counted] / d_ref[counted], d_om[counted] / d_ref[counted])
        defined = members.isfinite().all(dim=0)
        classes = np.full(d_ref.shape, UNCOUNTED, np.uint8)
        classes[counted.numpy()] = np.where(defined, members.nan_to_num().argmax(dim=0), UNCOUNTED).astype(np.uint8)
        improvement, omission, hallucination = (float(m[defined].mean()) for m in members)
        synthesis = float((up - high).abs().mean())
        return Correctness(synthesis, improvement, omission, hallucination, coverage=share, classes=classes)


def _memberships(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How much a pixel belongs to each of ``CLASSES``, (3, N): ``a`` and ``b`` are its distances from HR and from LR,
    over that between the two."""
    import torch

    bend = 1 - torch.exp(-LAMBDA * (a + b - 1))
    apart = torch.stack([a + b * bend, b + a * bend, torch.exp(-LAMBDA * a * b)])
    nearness = torch.exp(-apart / TEMPERATURE)
    return nearness / nearness.sum(dim=0)


def _relative(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The normalised difference of two images (C, H, W), mean over bands, (H, W)."""
    return ((x - y).abs() / (x + y + 1e-8).abs()).mean(dim=0)


def _angle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The angle of each pixel's two spectra, degrees (H, W)."""
    import torch

    products = (x * y).sum(dim=0) / (x.norm(dim=0) * y.norm(dim=0))
    return torch.rad2deg(torch.acos(products.clamp(-1.0, 1.0)))


# --- grids ------------------------------------------------------------------------------------------------------------


def _cropped(lr: np.ndarray, hr: np.ndarray, border_px: int | None) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Both without the border, in double precision, and the factor between them."""
    import torch

    factors = {big / small for big, small in zip(hr.shape[1:], lr.shape[1:], strict=True)}
    (factor,) = factors if len(factors) == 1 else (0.5,)
    if not float(factor).is_integer():
        sizes = ("x".join(map(str, x.shape[1:])) for x in (lr, hr))
        raise Unavailable(f"LR of {next(sizes)} and HR of {next(sizes)} px, expected a whole number of times as many")
    scale = int(factor)
    cut = math.ceil((BORDER_PX if border_px is None else border_px) / scale)
    if min(lr.shape[1:]) <= 2 * cut + 1:
        raise Unavailable(f"{lr.shape[1]}x{lr.shape[2]} LR px leave nothing of a border of {cut} px")
    low, high = (
        torch.from_numpy(np.array(x[:, c : x.shape[1] - c, c : x.shape[2] - c], np.float64))
        for x, c in ((lr, cut), (hr, cut * scale))
    )
    return low, high, scale


def _up(low: torch.Tensor, scale: int) -> torch.Tensor:
    from torch.nn.functional import interpolate

    return interpolate(low[None], scale_factor=scale, mode="bilinear", antialias=True)[0] if scale > 1 else low


def _down(high: torch.Tensor, scale: int) -> torch.Tensor:
    from torch.nn.functional import interpolate

    return interpolate(high[None], scale_factor=1 / scale, mode="bilinear", antialias=True)[0]


# --- bringing one image to another ------------------------------------------------------------------------------------


def _shift(moving: torch.Tensor, fixed: torch.Tensor) -> tuple[float, float]:
    """Down and to the right, px, by which ``moving`` (C, H, W) fits ``fixed``: whitened phase correlation of the mean
    of the bands, to a fiftieth of a pixel."""
    from skimage.registration import phase_cross_correlation

    images = (x.mean(dim=0).numpy().astype(np.float32) for x in (fixed, moving))
    down, right = phase_cross_correlation(*images, upsample_factor=50)[0]
    return float(down), float(right)


def _moved(image: torch.Tensor, shift: tuple[float, float]) -> torch.Tensor:
    """An image (C, H, W) moved bilinearly, edges repeated; as it is where the shift is beyond the limit."""
    import torch
    from scipy import ndimage

    if math.hypot(*shift) > LIMIT_PX:
        return image
    return torch.from_numpy(np.stack([ndimage.shift(x, shift, order=1, mode="nearest") for x in image.numpy()]))


def _matched(image: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """An image with the histogram of another, band by band, exactly."""
    import torch
    from skimage.exposure import match_histograms

    return torch.from_numpy(match_histograms(image.numpy(), like.numpy(), channel_axis=0))


def _fitted(image: torch.Tensor, low: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    """An image by the gain and offset of each band that bring it, made ``small``, to the LR image.

    Least squares, three times, each time without the pixels that lie further off than three deviations: what changed
    between the two days says nothing about two sensors.
    """
    bands = []
    for band, x, y in zip(image, small.flatten(1).numpy(), low.flatten(1).numpy(), strict=True):
        kept, gain, offset = np.ones(x.shape, bool), 1.0, 0.0
        for _ in range(3):
            spread = float(np.var(x[kept]))
            gain = float(np.cov(x[kept], y[kept], bias=True)[0, 1]) / spread if spread > 1e-12 else 1.0
            offset = float(y[kept].mean() - gain * x[kept].mean())
            off = np.abs(y - gain * x - offset)
            deviation = 1.4826 * float(np.median(off))
            if deviation <= 1e-9:
                break
            kept = off <= 3 * deviation
        bands.append(gain * band + offset)
    import torch

    return torch.stack(bands)


# --- the metrics ------------------------------------------------------------------------------------------------------


class _Opensr(Metric):
    """What the measures share: three images in the bands that all have, looked at once for all of them."""

    group = "physics"
    direction: ClassVar[Literal["up", "down"]] = "down"
    display = False
    needs: ClassVar[tuple[Need, ...]] = ("reference", "lr", "reflectance")
    package = "skimage"
    software = (SKIMAGE, TORCH)
    decimals = 3
    parameters: tuple[str, ...] = ("sharedbands", "border16up")
    citation = "aybar2024opensrtest"
    measure: ClassVar[str]
    harmonised: ClassVar[Literal["sr", "hr"]] = "sr"

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The measure of one image."""
        found = float(getattr(self._looked_at(estimate, reference), self.measure))
        if not math.isfinite(found):
            raise Unavailable(self._undefined)
        return found

    _undefined: ClassVar[str] = "no counted pixel has a class"

    def _looked_at(self, estimate: Estimate, reference: Reference) -> Consistency | Correctness:
        return _correctness(estimate, reference, self.harmonised)


def class_map(estimate: Estimate, reference: Reference, harmonised: Literal["sr", "hr"] = "sr") -> np.ndarray:
    """Where a prediction improves, omits and invents: uint8 (H, W) on the reference's grid, indices in ``CLASSES``, and
    ``UNCOUNTED`` in the border and where LR, prediction and HR agree.

    Both sides come from ``bench.score.replay.replay`` for a finished run. ``harmonised`` as ``correctness`` has it:
    ``sr`` is the map behind ``opensr_improvement``, ``hr`` that behind ``opensr_improvement_h``.

    Raises
    ------
    Unavailable
        What the metrics give as their reason.
    """
    if reference.hr is None or reference.lr is None or estimate.image is None:
        raise Unavailable("a class map needs LR, HR and prediction in reflectance")
    found = _correctness(estimate, reference, harmonised).classes
    whole = np.full(reference.hr.size, UNCOUNTED, np.uint8)
    top, left = ((n - m) // 2 for n, m in zip(whole.shape, found.shape, strict=True))
    whole[top : top + found.shape[0], left : left + found.shape[1]] = found
    return whole


def _correctness(estimate: Estimate, reference: Reference, harmonised: Literal["sr", "hr"]) -> Correctness:
    """Looked at once for all metrics of a family."""
    key = f"opensr:{harmonised}"
    if key not in estimate.cache:
        assert estimate.image is not None and reference.lr is not None and reference.hr is not None
        (lr, sr, hr), _ = _shared(reference.lr, estimate.image, reference.hr)
        estimate.cache[key] = correctness(lr, sr, hr, harmonise=harmonised)
    found: Correctness = estimate.cache[key]
    return found


def _shared(lr: Image, *others: Image) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Images in reflectance, (C, H, W) in the bands that all have, and those bands."""
    images = (lr, *others)
    bands = tuple(b for b in others[-1].bands if all(b in i.bands for i in images) and b != "PAN")
    if not bands:
        raise Unavailable(f"LR and prediction {'and HR ' * (len(others) > 1)}share no band")
    if lr.size == others[0].size:
        raise Unavailable(
            "LR and prediction have one size (a protocol's border_px brings LR there); leave border_px at 0"
        )
    if any(i.unit != "reflectance" for i in images):
        raise Unavailable("the LR image is not in reflectance")
    if not lr.valid.all():
        raise Unavailable(f"{int((~lr.valid).sum())} LR pixels without data")
    return [np.ascontiguousarray(np.moveaxis(i.select(bands).values, 2, 0)) for i in images], bands


class _Consistency(_Opensr):
    needs = ("lr", "reflectance")
    on_satellite = (
        "It asks whether the sensor's own signal was kept, not whether what was added is true: bicubic enlargement is "
        "nearly perfect here, and a model that answers in the colours of the HR sensor is marked down for it."
    )

    def _looked_at(self, estimate: Estimate, reference: Reference) -> Consistency | Correctness:
        if "opensr:lr" not in estimate.cache:
            assert estimate.image is not None and reference.lr is not None  # ``needs`` says so
            (lr, sr), bands = _shared(reference.lr, estimate.image)
            rgb = tuple(bands.index(b) for b in RGB) if set(RGB) <= set(bands) else (0,)
            estimate.cache["opensr:lr"] = consistency(lr, sr, rgb)
        found: Consistency = estimate.cache["opensr:lr"]
        return found


class OpensrReflectance(_Consistency):
    """Consistency of reflectance with the LR image: mean absolute difference, after the prediction is brought to LR.

    Bilinear with antialiasing, over pixels and the bands that both have, without a border of 16 px (in whole LR pixels,
    so that any factor works). As opensr-test 1.3.3's ``reflectance``.

    Source: C. Aybar et al., IEEE GRSL 21, 2024, doi:10.1109/LGRS.2024.3401394.

    Traps: a model that answers in the HR sensor's radiometry is penalised here, as it should be.
    """

    name = "opensr_reflectance"
    title = "Refl."
    family = ("opensr", 1)
    decimals = 4
    summary = "opensr-test: difference from LR in reflectance"
    equation = "mean |LR - down(SR)|"
    bounds = (0.0, math.inf)
    measure = "reflectance"


class OpensrSpectral(_Consistency):
    """Consistency of spectra with the LR image: mean angle over the bands that both have, in degrees, after the
    prediction is brought to LR. As opensr-test 1.3.3's ``spectral``; one band has no angle.

    Source: as ``opensr_reflectance``.

    Traps: as ``sam_refl``: an offset makes angles small.
    """

    name = "opensr_spectral"
    title = "Spectral"
    family = ("opensr", 2)
    unit = "degrees"
    decimals = 2
    summary = "opensr-test: spectral angle to LR"
    equation = "mean arccos(LR . down(SR) / (|LR| |down(SR)|))"
    bounds = (0.0, 180.0)
    measure = "spectral"
    _undefined = "one band, or zero spectra alone, have no angle"


class OpensrSpatial(_Consistency):
    """Consistency of place with the LR image: length of the shift between it and the prediction brought to LR, LR px.

    Whitened phase correlation of the mean of R, G, B, to a fiftieth of a pixel; beyond 5 px a reason. As opensr-test
    1.3.3's ``spatial``.

    Source: as ``opensr_reflectance``.

    Traps: flat images report shifts that mean nothing (1.05 px).
    """

    name = "opensr_spatial"
    title = "Spatial"
    family = ("opensr", 3)
    unit = "LR px"
    decimals = 3
    summary = "opensr-test: shift against LR"
    equation = "|shift of phase correlation|"
    bounds = (0.0, LIMIT_PX)
    measure = "spatial"
    _undefined = f"the shift against LR is beyond {LIMIT_PX:g} px"


class OpensrSynthesis(_Opensr):
    """How much a prediction adds: mean absolute difference of the prediction, brought to the HR image's histograms and
    place, from the LR image brought to its grid bilinearly. As opensr-test 1.3.3's ``synthesis``.

    Source: as ``opensr_reflectance``.

    Traps: neither more nor less is better by itself; read it beside ``opensr_hallucination``.
    """

    name = "opensr_synthesis"
    title = "Synthesis"
    family = ("opensr", 4)
    direction = "up"
    describes = True
    decimals = 4
    parameters = ("sharedbands", "border16up", "hist", "pcc5px")
    summary = "opensr-test: how much was added to LR"
    equation = "mean |up(LR) - SR_h|"
    bounds = (0.0, math.inf)
    measure = "synthesis"


class OpensrImprovement(_Opensr):
    """Of what differs between LR, prediction and HR, the share that lies towards HR; 1 is best.

    The prediction is brought to the HR image's histograms, exactly, and to its place. With the normalised differences
    d_ref of LR and HR, d_im of prediction and HR, d_om of prediction and LR, a pixel counts where one of them is above
    the value that a quarter of d_ref is above; a = d_im / d_ref, b = d_om / d_ref, and the pixel belongs by a
    softmin of temperature 0.25 to I = a + b (1 - e^(-0.05 (a + b - 1))), to O, the same with a and b exchanged, and to
    U = e^(-0.05 a b). The mean over counted pixels, as opensr-test 1.3.3.

    Source: as ``opensr_reflectance``.

    Traps: the package's matching counts radiometry as improvement: bilinear upsampling of LR scores 0.13, and 0.88 with
    an HR image that is half as bright again; ``opensr_improvement_h`` gives it 0.02 either way. Counted pixels differ
    between models.
    """

    name = "opensr_improvement"
    title = "Improv."
    family = ("opensr", 5)
    direction: ClassVar[Literal["up", "down"]] = "up"
    parameters = ("sharedbands", "border16up", "hist", "pcc5px", "nd", "auto75", "lambda0.05", "softmin0.25")
    summary = "opensr-test: share of change that is true"
    equation = "mean softmin_T(I, O, U)_I over counted pixels"
    bounds = (0.0, 1.0)
    measure = "improvement"


class OpensrOmission(OpensrImprovement):
    """Of what differs between LR, prediction and HR, the share that the prediction left as LR has it; 0 is best.

    Everything else as ``opensr_improvement``.
    """

    name = "opensr_omission"
    title = "Omission"
    family = ("opensr", 6)
    direction = "down"
    summary = "opensr-test: share of change that is left out"
    equation = "mean softmin_T(I, O, U)_O over counted pixels"
    measure = "omission"


class OpensrHallucination(OpensrImprovement):
    """Of what differs between LR, prediction and HR, the share that is in neither LR nor HR; 0 is best.

    Everything else as ``opensr_improvement``.
    """

    name = "opensr_hallucination"
    title = "Halluc."
    family = ("opensr", 7)
    direction = "down"
    summary = "opensr-test: share of change that is invented"
    equation = "mean softmin_T(I, O, U)_U over counted pixels"
    measure = "hallucination"


_HARMONISED = ("sharedbands", "border16up", "hr-to-lr", "pcc5px", "nd", "ref75", "lambda0.05", "softmin0.25")


class OpensrImprovementH(OpensrImprovement):
    """``opensr_improvement`` with the HR image brought to the LR's radiometry, and the same pixels for every model.

    A gain and an offset of each band, fitted to the LR image by least squares without what lies off, are applied to the
    HR image; the prediction keeps its radiometry and is only moved to the HR's place. Counted are the pixels whose
    difference of LR and HR is among its largest quarter, whatever the prediction.

    Source: ours, after ``opensr_improvement``.

    Traps: not comparable with published opensr-test values; those are ``opensr_improvement``. An answer in the HR
    sensor's own radiometry, the HR image itself included, is penalised for it.
    """

    name = "opensr_improvement_h"
    title = "Improv.-h"
    family = ("opensr", 8)
    parameters = _HARMONISED
    summary = "Share of change that is true, HR in LR's radiometry"
    harmonised = "hr"


class OpensrOmissionH(OpensrOmission):
    """``opensr_omission`` with the HR image brought to the LR's radiometry, and the same pixels for every model.

    Everything else, and the traps, as ``opensr_improvement_h``.
    """

    name = "opensr_omission_h"
    title = "Omission-h"
    family = ("opensr", 9)
    parameters = _HARMONISED
    summary = "Share of change that is left out, HR in LR's radiometry"
    harmonised = "hr"


class OpensrHallucinationH(OpensrHallucination):
    """``opensr_hallucination`` with the HR image brought to the LR's radiometry, and the same pixels for every model.

    Everything else, and the traps, as ``opensr_improvement_h``.
    """

    name = "opensr_hallucination_h"
    title = "Halluc.-h"
    family = ("opensr", 10)
    parameters = _HARMONISED
    summary = "Share of change that is invented, HR in LR's radiometry"
    harmonised = "hr"
