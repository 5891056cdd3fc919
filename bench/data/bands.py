"""Band names. Bands are found by name, never by position: three orders are in use for the same four bands."""

from __future__ import annotations

from bench.core.errors import RfbenchError, one_line

# Sentinel-2's numbers and the words that publishers write into band descriptions, lower case.
_ALIASES = {
    "r": "R", "red": "R", "b04": "R", "b4": "R",
    "g": "G", "green": "G", "b03": "G", "b3": "G",
    "b": "B", "blue": "B", "b02": "B", "b2": "B",
    "nir": "NIR", "b08": "NIR", "b8": "NIR", "nir1": "NIR", "n": "NIR", "near infrared": "NIR",
    "pan": "PAN", "panchromatic": "PAN", "gray": "PAN", "grey": "PAN",
}  # fmt: skip


def canonical(name: str) -> str:
    """The one name of a band: ``B04``, ``red`` and ``R`` are ``R``; an unknown name stays (``b5`` as ``B05``)."""
    plain = one_line(name, 40).strip()
    if plain.lower() in _ALIASES:
        return _ALIASES[plain.lower()]
    if plain[:1] in "bB" and plain[1:].isdigit():
        return f"B{int(plain[1:]):02d}"
    return plain


def parse(text: str) -> tuple[str, ...]:
    """``"B02 B03 B04 B08"`` or ``"B,G,R,NIR"`` as canonical names; RfbenchError for a name that comes twice."""
    names = tuple(canonical(n) for n in text.replace(",", " ").split())
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or not names:
        raise RfbenchError(f"bands '{one_line(text, 80)}': expected different names, found {twice[:1] or 'none'}")
    return names


def guess(count: int) -> tuple[str, ...] | None:
    """The bands of a file that names none, where its number leaves no doubt: PAN, or R G B."""
    return {1: ("PAN",), 3: ("R", "G", "B")}.get(count)
