"""What can be said against one image, one mask, one series and one pair: the rules of ``rfbench validate``.

An *error* is what makes numbers wrong, and a run refuses it in the same words (``refused``); a
*warning* is what a reader of the numbers should know. Every text says what was found, what was expected and what to do.
Fill values that nobody declared are found by ``bench.data.fills``, what two images say of each other by
``bench.data.pairs``.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError, one_line
from bench.core.image import RGB, Array, Image
from bench.data import fills
from bench.data.bands import canonical
from bench.data.meaning import LANDSAT_C2, Side
from bench.data.readers import Georeference, Raster, Series

Severity = Literal["error", "warning"]
Found = tuple[Severity, str, str]

_ENOUGH_SAMPLES = 2**20  # for a median; of larger images every so many-th row and column
_BLOCKS = 16  # of rows and columns in which two images of one ground are compared
_BRIGHT = 0.25  # reflectance in all of R, G, B that open land seldom has, and cloud and snow have
# Offset rule: see dark_floor.
_OFFSET_FLOOR, _OFFSET_CEILING = 0.095, 0.2
_NEVER_DARK = 0.5  # even of snow and cloud, some band or some pixel is darker


@dataclass(frozen=True)
class Seen:
    """What is kept of an image after its pixels are gone.

    ``levels`` is the median of the valid samples of each band, ``blocks`` the means (n, n, C) of the image in 1,
    2, 4, 8 or 16 parts a side, NaN where a part has no data; both in the image's unit.
    """

    size: tuple[int, int]
    unit: str
    bands: tuple[str, ...]
    dtype: str
    gsd_m: float | None
    place: Georeference | None
    level: float
    levels: tuple[float, ...]
    blocks: npt.NDArray[np.float64]


def percent(share: float) -> str:
    """A share as text; shares below one percent keep a digit."""
    return f"{100 * share:.1f} %" if share < 0.01 else f"{100 * share:.0f} %"


def look(image: Image, raster: Raster, place: Georeference | None, *, is_wrong: bool = False) -> Seen:
    """The facts of an image that comparisons with other images need; no levels of one whose numbers are wrong."""
    if is_wrong:
        nothing = np.full((1, 1, len(image.bands)), np.nan)
        return Seen(image.size, image.unit, image.bands, raster.values.dtype.name, image.gsd_m, place, 0.0, (), nothing)
    thin = _thinned(image)
    valid = thin.values[thin.valid]
    level = float(np.median(valid)) if valid.size else 0.0
    levels = tuple(map(float, np.median(valid, axis=0))) if valid.size else (0.0,) * len(image.bands)
    return Seen(
        image.size, image.unit, image.bands, raster.values.dtype.name, image.gsd_m, place, level, levels, _blocks(image)
    )


def _thinned(image: Image) -> Image:
    """The image, or of a large one every so many-th row and column: enough for a median."""
    step = max(1, math.isqrt(image.values.size // _ENOUGH_SAMPLES))
    return dataclasses.replace(image, values=image.values[::step, ::step], valid=image.valid[::step, ::step])


def _blocks(image: Image) -> npt.NDArray[np.float64]:
    n = max(b for b in (1, 2, 4, 8, _BLOCKS) if b <= min(*image.size))
    rows, columns = (np.arange(n) * size // n for size in image.size)
    held = np.where(image.valid[:, :, None], image.values, 0.0)

    def summed(values: np.ndarray) -> npt.NDArray[np.float64]:
        by_row = np.add.reduceat(values, rows, axis=0, dtype=np.float64)
        return np.asarray(np.add.reduceat(by_row, columns, axis=1))

    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(summed(held) / summed(image.valid[:, :, None].astype(np.float32)))


def refused(kind: str, image: Image, raster: Raster) -> Iterator[Found]:
    """What makes the numbers of an image wrong: fill values taken for data, and levels that its unit cannot have."""
    found = list(fills.impossible(image, raster))
    for fill in found:
        yield (
            "error",
            "nodata",
            f"{kind}: {fill}; declare '{kind}.nodata': {fill.value:.9g} if it is, or correct the scale",
        )
    if not found and image.valid.any():
        yield from _level(kind, image)


def check_image(kind: str, image: Image, raster: Raster, side: Side, *, notes: Sequence[str] = ()) -> Iterator[Found]:
    """The rules of one image: its nodata, level, contrast, bands and what its normalisation would cut off."""
    for note in notes:
        yield "warning", "file", f"{kind}: {note}"
    yield from _nodata(kind, image, raster, side)
    if not image.valid.any():
        return
    wrong = list(refused(kind, image, raster))
    yield from wrong
    if any(check == "nodata" for _, check, _ in wrong):
        return  # what fill values do to all other statistics is no news
    if kind != "pan" and not image.has(RGB):
        yield (
            "warning",
            "bands",
            f"{kind}: found the bands {one_line(' '.join(image.bands), 80)}, expected R, G and B among them; display "
            "metrics and RGB models will give reasons",
        )
    if raster.bands is None and not side.bands and not side.sensor and image.bands == RGB and not raster.is_picture:
        yield (
            "warning",
            "bands",
            f"{kind}: neither the file nor dataset.json names its 3 bands, R G B was assumed; declare '{kind}.bands'",
        )
    flat = _flat_bands(image)
    if flat:
        names = "all bands" if len(flat) == len(image.bands) else f"band {', '.join(flat[:6])}"
        yield (
            "warning",
            "constant",
            f"{kind}: {names} hold one single value, expected an image; look at the file, or leave it out",
        )
    if len(flat) < len(image.bands):
        yield from _stretched(kind, image)
        yield from _normalisation(kind, image, side)
    if kind in ("lr", "hr") and image.unit == "reflectance":
        yield from _offset(kind, image, raster, side)
    if kind == "lr" and image.unit == "reflectance":
        share = white_share(image.values, image.bands, image.valid)
        if share > 0.2:
            yield (
                "warning",
                "cloud",
                f"lr: {percent(share)} of the pixels are bright and white, expected ground: cloud, haze or snow; "
                "take another date, or leave it out",
            )


def _flat_bands(image: Image) -> list[str]:
    pixels = image.values[image.valid]
    return [b for i, b in enumerate(image.bands) if pixels[:, i].min() == pixels[:, i].max()]


def _nodata(kind: str, image: Image, raster: Raster, side: Side) -> Iterator[Found]:
    share = float(1 - image.valid.mean())
    if share == 1:
        yield "error", "nodata", f"{kind}: found no valid pixel, expected some; replace the file, or leave the row out"
        return
    if share > 0.05:
        yield (
            "warning",
            "nodata",
            f"{kind}: {percent(share)} of the pixels have no data, expected at most 5 %; they are left out of metrics "
            "of pixels, and other metrics give a reason",
        )
    if raster.values.dtype.kind == "f" and not np.isfinite(raster.values).all():
        bad = float((~np.isfinite(raster.values).all(axis=2)).mean())
        yield (
            "warning",
            "nodata",
            f"{kind}: {percent(bad)} of the pixels are not finite (NaN or infinity) and count as no data; fine if so, "
            "else repair the file",
        )
    for text in fills.suspected(image, raster):
        yield "warning", "nodata", f"{kind}: {text}; declare '{kind}.nodata': {text.value:.9g} in dataset.json if so"


def _level(kind: str, image: Image) -> Iterator[Found]:
    """Numbers that cannot be what the unit says: a scale that was forgotten, or applied to scaled numbers."""
    thin = _thinned(image)
    pixels = thin.values[thin.valid]
    if not pixels.size:
        return
    median, high = float(np.median(pixels)), float(np.percentile(pixels, 99.5, overwrite_input=True))
    if image.unit == "reflectance" and median > 2:
        yield (
            "error",
            "unit",
            f"{kind}: the median reflectance is {median:.4g}, expected 0 to 1; declare '{kind}.scale' (10000 for "
            "Sentinel-2, 100 for percent) or another unit",
        )
    elif image.unit == "reflectance" and 0 < high < 0.003:
        yield (
            "error",
            "unit",
            f"{kind}: reflectance reaches {high:.2g} only, expected some 0.01 to 1; the numbers seem to be divided "
            f"already, correct '{kind}.scale'",
        )
    elif image.unit == "display" and 0 < high < 0.03:
        yield (
            "error",
            "unit",
            f"{kind}: display values reach {high:.2g} only, where 1 is white; correct '{kind}.scale' (what white is)",
        )


def _stretched(kind: str, image: Image) -> Iterator[Found]:
    """Reflectance that somebody stretched by percentiles: both ends of every visible band are piled up."""
    if image.unit != "reflectance" or not image.has(RGB) or image.valid.sum() < 1000:
        return
    piles = []
    for values in image.select(RGB).values[image.valid].T:
        piles.append(min(float((values == values.min()).mean()), float((values == values.max()).mean())))
    if min(piles) >= 0.01:
        yield (
            "warning",
            "percentile",
            f"{kind}: {percent(min(piles))} of the pixels or more lie on both ends of every visible band, as after a "
            f"stretch by percentiles; such numbers are no reflectance: declare '{kind}.unit': \"relative\"",
        )


def _normalisation(kind: str, image: Image, side: Side) -> Iterator[Found]:
    """What the declared normalisation makes of the image's R, G, B."""
    try:
        form = side.declared
        if not image.has(RGB):
            # The form must go with the unit all the same; a PAN or LR of other bands is stretched nowhere.
            form.fit(image, side.gamma)
            return
        rgb = image.select(RGB)
        fitted = form.fit(rgb, side.gamma)
    except RfbenchError as error:
        yield "error", "normalisation", f"{kind}: {error}"
        return
    pixels = rgb.values[rgb.valid]
    if form.kind == "percentile":
        n = len(pixels)
        if n < 400:
            yield (
                "warning",
                "percentile",
                f"{kind}: percentiles of {n} pixels stretch noise to the full range, expected some hundred pixels; "
                "prefer fixed[lo,hi] where the unit allows it",
            )
        level = [b for b, low, high in zip(fitted.bands, fitted.low, fitted.high, strict=True) if low == high]
        if level and not set(level) <= set(_flat_bands(image)):
            yield (
                "warning",
                "percentile",
                f"{kind}: both percentiles of band {', '.join(level)} are the same value, so it becomes black and "
                "white; use another normalisation",
            )
        return
    low, high = np.array(fitted.low), np.array(fitted.high)
    # A display value of 1 is as bright as a picture gets: it counts as cut off as well.
    above = float((pixels >= high).mean() if form.kind == "display" else (pixels > high).mean())
    below = float((pixels < low).mean())
    for share, end in ((above, "white"), (below, "black")):
        if share > 0.1:
            yield (
                "warning",
                "saturated",
                f"{kind}: {form} makes {percent(share)} of the samples {end}, expected at most 10 %; "
                + ("widen the range if this is no cloud or snow" if form.kind == "fixed" else "the details are lost"),
            )


