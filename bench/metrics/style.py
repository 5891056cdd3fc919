"""How far a prediction has moved from the LR's look to the HR's: colours, spectrum and texture, each on its own.

Between two sensors a model does two things at once: it changes colours to the other sensor's (harmonisation), and it
adds detail (resolution). PSNR praises both alike. Here the looks of three images, the LR brought to the grid by the
bicubic kernel, the prediction, and the HR image, are points in a space of statistics, and the number is where the
prediction lies on the way from the first to the last: 0 stays at the LR, 1 arrives at the HR image, above 1 it went
too far, and below 0 the other way. ``bicubic`` has 0 and the HR image 1 by construction.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from bench.core.errors import Unavailable
from bench.core.image import Array
from bench.metrics import kernels
from bench.metrics.base import Estimate, Metric, Reference, Score
from bench.metrics.networks import inference
from bench.metrics.niqe import BLOCK_PX, block_features, published
from bench.metrics.realism import log_spectrum
from bench.metrics.software import NUMPY, TORCH


def moved(start: np.ndarray, found: np.ndarray, end: np.ndarray) -> tuple[float, float]:
    """Where ``found`` lies on the way from ``start`` to ``end``, and how far beside it, in lengths of the way.

    The foot of the perpendicular: (found - start) . (end - start) / |end - start|^2. NaN where both ends are one.
    """
    way, step = end - start, found - start
    length = float(way @ way)
    if length == 0.0:
        return math.nan, math.nan
    along = float(step @ way) / length
    return along, float(np.linalg.norm(step - along * way)) / math.sqrt(length)


class _Style(Metric):
    """What they share: statistics of three displayed images."""

    group = "realism"
    direction = "up"
    describes = True
    needs = ("reference", "lr")
    package = "torch"
    software = (TORCH, NUMPY)
    decimals = 2
    perfect = 1.0
    symmetric = False
    least: ClassVar[float]
    """The way below which LR and HR look the same, so that nothing can be said."""

    @abstractmethod
    def look(self, display: Array) -> np.ndarray:
        """The statistics of a displayed image (H, W, 3), as one vector."""

    def reference_state(self, reference: Reference) -> tuple[np.ndarray, np.ndarray]:
        """The looks of LR and HR."""
        if reference.lr_display is None or reference.display is None:
            raise Unavailable("the LR image has no bands R G B")
        return self.look(reference.lr_display), self.look(reference.display)

    def value(self, estimate: Estimate, reference: Reference, state: tuple[np.ndarray, np.ndarray]) -> Score:
        """The place on the way; a note says where the prediction lies far beside it."""
        start, end = state
        if float(np.linalg.norm(end - start)) < self.least:
            raise Unavailable("LR and HR look the same in this; there is no way to go")
        along, beside = moved(start, self.look(estimate.display), end)
        return Score(along, note=f"{beside:.1f} ways beside the line from LR to HR" if beside > 1.0 else None)


class StyleColour(_Style):
    """How far the colours of a prediction have moved from LR's to HR's: mean and deviation of L, a and b.

    CIE Lab for D65 of the displayed image, six numbers, in which Reinhard et al. transfer colour; the foot of the
    prediction on the line from LR's to HR's. 0 stays, 1 arrives. It says nothing of detail: ``bicubic`` with the best
    colour map is near 1 here and near 0 in ``style_spectrum``.

    Source: ours; the statistics are those of E. Reinhard et al., IEEE Computer Graphics and Applications 21(5), 2001,
    doi:10.1109/38.946629.

    Traps: where LR and HR have nearly the same colours the way is short and the number is of small differences; ways
    below 0.5 in Lab are a reason.
    """

    name = "style_colour"
    title = "Colour"
    family = ("style", 1)
    parameters = ("lab-d65", "mean+std", "foot", "lr-bicubic")
    summary = "Way of the colours from LR (0) to HR (1)"
    equation = "(s(SR) - s(LR)) . (s(HR) - s(LR)) / |s(HR) - s(LR)|^2, s = mean and deviation of L, a, b"
    citation = "reinhard2001colour"
    least = 0.5

    def look(self, display: Array) -> np.ndarray:
        import torch

        with inference():
            rgb = torch.tensor(np.ascontiguousarray(np.moveaxis(display, 2, 0)).reshape(3, -1)).double()
            found = kernels.in_pieces(kernels.lab, rgb).numpy()
        return np.concatenate([found.mean(axis=1), found.std(axis=1)])


class StyleSpectrum(_Style):
    """How far the spectrum of a prediction has moved from LR's to HR's: radially averaged log power spectra.

    The spectra of ``logspec_l1``, above the LR's sampling limit for the most part what was added; the foot of the
    prediction on the line from LR's to HR's. 0 stays, 1 arrives. The mean of each channel is removed, so that colour
    counts only by contrast.

    Source: ours.

    Traps: power is not detail: noise of the right strength arrives too. Blind to where it lies.
    """

    name = "style_spectrum"
    title = "Spectrum"
    family = ("style", 2)
    min_side_px = 16
    parameters = ("logspec", "foot", "lr-bicubic")
    summary = "Way of the power spectrum from LR (0) to HR (1)"
    equation = "as style_colour, s = ln P(k) of every ring k and channel"
    least = 1.0

    def look(self, display: Array) -> np.ndarray:
        return log_spectrum(display).ravel()


class StyleTexture(_Style):
    """How far the texture of a prediction has moved from LR's to HR's: NIQE's statistics of normalised contrast.

    The mean over blocks of 96x96 px of the 36 features of shape and spread that NIQE has, each in units of its
    deviation among the photographs of the LIVE release; the foot of the prediction on the line from LR's to HR's.
    0 stays, 1 arrives. Contrast is normalised first, so that neither colour nor brightness counts: it asks what kind of
    edges and grain there are, not how strong.

    Source: ours; the features are those of A. Mittal et al., IEEE SPL 20(3), 2013, doi:10.1109/LSP.2012.2227726.

    Traps: 96 px a side at least, and few blocks are noisy; flat blocks are left out of each image on its own.
    """

    name = "style_texture"
    title = "Texture"
    family = ("style", 3)
    min_side_px = BLOCK_PX
    parameters = ("niqe36", "live-scale", "block96", "foot", "lr-bicubic")
    summary = "Way of the texture's statistics from LR (0) to HR (1)"
    equation = "as style_colour, s = NIQE's features over their deviations among photographs, mean over blocks"
    citation = "mittal2013niqe"
    least = 0.25

    def look(self, display: Array) -> np.ndarray:
        found = block_features(display, self.setting.device).features
        if not len(found):
            raise Unavailable("an image of the three is flat: its blocks have no texture to describe")
        return np.asarray(found.mean(axis=0) / np.sqrt(np.diag(published()[1])))
