"""Make a dataset folder of images that lie in another layout. Files are copied, never changed.

``folder``
    A plain folder of HR images: an HR-only dataset for ``bicubic-4x``. With ``lr/`` and ``hr/`` inside (or ``lr/``
    alone), files of one name make a pair; ``pan/`` and ``mask/`` are taken too. Pairs may also lie in one folder as
    ``x_lr.tif`` and ``x_hr.tif``.
``catalogue``
    A folder with ``manifest.csv`` (one row a file: id, role, kind, file, scene, bands, gsd_m, value_meaning, dtype,
    acq_date, licence) and perhaps ``captions.csv`` (id, caption). ``--role`` chooses the rows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import RGB
from bench.data import readers
from bench.data.bands import canonical
from bench.data.dataset import parse_side
from bench.data.layouts.build import Builder, Import, composed, gsd_field, inside, read_rows
from bench.data.meaning import Voice
from bench.data.readers import containers, sidecars

_VOICE = Voice(
    bands="name them in the files' order with --bands 'B G R NIR', or the --sensor",
    white="for reflectance give --unit reflectance --scale 10000 (what 1 is stored as), for pictures say what white is "
    "(--scale 4095, 65535)",
    scale="correct --offset or --scale",
    unit="correct --unit or --scale",
    who="--bands says",
    wrong_bands="correct --bands or leave it out",
    nodata="give --nodata",
    picture="if these are pictures, give --unit display, else the --scale",
)
_SIDE = re.compile(r"(.+?)[_\-. ]?(lr|hr|pan|mask)", re.IGNORECASE)
_SIDE_FIRST = re.compile(r"(lr|hr|pan|mask)[_\-. ](.+)", re.IGNORECASE)
_BAND = re.compile(r"(?<![a-z0-9])(b\d{1,2}a?|blue|green|red|nir)(?![a-z0-9])", re.IGNORECASE)


def import_folder(
    job: Import,
    *,
    unit: str | None = None,
    scale: float | None = None,
    bands: str | None = None,
    sensor: str | None = None,
    nodata: float | None = None,
    offset: float | None = None,
) -> int:
    """Make a dataset of a plain folder of images; returns the number of images.

    ``unit`` (display where it is not given), ``scale`` (what stored numbers are divided by), ``bands`` (names in the
    files' order), ``sensor`` and ``nodata`` hold for LR and HR; ``offset`` (added to stored numbers before the scale)
    for the LR alone, or for the HR where there is no LR. What ``job.sides`` says of one side wins.
    """
    said: dict[str, Any] = {
        "unit": unit or "display",
        "scale": scale,
        "bands": bands,
        "sensor": sensor,
        "nodata": nodata,
    }
    parse_side(said, "the options --unit, --scale, --bands and --sensor")
    sides, is_one_folder = _sides(job.source)
    images = {k: _by_stem(folder, job) for k, folder in sides.items()}
    if is_one_folder:
        images = _split_by_suffix(images["hr"])
    first = "lr" if "lr" in images else "hr"
    if offset is not None and {**said, **job.sides.get(first, {})}["unit"] != "reflectance":
        raise RfbenchError(
            f"--offset belongs to reflectance, found --unit {said['unit']}; leave it out or give the unit"
        )
    if not images[first]:
        raise RfbenchError(_nothing_in(sides.get(first, job.source)))
    if not bands:
        for kind in images.keys() & {"lr", "hr"}:
            _check_are_images(images[kind])
    if "lr" in images and "hr" in images:
        images["lr"] = _without_factor(images["lr"], images["hr"])
    for found in images.values():
        lonely = sorted(found.keys() - images[first].keys())
        if lonely:
            raise RfbenchError(
                f"{found[lonely[0]]} has no image of the same name in {sides.get(first, job.source)}; add or remove it"
                + _near(lonely[0], images[first])
            )
    if unit is None and scale is None:
        for kind in images.keys() & {"lr", "hr"}:
            if "unit" not in job.sides.get(kind, {}):
                _check_is_picture(job, kind, next(iter(images[kind].values())), bands or sensor)
    with job.building(_VOICE) as builder:
        builder.expect(len(images[first]))
        _folder_rows(images, builder, job.split)
        info: dict[str, Any] = {
            "name": job.name,
            "description": f"images of the folder {one_line(job.source.name, 100)}",
        }
        own = {k: said | ({"offset": offset} if offset is not None and k == first else {}) for k in ("lr", "hr")}
        return builder.finish(info | own | {"pan": {"unit": "relative"}})


def _sides(source: Path) -> tuple[dict[str, Path], bool]:
    """The folders of LR, HR, PAN and masks, whatever their case; or the one folder that holds all, and True."""
    folders = sorted(p for p in source.iterdir() if p.is_dir())
    found = {p.name.lower(): p for p in folders if p.name.lower() in ("lr", "hr", "pan", "mask")}
    return (found, False) if {"lr", "hr"} & found.keys() else ({"hr": source}, True)


def _split_by_suffix(images: dict[str, Path]) -> dict[str, dict[str, Path]]:
    """The sides of one folder whose files are called ``x_lr`` and ``x_hr`` (or ``lr_x`` and ``hr_x``); all HR where
    they are not."""
    for pattern, kind, name in ((_SIDE, 2, 1), (_SIDE_FIRST, 1, 2)):
        found: dict[str, dict[str, Path]] = {}
        for stem, match in ((stem, pattern.fullmatch(stem)) for stem in images):
            if match:
                found.setdefault(match[kind].lower(), {})[match[name]] = images[stem]
        if {"lr", "hr"} <= found.keys() and sum(map(len, found.values())) == len(images):
            return found
    return {"hr": images}


def _check_are_images(images: dict[str, Path]) -> None:
    """RfbenchError for files that are the bands of one image, each by itself, as products of satellites have them."""
    bands: dict[str, set[str]] = {}
    for stem in images:
        token = _BAND.search(stem)
        if token:
            bands.setdefault(stem[: token.start()] + stem[token.end() :], set()).add(token[0])
    for stem, path in sorted(images.items()):
        token = _BAND.search(stem)
        found = bands[stem[: token.start()] + stem[token.end() :]] if token else set()
        if token and len(found) > 1 and readers.read(path).values.shape[2] == 1:
            raise RfbenchError(
                f"{path} and others beside it are single bands ({' '.join(sorted(found)[:6])}) of one image; stack "
                f"them to one file of the bands B G R NIR ('gdalbuildvrt -separate s.vrt {_shown(path, token)}; "
                "gdal_translate s.vrt OUT.tif'), or give --bands PAN if each is an image by itself"
            )


def _shown(path: Path, token: re.Match[str]) -> str:
    return one_line(path.stem[: token.start()] + "*" + path.stem[token.end() :] + path.suffix, 100)


def _without_factor(lr: dict[str, Path], hr: dict[str, Path]) -> dict[str, Path]:
    """LR images by the names of their HR where they are called ``0001x4`` or ``x_lr`` for ``0001`` and ``x_hr``."""
    if lr.keys() == hr.keys():
        return lr
    bare = {re.sub(r"x[2-9]$", "", stem): path for stem, path in lr.items()}
    return bare if bare.keys() == hr.keys() else lr


def _check_is_picture(job: Import, kind: str, path: Path, names_bands: str | None) -> None:
    """Lead whoever imports measurements to the options that say what they are, instead of asking what white is."""
    raster = readers.read(path)
    dtype, highest = raster.values.dtype, float(np.max(raster.values[raster.valid], initial=0))
    is_float_picture = dtype.kind == "f" and highest <= 1.0 + 1e-6 and not _is_measured(path, raster)
    if is_float_picture:
        job.note(
            f"the {kind.upper()} files hold {dtype} numbers up to {highest:.3g} and are taken as pictures, whose white "
            "is 1; for reflectance give --unit reflectance"
        )
    if dtype.itemsize == 1 or is_float_picture or (path.suffix.lower() == ".png" and highest >= 2**15):
        return
    scale = "" if raster.scales is not None else f" --scale {1 if dtype.kind == 'f' and highest < 10 else 10000}"
    bands = "" if names_bands or raster.bands else " --bands 'B G R NIR'"
    picture = "--unit display" if dtype.kind == "f" else "of more than 8 bits what white is (--scale 4095, 65535)"
    raise RfbenchError(
        f"{path}: found {dtype} numbers up to {highest:.6g}, and nothing says what they mean; for reflectance give "
        f"--unit reflectance{scale}{bands}, for pictures {picture}, for other numbers --unit relative"
    )


def _is_measured(path: Path, raster: readers.Raster) -> bool:
    """Whether floats from 0 to 1 may as well be reflectance, which would be shown three times too dark as a picture."""
    place = readers.georeference(path)
    return raster.values.shape[2] > len(RGB) or (place is not None and place.crs is not None)


def _folder_rows(images: dict[str, dict[str, Path]], builder: Builder, split: str) -> None:
    for stem in sorted(images["lr" if "lr" in images else "hr"]):
        row: dict[str, Any] = {"id": stem, "split": split}
        for kind, found in images.items():
            if stem in found:
                row[kind] = builder.copy(found[stem], kind, stem)
                if kind != "mask":
                    row |= gsd_field(kind, readers.georeference(found[stem]))
            elif kind == "hr":
                raise RfbenchError(
                    f"the LR image '{stem}' has no HR image of the same name; add it, or take lr/ alone"
                    + _near(stem, found)
                )
        builder.add(row)


def _near(stem: str, known: dict[str, Path]) -> str:
    """A hint at the name that a lonely image may have meant."""
    near = [k for k in known if k.casefold() == stem.casefold()] or difflib.get_close_matches(stem, known, n=1)
    return f" (nearest is '{one_line(near[0], 80)}')" if near else ""


def _nothing_in(folder: Path) -> str:
    """What to say of a folder without an image that is read."""
    others = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    products = [p for p in (folder, *others) if p.suffix.upper() == ".SAFE" and p.is_dir()]
    if products:
        return str(containers.way_from(products[0]))
    inner = [one_line(p.name, 40) for p in others if p.is_dir()]
    if inner and len(inner) == len(others):
        shown = ", ".join(inner[:4]) + (f" and {len(inner) - 4} more" if len(inner) > 4 else "")
        return (
            f"{folder} holds no image but the folders {shown}; name one of them, or call those of a pair's images lr "
            "and hr"
        )
    for path in sorted(others, key=lambda p: p.is_dir() or p.suffix.lower() == ".hdr"):
        try:
            readers.check_suffix(path)
        except RfbenchError as error:
            return f"{folder} holds no image that is read: {error}"
    return f"{folder} holds no image; expected files ending in {' '.join(readers.SUFFIXES)}"


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
        acted = False
        for image_id, files in sorted(rows_of.items()):
            for image in _catalogue_rows(image_id, files, job, builder, captions.get(image_id, "")):
                side = "lr" if "lr" in image else "hr"
                if offset is not None and image.get(f"{side}_unit") == "reflectance":
                    image[f"{side}_offset"] = offset
                    acted = True
                builder.add(image)
        if offset is not None and not acted:
            raise RfbenchError("--offset belongs to reflectance, and none of these images is; leave it out")
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


def _by_stem(folder: Path, job: Import) -> dict[str, Path]:
    """The images of a folder by name without ending, in the one form of Unicode; others are said.

    RfbenchError where two differ in the ending alone.
    """
    found: dict[str, Path] = {}
    beside: set[str] = set()
    others = []
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        if path.name.startswith("."):  # '._x.tif' is what macOS keeps beside x.tif
            continue
        if path.suffix.lower() not in readers.SUFFIXES:
            others.append(path.name)
            continue
        beside |= {p.name for p in sidecars.beside(path).values()}
        stem = composed(path.stem)
        if stem in found:
            raise RfbenchError(f"{found[stem]} and {path.name} would have the same id; rename one")
        found[stem] = path
    left = [name for name in others if name not in beside]
    if found:
        job.note_names("other files", left, f"in {one_line(folder.name, 60)} are not read and were left behind "
                       "('gdal_translate IN OUT.tif' makes GeoTIFFs of rasters)")  # fmt: skip
    return found