def dark_floor(image: Image, counts: np.ndarray) -> float | None:
    """The reflectance of the darkest pixels in the darkest band; None for an image of nothing but zeros.

    It is the least 1st percentile over the bands, of valid pixels whose stored ``counts`` are not all zero, so that a
    few dead pixels and a black frame do not hide the level. Land, water and shadow bring some band of nearly every
    Sentinel-2 image below 0.08; the +1000 of baseline 04.00 lifts that to 0.1 and more. Where the darkest band stays
    above 0.2 (cloud, snow, salt) the image cannot tell.
    """
    pixels = image.values[image.valid & counts.any(axis=2)]
    if not len(pixels):
        return None
    return float(np.percentile(pixels, 1, axis=0).min())


def offset_suspected(image: Image, counts: np.ndarray) -> bool:
    """Whether reflectance seems to carry the +1000 (0.1) of newer Sentinel-2 products: nothing dark in any band."""
    floor = dark_floor(image, counts)
    return floor is not None and _OFFSET_FLOOR <= floor <= _OFFSET_CEILING


def _offset(kind: str, image: Image, raster: Raster, side: Side) -> Iterator[Found]:
    floor = dark_floor(image, raster.values)
    if floor is not None and offset_suspected(image, raster.values):
        yield (
            "warning",
            "offset",
            f"{kind}: nothing is darker than {10000 * floor:.0f} (reflectance x 10000) in any band, expected some "
            f"below 800: an offset of +1000 is suspected (baseline 04.00, from 2022-01-25); declare '{kind}.offset': "
            f"{_offset_in_counts(side, raster):g} if the product is not harmonised",
        )
    elif floor is not None and floor > _NEVER_DARK:
        yield (
            "warning",
            "offset",
            f"{kind}: nothing is darker than {floor:.2g} (reflectance) in any band, expected some below 0.1: another "
            f"scale or offset is suspected; correct '{kind}.scale' and '{kind}.offset' (Landsat Collection 2: "
            f"{LANDSAT_C2})",
        )
    elif floor is not None and floor < -0.02 and (side.offset or 0) < 0:
        yield (
            "warning",
            "offset",
            f"{kind}: the darkest pixels are {10000 * floor:.0f} (reflectance x 10000) with the declared offset "
            f"{side.offset:g}, expected about 0 or more; was it taken off before?",
        )


