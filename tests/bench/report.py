"""What a report costs: ``python -m tests.bench.report`` makes one of 200 images x 4 models, and opens it.

The embedded scenes over and over under other ids (40x40 to 200x200 px), four interpolations, three metrics. Goals: at
most 0.15 s an image and model to make, the same memory for 200 images as for 50, first paint under 3 s. First paint is
the browser's own (``first-contentful-paint``) of a window of 1366x768 from ``file://``; of gallery and image it is the
time until cards and pictures stand. Medians of five, in a browser that runs already.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench.common import machine, register, repeat_scenes, run_and_watch
from tests.chromium import started

MODELS = ("nearest", "bilinear", "bicubic", "lanczos")
METRICS = "psnr_rgb,ssim_rgb,de00"
REPEATS = 5


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        register(root / "site")
        data = repeat_scenes(root / "data", count)
        models = [word for model in MODELS for word in ("--model", model)]
        run_and_watch(
            ["run", *models, "--data", str(data), "--metrics", METRICS, "--out", str(root / "runs"), "--no-report"], {}
        )
        print(machine())
        peaks = {}
        for images in sorted({count // 4, count}):
            words = ["report", str(root / "runs"), "--out", str(root / "report"), "--max-images", str(images)]
            wall, peaks[images] = run_and_watch(words, {"OMP_NUM_THREADS": "1"})
            files = [p for p in (root / "report").rglob("*") if p.is_file()]
            size, each = sum(p.stat().st_size for p in files), wall / images / len(MODELS)
            print(
                f"{images} images x {len(MODELS)} models: {wall:.1f} s, {each:.3f} s an image and model, peak "
                f"{peaks[images]:.0f} MB, {size / 1e6:.1f} MB in {len(files)} files"
            )
        page = (root / "report" / "index.html").as_uri()
        print(f"first page {(root / 'report' / 'index.html').stat().st_size / 1e3:.0f} kB")
        for name, seconds in opened(page).items():
            print(f"{name}: {seconds:.2f} s")


def opened(page: str) -> dict[str, float]:
    """Median seconds until the first page is painted, the gallery's cards stand, and an image's pictures do."""
    driver = started()
    try:
        found: dict[str, list[float]] = {"first paint": [], "gallery": [], "one image": []}
        for _ in range(REPEATS):
            driver.get("about:blank")
            driver.get(page)
            paint = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            found["first paint"].append(_until(driver, paint) / 1e3)
            for name, address, ready in (
                ("gallery", "#/images", "return document.querySelectorAll('.card').length"),
                ("one image", "#/image", "return document.getElementById('image').dataset.shown"),
            ):
                began = time.perf_counter()
                driver.execute_script(f"location.hash = '{address}'")
                _until(driver, ready)
                found[name].append(time.perf_counter() - began)
        return {name: statistics.median(times) for name, times in found.items()}
    finally:
        driver.quit()


def _until(driver: object, script: str) -> float:
    while not (found := driver.execute_script(script)):  # type: ignore[attr-defined]
        time.sleep(0.02)
    return float(found) if isinstance(found, int | float) else 0.0


if __name__ == "__main__":
    main()
