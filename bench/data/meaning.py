"""What stored numbers mean: the names of the bands, and value = (stored + add) / divide, for every command alike.

What is declared (in ``dataset.json``, ``pairs.csv`` or an option) beats what the file says of itself, and a
contradiction is a line; what neither says is the usual thing where that leaves no doubt, and a question where it does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.image import RGB, UNITS, Unit
from bench.data import bands as band_names
from bench.data.normalise import Normalisation

# What people call numbers that are one of our units after all.
_OTHER_UNITS = {
    "percent": "reflectance with a scale of 100", "%": "reflectance with a scale of 100",
    "radiance": "relative: without the sun's angle it has no absolute level",
    "dn": "relative, or reflectance with its scale", "counts": "relative, or reflectance with its scale",
    "toa": "reflectance", "boa": "reflectance", "sr": "reflectance", "rgb": "display", "picture": "display",
}  # fmt: skip
_ROUND = 1e-6  # a scale tag of 4 bytes misses 1e-4 by as much
LANDSAT_C2 = "scale 36363.636, offset -7272.727"
_NEVER_DARK = 5000  # reflectance of 0.5 at the dark end of all bands, if it were x 10000
_FULL_16_BIT = 2**15  # a picture of 16 bits that never reaches it uses fewer bits


@dataclass(frozen=True)
class Side:
    """What the numbers of one side (LR, HR or PAN) mean, as far as it is declared.

    ``normalisation`` None stands for the unit's usual one: ``fixed[0,3000]`` for reflectance, ``display`` for
    display images, ``percentile[2,98]`` for relative numbers. ``scale`` and ``offset`` None: what the file's own tags
    say, else 10000 (1 for floats), 255 (65535 for 16-bit pictures that use their bits) and 1; and 0. ``sensor`` is free
    text; where it names a known one (``bench.data.bands.SENSORS``), it says which band ``B4`` is.
    """

    unit: Unit = "reflectance"
    bands: str | None = None
    scale: float | None = None
    offset: float | None = None
    gsd_m: float | None = None
    normalisation: str | None = None
    gamma: float = 1.0
    nodata: float | None = None
    sensor: str | None = None

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            hint = _OTHER_UNITS.get(str(self.unit).strip().lower(), "")
            raise unknown("unit", str(self.unit), UNITS, hint=f"{one_line(self.unit, 40)} is {hint}" if hint else "")
        if self.scale is not None and not self.scale > 0:
            raise RfbenchError(f"scale: found {self.scale}, expected a number above 0")
        if not self.gamma > 0:
            raise RfbenchError(f"gamma: found {self.gamma}, expected a number above 0")

    @property
    def declared(self) -> Normalisation:
        """The declared normalisation, or the unit's usual one."""
        usual = {"reflectance": "fixed[0,3000]", "display": "display", "relative": "percentile[2,98]"}
        return Normalisation.parse(self.normalisation or usual[self.unit])

    @property
    def band_names(self) -> tuple[str, ...] | None:
        """The declared bands by their canonical names; ``ALPHA`` for a channel that is none."""
        return band_names.parse(self.bands, self.sensor) if self.bands else None

    def hashed(self) -> dict[str, Any]:
        """The side as a fingerprint has it: an offset of 0 that nobody declared is the 0 that it was before tags of
        files counted."""
        fields = dataclasses.asdict(self)
        if self.offset is None:
            fields["offset"] = 0.0
        elif self.offset == 0:
            fields["offset"] = "0, declared"
        return fields


@dataclass(frozen=True)
class Voice:
    """How the reader of a message can say what is missing."""

    bands: str = "declare the side's bands in dataset.json"
    white: str = "declare what white is (scale 255, 2047, 4095, 65535)"
    scale: str = "correct the side's offset or scale"
    unit: str = "correct the side's unit or scale"
    who: str = "the dataset declares"
    wrong_bands: str = "correct dataset.json"
    nodata: str = "declare it as the side's nodata"
    picture: str = "declare the unit 'display' if it is a picture, else the scale"


MANIFEST = Voice()


