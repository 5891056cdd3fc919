"""How real images look, one by one or as a set: FID, KID, MANIQA and the spectrum of their detail."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench import weights
from bench.core.image import Array
from bench.metrics.base import Estimate, Features, Metric, Reference, SetScore, Setting
from bench.metrics.distances import frechet_distance, kernel_distance
from bench.metrics.features import OfFeatures, both_sides
from bench.metrics.networks import as_tensor, fill, inference, load_state, quietly, ready, replaced
from bench.metrics.software import PYIQA

if TYPE_CHECKING:
    import torch

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


class _Inception(OfFeatures):
    """What FID and KID share: the 2048 pool features of torch-fidelity's InceptionV3.

    Images are brought to 299x299 bilinearly as TensorFlow 1 did, without antialiasing, and scaled as (x - 128) / 128.
    Any input size works.
    """

    direction = "down"
    extractor = "inception-v3-compat-2048"
    weights_files = (INCEPTION_FILE,)

    def setup(self) -> None:
        """Build the network once for both metrics."""
        path = weights.find(INCEPTION_FILE, self.setting.weights_dir)
        self._network = _inception(path, self.setting)


@functools.lru_cache(maxsize=2)
def _inception(path: Path, setting: Setting) -> torch.nn.Module:
    state = load_state(path.name, setting)
    with quietly():
        from torch_fidelity import feature_extractor_inceptionv3 as module

        # its constructor would unpickle a given path unchecked; without a path it asks this function
        with replaced(module, load_state_dict_from_url=lambda *args, **kwargs: state):
            network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    return ready(network, setting)


class FidTf(_Inception):
    """Fréchet inception distance between the predictions and the references of a set; 0 for equal Gaussians.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` with the means and unbiased covariances of the features of
    torch-fidelity's ``inception-v3-compat`` (the resizing and weights of the original TensorFlow code). The
    trace of the root is the nuclear norm of the cross matrix of the centred, scaled features, computed in double
    precision; exact, and stable with fewer images than the 2048 dimensions.

    Source: M. Heusel et al., NeurIPS 2017, arXiv:1706.08500, eq. 6; features: torch-fidelity 0.4.

    Traps: strongly biased upwards below some 10,000 images (equal distributions of 50 images can differ by 100);
    compare only equal numbers of images of the same scenes, and look at ``kid_tf``. clean-fid's numbers differ.
    """

    name = "fid_tf"
    title = "FID"
    decimals = 2
    default = 6
    parameters = ("inception-v3-compat", "2048", "tf1resize", "cov-unbiased")
    summary = "Fréchet inception distance, TensorFlow-compatible"
    equation = "|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))"
    bounds = (0.0, math.inf)
    perfect = 0.0
    symmetric = True
    on_satellite = (
        "The network knows photographs of objects, not bands, scales or landscapes from above. It tells two "
        "sets of images apart by colour, blur and texture, which orders methods on one dataset at one number "
        "of images; its size means nothing, and differences below those of resampled images mean nothing "
        "either."
    )
    citation = "heusel2017fid szegedy2016inception"

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The distance; ``details`` holds the number of images, without which it means nothing."""
        return SetScore(frechet_distance(*both_sides(features)), details={"images": len(features)})


class KidTf(_Inception):
    """Kernel inception distance: the unbiased squared MMD of the same features as ``fid_tf``; 0 is expected for
    equal distributions, and small negative values occur.

    Polynomial kernel ``(x.y / 2048 + 1)^3``. All images at once instead of random subsets, so the value does not
    depend on a seed; it is torch-fidelity's with one subset of all images.

    Source: M. Binkowski, D. J. Sutherland, M. Arbel, A. Gretton, ICLR 2018, arXiv:1801.01401, section 4.

    Traps: often printed times 1000; not so here. Unbiased, but of large variance for few images.
    """

    name = "kid_tf"
    title = "KID"
    decimals = 4
    parameters = ("inception-v3-compat", "2048", "tf1resize", "poly3,1/d,1", "unbiased", "all")
    summary = "Kernel inception distance, TensorFlow-compatible"
    equation = (
        "mean k(x, x') + mean k(y, y') - 2 mean k(x, y), k(x, y) = (x.y / 2048 + 1)^3, "
        "pairs of one image with itself left out"
    )
    symmetric = True
    on_satellite = (
        "As fid_tf: it orders methods on one dataset by colour, blur and texture as a network of photographs "
        "sees them. Unbiased, so values at different numbers of images may be compared, with their scatter in "
        "mind."
    )
    citation = "binkowski2018kid szegedy2016inception"

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The squared MMD of all images."""
        return SetScore(kernel_distance(*both_sides(features)), details={"images": len(features)})


class ManiqaKoniq(Metric):
    """MANIQA, a vision transformer's opinion of one image, trained on KonIQ-10k; needs no reference.

    pyiqa 0.1.16's ``maniqa``: a fixed grid of 20 crops of 224x224 (5 columns by 4 rows of a 5x5 grid; the last
    row is never used), images of 224 px and less upsampled bilinearly to 225 on their short side, one weighted
    mean over the patches of all crops. Crops that coincide are computed once, and the last two blocks of the
    transformer, which nothing reads, are left out; the value stays pyiqa's. Range 0 to 1, higher is better.

    Source: S. Yang et al., CVPR Workshops 2022, doi:10.1109/CVPRW56347.2022.00126.

    Traps: the checkpoint and its scale (0.8; 0.13 for PIPAL) belong together and give other numbers than
    ``maniqa_pipal``, which papers on super-resolution use; the official code takes 20 random crops (about 1e-3
    apart); older pyiqa too. 2 s a crop on two cores, up to 20 crops an image.
    """

    name = "maniqa_koniq"
    title = "MANIQA"
    decimals = 3
    default: ClassVar[int | None] = 8
    slow_on_cpu = True
    direction = "up"
    group = "realism"
    needs = ()
    package = "pyiqa"
    software = (PYIQA,)
    licence = "PolyForm Noncommercial (pyiqa)"
    weights_files = ("ckpt_koniq10k.pt",)
    parameters = ("koniq", "scale0.8", "crops20grid", "up225")
    summary = "No-reference quality by MANIQA (KonIQ-10k)"
    equation = "sum w s / sum w over the patches of all crops, scores s and weights w of the network"
    bounds = (0.0, math.inf)
    on_satellite = (
        "People judged photographs from the web; nobody judged satellite images. What it likes (contrast, "
        "sharp edges, vivid colour) is not what a sensor would have seen, and haze, snow and shade lower it "
        "whatever the quality. Use it beside a metric with reference, on the same images, and never as the "
        "only one."
    )
    citation = "yang2022maniqa hosu2020koniq"
    scale: ClassVar[float] = 0.8

    def setup(self) -> None:
        """Build the network without the download of its backbone, which the checkpoint overwrites anyway."""
        (file,) = self.weights_files
        state = load_state(file, self.setting)
        with quietly():
            import timm
            import torch
            from pyiqa.archs import maniqa_arch

            create = timm.create_model

            def untrained(name: str, pretrained: bool = False, **kwargs: Any) -> Any:
                return create(name, pretrained=False, **kwargs)

            with replaced(timm, create_model=untrained):
                network = maniqa_arch.MANIQA(pretrained=False, scale=self.scale)
            fill(network, state, file)
            for i in (10, 11):  # only blocks 6 to 9 are read
                network.vit.blocks[i] = torch.nn.Identity()
            network.vit.norm = network.vit.head = torch.nn.Identity()
        self._module = maniqa_arch
        self._network = ready(network, self.setting)
        self._patches: list[torch.Tensor] = []
        for head in (network.fc_score, network.fc_weight):
            head.register_forward_hook(lambda module, given, made: self._patches.append(made))

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """The score of the displayed image."""
        crops = _crop_grid(*estimate.display.shape[:2])
        # All crops of an image at once fill a GPU; on a processor they gain nothing and need twenty times the memory.
        at_once = 1 if self.setting.device == "cpu" else _CROPS
        whole = as_tensor(estimate.display, self.setting.device)
        weighted, total = 0.0, 0.0
        for i in range(0, len(crops), at_once):
            corners = list(crops)[i : i + at_once]
            self._patches.clear()
            with inference(), replaced(self._module, uniform_crop=functools.partial(_crop, corners=corners)):
                self._network(whole)
                score, weight = (p.double().flatten(1) for p in self._patches)
            sums = zip((score * weight).sum(1).tolist(), weight.sum(1).tolist(), strict=True)
            for corner, (of_scores, of_weights) in zip(corners, sums, strict=True):
                weighted += crops[corner] * of_scores
                total += crops[corner] * of_weights
        self._patches.clear()
        return weighted / (total + 1e-8)


class ManiqaPipal(ManiqaKoniq):
    """MANIQA trained on PIPAL, scale 0.13, as papers on super-resolution report it.

    Everything else, and the traps, as ``maniqa_koniq``.
    """

    name = "maniqa_pipal"
    title = "MANIQA-PIPAL"
    decimals = 3
    default = None
    weights_files = ("MANIQA_PIPAL-ae6d356b.pth",)
    parameters = ("pipal", "scale0.13", "crops20grid", "up225")
    summary = "No-reference quality by MANIQA (PIPAL)"
    citation = "yang2022maniqa gu2020pipal"
    scale = 0.13


_CROP, _GRID, _STEPS, _CROPS = 224, 5, 4, 20


def _enlarged(height: int, width: int) -> tuple[int, int, float | None]:
    """The size that pyiqa crops from, and the factor by which it enlarges small images."""
    if min(height, width) > _CROP:
        return height, width, None
    factor = (_CROP + 1) / min(height, width)
    return int(height * factor), int(width * factor), factor


def _crop_grid(height: int, width: int) -> Counter[tuple[int, int]]:
    """The corners of pyiqa's 20 crops, and how many crops share each."""
    height, width, _ = _enlarged(height, width)
    rows, columns = (height - _CROP) // _STEPS, (width - _CROP) // _STEPS
    return Counter((i // _GRID * rows, i % _GRID * columns) for i in range(_CROPS))


def _crop(x: torch.Tensor, crop_size: int, crop_num: int, *, corners: Sequence[tuple[int, int]]) -> torch.Tensor:
    """In place of pyiqa's ``uniform_crop``: some of an image's crops instead of all, (len(corners), 3, 224, 224)."""
    import torch

    factor = _enlarged(*x.shape[-2:])[2]
    if factor is not None:
        x = torch.nn.functional.interpolate(x, scale_factor=factor, mode="bilinear")
    return torch.cat([x[..., top : top + _CROP, left : left + _CROP] for top, left in corners])


class LogspecL1(Metric):
    """Mean absolute difference of the radially averaged log power spectra of prediction and reference.

    For each channel of RGB in [0, 1]: the mean is removed, a periodic Hann window w applied, the orthonormal DFT
    taken and its power averaged over rings of integer radius k = 1 ... floor(min(H, W) / 2). Ring k holds the
    frequencies of rounded radius k in units of 1 / min(H, W) cycles a pixel, so that it is the same on both axes
    of an image that is not square. With the floor ``(1/255)^2 / 12 * mean(w^2)``, the power that rounding to
    8 bit leaves in each coefficient, added, the natural logarithms are compared: mean over rings, then channels.
    0 is equal; 1 is a factor of e in power at every frequency. A flat image has the floor's spectrum.

    Ours; it sees missing or invented detail that PSNR does not, and is blind to where it lies. Phase and
    direction are ignored: it is not a similarity on its own.
    """

    name = "logspec_l1"
    title = "LogSpec"
    decimals = 3
    unit = "ln"
    direction = "down"
    group = "realism"
    min_side_px = 16
    parameters = ("rgb", "meanfree", "hann-periodic", "rings1..min/2", "ln", "floor8bit")
    summary = "Difference of radially averaged log power spectra"
    equation = "mean over channels and rings k of |ln P_x(k) - ln P_y(k)|, P the radially averaged power and the floor"
    bounds = (0.0, math.inf)
    perfect = 0.0
    symmetric = True

    def reference_state(self, reference: Reference) -> np.ndarray:
        """The reference's spectrum."""
        assert reference.display is not None
        return log_spectrum(reference.display)

    def value(self, estimate: Estimate, reference: Reference, state: np.ndarray) -> float:
        """The mean absolute difference over rings and channels."""
        return float(np.abs(log_spectrum(estimate.display) - state).mean())


def log_spectrum(display: Array) -> np.ndarray:
    """Natural logarithm of the radially averaged power, (channels, floor(min(H, W) / 2)), as ``LogspecL1`` says."""
    height, width = display.shape[:2]
    window = np.outer(_hann(height), _hann(width))
    side = min(height, width)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    ring = np.rint(radius * side).astype(np.int64).ravel()
    rings = side // 2
    counts = np.bincount(ring)[1 : rings + 1]
    floor = (1.0 / 255.0) ** 2 / 12.0 * (window**2).mean()
    spectra = []
    for channel in np.moveaxis(display.astype(np.float64), 2, 0):
        power = np.abs(np.fft.fft2((channel - channel.mean()) * window, norm="ortho")) ** 2
        mean = np.bincount(ring, weights=power.ravel())[1 : rings + 1] / counts
        spectra.append(np.log(mean + floor))
    return np.stack(spectra)


def _hann(length: int) -> np.ndarray:
    """The periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)
