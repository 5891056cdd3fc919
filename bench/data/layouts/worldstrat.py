"""WorldStrat: SPOT 6/7 at 1.5 m with Sentinel-2 L2A of several dates.

LR is float reflectance 0 to 1 of 12 bands, HR are 12-bit numbers of R, G, B, NIR without an absolute level (or 8-bit
pictures in one of the two publications). Areas (AOIs) have spaces and hyphens in their names, so file names are read
from the right. What is not sure about the published files is checked here and said.
"""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.data import readers
from bench.data.dataset import parse_side
from bench.data.layouts.build import L2A_BANDS, Builder, Import, first_of, read_rows

CHOICES = ("nearest", "clearest", "all", "series")
_DESCRIBED = {
    "nearest": "nearest LR date", "clearest": "clearest LR date", "all": "all LR dates",
    "series": "nearest LR date and the series of all",
}  # fmt: skip
_LICENCE = "HR: CC BY-NC 4.0; Sentinel-2: CC BY 4.0"
_CITATION = (
    "Cornebise, Orsolic, Kalaitzis: Open High-Resolution Satellite Imagery: The WorldStrat Dataset, NeurIPS 2022"
)
_FAR_DAYS = 3650.0


def import_worldstrat(
    job: Import,
    *,
    offset: float | None = None,
    unit: str | None = None,
    scale: float | None = None,
    dates: str = "nearest",
) -> int:
    """Make a dataset of a WorldStrat folder; returns the number of images.

    ``dates`` takes of each area the LR date nearest to the HR's, the one with the least cloud cover, all as rows of
    one scene, or the nearest with all of them as its time series. ``unit`` and ``scale`` say what HR numbers mean,
    where relative (12-bit) or display (8-bit) will not do. ``split`` is for AOIs that the split table leaves out.
    """
    if dates not in CHOICES:
        raise RfbenchError(f"--dates: found '{one_line(dates, 40)}', expected {', '.join(CHOICES)}")
    if unit or scale:
        parse_side({"unit": unit, "scale": scale}, "the options --unit and --scale")
    hr, lr = _hr_files(job.source), _lr_files(job.source)
    if not hr or not lr:
        lacking = "hr_dataset/AOI/AOI_ps.tiff" if not hr else "lr_dataset/AOI/L2A/AOI-N-L2A_data.tiff"
        raise RfbenchError(
            f"{job.source} holds no {lacking}; give the folder in which WorldStrat's archives were unpacked"
        )
    table = _metadata(job)
    splits = _splits(job)
    for names, what in (
        (splits.keys() - (hr.keys() & lr.keys()), "named by the split table lack their LR or HR file and are left out"),
        (lr.keys() - hr.keys(), "have LR but no HR and are left out"),
        (hr.keys() - lr.keys(), "have HR but no LR of level L2A and are left out"),
        ((hr.keys() & lr.keys()) - splits.keys() if splits else set(), f"have no split and go to '{job.split}'"),
    ):
        job.note_names("areas", names, what)
    if "ASMSpotter-1-1-1" in hr.keys() & lr.keys():
        job.note("'ASMSpotter-1-1-1' is left out by some users of the set; it is kept here, look at it")
    facts: dict[str, Counter[str]] = {k: Counter() for k in ("dtype", "crs", "named", "hr_dtype", "above")}
    with job.building() as builder:
        chosen = {aoi: _chosen(lr[aoi], aoi, table, dates) for aoi in sorted(hr.keys() & lr.keys())}
        builder.expect(sum(map(len, chosen.values())))
        for aoi, numbers in chosen.items():
            for n in numbers:
                row = _row(builder, aoi, n, lr[aoi][n], hr[aoi], table.get((aoi, n), {}), facts, several=dates == "all")
                if row:
                    if dates == "series":
                        row["series"] = _series(builder, aoi, lr[aoi], n, table)
                    row["split"] = splits.get(aoi, job.split)
                    row |= {"hr_unit": unit or row["hr_unit"]}
                    if unit:
                        row["hr_normalisation"] = ""
                    row |= {"hr_scale": scale} if scale else {}
                    if offset is not None:
                        row["lr_offset"] = offset
                    builder.add(row)
        _say_facts(builder, facts)
        info: dict[str, Any] = {
            "name": job.name, "description": f"WorldStrat, {_DESCRIBED[dates]} of each area",
            "licence": _LICENCE, "citation": _CITATION,
            "lr": {"unit": "reflectance", "bands": L2A_BANDS, "gsd_m": 10, "sensor": "Sentinel-2 L2A",
                   "normalisation": "fixed[0,3000]"},
            "hr": {"unit": "relative", "bands": "R G B NIR", "gsd_m": 1.5, "sensor": "SPOT 6/7, pansharpened"},
        }  # fmt: skip
        return builder.finish(info, skip_broken=True)


