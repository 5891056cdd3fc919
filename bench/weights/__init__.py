"""The pretrained files that metrics and models need: one list, one place to look, a hash checked before every use.

The libraries fetch weights on first use and load whatever lies in their cache without looking at it. Here a file
is used only if its SHA-256 is the listed one, so a number always comes from the weights that its identity names.
Files are looked for in ``--weights-dir``, then in the folder named by ``RFBENCH_WEIGHTS``, then in
``~/.cache/rfbench/weights``; small ones that a package carries are taken from that package. Nothing is ever fetched
while something is computed: ``rfbench weights fetch`` does that (``bench.weights.fetch``).

The list is ``bench/weights.json`` and what each registered model adds in ``ModelSpec.weights``. Of files whose
publisher gives no hash, ``rfbench weights fetch`` records the one that it met first, in ``FILE.recorded.json`` beside
the file; from then on it is enforced like a listed one.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import urllib.parse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from bench.core import registry
from bench.core.errors import RfbenchError, Unavailable, one_line, unknown
from bench.core.files import read_json, safe_name, sha256, write_json

ENVIRONMENT_VARIABLE = "RFBENCH_WEIGHTS"
WHOLE_HASH = 64
RECORDED = ".recorded.json"


@dataclass(frozen=True)
class WeightsFile:
    """One file of the list.

    Attributes
    ----------
    file : its name in a weights folder, unique in the list.
    bytes : its size; a download never takes more. Where there is no hash, about its size.
    sha256 : its hash, 64 hex digits in lower case. Of one file only the first 8 were ever published: what is listed is
        a prefix then, and only so much can be verified. Empty where its publisher gives none.
    licence : under which its publisher offers it.
    source : the http(s) address of the file itself; of a file that a package carries, the publisher's page.
    package_path : where an installed Python package carries the same bytes (``"lpips/weights/v0.1/alex.pth"``), or
        None. Such a file is never downloaded: it comes with the package.
    """

    file: str
    bytes: int
    sha256: str
    licence: str
    source: str
    package_path: str | None = None

    def __post_init__(self) -> None:
        texts = (self.file, self.sha256, self.licence, self.source, self.package_path or "")
        if not all(isinstance(t, str) for t in texts) or self.file != safe_name(self.file):
            raise RfbenchError(f"weights {one_line(self.file, 60)!r}: expected texts, and a plain file name")
        if not isinstance(self.bytes, int) or self.bytes < 1:
            raise RfbenchError(f"weights {self.file}: found bytes {one_line(self.bytes, 40)}, expected its size")
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{8,64}", self.sha256):
            raise RfbenchError(f"weights {self.file}: found sha256 {self.sha256[:70]!r}, expected 64 hex digits")

    @property
    def short_hash(self) -> str:
        """The first eight digits of the hash, as identities print it."""
        return self.sha256[:8]

    @property
    def size(self) -> str:
        """Its size for people."""
        return megabytes(self.bytes) if self.sha256 else f"about {megabytes(self.bytes)}"

    @property
    def package(self) -> str | None:
        """The import package that carries it, or None."""
        return self.package_path.partition("/")[0] if self.package_path else None

    @property
    def in_package(self) -> Path | None:
        """Where its package, if there is one and it is installed, should have it."""
        if not self.package_path:
            return None
        package, _, inner = self.package_path.partition("/")
        spec = importlib.util.find_spec(package)
        places = spec.submodule_search_locations if spec else None
        return Path(places[0]) / inner if places else None

    @property
    def hub_path(self) -> str:
        """Its path within the hub repository of ``source``; empty for other addresses. It leads nowhere else."""
        _, found, inner = urllib.parse.urlsplit(self.source).path.partition("/resolve/")
        parts = inner.split("/")[1:]
        return "/".join(parts) if found and all(p == safe_name(p) for p in parts) else ""

    @property
    def remedy(self) -> str:
        """What to do where it is missing or wrong."""
        if self.package:
            return f"install the package {self.package} anew, which carries it"
        return f"'rfbench weights fetch {self.file}' gets it"


@dataclass(frozen=True)
class Recorded:
    """What was met when a file without a published hash was first fetched."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Users:
    """The registered metrics and models that need a file, by name."""

    metrics: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@functools.cache
