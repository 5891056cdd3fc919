"""What the test of one cluster leaves out: ``python -m tests.bench.ray [--images N]``, about ten minutes of two cores.

A cluster of two raylets on loopback. With 1, 2 and 4 actors a run has the bytes of a local one, and its rate is
printed; a raylet that is killed in the middle costs a line, not a byte; a driver that is killed is resumed by the same
command to the same bytes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.common import machine
from tests.e2e.test_run import tree


def run(out: Path, given: argparse.Namespace, *words: str) -> float:
    """Seconds that a run takes."""
    began = time.perf_counter()
    subprocess.run(_words(out, given, words), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _words(out: Path, given: argparse.Namespace, words: Sequence[str]) -> list[str]:
    return [
        sys.executable, "-m", "bench.cli", "run", "--model", given.model, "--draws", "1", "--metrics", "psnr_rgb,niqe",
        "--limit", str(given.images), "--out", str(out), "--no-report", *words,
    ]  # fmt: skip


def same(what: str, one: Path, other: Path) -> None:
    """End with an error where two runs differ."""
    a, b = ({p.name: tree(p) for p in sorted(of.iterdir())} for of in (one, other))
    if a != b:
        sys.exit(f"{what}: other bytes than the local run")
    print(f"{what}: the bytes of the local run")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--model", default="rareflow:steps=4,label=model", help="with label=model")
    parser.add_argument("--kill-after-s", type=float, default=25.0, help="when the raylet is killed")
    given = parser.parse_args()
    from ray.cluster_utils import Cluster

    print(machine())
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    with tempfile.TemporaryDirectory() as name:
        place, n = Path(name), given.images
        print(f"local, one process: {n / run(place / 'local', given, '--workers', '0'):.2f} images a second")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        other = cluster.add_node(num_cpus=2)
        ray = ("--executor", "ray", "--address", cluster.address)
        for actors in (1, 2, 4):
            out = place / f"actors{actors}"
            seconds = run(out, given, *ray, "--actors", str(actors))
            print(f"{actors} actors: {n / seconds:.2f} images a second, start-up in it")
            same(f"{actors} actors", place / "local", out)
        killer = threading.Timer(given.kill_after_s, lambda: cluster.remove_node(other, allow_graceful=False))
        killer.start()
        run(place / "raylet", given, *ray, "--actors", "3")
        killer.join()
        same("a raylet was killed", place / "local", place / "raylet")
        driver = subprocess.Popen(_words(place / "driver", given, [*ray, "--actors", "2"]), stdout=subprocess.DEVNULL)
        items = place / "driver" / "model" / "items"
        while driver.poll() is None and not (items.is_dir() and len(list(items.iterdir())) >= n // 3):
            time.sleep(0.1)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        run(place / "driver", given, *ray, "--actors", "2")
        same("the driver was killed", place / "local", place / "driver")
        cluster.shutdown()


if __name__ == "__main__":
    main()
