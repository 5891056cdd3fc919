"""NIQE with the published model of natural photographs, and with one fitted on the references themselves."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import weights
from bench.core.errors import Unavailable
from bench.core.image import Array
from bench.core.reason import Reason
from bench.metrics.base import Estimate, Features, Library, Metric, Reference, Score, SetScore
from bench.metrics.kernels import smoothed
from bench.metrics.networks import as_tensor, inference, quietly
from bench.metrics.software import PYIQA, TORCH

if TYPE_CHECKING:
    import torch

LIVE_FILE = "niqe_modelparameters.mat"
"""Of the LIVE release; ``live.json`` has its figures."""
BLOCK_PX = 96
SHARP = 0.75
_FEATURES = 36
_FLAT = "the image is flat: its blocks have no texture to describe"


class Niqe(Metric):
    """Natural image quality evaluator: the distance of an image's texture statistics from those of photographs.

    The LIVE release's own model, as pyiqa's ``niqe`` has it: luma of YIQ rounded to 8 bit, 36 features of blocks of
    96x96 px at two scales, a Gaussian fitted to the image's blocks against the model's. Blocks of which more than half
    is flat (saturated snow, water without waves) are left out and counted; their features are made of rounding. Needs
    no reference. Lower is better; photographs lie around 3. The model's figures come with rfbench.

    Source: A. Mittal, R. Soundararajan, A. C. Bovik, IEEE SPL 20(3), 2013, doi:10.1109/LSP.2012.2227726, eq. 10.

    Traps: strongly dependent on image size (one clean photograph: 2.7 whole, 4.9 at 256 px, 6.7 at 150x200), so a
    mean over small tiles is not comparable with a published value; MATLAB's toolbox model has another scale
    (7.2 for 15.8). The model is of photographs, not of satellite images: see ``niqe_ref``.
    """

    name = "niqe"
    title = "NIQE"
    decimals = 2
    default = 7
    direction = "down"
    group = "realism"
    needs = ()
    min_side_px = BLOCK_PX
    package = "torch"
    software = (TORCH,)
    library = Library("pyiqa", PYIQA, 1e-3, "PolyForm Noncommercial (pyiqa)")
    revision = 2
    weights_files = (LIVE_FILE,)
    parameters = ("live", "yiq", "block96")
    summary = "No-reference quality from texture statistics, LIVE model"
    equation = (
        "sqrt((m - m_0)' ((S + S_0) / 2)^-1 (m - m_0)), m and S of the image's blocks, m_0 and S_0 of photographs"
    )
    bounds = (0.0, math.inf)
    on_satellite = (
        "Its model is of sharp photographs from the ground. On a satellite image a low value says that local "
        "texture resembles theirs: noise and invented detail can lower it, and smooth ground (snow, water, "
        "bare soil) raises it whatever the quality. It cannot say whether what is seen is there. Compare "
        "models on the same images only, and look at niqe_ref."
    )
    citation = "mittal2013niqe"

    def setup(self) -> None:
        """Read the published figures; build pyiqa's network where it is asked for."""
        self._mean, self._covariance = published()
        if self.exact is not None:
            path = weights.find(LIVE_FILE, self.setting.weights_dir)
            with quietly():
                from pyiqa.archs.niqe_arch import NIQE

                self._pyiqa: torch.nn.Module = NIQE(pretrained_model_path=str(path))

    def lacking_weights(self) -> dict[str, Reason]:
        """The figures are ours to give; pyiqa wants the release's own file."""
        return super().lacking_weights() if self.exact is not None else {}

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> Score:
        """NIQE of the displayed image; a note says how many blocks were left out."""
        if self.exact is not None:
            with inference():
                return Score(float(self._pyiqa(as_tensor(estimate.display, self.setting.device))))
        found = block_features(estimate.display, self.setting.device)
        if not len(found.features):
            raise Unavailable(_FLAT)
        return Score(distance(self._mean, self._covariance, *_gaussian(found.features)), note=found.note)


