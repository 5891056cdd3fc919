"""GDAL's virtual rasters, closed: what one may name is an image beside it, and nothing else.

A VRT can name any file of the machine, any address of the network, raw bytes at any place of a file, and code. Only the
part of the format that stacks and places images is read; every other element is refused by its name.
"""

from __future__ import annotations

import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bench.core.errors import RfbenchError, one_line
from bench.data.readers import limits, sidecars

SUFFIXES = (".tif", ".tiff", ".jp2")
"""What a VRT may name."""
_ELEMENTS = frozenset(
    [
        "VRTDataset",
        "SRS",
        "GeoTransform",
        "GCPList",
        "GCP",
        "Metadata",
        "MDI",
        "VRTRasterBand",
        "ColorInterp",
        "NoDataValue",
        "HideNoDataValue",
        "Scale",
        "Offset",
        "Description",
        "UnitType",
        "SimpleSource",
        "ComplexSource",
        "SourceFilename",
        "SourceBand",
        "SourceProperties",
        "SrcRect",
        "DstRect",
        "NODATA",
        "UseMaskBand",
        "MaskBand",
        "BlockXSize",
        "BlockYSize",
    ]
)
_MOST_SOURCES = 4096


def sources(path: Path) -> Iterator[Path]:
    """The files that a VRT names, each below its own folder.

    Raises RfbenchError for an absolute or parent path, an address, another type of file, and whatever elements can do
    more than place pixels.
    """
    root = sidecars.parse_xml(path)
    if root.tag != "VRTDataset" or root.get("subClass"):
        raise _refused(path, f"a {one_line(root.get('subClass') or root.tag, 40)}")
    if sum(e.tag == "VRTRasterBand" for e in root.iter()) > limits.MAX_BANDS:
        raise RfbenchError(f"{path}: has more than {limits.MAX_BANDS} bands; cut it")
    found: list[Path] = []
    for element in root.iter():
        if element.tag not in _ELEMENTS:
            raise _refused(path, f"the element <{one_line(element.tag, 40)}>")
        if element.tag == "VRTRasterBand" and element.get("subClass"):
            raise _refused(path, f"a band of the class {one_line(element.get('subClass'), 40)}")
        if element.tag == "MDI" and (element.get("key") or "").upper().startswith("OVERVIEW"):
            raise _refused(path, "overviews in another file")
        if element.tag == "SourceFilename":
            found.append(_source(path, element))
    if len(found) > _MOST_SOURCES:
        raise RfbenchError(f"{path}: names {len(found)} files, expected at most {_MOST_SOURCES}; cut it")
    yield from dict.fromkeys(found)


def _source(path: Path, element: Xml.Element) -> Path:
    text = (element.text or "").strip()
    name = PurePosixPath(text)
    outside = (
        element.get("relativeToVRT") != "1" or name.is_absolute() or ".." in name.parts or ":" in text or "\\" in text
    )
    if outside or not text or not text.isprintable():
        raise RfbenchError(
            f"{path}: names '{one_line(text, 80)}', expected files of its own folder by relative names (as "
            "'gdalbuildvrt' writes them when it is called there); put the images beside it"
        )
    if name.suffix.lower() not in SUFFIXES:
        raise _refused(path, f"a file of the type '{one_line(name.suffix, 20)}'")
    file = path.parent / text
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise RfbenchError(f"{path}: '{one_line(text, 80)}' is a link that leads out of its folder; copy the file")
    if not file.is_file():
        raise RfbenchError(f"{path}: names '{one_line(text, 80)}', which is missing; add it, or make the VRT again")
    return file


def _refused(path: Path, what: str) -> RfbenchError:
    return RfbenchError(
        f"{path}: found {what}, and of VRTs only stacks of {' '.join(SUFFIXES)} files are read; make a GeoTIFF of it "
        "('gdal_translate IN.vrt OUT.tif')"
    )