def _offset_in_counts(side: Side, raster: Raster) -> float:
    scale = side.scale or (10000.0 if raster.values.dtype.kind in "ui" else 1.0)
    return -0.1 * scale


def white_share(values: Array, bands: tuple[str, ...], valid: np.ndarray) -> float:
    """The share of valid pixels that are bright and white in R, G, B reflectance; 0 without these bands."""
    if not set(RGB) <= set(bands) or not valid.any():
        return 0.0
    rgb = values[..., [bands.index(b) for b in RGB]][valid]
    low, high = rgb.min(axis=1), rgb.max(axis=1)
    return float(((low > _BRIGHT) & (high < 1.5 * low)).mean())


def check_mask(raster: Raster, sizes: dict[str, tuple[int, int]]) -> Iterator[Found]:
    """The rules of a mask: one band of two values on the grid of HR (or LR)."""
    levels = np.unique(raster.values)
    if len(levels) > 2:
        yield (
            "warning",
            "mask",
            f"mask: found {len(levels)} values ({levels[0]:g} to {levels[-1]:g}), expected two; every value above 0 "
            "counts as inside: threshold it (a JPEG) or take out its 'ignore' value",
        )
    size = raster.values.shape[:2]
    if sizes and size not in sizes.values():
        named = " and ".join(f"{k} {h}x{w}" for k, (h, w) in sizes.items())
        yield "error", "mask", f"mask: found {size[0]}x{size[1]} px, expected the size of {named} px; cut it to one"


