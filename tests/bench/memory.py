"""Peak resident memory of a run and its scoring process, 200 pairs against 2,000. Goal: at most 1.1 times.

The metrics are the default ones but FSIM, whose 75 ms an image would only make it longer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.common import machine, repeat_scenes, run_and_watch

METRICS = "psnr_rgb,ssim_rgb,sam_rgb,de00,nll,ece,logspec_l1"


def main(counts: tuple[int, int] = (200, 2000)) -> None:
    """Measure and print."""
    print(machine())
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = repeat_scenes(folder / "data", max(counts))
        for count in counts:
            words = ["run", "--model", "bicubic", "--data", str(data), "--metrics", METRICS, "--limit", str(count)]
            wall, peak = run_and_watch([*words, "--out", str(folder / f"out{count}"), "--workers", "1"], {})
            peaks.append(peak)
            print(f"{count} pairs of 200x200 px: peak {peak:.0f} MB, {wall:.0f} s")
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:3])) if len(sys.argv) > 2 else (200, 2000))  # type: ignore[arg-type]
