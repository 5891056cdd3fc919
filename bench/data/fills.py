"""Numbers that stand for "no data" and that nobody declared: found by how they lie, named with file, band and value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.core.errors import one_line
from bench.core.image import Image, Mask
from bench.data.meaning import most_plausible
from bench.data.readers import Raster

# What programs write where they have nothing, beside the ends of each type's range.
_KNOWN = (-9999.0, -99999.0, -32767.0, -999.0, -99.0, -1.0, 1e20, -1e20, 1e30, -1e30, 9.96921e36, -1e34, 1e35)
_BEYOND = (-5.0, 50.0)  # reflectance that no model takes, be it a single pixel
_FEW = 0.0005  # of the pixels: less is a hot pixel, and more of one value beyond all others is no chance
_COLLAR = 0.02  # of the pixels, of a value that may as well be data


@dataclass(frozen=True)
class Fill:
    """A suspected fill: its stored value, the bands that hold it, and the share of the pixels in the worst of them."""

    value: float
    bands: tuple[str, ...]
    share: float
    text: str

    def __str__(self) -> str:
        return self.text


def impossible(image: Image, raster: Raster) -> Iterator[Fill]:
    """Stored values that give reflectance which nothing on Earth has, each with the bands that hold it."""
    if image.unit != "reflectance" or not image.valid.any():
        return
    low, high = most_plausible("reflectance")
    values = image.values
    if low <= float(values.min()) and float(values.max()) <= high:  # 0 where there is no data
        return
    found: dict[float, dict[str, float]] = {}
    for i, band in enumerate(image.bands):
        stored = _stored(raster, i)
        odd = ((values[:, :, i] < low) | (values[:, :, i] > high)) & image.valid
        if not odd.any():
            continue
        kinds, counts = np.unique(stored[odd], return_counts=True)
        most = int(counts.argmax())
        share = float(counts[most]) / image.valid.sum()
        is_beyond = bool(((values[:, :, i] < _BEYOND[0]) | (values[:, :, i] > _BEYOND[1])).any())
        # Many different odd values are a wrong scale, and a matter of levels.
        if (share >= _FEW and counts[most] > 0.5 * counts.sum()) or (is_beyond and counts[most] > 0.5 * counts.sum()):
            found.setdefault(float(kinds[most]), {})[band] = share
        elif is_beyond and float(odd.sum()) / image.valid.sum() < 0.5:
            worst = stored[odd][np.abs(values[:, :, i][odd]).argmax()]
            found.setdefault(float(worst), {})[band] = float(odd.sum()) / image.valid.sum()
    for value, shares in found.items():
        yield _fill(value, shares, f"no reflectance (expected {low:g} to {high:g}) but a fill that nobody declared")


def extreme(stored: np.ndarray, values: np.ndarray, valid: Mask, names: Sequence[str], low: float, high: float) -> str:
    """What to say of ``values`` outside of ``low`` to ``high`` that are stored as one single number: a fill.

    Empty where they are many different numbers, as of a wrong scale.
    """
    found: dict[float, dict[str, float]] = {}
    for i, name in enumerate(names):
        odd = ((values[:, :, i] < low) | (values[:, :, i] > high)) & valid
        kinds, counts = np.unique(stored[:, :, i][odd], return_counts=True)
        if len(kinds) and counts.max() > 0.5 * counts.sum():
            found.setdefault(float(kinds[counts.argmax()]), {})[name] = float(counts.max()) / max(1, valid.sum())
    return "; ".join(str(_fill(v, shares, "a fill that nobody declared")) for v, shares in list(found.items())[:2])


def suspected(image: Image, raster: Raster) -> Iterator[Fill]:
    """Values that may be data and look like a fill: far from all others, or a collar of one value in every band."""
    if not image.valid.any():
        return
    told = {fill.value for fill in impossible(image, raster)}
    for fill in [*far(image, raster, told)]:
        told.add(fill.value)
        yield fill
    yield from _collars(image, raster, told)


def far(image: Image, raster: Raster, told: Collection[float] = ()) -> Iterator[Fill]:
    """The least or greatest value of a band where it lies far from all others; those that were ``told`` left out."""
    found: dict[float, dict[str, float]] = {}
    for i, band in enumerate(image.bands if image.valid.any() else ()):
        pixels = _stored(raster, i)[image.valid]
        for value in {float(pixels.min()), float(pixels.max())} - set(told):
            share = float((pixels == value).mean())
            if share >= _FEW and share < 1 and _is_apart(pixels, value, share):
                found.setdefault(value, {})[band] = share
    for value, shares in found.items():
        yield _fill(value, shares, "which looks like undeclared nodata, far from every other value")


def _stored(raster: Raster, band: int) -> np.ndarray:
    """The stored numbers of the image's band, of which those without data were left out."""
    kept = [i for i in range(raster.values.shape[2]) if i not in raster.empty]
    return np.asarray(raster.values[:, :, kept[band]])


def _fill(value: float, shares: dict[str, float], what: str) -> Fill:
    worst = max(shares.values())
    names = one_line(" ".join(shares), 80)
    share = f"{100 * worst:.0f} %" if worst >= 0.01 else f"{100 * worst:.2g} %"
    text = f"{share} of the pixels hold {value:.9g} in band {names}, {what}"
    return Fill(value, tuple(shares), worst, text)


def _is_apart(pixels: np.ndarray, value: float, share: float) -> bool:
    """Whether a band's least or greatest value lies far from all others, for a known fill not so far."""
    others = pixels[pixels != value]
    if others.size == 0:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.subtract(*np.percentile(others[:: max(1, others.size // 2**16)].astype(float), [99, 1])))
        gap = float(np.abs(others.astype(np.float64) - value).min())
    ends = (np.iinfo if pixels.dtype.kind in "ui" else np.finfo)(pixels.dtype)
    is_end = pixels.dtype.itemsize > 1 and value in (float(ends.min), float(ends.max)) and value != 0
    known = is_end or any(abs(value - k) <= 1e-6 * abs(k) for k in _KNOWN)
    # Of two values alone neither is far from "all others": a picture may have two.
    return gap > spread * (0.5 if known else 3.0) and gap > 0 and (known or (share >= 0.01 and spread > 0))


def _collars(image: Image, raster: Raster, told: set[float]) -> Iterator[Fill]:
    """One value in every band: the least or greatest one, or whole rows or columns at an edge."""
    kept = [i for i in range(raster.values.shape[2]) if i not in raster.empty]
    stored = raster.values if len(kept) == raster.values.shape[2] else raster.values[:, :, kept]
    ends = [0.0]
    if stored.dtype.kind in "ui" and stored.dtype.itemsize > 1:
        ends.append(float(np.iinfo(stored.dtype).max))
    corners = {float(c[0]) for c in (stored[0, 0], stored[0, -1], stored[-1, 0], stored[-1, -1]) if (c == c[0]).all()}
    for value in sorted({*ends, *corners} - told):
        same = image.valid & (stored == value).all(axis=2)
        share = float(same.mean())
        if not _COLLAR < share < 1:
            continue
        whole = float(same.all(axis=1).mean() + same.all(axis=0).mean())
        if value in ends or whole > _COLLAR:
            text = f"{100 * share:.0f} % of the pixels are {value:g} in every band, which looks like undeclared nodata"
            text += " (whole rows or columns of them)" if whole > _COLLAR else ""
            yield Fill(value, image.bands, share, text)
