"""Band names. Bands are found by name, never by position: three orders are in use for the same four bands.

What ``B4`` is depends on the sensor: red of Sentinel-2 and Landsat 8, near infrared of Landsat 7, PlanetScope and
RapidEye's neighbour. Names with a zero (``B04``) are Sentinel-2's; plain numbers that begin with ``B1`` say nothing
until the sensor is known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.core.errors import RfbenchError, one_line, unknown

ALPHA = "ALPHA"
"""The name of a channel that says where there is a picture. It is never data."""

# Sentinel-2's numbers and the words that publishers write into band descriptions, lower case.
_ALIASES = {
    "r": "R", "red": "R", "b04": "R", "b4": "R",
    "g": "G", "green": "G", "b03": "G", "b3": "G",
    "b": "B", "blue": "B", "b02": "B", "b2": "B",
    "nir": "NIR", "b08": "NIR", "b8": "NIR", "nir1": "NIR", "n": "NIR", "near infrared": "NIR", "near-infrared": "NIR",
    "nir_1": "NIR", "near_infrared": "NIR", "infrared": "NIR",
    "pan": "PAN", "panchromatic": "PAN", "gray": "PAN", "grey": "PAN",
    "a": ALPHA, "alpha": ALPHA, "opacity": ALPHA,
    "band_r": "R", "band_g": "G", "band_b": "B", "band_n": "NIR", "band_p": "PAN",
}  # fmt: skip

# Bands by their number, from 1, of each stack that a sensor's products have.
_SENTINEL_2 = "B01 B G R B05 B06 B07 NIR B09 B10 B11 B12"
_STACKS: dict[str, tuple[str, ...]] = {
    "landsat-8": ("B01 B G R NIR SWIR1 SWIR2", "B01 B G R NIR SWIR1 SWIR2 PAN CIRRUS TIR1 TIR2"),
    "landsat-7": ("B G R NIR SWIR1 TIR SWIR2 PAN",),
    "landsat-5": ("B G R NIR SWIR1 TIR SWIR2",),
    "planetscope": ("R G B", "B G R NIR", "B G R RE NIR", "COASTAL B GREEN1 G YELLOW R RE NIR"),
    "rapideye": ("B G R RE NIR",),
    "worldview-2": ("R G B", "B G R NIR", "COASTAL B G YELLOW R RE NIR NIR2"),
    "worldview-4": ("R G B", "B G R NIR"),
    "naip": ("R G B", "R G B NIR"),
    "skysat": ("B G R NIR",),
    "gaofen": ("B G R NIR",),
    "venus": ("COASTAL B02 B G YELLOW B06 R B08 B09 B10 NIR B12",),
    "modis": ("R NIR B G B05 B06 B07",),
}
# Numbers of the bands where they do not count the order in the file.
_PLEIADES = {"0": "B", "1": "G", "2": "R", "3": "NIR"}
_ORDERS: dict[str, dict[int, str]] = {
    "sentinel-2": {
        4: "B G R NIR",
        12: "B01 B G R B05 B06 B07 NIR B8A B09 B11 B12",
        13: "B01 B G R B05 B06 B07 NIR B8A B09 B10 B11 B12",
    },
    "pleiades": {3: "R G B", 4: "R G B NIR"},
    "pleiades-neo": {3: "R G B", 4: "R G B NIR", 6: "R G B NIR RE COASTAL"},
}
_ALSO = {
    "s2": "sentinel-2", "sentinel2": "sentinel-2", "landsat-9": "landsat-8", "landsat8": "landsat-8",
    "landsat9": "landsat-8", "landsat7": "landsat-7", "landsat5": "landsat-5", "landsat-4": "landsat-5",
    "planet": "planetscope", "superdove": "planetscope", "dove": "planetscope", "psb-sd": "planetscope",
    "ps2": "planetscope", "gf": "gaofen", "worldview-3": "worldview-2", "worldview2": "worldview-2",
    "worldview3": "worldview-2",
    "quickbird": "worldview-4", "geoeye": "worldview-4", "ikonos": "worldview-4", "spot-6": "pleiades",
    "spot-7": "pleiades", "spot": "pleiades",
}  # fmt: skip
_WHOLE_STACK = 11  # bands, of Landsat 8
SENSORS = tuple(sorted({*_STACKS, *_ORDERS, *_ALSO}))
"""The sensors whose bands are known by number; several names stand for one."""
_NUMBER = re.compile(r"(?:sr[_-]?|toa[_-]?|sur_refl_)?b(?:and)?[ _-]?(\d{1,2}a?)|(\d{1,2})", re.IGNORECASE)
# What products write around a name: 'B02_10m', 'red (B4)', 'B4 (red)', 'Band_3_Red'.
_AROUND = (
    re.compile(r"(.+?)[ _-]\d{2,3}m"), re.compile(r"([a-z][a-z _-]+?) *\([^()]*\)", re.IGNORECASE),
    re.compile(r"[^()]*\(([a-z][a-z _-]+)\)", re.IGNORECASE),
    re.compile(r"b(?:and)?[ _-]?\d{1,2}[ _:-]+([a-z][a-z _-]+)", re.IGNORECASE),
)  # fmt: skip


def sensor_of(text: str | None) -> str | None:
    """The known sensor that a text such as ``Sentinel-2 L2A`` names; None for another one, or none."""
    plain = re.sub(r"[^a-z0-9]+", "-", (text or "").lower().replace("µ", "u").replace("μ", "u")).strip("-")
    known = sorted({**_STACKS, **_ORDERS, **_ALSO}, key=len, reverse=True)
    found = next((k for k in known if plain == k or plain.startswith(f"{k}-")), None)
    return _ALSO.get(found, found) if found else None


def check_sensor(text: str) -> str:
    """``text`` if its bands are known; RfbenchError with the sensors that are."""
    if sensor_of(text) is None:
        raise unknown("sensor", text, SENSORS, hint="or name the bands, such as --bands 'B G R NIR'")
    return text


def canonical(name: str) -> str:
    """The one name of a band: ``B04``, ``red`` and ``R`` are ``R``; an unknown name stays (``b5`` as ``B05``).

    Numbers are Sentinel-2's here; of a whole file ``named`` knows better.
    """
    plain = _bare(name)
    if plain.lower() in _ALIASES:
        return _ALIASES[plain.lower()]
    if plain[:1] in "bB" and plain[1:].isdigit():
        return f"B{int(plain[1:]):02d}"
    return plain


def named(names: Sequence[str], sensor: str | None = None) -> tuple[str, ...] | None:
    """Canonical names of all bands of a file; None where they number the bands and no known ``sensor`` says whose.

    Words are words whatever the sensor. ``B04`` is Sentinel-2's, as ``B2 B3 B4 B8`` and anything with ``B8A`` is;
    ``B1 B2 B3 B4`` (also ``SR_B1``, ``Band 1``) says nothing by itself.
    """
    numbers = [_NUMBER.fullmatch(_bare(n)) for n in names]
    if not any(numbers):
        return tuple(map(canonical, names))
    known = sensor_of(sensor)
    if known is not None:
        return tuple(_of(known, n, m, numbers) for n, m in zip(names, numbers, strict=True))
    if _speaks_for_itself([_bare(n) for n in names], numbers):
        return tuple(map(canonical, names))
    return None


def _speaks_for_itself(names: Sequence[str], numbers: Sequence[re.Match[str] | None]) -> bool:
    """Whether numbered names can only be Sentinel-2's (or mean the same colours in Landsat 8).

    A whole stack with ``B10`` and without ``B8A`` is Landsat's or VENµS's, whose other numbers are other colours.
    """
    found = [n.lower() for n, m in zip(names, numbers, strict=True) if m]
    if len(names) < 3 or "b8a" in found:
        return True
    if "b10" in found and len(found) >= _WHOLE_STACK:
        return False
    plain = all(re.fullmatch(r"b\d+a?", n) for n in found)
    padded = any(re.fullmatch(r"b0\d", n) for n in found)
    return plain and (padded or "b1" not in found)


def _bare(name: str) -> str:
    """A name without what products write around it."""
    plain = one_line(name, 60).strip()
    for pattern in _AROUND:
        found = pattern.fullmatch(plain)
        if found and (found[1].lower().strip() in _ALIASES or _NUMBER.fullmatch(found[1])):
            return found[1].strip()
    return plain[:40]


def _digits(number: re.Match[str]) -> str:
    return number[1] or number[2]


def _of(sensor: str, name: str, number: re.Match[str] | None, numbers: Sequence[re.Match[str] | None]) -> str:
    """The canonical name of one band of a known sensor."""
    if number is None:
        return canonical(name)
    text = _digits(number).lstrip("0").lower() or "0"
    if sensor == "sentinel-2":
        return canonical(f"B{text.upper()}") if text != "8a" else "B8A"
    if sensor in ("pleiades", "pleiades-neo"):
        return _PLEIADES.get(text, f"B{int(text):02d}" if text.isdigit() else name)
    if not text.isdigit():
        return name
    highest = max(int(_digits(m).rstrip("aA")) for m in numbers if m)
    stacks = [s.split() for s in _STACKS[sensor]]
    fitting = [s for s in stacks if len(s) == len(numbers) and highest <= len(s)] or [
        s for s in stacks if highest <= len(s)
    ]
    place = int(text)
    return fitting[0][place - 1] if fitting and 1 <= place <= len(fitting[0]) else f"B{place:02d}"


def parse(text: str, sensor: str | None = None) -> tuple[str, ...]:
    """``"B02 B03 B04 B08"`` or ``"B,G,R,NIR"`` as canonical names.

    Raises RfbenchError for a name that comes twice, and for numbers that a sensor would have to explain.
    """
    given = text.replace(",", " ").split()
    names = named(given, sensor)
    if names is None:
        raise RfbenchError(
            f"bands '{one_line(text, 80)}': these numbers mean other colours for other sensors; name the sensor "
            f"({', '.join(sorted({*_STACKS, *_ORDERS}))}) or the colours ('B G R NIR')"
        )
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or not names:
        raise RfbenchError(f"bands '{one_line(text, 80)}': expected different names, found {twice[:1] or 'none'}")
    return names


def guess(count: int, sensor: str | None = None) -> tuple[str, ...] | None:
    """The bands of a file that names none: those of a known sensor's product of as many, else PAN, or R G B."""
    known = sensor_of(sensor)
    if known is not None:
        orders = _ORDERS.get(known) or {len(s.split()): s for s in _STACKS[known]}
        if count in orders:
            return tuple(orders[count].split())
    return {1: ("PAN",), 3: ("R", "G", "B")}.get(count)