@functools.cache
def published() -> tuple[np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of the features of photographs, as LIVE published them (``live.json``)."""
    text = resources.files("bench.metrics").joinpath("live.json").read_text(encoding="utf-8")
    found = json.loads(text)
    upper = np.zeros((_FEATURES, _FEATURES))
    upper[np.triu_indices(_FEATURES)] = found["covariance"]
    return np.array(found["mean"]), upper + np.triu(upper, 1).T


class NiqeRef(Metric):
    """NIQE whose model of natural images is fitted on the references of the same set instead of photographs.

    The published procedure of the LIVE release: blocks of 96x96 px of every reference, of these the ones whose
    sharpness (mean local standard deviation) is above 0.75 of the image's sharpest, one Gaussian for all. Then
    for each prediction the distance of eq. 10 between that Gaussian and the one of its own blocks, and the mean over
    images. Features are those of ``niqe``. Lower is better. The references are those of the whole set,
    also where a model failed, and their order does not matter; the hash of the fit is part of a value's identity.

    Source: as ``niqe``, section II-B; ``estimatemodelparam.m`` of the release.

    Traps: a value belongs to its set of references (``fit:`` in the identity) and cannot be compared across datasets.
    The references' own score is not 0. A fit needs 37 sharp blocks (``blocks`` in the details) and is rough below a few
    hundred. Blocks without texture, where a feature is undefined, are left out; the release leaves out the
    feature alone from the mean, which differs on pictures with flat parts only.
    """

    name = "niqe_ref"
    title = "NIQE-ref"
    decimals = 2
    direction = "down"
    group = "realism"
    level = "set"
    min_side_px = BLOCK_PX
    min_images = 2
    fits_references = True
    package = "torch"
    software = (TORCH,)
    revision = 2
    parameters = ("fit-references", "sharp0.75", "yiq", "block96")
    summary = "NIQE with its model fitted on the references"
    equation = (
        "mean over images of sqrt((m - m_0)' ((S + S_0) / 2)^-1 (m - m_0)), m_0 and S_0 of the references' sharp blocks"
    )
    bounds = (0.0, math.inf)
    on_satellite = (
        "The distance from the texture of this dataset's own HR images, so sensor and landscape are the right "
        "ones, and smooth ground counts against nobody. It is of texture alone: an image of the right grain "
        "in the wrong places scores well. Few or small references make the fit rough (blocks in the details)."
    )
    citation = "mittal2013niqe"

    def reference_state(self, reference: Reference) -> Blocks:
        """Features and sharpness of the reference's blocks."""
        assert reference.display is not None
        return block_features(reference.display, self.setting.device)

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """Block features of both images, and the sharpness of the reference's blocks."""
        prediction = block_features(estimate.display, self.setting.device)
        if not len(prediction.features):
            raise Unavailable(_FLAT)
        return {
            "prediction": prediction.features,
            "left_out": np.array([prediction.left_out], np.float64),
            **self.reference_features(reference, state),
        }

    def reference_features(self, reference: Reference, state: Any) -> Features:
        """Block features of the reference and their sharpness."""
        return {"reference": state.features, "reference_sharpness": state.sharpness}

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """Fit on the references' sharp blocks, then the mean distance of the predictions."""
        sharp = [f["reference"][_sharp(f["reference_sharpness"])] for f in features]
        blocks = np.concatenate(sharp).astype(np.float64)
        if len(blocks) <= _FEATURES:
            raise Unavailable(
                f"the references have {len(blocks)} sharp blocks of {BLOCK_PX}x{BLOCK_PX} px; a fit of "
                f"{_FEATURES} features needs at least {_FEATURES + 1}"
            )
        blocks = blocks[np.lexsort(blocks.T)]  # sums depend on the order of their terms in the last digits
        mean, covariance = _gaussian(blocks)
        distances = [
            distance(mean, covariance, *_gaussian(f["prediction"])) if "prediction" in f else None for f in features
        ]
        found = [d for d in distances if d is not None]
        fit = fit_hash(mean, covariance)
        return SetScore(
            float(np.mean(found)),
            per_image=tuple(distances),
            details={
                "fit_sha256": fit,
                "blocks": len(blocks),
                "blocks_left_out": int(sum(f["left_out"][0] for f in features if "left_out" in f)),
                "images": len(found),
                "references": len(features),
            },
            fit=fit[:8],
            fitted={"mean": mean, "covariance": covariance},
        )


@dataclass(frozen=True)
class Blocks:
    """What NIQE sees of an image: 36 features of each block, (N, 36), and the blocks' sharpness, (N,).

    ``left_out`` of the image's blocks have no texture to describe.
    """

    features: np.ndarray
    sharpness: np.ndarray
    left_out: int = 0

    @property
    def note(self) -> str | None:
        """What to say of blocks that are left out."""
        blocks = len(self.features) + self.left_out
        return f"{self.left_out} of {blocks} blocks are flat and left out" if self.left_out else None


def block_features(display: Array, device: str = "cpu") -> Blocks:
    """The 36 features of each whole block of 96x96 px and its sharpness (mean local deviation).

    Luma of YIQ rounded to 8 bit, local mean and deviation under a 7x7 Gaussian of sigma 7/6 with repeated edges, in
    double precision, at two scales. Where a window is flat its normalised value is 0, not what rounding leaves of it,
    which depends on the grey level. Left out are blocks whose moments do not exist, and those of which more than half
    is flat.

    Source: A. Mittal et al., IEEE SPL 20(3), 2013, eq. 1 to 8, with the constants of the LIVE release.
    """
    import torch

    with inference():
        rgb = torch.tensor(np.ascontiguousarray(np.moveaxis(display, 2, 0)), device=device).double()
        # To 9 digits before it is rounded: luma of exactly half a level falls to one side, whatever the order of sums.
        luma = ((0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) * 255.0).mul_(1e9).round_().div_(1e9).round_()
        rows, columns = luma.shape[0] // BLOCK_PX, luma.shape[1] // BLOCK_PX
        luma = luma[: rows * BLOCK_PX, : columns * BLOCK_PX]
        features, sharpness, flat = [], None, None
        for scale in (1, 2):
            side = BLOCK_PX // scale
            normalised, deviation = _normalised(luma)
            features.append(_described(_in_blocks(normalised, side)))
            if sharpness is None:
                sharpness = _in_blocks(deviation, side).mean(dim=(1, 2))
                flat = (_in_blocks(deviation, side) < _FLAT_DEVIATION).double().mean(dim=(1, 2)) > 0.5
                luma = _halved(_halved(luma).mT).mT
        assert sharpness is not None and flat is not None
        whole = torch.cat(features, dim=1).cpu().numpy()
    defined = np.isfinite(whole).all(axis=1) & ~flat.cpu().numpy()
    return Blocks(whole[defined], sharpness.cpu().numpy()[defined], int((~defined).sum()))


_FLAT_DEVIATION = 1e-3  # grey levels: rounding leaves 1e-6 of a flat surface, one pixel of one level 0.05
_SHAPES = np.linspace(0.2, 10.0, 9801)


def _normalised(luma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 1 to 3: (I - mu) / (sigma + 1), and sigma, of an image (H, W)."""
    from torch.nn.functional import pad

    padded = pad(luma[None, None], (3, 3, 3, 3), mode="replicate")[0, 0]
    mean = smoothed(padded, 3, 7 / 6)
    deviation = (smoothed(padded * padded, 3, 7 / 6) - mean * mean).abs_().sqrt_()
    # Of a flat window only rounding is left, whose signs the fits below would count.
    return ((luma - mean) / (deviation + 1.0)).masked_fill_(deviation < _FLAT_DEVIATION, 0.0), deviation


def _in_blocks(image: torch.Tensor, side: int) -> torch.Tensor:
    """An image (rows side, columns side) as its blocks (rows columns, side, side), row by row."""
    return image.unfold(0, side, side).unfold(1, side, side).reshape(-1, side, side).contiguous()


def _described(blocks: torch.Tensor) -> torch.Tensor:
    """The 18 features of blocks (N, side, side) at one scale, (N, 18): shape and scale of the normalised values, and of
    their products with four neighbours shape, mean, left and right scale (eq. 4 to 8)."""
    import torch

    shape, left, right = _asymmetric(blocks)
    found = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _asymmetric(blocks * blocks.roll(shift, dims=(1, 2)))
        found += [shape, (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape)), left, right]
    return torch.stack(found, dim=1)


def _asymmetric(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Asymmetric generalised Gaussians of blocks (N, side, side) by their moments, shapes in steps of 0.001.

    Source: N. Lasmar, Y. Stitou, Y. Berthoumieu, ICIP 2009, as the release has it.
    """
    import torch

    x = x.flatten(1)
    squares = x * x
    below, above = (x < 0).double(), (x > 0).double()
    left = ((squares * below).sum(1) / below.sum(1)).sqrt()
    right = ((squares * above).sum(1) / above.sum(1)).sqrt()
    skew = left / right
    ratio = x.abs().mean(1) ** 2 / squares.mean(1) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, middles = _shapes(x.device)
    # The nearest of a rising line of ratios: the last whose middle to the one before lies below.
    shape = shapes[torch.searchsorted(middles, ratio)]
    scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, left * scale, right * scale


@functools.cache
def _shapes(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The shapes that are tried, and between each two the middle of the ratios of moments that they give."""
    import torch

    shapes = torch.from_numpy(_SHAPES).to(device)
    ratios = torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))
    return shapes, (ratios[1:] + ratios[:-1]) / 2


def _halved(image: torch.Tensor) -> torch.Tensor:
    """Half the rows of an image: bicubic (a = -0.5) widened to 8 px against aliasing, edges mirrored, as MATLAB's
    ``imresize``."""
    import torch

    d = (np.arange(-3, 5) - 0.5) / 2
    d = np.abs(d)
    kernel = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2) * (d < 2)
    padded = torch.cat([image[:3].flip(0), image, image[-4:].flip(0)])
    total = torch.zeros_like(image[: image.shape[0] // 2])
    for i, weight in enumerate(kernel / kernel.sum()):
        total.add_(padded[i : i + image.shape[0] : 2], alpha=float(weight))
    return total


def _sharp(sharpness: np.ndarray) -> np.ndarray:
    return sharpness > SHARP * sharpness.max(initial=0.0)


def _gaussian(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased covariance; of a single block the covariance is 0, as in pyiqa."""
    x = blocks.astype(np.float64)
    mean = x.mean(axis=0)
    centred = x - mean
    return mean, centred.T @ centred / max(len(x) - 1, 1)


def distance(mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray) -> float:
    """NIQE's distance of two Gaussians (its eq. 10), with the pseudo-inverse that the release and pyiqa use."""
    inverse = np.linalg.pinv((covariance + other_covariance) / 2.0, rcond=np.finfo(np.float64).eps * _FEATURES)
    difference = mean - other_mean
    return float(np.sqrt(max(difference @ inverse @ difference, 0.0)))


def fit_hash(mean: np.ndarray, covariance: np.ndarray) -> str:
    """The SHA-256 of a fit to a millionth of its deviations: the same on machines that differ in the last digits."""
    deviation = np.sqrt(np.maximum(np.diag(covariance), np.finfo(np.float64).tiny))
    texts = [f"{d:.6e} {m / d:.6f}" for m, d in zip(mean, deviation, strict=True)]
    texts += [f"{c + 0.0:.6f}" for c in np.round(covariance / np.outer(deviation, deviation), 6).ravel()]
    return hashlib.sha256(",".join(texts).encode()).hexdigest()
