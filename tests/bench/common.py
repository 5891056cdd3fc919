"""What the benchmarks share: the machine's name, a dataset of any length, a model that takes 50 ms an image."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psutil

from bench.core import provenance, registry

SLEEPER = """
import time
from bench.models import Adapter, Batch, ModelSpec, Prediction, resize
import numpy as np
SPEC = ModelSpec(name="sleeper", adapter="rfbench_sleeper:Sleeper", summary="takes 50 ms an image")
class Sleeper(Adapter):
    def upscale(self, batch: Batch) -> Prediction:
        time.sleep(0.05 * len(batch.ids))
        return Prediction(mean=np.stack([resize(i, batch.size) for i in batch.images]))
"""


def machine(device: str = "cpu") -> str:
    """One line about the machine and the versions."""
    facts, versions = provenance.machine(device), provenance.software()
    torch = versions["packages"]["torch"]
    accelerator = f"{facts['accelerator']}, driver {facts['driver']}, CUDA {facts['cuda']}; " if device != "cpu" else ""
    return f"{accelerator}{facts['processor']}, {facts['cores']} cores; Python {versions['python']}, torch {torch}"


def install_sleeper(site: Path) -> Path:
    """Lay the 50 ms model into ``site`` as an installer would."""
    information = site / "rfbench_sleeper-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "rfbench_sleeper.py").write_text(SLEEPER)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: rfbench-sleeper\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[rfbench.models]\nsleeper = rfbench_sleeper:SPEC\n")
    return site


def register(site: Path) -> None:
    """Make the parts of a checkout that is not installed known to this process and those it starts, as pip would."""
    if registry.points("metrics"):
        return
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    information = site / f"rfbench-{declared['version']}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rfbench\nVersion: {declared['version']}\n")
    groups = declared["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups]
    (information / "entry_points.txt").write_text("\n".join(lines))
    sys.path.append(str(site))
    registry.forget()


def repeat_scenes(folder: Path, count: int) -> Path:
    """``count`` pairs of 40x40 to 200x200 px: the embedded scenes over and over, under other ids."""
    import csv
    import shutil

    from bench.data.embedded import FOLDER

    shutil.copytree(FOLDER, folder)
    with (folder / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for i in range(count):
            writer.writerow(rows[i % len(rows)] | {"id": f"pair_{i:05d}"})
    return folder


def run_and_watch(words: list[str], environment: dict[str, str], every_s: float = 0.1) -> tuple[float, float]:
    """Run ``rfbench`` with ``words``; returns wall seconds and the peak of resident MB of it and its children."""
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=os.environ | environment, text=True,
    )  # fmt: skip
    family = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, _resident_mb(family))
        time.sleep(every_s)
    if process.returncode:
        raise SystemExit(process.stderr.read() if process.stderr else "failed")
    return time.perf_counter() - started, peak


def _resident_mb(family: psutil.Process) -> float:
    total = 0
    try:
        for member in [family, *family.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total / 1e6