def _hr_files(source: Path) -> dict[str, tuple[Path, int]]:
    """The pansharpened HR file of each AOI and its bits; 12-bit files are preferred."""
    found: dict[str, tuple[Path, int]] = {}
    for folder, ending, bits in (("8bit", "_ps_8bit", 8), ("12bit", "_ps", 12), ("", "_ps", 12)):
        for path in sorted((source / "hr_dataset" / folder).glob("*/*.tif*")):
            if path.stem == path.parent.name + ending:
                found[path.parent.name] = (path, bits)
    return found


def _lr_files(source: Path) -> dict[str, dict[int, Path]]:
    """The L2A files of each AOI by their number."""
    found: dict[str, dict[int, Path]] = {}
    for pattern in ("lr_dataset/*/L2A/*.tif*", "lr_dataset_l2a/*/L2A/*.tif*", "lr_dataset_l2a/*/*.tif*"):
        for path in sorted(source.glob(pattern)):
            aoi, _, rest = path.stem.removesuffix("-L2A_data").rpartition("-")
            if path.stem.endswith("-L2A_data") and rest.isdecimal() and aoi in (p.name for p in path.parents):
                found.setdefault(aoi, {})[int(rest)] = path
    return found


def _metadata(job: Import) -> dict[tuple[str, int], dict[str, str]]:
    """The rows of metadata.csv by AOI and number; the AOI's column is 'tile', or the first one without a name."""
    path = job.source / "metadata.csv"
    if not path.is_file():
        job.note("metadata.csv is missing: no dates, and the lowest number of each area is taken for the nearest date")
        return {}
    found = {}
    for row in read_rows(path, ("n",), "worldstrat"):
        aoi = row.get("tile") or row.get("") or next(iter(row.values()))
        if row["n"].isdecimal():
            found[aoi, int(row["n"])] = row
    return found


def _splits(job: Import) -> dict[str, str]:
    path = job.source / "stratified_train_val_test_split.csv"
    if not path.is_file():
        job.note("stratified_train_val_test_split.csv is missing: every area goes to one split (--split)")
        return {}
    return {row["tile"]: row["split"] for row in read_rows(path, ("tile", "split"), "worldstrat") if row["split"]}


def _chosen(files: dict[int, Path], aoi: str, table: dict[tuple[str, int], dict[str, str]], dates: str) -> list[int]:
    """The numbers of the LR dates to take, by a rule that depends on the table alone."""
    if dates == "all":
        return sorted(files)

    def rank(n: int) -> tuple[float, float, int]:
        row = table.get((aoi, n), {})
        days = abs(_days(row.get("lowres_date", ""), row.get("highres_date", "")))
        try:
            cloud = float(row.get("cloud_cover", ""))
        except ValueError:
            cloud = 1e9
        return (cloud, days, n) if dates == "clearest" else (days, cloud, n)

    return [min(files, key=rank)]


def _series(
    builder: Builder, aoi: str, files: dict[int, Path], chosen: int, table: dict[tuple[str, int], dict[str, str]]
) -> str:
    """Write the revisits of an area by date, with those left out (and said) that do not look like the chosen one."""
    like = readers.read(files[chosen])
    found = []
    for n, path in sorted(files.items()):
        try:
            raster = readers.read(path)
            for what, is_alike in (
                ("type", raster.values.dtype == like.values.dtype), ("size", raster.values.shape == like.values.shape),
                ("order of bands", raster.bands == like.bands),
            ):  # fmt: skip
                if not is_alike:
                    raise RfbenchError(f"{path}: its {what} is not that of {files[chosen].name}")
        except RfbenchError as error:
            builder.note(f"{aoi}: one date less in its series: {error}")
            continue
        found.append((table.get((aoi, n), {}).get("lowres_date", "")[:10], n, raster.values))
    found.sort(key=lambda revisit: revisit[:2])
    bands = like.bands or L2A_BANDS.split()
    return builder.series(np.stack([r[2] for r in found]), [one_line(r[0], 10) for r in found], bands, aoi)


