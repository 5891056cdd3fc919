"""How real a set of images is to newer networks than Inception: DINOv2's and CLIP's, through torch-fidelity.

Each file of weights is verified before it is read. torch-fidelity would download the weights, and DINOv2's code with
them; here its extractors are given both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench import weights
from bench.core.errors import Unavailable
from bench.metrics.base import Features, SetScore, Setting
from bench.metrics.distances import covered, frechet_distance, gaussian_distance
from bench.metrics.features import OfFeatures, both_sides
from bench.metrics.networks import fill, load_state, quietly, ready, replaced

if TYPE_CHECKING:
    import torch

DINOV2_FILE = "dinov2_vitl14_pretrain.pth"
CLIP_FILE = "ViT-L-14-336px.pt"
_NEIGHBOURS = 3
_SIGMA, _SCALE = 10.0, 1000.0

_BY_DINOV2 = (
    "DINOv2 learned from photographs without labels, so it is less bound to kinds of objects than Inception, and "
    "follows what people call real better; it has seen few satellite images, and sees an image that was "
    "brought to 224 px as 16 x 16 patches of 14 px: detail finer than that is lost on it."
)
_SCALE_OF = "'rfbench check metric {name}' prints its floor and its ceiling on this machine."


class _Dinov2(OfFeatures):
    """What metrics of DINOv2's class token share: torch-fidelity's ``dinov2-vit-l-14``."""

    extractor = "dinov2-vit-l-14"
    weights_files = (DINOV2_FILE,)

    def setup(self) -> None:
        """Build the network once for all metrics that share it."""
        self._network = _dinov2(weights.find(DINOV2_FILE, self.setting.weights_dir), self.setting)


@functools.lru_cache(maxsize=2)
def _dinov2(path: Path, setting: Setting) -> torch.nn.Module:
    state = load_state(path.name, setting)
    with quietly():
        import torch
        from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

        from bench.metrics.dinov2 import DinoV2

        try:
            network = DinoV2.of(state)
        except KeyError as error:
            raise Unavailable(f"{path.name} does not fit its network: it has no {error}") from error
        fill(network, state, path.name, assign=True)
        with replaced(torch.hub, load=lambda *args, **kwargs: network):  # where the extractor asks for it
            return ready(FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"]), setting)


class FdDinov2(_Dinov2):
    """Fréchet distance between the predictions and the references of a set in DINOv2's features; 0 for equal Gaussians.

    The distance of ``fid_tf`` with the class token of DINOv2 ViT-L/14 (1024 features) instead of Inception's pool.
    Images are resized to 224x224 as torch-fidelity does (bilinearly, as TensorFlow 1 did, without antialiasing).

    Source: G. Stein et al., NeurIPS 2023, arXiv:2306.04675; features: torch-fidelity 0.4, ``dinov2-vit-l-14``.

    Traps: the paper's code resizes bicubically with antialiasing, so its values are others. Of hundreds where FID is of
    tens: the two have no common scale. Biased upwards for few images, as every Fréchet distance.
    """

    name = "fd_dinov2"
    title = "FD-DINOv2"
    decimals = 1
    direction = "down"
    family = ("modern", 10)
    parameters = ("dinov2-vit-l-14", "cls", "tf1resize", "cov-unbiased")
    summary = "Fréchet distance in DINOv2's features"
    equation = "|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))"
    bounds = (0.0, math.inf)
    perfect = 0.0
    symmetric = True
    on_satellite = (
        f"{_BY_DINOV2} It orders methods on one dataset at one number of images; 0 is HR against HR, noise and "
        "unrelated photographs are its ceiling, and a difference below that of two halves of the HR images is none. "
        + _SCALE_OF.format(name=name)
    )
    citation = "stein2023exposing oquab2024dinov2"

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The distance; ``details`` holds the number of images, without which it means nothing."""
        return SetScore(frechet_distance(*both_sides(features)), details={"images": len(features)})


class _Covered(_Dinov2):
    """What precision and recall share."""

    decimals = 3
    direction = "up"
    min_images = _NEIGHBOURS + 1
    parameters = ("dinov2-vit-l-14", "cls", "tf1resize", f"knn{_NEIGHBOURS}")
    bounds = (0.0, 1.0)
    perfect = 1.0
    symmetric = False
    citation = "kynkaanniemi2019precision stein2023exposing oquab2024dinov2"