def names_of(
    path: Path,
    written: Sequence[str] | None,
    count: int,
    side: Side,
    voice: Voice = MANIFEST,
    is_picture: bool = False,
) -> tuple[str, ...]:
    """The canonical names of ``count`` bands.

    ``written`` are the names that the file has. Raises RfbenchError where nothing names them, where names only number
    them, and where declared and written colours contradict each other.
    """
    declared = tuple(n for n in side.band_names or () if n != band_names.ALPHA) or None
    own = band_names.named(written, side.sensor) if written else None
    if declared is not None and len(declared) == count:
        if is_picture and count == len(RGB) and declared != RGB:
            raise RfbenchError(
                f"{path}: the channels of a colour picture are R G B by its format, {voice.who} {' '.join(declared)}; "
                f"{voice.wrong_bands}"
            )
        # A name at another place is a contradiction; a name that the other one does not know is none.
        if own and len(own) == count and any(b in declared and declared.index(b) != own.index(b) for b in own):
            raise RfbenchError(
                f"{path}: the file names its bands {' '.join(own)}, {voice.who} {' '.join(declared)}; "
                f"{voice.wrong_bands}"
            )
        return declared
    if declared is not None:
        raise RfbenchError(
            f"{path}: found {count} band{'s' * (count != 1)}, expected {' '.join(declared)}; {voice.bands}"
        )
    if own is not None and len(set(own)) == count:
        return own
    if written and own is None:
        raise RfbenchError(
            f"{path}: calls its bands {one_line(' '.join(written), 80)}, which are other colours for other sensors; "
            f"{voice.bands}, or say the sensor"
        )
    if own is not None:
        twice = next(n for n in own if own.count(n) > 1)
        raise RfbenchError(f"{path}: two bands are called {twice}, expected different names; {voice.bands}")
    names = band_names.guess(count, side.sensor)
    if names is None:
        alpha = " ('R G B NIR', or 'R G B A' if the last one is an alpha channel)" if count == 4 else ""
        raise RfbenchError(
            f"{path}: found {count} band{'s' * (count != 1)}, expected names for them; {voice.bands}{alpha}"
        )
    return names


Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """value = (stored + add) / divide, a number a band; ``source`` says who said so: declared, file or usual."""

    add: Float64
    divide: Float64
    source: str
    notes: tuple[str, ...] = ()

    def apply(self, stored: np.ndarray) -> Float64:
        """Values (..., C) in double precision."""
        return (stored.astype(np.float64) + self.add) / self.divide

    def pick(self, bands: Sequence[int]) -> Scaling:
        """The scaling of some of the bands."""
        chosen = list(bands)
        return dataclasses.replace(self, add=self.add[chosen], divide=self.divide[chosen])

    def text(self) -> str:
        """What is done, for messages."""
        (low, high), n = (float(self.divide.min()), float(self.divide.max())), float(self.add.flat[0])
        return f"division by {low:g}" + (f" to {high:g}" if high != low else "") + (f" after {n:+g}" if n else "")


def scaling_of(
    path: Path,
    stored: np.ndarray,
    scales: Sequence[float] | None,
    offsets: Sequence[float] | None,
    side: Side,
    voice: Voice = MANIFEST,
) -> Scaling:
    """What brings stored numbers (of which ``stored`` is a sample, (h, w, C)) to the side's unit.

    ``scales`` and ``offsets`` are those of the file's own tags, None where it has none. Raises RfbenchError where
    nobody says what white is, where 8-bit numbers are called reflectance, and for tags that are no scale.
    """
    n = stored.shape[2]
    tags = _tags(path, scales, offsets, side, voice)
    is_8_bit = stored.dtype.itemsize == 1
    if tags is not None and side.unit == "display" and is_8_bit and side.scale is None:
        note = f"its tags (x {_shown(scales)}) say nothing of an 8-bit picture, whose white is 255"
        return Scaling(np.zeros(n), np.full(n, 255.0), "usual", (note,))
    if side.scale is not None:
        add = np.zeros(n) if side.offset is None else np.full(n, float(side.offset))
        notes: tuple[str, ...] = ()
        if tags is not None:
            agrees = np.allclose(tags.divide, side.scale, rtol=1e-3)
            if agrees and side.offset is None:
                add = tags.add
            elif not agrees or not np.allclose(tags.add, add, atol=1e-3 * side.scale):
                notes = (_contradiction(side, scales, offsets),)
        return Scaling(add, np.full(n, float(side.scale)), "declared", notes)
    if tags is not None:
        if side.offset is None or np.allclose(tags.add, side.offset, atol=1e-3 * float(tags.divide.min())):
            return tags
        return Scaling(
            np.full(n, float(side.offset)), tags.divide, "declared", (_contradiction(side, scales, offsets),)
        )
    usual = usual_scale(path, stored, side, voice)
    return Scaling(np.full(n, float(side.offset or 0.0)), np.full(n, usual), "usual")


