"""NIQE with the published model of natural photographs, and with one fitted on the references themselves."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench import weights
from bench.core.errors import Unavailable
from bench.core.image import Array
from bench.metrics.base import Estimate, Features, Metric, Reference, SetScore
from bench.metrics.networks import as_tensor, inference, quietly
from bench.metrics.software import PYIQA

BLOCK_PX = 96
SHARP = 0.75
_FEATURES = 36
_FLAT = "the image is flat: its blocks have no texture to describe"


class Niqe(Metric):
    """Natural image quality evaluator: the distance of an image's texture statistics from those of photographs.

    pyiqa's ``niqe`` with the LIVE release's own model: luma of YIQ rounded to 8 bit, 36 features of blocks of 96x96
    px at two scales, a Gaussian fitted to the image's blocks against the model's. Needs no reference. Lower is
    better; photographs lie around 3.

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
    package = "pyiqa"
    software = (PYIQA,)
    licence = "PolyForm Noncommercial (pyiqa)"
    weights_files = ("niqe_modelparameters.mat",)
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
        """Read the model."""
        path = weights.find(self.weights_files[0], self.setting.weights_dir)
        with quietly():
            from pyiqa.archs.niqe_arch import NIQE

            self._network = NIQE(pretrained_model_path=str(path))

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """NIQE of the displayed image."""
        import torch

        if np.ptp(estimate.display) == 0.0:
            raise Unavailable(_FLAT)
        try:
            with inference():
                score = float(self._network(as_tensor(estimate.display, self.setting.device)))
        except torch.linalg.LinAlgError as error:
            raise Unavailable(_FLAT) from error
        if not np.isfinite(score):
            raise Unavailable(_FLAT)
        return score


class NiqeRef(Metric):
    """NIQE whose model of natural images is fitted on the references of the same set instead of photographs.

    The published procedure of the LIVE release: blocks of 96x96 px of every reference, of these the ones whose
    sharpness (mean local standard deviation) is above 0.75 of the image's sharpest, one Gaussian for all. Then
    for each prediction the distance of eq. 10 between that Gaussian and the one of its own blocks, and the mean over
    images. Features are those of ``niqe`` (pyiqa's code). Lower is better. The references are those of the whole set,
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
    package = "pyiqa"
    software = (PYIQA,)
    licence = "PolyForm Noncommercial (pyiqa)"
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

    def setup(self) -> None:
        """Import pyiqa's features."""
        with quietly():
            from pyiqa.archs import niqe_arch  # noqa: F401

    def reference_state(self, reference: Reference) -> tuple[np.ndarray, np.ndarray]:
        """Features and sharpness of the reference's blocks."""
        assert reference.display is not None
        return block_features(reference.display)

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """Block features of both images, and the sharpness of the reference's blocks."""
        prediction, _ = block_features(estimate.display)
        if not len(prediction):
            raise Unavailable(_FLAT)
        return {"prediction": prediction, **self.reference_features(reference, state)}

    def reference_features(self, reference: Reference, state: Any) -> Features:
        """Block features of the reference and their sharpness."""
        blocks, sharpness = state
        return {"reference": blocks, "reference_sharpness": sharpness}

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
            details={"fit_sha256": fit, "blocks": len(blocks), "images": len(found), "references": len(features)},
            fit=fit[:8],
            fitted={"mean": mean, "covariance": covariance},
        )


def block_features(display: Array) -> tuple[np.ndarray, np.ndarray]:
    """The 36 features of each whole block of 96x96 px and its sharpness, as pyiqa's ``niqe`` sees the image.

    Returns
    -------
    float64 (N, 36) and (N,), without blocks that have an undefined feature
    """
    import torch
    from pyiqa.archs.func_util import diff_round, normalize_img_with_gauss, safe_sqrt
    from pyiqa.archs.niqe_arch import compute_feature
    from pyiqa.matlab_utils import blockproc, fspecial, imfilter, imresize
    from pyiqa.utils.color_util import to_y_channel

    with inference():
        image = diff_round(to_y_channel(as_tensor(display, "cpu"), 255, "yiq")).to(torch.float64)
        rows, columns = image.shape[-2] // BLOCK_PX, image.shape[-1] // BLOCK_PX
        image = image[..., : rows * BLOCK_PX, : columns * BLOCK_PX]
        kernel = fspecial(7, 7.0 / 6, 1).to(image)
        mean = imfilter(image, kernel, padding="replicate")
        sigma = safe_sqrt((imfilter(image**2, kernel, padding="replicate") - mean**2).abs())
        sharpness = blockproc(sigma, [BLOCK_PX, BLOCK_PX], fun=lambda x, _: x.mean(dim=(1, 2, 3))[:, None])
        scales = []
        for scale in (1, 2):
            normalised = normalize_img_with_gauss(image, padding="replicate")
            scales.append(blockproc(normalised, [BLOCK_PX // scale] * 2, fun=compute_feature))
            if scale == 1:
                image = imresize(image / 255.0, scale=0.5, antialiasing=True) * 255.0
        found = torch.cat(scales, -1)[0].numpy()
    defined = np.isfinite(found).all(axis=1)
    return found[defined], sharpness[0, :, 0].numpy()[defined]


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
