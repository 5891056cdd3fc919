"""Where a listed file lies on this machine, and whether it is that file: its hash is looked at before every use."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Annotated

import msgspec

from bench.core.errors import RfbenchError, Unavailable
from bench.core.files import sha256, write_json
from bench.core.places import kept
from bench.core.reason import Reason
from bench.core.typed import decode_file
from bench.weights.listing import WeightsFile, entry_of

ENVIRONMENT_VARIABLE = "RFBENCH_WEIGHTS"
RECORDED = ".recorded.json"


class Recorded(msgspec.Struct, frozen=True):
    """What was met when a file without a published hash was first fetched."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, msgspec.Meta(ge=1)]


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
    return [*([Path(named)] if named else []), kept("weights", "")]


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
            Reason(
                "missing",
                f"weights not recorded: {entry.file} is here, but its publisher gives no hash and none was recorded",
                f"'rfbench weights fetch {entry.file}' records it",
            )
        )
    if wrong:
        raise Unavailable(Reason("missing", f"weights wrong: {wrong}", entry.remedy))
    raise Unavailable(Reason("missing", f"weights missing: {entry.file} ({entry.size})", entry.remedy))


def recorded(path: Path) -> Recorded | None:
    """What was recorded of the file ``path``, which need not be there; None where nothing usable was."""
    try:
        return decode_file(_record_of(path), Recorded)
    except RfbenchError:
        return None


def record(path: Path, *, source: str) -> Recorded:
    """Hash a file and write the hash beside it, to be enforced from now on."""
    found = Recorded(hash_of(path), path.stat().st_size)
    write_json(_record_of(path), {"sha256": found.sha256, "bytes": found.bytes, "source": source})
    return found


def pinned(entry: WeightsFile, path: Path) -> WeightsFile:
    """The entry with hash and size as recorded for ``path``, where its publisher gives none."""
    known = None if entry.sha256 else recorded(path)
    return entry if known is None else msgspec.structs.replace(entry, sha256=known.sha256, bytes=known.bytes)


def identified(entry: WeightsFile, weights_dir: Path | None = None) -> str:
    """The hash by which a run names a file: the listed or the recorded one; empty where there is none yet."""
    there = [pinned(entry, path).sha256 for path in places(entry, weights_dir)] if not entry.sha256 else []
    return next((sha for sha in there if sha), entry.sha256)


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + RECORDED)


def hash_of(path: Path) -> str:
    """The SHA-256 of a file; not computed again in this process while size and time of change stay."""
    status = path.stat()
    return _hash(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _hash(path: Path, mtime_ns: int, size: int) -> str:
    return sha256(path)
