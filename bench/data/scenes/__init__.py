"""Procedural cross-sensor views of thawing tundra with retrogressive thaw slumps.

A scene is one patch of ground seen twice: at 2 m by a very-high-resolution sensor (11-bit counts) and, on another
date, at 10 m by a Sentinel-2-like sensor (12-bit DN). The ground is a linear mixture of end-members (vegetation
covers, mud, water, ...) over a shaded relief; the season changes the vegetation spectra; a sensor is a modulation
transfer function, a band-mixing matrix, gains, haze and noise.

Every random stream is derived from a hash of (seed, scene_id, purpose), so a scene depends on nothing else. Class
borders are sigmoids of float64 fields, so that rounding differences between machines stay within one count.

The way through the files, each of which imports only from those above it:

- `fields`: numerical tools, such as random streams, soft steps, noise and distances;
- `plan`: the draws for the scene as a whole;
- `ground`: relief, vegetation, polygons, ponds, water and snow;
- `slumps`: the scars, drawn and dug into the ground;
- `optics`: spectra, texture and sunlight turn the ground into reflectance;
- `sensors`: reflectance becomes the counts of the two sensors;
- `captions`: the plan and the slumps in words;
- this file: `make_scene`, which calls the others in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from bench.data.scenes.captions import describe
from bench.data.scenes.fields import MARGIN_PX, Shape, noise, random_stream, view
from bench.data.scenes.ground import (
    HR_GSD_M,
    polygon_layers,
    pond_layers,
    snow_cover,
    snow_drift,
    terrain,
    vegetation_layers,
    water_layers,
)
from bench.data.scenes.optics import SNOW, illumination, mix, spectra_on, texture
from bench.data.scenes.plan import draw_plan
from bench.data.scenes.sensors import BANDS, HR_MAX, HR_SCALE, LR_MAX, LR_SCALE, Counts, sense_hr, sense_lr
from bench.data.scenes.slumps import dig_slump, draw_slumps

__all__ = [
    "BANDS",
    "GAMMA",
    "HR_GSD_M",
    "HR_MAX",
    "HR_NORMALISATION",
    "HR_SCALE",
    "LR_MAX",
    "LR_NORMALISATION",
    "LR_SCALE",
    "Scene",
    "make_scene",
]

# How to display the counts: these limits of reflectance x 10000 become 0 and 1, which GAMMA then brightens.
HR_NORMALISATION = "fixed[0,2600]"
LR_NORMALISATION = "fixed[0,3000]"
GAMMA = 0.6


@dataclass(frozen=True)
class Scene:
    """One patch of ground from two sensors; H, W are `factor` times h, w."""

    id: str
    hr: Counts  # (H, W, 4) counts 0..2047 in R, G, B, NIR
    lr: Counts  # (h, w, 4) DN 0..4095 = reflectance x 10000 in R, G, B, NIR
    mask: NDArray[np.uint8]  # (H, W), 1 = slump
    caption: str
    hr_date: str  # ISO dates
    lr_date: str
    sensor: dict[str, float]  # what the two sensor models drew


def make_scene(seed: int, scene_id: str, hr_px: Shape = (200, 200), factor: int = 5) -> Scene:
    """The scene named (seed, scene_id); both sides of `hr_px` (rows, columns) are multiples of `factor`."""
    if hr_px[0] % factor or hr_px[1] % factor:
        raise ValueError(f"hr_px {hr_px} is not a multiple of the factor {factor}")
    shape, side_px = (hr_px[0] + 2 * MARGIN_PX, hr_px[1] + 2 * MARGIN_PX), min(hr_px)

    def rng(purpose: str) -> np.random.Generator:
        return random_stream(seed, scene_id, purpose)

    # The ground: later layers cover earlier ones, so water comes last and hides the mud that reached it.
    plan = draw_plan(rng("plan"))
    patches = noise(rng("patches"), shape, 2.6, outer_px=24, smooth_px=1.2)
    streaks = noise(rng("streaks"), shape, 2.2, outer_px=10, smooth_px=0.9, stretch=6.0, along_rad=plan.downslope_rad)
    ground = terrain(plan, rng("terrain"), shape, side_px)
    ground.layers += vegetation_layers(plan, ground, rng("vegetation"))
    if plan.polygons:
        ground.layers += polygon_layers(plan, ground, rng("polygons"), patches)
    if plan.ponds:
        ground.layers += pond_layers(ground, rng("ponds"))
    slumps = draw_slumps(plan, ground, rng("slumps"), side_px)
    covers = [dig_slump(slump, ground, streaks, patches, rng(f"slump {i}")) for i, slump in enumerate(slumps)]
    water = water_layers(plan, ground, rng("water"), side_px)
    ground.layers += water
    dry_land = np.ones(shape)
    for name, weight in water:
        dry_land *= 1 - weight * name.endswith("water")

    # Its reflectance on the two dates: the cover and its texture stay, while season, snow and sun change.
    fractions = mix(ground.layers)
    grain = texture(fractions, rng("grain"))
    drift = snow_drift(plan, shape, rng("snow"))
    epochs = rng("epochs")
    sun_deg = epochs.uniform((140, 32), (215, 46))
    radiance = []
    for day in (plan.hr_day, plan.lr_day):
        azimuth_rad, altitude_rad = np.radians(sun_deg + epochs.normal(0, (6, 2)))
        surface = np.einsum("krc,kb->rcb", fractions, spectra_on(day, plan.tint)) * grain
        if plan.snow:
            snow = (dry_land * snow_cover(ground, day, drift))[..., None]
            surface = surface * (1 - snow) + SNOW * snow
        light = 1 + dry_land * (illumination(ground, azimuth_rad, altitude_rad) - 1)  # water is level
        radiance.append(surface * light[..., None])
    hr, hr_sensor = sense_hr(radiance[0], rng("hr sensor"))
    lr, lr_sensor = sense_lr(radiance[1], factor, rng("lr sensor"))

    # The mask marks the active scars above water; the caption names the scars that the view shows.
    mask, shown = np.zeros(hr_px, np.uint8), []
    for slump, cover in zip(slumps, covers, strict=True):
        visible = view(cover * dry_land) > 0.5
        if visible.any():
            shown.append(slump)
        if not slump.old:
            mask |= visible
    hr_date, lr_date = (date(plan.year, 1, 1) + timedelta(days=day - 1) for day in (plan.hr_day, plan.lr_day))
    caption = describe(plan, shown, shape)
    return Scene(scene_id, hr, lr, mask, caption, hr_date.isoformat(), lr_date.isoformat(), hr_sensor | lr_sensor)
