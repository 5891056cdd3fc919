"""``rfbench --help``: wall time of a fresh process. Goal: under 0.3 s, importing no torch."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from tests.bench.common import machine


def main(runs: int = 15) -> None:
    """Time ``--help`` and, for scale, an empty Python."""
    print(machine())
    for name, words in {"python -c pass": ["-c", "pass"], "rfbench --help": ["-m", "bench.cli", "--help"]}.items():
        seconds = []
        for _ in range(runs):
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - started)
        print(f"{name}: median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s of {runs}")


if __name__ == "__main__":
    main()
