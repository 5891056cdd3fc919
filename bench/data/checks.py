"""What can be said against one image, one mask, one series and one pair: the rules of ``rfbench validate``.

An *error* is what a run would refuse, or what makes its numbers wrong; a *warning* is what a reader of the numbers
should know. Every text says what was found, what was expected and what to do.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import RGB, Array, Image
from bench.data.bands import canonical
from bench.data.dataset import Record, Side
from bench.data.readers import Georeference, Raster, Series

Severity = Literal["error", "warning"]
Found = tuple[Severity, str, str]

_SMALLEST_LR_PX = 8
_SMALLEST_SSIM_PX = 11  # the window of SSIM
_BRIGHT = 0.25  # reflectance in all of R, G, B that open land seldom has, and cloud and snow have
# Offset rule: see dark_floor.
_OFFSET_FLOOR, _OFFSET_CEILING = 0.095, 0.2


@dataclass(frozen=True)
class Seen:
    """What is kept of an image after its pixels are gone."""

    size: tuple[int, int]
    unit: str
    bands: tuple[str, ...]
    dtype: str
    gsd_m: float | None
    place: Georeference | None
    level: float  # median of the valid samples in the image's unit


def percent(share: float) -> str:
    """A share as text; shares below one percent keep a digit."""
    return f"{100 * share:.1f} %" if share < 0.01 else f"{100 * share:.0f} %"


def look(image: Image, raster: Raster, place: Georeference | None) -> Seen:
    """The facts of an image that comparisons with other images need."""
    valid = image.values[image.valid]
    level = float(np.median(valid, overwrite_input=True)) if valid.size else 0.0
    return Seen(image.size, image.unit, image.bands, raster.values.dtype.name, image.gsd_m, place, level)


def check_image(kind: str, image: Image, raster: Raster, side: Side, *, is_tiff: bool) -> Iterator[Found]:
    """The rules of one image: its nodata, level, contrast, bands and what its normalisation would cut off."""
    yield from _nodata(kind, image, raster, side)
    if not image.valid.any():
        return
    if kind != "pan" and not image.has(RGB):
        yield (
            "warning",
            "bands",
            f"{kind}: found the bands {one_line(' '.join(image.bands), 80)}, expected R, G and B among them; display "
            "metrics and RGB models will give reasons",
        )
    if raster.bands is None and not side.bands and image.bands == RGB and is_tiff:
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
    yield from _level(kind, image)
    if len(flat) < len(image.bands):
        yield from _stretched(kind, image)
        yield from _normalisation(kind, image, side)
    if kind == "lr" and image.unit == "reflectance":
        yield from _offset(image, raster, side)
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
    fills = [0.0]
    if raster.values.dtype.kind in "ui" and raster.values.dtype.itemsize > 1:
        fills.append(float(np.iinfo(raster.values.dtype).max))
    for fill in fills:
        filled = float((image.valid & (raster.values == fill).all(axis=2)).mean())
        if filled > 0.02 and filled < 1:
            yield (
                "warning",
                "nodata",
                f"{kind}: {percent(filled)} of the pixels are {fill:g} in every band, which looks like undeclared "
                f"nodata; declare '{kind}.nodata': {fill:g} in dataset.json if so",
            )


def _level(kind: str, image: Image) -> Iterator[Found]:
    """Numbers that cannot be what the unit says: a scale that was forgotten, or applied to scaled numbers."""
    pixels = image.values[image.valid]
    median, high = float(np.median(pixels)), float(np.percentile(pixels, 99.5, overwrite_input=True))
    if image.unit == "reflectance" and median > 2:
        yield (
            "error",
            "unit",
            f"{kind}: the median reflectance is {median:.4g}, expected 0 to 1; declare '{kind}.scale' (10000 for "
            "Sentinel-2) or another unit",
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


def _offset(image: Image, raster: Raster, side: Side) -> Iterator[Found]:
    floor = dark_floor(image, raster.values)
    if floor is not None and offset_suspected(image, raster.values):
        yield (
            "warning",
            "offset",
            f"lr: nothing is darker than {10000 * floor:.0f} (reflectance x 10000) in any band, expected some below "
            "800: an offset of +1000 is suspected (baseline 04.00, from 2022-01-25); declare 'lr.offset': "
            f"{_offset_in_counts(side, raster):g} if the product is not harmonised",
        )
    elif floor is not None and floor < -0.02 and side.offset < 0:
        yield (
            "warning",
            "offset",
            f"lr: the darkest pixels are {10000 * floor:.0f} (reflectance x 10000) with the declared offset "
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
    wrong = [d for d in series.dates if _day(d) is None]
    if wrong:
        yield "warning", "date", f"series: found the date '{one_line(wrong[0], 40)}', expected YYYY-MM-DD; correct it"
    if side.unit != "reflectance":
        return
    scale = side.scale or (10000.0 if series.values.dtype.kind in "ui" else 1.0)
    cloudy = []
    for values, date in zip(series.values, series.dates, strict=True):
        reflectance = (values.astype(np.float32) + np.float32(side.offset)) / np.float32(scale)
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


def check_pair(record: Record, seen: dict[str, Seen]) -> Iterator[Found]:
    """The rules between the images of a row: sizes, pixel sizes, places and dates."""
    lr = seen.get("lr")
    kind = "hr" if "hr" in seen else "pan"
    target = seen.get(kind)
    if lr is not None and min(lr.size) < _SMALLEST_LR_PX:
        yield (
            "warning",
            "size",
            f"lr: {lr.size[0]}x{lr.size[1]} px is a test of tiny inputs and not of quality, expected "
            f"{_SMALLEST_LR_PX} px a side or more; say so where its numbers are shown",
        )
    if target is not None and min(target.size) < _SMALLEST_SSIM_PX:
        yield (
            "warning",
            "size",
            f"{kind}: {target.size[0]}x{target.size[1]} px, expected {_SMALLEST_SSIM_PX} px a side or more; SSIM and "
            "others give a reason",
        )
    for name, image in seen.items():
        yield from _pixel_size(name, image)
    if lr is not None:
        for name in ("hr", "pan"):
            if name in seen:
                yield from _sizes(lr, seen[name], name)
                yield from _extents(lr, seen[name], name)
    yield from _dates(record)


def _pixel_size(kind: str, image: Seen) -> Iterator[Found]:
    if image.place is None or image.place.pixel_m is None:
        return
    height, width = image.place.pixel_m
    if max(height, width) > 1.05 * min(height, width):
        yield (
            "warning",
            "gsd",
            f"{kind}: the file's pixels are {height:.4g} m high and {width:.4g} m wide, expected squares; bring it to "
            "a projected grid if distances matter",
        )
    mean = math.sqrt(height * width)
    if image.gsd_m is not None and not 0.95 < mean / image.gsd_m < 1.05:
        yield (
            "warning",
            "gsd",
            f"{kind}: gsd_m is {image.gsd_m:g}, the file's own pixels are {mean:.4g} m; correct the one that is wrong "
            "(a resampled grid is finer than the sensor)",
        )


def _sizes(lr: Seen, target: Seen, kind: str) -> Iterator[Found]:
    (h, w), (height, width) = lr.size, target.size
    scales = (height / h, width / w)
    if height < h or width < w:
        yield (
            "error",
            "size",
            f"the LR image of {h}x{w} px is larger than its {kind.upper()} of {height}x{width} px; exchange them",
        )
        return
    if max(scales) > 1.25 * min(scales):
        yield (
            "error",
            "size",
            f"{kind}: the scale is {scales[0]:.2f} along height and {scales[1]:.2f} along width, expected one: LR "
            f"({h}x{w} px) and {kind.upper()} ({height}x{width} px) do not show the same ground; correct the pair",
        )
        return
    if lr.gsd_m is None or target.gsd_m is None:
        return
    ratio = lr.gsd_m / target.gsd_m
    # Sizes that are no multiple of each other are usual: one LR pixel of difference is their rounding.
    if any(abs(n * ratio - m) > max(ratio, 0.02 * m) for n, m in zip(lr.size, target.size, strict=True)):
        yield (
            "warning",
            "gsd",
            f"{kind}: the sizes say a scale of {scales[0]:.3g}x{scales[1]:.3g}, gsd_m says {ratio:.3g} ({lr.gsd_m:g} m "
            f"to {target.gsd_m:g} m); the sizes are used, correct gsd_m",
        )


def _extents(lr: Seen, target: Seen, kind: str) -> Iterator[Found]:
    if lr.place is None or target.place is None or (lr.place.crs is None) != (target.place.crs is None):
        return
    a, b = lr.place.bounds, target.place.bounds
    if lr.place.crs != target.place.crs:
        from rasterio.warp import transform_bounds

        try:
            b = transform_bounds(target.place.crs, lr.place.crs, *b)
        except Exception as error:  # GDAL and PROJ have classes of their own for a CRS that they cannot take
            yield (
                "warning",
                "extent",
                f"{kind}: its place cannot be brought to the LR's {one_line(lr.place.crs, 40)} "
                f"({one_line(error, 80)}); compare them by eye",
            )
            return
    pixel = ((a[2] - a[0]) / lr.size[1], (a[3] - a[1]) / lr.size[0])
    overlap = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    share = overlap / max((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    off = [(y - x) / pixel[i % 2] for i, (x, y) in enumerate(zip(a, b, strict=True))]
    worst = max(map(abs, off))
    # Bounds that were turned into another CRS grow by what the turned corners need, which is no fault.
    slack = 1.0 if lr.place.crs == target.place.crs else 3.0
    if worst <= slack:
        return
    edges = f"left {off[0]:+.1f}, bottom {off[1]:+.1f}, right {off[2]:+.1f}, top {off[3]:+.1f} LR pixels"
    if share < 0.8:
        yield (
            "error",
            "extent",
            f"{kind}: shares {percent(share)} of its ground with the LR (edges {edges}), expected all; correct the "
            "pair or its georeference",
        )
    else:
        yield (
            "warning",
            "extent",
            f"{kind}: its edges differ from the LR's by {edges}, expected less than {slack:g}; cut both to the "
            "same ground",
        )


def check_place(kind: str, place: Georeference | None, image: Seen | None) -> Iterator[Found]:
    """Whether a mask of the same CRS covers the ground of its image."""
    if place is None or image is None or image.place is None or place.crs != image.place.crs:
        return
    a, b = image.place.bounds, place.bounds
    pixel = ((a[2] - a[0]) / image.size[1], (a[3] - a[1]) / image.size[0])
    worst = max(abs(y - x) / pixel[i % 2] for i, (x, y) in enumerate(zip(a, b, strict=True)))
    if worst > 1:
        yield (
            "warning",
            "extent",
            f"{kind}: its edges lie up to {worst:.1f} px off its image's; cut it to the same ground",
        )


def _day(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None


def _dates(record: Record) -> Iterator[Found]:
    days = {}
    for name, text in (("lr_date", record.lr_date), ("hr_date", record.hr_date)):
        if text and (day := _day(text)) is None:
            yield "warning", "date", f"{name}: found '{one_line(text, 40)}', expected YYYY-MM-DD; correct it"
        elif text and day is not None:
            days[name] = day
    if len(days) == 2 and abs((days["lr_date"] - days["hr_date"]).days) > 180:
        yield (
            "warning",
            "date",
            f"LR and HR lie {abs((days['lr_date'] - days['hr_date']).days)} days apart, expected at most 180: the "
            "ground itself may differ; prefer a nearer date",
        )
