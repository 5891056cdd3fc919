"""LPIPS, DISTS and Inception's input written again in float64, from the papers and the authors' constants.

The trunk's layers come from its state dict by name (``features.0.weight``); what is done with them is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

State = Mapping[str, torch.Tensor]
VGG = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""The convolutions of VGG16's five stages, by their place in torchvision's ``features``."""


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(image.astype(np.float64), 2, 0).copy())[None]


def _convolved(x: torch.Tensor, state: State, layer: int, **geometry: int) -> torch.Tensor:
    weight, bias = (state[f"features.{layer}.{k}"].double() for k in ("weight", "bias"))
    return F.conv2d(x, weight, bias, **geometry).clamp(min=0)


def _alexnet(x: torch.Tensor, state: State) -> list[torch.Tensor]:
    """The five rectified layers of AlexNet."""
    stages = [_convolved(x, state, 0, stride=4, padding=2)]
    stages.append(_convolved(F.max_pool2d(stages[-1], 3, 2), state, 3, padding=2))
    stages.append(_convolved(F.max_pool2d(stages[-1], 3, 2), state, 6, padding=1))
    stages.append(_convolved(stages[-1], state, 8, padding=1))
    stages.append(_convolved(stages[-1], state, 10, padding=1))
    return stages


def _vgg(x: torch.Tensor, state: State, pool: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """The last rectified layer of each of VGG16's stages, ``pool`` between stages."""
    stages = []
    for i, layers in enumerate(VGG):
        x = pool(x) if i else x
        for layer in layers:
            x = _convolved(x, state, layer, padding=1)
        stages.append(x)
    return stages


def lpips(first: np.ndarray, second: np.ndarray, net: str, trunk: State, linear: Sequence[torch.Tensor]) -> float:
    """Zhang et al. 2018, eq. 1: weighted squared differences of the channel-normalised features, mean over space.

    RGB in [0, 1] is brought to [-1, 1] and scaled by the released constants of version 0.1.
    """
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64)[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64)[:, None, None]
    features = []
    for image in (first, second):
        x = (2 * _tensor(image) - 1 - shift) / scale
        features.append(_alexnet(x, trunk) if net == "alex" else _vgg(x, trunk, lambda t: F.max_pool2d(t, 2)))
    distance = 0.0
    for a, b, weights in zip(*features, linear, strict=True):
        a, b = (x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for x in (a, b))
        distance += float(((a - b).square() * weights.double().reshape(1, -1, 1, 1)).sum(dim=1).mean())
    return distance


def _l2_pool(x: torch.Tensor) -> torch.Tensor:
    """sqrt(g * x^2) with a 3x3 Hann window, every second pixel (Henaff and Simoncelli 2016)."""
    hann = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)
    window = torch.outer(hann, hann) / 4
    kernel = window[None, None].repeat(x.shape[1], 1, 1, 1)
    return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def dists(first: np.ndarray, second: np.ndarray, trunk: State, alpha: torch.Tensor, beta: torch.Tensor) -> float:
    """Ding et al. 2022, eq. 6 to 8, with the code's weights: 1 - sum over channels of alpha l(x, y) + beta s(x, y)."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    channels = []
    for image in (first, second):
        x = _tensor(image)
        stages = [x, *_vgg((x - mean) / deviation, trunk, _l2_pool)]
        channels.append([c.flatten() for stage in stages for c in stage[0]])
    a, b = (w.double().flatten() for w in (alpha, beta))
    total = float(a.sum() + b.sum())
    similarity = 0.0
    for k, (x, y) in enumerate(zip(*channels, strict=True)):
        mx, my = float(x.mean()), float(y.mean())
        vx, vy = float((x - mx).square().mean()), float((y - my).square().mean())
        covariance = float(((x - mx) * (y - my)).mean())
        similarity += float(a[k]) / total * (2 * mx * my + 1e-6) / (mx * mx + my * my + 1e-6)
        similarity += float(b[k]) / total * (2 * covariance + 1e-6) / (vx + vy + 1e-6)
    return 1.0 - similarity


def tensorflow_resize(image: np.ndarray, side: int = 299) -> np.ndarray:
    """``tf.image.resize_bilinear`` of TensorFlow 1: pixel i is read at i * size / side, without antialiasing."""
    x = image.astype(np.float64)
    for axis in (0, 1):
        at = np.arange(side) * (x.shape[axis] / side)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        x = np.take(x, low, axis=axis) * (1 - part) + np.take(x, high, axis=axis) * part
    return x


def inception_input(image: np.ndarray) -> torch.Tensor:
    """An 8-bit image (H, W, 3) as the original network sees it: 299x299, (x - 128) / 128, float64 (1, 3, 299, 299)."""
    levels = np.round(image.astype(np.float64) * 255)
    return (_tensor(tensorflow_resize(levels)) - 128) / 128
