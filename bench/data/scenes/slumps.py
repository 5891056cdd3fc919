"""Retrogressive thaw slumps: where the scars lie, what shape they have, and how they are dug into the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.scenes.fields import MARGIN_PX, Array, Shape, bell, frame, noise, resample, step
from bench.data.scenes.ground import Ground
from bench.data.scenes.plan import Plan


@dataclass(frozen=True)
class Slump:
    """One scar: position in canvas px, lengths in HR px."""

    kind: str  # "bowl-shaped", "broad", "horseshoe-shaped" or "tongue-shaped"
    row: float
    col: float
    radius_px: float
    tongue_px: float  # length of the debris tongue
    downslope_rad: float
    depth_m: float
    ice: float  # 0..1, bright ground ice below the headwall
    dryness: float  # about -1..1, pale dry against grey wet mud
    old: bool  # grown over: visible, but not in the mask


def draw_slumps(plan: Plan, ground: Ground, rng: np.random.Generator, side_px: int) -> list[Slump]:
    """0 to 3 active scars side by side, at times an old one before them, uphill of the foot of the slope."""
    shape = np.array(ground.foot_px.shape)
    down = np.array((np.sin(plan.downslope_rad), np.cos(plan.downslope_rad)))
    across = np.array((down[1], -down[0]))
    reach = shape / 2 - MARGIN_PX - 0.1 * side_px  # centres stay this close to the middle of the view
    old_count, count = int(rng.random() < 0.25), int(rng.choice(4, p=(0.12, 0.45, 0.28, 0.15)))
    start_px = side_px * (rng.uniform(-0.3, 0.3) if old_count + count < 2 else rng.uniform(-0.35, 0.1))
    kinds = ("bowl-shaped", "broad", "horseshoe-shaped", "tongue-shaped")
    slumps = []
    for index in range(old_count + count):
        kind = str(rng.choice(kinds, p=(0.35, 0.2, 0.25, 0.2)))
        size = rng.uniform(0.075, 0.21 if count < 2 else 0.15)
        radius = size * min(side_px, 240) * (0.7 if kind == "tongue-shaped" else 1.0)
        flows = kind in ("bowl-shaped", "tongue-shaped")  # the others keep their debris close by
        tongue = radius * (rng.uniform(1.0, 4.0) if flows else rng.uniform(0, 1.2))
        centre = shape / 2 + across * start_px + down * side_px * rng.uniform(-0.25, 0.2)
        uphill_px = radius * rng.uniform(0.5, 1.1) + 0.55 * tongue
        for _ in range(3 if plan.foot != "none" else 0):  # the foot is wavy: approach it in steps
            here = np.clip(centre, 0, shape - 1)
            centre = centre - down * (resample(ground.foot_px, *here[:, None])[0] + uphill_px)
        row, col = np.clip(centre, shape / 2 - reach, shape / 2 + reach)
        start_px += radius * rng.uniform(1.8, 3.4) + 0.05 * side_px
        slumps.append(
            Slump(
                kind=kind,
                row=float(row),
                col=float(col),
                radius_px=radius,
                tongue_px=tongue,
                downslope_rad=plan.downslope_rad + rng.normal(0, 0.2),
                depth_m=rng.uniform(1.5, 5) * (0.4 if index < old_count else 1.0),
                ice=float(rng.random() < 0.2) * rng.uniform(0.3, 0.9),
                dryness=rng.uniform(-1.3, 0.9),
                old=index < old_count,
            )
        )
    return slumps


def _lobes(kind: str, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Discs (down-slope, across, radius; in slump radii) whose union is the scar, with a scalloped headwall."""
    if kind == "tongue-shaped":
        return [(0.0, 0.0, 0.8), (0.7, 0.1, 0.6)]
    count = int(rng.integers(3, 6))  # neighbours overlap by half, or the scar would look like petals
    if kind == "broad":
        places = np.linspace(-1.3, 1.3, count) + rng.normal(0, 0.12, count)
        return [(rng.normal(0, 0.12), float(v), rng.uniform(0.40, 0.62)) for v in places]
    opening_rad, arc, width = (1.5, 0.65, 0.48) if kind == "horseshoe-shaped" else (1.2, 0.34, 0.64)
    angles = np.linspace(-opening_rad, opening_rad, count) + rng.normal(0, 0.2, count)
    radii = width * rng.uniform(0.75, 1.2, count)
    lobes = [(-arc * np.cos(a), arc * np.sin(a), float(r)) for a, r in zip(angles, radii, strict=True)]
    return lobes if kind == "horseshoe-shaped" else [*lobes, (0.15, 0.0, 0.7)]


