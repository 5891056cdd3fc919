"""Tiles of thaw slumps on a polar grid: the mapping project's layout, and the label-correction set. HR only."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.texts import read_yaml
from bench.data import readers
from bench.data.layouts.build import Builder, Import, gsd_field, read_rows
from bench.data.layouts.rts import RGB, hr_info

_IGNORE = 255
_CRS = "EPSG:3413"


def import_mapping(job: Import, *, hr_gsd_m: float | None = None) -> int:
    """Make an HR-only dataset of the mapping layout (``PLANET-RGB``, ``labels``, ``metadata.csv``, ``splits.yaml``).

    The region is the scene, since tiles of a region are neighbours and splits are by region. Of a label, 1 is slump;
    255 ("ignore") is taken as outside, because a mask here has no third value. Returns the number of images.
    """
    rows = {
        row["Tile_id"]: row for row in read_rows(job.source / "metadata.csv", ("Tile_id", "RegionName"), "rts-mapping")
    }
    split_of = _region_splits(job)
    tiles = {p.stem: p for p in sorted((job.source / "PLANET-RGB").glob("*.tif"))}
    if not tiles:
        raise RfbenchError(
            f"{job.source / 'PLANET-RGB'} holds no .tif; give the folder with PLANET-RGB/ and metadata.csv"
        )
    job.note_names("tiles", rows.keys() - tiles.keys(), "of metadata.csv are no file in PLANET-RGB/ and are left out")
    job.note_names("tiles", tiles.keys() - rows.keys(), "are not in metadata.csv: each is a scene of its own")
    regions = {rows[t]["RegionName"] for t in tiles.keys() & rows.keys()}
    if split_of:
        job.note_names("regions", regions - split_of.keys(), f"go to '{job.split}'")
    facts: Counter[str] = Counter()
    with job.building() as builder:
        builder.expect(len(tiles))
        for tile, path in tiles.items():
            region = rows.get(tile, {}).get("RegionName", "")
            row = _mapping_row(builder, tile, path, job.source / "labels" / path.name, facts)
            if row:
                own = {"region": region} | ({"hr_gsd_m": hr_gsd_m} if hr_gsd_m else {})
                builder.add(row | {"scene_id": region or tile, "split": split_of.get(region, job.split)} | own)
        for fact, n in sorted(facts.items()):
            job.note(f"{n} tiles {fact}")
        return builder.finish(hr_info(job, "thaw slumps, mapping tiles (HR only)", hr_gsd_m), skip_broken=True)


def _region_splits(job: Import) -> dict[str, str]:
    """The split of each region, from lists of region names by split."""
    path = job.source / "splits.yaml"
    if not path.is_file():
        job.note(f"splits.yaml is missing: every tile goes to '{job.split}'")
        return {}
    document = read_yaml(path)
    if isinstance(document, dict) and len(document) == 1 and isinstance(next(iter(document.values())), dict):
        document = next(iter(document.values()))
    found: dict[str, str] = {}
    for key, regions in document.items() if isinstance(document, dict) else ():
        if not isinstance(regions, list):
            continue
        for region in regions:
            if isinstance(region, list | dict):  # aliases make a tree of a few lines endless
                raise RfbenchError(f"{path}: found a list or an object, expected the name of a region; correct it")
            if found.setdefault(str(region), one_line(key, 40)) != one_line(key, 40):
                raise RfbenchError(f"{path}: the region '{one_line(region, 60)}' is in two splits; keep it in one")
    if not found:
        raise RfbenchError(f"{path}: expected lists of region names by split, such as 'train: [Banks, Peel]'")
    return found


def _mapping_row(
    builder: Builder, tile: str, path: Path, label_path: Path, facts: Counter[str]
) -> dict[str, Any] | None:
    try:
        raster = readers.read(path)
        place = readers.georeference(path)
        if raster.values.shape[2] != 3:
            raise RfbenchError(f"{path}: found {raster.values.shape[2]} bands, expected R, G, B")
        label = readers.read(label_path).values[:, :, 0] if label_path.is_file() else None
    except RfbenchError as error:
        builder.note(f"{tile} is left out: {error}")
        return None
    facts["are not 512x512 px"] += raster.values.shape[:2] != (512, 512)
    facts[f"are not in {_CRS}"] += place is None or place.crs != _CRS
    facts["have no file in labels/, so no mask"] += label is None
    row: dict[str, Any] = {"id": tile, "hr": builder.copy(path, "hr")}
    row |= gsd_field("hr", place)
    if raster.values.dtype != np.uint8:
        facts[f"are {raster.values.dtype} and not 8-bit: taken as relative numbers"] += 1
        row |= {"hr_unit": "relative", "hr_scale": 1, "hr_normalisation": "percentile[2,98]"}
    if label is not None:
        facts["have pixels to ignore (255), which the mask counts as outside"] += bool((label == _IGNORE).any())
        foreign = np.setdiff1d(label, [0, 1, _IGNORE])
        facts["have labels other than 0, 1 and 255, counted as outside"] += len(foreign) > 0
        row["mask"] = builder.mask(label == 1, tile)
    for fact in [f for f, n in facts.items() if not n]:
        del facts[fact]
    return row


def import_labels(job: Import, *, hr_gsd_m: float | None = None) -> int:
    """Make an HR-only dataset of the label-correction set (``data/raw/Level N/GROUP/UID.tif``); number of images.

    Each file holds R, G, B (0 to 255 as float) and the slump mask. They are parted into an image, which keeps its
    place and its pixels without data (-inf), and a mask. A chip that lies in several folders is one scene.
    """
    raw = job.source / "data" / "raw"
    root = raw if raw.is_dir() else job.source
    paths = sorted(p for p in root.glob("Level */*/*.tif") if re.fullmatch(r"Level \d+", p.parent.parent.name))
    if not paths:
        raise RfbenchError(f"{root} holds no 'Level 1/A1/UID.tif'; give the repository's folder, or its data/raw")
    count = Counter(p.stem for p in paths)
    twice = {stem for stem, n in count.items() if n > 1}
    job.note_names("chips", twice, "lie in several folders: one scene each, the folder in their ids")
    job.note("the redrawn polygons (*.geojson) are not imported; masks are the older labels in the files")
    facts: Counter[str] = Counter()
    with job.building() as builder:
        builder.expect(len(paths))
        for path in paths:
            level, group = path.parent.parent.name.split()[-1], path.parent.name
            stem = f"{path.stem}_level{level}_{group}" if path.stem in twice else path.stem
            row = _label_row(builder, path, stem, facts)
            if row:
                own = {"hr_gsd_m": hr_gsd_m} if hr_gsd_m else {}
                builder.add(row | {"scene_id": path.stem, "split": job.split} | own)
        for fact, n in sorted(facts.items()):
            job.note(f"{n} chips {fact}")
        return builder.finish(hr_info(job, "thaw slumps, label-correction chips (HR only)", hr_gsd_m), skip_broken=True)


def _label_row(builder: Builder, path: Path, stem: str, facts: Counter[str]) -> dict[str, Any] | None:
    try:
        raster = readers.read(path)
        place = readers.georeference(path)
        if raster.values.shape[2] != 4:
            raise RfbenchError(f"{path}: found {raster.values.shape[2]} bands, expected R, G, B and the mask")
        rgb, mask = raster.values[:, :, :3].astype(np.float32), raster.values[:, :, 3]
        finite = rgb[np.isfinite(rgb)]
        if not finite.size or finite.min() < 0 or finite.max() > 255:
            raise RfbenchError(f"{path}: R, G, B are expected as 0 to 255 and are not; look at the file")
    except RfbenchError as error:
        builder.note(f"{stem} is left out: {error}")
        return None
    if not np.isfinite(rgb).all():
        facts["have pixels without data (-inf or NaN), which stay so"] += 1
    if place is None or place.crs != _CRS:
        facts[f"are not in {_CRS}"] += 1
    if not np.isin(mask[np.isfinite(mask)], (0, 1)).all():
        facts["have mask values other than 0 and 1: above 0.5 is slump"] += 1
    row: dict[str, Any] = {"id": stem, "hr": builder.write(rgb, RGB, "hr", stem, place=place)}
    row |= gsd_field("hr", place)
    row["mask"] = builder.mask(np.where(np.isfinite(mask), mask, 0) > 0.5, stem)
    return row