def listed() -> dict[str, WeightsFile]:
    """The committed list, by file name."""
    text = resources.files("bench.weights").joinpath("weights.json").read_text(encoding="utf-8")
    return {entry["file"]: WeightsFile(**entry) for entry in json.loads(text)}


def of_model(name: str, declared: Mapping[str, Mapping[str, Any]]) -> dict[str, WeightsFile]:
    """The entries of ``ModelSpec.weights``; RfbenchError where they are not what its documentation says.

    An entry may have the name of a listed file only if it is that file.
    """
    entries = {}
    for file, fields in declared.items():
        try:
            entry = WeightsFile(file=file, **fields)
        except TypeError as error:
            text = one_line(error, 160).replace("WeightsFile.__init__() ", "")
            raise RfbenchError(f"model {name}, weights {one_line(file, 60)!r}: {text}") from None
        except RfbenchError as error:
            raise RfbenchError(f"model {name}, {error}") from None
        same = listed().get(file, entry)
        if (same.sha256, same.bytes) != (entry.sha256, entry.bytes):
            raise RfbenchError(
                f"model {name}, weights {file}: found sha256 {entry.short_hash}... and {entry.bytes} bytes, but the "
                f"list has another file of that name ({same.short_hash}..., {same.bytes} bytes); name one otherwise"
            )
        entries[file] = same
    return entries


def catalogue() -> dict[str, WeightsFile]:
    """The committed list and the files of all registered models, by file name.

    A model that is broken, or whose file has the name of another one, is a warning and left out.
    """
    found = dict(listed())
    for name, entries in _of_models().items():
        for file, entry in entries.items():
            first = found.setdefault(file, entry)
            if (first.sha256, first.bytes) != (entry.sha256, entry.bytes):
                warnings.warn(
                    f"two models list different files called {file}; that of {name} is left out", stacklevel=2
                )
    return found


def users() -> dict[str, Users]:
    """Who needs each file; files that nobody registered needs are left out."""
    found: dict[str, Users] = {}
    for name in registry.names("metrics"):
        try:
            files = registry.load("metrics", name).weights_files
        except (RfbenchError, AttributeError):
            continue  # 'rfbench ls metrics' says what is broken
        for file in files:
            known = found.get(file, Users())
            found[file] = Users((*known.metrics, name), known.models)
    for name, entries in _of_models().items():
        for file in entries:
            known = found.get(file, Users())
            found[file] = Users(known.metrics, (*known.models, name))
    return found


def _of_models() -> dict[str, dict[str, WeightsFile]]:
    found = {}
    for name in registry.names("models"):
        try:
            spec = registry.load("models", name)
            found[name] = of_model(name, getattr(spec, "weights", {}))
        except RfbenchError as error:
            warnings.warn(f"weights of the model {name} are left out: {error}", stacklevel=3)
    return found


def folders(weights_dir: Path | None) -> list[Path]:
    """Where files are looked for, in that order."""
    if weights_dir is not None and not weights_dir.is_dir():
        raise RfbenchError(f"--weights-dir: {weights_dir} is not a folder; give the folder that holds the files")
    return [p for p in (weights_dir, *_usual_folders()) if p is not None]


def target(weights_dir: Path | None) -> Path:
    """The folder that ``rfbench weights fetch`` fills: the first of ``folders``, which need not exist yet."""
    return weights_dir or _usual_folders()[0]


def _usual_folders() -> list[Path]:
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    places = [Path(named) if named else None, Path.home() / ".cache" / "rfbench" / "weights"]
    return [p for p in places if p is not None]


def places(entry: WeightsFile, weights_dir: Path | None = None) -> list[Path]:
    """The paths where something lies that has the name of a listed file, in the order of ``folders``."""
    candidates = [*(folder / entry.file for folder in folders(weights_dir)), entry.in_package]
    return [p for p in candidates if p is not None and os.path.isfile(p)]  # noqa: PTH113 - False where it may not look