def _tags(
    path: Path, scales: Sequence[float] | None, offsets: Sequence[float] | None, side: Side, voice: Voice
) -> Scaling | None:
    """The scaling that a file's tags say; None where it has none."""
    if scales is None or offsets is None:
        return None
    s, o = np.array(scales, np.float64), np.array(offsets, np.float64)
    if not (np.isfinite(s).all() and np.isfinite(o).all() and (s > 0).all()):
        if side.scale is not None:
            return None
        raise RfbenchError(
            f"{path}: its scale and offset tags are {_shown(scales)} and {_shown(offsets)}, expected scales above 0; "
            f"{voice.scale}"
        )
    return Scaling(_rounded(o / s), _rounded(1 / s), "file")


def _rounded(numbers: Float64) -> Float64:
    """Whole numbers where tags miss them by their rounding: 1e-4 is no number of a computer, 10000 is."""
    whole = np.rint(numbers)
    return np.where(np.abs(numbers - whole) <= _ROUND * np.abs(whole), whole, numbers)


def _contradiction(side: Side, scales: Sequence[float] | None, offsets: Sequence[float] | None) -> str:
    said = [f"scale {side.scale:g}"] if side.scale is not None else []
    said += [f"offset {side.offset:g}"] if side.offset is not None else []
    return (
        f"{' and '.join(said)} are declared and the file's own tags say x {_shown(scales)} {_signed(offsets)}; what is "
        "declared holds"
    )


def _shown(numbers: Sequence[float] | None) -> str:
    found = list(dict.fromkeys(f"{n:g}" for n in numbers or ()))
    return "/".join(found[:3])


def _signed(numbers: Sequence[float] | None) -> str:
    return "/".join(list(dict.fromkeys(f"{n:+g}" for n in numbers or ()))[:3])


def usual_scale(path: Path, values: np.ndarray, side: Side, voice: Voice = MANIFEST) -> float:
    """What stored numbers are divided by where neither the user nor the file says.

    Raises RfbenchError where that would be a guess: pictures of more than 8 bits, 8-bit reflectance, and numbers of a
    Landsat whose Collection 2 has another scale and an offset.
    """
    unit = side.unit
    if unit == "relative" or values.dtype.kind not in "ui":
        return 1.0
    if unit == "reflectance":
        if values.dtype.itemsize == 1:
            raise RfbenchError(
                f"{path}: holds 8-bit numbers up to {values.max(initial=0)}, and reflectance x 10000 needs more bits; "
                f"{voice.picture}"
            )
        if (band_names.sensor_of(side.sensor) or "").startswith("landsat") and dark_end(values) > _NEVER_DARK:
            raise RfbenchError(
                f"{path}: hardly a number lies below {dark_end(values):.0f}, as in Landsat Collection 2, whose "
                f"reflectance is 2.75e-05 x stored - 0.2; {voice.scale} ({LANDSAT_C2}; 10000 and 0 if it is "
                "reflectance x 10000)"
            )
        return 10000.0
    is_full = values.dtype.itemsize == 2 and path.suffix.lower() == ".png" and values.max(initial=0) >= _FULL_16_BIT
    if values.dtype.itemsize > 1 and not is_full:
        # 11- and 12-bit data live in 16-bit files: taking 65535 for white would make every image nearly black, and
        # every score 20 dB too good.
        raise RfbenchError(
            f"{path}: found {values.dtype} display values up to {values.max(initial=0)} without a scale, expected one; "
            f"{voice.white}"
        )
    return 255.0 if values.dtype.itemsize == 1 else 65535.0


def dark_end(values: np.ndarray) -> float:
    """The stored number below which one in a hundred lies, those of 0 left out; 0 where all are."""
    found = values[:: max(1, values.shape[0] // 512), :: max(1, values.shape[1] // 512)]
    return float(np.percentile(found[found > 0], 1)) if (found > 0).any() else 0.0


def most_plausible(unit: Unit) -> tuple[float, float]:
    """What values of a unit can be at all, with what the sun, snow, corrected shadow and rounding may add."""
    return {"reflectance": (-0.5, 10.0), "display": (-1e-6, 1 + 1e-6)}.get(unit, (-math.inf, math.inf))
