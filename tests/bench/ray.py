"""What the test of one cluster leaves out: ``python -m tests.bench.ray [--images N]``, about ten minutes of two cores.

A cluster of two raylets on loopback. With 1, 2 and 4 actors a run has the bytes of a local one, and its rate is
printed; a raylet that is killed in the middle costs a line, not a byte; a driver that is killed is resumed by the same
command to the same bytes; a run is scored there as here; a node without the data is one line, and devices of two kinds
are refused. Whatever hangs is ended, and all that was started ends with the command.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError
from bench.executors import cluster as executor
from bench.predict.plan import Request, make_plan
from bench.score import execute
from bench.score.run import run as run_both
from tests.bench.common import machine
from tests.e2e.test_run import tree

LIMIT_S = 900
"""For one run; a test machine has two cores, and others work on it."""


class Command:
    """``rfbench`` with words, in a process group of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def done(self) -> str:
        """What it said, once it has ended; ends this program where it failed or takes too long."""
        try:
            _, said = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            sys.exit(f"not done in {LIMIT_S} s")
        if self.process.returncode:
            sys.exit(said)
        return said

    def kill(self) -> None:
        """End it and all that it started, as if the power had gone."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def once(of: Path, count: int, command: Command) -> None:
    """Wait until the run ``of`` has committed ``count`` images, or the command has ended."""
    until = time.monotonic() + LIMIT_S
    while command.process.poll() is None and time.monotonic() < until:
        if (of / "items").is_dir() and len(list((of / "items").glob("*.json"))) >= count:
            return
        time.sleep(0.1)


def same(what: str, one: Path, other: Path) -> None:
    """End with an error where two folders of runs differ."""
    a, b = ({f"{p.name}/{file}": data for p in of.iterdir() for file, data in tree(p).items()} for of in (one, other))
    if a != b:
        names = sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
        sys.exit(f"{what}: other bytes than the local run in {', '.join(names[:5])} ({len(names)} files)")
    print(f"{what}: the bytes of the local run", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--model", default="rareflow:steps=4,label=model", help="with label=model")
    given = parser.parse_args()
    from ray.cluster_utils import Cluster

    print(machine(), flush=True)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory() as name:
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        try:
            _all(given, Path(name), nodes)
        finally:
            nodes.shutdown()


def _all(given: argparse.Namespace, place: Path, nodes: Any) -> None:
    words = ["run", "--model", given.model, "--draws", "1", "--metrics", "psnr_rgb,logspec_l1", "--no-report"]
    words += ["--limit", str(given.images), "--out"]
    there = ("--executor", "ray", "--address", nodes.address)
    local = place / "local"

    def timed(what: str, out: str, *more: str) -> None:
        began = time.perf_counter()
        Command(*words, str(place / out), *more).done()
        print(f"{what}: {given.images / (time.perf_counter() - began):.2f} images a second, start-up in it", flush=True)

    timed("local, one process", "local", "--workers", "0")
    other = nodes.add_node(num_cpus=2)
    for actors in given.actors:
        timed(f"{actors} actors", f"actors{actors}", *there, "--actors", str(actors))
        same(f"{actors} actors", local, place / f"actors{actors}")

    scored = place / "scored"
    shutil.copytree(local, scored)
    for made in ("scores", "summary.json"):
        path = scored / "model" / made
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    Command("score", str(scored), "--metrics", "psnr_rgb,logspec_l1", *there, "--actors", "2").done()
    same("scored by two actors", local, scored)

    killed = Command(*words, str(place / "driver"), *there, "--actors", "2")
    once(place / "driver" / "model", given.images // 3, killed)
    killed.kill()
    Command(*words, str(place / "driver"), *there, "--actors", "2").done()
    same("the driver was killed", local, place / "driver")

    data = place / "data"
    shutil.copytree(_embedded(), data)
    _refused("a node without the data", nodes.address, data, lambda: data.rename(place / "away"))
    (place / "away").rename(data)
    _refused("devices of two kinds", nodes.address, data, lambda: setattr(executor, "_Worker", _OfItsNode), actors=3)

    running = Command(*words, str(place / "raylet"), *there, "--actors", "3")
    once(place / "raylet" / "model", given.images // 3, running)
    nodes.remove_node(other, allow_graceful=False)
    lost = [line for line in running.done().splitlines() if "actor was lost" in line]
    print(f"a raylet was killed: {len(lost)} lines such as: {lost[0] if lost else 'none'}")
    same("a raylet was killed", local, place / "raylet")


def _embedded() -> Path:
    from bench.data.embedded import FOLDER

    return FOLDER


class _OfItsNode(executor._Worker):
    """An actor that takes its node for a kind of device."""

    def device(self) -> str:
        import ray

        return f"device of node {ray.get_runtime_context().get_node_id()[:6]}"


def _refused(what: str, address: str, data: Path, happens: Callable[[], Any], actors: int = 1) -> None:
    """Print the one line that a run ends with, where something ``happens`` once it is planned."""
    before = executor._Worker
    with tempfile.TemporaryDirectory() as out, executor.cluster(address, actors=actors) as found:
        request = Request(("bicubic",), data=str(data), device="cpu", is_remote=True, limit=2, out=Path(out))
        prepared = make_plan(request)
        happens()
        try:
            run_both(request, execute.Request(("psnr_rgb",), "cpu", 0), prepared=prepared, cluster=found)
            sys.exit(f"{what}: nothing was refused")
        except RfbenchError as error:
            print(f"{what}: {error}", flush=True)
        finally:
            executor._Worker = before  # type: ignore[misc]


if __name__ == "__main__":
    main()
