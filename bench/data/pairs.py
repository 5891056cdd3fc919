"""What the images of one row say of each other: sizes, places, levels, dates."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.data.checks import Found, Seen, day, percent
from bench.data.readers import Georeference, geometry

_SMALLEST_LR_PX = 8
_SMALLEST_SSIM_PX = 11  # the window of SSIM
_SQUARE = 1.25  # how much the scale along height and width may differ before the pair shows two grounds
_APART_DAYS = 180
# Reflectance of one ground differs by the sun, the season and the sensor: by two or three, not by ten.
_LEVELS_ODD, _LEVELS_WRONG = 3.0, 6.0
_OFFSET = (0.06, 0.14)
_ENOUGH_BLOCKS = 12
SAME = "{kind}: is the same {what} as its own {other}, expected two images; correct the row"
_SWAPPED = 0.4  # of the difference that the right order would leave


def refused_pair(seen: Mapping[str, Seen]) -> Iterator[Found]:
    """What makes the numbers of a pair wrong: sizes, places and levels that no two images of one ground have."""
    yield from (found for found in _relations(seen) if found[0] == "error")


def check_pair(dates: Mapping[str, str], seen: Mapping[str, Seen]) -> Iterator[Found]:
    """The rules between the images of a row: sizes, pixel sizes, places, levels and ``dates``."""
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
    yield from _relations(seen)
    yield from _dates(dates)


def _relations(seen: Mapping[str, Seen]) -> Iterator[Found]:
    lr = seen.get("lr")
    for name in ("hr", "pan"):
        if lr is not None and name in seen:
            yield from _sizes(lr, seen[name], name)
            yield from _extents(lr, seen[name], name)
    if lr is not None and "hr" in seen:
        yield from _levels(lr, seen["hr"])
        yield from _colours(lr, seen["hr"])


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
    if max(scales) > _SQUARE * min(scales):
        yield (
            "error",
            "size",
            f"{kind}: the scale is {scales[0]:.2f} along height and {scales[1]:.2f} along width, expected one: LR "
            f"({h}x{w} px) and {kind.upper()} ({height}x{width} px) do not show the same ground; correct the pair",
        )
        return
    # One scale and a pixel of rounding on each side of the larger image explain some sizes. Where places are known,
    # they say more.
    least, most = max((height - 1) / h, (width - 1) / w), min((height + 1) / h, (width + 1) / w)
    if least > most + 1e-9 and (lr.place is None or target.place is None):
        yield (
            "warning",
            "size",
            f"{kind}: the scale is {scales[0]:.3f} along height and {scales[1]:.3f} along width, which no rounding "
            f"explains: LR ({h}x{w} px) and {kind.upper()} ({height}x{width} px) do not show quite the same ground; "
            "cut both to it",
        )
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
    """Where the target's corners lie among the LR's pixels, on any two grids that are planes."""
    if lr.place is None or target.place is None or (lr.place.crs is None) != (target.place.crs is None):
        for name, place in (("lr", lr.place), (kind, target.place)):
            if place is not None and place.is_south_up:
                yield (
                    "warning",
                    "extent",
                    f"{name}: its rows run from south to north, so it is stored upside down, and nothing says how the "
                    "other image of the pair lies; write it north-up ('gdalwarp IN OUT')",
                )
        return
    try:
        corners = lr.place.pixels(geometry.brought(target.place.corners, target.place.crs, lr.place.crs))
    except RfbenchError as error:
        yield (
            "warning",
            "extent",
            f"{kind}: its place cannot be brought to the LR's {one_line(lr.place.crs, 40)} ({error}); compare them by "
            "eye",
        )
        return
    h, w = lr.size
    own = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float64)
    # Corners are exact in one CRS; in another one a straight edge is none, and points are fitted.
    exact = lr.place.crs == target.place.crs and not (lr.place.by_points or target.place.by_points)
    slack = 1.0 if exact else 3.0
    if np.abs(corners - own).max() <= slack:
        return
    for order, how in geometry.TURNS.items():
        if how and np.abs(corners - own[list(order)]).max() <= slack:
            yield (
                "error",
                "extent",
                f"{kind}: its georeference says that it is stored {how} against the LR, expected the same ground pixel "
                "by pixel; write both north-up ('gdalwarp IN OUT')",
            )
            return
    share = geometry.overlap(own, corners)
    left, top = np.round(corners.min(axis=0), 9)
    right, bottom = np.round(corners.max(axis=0) - (w, h), 9)
    edges = f"left {left:+.1f}, bottom {0 - bottom:+.1f}, right {right:+.1f}, top {0 - top:+.1f} LR pixels"
    turned = _turn(corners)
    if turned:
        edges = f"turned by {turned:.1f} degrees, {edges}"
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


def _turn(corners: geometry.Points) -> float:
    """By how many degrees an outline is turned against the LR's pixels; 0 below a tenth."""
    edge = corners[1] - corners[0]
    angle = math.degrees(math.atan2(edge[1], edge[0]))
    return angle if abs(angle) >= 0.1 else 0.0


