"""What metrics of pixels compute, on whatever device is there, in double precision and in a fixed order.

Written from the papers' equations. The libraries that define these metrics stay selectable (``--exact-libraries``), and
the tests hold this against them. A sum is taken row by row on the device and then over the rows by numpy, so it does
not depend on the number of threads, nor on what else is computed. An image is brought to the device once for all
metrics (``image_of``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.core.image import Array

if TYPE_CHECKING:
    import torch

    from bench.metrics.base import Estimate, Reference

_PIECE = 16384  # pixels: the dozens of intermediate arrays of a colour formula stay in the processor's cache


def image_of(cache: MutableMapping[str, Any], display: Array, device: str) -> torch.Tensor:
    """A display image (H, W, 3) as float64 (3, H, W) on the device; made once, and kept in ``cache``."""
    import torch

    key = f"image@{device}"
    if key not in cache or cache[key][0] is not display:
        values = np.ascontiguousarray(np.moveaxis(display, 2, 0))
        cache[key] = (display, torch.tensor(values, device=device).double())
    found: torch.Tensor = cache[key][1]
    return found


def mean(values: torch.Tensor) -> float:
    """The mean of a tensor of two dimensions or more, the same whatever the number of threads."""
    rows = values.reshape(-1, values.shape[-1]).sum(dim=-1).cpu().numpy()
    return float(rows.sum() / values.numel())


def valid_pixels(image: torch.Tensor, valid: np.ndarray) -> torch.Tensor:
    """Pixels with data of an image (C, H, W): (C, N), or the image as it is where all have."""
    import torch

    if valid.all():
        return image.flatten(1)
    return image[:, torch.from_numpy(np.ascontiguousarray(valid)).to(image.device)]


def seen(estimate: Estimate, reference: Reference, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The displayed prediction and reference where there is data, (3, N) each."""
    assert reference.display is not None  # ``Metric.needs`` says so
    ours = image_of(estimate.cache, estimate.display, device)
    theirs = image_of(reference.cache, reference.display, device)
    return valid_pixels(ours, reference.valid), valid_pixels(theirs, reference.valid)


# --- SSIM -------------------------------------------------------------------------------------------------------------


@functools.cache
def _taps(radius: int, sigma: float) -> tuple[float, ...]:
    """A Gaussian window's weights from its middle outwards; with both sides they add up to 1."""
    at = np.arange(radius + 1)
    weights = np.exp(-0.5 * (at / sigma) ** 2)
    return tuple(float(w) for w in weights / (2 * weights.sum() - 1))


def smoothed(planes: torch.Tensor, radius: int, sigma: float) -> torch.Tensor:
    """Planes (..., H, W) under a Gaussian window, (..., H - 2 radius, W - 2 radius): whole windows alone.

    Tap by tap, which on a processor is several times as fast as a convolution in double precision, and adds up in one
    order everywhere.
    """
    taps = _taps(radius, sigma)
    for axis in (-2, -1):
        length = planes.shape[axis] - 2 * radius
        total = planes.narrow(axis, radius, length) * taps[0]
        for i, weight in enumerate(taps[1:], 1):
            pair = planes.narrow(axis, radius - i, length) + planes.narrow(axis, radius + i, length)
            total.add_(pair, alpha=weight)
        planes = total
    return planes


Moments = list[tuple["torch.Tensor", "torch.Tensor"]]


