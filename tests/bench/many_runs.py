"""Whether the time of tables, comparisons and gates grows with the number of runs and no faster:
``python -m tests.bench.many_runs [COUNTS]``.

Runs of made-up scores, 24 images and two metrics each; every command as a user starts it, in a process of its own, of
which the processor's time is told: what else the machine does does not move it. ``compare`` holds all against one row
(of every pair there are N²/2, and its own answer is as long).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.common import machine
from tests.scored_runs import numbers, scored_run

IMAGES = 24


def seconds(*words: object) -> float:
    """Of processors, for one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "bench.cli", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1, 250, 500, 1000])
    given = parser.parse_args()
    print(f"{machine()}\n\n| runs | table | compare --against | gate |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for count in given.counts:
            runs = place / str(count)
            for i in range(count):
                scores = {m: numbers(IMAGES, 2 * i + k, 25.0) for k, m in enumerate(("psnr_rgb", "sam_rgb"))}
                scored_run(runs, f"m{i:04d}", scores)
            scored_run(runs, "other", {"psnr_rgb": numbers(IMAGES, 7, 25.0), "sam_rgb": numbers(IMAGES, 8, 25.0)})
            out = ("--out", place / "answer")
            found = (
                seconds("table", runs, *out),
                seconds("compare", runs, "--against", "other", *out),
                seconds("gate", runs, "--against", runs),
            )
            print(f"| {count} | {' | '.join(f'{s:.1f} s' for s in found)} |", flush=True)


if __name__ == "__main__":
    main()
