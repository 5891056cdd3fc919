"""The list of pretrained files: ``weights.json`` and what each registered model adds in ``ModelSpec.weights``."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import urllib.parse
import warnings
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bench.core import registry
from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.files import safe_name
from bench.core.typed import decode

WHOLE_HASH = 64


class WeightsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    bytes: Annotated[int, msgspec.Meta(ge=1)]
    sha256: str
    licence: str
    source: str
    package_path: str | None = None

    def __post_init__(self) -> None:
        if self.file != safe_name(self.file):
            raise ValueError(f"found the name {one_line(self.file, 60)!r}, expected a plain file name")
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{8,64}", self.sha256):
            raise ValueError(f"found sha256 {one_line(self.sha256, 70)!r}, expected 64 hex digits")

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


class Users(msgspec.Struct, frozen=True):
    """The registered metrics and models that need a file, by name."""

    metrics: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def listed() -> dict[str, WeightsFile]:
    """The committed list, by file name."""
    return _committed()


@functools.cache
def _committed() -> dict[str, WeightsFile]:
    text = resources.files("bench.weights").joinpath("weights.json").read_text(encoding="utf-8")
    return {entry.file: entry for entry in decode(json.loads(text), list[WeightsFile], "weights.json")}


def of_model(name: str, declared: Mapping[str, Mapping[str, Any]]) -> dict[str, WeightsFile]:
    """The entries of ``ModelSpec.weights``; RfbenchError where they are not what its documentation says.

    An entry may have the name of a listed file only if it is that file.
    """
    entries = {}
    for file, fields in declared.items():
        where = f"model {name}, weights {one_line(file, 60)!r}"
        entry = decode({"file": file, **fields}, WeightsFile, where, remedy="correct its spec")
        same = listed().get(file, entry)
        if (same.sha256, same.bytes) != (entry.sha256, entry.bytes):
            raise RfbenchError(
                f"{where}: found sha256 {entry.short_hash}... and {entry.bytes} bytes, but the list has another file "
                f"of that name ({same.short_hash}..., {same.bytes} bytes); name one otherwise"
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


def entry_of(file: str) -> WeightsFile:
    """The entry of the committed list; RfbenchError for a name that it does not have."""
    if file not in listed():
        raise unknown("weights file", file, listed(), hint="'rfbench weights ls' lists them")
    return listed()[file]


def megabytes(count: int) -> str:
    """A number of bytes for people: ``6 kB``, ``244 MB``, ``1.5 GB``."""
    for unit, size, digits in (("GB", 1e9, 1), ("MB", 1e6, 0)):
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count / 1e3:.0f} kB" if count >= 1000 else f"{count} B"
