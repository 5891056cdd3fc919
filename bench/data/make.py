"""Write procedural scenes as a dataset folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError
from bench.core.files import atomic_path, read_json, write_bytes, write_json
from bench.data import scenes
from bench.data.dataset import FORMAT

_GSD_HR_M = 2.0
COLUMNS = ("id", "scene_id", "split", "lr", "hr", "mask", "caption", "lr_date", "hr_date")


def write_scenes(
    folder: Path,
    *,
    count: int,
    seed: int,
    split: str = "test",
    hr_px: tuple[int, int] = (200, 200),
    factor: int = 5,
    prefix: str = "scene",
    command: str = "",
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Make ``count`` scenes and write them as a dataset: GeoTIFFs, ``pairs.csv``, ``dataset.json``.

    A scene depends on (seed, id) alone, so more scenes can be made later without changing the first ones. Raises
    RfbenchError if the folder holds something else, or sizes do not fit the factor.
    """
    if count < 1:
        raise RfbenchError(f"found {count} scenes, expected 1 or more")
    if factor < 1:
        raise RfbenchError(f"found the factor {factor}, expected 1 or more")
    if min(hr_px) < factor or hr_px[0] % factor or hr_px[1] % factor:
        raise RfbenchError(f"HR size {hr_px[0]}x{hr_px[1]} px is no multiple of the factor {factor}; choose one")
    if folder.exists() and any(folder.iterdir()) and not _made_here(folder):
        raise RfbenchError(f"{folder} holds something else than scenes made by this command; choose another folder")
    rows, sensors = [], {}
    for i in range(count):
        scene = scenes.make_scene(seed, f"{prefix}_{i:04d}", hr_px, factor)
        row: dict[str, Any] = {"id": scene.id, "scene_id": scene.id, "split": split}
        files: dict[str, np.ndarray] = {"lr": scene.lr, "hr": scene.hr, "mask": scene.mask[:, :, None]}
        for kind, values in files.items():
            row[kind] = f"{kind}/{scene.id}.tif"
            gsd_m = _GSD_HR_M * (factor if kind == "lr" else 1)
            write_geotiff(folder / row[kind], values, scenes.BANDS if kind != "mask" else ("RTS",), gsd_m)
        row |= {"caption": scene.caption, "lr_date": scene.lr_date, "hr_date": scene.hr_date}
        rows.append(row)
        sensors[scene.id] = scene.sensor
        tick()
    write_table(folder / "pairs.csv", rows, COLUMNS)
    write_json(folder / "sensors.json", sensors)
    bands = " ".join(scenes.BANDS)
    info = {
        "format": FORMAT,
        "name": "scenes",
        "description": "procedural cross-sensor views of thawing tundra with retrogressive thaw slumps; not imagery",
        "licence": "Apache-2.0",
        "citation": "rfbench, procedural scenes",
        "command": command,
        "lr": {"unit": "reflectance", "bands": bands, "scale": scenes.LR_SCALE, "gsd_m": _GSD_HR_M * factor,
               "normalisation": scenes.LR_NORMALISATION, "gamma": scenes.GAMMA, "sensor": "Sentinel-2-like, simulated"},
        "hr": {"unit": "reflectance", "bands": bands, "scale": scenes.HR_SCALE, "gsd_m": _GSD_HR_M,
               "normalisation": scenes.HR_NORMALISATION, "gamma": scenes.GAMMA, "sensor": "Maxar-like, simulated"},
    }  # fmt: skip
    write_json(folder / "dataset.json", info)


def _made_here(folder: Path) -> bool:
    """Whether a folder is what this command made, so that it may write it again."""
    try:
        info = read_json(folder / "dataset.json")
    except RfbenchError:
        return False
    return isinstance(info, dict) and str(info.get("command", "")).startswith("rfbench data scenes")


def write_table(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Write a manifest atomically."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, buffer.getvalue().encode())


def write_geotiff(path: Path, values: np.ndarray, bands: tuple[str, ...], gsd_m: float) -> None:
    """Write (H, W, C) as a compressed GeoTIFF with band names, on a grid in metres that lies nowhere on Earth."""
    import rasterio
    from rasterio.transform import from_origin

    height, width, count = values.shape
    with atomic_path(path) as temporary:
        profile = {
            "driver": "GTiff", "height": height, "width": width, "count": count, "dtype": values.dtype.name,
            "transform": from_origin(0, 0, gsd_m, gsd_m), "compress": "deflate", "predictor": 2,
            "zlevel": 9, "interleave": "band",
        }  # fmt: skip
        with rasterio.open(temporary, "w", **profile) as file:
            file.write(np.moveaxis(values, 2, 0))
            for i, band in enumerate(bands, 1):
                file.set_band_description(i, band)


def size_of(text: str) -> tuple[int, int]:
    """``"200"`` or ``"160x240"`` (height x width) as a pair; RfbenchError otherwise."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise RfbenchError(f"size '{text[:40]}': expected pixels such as 200 or 160x240 (height x width)")
    return int(parts[0]), int(parts[-1])
