"""README's first command on one core and on two: ``python -m tests.bench.cores [--limit N] [--turns N]``, five minutes.

In turns, so that what else the machine does falls on both; the best of each is told. Other bytes are an error. Beside
it stands what two cores of this machine can do at all: a loop of convolutions in one thread, once on one core and as
two processes on both. Cores that share their units or their memory do less than twice the work.
Needs Linux (the cores are chosen by affinity, which the command's processes inherit) and a machine without other work.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.common import machine
from tests.e2e.test_run import tree

COMMAND = ("run", "--model", "rareflow", "--model", "bicubic", "--model", "bicubic-affine", "--protocol", "paired")


PLAIN = """
import time, torch
torch.set_num_threads(1)
layer, image = torch.nn.Conv2d(64, 64, 3, padding=1), torch.rand(4, 64, 96, 96)
with torch.no_grad():
    layer(image)
    end, count = time.perf_counter() + 10, 0
    while time.perf_counter() < end:
        layer(image)
        count += 1
print(count)
"""
"""Ten seconds of convolutions; prints how many."""


def ceiling(first: int, second: int) -> float:
    """How many times the work of one core two do, without anything to wait for."""

    def work(*cores: int) -> int:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", PLAIN], stdout=subprocess.PIPE, text=True,
                preexec_fn=lambda core=core: os.sched_setaffinity(0, {core}),
            )
            for core in cores
        ]  # fmt: skip
        return sum(int(process.communicate()[0]) for process in started)

    return work(first, second) / max(work(first), work(second))


def timed(cores: set[int], words: list[str]) -> tuple[float, float]:
    """Seconds of wall and of processor that the command takes on these cores."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "bench.cli", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="images; all 24 unless given")
    parser.add_argument("--turns", type=int, default=1)
    given = parser.parse_args()
    limit = ["--limit", str(given.limit)] if given.limit else []
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    print(machine())
    first, second, *_ = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        for turn in range(given.turns):
            for count, cores in ((1, {first}), (2, {first, second})):
                out = Path(place, f"{turn}-{count}")
                found[count].append(timed(cores, [*COMMAND, *limit, "--out", str(out)]))
            one, two = (Path(place, f"{turn}-{count}") for count in (1, 2))
            for model in (p.parent for p in one.glob("*/run.json")):
                if tree(model) != tree(two / model.name):
                    sys.exit(f"{model.name} has other bytes on two cores")
    for count, times in found.items():
        wall, processor = min(times)
        print(f"{count} core{'s' * (count > 1)}: {wall:.1f} s, of processors {processor:.1f} s")
    print(f"two cores at convolutions alone: {ceiling(first, second):.2f} times the work of one")
    print(f"two cores are {min(found[1])[0] / min(found[2])[0]:.2f} times as fast as one; the bytes are equal")


if __name__ == "__main__":
    main()