def _scar_distance(slump: Slump, rng: np.random.Generator, shape: Shape) -> tuple[Array, Array, Array]:
    """Signed distances in px (positive inside) of scar and debris tongue, and the down-slope coordinate in px."""
    radius = slump.radius_px
    along, across = frame(shape, slump.row, slump.col, slump.downslope_rad)
    wobble = 0.09 * radius * noise(rng, shape, 3.0, outer_px=1.2 * radius, smooth_px=2.0)
    along, across = along + wobble, across + wobble[::-1, ::-1]
    # A log-sum-exp union is smooth, yet keeps the cusps between lobes that real headwalls have.
    blend_px = 0.09 * radius + 0.6
    union = np.full(shape, -60.0)
    for u, v, r in _lobes(slump.kind, rng):
        disc_px = r * radius - np.hypot(along - u * radius, across - v * radius)
        union = np.logaddexp(union, disc_px / blend_px)

    bend = rng.uniform(-0.35, 0.35) * radius * np.sin(along / (1.3 * radius) + rng.uniform(0, 6))
    t = np.clip((along - 0.3 * radius) / (slump.tongue_px + 1.0), 0.0, 1.0)
    half_width = radius * (0.42 - 0.22 * np.sin(np.pi * t) + 0.08 * t)
    beyond = along - np.clip(along, 0.3 * radius, 0.3 * radius + slump.tongue_px)
    return blend_px * union, half_width - np.hypot(beyond, across - bend * t), along


def dig_slump(slump: Slump, ground: Ground, streaks: Array, patches: Array, rng: np.random.Generator) -> Array:
    """Carve one scar into the ground, add its layers, and return its cover 0..1."""
    radius = slump.radius_px
    scar_px, tongue_px, along = _scar_distance(slump, rng, ground.foot_px.shape)
    before_foot = step(3 - ground.foot_px, 1.0)  # mud flows to the foot of the slope, not up the other side
    inside = before_foot * step(scar_px, 0.6)
    tongue = before_foot * step(tongue_px - 0.06 * radius * patches, 0.9)
    d_row, d_col = np.gradient(scar_px)
    facing = d_row * np.sin(slump.downslope_rad) + d_col * np.cos(slump.downslope_rad)
    head = inside * step(facing - 0.3, 0.12)  # where the edge lies up-slope of the floor
    mouth = step(along / radius - 0.5, 0.25)
    # The floor meets the old surface at the mouth, so that only the head is a step; debris lies on top.
    ground.drop_m += slump.depth_m * step(scar_px - 1.5, 1.0) * (1 - mouth) - 0.8 * tongue * (1 - inside)
    if slump.old:
        ground.layers += [("lichen", 0.55 * inside), ("sedge", 0.5 * inside * step(patches, 0.4))]
        ground.layers += [("headwall", 0.35 * head * step(2.5 - scar_px, 0.7))]
        return inside
    scar = 1 - (1 - inside) * (1 - 0.9 * tongue)
    dry = step(0.7 * streaks + 0.5 * patches + 1.6 * slump.dryness - 0.2, 0.8)
    island = step(patches + 0.4 * streaks - 1.9, 0.15) * step(scar_px - 4.0, 1.0)
    regrowth = mouth * step(patches - 0.7 * streaks - 0.5, 0.3)
    wall_px = 2.5 + 0.08 * radius + 0.8 * patches
    ice = slump.ice * head * bell(scar_px - wall_px - 1.5, 1.2) * step(streaks + patches, 0.3)
    ground.layers += [("wet mud", scar), ("dry mud", 0.85 * scar * dry)]
    ground.layers += [("sedge", scar * np.maximum(0.8 * island, 0.55 * regrowth))]
    ground.layers += [("headwall", 0.9 * head * step(wall_px - scar_px, 0.6)), ("ice", ice)]
    return scar
