"""The pretrained files that metrics need: a committed list, one place to look, a hash checked before every use.

The libraries fetch weights on first use and load whatever lies in their cache without looking at it. Here a file
is used only if its SHA-256 is the listed one, so a number always comes from the weights that its identity names.
Files are looked for in ``--weights-dir``, then in the folder named by ``RFBENCH_WEIGHTS``, then in
``~/.cache/rfbench/weights``; small ones that a package carries are taken from that package.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bench.core.errors import RfbenchError, Unavailable
from bench.core.files import sha256

ENVIRONMENT_VARIABLE = "RFBENCH_WEIGHTS"


@dataclass(frozen=True)
class WeightsFile:
    """One file of the committed list.

    ``package_path`` is where a Python package carries the same bytes (``"lpips/weights/v0.1/alex.pth"``),
    ``source`` where its publisher offers it. Of one file only the first digits of its hash were ever published.
    """

    file: str
    bytes: int
    sha256: str
    licence: str
    source: str
    package_path: str | None = None

    @property
    def short_hash(self) -> str:
        """The first eight digits of the hash, as identities print it."""
        return self.sha256[:8]


@functools.cache
def listed() -> dict[str, WeightsFile]:
    """The committed list, by file name."""
    text = resources.files("bench").joinpath("weights.json").read_text(encoding="utf-8")
    return {entry["file"]: WeightsFile(**entry) for entry in json.loads(text)}


def folders(weights_dir: Path | None) -> list[Path]:
    """Where files are looked for, in that order."""
    if weights_dir is not None and not weights_dir.is_dir():
        raise RfbenchError(f"--weights-dir: {weights_dir} is not a folder; give the folder that holds the files")
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    places = [weights_dir, Path(named) if named else None, Path.home() / ".cache" / "rfbench" / "weights"]
    return [p for p in places if p is not None]


def find(file: str, weights_dir: Path | None = None) -> Path:
    """The verified path of a listed file.

    Raises
    ------
    Unavailable
        If it is nowhere (the message names the file, its size and where to put it), or if what lies there has
        another hash than the listed one.
    """
    entry = listed()[file]
    candidates = [folder / file for folder in folders(weights_dir)]
    if entry.package_path:
        package, _, inner = entry.package_path.partition("/")
        spec = importlib.util.find_spec(package)
        if spec and spec.submodule_search_locations:
            candidates.append(Path(spec.submodule_search_locations[0]) / inner)
    for path in candidates:
        if path.is_file():
            found = _hash(path, path.stat().st_mtime_ns, path.stat().st_size)
            if not found.startswith(entry.sha256):
                # No path: the reason becomes part of the run's plan, which is the same on every machine.
                raise Unavailable(
                    f"weights wrong: {file} has the sha256 {found[:8]}..., expected {entry.short_hash}...; replace it"
                )
            return path
    size = f"{entry.bytes / 1e6:.0f} MB" if entry.bytes >= 1e6 else f"{entry.bytes / 1e3:.0f} kB"
    raise Unavailable(f"weights missing: {file} ({size}); put it into --weights-dir")


@functools.lru_cache(maxsize=64)
def _hash(path: Path, mtime_ns: int, size: int) -> str:
    return sha256(path)