def _planes(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """An image's channels one by one on a processor, whose cache holds one but not three; all at once elsewhere."""
    return image.unbind(0) if image.device.type == "cpu" else (image,)


def ssim_side(image: torch.Tensor) -> Moments:
    """Mean and second moment of an image (3, H, W) under SSIM's window, for ``ssim_map``."""
    return [(smoothed(x, 5, 1.5), smoothed(x * x, 5, 1.5)) for x in _planes(image)]


def ssim_map(first: torch.Tensor, second: torch.Tensor, moments: Moments) -> torch.Tensor:
    """SSIM of every whole window of two images (3, H, W) in [0, 1], (3, H - 10, W - 10).

    ``moments`` are ``ssim_side`` of the second. Source: Z. Wang et al., IEEE TIP 13(4), 2004, eq. 13.
    """
    import torch

    maps = [_ssim(x, y, *own) for x, y, own in zip(_planes(first), _planes(second), moments, strict=True)]
    return maps[0] if len(maps) == 1 else torch.stack(maps)


def _ssim(x: torch.Tensor, y: torch.Tensor, m_y: torch.Tensor, s_y: torch.Tensor) -> torch.Tensor:
    m_x, s_x = smoothed(x, 5, 1.5), smoothed(x * x, 5, 1.5)
    products = m_x * m_y
    covariance = smoothed(x * y, 5, 1.5).sub_(products)
    squares = (m_x * m_x).add_(m_y * m_y)
    variances = s_x.add_(s_y).sub_(squares)
    c1, c2 = 0.01**2, 0.03**2
    above = products.mul_(2).add_(c1).mul_(covariance.mul_(2).add_(c2))
    return above.div_(squares.add_(c1).mul_(variances.add_(c2)))


# --- colour -----------------------------------------------------------------------------------------------------------


def in_pieces(formula: Callable[..., torch.Tensor], *pixels: torch.Tensor) -> torch.Tensor:
    """A formula of single pixels, of tensors (C, N), on a processor applied to some thousand of them at a time."""
    import torch

    count = pixels[0].shape[1]
    if pixels[0].device.type != "cpu" or count <= _PIECE:
        return formula(*pixels)
    return torch.cat([formula(*(p[:, i : i + _PIECE] for p in pixels)) for i in range(0, count, _PIECE)], dim=-1)


# sRGB's primaries and white (IEC 61966-2-1) to XYZ as colour-science has them: rounded to four digits, as the standard
# prints them; the white of D65 from its chromaticity, as the standard has it too.
_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
_D65 = (0.3127, 0.3290)


def lab(rgb: torch.Tensor) -> torch.Tensor:
    """sRGB (3, N) in [0, 1] as CIE Lab (3, N) for D65 and the 2 degree observer."""
    import torch

    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055).clamp_(min=0).pow_(2.4))
    x, y = _D65
    white = torch.tensor([x / y, 1.0, (1 - x - y) / y], dtype=torch.float64, device=rgb.device)
    matrix = torch.tensor(_TO_XYZ, dtype=torch.float64, device=rgb.device) / white[:, None]
    r, g, b = linear
    ratios = torch.stack([m[0] * r + m[1] * g + m[2] * b for m in matrix])
    cube = torch.where(ratios > (24 / 116) ** 3, ratios.clamp(min=1e-12).pow(1 / 3), 841 / 108 * ratios + 16 / 116)
    fx, fy, fz = cube
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def ciede2000(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The difference of pairs of CIE Lab colours (3, N), (N,), with k_L = k_C = k_H = 1.

    Source: G. Sharma, W. Wu, E. N. Dalal, Color Research and Application 30(1), 2005, eq. 2 to 22.
    """
    import torch

    (l1, a1, b1), (l2, a2, b2) = first, second
    chroma = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    seventh = chroma**7
    grey = 1.5 - 0.5 * (seventh / (seventh + 25.0**7)).sqrt_()
    a1, a2 = grey * a1, grey * a2
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = torch.atan2(b1, a1) % (2 * math.pi), torch.atan2(b2, a2) % (2 * math.pi)
    some = c1 * c2 != 0
    turn = torch.where(some, h2 - h1, 0.0)
    far = turn.abs() > math.pi
    turn = torch.where(far, turn - 2 * math.pi * turn.sign(), turn)
    total = h1 + h2
    around = torch.where(total < 2 * math.pi, total + 2 * math.pi, total - 2 * math.pi)
    hue = torch.where(some, torch.where((h1 - h2).abs() > math.pi, around, total) / 2, total)
    dl, dc, dh = l2 - l1, c2 - c1, 2 * (c1 * c2).sqrt() * torch.sin(turn / 2)
    level, chroma = ((l1 + l2) / 2 - 50) ** 2, (c1 + c2) / 2
    degree = math.pi / 180
    t = (
        1
        - 0.17 * torch.cos(hue - 30 * degree)
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + 6 * degree)
        - 0.20 * torch.cos(4 * hue - 63 * degree)
    )
    seventh = chroma**7
    blue = torch.exp(-(((hue / degree - 275) / 25) ** 2))
    rotation = -2 * (seventh / (seventh + 25.0**7)).sqrt_() * torch.sin(60 * degree * blue)
    dl = dl / (1 + 0.015 * level / (20 + level).sqrt_())
    dc = dc / (1 + 0.045 * chroma)
    dh = dh / (1 + 0.015 * chroma * t)
    return (dl * dl + dc * dc + dh * dh + rotation * dc * dh).clamp_(min=0).sqrt_()


def spectral_angles(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Angles in degrees between spectra (bands, N), ``2 atan2(|u - v|, |u + v|)``, (N,); NaN where one is zero."""
    import torch

    u, v = (s / (s * s).sum(dim=0, keepdim=True).sqrt_() for s in (first, second))
    apart, along = ((u - v).square_().sum(dim=0).sqrt_(), (u + v).square_().sum(dim=0).sqrt_())
    return torch.atan2(apart, along).mul_(360 / math.pi)
