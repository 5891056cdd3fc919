"""One sentence that says what a view shows."""

from __future__ import annotations

from bench.data.scenes.fields import Shape
from bench.data.scenes.plan import Plan
from bench.data.scenes.slumps import Slump


def _position(slump: Slump, shape: Shape) -> str:
    row, col = slump.row / shape[0], slump.col / shape[1]
    vertical = "upper" if row < 0.4 else "lower" if row > 0.6 else ""
    horizontal = "left" if col < 0.4 else "right" if col > 0.6 else ""
    if not horizontal:
        return {"upper": "at the top", "lower": "at the bottom", "": "in the middle"}[vertical]
    return " ".join(word for word in ("at the", vertical, horizontal) if word)


def describe(plan: Plan, slumps: list[Slump], shape: Shape) -> str:
    """One sentence about the HR view with these visible scars; it says "slump" only of active ones."""
    active = [slump for slump in slumps if not slump.old]
    stage = "brown-green" if plan.hr_day < 184 else "green" if plan.hr_day < 234 else "rust-brown"
    moist = "moist" if plan.wetness > 0.5 else "mossy" if plan.wetness > 0 else "dry"
    tundra = f"{'stony' if plan.bareness > 0.7 else moist} {stage} tundra"
    lake = "above a silty grey lake" if plan.silt > 0.6 else "above a dark lake"
    place = {"lake": lake, "stream": "above a small stream", "none": "on a gentle slope"}[plan.foot]
    if not active:
        text = f"Unbroken {tundra} lies {place}"
    else:
        largest = max(active, key=lambda slump: slump.radius_px)
        tone = "pale" if largest.dryness > 0 else "grey-brown"
        size = "small " if largest.radius_px < 18 else "large " if largest.radius_px > 33 else ""
        one = f"A {size}{tone} {largest.kind} thaw slump {_position(largest, shape)} cuts"
        several = {2: "Two", 3: "Three"}.get(len(active))
        text = f"{f'{several} {tone} thaw slumps cut' if several else one} into {tundra} {place}"
    extras = {
        "late snow patches": plan.snow,
        f"{plan.polygons}-centred ice-wedge polygons": bool(plan.polygons),
        "small dark ponds": plan.ponds,
        "an old grown-over scar": len(active) < len(slumps),
        "green water tracks down the slope": plan.tracks,
    }
    named = [name for name, present in extras.items() if present][:2]
    return text + (f", with {' and '.join(named)}." if named else ".")
