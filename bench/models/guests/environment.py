"""Environments for guests: made by uv from a committed requirements file, addressed by its hash, shared, built whole.

They lie below the folder that ``RFBENCH_ENVS`` names, else ``~/.cache/rfbench/envs``::

    envs/KEY/environment.json   what it was made from and what is in it; written last
    envs/KEY/bin/python
    checkouts/NAME-COMMIT/      upstream's code (``bench.models.guests.checkout``)
    logs/                       uv's output, and that of guests that crashed

KEY is the start of the SHA-256 of the requirements file and the version of Python, so two models with the same file
share one environment, and a changed file is another one. An environment has two variants: as the file says, whose torch
on Linux is the one for CUDA and runs on processors too, and ``cpu``, with torch's build for processors and without the
packages of CUDA, which is some GB smaller.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core import lock as locks
from bench.core import places
from bench.core.errors import RfbenchError, Unavailable, one_line
from bench.core.files import TEMPORARY, is_temporary, read_json, write_json

ENVIRONMENT_VARIABLE = "RFBENCH_ENVS"
FORMAT = 1
_KEY_DIGITS = 16
_RECORD = "environment.json"
CPU = "cpu"
VARIANTS = ("", CPU)
_OF_CUDA = re.compile(r"\s*(nvidia-|cuda-|triton\b)", re.I)  # lines that torch's build for processors does not need


@dataclass(frozen=True)
class Environment:
    """What a model needs that cannot live in rfbench's process: ``ModelSpec.environment``.

    Attributes
    ----------
    shim : ``"package.module:Class"``, a file that runs in the guest (``bench.models.guests.guest`` says what it has to
        define). It is read from where the package is installed beside rfbench, but sees nothing else of it.
    requirements : ``"package/folder/requirements.txt"``, what is installed for it, numpy at least. Pin exact versions.
    python : the version of Python it needs (``"3.10"``); rfbench's own where empty.
    checkout : whether it needs a checkout of ``ModelSpec.upstream`` at ``ModelSpec.commit``, whose folder comes first
        on the guest's path.
    start_s : how long starting and loading may take.
    item_s : how long one draw of one image may take.
    idle_s : after how long without a request the guest ends, to give its memory back; it is started again when needed.
    """

    shim: str
    requirements: str
    python: str = ""
    checkout: bool = False
    start_s: float = 900.0
    item_s: float = 1800.0
    idle_s: float = 1800.0

    @property
    def python_version(self) -> str:
        """The version of Python of the environment, ``3.11``."""
        return self.python or f"{sys.version_info[0]}.{sys.version_info[1]}"

    def requirements_text(self, variant: str = "") -> str:
        """The requirements of a variant; RfbenchError where the file is missing or leans on other files."""
        path = _resource(self.requirements)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RfbenchError(f"requirements {self.requirements} cannot be read ({one_line(error, 80)})") from None
        for line in text.splitlines():
            if re.match(r"\s*(-[rce]\b|--(requirement|constraint|editable))", line):
                raise RfbenchError(
                    f"requirements {self.requirements}: found '{one_line(line, 60)}', expected packages alone, since "
                    "the hash of this file has to say all that is installed; write the packages into it"
                )
        if variant == CPU:
            return "".join(line for line in text.splitlines(keepends=True) if not _OF_CUDA.match(line))
        return text

    def requirements_sha256(self) -> str:
        """The SHA-256 of the requirements file."""
        return hashlib.sha256(self.requirements_text().encode()).hexdigest()

    def key(self, variant: str = "") -> str:
        """The address of a variant of the environment: 16 hex digits."""
        parts = [self.requirements_text(variant), self.python_version, platform.system(), platform.machine()]
        parts += [variant] if variant else []
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:_KEY_DIGITS]

    def shim_file(self) -> Path:
        """The file of the shim; RfbenchError where there is none."""
        module = self.shim.partition(":")[0]
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            raise RfbenchError(f"the shim {one_line(self.shim, 80)} has no file; expected package.module:Class")
        return Path(spec.origin)


@dataclass(frozen=True)
class Built:
    """An environment that is there, as its record describes it."""

    path: Path
    key: str
    python: str
    packages: tuple[str, ...]
    requirements: str
    bytes: int
    built: str

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return self.path / "bin" / "python"


def root() -> Path:
    """The folder of environments, checkouts and logs; it need not exist yet."""
    return places.kept("envs", ENVIRONMENT_VARIABLE)


def find(environment: Environment, device: str = "cpu") -> Built | None:
    """The environment that serves a device, if one is built: on a processor any, the one made for it first."""
    variants = ("",) if device.startswith("cuda") else (CPU, "")
    found = (_read(root() / "envs" / environment.key(variant)) for variant in variants)
    return next((b for b in found if b is not None), None)


def built() -> list[Built]:
    """All that are built here."""
    folder = root() / "envs"
    found = [_read(p) for p in sorted(folder.iterdir())] if folder.is_dir() else []
    return [b for b in found if b is not None]


def need(name: str, environment: Environment, device: str = "cpu") -> Built:
    """The environment of the model ``name`` for a device; Unavailable with the command that builds it where there is
    none."""
    found = find(environment, device)
    if found is not None:
        return found
    if find(environment) is not None:
        raise Unavailable(
            f"environment missing: that of {name} is here for processors alone, expected one for "
            f"{one_line(device, 20)}; 'rfbench envs build {name} --device cuda' makes it"
        )
    raise Unavailable(f"environment missing: {environment.requirements}; 'rfbench envs build {name}' makes it")


def build(name: str, environment: Environment, variant: str = "") -> tuple[Built, bool]:
    """Make a variant of the environment unless it is there; returns it, and whether it was made now.

    It appears under its address only when it is complete. Two builds of one wait for each other.

    Raises
    ------
    RfbenchError
        Where uv is missing or fails, in one line; its whole output is in a log that the line names.
    """
    key = environment.key(variant)
    place = root() / "envs" / key
    with lock(key):
        found = _read(place)
        if found is not None:
            return found, False
        sweep(place.parent, key)
        part = place.with_name(f".{key}.{os.getpid()}{TEMPORARY}")
        log = root() / "logs" / f"uv-{key}.log"
        try:
            if place.exists():  # damaged
                remove(place)
            _install(name, environment, variant, part, log)
            part.replace(place)
        except OSError as error:
            raise RfbenchError(
                f"cannot build the environment of {name}: {error.strerror or one_line(error)} "
                f"({one_line(error.filename or place, 120)}); free space, or name another folder by "
                f"{ENVIRONMENT_VARIABLE}"
            ) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    made = _read(place)
    if made is None:
        raise RfbenchError(f"{place} is not as it was built; is something else writing there? Build it again")
    return made, True


def _install(name: str, environment: Environment, variant: str, part: Path, log: Path) -> None:
    uv = find_uv()
    python = environment.python or sys.executable
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    text = environment.requirements_text(variant)
    # Relocatable, since it is built under another name than it will have.
    _uv(uv, ["venv", "--relocatable", "--python", python, str(part)], name, log)
    (part / "requirements.txt").write_text(text, encoding="utf-8")
    into = ["--python", str(part / "bin" / "python")]
    torch = ["--torch-backend", "cpu"] if variant == CPU else []
    _uv(uv, ["pip", "install", *into, *torch, "--compile-bytecode", "-r", str(part / "requirements.txt")], name, log)
    frozen = _uv(uv, ["pip", "freeze", *into], name, log)
    asked = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    version = subprocess.run([str(part / "bin" / "python"), "-c", asked], capture_output=True, text=True, check=False)
    record = {
        "format": FORMAT,
        "key": environment.key(variant),
        "python": version.stdout.strip(),
        "requirements": environment.requirements,
        "requirements_sha256": environment.requirements_sha256(),
        "packages": frozen.split(),
        "bytes": folder_bytes(part),
        "built": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(part / _RECORD, record)


_OF_THIS_ENVIRONMENT = ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_BUILD_CONSTRAINT", "UV_RESOLUTION")


def _uv(uv: str, words: list[str], name: str, log: Path) -> str:
    command = [uv, "--color", "never", "--no-progress", *words]
    # A guest's versions are its own: what holds those of this environment does not hold them.
    environ = {name: value for name, value in clean_environ().items() if name not in _OF_THIS_ENVIRONMENT}
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environ)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ uv {' '.join(words)}\n{done.stderr}{done.stdout}")
    if done.returncode == 0:
        return done.stdout
    said = re.sub(r"[×╰─▶│├]+", " ", done.stderr)
    unreachable = re.search(r"network|error sending request|dns error|timed out|connect", said, re.I)
    step = (
        "it needs the package index: connect this machine, or name a copy of the packages by UV_FIND_LINKS or "
        "UV_DEFAULT_INDEX, and repeat"
        if unreachable
        else "correct the requirements, or what the text names, and repeat"
    )
    raise RfbenchError(f"cannot build the environment of {name}: uv: {one_line(said, 400)}; {step} (log: {log})")


def find_uv() -> str:
    """The path of uv; RfbenchError where it is not installed."""
    found = shutil.which("uv")
    if found is None and importlib.util.find_spec("uv") is not None:
        beside = Path(sys.executable).parent / "uv"
        found = str(beside) if beside.is_file() else None
    if found is None:
        raise RfbenchError("uv makes the environments of models and is not installed; pip install 'rfbench[envs]'")
    return found


def clean_environ() -> dict[str, str]:
    """This process's environment without what would lead another Python to rfbench's packages."""
    dropped = ("VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__")
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k not in dropped}


def lock(name: str) -> AbstractContextManager[None]:
    """One process at a time for what is called ``name``; the others wait."""
    if os.name != "posix":
        raise RfbenchError("models with an environment of their own need Linux or macOS")
    elsewhere = f"name another folder by {ENVIRONMENT_VARIABLE}"
    return locks.lock(root(), f"makes {name}", name=name, wait=True, elsewhere=elsewhere)


def sweep(folder: Path, name: str) -> None:
    """Remove what killed builds of ``name`` left half-done; for the holder of its lock."""
    for path in folder.glob(f".{name}.*{TEMPORARY}") if folder.is_dir() else ():
        if is_temporary(path):
            shutil.rmtree(path, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a folder so that it is whole or absent for others."""
    gone = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.replace(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise RfbenchError(f"cannot remove {path}: {error.strerror or one_line(error)}; remove it by hand") from None


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder, links not followed."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def _read(path: Path) -> Built | None:
    """The environment at ``path``; None where there is none, or none that is whole."""
    if path.name.startswith(".") or not (path / _RECORD).is_file():
        return None
    try:
        found: Any = read_json(path / _RECORD)
        if found["format"] != FORMAT or found["key"] != path.name or not os.access(path / "bin" / "python", os.X_OK):
            return None
        return Built(
            path,
            path.name,
            one_line(found["python"], 20),
            tuple(one_line(p, 120) for p in found["packages"]),
            one_line(found["requirements"], 200),
            int(found["bytes"]),
            one_line(found["built"], 40),
        )
    except (RfbenchError, KeyError, TypeError, ValueError):
        return None


def _resource(text: str) -> Path:
    package, _, inner = text.partition("/")
    try:
        spec = importlib.util.find_spec(package) if package and inner else None
    except (ImportError, ValueError):
        spec = None
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise RfbenchError(
            f"requirements: found '{one_line(text, 80)}', expected package/folder/requirements.txt of an "
            "installed package"
        )
    return next((p for p in (Path(place) / inner for place in places) if p.is_file()), Path(places[0]) / inner)
