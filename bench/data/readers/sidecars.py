"""What lies beside an image and belongs to it: a mask (``.msk``), GDAL's notes (``.aux.xml``), a world file.

They are read here, by name and from the image's own folder, so that a dataset's fingerprint can vouch for the same
bytes and nothing in them can send GDAL elsewhere: its own notes may name any file or address as an overview.
"""

from __future__ import annotations

import contextlib
import math
import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.core.errors import RfbenchError, one_line
from bench.data.readers import limits

ENDINGS = (".aux.xml", ".msk")
"""Added to an image's whole name."""
_WORLD = {".tif": (".tfw", ".tifw"), ".tiff": (".tfw", ".tiffw"), ".png": (".pgw", ".pngw"), ".jpg": (".jgw", ".jpgw"),
          ".jpeg": (".jgw", ".jpegw"), ".jp2": (".j2w", ".jp2w")}  # fmt: skip
_HAS_SIDECARS = (*_WORLD, ".j2k")


def beside(path: Path) -> dict[str, Path]:
    """The files beside an image that belong to it, by what is added to (or replaces the ending of) its name."""
    suffix = path.suffix.lower()
    if suffix not in _HAS_SIDECARS:
        return {}
    found = {ending: path.with_name(path.name + ending) for ending in ENDINGS}
    found |= {ending: path.with_suffix(ending) for ending in (*_WORLD.get(suffix, ()), ".wld")}
    return {ending: p for ending, p in found.items() if p.is_file()}


@dataclass(frozen=True)
class Notes:
    """What an ``.aux.xml`` says of the bands (counted from 1) and of the place; empty where it says nothing."""

    nodata: dict[int, float] = field(default_factory=dict)
    scales: dict[int, float] = field(default_factory=dict)
    offsets: dict[int, float] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, str] = field(default_factory=dict)
    transform: tuple[float, ...] | None = None
    crs: str | None = None


def notes(path: Path) -> Notes:
    """What the ``.aux.xml`` of an image says. RfbenchError for one that is no such file."""
    file = path.with_name(path.name + ".aux.xml")
    if not file.is_file():
        return Notes()
    root = parse_xml(file)
    if root.tag != "PAMDataset":
        raise RfbenchError(f"{file}: found <{one_line(root.tag, 40)}>, expected <PAMDataset>; remove or replace it")
    found = Notes(transform=_numbers(root.findtext("GeoTransform")), crs=root.findtext("SRS") or None)
    for band in root.findall("PAMRasterBand"):
        with contextlib.suppress(ValueError):
            number = int(band.get("band", ""))
            for tag, into in (("NoDataValue", found.nodata), ("Scale", found.scales), ("Offset", found.offsets)):
                text = band.findtext(tag)
                if text is not None:
                    into[number] = float(text)
            for tag, texts in (("Description", found.names), ("ColorInterp", found.colours)):
                text = band.findtext(tag)
                if text:
                    texts[number] = one_line(text, 80)
    return found


def parse_xml(path: Path) -> Xml.Element:
    """A small XML file without entities, which can multiply. RfbenchError for another one."""
    if path.stat().st_size > limits.LONGEST_TEXTS:
        raise RfbenchError(f"{path}: has more than {limits.LONGEST_TEXTS} bytes, expected a short text; replace it")
    raw = path.read_bytes()
    if b"<!" in raw.replace(b"<!--", b"").replace(b"<![CDATA[", b""):
        raise RfbenchError(f"{path}: declares a document type or entities, expected plain XML; replace it")
    try:
        return Xml.fromstring(raw)
    except (Xml.ParseError, ValueError, RecursionError) as error:
        raise RfbenchError(f"{path} is no readable XML ({one_line(error, 80)}); remove or replace it") from None


def _numbers(text: str | None) -> tuple[float, ...] | None:
    """The six numbers of a geotransform; None where there are not six."""
    try:
        found = tuple(float(n) for n in (text or "").replace(",", " ").split())
    except ValueError:
        return None
    return found if len(found) == 6 and all(map(math.isfinite, found)) else None


def world(path: Path) -> tuple[float, ...] | None:
    """The geotransform of an image's world file, whose six numbers place the centre of its first pixel."""
    for ending, file in beside(path).items():
        if ending not in ENDINGS and file.stat().st_size < 4096:
            numbers = _numbers(file.read_text(encoding="utf-8", errors="replace"))
            if numbers:
                a, d, b, e, c, f = numbers
                return (c - a / 2 - b / 2, a, b, f - d / 2 - e / 2, d, e)
    return None


def copies(path: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """What to copy beside an image's copy ``target``: each file and its new name."""
    for ending, file in beside(path).items():
        yield file, target.with_name(target.name + ending) if ending in ENDINGS else target.with_suffix(ending)
