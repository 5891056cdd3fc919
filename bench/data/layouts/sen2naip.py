"""SEN2NAIP, version 1, real pairs: Sentinel-2 with NAIP brought to 2.5 m, within a day of each other.

The two sides have different units (Sentinel-2 in reflectance x 10000, NAIP as 8-bit picture), name no bands and are not
matched in radiometry. The archive is read as it is, or unpacked. Version 2 comes as TACO files, which the publisher's
own reader opens; its pairs are imported from where that wrote them, by the layout ``csv``.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line
from bench.data import readers
from bench.data.layouts.build import Builder, Import, gsd_field

_BANDS = ("R", "G", "B", "NIR")
_SIZES = {"lr": 121, "hr": 484}
_CITATION = "Aybar et al.: SEN2NAIP, a large-scale dataset for Sentinel-2 image super-resolution, Scientific Data 2024"
_LARGEST_FILE = 64 * 2**20  # bytes of one image; published ones have less than one MB


def import_sen2naip(job: Import, *, offset: float | None = None) -> int:
    """Make a dataset of the folder ``cross-sensor`` or its zip; returns the number of images."""
    root = _root(job.source)
    with job.building() as builder:
        if root.suffix == ".zip":
            root = _unpacked(root, builder.work / ".unpacked")
        pairs = _pairs(job, root)
        builder.expect(len(pairs))
        facts: Counter[str] = Counter()
        for name, files in sorted(pairs.items()):
            builder.add(_row(builder, name, files, facts) | {"split": job.split})
        for fact, n in sorted(facts.items()):
            job.note(f"{n} {fact}")
        _remove(builder.work / ".unpacked")
        lr: dict[str, Any] = {"unit": "reflectance", "scale": 10000, "normalisation": "fixed[0,3000]", "gsd_m": 10}
        return builder.finish(
            {"name": job.name, "licence": "CC BY 4.0", "citation": _CITATION,
             "description": "SEN2NAIP v1, real pairs; NAIP's tones are not Sentinel-2's",
             "lr": lr | {"bands": " ".join(_BANDS), "sensor": "Sentinel-2 L2A"}
             | ({"offset": offset} if offset is not None else {}),
             "hr": {"unit": "display", "scale": 255, "bands": " ".join(_BANDS), "gsd_m": 2.5, "sensor": "NAIP"}},
            skip_broken=True,
        )  # fmt: skip


def _root(source: Path) -> Path:
    """The folder that holds ROI_*, or the zip of it."""
    for folder in (source, source / "cross-sensor", source / "cross-sensor" / "cross-sensor"):
        if any(folder.glob("ROI_*")):
            return folder
    zips = [p for p in (*sorted(source.glob("*.zip")), *sorted(source.glob("cross-sensor/*.zip"))) if p.is_file()]
    if len(zips) == 1:
        return zips[0]
    if any(source.glob("**/*.taco")):
        raise RfbenchError(
            f"{source} holds TACO files, which are version 2; write its pairs out with the publisher's tacoreader and "
            "import them with --layout csv"
        )
    raise RfbenchError(
        f"{source} holds no cross-sensor/ROI_*/lr.tif and no single zip of it; give version 1's real pairs"
    )


def _unpacked(archive: Path, folder: Path) -> Path:
    """The images of a zip, below ``folder``; only ROI_*/lr.tif and hr.tif, under names of our own."""
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                match = re.search(r"(?:^|/)(ROI_\d+)/(lr|hr)\.tif$", entry.filename)
                if not match:
                    continue
                if entry.file_size > _LARGEST_FILE:
                    raise RfbenchError(f"{archive}: {match[0]} unpacks to {entry.file_size} bytes; it is no such image")
                path = folder / match[1] / f"{match[2]}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read(entry))
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise RfbenchError(f"{archive} is cut or no zip ({one_line(error, 100)}); get it again") from None
    return folder


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _pairs(job: Import, root: Path) -> dict[str, dict[str, Path]]:
    found = {
        folder.name: {side: folder / f"{side}.tif" for side in _SIZES if (folder / f"{side}.tif").is_file()}
        for folder in sorted(root.glob("ROI_*"))
    }
    lonely = [name for name, files in found.items() if len(files) < len(_SIZES)]
    job.note_names("ROIs", lonely, "have no lr.tif or no hr.tif and are left out")
    pairs = {name: files for name, files in found.items() if len(files) == len(_SIZES)}
    if not pairs:
        raise RfbenchError(f"{root} holds no ROI with both lr.tif and hr.tif; get the archive again")
    return pairs


def _row(builder: Builder, name: str, files: dict[str, Path], facts: Counter[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": name, "scene_id": name}
    sizes = {}
    for side, path in files.items():
        raster = readers.read(path)
        dtype, sizes[side] = raster.values.dtype.name, raster.values.shape[:2]
        believed = "uint16" if side == "lr" else "uint8"
        if dtype != believed:
            facts[f"{side.upper()} files are {dtype}, where {believed} is expected: look at one"] += 1
        row |= {side: builder.copy(path, side, name)} | gsd_field(side, readers.georeference(path))
    if any(b != 4 * a for a, b in zip(sizes["lr"], sizes["hr"], strict=True)):
        facts["pairs are not of factor 4"] += 1
    return row