def _levels(lr: Seen, hr: Seen) -> Iterator[Found]:
    """Reflectance of one ground that differs by more than the sun, the season and two sensors can make of it."""
    shared = [b for b in lr.bands if b in hr.bands]
    if lr.unit != "reflectance" or hr.unit != "reflectance" or not shared:
        return
    if not lr.levels or not hr.levels:
        return
    mine, theirs = [lr.bands.index(b) for b in shared], [hr.bands.index(b) for b in shared]
    offset = _offset_between(lr.blocks[:, :, mine], hr.blocks[:, :, theirs])
    if offset:
        side, other = ("lr", "hr") if offset > 0 else ("hr", "lr")
        yield (
            "warning",
            "offset",
            f"{side}: every band lies {abs(offset):.2f} (reflectance) above the {other.upper()}'s, expected none: an "
            f"offset of one side is suspected; declare '{side}.offset' (-1000 for Sentinel-2 products with +1000)",
        )
        return
    pairs = [(lr.levels[i], hr.levels[j]) for i, j in zip(mine, theirs, strict=True)]
    ratios = [a / b for a, b in pairs if a > 0 and b > 0]
    if not ratios:
        return
    ratio = float(np.median(ratios))
    times, bright, dark = (ratio, "lr", "hr") if ratio >= 1 else (1 / ratio, "hr", "lr")
    if times < _LEVELS_ODD:
        return
    near = next((n for n in (10, 25, 40, 100, 1000, 10000) if 0.6 <= times / n <= 1.6), None)
    hint = f", near {near}" if near else ""
    yield (
        "error" if times >= _LEVELS_WRONG else "warning",
        "level",
        f"{bright}: its reflectance is {times:.3g} times the {dark.upper()}'s{hint} (medians {lr.level:.3g} of the LR "
        f"and {hr.level:.3g} of the HR), expected two or three at most; correct '{bright}.scale' or '{dark}.scale' "
        "(100 for percent), or leave the pair out",
    )


def _colours(lr: Seen, hr: Seen) -> Iterator[Found]:
    """Red and blue of one image that are the other's blue and red: an order of bands that was taken for another."""
    if lr.unit != hr.unit or lr.unit == "relative" or not {"R", "B"} <= set(lr.bands) & set(hr.bands):
        return
    a, b = _alike(*(s.blocks[:, :, [s.bands.index("R"), s.bands.index("B")]] for s in (lr, hr)))
    both = np.isfinite(a).all(axis=2) & np.isfinite(b).all(axis=2)
    if both.sum() < _ENOUGH_BLOCKS:
        return
    same, swapped = (float(np.abs(a[both] - c[both]).mean()) for c in (b, b[:, :, ::-1]))
    if swapped < _SWAPPED * same and same > _SWAPPED * float(b[both].std()):
        yield (
            "warning",
            "bands",
            "lr: its R is like the HR's B, and its B like the HR's R, expected the same colours: the order of the "
            "bands of one side is another (B G R, or R G B); correct 'lr.bands' or 'hr.bands'",
        )


def _alike(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both (n, n, C), in as many parts as the coarser one has."""
    while len(first) > len(second):
        first = _halved(first)
    while len(second) > len(first):
        second = _halved(second)
    return first, second


def _halved(blocks: np.ndarray) -> np.ndarray:
    """Means of two blocks by two."""
    n = len(blocks) // 2
    return np.asarray(blocks.reshape(n, 2, n, 2, -1).mean(axis=(1, 3)))


def _offset_between(lr: np.ndarray, hr: np.ndarray) -> float:
    """What is added to every band of the LR (below 0: of the HR), where the two agree but for that; 0 otherwise."""
    lr, hr = _alike(lr, hr)
    found = []
    for i in range(lr.shape[2]):
        x, y = hr[:, :, i].ravel(), lr[:, :, i].ravel()
        both = np.isfinite(x) & np.isfinite(y)
        if both.sum() < _ENOUGH_BLOCKS or not x[both].std() or not y[both].std():
            return 0.0
        slope, offset = np.polyfit(x[both], y[both], 1)
        if np.corrcoef(x[both], y[both])[0, 1] < 0.7 or not 0.6 < slope < 1.6:
            return 0.0
        # At the level of the dark ends, where the slope says nothing.
        found.append(float(offset + (slope - 1) * x[both].min()))
    low, high = min(found), max(found)
    is_one = (_OFFSET[0] < low and high < _OFFSET[1]) or (-_OFFSET[1] < low and high < -_OFFSET[0])
    return float(np.mean(found)) if is_one else 0.0


def check_place(kind: str, place: Georeference | None, image: Seen | None) -> Iterator[Found]:
    """Whether a mask of the same CRS covers the ground of its image."""
    if place is None or image is None or image.place is None or place.crs != image.place.crs:
        return
    h, w = image.size
    off = image.place.pixels(place.corners) - np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float64)
    worst = float(np.abs(off).max())
    if worst > 1:
        yield (
            "warning",
            "extent",
            f"{kind}: its edges lie up to {worst:.1f} px off its image's; cut it to the same ground",
        )


def _dates(dates: Mapping[str, str]) -> Iterator[Found]:
    days: dict[str, datetime.date] = {}
    for name, text in dates.items():
        found = day(text) if text else None
        if found is not None:
            days[name] = found
        elif text:
            yield "warning", "date", f"{name}: found '{one_line(text, 40)}', expected YYYY-MM-DD; correct it"
    if len(days) == 2 and abs((days["lr_date"] - days["hr_date"]).days) > _APART_DAYS:
        yield (
            "warning",
            "date",
            f"LR and HR lie {abs((days['lr_date'] - days['hr_date']).days)} days apart, expected at most 180: the "
            "ground itself may differ; prefer a nearer date",
        )
