"""The ground: its relief, and the covers that lie on it, without the thaw slumps.

A cover is a layer: an end-member (named in `optics`) and a weight. Layers are painted one over the other, so their
order matters; `make_scene` sets it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.scenes.fields import Array, Shape, bell, frame, line_distance, noise, resample, smooth, step
from bench.data.scenes.plan import Plan

Layer = tuple[str, Array]  # end-member and its weight 0..1, painted over what is there

HR_GSD_M = 2.0


@dataclass
class Ground:
    """Fields on the canvas, which is the view with its margin."""

    elevation_m: Array
    drop_m: Array  # how far gullies and scars are cut below that elevation
    foot_px: Array  # signed distance to the foot of the slope, positive beyond it
    gully_px: Array  # signed distance to the nearest gully or water track
    layers: list[Layer]


def terrain(plan: Plan, rng: np.random.Generator, shape: Shape, side_px: int) -> Ground:
    """Bare relief of a slope that ends in a lake, a stream or nothing; `side_px` is the shorter side of the view."""
    along, across = frame(shape, shape[0] / 2, shape[1] / 2, plan.downslope_rad)
    wobble = noise(rng, shape, 3.4, outer_px=0.6 * side_px, smooth_px=4.0 if plan.foot == "lake" else 12.0)
    foot = along - plan.foot_at * side_px
    if plan.foot == "stream":  # meanders vary across the slope only, or the line would fold back into rings
        phase = across / rng.uniform(9, 20) + 1.5 * wobble
        foot = foot - 0.05 * side_px * wobble - rng.uniform(0.5, 3.5) * np.sin(phase)
    else:
        foot = foot - rng.uniform(0.05, 0.12) * side_px * wobble
    near = bell(foot, 25)  # the estimate of the distance only holds near the line
    foot_px = near * line_distance(foot, 0.6) + (1 - near) * foot
    if plan.foot == "none":
        foot_px = foot - 10 * side_px  # far outside the view

    fractal = noise(rng, shape, rng.uniform(2.8, 3.4), outer_px=0.9 * side_px)
    elevation_m = plan.relief_m * fractal - HR_GSD_M * plan.slope * along
    if plan.foot == "stream":  # the far bank rises again, and the stream is cut in
        elevation_m += rng.uniform(1.0, 2.2) * HR_GSD_M * plan.slope * 6 * np.logaddexp(0, foot_px / 6)
        elevation_m -= rng.uniform(2, 6) * bell(foot_px, rng.uniform(7, 16))
    gullies = noise(rng, shape, 3.6, outer_px=70, smooth_px=3.5, stretch=4.0, along_rad=plan.downslope_rad)
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    # Straight gullies look synthetic: bend them.
    gullies = resample(gullies, rows + 9 * wobble, cols - 9 * wobble[::-1, ::-1])
    gully_px = line_distance(gullies)
    drop_m = plan.incision_m * bell(gully_px, rng.uniform(3, 8)) * step(fractal + 0.5, 0.4)
    return Ground(elevation_m, drop_m, foot_px, gully_px, [])


def vegetation_layers(plan: Plan, ground: Ground, rng: np.random.Generator) -> list[Layer]:
    """Tundra covers from moisture and exposure: heath first, the others over it."""
    shape = ground.foot_px.shape
    exposure = smooth(ground.elevation_m, 2.0) - smooth(ground.elevation_m, 9.0)
    exposure /= exposure.std()
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    warp = 6.0 * noise(rng, shape, 2.8, outer_px=40, smooth_px=1.0)
    broad = resample(noise(rng, shape, 2.8, outer_px=90), rows + warp, cols + warp[::-1, ::-1])
    medium = noise(rng, shape, 2.4, outer_px=30, smooth_px=0.8, stretch=3.0, along_rad=plan.downslope_rad)
    moisture = plan.wetness + 0.9 * broad - 0.4 * exposure + 0.3 * medium
    layers = [
        ("heath", np.ones(shape)),
        ("lichen", 0.75 * step(0.5 * plan.bareness - 0.6 - moisture + 0.45 * medium, 0.35)),
        ("sedge", 0.85 * step(moisture + 0.3 * medium - 0.35, 0.35)),
        ("shrub", 0.8 * step(moisture - 0.9 * medium - 1.1, 0.25)),
        ("gravel", 0.8 * step(exposure + 0.5 * medium - 0.4 * broad + plan.bareness - 2.3, 0.25)),
    ]
    if plan.tracks:
        wet = 0.85 * step(broad + 0.4, 0.4)
        layers.append(("sedge", wet * bell(ground.gully_px, 4.5)))
        layers.append(("shrub", wet * bell(ground.gully_px, 1.9) * step(medium + 0.6, 0.4)))
    return layers


def polygon_layers(plan: Plan, ground: Ground, rng: np.random.Generator, bend: Array) -> list[Layer]:
    """Ice-wedge polygons: cells around jittered centres, with troughs where the two nearest are equally far."""
    shape, cell_px = ground.foot_px.shape, rng.uniform(8, 17)
    presence = step(noise(rng, shape, 3.0, outer_px=100) + 0.5, 0.3) * step(-ground.foot_px - 8, 4)
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    y, x = (rows + 2.2 * bend) / cell_px + 3, (cols + 2.2 * bend[::-1, ::-1]) / cell_px + 3
    last_row, last_col = int(shape[0] / cell_px) + 7, int(shape[1] / cell_px) + 7
    jitter_y, jitter_x = rng.uniform(0.05, 0.95, (2, last_row + 1, last_col + 1))
    nearest, second = np.full(shape, 9.0), np.full(shape, 9.0)
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            i = np.clip(np.floor(y).astype(int) + step_y, 0, last_row)
            j = np.clip(np.floor(x).astype(int) + step_x, 0, last_col)
            distance = np.hypot(y - i - jitter_y[i, j], x - j - jitter_x[i, j])
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
    edge_px = (second - nearest) * cell_px / 2
    trough, rim = presence * bell(edge_px, 1.1), presence * bell(edge_px - 2.3, 1.1)
    centre = presence * step(edge_px - 3.2, 0.6)
    if plan.polygons == "low":
        wet_centre = [("sedge", 0.7 * centre), ("clear water", 0.28 * centre)]
        return [*wet_centre, ("lichen", 0.35 * rim), ("shrub", 0.6 * trough)]
    return [("lichen", 0.4 * centre), ("shrub", 0.85 * trough), ("clear water", 0.25 * trough)]


def pond_layers(ground: Ground, rng: np.random.Generator) -> list[Layer]:
    """Small ponds with a fringe of sedge, scattered up-slope of the foot."""
    pond = noise(rng, ground.foot_px.shape, 4.0, outer_px=rng.uniform(22, 45), smooth_px=2.5)
    pond_px = line_distance(pond - rng.uniform(1.35, 1.8))
    away = step(-ground.foot_px - 6, 2)
    return [("sedge", 0.7 * away * bell(pond_px, 3.0)), ("clear water", away * step(pond_px, 0.5))]


def water_layers(plan: Plan, ground: Ground, rng: np.random.Generator, side_px: int) -> list[Layer]:
    """Lake or stream at the foot of the slope, over whatever reaches it."""
    foot_px, ripple = ground.foot_px, noise(rng, ground.foot_px.shape, 2.4, outer_px=40)
    silt = np.clip(plan.silt + 0.04 * ripple, 0, 1)
    if plan.foot == "lake":
        lake_px = np.minimum(foot_px, plan.lake_width * side_px - foot_px)
        water, shallow = step(lake_px, 0.45), np.exp(-np.maximum(lake_px, 0.0) / 5)
        shore = 0.8 * bell(lake_px + 1, 1.6) * step(ripple + 0.3, 0.5)
        silty = water * np.clip(silt + 0.5 * shallow, 0, 1)
        return [("shore", shore), ("clear water", water), ("silty water", silty)]
    if plan.foot == "stream":
        half_px = rng.uniform(0.5, 2.2)
        water = 0.85 * step(half_px - np.abs(foot_px), 0.5)
        bank = 0.75 * step(half_px + 1.5 + 1.3 * ripple - np.abs(foot_px), 0.7)
        thicket = 0.55 * bell(foot_px, 9) * step(ripple, 0.4)
        return [("shrub", thicket), ("gravel", bank), ("clear water", water), ("silty water", silt * water)]
    return []


def snow_drift(plan: Plan, shape: Shape, rng: np.random.Generator) -> Array:
    """Depth of wind-blown snow, elongated along the contours, in standard deviations."""
    contour_rad = plan.downslope_rad + np.pi / 2
    return noise(rng, shape, 3.4, outer_px=70, smooth_px=1.5, stretch=2.5, along_rad=contour_rad)


def snow_cover(ground: Ground, day: int, drift: Array) -> Array:
    """0..1 cover of late snow in hollows, gullies and under banks, shrinking as the season goes on."""
    relief = smooth(ground.elevation_m, 2.5)
    hollow = smooth(relief, 12.0) - relief
    score = 0.3 * hollow / hollow.std() + 0.5 * drift - 0.025 * (day - 170)
    score += 1.6 * bell(ground.foot_px + 4, 8) + 1.2 * bell(ground.gully_px, 5)
    return step(smooth(score, 0.8) - 1.75, 0.10)
