"""The installation and the machine: Python, packages, torch and its devices, threads, and where runs are written."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.core.errors import one_line
from bench.core.process import shielded
from bench.doctor.line import Line

PYTHON = ((3, 11), (3, 14))  # from, and below; as pyproject.toml has it
ROOM_BYTES = 2_000_000_000  # a run of some hundred images with draws
_TIMEOUT_S = 180
_VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
)  # fmt: skip
_TORCH = """
import json, torch
found = {"version": torch.__version__, "threads": torch.get_num_threads(), "cuda": torch.version.cuda, "devices": []}
assert float((torch.ones(3, 3) @ torch.ones(3, 3)).sum()) == 27
if torch.cuda.is_available():
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        found["devices"].append([p.name, p.total_memory])
print("\\n" + json.dumps(found))
"""


def rfbench() -> Iterator[Line]:
    """Version and commit."""
    from bench.core import provenance

    found = provenance.software()
    commit = found["commit"]
    where = f"commit {commit[:10]}{' with changes' if found['dirty'] else ''}" if commit else "installed, no commit"
    yield Line("rfbench", "ok", f"{found['rfbench']}, {where}")
    if commit and found["dirty"]:
        yield Line("rfbench", "note", "the code has changes that no commit holds; records of runs say so", "git status")


def python() -> Iterator[Line]:
    """Its version."""
    version = ".".join(map(str, sys.version_info[:3]))
    low, below = PYTHON
    if low <= sys.version_info[:2] < below:
        yield Line("python", "ok", f"{version} at {sys.executable}")
    else:
        wanted = f"{low[0]}.{low[1]} to {below[0]}.{below[1] - 1}"
        yield Line("python", "problem", f"{version}, expected {wanted}", f"python{wanted[:4]} -m venv .venv", True)


def packages() -> Iterator[Line]:
    """The requirements that this installation declares, against what is there."""
    from packaging.requirements import Requirement

    missing: list[str] = []
    old: list[str] = []
    optional: list[str] = []
    for text in importlib.metadata.requires("rfbench") or []:
        requirement = Requirement(text)
        is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        is_iqa = not is_needed and requirement.marker is not None and requirement.marker.evaluate({"extra": "iqa"})
        if not is_needed and not is_iqa:
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            (missing if is_needed else optional).append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            old.append(f"{requirement.name} {version} (expected {requirement.specifier})")
    if missing or old:
        wrong = [f"{name} is missing" for name in missing] + old
        yield Line("packages", "problem", "; ".join(wrong), "pip install --upgrade rfbench", True)
    else:
        yield Line("packages", "ok", "all that rfbench requires are here")
    for name in optional:
        text = f"{name} is not installed: FSIM, NIQE and MANIQA are reasons (its licence is noncommercial)"
        yield Line("packages", "note", text, "pip install 'rfbench[iqa]'")


def torch_probe() -> Callable[[], Iterator[Line]]:
    """Start to look at torch, in a process of its own since it may bring one down; what is returned waits for it."""
    words = [sys.executable, "-c", _TORCH]
    try:
        with shielded():
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        text = f"does not start: {sys.executable}: {error.strerror}"
        return lambda: iter([Line("torch", "problem", text, "free memory, and repeat", True)])
    return lambda: _torch(process)


def _torch(process: subprocess.Popen[str]) -> Iterator[Line]:
    try:
        out, said = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        text = f"did not start within {_TIMEOUT_S} s; a driver may hang"
        yield Line("torch", "problem", text, "CUDA_VISIBLE_DEVICES= rfbench doctor", True)
        return
    if process.returncode != 0:
        last = (said.strip().splitlines() or [f"it ended with code {process.returncode}"])[-1]
        text = f"does not work: {one_line(last, 200)}"
        yield Line("torch", "problem", text, "pip install --force-reinstall torch", True)
        return
    found = json.loads(out.splitlines()[-1])
    yield Line("torch", "ok", f"{found['version']}, {found['threads']} threads")
    for name, memory in found["devices"]:
        yield Line("device", "ok", f"CUDA {found['cuda']}: {name}, {memory / 1e9:.0f} GB")
    if not found["devices"]:
        built = f"torch is built for CUDA {found['cuda']}" if found["cuda"] else "torch is built without CUDA"
        step = "nvidia-smi" if shutil.which("nvidia-smi") else ""
        yield Line("device", "note", f"no usable CUDA device ({built}): models run on the processor", step)


def threads() -> Iterator[Line]:
    """Cores, and the variables that say how many threads there are and how they wait."""
    from bench.core import provenance

    cores = provenance.cores()
    values = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    shown = ", ".join(f"{k}={one_line(v, 40)}" for k, v in values.items())
    yield Line("threads", "ok", f"{cores} cores for this process; {shown or 'no variable is set'}")
    threads = values.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > cores:
        text = f"OMP_NUM_THREADS={threads} is more than the {cores} cores: threads wait for each other"
        yield Line("threads", "note", text, f"export OMP_NUM_THREADS={cores}")
    if values.get("OMP_WAIT_POLICY", "PASSIVE").upper() != "PASSIVE":
        text = "waiting threads spin, which slows everything beside another busy process"
        yield Line("threads", "note", text, "export OMP_WAIT_POLICY=PASSIVE")


def output(out: Path) -> Iterator[Line]:
    """The nearest folder above ``out`` that exists: can it be written, and is there room?"""
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not place.is_dir():
        yield Line("output", "problem", f"{place} is a file, expected a folder", "rfbench doctor --out DIR", True)
        return
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"rfbench")
            file.flush()
    except OSError as error:
        text = f"{place} cannot be written: {error.strerror or one_line(error, 80)}"
        yield Line("output", "problem", text, "rfbench doctor --out DIR, then rfbench run ... --out DIR", True)
        return
    free = shutil.disk_usage(place).free
    text = f"{place} can be written, {free / 1e9:.1f} GB free"
    if free < ROOM_BYTES:
        yield Line("output", "note", f"{text}: little for a large run", "rfbench run ... --out DIR on a larger disk")
    else:
        yield Line("output", "ok", text)
