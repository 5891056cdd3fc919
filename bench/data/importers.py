"""Make a dataset folder of images that lie in another layout. Files are copied, never changed.

``folder``
    A plain folder of HR images: an HR-only dataset for ``bicubic-4x``. With ``lr/`` and ``hr/`` inside (or ``lr/``
    alone), files of one name make a pair; ``pan/`` and ``mask/`` are taken too.
``catalogue``
    A folder with ``manifest.csv`` (one row a file: id, role, kind, file, scene, bands, gsd_m, value_meaning, dtype,
    acq_date, licence) and perhaps ``captions.csv`` (id, caption). ``--role`` chooses the rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line
from bench.data import readers
from bench.data.bands import canonical
from bench.data.dataset import parse_side
from bench.data.layouts.build import Builder, Import, inside, read_rows


def import_folder(
    job: Import,
    *,
    unit: str = "display",
    scale: float | None = None,
    bands: str | None = None,
    offset: float | None = None,
) -> int:
    """Make a dataset of a plain folder of images; returns the number of images.

    ``unit``, ``scale`` (what stored numbers are divided by) and ``bands`` (names in the files' order)
    hold for LR and HR; ``offset`` (added to stored numbers before the scale) for the LR alone.
    """
    side = {"unit": unit, "scale": scale, "bands": bands}
    parse_side(side, "the options --unit, --scale and --bands")
    lr_side = side | ({"offset": offset} if offset is not None else {})
    if offset is not None and unit != "reflectance":
        raise RfbenchError(f"--offset belongs to reflectance, found --unit {unit}; leave it out or give the unit")
    sides = {k: job.source / k for k in ("lr", "hr", "pan", "mask") if (job.source / k).is_dir()}
    if not {"lr", "hr"} & sides.keys():
        sides = {"hr": job.source}
    images = {k: _by_stem(folder) for k, folder in sides.items()}
    first = "lr" if "lr" in images else "hr"
    if not images[first]:
        raise RfbenchError(f"{sides[first]} holds no image; expected files ending in {' '.join(readers.SUFFIXES)}")
    for found in images.values():
        lonely = sorted(found.keys() - images[first].keys())
        if lonely:
            raise RfbenchError(f"{found[lonely[0]]} has no image of the same name in {sides[first]}; add or remove it")
    with job.building() as builder:
        builder.expect(len(images[first]))
        _folder_rows(images, builder, job.split)
        info: dict[str, Any] = {
            "name": job.name,
            "description": f"images of the folder {one_line(job.source.name, 100)}",
        }
        return builder.finish(info | {"lr": lr_side, "hr": side, "pan": {"unit": "relative"}})


def _folder_rows(images: dict[str, dict[str, Path]], builder: Builder, split: str) -> None:
    for stem in sorted(images["lr" if "lr" in images else "hr"]):
        row: dict[str, Any] = {"id": stem, "split": split}
        for kind, found in images.items():
            if stem in found:
                row[kind] = builder.copy(found[stem], kind)
            elif kind == "hr":
                raise RfbenchError(f"the LR image '{stem}' has no HR image of the same name; add it, or take lr/ alone")
        builder.add(row)


def import_catalogue(job: Import, *, roles: Sequence[str] = ("paired",), offset: float | None = None) -> int:
    """Make a dataset of the rows of a ``manifest.csv`` that have one of ``roles``; returns the number of images.

    Units are read from ``value_meaning`` and the data type: reflectance x 10000, standardised numbers and raw sensor
    counts (relative), 8-bit display values. A pair whose two sides are pictures of unrelated renderings is relative on
    both sides, since only percentiles bring them together.
    """
    rows_of: dict[str, list[dict[str, str]]] = {}
    known: set[str] = set()
    needed = ("id", "role", "kind", "file", "bands", "value_meaning", "dtype")
    for row in read_rows(job.source / "manifest.csv", needed, "catalogue"):
        known.add(row["role"])
        if row["role"] in roles:
            rows_of.setdefault(row["id"], []).append(row)
    if not rows_of:
        raise RfbenchError(
            f"{job.source}: no image has the role {' or '.join(roles)}; its roles are {', '.join(sorted(known))}"
        )
    captions = {}
    if (job.source / "captions.csv").is_file():
        captions = {
            r["id"]: r["caption"] for r in read_rows(job.source / "captions.csv", ("id", "caption"), "catalogue")
        }
    with job.building() as builder:
        builder.expect(len(rows_of))
        for image_id, files in sorted(rows_of.items()):
            for image in _catalogue_rows(image_id, files, job, builder, captions.get(image_id, "")):
                if offset is not None and image.get("lr_unit") == "reflectance":
                    image["lr_offset"] = offset
                builder.add(image)
        where = one_line(job.source.resolve().name, 100)
        return builder.finish({"name": job.name, "description": f"{', '.join(roles)} of the catalogue {where}"})


def _catalogue_rows(
    image_id: str, files: list[dict[str, str]], job: Import, builder: Builder, caption: str
) -> list[dict[str, Any]]:
    """The manifest rows of one id: usually one; several where one place has several HR dates."""
    by_kind: dict[str, list[dict[str, str]]] = {}
    for file in files:
        by_kind.setdefault(file["kind"], []).append(file)
    hr_entries: list[dict[str, str] | None] = list(by_kind.get("hr", [])) or [None]
    found = []
    for hr in hr_entries:
        # A single panchromatic band is no reference for colour: it is the PAN of its multispectral image.
        is_pan = hr is not None and [canonical(b) for b in _bands(hr)] == ["PAN"]
        several = len(hr_entries) > 1 and hr is not None
        name = f"{image_id}_{Path(hr['file']).stem}" if several and hr is not None else image_id
        row: dict[str, Any] = {
            "id": name, "scene_id": _scene(files[0], image_id), "split": job.split, "caption": caption,
        }  # fmt: skip
        chosen: dict[str, dict[str, str] | None] = {
            "lr": _first(by_kind, "lr"),
            "pan" if is_pan else "hr": hr,
            "mask": _first(by_kind, "mask_updated", "mask"),
            "series": _first(by_kind, "lr_series"),
        }
        pictures = all(e is not None and "rendering" in e["value_meaning"] for e in (chosen["lr"], hr))
        for kind, entry in chosen.items():
            if entry is None:
                continue
            row[kind] = builder.copy(inside(job.source, entry["file"]), kind, name)
            if kind in ("lr", "hr", "pan"):
                row |= _side_fields(entry, kind, relative=pictures or is_pan)
        row["licence"] = "; ".join(dict.fromkeys(e.get("licence", "") for e in chosen.values() if e))
        for kind in ("lr", "hr"):
            date = (chosen.get(kind) or {}).get("acq_date", "")
            if re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
                row[f"{kind}_date"] = date
        found.append(row)
    return found


def _first(by_kind: dict[str, list[dict[str, str]]], *kinds: str) -> dict[str, str] | None:
    return next((by_kind[k][0] for k in kinds if k in by_kind), None)


def _side_fields(entry: dict[str, str], kind: str, *, relative: bool) -> dict[str, Any]:
    meaning = entry["value_meaning"].lower()
    fields: dict[str, Any] = {f"{kind}_bands": " ".join(_bands(entry))}
    if (
        relative
        or "standardised" in meaning
        or "raw dn" in meaning
        or ("bit dn" in meaning and entry["dtype"] != "uint8")
    ):
        fields |= {f"{kind}_unit": "relative", f"{kind}_normalisation": "percentile[2,98]"}
    elif "reflectance" in meaning and "not reflectance" not in meaning:
        scale = 10000 if entry["dtype"] in ("uint16", "int16") else 1
        fields |= {f"{kind}_unit": "reflectance", f"{kind}_scale": scale, f"{kind}_normalisation": "fixed[0,3000]"}
    else:
        fields |= {f"{kind}_unit": "display", f"{kind}_scale": 255, f"{kind}_normalisation": "display"}
    gsd = re.match(r"[0-9.]+", entry.get("gsd_m", ""))
    return fields | ({f"{kind}_gsd_m": float(gsd[0])} if gsd else {})


def _scene(entry: dict[str, str], image_id: str) -> str:
    """The scene that images share: without it, neighbours would count as independent."""
    return one_line(entry.get("scene") or image_id, 200)


def _bands(entry: dict[str, str]) -> list[str]:
    return [canonical(b) for b in re.split(r"[,\s]+", entry["bands"].split(" x ")[0]) if b]


def _by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder by name without ending; RfbenchError where two differ in the ending alone."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in readers.SUFFIXES):
        if path.stem in found:
            raise RfbenchError(f"{found[path.stem]} and {path.name} would have the same id; rename one")
        found[path.stem] = path
    return found
