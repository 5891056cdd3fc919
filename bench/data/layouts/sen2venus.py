"""SEN2VENuS, version 1: Sentinel-2 at 10 or 20 m with Venus at 5 m, same day, registered and adjusted by its publisher.

A site is a folder with ``index.csv`` (separated by tabs) and torch tensors (N, 4, height, width), int16, reflectance
x 10000 and below 0 in places. Tensors are opened as numbers alone. The patches of a file are neighbours: the file, not
the patch, is the independent scene. The file names of the 20 m bands say b4b5b6b8a where the table's columns say
b5b6b7b8a; the columns are believed, and it is said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.data.layouts.build import Builder, Import, inside, read_rows

# What an LR's level reads: its band names, the columns of the table, the factor.
_LEVELS = {
    "10m": (("B", "G", "R", "NIR"), ("tensor_10m_b2b3b4b8", "tensor_05m_b2b3b4b8"), 2, 10.0),
    "20m": (("B05", "B06", "B07", "B8A"), ("tensor_20m_b5b6b7b8a", "tensor_05m_b5b6b7b8a"), 4, 20.0),
}
_CITATION = "Michel et al.: SEN2VENuS, a Dataset for the Training of Sentinel-2 Super-Resolution Algorithms, Data 2022"


def import_sen2venus(job: Import, *, level: str = "10m") -> int:
    """Make a dataset of a site's folder, or of a folder of sites; returns the number of images.

    ``level`` is ``10m`` (R, G, B, NIR; factor 2) or ``20m`` (red edge and B8A, which have no colour; factor 4).
    """
    if level not in _LEVELS:
        raise RfbenchError(f"--level: found '{one_line(level, 40)}', expected {' or '.join(_LEVELS)}")
    bands, columns, factor, gsd_m = _LEVELS[level]
    sites = _sites(job.source)
    rows = [(site, row) for site in sites for row in _index(site, columns)]
    with job.building() as builder:
        for site, row in rows:
            _scene(builder, site, row, columns, bands, factor, job.split)
        if level == "20m":
            job.note("the bands are named by the table (B05 B06 B07 B8A); the files' names say b4b5b6b8a")
        licences = sorted({_licence(site) for site in sites})
        side = {"unit": "reflectance", "scale": 10000, "bands": " ".join(bands), "normalisation": "fixed[0,3000]"}
        info: dict[str, Any] = {
            "name": job.name, "licence": "; ".join(licences), "citation": _CITATION,
            "description": f"SEN2VENuS v1, {level}: {', '.join(site.name for site in sites)}",
            "lr": side | {"gsd_m": gsd_m, "sensor": "Sentinel-2 L2A"},
            "hr": side | {"gsd_m": 5, "sensor": "Venus"},
        }  # fmt: skip
        return builder.finish(info, skip_broken=True)


def _sites(source: Path) -> list[Path]:
    folders = [f for f in (source, *sorted(source.iterdir())) if (f / "index.csv").is_file()]
    if not folders and any(source.glob("*.7z")):
        raise RfbenchError(f"{source} holds 7z archives; unpack them ('7z x SITE.7z'), and import the folder again")
    if not folders:
        raise RfbenchError(f"{source} holds no index.csv, neither itself nor a folder in it; give a site's folder")
    return folders


def _index(site: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    return read_rows(site / "index.csv", (*columns, "date", "vns_site"), "sen2venus")


def _licence(site: Path) -> str:
    """The first line of a site's LICENCE."""
    path = site / "LICENCE"
    text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    return one_line(text.splitlines()[0], 120) if text else f"no LICENCE in {site.name}"


def _scene(
    builder: Builder, site: Path, row: dict[str, str], columns: tuple[str, ...], bands: tuple[str, ...], factor: int,
    split: str,
) -> None:  # fmt: skip
    """The patches of one file: all of one acquisition."""
    files = [inside(site, row[column], f"{site.name}/index.csv") for column in columns]
    lr, hr = (_tensor(path) for path in files)
    if len(lr) != len(hr) or any(m != n * factor for n, m in zip(lr.shape[2:], hr.shape[2:], strict=True)):
        raise RfbenchError(f"{files[1]}: found {hr.shape} for an LR of {lr.shape}, expected as many and x{factor}")
    if row.get("nb_patches", "").isdecimal() and int(row["nb_patches"]) != len(lr):
        builder.note(f"{files[0].name} holds {len(lr)} patches, its table says {row['nb_patches']}; all are taken")
    prefix = files[0].name.partition(f"_{columns[0].split('_')[1]}_")[0]
    date = row["date"][:10]
    for i in range(len(lr)):
        stem = f"{prefix}_{i:04d}"
        sides = (("lr", lr), ("hr", hr))
        written = {side: builder.write(np.moveaxis(values[i], 0, 2), bands, side, stem) for side, values in sides}
        builder.add({"id": stem, "scene_id": prefix, "split": split, "region": site.name} | written
                    | {"lr_date": date, "hr_date": date})  # fmt: skip


def _tensor(path: Path) -> np.ndarray:
    """The numbers of a .pt file, int16 (N, 4, height, width)."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a reader meets in broken bytes
        raise RfbenchError(f"{path} is cut or no tensor ({one_line(error, 100)}); get it again") from None
    if not isinstance(found, torch.Tensor) or found.ndim != 4 or found.shape[1] != 4 or not len(found):
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise RfbenchError(f"{path}: found {shape}, expected a tensor (N, 4, height, width)")
    if found.dtype != torch.int16:
        raise RfbenchError(f"{path}: found {found.dtype}, expected int16, reflectance x 10000; get it again")
    return found.numpy()
