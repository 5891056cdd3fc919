"""A paired folder of the user's own: one CSV that names LR and HR files and, where known, what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line, unknown
from bench.data import readers
from bench.data.layouts.build import Builder, Import, inside, read_rows

FILES = ("lr", "hr", "pan", "mask", "series")
TEXTS = ("id", "scene_id", "split", "caption", "licence")
# The CSV's spelling of a side's field -> ours. Both orders of words are understood.
SIDES = {
    f"{a}_{b}": f"{side}_{field}"
    for side in ("lr", "hr", "pan")
    for field in ("unit", "bands", "scale", "offset", "normalisation", "gsd_m", "nodata", "date")
    for a, b in ((side, field), (field.removesuffix("_m"), side + ("_m" if field == "gsd_m" else "")))
    if (side, field) != ("pan", "date")
}


def import_table(
    job: Import, *, offset: float | None = None, lr_gsd_m: float | None = None, hr_gsd_m: float | None = None
) -> int:
    """Make a dataset of a folder with one CSV (or a ``pairs.csv`` among several); returns the number of images.

    Columns: ``id`` and one of ``lr`` and ``hr`` at least (paths relative to the CSV); ``pan``, ``mask``, ``series``,
    ``caption``, ``scene_id``, ``split``, ``lr_date``, ``licence``, and of each side ``unit_lr``, ``bands_lr``,
    ``scale_lr``, ``offset_lr``, ``normalisation_lr``, ``gsd_lr_m``, ``nodata_lr`` (or ``lr_unit``, ...). What is left
    empty is filled where the file's type leaves little doubt, and said: 8-bit files are display, 16-bit LR reflectance
    x 10000, float LR reflectance 0 to 1. HR of more than 8 bits must say its unit.
    """
    path = _table_path(job.source)
    rows = read_rows(path, ("id",), "csv")
    with job.building() as builder:
        assumed: dict[str, int] = {}
        builder.expect(len(rows))
        for line, row in enumerate(rows, 2):
            where = f"{path.name} row {line}"
            found = _row(builder, job.source, row, where, assumed)
            found.setdefault("split", job.split)
            # An option says what the table leaves open.
            for side, gsd_m in (("lr", lr_gsd_m), ("hr", hr_gsd_m)):
                if gsd_m and side in found:
                    found.setdefault(f"{side}_gsd_m", gsd_m)
            if offset is not None and found.get("lr_unit") == "reflectance":
                found.setdefault("lr_offset", offset)
            builder.add(found)
        for text, n in sorted(assumed.items()):
            job.note(f"{n} {text}")
        where = one_line(job.source.resolve().name, 100)
        return builder.finish({"name": job.name, "description": f"pairs of the folder {where}"})


def _table_path(source: Path) -> Path:
    tables = sorted(p for p in source.glob("*.csv") if p.is_file())
    named = [p for p in tables if p.name == "pairs.csv"]
    chosen = named or tables
    if len(chosen) != 1:
        found = ", ".join(one_line(p.name, 40) for p in tables[:4]) or "none"
        raise RfbenchError(f"{source}: found {len(tables)} tables ({found}), expected one .csv or one named pairs.csv")
    return chosen[0]


def _row(builder: Builder, source: Path, row: dict[str, str], where: str, assumed: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column, text in row.items():
        if column not in FILES and column not in TEXTS and column not in SIDES:
            raise unknown("column", column or "(without a name)", [*TEXTS, *FILES, *SIDES])
        if text:
            found[SIDES.get(column, column)] = text
    if "id" not in found or not {"lr", "hr"} & found.keys():
        raise RfbenchError(
            f"{where}: found no {'id' if 'id' not in found else 'lr and no hr'}, expected one; fill it in"
        )
    for kind in FILES:
        if kind in found:
            path = inside(source, found[kind], where)
            if kind in ("lr", "hr", "pan"):
                _fill_unit(found, kind, path, where, assumed)
            found[kind] = builder.copy(path, kind, found["id"])
    return found


def _fill_unit(row: dict[str, Any], kind: str, path: Path, where: str, assumed: dict[str, int]) -> None:
    """Say what a file's numbers are where the row does not, and its type leaves little doubt."""
    if f"{kind}_unit" in row:
        return
    bands = str(row.get(f"{kind}_bands", "")).replace(",", " ").split()
    raster = readers.read(path, bands=len(bands) or None)
    dtype = raster.values.dtype
    if kind == "pan":
        fields: dict[str, Any] = {"unit": "relative"}
        text = "PAN files are taken as relative numbers"
    elif dtype.itemsize == 1:
        fields = {"unit": "display", "scale": 255}
        text = f"8-bit {kind.upper()} files are taken as display (255 is white)"
    elif kind == "lr" and dtype.kind in "uif":
        valid = raster.values[raster.valid]
        scale = 10000 if dtype.kind in "ui" or (valid.size and np.median(valid) > 2) else 1
        fields = {"unit": "reflectance", "scale": scale}
        text = f"{dtype} LR files are taken as reflectance {'x 10000' if scale > 1 else '0 to 1'}"
    else:
        raise RfbenchError(
            f"{where}: the HR file is {dtype}, and nothing says what its numbers mean; add the columns unit_hr "
            "(reflectance, display, relative) and scale_hr"
        )
    for field, value in fields.items():
        row.setdefault(f"{kind}_{field}", value)
    assumed[text] = assumed.get(text, 0) + 1
