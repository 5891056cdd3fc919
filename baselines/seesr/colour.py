"""Bringing the colours of an answer to those of its input: SeeSR's AdaIN (the default) and wavelet fixes.

Both take what the eye calls colour from the enlarged LR image and the detail from the answer. AdaIN (Huang & Belongie,
"Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", ICCV 2017, eq. 8) moves each channel to
the mean and deviation of the source; the wavelet fix (Wang et al., StableSR, arXiv:2305.07015, appendix) replaces
what is left after five dilated 3x3 blurs, the low frequencies, by the source's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LEVELS = 5
EPSILON = 1e-5  # added to the variance, so that a flat channel can be divided by its deviation


def adain(image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """``image`` with the mean and deviation of ``source`` in each channel.

    Both are float (N, C, H, W), of sizes that may differ; the result is not clamped.
    """
    (mean, deviation), (to_mean, to_deviation) = _moments(image), _moments(source)
    return (image - mean) / deviation * to_deviation + to_mean


def wavelet(image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """The high frequencies of ``image`` on the low ones of ``source``, both float (N, C, H, W) of one size."""
    return image - low_frequencies(image) + low_frequencies(source)


def low_frequencies(image: torch.Tensor) -> torch.Tensor:
    """An image blurred ``LEVELS`` times by the binomial 3x3 kernel with holes of 1, 2, 4, ... px; edges repeat."""
    row = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    kernel = torch.outer(row, row).expand(channels, 1, 3, 3)
    for level in range(LEVELS):
        radius = 2**level
        padded = F.pad(image, (radius,) * 4, mode="replicate")
        image = F.conv2d(padded, kernel, groups=channels, dilation=radius)
    return image


def _moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = image.flatten(2)
    mean = flat.mean(dim=2)[:, :, None, None]
    return mean, (flat.var(dim=2) + EPSILON).sqrt()[:, :, None, None]
