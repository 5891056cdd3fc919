"""What works here, what does not, and the command that would change it.

Each probe looks at one thing and is guarded: whatever it meets becomes a line, so the doctor itself cannot fall ill.
What may bring a whole process down (torch, a driver) is looked at in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.core.errors import RfbenchError, one_line

FORMAT = 1
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
_AGAIN = "pip install --force-reinstall --no-deps rfbench"
State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Line:
    """One finding: its subject, how it is, what was found, and the next step (a command to type, where there is one).

    ``needed`` says that the embedded benchmark cannot run with this as a problem.
    """

    subject: str
    state: State
    found: str
    next_step: str = ""
    needed: bool = False

    def __str__(self) -> str:
        return f"{self.state:<7}  {self.subject:<9} {self.found}" + (f"; {self.next_step}" if self.next_step else "")


Probe = Callable[[], Iterator[Line]]


def examine(out: Path, weights_dir: Path | None, tell: Callable[[Line], None] = lambda line: None) -> list[Line]:
    """Look at everything; ``out`` is where runs would be written. Each line is told as soon as it is known."""
    probes: list[tuple[str, bool, Probe]] = [
        ("rfbench", False, _rfbench),
        ("python", True, _python),
        ("packages", True, _packages),
        ("torch", True, _torch),
        ("threads", False, _threads),
        ("data", True, _embedded),
        ("models", True, lambda: _models(weights_dir)),
        ("plugins", False, _plugins),
        ("weights", False, lambda: _weights_folders(weights_dir)),
        ("metrics", False, lambda: _metrics(weights_dir)),
        ("licences", False, _licences),
        ("output", True, lambda: _output(out)),
    ]
    lines = []
    for subject, needed, probe in probes:
        for line in _guarded(subject, needed, probe):
            lines.append(line)
            tell(line)
    return lines


def broken(lines: list[Line]) -> bool:
    """Whether something that the embedded benchmark needs does not work."""
    return any(line.state == "problem" and line.needed for line in lines)


def document(lines: list[Line]) -> dict[str, Any]:
    """The findings as JSON; ``format`` counts the versions of this document."""
    found = [asdict(line) for line in lines]
    return {"format": FORMAT, "embedded_benchmark_runs": not broken(lines), "findings": found}


def _guarded(subject: str, needed: bool, probe: Probe) -> Iterator[Line]:
    try:
        for line in probe():
            yield Line(line.subject, line.state, one_line(line.found, 500), one_line(line.next_step, 300), line.needed)
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, RfbenchError) else f"{type(error).__name__}: "
        text = f"could not be looked at: {kind}{one_line(error, 300)}"
        yield Line(subject, "problem", text, "repair what the text names", needed)


# --- the installation -----------------------------------------------------------------------------------------


def _rfbench() -> Iterator[Line]:
    from bench.core import provenance

    found = provenance.software()
    commit = found["commit"]
    where = f"commit {commit[:10]}{' with changes' if found['dirty'] else ''}" if commit else "installed, no commit"
    yield Line("rfbench", "ok", f"{found['rfbench']}, {where}")
    if commit and found["dirty"]:
        yield Line("rfbench", "note", "the code has changes that no commit holds; records of runs say so", "git status")


def _python() -> Iterator[Line]:
    version = ".".join(map(str, sys.version_info[:3]))
    low, below = PYTHON
    if low <= sys.version_info[:2] < below:
        yield Line("python", "ok", f"{version} at {sys.executable}")
    else:
        wanted = f"{low[0]}.{low[1]} to {below[0]}.{below[1] - 1}"
        yield Line("python", "problem", f"{version}, expected {wanted}", f"python{wanted[:4]} -m venv .venv", True)


def _packages() -> Iterator[Line]:
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


def _torch() -> Iterator[Line]:
    words = [sys.executable, "-c", _TORCH]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        text = f"did not start within {_TIMEOUT_S} s; a driver may hang"
        yield Line("torch", "problem", text, "CUDA_VISIBLE_DEVICES= rfbench doctor", True)
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        text = f"does not work: {one_line(last, 200)}"
        yield Line("torch", "problem", text, "pip install --force-reinstall torch", True)
        return
    found = json.loads(done.stdout.splitlines()[-1])
    yield Line("torch", "ok", f"{found['version']}, {found['threads']} threads")
    for name, memory in found["devices"]:
        yield Line("device", "ok", f"CUDA {found['cuda']}: {name}, {memory / 1e9:.0f} GB")
    if not found["devices"]:
        built = f"torch is built for CUDA {found['cuda']}" if found["cuda"] else "torch is built without CUDA"
        step = "nvidia-smi" if shutil.which("nvidia-smi") else ""
        yield Line("device", "note", f"no usable CUDA device ({built}): models run on the processor", step)


def _threads() -> Iterator[Line]:
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


# --- what is registered ---------------------------------------------------------------------------------------


def _ours(kind: Any) -> list[str]:
    from bench.core import registry

    return [n for n, p in registry.points(kind).items() if p.dist is not None and p.dist.name == "rfbench"]


def _embedded() -> Iterator[Line]:
    from bench.core import registry
    from bench.data.dataset import Dataset

    names = _ours("datasets")
    for name in names:
        dataset: Dataset = registry.load("datasets", name)()
        records = dataset.records("test")
        dataset.load(records[0])
        yield Line("data", "ok", f"{name}: {len(records)} images, licence {dataset.licence}")
    if not names:
        yield Line("data", "problem", "no dataset of rfbench is registered", _AGAIN, True)


def _models(weights_dir: Path | None) -> Iterator[Line]:
    """Each of our own models is constructed, which checks its files; one that needs an option says which. A system that
    lacks packages or weights has a line with all that a user must know before getting them."""
    from bench.models.call import Model
    from bench.models.ready import missing, next_step

    ready, lines, names = [], [], _ours("models")
    for name in names:
        try:
            model = Model(name)
            absent = missing(model.spec, weights_dir)
            if absent:
                spec = model.spec
                factors = "any scale" if spec.scale_factors is None else " ".join(f"x{f}" for f in spec.scale_factors)
                bands = " ".join(spec.bands or ("all bands",))
                what = ", ".join(t for t in (factors, bands, spec.licence, spec.status) if t)
                lines.append(Line("models", "note", f"{name} ({what}) lacks {'; '.join(absent)}", next_step(spec)))
            else:
                ready.append(model.label)
        except RfbenchError as error:
            needs_option = error.__cause__ is None and "needs the option" in str(error)
            if not needs_option:
                lines.append(Line("models", "problem", str(error), _AGAIN, True))
    if names:
        yield Line("models", "ok", f"ready: {', '.join(sorted(ready))}")
        yield from lines
    else:
        yield Line("models", "problem", "no model of rfbench is registered", _AGAIN, True)


def _plugins() -> Iterator[Line]:
    from bench.core import registry

    kinds: tuple[registry.Kind, ...] = ("models", "metrics", "protocols", "datasets", "commands")
    working = []
    for kind in kinds:
        for name, point in registry.points(kind).items():
            is_ours = point.dist is not None and point.dist.name == "rfbench"
            package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
            try:
                registry.load(kind, name)
            except Exception as error:  # importing a plugin runs its code
                step = f"pip uninstall {point.dist.name if point.dist else 'it'}, or repair it"
                if kind in ("models", "metrics", "datasets") and not is_ours:
                    step = f"rfbench check {kind[:-1]} {one_line(name, 60)}"
                yield Line("plugins", "problem", f"{package}: {error}", step, is_ours)
                continue
            if not is_ours:
                working.append(f"{kind[:-1]} {one_line(name, 40)} ({package})")
    yield Line("plugins", "ok", ", ".join(working) or "none beside rfbench's own parts")


# --- weights and licences -------------------------------------------------------------------------------------


def _weights_folders(weights_dir: Path | None) -> Iterator[Line]:
    from bench import weights

    for folder in weights.folders(weights_dir):
        if folder.is_dir():
            files = [p for p in folder.iterdir() if p.name in weights.listed()]
            yield Line("weights", "ok", f"{folder}: {len(files)} of {len(weights.listed())} listed files")
        elif folder.exists():
            yield Line("weights", "problem", f"{folder} is a file, expected a folder", f"mv '{folder}' elsewhere")
        elif os.environ.get(weights.ENVIRONMENT_VARIABLE) == str(folder):
            text = f"{folder}, named by {weights.ENVIRONMENT_VARIABLE}, does not exist"
            yield Line("weights", "note", text, f"mkdir -p '{folder}'")
        else:
            yield Line("weights", "ok", f"{folder}: not there yet")


def _metrics(weights_dir: Path | None) -> Iterator[Line]:
    from bench import weights
    from bench.core import registry
    from bench.metrics.base import Setting
    from bench.metrics.scorer import metric_class

    ready = []
    for name in registry.names("metrics"):
        try:
            kind = metric_class(name)
        except RfbenchError:
            continue  # a broken plugin, told above
        try:
            metric = kind(Setting(weights_dir=weights_dir))
            why, files = metric.missing(), metric.lacking_weights()
        except Exception as error:  # a plugin's metric; the report goes on
            yield Line("metrics", "problem", f"{name}: {error}", f"rfbench check metric {one_line(name, 60)}")
            continue
        if why is None:
            ready.append(name)
            continue
        if files:
            wrong = any(weights.places(weights.entry_of(file), weights_dir) for file in files)
            remedy = f"rfbench weights fetch --metrics {name}"
            yield Line("metrics", "problem" if wrong else "note", f"{name}: {why}", remedy)
        else:
            remedy = "pip install 'rfbench[iqa]'" if kind.package == "pyiqa" else ""
            yield Line("metrics", "note", f"{name}: {why}", remedy)
    yield Line("metrics", "ok", f"{len(ready)} ready: {', '.join(ready)}")


def _licences() -> Iterator[Line]:
    """What restricts the use of results or of what makes them."""
    from bench import weights
    from bench.core import registry
    from bench.core.licences import restriction

    stated: dict[str, list[str]] = {}
    kinds: tuple[registry.Kind, ...] = ("models", "metrics", "datasets")
    for kind in kinds:
        for name in registry.names(kind):
            try:
                part = registry.load(kind, name)
                found = {"": part().licence if kind == "datasets" else part.licence}
                if kind == "models":
                    found |= {f" with {option}=": licence for option, licence in part.option_licences.items()}
            except Exception:  # told above, or of a plugin's own making
                continue
            for how, licence in found.items():
                if isinstance(licence, str) and restriction(licence):
                    stated.setdefault(licence, []).append(f"{kind[:-1]} {name}{how}")
    with warnings.catch_warnings(action="ignore"):  # broken models are told above
        listed = weights.catalogue()
    for file, entry in listed.items():
        if restriction(entry.licence):
            stated.setdefault(entry.licence, []).append(f"weights {file}")
    for licence, parts in stated.items():
        text = f"{licence}: {restriction(licence)} ({', '.join(parts)})"
        yield Line("licences", "note", text, "leave these out where that does not suit")
    if not stated:
        yield Line("licences", "ok", "nothing that is registered here restricts use")


def _output(out: Path) -> Iterator[Line]:
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
