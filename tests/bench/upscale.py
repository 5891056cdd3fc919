"""Peak resident memory of ``rfbench upscale`` (bicubic, x5, tiles of 256 px), 600x600 against 3000x3000 px.

Goal: at most 1.15 times. What may grow is the overlap that waits, and the blocks of the result: both with the width.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from tests.bench.common import machine, run_and_watch


def image(path: Path, side: int) -> Path:
    """Four bands of Sentinel-2's numbers with some grain, written strip by strip."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 4, "height": side, "width": side, "compress": "deflate"}
    with rasterio.open(path, "w", crs="EPSG:32608", transform=from_origin(4e5, 7.5e6, 10, 10), **profile) as file:
        file.descriptions = ("B02", "B03", "B04", "B08")
        for top in range(0, side, 200):
            file.write(rng.integers(500, 700, (4, 200, side)).astype(np.uint16), window=Window(0, top, side, 200))
    return path


def main(sides: tuple[int, ...] = (600, 3000)) -> None:
    """Measure and print."""
    print(machine())
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for side in sides:
            source, target = image(Path(name) / f"{side}.tif", side), Path(name) / "out.tif"
            words = ["upscale", str(source), str(target), "--model", "bicubic", "--tile", "256"]
            wall, peak = run_and_watch(words, {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
            peaks.append(peak)
            print(f"{side}x{side} px: peak {peak:.0f} MB, {wall:.0f} s, {target.stat().st_size / 1e6:.0f} MB written")
    print(f"ratio {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
