"""How a number was made: the software, the machine and the flags, for the record of a run."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "torchvision", "numpy", "scipy", "diffusers", "transformers", "accelerate", "rasterio", "pillow", "pandas",
    "pyarrow", "safetensors",
)  # fmt: skip
"""What images and models go through, whatever the metrics."""


def software(also: Iterable[str] = ()) -> dict[str, Any]:
    """Versions of rfbench, Python and the packages that can move a number; the commit where it runs from a checkout.

    ``also`` are the distributions of the metrics (``bench.metrics.scorer.distributions``).
    """
    versions = {name: _version(name, tuple(sys.path)) for name in dict.fromkeys([*PACKAGES, *also])}
    from bench import __version__

    python = ".".join(map(str, sys.version_info[:3]))
    return {"rfbench": __version__, "python": python, "packages": versions, **_commit()}


@functools.cache
def _version(name: str, path: tuple[str, ...]) -> str | None:
    """Of a distribution; ``path`` is where Python looks, which a plugin's place may join later."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _commit() -> dict[str, Any]:
    """As this process first saw it, since the code that it runs is of that moment."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return {"commit": None, "dirty": None}

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    # Only the packages count: a run folder or a note beside them changes no number.
    changed = git("status", "--porcelain", "--", "bench", "baselines", "rareflow")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed) if changed is not None else None}


def machine(device: str) -> dict[str, Any]:
    """The processor, and the accelerator with its driver where one is used."""
    found: dict[str, Any] = {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
    }
    if device.startswith("cuda"):
        import torch

        properties = torch.cuda.get_device_properties(torch.device(device))
        found["accelerator"] = properties.name
        found["accelerator_memory_bytes"] = properties.total_memory
        found["cuda"] = torch.version.cuda
        found["driver"] = _driver()
    return found


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def deterministic() -> dict[str, Any]:
    """Set torch to repeatable arithmetic and say how; called once, before the first model is loaded."""
    import torch

    # What use_deterministic_algorithms(True, warn_only=True) sets, without the compiler, which that imports (seconds).
    torch.set_deterministic_debug_mode("warn")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return {"deterministic_algorithms": True, "cudnn_benchmark": False, "tf32": False}
