"""Our own content, arithmetic that owes nothing to the code under test, and the four doors."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from click.testing import CliRunner
from rasterio.transform import from_origin

from bench.core.errors import RfbenchError
from bench.data.dataset import FolderDataset
from bench.data.validate import validate
from bench.protocols.bicubic import Bicubic4x
from bench.protocols.paired import Paired
from bench.upscale import upscale

BANDS = ("B02", "B03", "B04", "B08")
RGB = [2, 1, 0]
"""Where R, G, B are in ``scene``."""


def scene(n: int = 64, seed: int = 0) -> np.ndarray:
    """Reflectance (n, n, 4) of B, G, R, NIR from 0.004 to 0.9, with waves, edges and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:n, :n] / n
    base = 0.10 + 0.05 * np.sin(9 * x + 3 * y + seed) + 0.04 * np.cos(14 * y - 5 * x)
    base += 0.04 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06) + 0.03 * (
        (x * 8).astype(int) % 2 == (y * 6).astype(int) % 2
    )
    noise = 0.004 * rng.standard_normal((4, n, n))
    bands = [base * factor + noise[i] for i, factor in enumerate((0.6, 0.8, 1.0, 1.7))]
    return np.clip(np.stack(bands, axis=2), 0.004, 0.9)


def counts(reflectance: np.ndarray, scale: float = 1e4, offset: float = 0.0) -> np.ndarray:
    """Reflectance as 16-bit numbers: ``scale`` times, less ``offset``."""
    return np.rint(reflectance * scale - offset).astype(np.uint16)


def mean_of(image: np.ndarray, factor: int) -> np.ndarray:
    """Each ``factor`` x ``factor`` pixels as one."""
    h, w, c = image.shape
    return image.reshape(h // factor, factor, w // factor, factor, c).mean(axis=(1, 3))


def tif(path: Path, values: np.ndarray, *, names: Any = BANDS, px: float = 2.0, mask: Any = None, **more: Any) -> Path:
    """A GeoTIFF of (H, W, C)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    after = {k: more.pop(k) for k in ("scales", "offsets", "colorinterp", "gcps") if k in more}
    profile = {"driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": values.shape[2],
               "dtype": values.dtype.name, "crs": "EPSG:32632",
               "transform": from_origin(5e5, 4e6, px, px)} | more  # fmt: skip
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.moveaxis(values, 2, 0))
            for i, name in enumerate(names or (), 1):
                file.set_band_description(i, name)
            for key, value in after.items():
                setattr(file, key, value)
            if mask is not None:
                file.write_mask(mask)
    return path


def display(reflectance: np.ndarray) -> np.ndarray:
    """R, G, B as ``fixed[0,3000]`` shows them."""
    return np.clip(reflectance[..., RGB] / 0.3, 0, 1)


def bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """torch's antialiased bicubic."""
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image.astype(np.float32), 2, 0)))[None]
    resized = torch.nn.functional.interpolate(tensor, size=size, mode="bicubic", antialias=True)
    return np.moveaxis(resized[0].numpy(), 0, 2)


def psnr(first: np.ndarray, second: np.ndarray, valid: Any = slice(None)) -> float:
    """Of two display images rounded to 8 bit, in dB."""
    a, b = (np.rint(np.clip(i, 0, 1).astype(np.float32) * 255) for i in (first, second))
    error = float((((a - b) / 255)[valid].astype(np.float64) ** 2).mean())
    return 100.0 if error == 0 else 10 * np.log10(1 / error)


@dataclass
class Seen:
    """What a door showed: display R, G, B (H, W, 3) with NaN where there is no data, or the line that refused it."""

    image: np.ndarray | None = None
    refused: str = ""
    said: list[str] = field(default_factory=list)


def dataset(folder: Path, hr: Path, side: dict[str, Any], lr: Path | None = None, lr_side: Any = None) -> Path:
    """A dataset folder around files that lie in it."""
    columns = ["id", "hr", *(["lr"] if lr else [])]
    cells = ["a", str(hr.relative_to(folder)), *([str(lr.relative_to(folder))] if lr else [])]
    (folder / "pairs.csv").write_text(",".join(columns) + "\n" + ",".join(cells) + "\n")
    info = {"format": 1, "name": "own", "hr": side, "lr": lr_side or side}
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def by_run(folder: Path, *, paired: bool = False) -> Seen:
    """The reference that a run holds models against."""
    data, protocol = FolderDataset(folder), Paired() if paired else Bicubic4x()
    try:
        task = protocol.prepare(data.load(data.all_records[0], protocol.reads))
    except RfbenchError as error:
        return Seen(refused=str(error))
    assert task.reference.display_float is not None
    shown = np.where(task.reference.valid[:, :, None], task.reference.display_float, np.nan)
    return Seen(shown, said=list(task.notes))


def score_of_bicubic(folder: Path) -> float:
    """PSNR (dB) of the model ``bicubic`` under ``bicubic-4x``, as the metric is defined."""
    data, protocol = FolderDataset(folder), Bicubic4x()
    task = protocol.prepare(data.load(data.all_records[0], protocol.reads))
    assert task.reference.display is not None
    answer = np.clip(bicubic(task.lr_display, task.size), 0, 1)
    return psnr(answer, task.reference.display, task.reference.valid)


def by_validate(folder: Path) -> list[str]:
    """The lines of ``rfbench validate``."""
    return [str(problem) for problem in validate(folder).problems]


def by_upscale(path: Path, *, folder: Path | None = None, **options: Any) -> Seen:
    """The image itself, made no finer; ``folder`` where the path is the name of a part of a file."""
    target = (folder or path.parent) / "upscaled.tif"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            upscale(path, target, model="nearest", scale=1, output="float", **options)
        except RfbenchError as error:
            return Seen(refused=str(error))
        with rasterio.open(target) as file:
            image = np.moveaxis(file.read(), 0, 2)
    target.unlink()
    return Seen(image, said=[str(w.message) for w in caught])


def by_score(pred: Path, *options: str) -> tuple[float | None, str]:
    """PSNR (dB) of the one image in a folder and the error (empty without one), by ``rfbench score``."""
    from bench.cli import cli

    command = ["score", "--pred", str(pred), *options, "--metrics", "psnr_rgb", "--workers", "0", "--format", "json"]
    done = CliRunner().invoke(cli, command, standalone_mode=False)
    if isinstance(done.exception, RfbenchError):
        return None, str(done.exception)
    assert done.exception is None, done.exception
    (image,) = json.loads(done.stdout)["images"]
    return image["scores"].get("psnr_rgb"), image["error"] or ""
