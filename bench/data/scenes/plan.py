"""The plan of a scene: the draws that belong to the scene as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.scenes.fields import Array


@dataclass(frozen=True)
class Plan:
    """Draws for the scene as a whole: they steer the synthesis and word the caption."""

    downslope_rad: float  # 0 = towards larger columns, pi/2 = towards larger rows
    slope: float  # m per m
    relief_m: float  # standard deviation of the fractal part of the elevation
    incision_m: float  # depth of gullies
    foot: str  # at the foot of the slope: "lake", "stream" or "none"
    foot_at: float  # distance of the foot from the centre, in shorter sides of the view
    lake_width: float  # in shorter sides
    silt: float  # 0..1
    wetness: float  # about -1..1, moves the borders between covers
    bareness: float  # about -1..1
    tint: Array  # (4,) factor on the vegetation spectra: species and soils differ between regions
    polygons: str  # "", "low" or "high" (centred)
    ponds: bool
    tracks: bool
    snow: bool
    hr_day: int  # day of the year
    lr_day: int
    year: int


def draw_plan(rng: np.random.Generator) -> Plan:
    """Draw a plan; flat ground has more polygons and ponds, and snow lies only early in the season."""
    snow = bool(rng.random() < 0.1)
    slope = rng.uniform(0.04, 0.16)
    flat = slope < 0.085
    hr_day = int(rng.integers(168, 186) if snow else rng.integers(172, 262))
    gap_days = int(rng.integers(2, 27)) * int(rng.choice((-1, 1)))
    return Plan(
        downslope_rad=rng.uniform(0, 2 * np.pi),
        slope=slope,
        relief_m=rng.gamma(3.0, 1.2),
        incision_m=rng.gamma(1.2, 1.3),
        foot=str(rng.choice(("lake", "stream", "none"), p=(0.42, 0.33, 0.25))),
        foot_at=rng.uniform(0.02, 0.34),
        lake_width=float(rng.choice((0.35, 0.6, 3.0)) * rng.uniform(0.8, 1.2)),
        silt=rng.beta(0.7, 0.9),
        wetness=rng.normal(0, 0.6),
        bareness=rng.normal(0, 0.7),
        tint=np.exp(rng.normal(0, 0.10) + rng.normal(0, 0.03, 4)),
        polygons=str(rng.choice(("low", "high"))) if rng.random() < (0.5 if flat else 0.12) else "",
        ponds=bool(rng.random() < (0.4 if flat else 0.08)),
        tracks=bool(rng.random() < 0.6),
        snow=snow,
        hr_day=hr_day,
        lr_day=int(np.clip(hr_day + gap_days, 166, 268)),
        year=int(rng.integers(2016, 2025)),
    )