class PrecisionDinov2(_Covered):
    """The share of predictions that lie among the references in DINOv2's features; 1 where all do.

    A prediction counts where it is within the distance of some reference to its third nearest other reference: inside
    what the references cover. Distances are Euclidean, in double precision; features as of ``fd_dinov2``.

    Source: T. Kynkäänniemi et al., NeurIPS 2019, arXiv:1904.06991, eq. 1 and 2, with k = 3; the features as in G. Stein
    et al., NeurIPS 2023, arXiv:2306.04675; both as in torch-fidelity 0.4 (``--prc``).

    Traps: the paper's features are VGG16's, its values others. In steps of one over the number of images; grows with
    that number; a single odd reference has a large ball that takes much in.
    """

    name = "precision_dinov2"
    title = "Precision"
    family = ("modern", 12)
    summary = "Share of predictions among the references (DINOv2)"
    equation = "mean over predictions x of [some reference y has |x - y| <= |y - its 3rd nearest other reference|]"
    on_satellite = (
        f"{_BY_DINOV2} Low where predictions look like no HR image of the set, whatever the place: it knows nothing of "
        "where things lie. 1 is HR against HR; unrelated photographs are near 0. " + _SCALE_OF.format(name=name)
    )

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The share of predictions that the references cover."""
        predictions, references = both_sides(features)
        return SetScore(covered(predictions, references, _NEIGHBOURS), details={"images": len(features)})


class RecallDinov2(_Covered):
    """The share of references that lie among the predictions in DINOv2's features; 1 where all do.

    ``precision_dinov2`` with both sides exchanged: a reference counts where it is within the distance of some
    prediction to its third nearest other prediction.

    Source: as ``precision_dinov2``.

    Traps: as ``precision_dinov2``. A model that answers everything with one kind of image has a high precision and a
    low recall; one whose images are noise may have large balls, and so a high recall: read both.
    """

    name = "recall_dinov2"
    title = "Recall"
    family = ("modern", 13)
    summary = "Share of references among the predictions (DINOv2)"
    equation = "mean over references y of [some prediction x has |x - y| <= |x - its 3rd nearest other prediction|]"
    on_satellite = (
        f"{_BY_DINOV2} Low where the predictions lack kinds of ground that the HR images have. 1 is HR against HR; "
        "unrelated photographs are near 0. " + _SCALE_OF.format(name=name)
    )

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The share of references that the predictions cover."""
        predictions, references = both_sides(features)
        return SetScore(covered(references, predictions, _NEIGHBOURS), details={"images": len(features)})


class Cmmd(OfFeatures):
    """CLIP maximum mean discrepancy between the predictions and the references of a set; 0 is expected for equal
    distributions, and small negative values occur.

    1000 times the unbiased squared MMD of the images' CLIP embeddings (ViT-L/14 at 336 px, 768 features, brought to
    length one) with a Gaussian kernel of sigma 10. It assumes no Gaussian features, and has no bias in the number of
    images. Images are resized to 336x336 as torch-fidelity does (bilinearly, as TensorFlow 1 did).

    Source: S. Jayasumana et al., CVPR 2024, arXiv:2401.09603 (the unbiased estimate; sigma 10, times
    1000); features: torch-fidelity 0.4, ``clip-vit-l-14-336px``.

    Traps: the authors' code resizes bicubically and computes the biased estimate, which for few images is larger by
    about 1000 (2 - k(x) - k(y)) / N, with the mean kernels k of each side: some hundredths at 100 images, nothing at
    their 30,000. Spread grows below some hundred images.
    """

    name = "cmmd"
    title = "CMMD"
    decimals = 3
    direction = "down"
    family = ("modern", 11)
    extractor = "clip-vit-l-14-336px"
    weights_files = (CLIP_FILE,)
    parameters = ("clip-vit-l-14-336px", "unitlength", "tf1resize", "rbf10", "unbiased", "x1000")
    summary = "Maximum mean discrepancy in CLIP's embeddings"
    equation = (
        "1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y)), k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), sigma = 10, "
        "pairs of one image with itself left out"
    )
    bounds = (-2 * _SCALE * (1 - math.exp(-2 / _SIGMA**2)), 2 * _SCALE * (1 - math.exp(-2 / _SIGMA**2)))
    symmetric = True
    on_satellite = (
        "CLIP learned from photographs and their captions. Embeddings of unrelated photographs have a cosine of some "
        "0.67 to each other, and all satellite images look alike to it, so its whole range on them is narrow: 0 is HR "
        "against HR, and noise and unrelated photographs its ceiling. It orders methods that change what an image "
        "seems to show; it is nearly blind to fine detail. " + _SCALE_OF.format(name=name)
    )
    citation = "jayasumana2024cmmd radford2021clip"

    def setup(self) -> None:
        """Build the network from the verified file, an archive of TorchScript of which the tensors alone are used."""
        self._network = _clip(weights.find(CLIP_FILE, self.setting.weights_dir), self.setting)

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The discrepancy of all images."""
        predictions, references = ([_unit(v) for v in side] for side in both_sides(features))
        value = _SCALE * gaussian_distance(predictions, references, _SIGMA)
        return SetScore(value, details={"images": len(features)})


def _unit(vector: np.ndarray) -> np.ndarray:
    whole = vector.astype(np.float64)
    return np.asarray(whole / np.linalg.norm(whole))


@functools.lru_cache(maxsize=2)
def _clip(path: Path, setting: Setting) -> torch.nn.Module:
    with quietly():
        from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP

        try:
            network = FeatureExtractorCLIP("clip-vit-l-14-336px", ["clip"], feature_extractor_weights_path=str(path))
        except (RuntimeError, KeyError) as error:
            raise Unavailable(f"{path.name} does not fit its network: {type(error).__name__}") from error
        return ready(network, setting)