def check_series(series: Series, lr: Seen | None, side: Side) -> Iterator[Found]:
    """The rules of a time series: the LR's size and bands, dates, and how many dates are cloud."""
    names = tuple(canonical(b) for b in series.bands)
    if lr is not None and series.values.shape[1:3] != lr.size:
        yield (
            "error",
            "series",
            f"series: found images of {series.values.shape[1]}x{series.values.shape[2]} px, expected the LR's "
            f"{lr.size[0]}x{lr.size[1]} px; cut it",
        )
    if lr is not None and not set(lr.bands) <= set(names):
        missing = ", ".join(b for b in lr.bands if b not in names)
        yield "error", "series", f"series: has no band {missing} of the LR image; add it, or declare the bands anew"
    wrong = [d for d in series.dates if day(d) is None]
    if wrong:
        yield "warning", "date", f"series: found the date '{one_line(wrong[0], 40)}', expected YYYY-MM-DD; correct it"
    if side.unit != "reflectance":
        return
    scale = side.scale or (10000.0 if series.values.dtype.kind in "ui" else 1.0)
    cloudy = []
    for values, date in zip(series.values, series.dates, strict=True):
        reflectance = (values.astype(np.float32) + np.float32(side.offset or 0.0)) / np.float32(scale)
        if white_share(reflectance, names, np.isfinite(reflectance).all(axis=2)) > 0.5:
            cloudy.append(date)
    if cloudy:
        shown = ", ".join(one_line(d, 20) for d in cloudy[:4]) + (", ..." if len(cloudy) > 4 else "")
        yield (
            "warning",
            "cloud",
            f"series: {len(cloudy)} of {len(series.dates)} dates are mostly bright and white ({shown}): cloud or snow; "
            "a model of several dates should leave them out",
        )


def day(text: str) -> datetime.date | None:
    """A date written as YYYY-MM-DD; None for other texts."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None
