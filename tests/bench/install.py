"""What an installation fetches, by extra: ``python -m tests.bench.install`` (it needs uv and a package index).

``uv lock`` resolves the project and says how large each wheel is; nothing is downloaded. Counted is what pip would take
on 64-bit Linux with Python 3.12; an extra's number is what it adds to the base. With ``--time`` pip then installs the
base, and each extra into a copy of that environment, without its cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from tests.conftest import ROOT

PLACE = {
    "python_version": "3.12", "python_full_version": "3.12.5", "sys_platform": "linux", "platform_system": "Linux",
    "platform_machine": "x86_64", "os_name": "posix", "implementation_name": "cpython",
    "platform_python_implementation": "CPython", "extra": "",
}  # fmt: skip
_PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in range(39, 4, -1)] + ["manylinux2014_x86_64", "linux_x86_64"]
TAGS = {*cpython_tags((3, 12), platforms=_PLATFORMS), *compatible_tags((3, 12), "cp312", _PLATFORMS)}


def lock() -> dict[str, dict[str, Any]]:
    """The packages of the project as uv resolves them, by name and version."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, folder)
        for package in ("bench", "bench/api/rfbench"):  # where the version is, and what an editable install looks for
            (folder / package).mkdir(parents=True)
            shutil.copy(ROOT / package / "__init__.py", folder / package)
        subprocess.run(["uv", "lock", "-q"], cwd=folder, check=True)
        found = tomllib.loads((folder / "uv.lock").read_text())["package"]
    return {f"{package['name']} {package.get('version')}": package for package in found}


def closure(packages: dict[str, dict[str, Any]], wanted: list[dict[str, Any]]) -> set[str]:
    """The packages that these need here, with what they need."""
    seen: set[tuple[str, str]] = set()
    waiting = [(need, extra) for need in wanted if _holds(need) for extra in ("", *need.get("extra", ()))]
    while waiting:
        need, extra = waiting.pop()
        key = next(k for k, p in packages.items() if p["name"] == need["name"] and _is(p, need))
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        of = packages[key]
        more = of.get("optional-dependencies", {}).get(extra, []) if extra else of.get("dependencies", [])
        waiting += [(n, e) for n in more if _holds(n) for e in ("", *n.get("extra", ()))]
    return {key for key, _ in seen}


def _is(package: dict[str, Any], need: dict[str, Any]) -> bool:
    return "version" not in need or package.get("version") == need["version"]


def _holds(need: dict[str, Any]) -> bool:
    return "marker" not in need or Marker(need["marker"]).evaluate(PLACE)


def megabytes(package: dict[str, Any]) -> float:
    """The wheel that pip would take here, else the source."""
    for wheel in package.get("wheels", ()):
        _, _, _, tags = parse_wheel_filename(wheel["url"].rsplit("/", 1)[1])
        if tags & TAGS:
            return float(wheel["size"]) / 1e6
    return float(package.get("sdist", {}).get("size", 0)) / 1e6


def timed(extras: list[str]) -> None:
    """Print the seconds that pip takes for the base and for each extra beside it."""
    with tempfile.TemporaryDirectory() as name:
        base, copy = Path(name, "base"), Path(name, "copy")
        subprocess.run([sys.executable, "-m", "venv", base], check=True)
        print(f"the base with torch from the package index: {_installed(base, '.'):.0f} s", flush=True)
        for extra in extras:
            shutil.copytree(base, copy, symlinks=True, copy_function=os.link)  # files are replaced, never written to
            print(f"{extra}: {_installed(copy, f'.[{extra}]'):.0f} s", flush=True)
            shutil.rmtree(copy)


def _installed(environment: Path, what: str) -> float:
    words = [environment / "bin" / "python", "-m", "pip", "install", "-q", "--no-cache-dir", "-e", what]
    began = time.perf_counter()
    subprocess.run(words, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Print a row for the base and for each extra."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", action="store_true", help="install too, and print seconds; ten minutes or more")
    given = parser.parse_args()
    packages = lock()
    (own,) = (p for p in packages.values() if p["name"] == "rfbench")
    base = closure(packages, own["dependencies"])
    torch = closure(packages, [{"name": "torch"}])
    of_cuda = {key for key in torch if key.startswith(("cuda", "nvidia", "triton", "torch "))}
    sizes = {key: megabytes(packages[key]) for key in packages if packages[key]["name"] != "rfbench"}
    print(f"torch for CUDA and what only it brings: {sum(sizes[k] for k in of_cuda):.0f} MB, {len(of_cuda)} packages")
    print(f"the base without it: {sum(sizes[k] for k in base - of_cuda):.0f} MB, {len(base - of_cuda)} packages")
    for extra, needs in sorted(own["optional-dependencies"].items()):
        more = closure(packages, needs) - base
        largest = ", ".join(f"{k} ({sizes[k]:.0f})" for k in sorted(more, key=lambda k: -sizes[k])[:3])
        print(f"{extra}: {sum(sizes[k] for k in more):.1f} MB, {len(more)} packages: {largest}")
    if given.time:
        timed(sorted(own["optional-dependencies"]))


if __name__ == "__main__":
    main()