def find(file: str | WeightsFile, weights_dir: Path | None = None) -> Path:
    """The verified path of a file: one of the list by its name, or an entry (a model's).

    The first place that has the right bytes counts. A wrong file in one place does not hide the right one in another.

    Raises
    ------
    Unavailable
        If it is nowhere, or only with another hash than the listed one; the message says what to do.
    """
    entry = file if isinstance(file, WeightsFile) else entry_of(file)
    wrong = ""
    unknown_hash = False
    for path in places(entry, weights_dir):
        expected = pinned(entry, path)
        if not expected.sha256:
            unknown_hash = True
            continue
        try:
            found = hash_of(path)
        except OSError as error:
            wrong = wrong or f"{entry.file} cannot be read ({error.strerror})"
            continue
        if found.startswith(expected.sha256):
            return path
        # No path: the reason becomes part of the run's plan, which is the same on every machine.
        wrong = wrong or f"{entry.file} has the sha256 {found[:8]}..., expected {expected.short_hash}..."
    if unknown_hash and not wrong:
        raise Unavailable(
            f"weights not recorded: {entry.file} is here, but its publisher gives no hash and none was recorded; "
            f"'rfbench weights fetch {entry.file}' records it"
        )
    if wrong:
        raise Unavailable(f"weights wrong: {wrong}; {entry.remedy}")
    raise Unavailable(f"weights missing: {entry.file} ({entry.size}); {entry.remedy}")


def recorded(path: Path) -> Recorded | None:
    """What was recorded of the file ``path``, which need not be there; None where nothing usable was."""
    try:
        found = read_json(_record_of(path))
    except RfbenchError:
        return None
    if not isinstance(found, dict):
        return None
    sha, size = found.get("sha256"), found.get("bytes")
    right = isinstance(sha, str) and re.fullmatch(r"[0-9a-f]{64}", sha) and isinstance(size, int) and size > 0
    return Recorded(str(sha), size) if right and isinstance(size, int) else None


def record(path: Path, *, source: str) -> Recorded:
    """Hash a file and write the hash beside it, to be enforced from now on."""
    found = Recorded(hash_of(path), path.stat().st_size)
    write_json(_record_of(path), {"sha256": found.sha256, "bytes": found.bytes, "source": source})
    return found


def pinned(entry: WeightsFile, path: Path) -> WeightsFile:
    """The entry with hash and size as recorded for ``path``, where its publisher gives none."""
    known = None if entry.sha256 else recorded(path)
    return entry if known is None else replace(entry, sha256=known.sha256, bytes=known.bytes)


def identified(entry: WeightsFile, weights_dir: Path | None = None) -> str:
    """The hash by which a run names a file: the listed or the recorded one; empty where there is none yet."""
    there = [pinned(entry, path).sha256 for path in places(entry, weights_dir)] if not entry.sha256 else []
    return next((sha for sha in there if sha), entry.sha256)


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + RECORDED)


def entry_of(file: str) -> WeightsFile:
    """The entry of the committed list; RfbenchError for a name that it does not have."""
    if file not in listed():
        raise unknown("weights file", file, listed(), hint="'rfbench weights ls' lists them")
    return listed()[file]


def files_of(*, metrics: Sequence[str] = (), models: Sequence[str] = ()) -> list[str]:
    """The files that these registered metrics and models need, once each."""
    needed: list[str] = []
    for name in metrics:
        if name.startswith("pyiqa:"):
            raise RfbenchError(
                f"{one_line(name, 60)}: the files of other pyiqa metrics are not on the list; a run names the ones "
                "that it wants, and takes them from a weights folder or pyiqa's cache"
            )
        needed += registry.load("metrics", name).weights_files
    for name in models:
        needed += of_model(name, registry.load("models", name).weights)
    return list(dict.fromkeys(needed))


def hash_of(path: Path) -> str:
    """The SHA-256 of a file; not computed again in this process while size and time of change stay."""
    status = path.stat()
    return _hash(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _hash(path: Path, mtime_ns: int, size: int) -> str:
    return sha256(path)


def megabytes(count: int) -> str:
    """A number of bytes for people: ``6 kB``, ``244 MB``, ``1.5 GB``."""
    for unit, size, digits in (("GB", 1e9, 1), ("MB", 1e6, 0)):
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count / 1e3:.0f} kB" if count >= 1000 else f"{count} B"
