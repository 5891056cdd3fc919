"""Write procedural scenes as a dataset folder."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError
from bench.core.files import atomic_path, is_temporary, read_json, write_bytes, write_json
from bench.core.process import context, exit_with_parent
from bench.data import scenes
from bench.data.dataset import FORMAT

_GSD_HR_M = 2.0
_BEGUN = "begun.json"
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
    workers: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Make ``count`` scenes and write them as a dataset: GeoTIFFs, ``pairs.csv``, ``dataset.json``.

    A scene depends on (seed, id) alone, so more scenes can be made later without changing the first ones, and
    ``workers`` processes make the same ones as a single one does. Raises RfbenchError if the folder holds something
    else, or sizes do not fit the factor.
    """
    if count < 1:
        raise RfbenchError(f"found {count} scenes, expected 1 or more")
    if factor < 1:
        raise RfbenchError(f"found the factor {factor}, expected 1 or more")
    if min(hr_px) < factor or hr_px[0] % factor or hr_px[1] % factor:
        raise RfbenchError(f"HR size {hr_px[0]}x{hr_px[1]} px is no multiple of the factor {factor}; choose one")
    if folder.exists() and any(folder.iterdir()) and not _made_here(folder):
        raise RfbenchError(f"{folder} holds something else than scenes made by this command; choose another folder")
    # Until the manifest is there, this says whose the folder is: the same command may begin it again after a kill.
    write_json(folder / _BEGUN, {"command": command})
    rows, sensors = [], {}
    make = functools.partial(_write_scene, folder, seed, split, hr_px, factor)
    names = [f"{prefix}_{i:04d}" for i in range(count)]
    with contextlib.ExitStack() as stack:
        made: Iterable[tuple[dict[str, str], dict[str, Any]]] = map(make, names)
        if workers > 1:
            pool = ProcessPoolExecutor(workers, context(__name__), exit_with_parent)
            made = stack.enter_context(pool).map(make, names)
        for row, sensor in made:
            rows.append(row)
            sensors[row["id"]] = sensor
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
    (folder / _BEGUN).unlink(missing_ok=True)


def _write_scene(
    folder: Path, seed: int, split: str, hr_px: tuple[int, int], factor: int, name: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """Make one scene and write its files; its row of the manifest and the draws of its sensors."""
    scene = scenes.make_scene(seed, name, hr_px, factor)
    row = {"id": scene.id, "scene_id": scene.id, "split": split}
    files: dict[str, np.ndarray] = {"lr": scene.lr, "hr": scene.hr, "mask": scene.mask[:, :, None]}
    for kind, values in files.items():
        row[kind] = f"{kind}/{scene.id}.tif"
        gsd_m = _GSD_HR_M * (factor if kind == "lr" else 1)
        write_geotiff(folder / row[kind], values, scenes.BANDS if kind != "mask" else ("RTS",), gsd_m)
    row |= {"caption": scene.caption, "lr_date": scene.lr_date, "hr_date": scene.hr_date}
    return row, scene.sensor


def _made_here(folder: Path) -> bool:
    """Whether a folder is what this command made, or began to make, so that it may write it again."""
    for name in ("dataset.json", _BEGUN):
        with contextlib.suppress(RfbenchError):
            info = read_json(folder / name)
            if isinstance(info, dict) and str(info.get("command", "")).startswith("rfbench data scenes"):
                return True
    return all(is_temporary(p) for p in folder.iterdir())  # killed before it had said so


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: tuple[str, ...]) -> None:
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