def _days(first: str, second: str) -> float:
    try:
        days = datetime.date.fromisoformat(first[:10]) - datetime.date.fromisoformat(second[:10])
    except ValueError:
        return _FAR_DAYS * 10
    return days.days


def _row(
    builder: Builder, aoi: str, n: int, lr: Path, hr: tuple[Path, int], row: dict[str, str],
    facts: dict[str, Counter[str]], *, several: bool,
) -> dict[str, Any] | None:  # fmt: skip
    """Copy a pair; None (with a note) where one of its files is no image of the expected bands."""
    stem = f"{aoi}-{n}" if several else aoi
    try:
        low = readers.read(lr)
        high = readers.read(hr[0])
        for raster, path, expected in ((low, lr, 12), (high, hr[0], 4)):
            if raster.values.shape[2] != expected:
                found = raster.values.shape[2]
                hint = " (13 bands are level L1C, in another order)" if found == 13 else ""
                raise RfbenchError(f"{path}: found {found} bands, expected {expected}{hint}")
        place = readers.georeference(lr)
    except RfbenchError as error:
        builder.note(f"{aoi}: left out: {error}")
        return None
    facts["dtype"][low.values.dtype.name] += 1
    facts["hr_dtype"][high.values.dtype.name] += 1
    facts["named"]["yes" if low.bands else "no"] += 1
    facts["crs"][(place.crs if place else None) or "none"] += 1
    if hr[1] == 12 and high.values.max() > 4095:
        facts["above"][aoi] += 1
    # The unit of LR is second-hand knowledge: numbers that cannot be reflectance 0 to 1 are x 10000.
    is_count = low.values.dtype.kind in "ui" or bool(low.valid.any() and np.median(low.values[low.valid]) > 2)
    fields: dict[str, Any] = {"lr_scale": 10000 if is_count else 1}
    facts["dtype"]["x 10000"] += int(is_count)
    if hr[1] == 8:
        fields |= {"hr_unit": "display", "hr_scale": 255, "hr_normalisation": "display"}
    else:
        fields |= {"hr_unit": "relative", "hr_scale": 1, "hr_normalisation": "percentile[2,98]"}
    for column, key in (("lowres_date", "lr_date"), ("highres_date", "hr_date")):
        fields[key] = row.get(column, "")[:10]
    return {
        "id": stem, "scene_id": aoi, "lr": builder.copy(lr, "lr", stem), "hr": builder.copy(hr[0], "hr", stem),
    } | fields  # fmt: skip


def _say_facts(builder: Builder, facts: dict[str, Counter[str]]) -> None:
    """What was believed of the files and what they are."""
    counts = facts["dtype"].pop("x 10000", 0)
    for key, believed, what in (
        ("dtype", "float32", "LR files are expected to be float32"),
        ("crs", "EPSG:4326", "LR files are expected in EPSG:4326"),
    ):
        other = {k: v for k, v in facts[key].items() if k != believed}
        if other:
            builder.note(f"{what}; found {', '.join(f'{v} of {one_line(k, 40)}' for k, v in sorted(other.items()))}")
    if counts:
        builder.note(f"{counts} LR files hold numbers far above 1: taken as reflectance x 10000 and not as 0 to 1")
    if facts["named"]["no"]:
        builder.note(
            f"{facts['named']['no']} LR files name no bands: the usual order of 12 was taken ({L2A_BANDS}), in which "
            "R, G, B are the 4th, 3rd and 2nd; look at one image"
        )
    if facts["above"]:
        builder.note(
            f"{len(facts['above'])} HR files exceed 4095 and are no 12-bit numbers: {first_of(facts['above'])}"
        )
