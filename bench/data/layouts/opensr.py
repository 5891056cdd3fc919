"""opensr-test: Sentinel-2 with NAIP, SPOT, Venus and Spanish aerial images, as pickles or as GeoTIFFs.

Pickles are read without running them (``bench.data.pickled``). Where both forms are there the GeoTIFFs are taken: they
know where they lie.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.data.layouts.build import L1C_BANDS, L2A_BANDS, Builder, Import, date_in, read_rows
from bench.data.pickled import load_arrays

NAMES = ("naip", "spot", "venus", "spain_urban", "spain_crops", "satellogic")
LEVELS = {"L2A": L2A_BANDS, "L1C": L1C_BANDS}
REFERENCES = {"harmonised": ("HRharm", "hr_harmonized"), "raw": ("HR", "hr")}
_HR_BANDS = ("R", "G", "B", "NIR")
_GSD_HR_M = {"venus": 5.0}
_CITATION = "Aybar et al.: A Comprehensive Benchmark for Optical Remote Sensing Image Super-Resolution, IEEE GRSL 2024"
_UNDOCUMENTED = ("hr", "hr_harm")


def import_opensr(
    job: Import, *, offset: float | None = None, level: str = "L2A", reference: str = "harmonised"
) -> int:
    """Make a dataset of one version of opensr-test; returns the number of images.

    ``level`` chooses the LR (L2A or L1C), ``reference`` the HR: matched to the LR's radiometry, which the publisher
    evaluates on, or raw.
    """
    if level not in LEVELS:
        raise RfbenchError(f"--level: found '{one_line(level, 40)}', expected {' or '.join(LEVELS)}")
    if reference not in REFERENCES:
        raise RfbenchError(f"--reference: found '{one_line(reference, 40)}', expected {' or '.join(REFERENCES)}")
    parts = _parts(job.source)
    with job.building() as builder:
        facts: Counter[str] = Counter()
        for part, (folder, form) in sorted(parts.items()):
            read = _rasters if form == "tif" else _pickle
            read(builder, part, folder, level, reference, facts)
        for fact, n in sorted(facts.items()):
            builder.note(fact + (f" ({n} times)" if n > 1 else ""))
        for row in builder.rows:
            row["split"] = job.split
        side = {"unit": "reflectance", "scale": 10000, "normalisation": "fixed[0,3000]"}
        info: dict[str, Any] = {
            "name": job.name, "licence": "MIT",
            "description": f"opensr-test ({', '.join(sorted(parts))}), {level}, {reference} HR",
            "citation": _CITATION,
            "lr": side | {"bands": LEVELS[level], "gsd_m": 10, "sensor": f"Sentinel-2 {level}"}
            | ({"offset": offset} if offset is not None else {}),
            "hr": side | {"bands": " ".join(_HR_BANDS)},
        }  # fmt: skip
        return builder.finish(info, skip_broken=True)


def _parts(source: Path) -> dict[str, tuple[Path, str]]:
    """The folder and the form (``tif`` or ``pkl``) of each part; RfbenchError for two versions or none."""
    found: dict[str, tuple[Path, str]] = {}
    folders = [source, *(f for pattern in ("*", "*/*") for f in sorted(source.glob(pattern)) if f.is_dir())]
    for folder in folders:
        part = folder.name
        if part not in NAMES:
            continue
        pickled = folder / f"{part}.pkl"
        if (folder / "hr").is_dir() or (folder / "hr_harmonized").is_dir():
            form = "tif"
        elif pickled.is_file():
            form = "pkl"
        elif (folder / "lr.npy").is_file():
            raise RfbenchError(
                f"{folder} is of the first release (lr.npy, hr.npy), whose bands are named nowhere; get a later version"
            )
        else:
            continue
        if part in found:
            raise RfbenchError(
                f"{source} holds '{part}' twice ({found[part][0].parent.name} and {folder.parent.name}): two versions "
                "share their images; give the folder of one version"
            )
        found[part] = (folder, form)
    if not found:
        raise RfbenchError(f"{source} holds no NAME/NAME.pkl and no NAME/hr/ for any of {', '.join(NAMES)}")
    return found


def _table(folder: Path, part: str) -> list[dict[str, str]]:
    path = folder / f"{part}_metadata.csv"
    return read_rows(path, ("roi",), "opensr-test") if path.is_file() else []


def _pickle(builder: Builder, part: str, folder: Path, level: str, reference: str, facts: Counter[str]) -> None:
    path = folder / f"{part}.pkl"
    arrays = load_arrays(path)
    key = REFERENCES[reference][0]
    for wanted, bands in ((level, len(LEVELS[level].split())), (key, len(_HR_BANDS))):
        if wanted not in arrays:
            raise RfbenchError(
                f"{path} holds no array '{wanted}'; its arrays are {', '.join(sorted(arrays)) or 'none'}"
            )
        shape = arrays[wanted].shape
        if len(shape) != 4 or shape[1] != bands or not all(shape):
            raise RfbenchError(f"{path}: '{wanted}' has the shape {shape}, expected (N, {bands}, height, width)")
        if arrays[wanted].dtype != np.uint16:
            facts[f"{part}: '{wanted}' is expected as uint16 and is {arrays[wanted].dtype}"] += 1
        if arrays[wanted].dtype.kind == "f" and float(arrays[wanted].max()) < 10:
            raise RfbenchError(f"{path}: '{wanted}' holds reflectance 0 to 1, expected numbers x 10000; get it again")
    lr, hr = arrays[level], arrays[key]
    if len(lr) != len(hr):
        raise RfbenchError(f"{path}: found {len(lr)} LR and {len(hr)} HR images, expected as many; get the file again")
    if any(k in arrays for k in _UNDOCUMENTED):
        facts["the arrays 'hr' and 'hr_harm' are documented nowhere and were not read"] += 1
    rows = _table(folder, part)
    if len(rows) != len(lr):
        if rows:
            facts[f"{part}: its table has {len(rows)} rows for {len(lr)} images and was not used"] += 1
        rows = [{}] * len(lr)
        facts[
            "scenes and dates lie in a table inside the pickle, which is not run: every image is a scene of its own "
            "(put NAME_metadata.csv beside NAME.pkl, or take the GeoTIFFs)"
        ] += 1
    for i, row in enumerate(rows):
        stem = f"{part}_{i:04d}"
        files = {
            "lr": builder.write(np.moveaxis(lr[i], 0, 2), LEVELS[level].split(), "lr", stem),
            "hr": builder.write(np.moveaxis(hr[i], 0, 2), _HR_BANDS, "hr", stem),
        }
        _add(builder, part, stem, row.get("roi", ""), row.get("lr_gee_id", ""), "", files)
        _check_factor(part, lr.shape[2:], hr.shape[2:], facts)


def _rasters(builder: Builder, part: str, folder: Path, level: str, reference: str, facts: Counter[str]) -> None:
    """Pairs of files that name the same ROI."""
    sides = {}
    for side, name in (("lr", level), ("hr", REFERENCES[reference][1])):
        sides[side] = _by_roi(folder / name)
        if not sides[side]:
            raise RfbenchError(f"{folder / name} holds no ROI_*.tif; it is needed for this --level and --reference")
    lonely = sides["lr"].keys() ^ sides["hr"].keys()
    if lonely:
        facts[f"{part}: {len(lonely)} ROIs have an LR or an HR alone and were left out"] += 1
    for roi in sorted(sides["lr"].keys() & sides["hr"].keys()):
        lr, hr = sides["lr"][roi], sides["hr"][roi]
        stem = f"{part}_{roi}"
        files = {"lr": builder.copy(lr, "lr", stem), "hr": builder.copy(hr, "hr", stem)}
        _add(builder, part, stem, roi, lr.stem, hr.stem, files)


def _by_roi(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.tif")):
        match = re.search(r"ROI_\d+", path.stem)
        if match and match[0] in found:
            raise RfbenchError(f"{path} and {found[match[0]].name} are both of {match[0]}; keep one")
        if match:
            found[match[0]] = path
    return found


def _add(builder: Builder, part: str, stem: str, roi: str, lr_text: str, hr_text: str, files: dict[str, str]) -> None:
    builder.add(
        {"id": stem, "scene_id": f"{part} {roi}" if roi else stem, "lr_date": date_in(lr_text),
         "hr_date": date_in(hr_text), "hr_gsd_m": _GSD_HR_M.get(part, 2.5), **files}
    )  # fmt: skip


def _check_factor(part: str, lr: tuple[int, ...], hr: tuple[int, ...], facts: Counter[str]) -> None:
    expected = 10 / _GSD_HR_M.get(part, 2.5)
    if any(abs(m - n * expected) > expected for n, m in zip(lr, hr, strict=True)):
        facts[f"{part}: expected {expected:g} HR pixels an LR pixel, found {hr[0]}x{hr[1]} for {lr[0]}x{lr[1]} px"] += 1
