"""A paired folder of the user's own: one CSV that names LR and HR files and, where known, what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line, unknown
from bench.data import readers
from bench.data.bands import canonical
from bench.data.layouts.build import Builder, Import, gsd_field, inside, read_rows
from bench.data.meaning import Voice

_VOICE = Voice(
    bands="name them in the column bands_hr or bands_lr ('B G R NIR')",
    white="say what white is in the column scale_hr or scale_lr (255, 4095, 65535)",
    scale="correct the columns offset_... and scale_...",
    unit="correct the columns unit_... and scale_...",
    who="the table says",
    wrong_bands="correct the column bands_...",
    nodata="say so in the column nodata_...",
    picture="if it is a picture, say display in the column unit_..., else what 1 is stored as in scale_...",
)
_BRIGHTEST, _DARKEST_COUNT = 2.0, 100.0  # medians of reflectance 0 to 1, and of reflectance x 10000
FILES = ("lr", "hr", "pan", "mask", "series")
TEXTS = ("id", "scene_id", "split", "region", "caption", "licence")
# The CSV's spelling of a side's field -> ours. Both orders of words are understood.
SIDES = {
    f"{a}_{b}": f"{side}_{field}"
    for side in ("lr", "hr", "pan")
    for field in ("unit", "bands", "scale", "offset", "normalisation", "gamma", "gsd_m", "nodata", "sensor", "date")
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
    with job.building(_VOICE) as builder:
        assumed: dict[str, int] = {}
        builder.expect(len(rows))
        acted = False
        for line, row in enumerate(rows, 2):
            where = f"{path.name} row {line}"
            found = _row(builder, job.source, row, where, assumed, {"lr": lr_gsd_m, "hr": hr_gsd_m})
            found.setdefault("split", job.split)
            side = "lr" if "lr" in found else "hr"
            if offset is not None and found.get(f"{side}_unit") == "reflectance":
                found.setdefault(f"{side}_offset", offset)
                acted = True
            builder.add(found)
        if offset is not None and not acted:
            raise RfbenchError("--offset belongs to reflectance, and no row is; leave it out, or give unit_lr")
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


def _row(
    builder: Builder,
    source: Path,
    row: dict[str, str],
    where: str,
    assumed: dict[str, int],
    gsd_m: dict[str, float | None],
) -> dict[str, Any]:
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
            for field, value in builder.sides.get(kind, {}).items():
                found[f"{kind}_{field}"] = value
            if kind in ("lr", "hr", "pan"):
                _fill_unit(found, kind, path, where, assumed)
                if gsd_m.get(kind):  # an option says what the table leaves open
                    found.setdefault(f"{kind}_gsd_m", gsd_m[kind])
                _fill_gsd(found, kind, path)
            found[kind] = builder.copy(path, kind, found["id"])
    return found


def _fill_unit(row: dict[str, Any], kind: str, path: Path, where: str, assumed: dict[str, int]) -> None:
    """Say what a file's numbers are where the row does not, and its type leaves little doubt."""
    if f"{kind}_unit" in row:
        return
    bands = str(row.get(f"{kind}_bands", "")).replace(",", " ").split()
    raster = readers.read(path, bands=tuple(map(canonical, bands)) or None)
    dtype = raster.values.dtype
    if kind == "pan":
        fields: dict[str, Any] = {"unit": "relative"}
        text = "PAN files are taken as relative numbers"
    elif dtype.itemsize == 1:
        fields = {"unit": "display", "scale": 255}
        text = f"8-bit {kind.upper()} files are taken as display (255 is white)"
    elif kind == "lr" and dtype.kind in "uif":
        fields, text = _reflectance(raster)
    else:
        raise RfbenchError(
            f"{where}: the HR file is {dtype}, and nothing says what its numbers mean; add the columns unit_hr "
            "(reflectance, display, relative) and scale_hr"
        )
    for field, value in fields.items():
        row.setdefault(f"{kind}_{field}", value)
    assumed[text] = assumed.get(text, 0) + 1


def _reflectance(raster: readers.Raster) -> tuple[dict[str, Any], str]:
    """What an LR file of more than 8 bits is taken for, and how that is said."""
    dtype = raster.values.dtype
    if raster.scales is not None:
        return {"unit": "reflectance"}, f"{dtype} LR files are taken as reflectance by their own scale and offset tags"
    if dtype.kind in "ui":
        return {"unit": "reflectance", "scale": 10000}, f"{dtype} LR files are taken as reflectance x 10000"
    valid = raster.values[raster.valid]
    median = float(np.median(valid)) if valid.size else 0.0
    if median <= _BRIGHTEST:
        return {"unit": "reflectance", "scale": 1}, f"{dtype} LR files are taken as reflectance 0 to 1"
    text = f"{dtype} LR files are taken as reflectance x 10000"
    if median < _DARKEST_COUNT:
        text += (
            f", which a median of {median:.3g} is not: percent (scale_lr 100), or radiance (unit_lr relative)? "
            "'rfbench validate' says more"
        )
    return {"unit": "reflectance", "scale": 10000}, text


def _fill_gsd(row: dict[str, Any], kind: str, path: Path) -> None:
    """The size of a pixel, where the row does not say it, from the file's georeference."""
    if f"{kind}_gsd_m" not in row and not row.get(f"gsd_{kind}_m"):
        row |= gsd_field(kind, readers.georeference(path))
