"""Files that are either whole or absent, their hashes, and names that are safe on disk.

Everything that rfbench writes goes through here: into a temporary file beside its target, onto the disk, then under its
name. A power cut leaves the old file or the new one, never an empty one. Several files that belong together are
renewed by ``write_together``: all of them or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line
from bench.core.process import is_left, mark
from bench.core.texts import MAX_TEXT_BYTES as MAX_TEXT_BYTES
from bench.core.texts import read_json as read_json
from bench.core.texts import read_text as read_text

TEMPORARY = ".part"
JOURNAL = ".commit.json"
"""What ``write_together`` writes before it gives several files their names."""
_TEMPORARY = re.compile(rf"\..+\.([0-9]+(?:-[0-9a-f]{{6}})?){re.escape(TEMPORARY)}")
_WAITING = 8  # files that are waited for at once: 512 took 4.0 s one by one, 0.6 s so, and no less with 32
_swept: set[Path] = set()  # folders that this process has looked at once


@contextmanager
def atomic_path(path: Path, *, within: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Write to the path this yields; it takes the name ``path`` when the block ends well, else it is removed.

    What killed processes left half-written beside it is removed first.

    Parameters
    ----------
    within : a folder that somebody else may have made (a run, a dataset, a cache): no link below it is followed.
    durable : whether it must be on the disk before it has its name. False for one of many files whose hash is written
        elsewhere and looked at before use: after a power cut such a file is found broken, and made again.

    Raises
    ------
    RfbenchError
        Where the system refuses, or ``path`` lies behind a link; with what to do.
    """
    if not path.name:  # "." and "/"
        raise RfbenchError(f"cannot write {path}: it is a folder; give the name of a file")
    folder = path.parent
    temporary, has_name = folder / f".{path.name}.{mark()}{TEMPORARY}", False
    try:
        if within is not None:
            _follow_no_link(folder, within)
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        _sweep_once(folder)
        temporary.unlink(missing_ok=True)  # a link that somebody left under this name would be followed
        yield temporary
        if durable:
            settle(temporary, path)
        else:
            temporary.replace(path)
        has_name = True
    except OSError as error:
        raise RfbenchError(
            f"cannot write {path}: {error.strerror or one_line(error)}; free space or choose a folder that can "
            "be written, then run the same command again (what was computed is kept)"
        ) from error
    finally:
        if not has_name:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, within: Path | None = None, durable: bool = True) -> None:
    """Write ``data`` to ``path`` atomically; see ``atomic_path``."""
    with atomic_path(path, within=within, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any, *, within: Path | None = None, durable: bool = True) -> None:
    """Write ``value`` as indented JSON, atomically; keys keep their order. NaN and infinity are refused."""
    write_bytes(path, json_bytes(value), within=within, durable=durable)


def json_bytes(value: Any) -> bytes:
    """``value`` as the bytes of an indented JSON file."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_together(folder: Path, contents: Mapping[str, bytes | None]) -> None:
    """Renew several files below ``folder`` as one: after a kill at any moment all have the new bytes, or none has.

    The new files lie under temporary names first. Then a journal says that they are complete, and they take their
    names. Whoever reads the folder calls ``finish_commit`` before, which does what a killed process had still to do.

    Parameters
    ----------
    contents : the bytes by path relative to ``folder``; None removes a file.
    """
    finish_commit(folder)
    new = {name: data for name, data in contents.items() if data is not None}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in new.items():
            part = _part(folder, name)
            _follow_no_link(part.parent, folder)
            part.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            part.write_bytes(data)
            _to_disk(part)
        for parent in {_part(folder, name).parent for name in new}:
            _to_disk(parent)
    except OSError as error:
        for name in new:
            with contextlib.suppress(OSError):
                _part(folder, name).unlink(missing_ok=True)
        raise RfbenchError(
            f"cannot write {folder}: {error.strerror or one_line(error)}; nothing in it was changed; free space and "
            "run the same command again"
        ) from error
    write_json(folder / JOURNAL, {"files": sorted(new), "gone": sorted(contents.keys() - new)}, within=folder)
    finish_commit(folder)


def finish_commit(folder: Path) -> None:
    """Give the files of a journal of ``write_together`` their names, if a killed process left one.

    The folder may have been received from others: nothing outside it is touched, whatever its journal says.
    """
    journal = folder / JOURNAL
    if journal.is_symlink() or not journal.is_file():
        return
    with contextlib.suppress(RfbenchError):
        found = read_json(journal)
        for name in _names(found, "files"):
            part = _part(folder, name)
            _follow_no_link(part.parent, folder)
            if part.is_file() and not part.is_symlink():
                settle(part, folder / name)
        for name in _names(found, "gone"):
            _follow_no_link((folder / name).parent, folder)
            if (folder / name).is_file():
                (folder / name).unlink()
    try:
        journal.unlink(missing_ok=True)
        _to_disk(folder)
    except OSError as error:
        raise RfbenchError(f"cannot write {folder}: {error.strerror}; allow writing to it, and repeat") from error


def _names(journal: Any, key: str) -> list[str]:
    """The names of a journal that lie below its folder; it may be anybody's."""
    names = journal.get(key) if isinstance(journal, dict) else None
    plain = [n for n in names if isinstance(n, str) and n] if isinstance(names, list) else []
    return [n for n in plain if not Path(n).is_absolute() and ".." not in Path(n).parts]


def settle(part: Path, path: Path) -> None:
    """Give a finished file its name, once it is on the disk."""
    _to_disk(part)
    part.replace(path)
    _to_disk(path.parent)


def to_disk(paths: Iterable[Path]) -> None:
    """Have the system write files that were renewed without waiting for the disk, and the folders they lie in. A file
    that is gone by now is left out.

    Several are waited for at once: a file system writes them with one turn of its journal, where one after the other
    would take a turn each.
    """
    found = list(paths)
    with ThreadPoolExecutor(_WAITING, thread_name_prefix="disk") as threads:
        list(threads.map(_to_disk_if_there, found))
    for folder in dict.fromkeys(p.parent for p in found):
        _to_disk_if_there(folder)


def _to_disk_if_there(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _to_disk(path)


def _part(folder: Path, name: str) -> Path:
    target = folder / name
    return target.with_name(f".{target.name}.0{TEMPORARY}")


def _follow_no_link(path: Path, within: Path) -> None:
    """RfbenchError if anything between ``within`` and ``path`` is a link."""
    inner = path.relative_to(within)
    for depth in range(1, len(inner.parts) + 1):
        place = within.joinpath(*inner.parts[:depth])
        if place.is_symlink():
            raise RfbenchError(
                f"{place} is a link to elsewhere, expected a folder; nothing is written through it: remove it"
            )


def _to_disk(path: Path) -> None:
    """Have the system write a file or a folder to the disk; not every file system can do that for folders."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value in one canonical spelling."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def id_hash(image_id: str) -> str:
    """The short hash by which a model's card lists an image that it was trained on: 64-bit BLAKE2b of the UTF-8 id.

    ``hashlib.blake2b(id.encode(), digest_size=8).hexdigest()``: 16 hex digits, and a definition that a program without
    rfbench can repeat. Two ids of a million images share one with a chance of 3e-8.
    """
    return hashlib.blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def safe_name(name: str) -> str:
    """A file name for any ``name``: plain names stay as they are, others are cleaned and made unique by a hash."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) and not name.endswith("."):
        return name
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60]
    return f"{cleaned or 'x'}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def stem_of(image_id: str) -> str:
    """What an image is called where only names of files are known: its ``safe_name``, and such a name as it is."""
    return image_id if re.fullmatch(r"[A-Za-z0-9._-]{1,60}~[0-9a-f]{12}", image_id) else safe_name(image_id)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that was being written when its process was killed."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep_temporary(folder: Path) -> None:
    """Finish a commit that was begun, then remove all that is half-written below ``folder``; for its lock's holder."""
    finish_commit(folder)
    for path in folder.rglob(f".*{TEMPORARY}"):
        if is_temporary(path):
            path.unlink(missing_ok=True)


def _sweep_once(folder: Path) -> None:
    """Remove what processes of this machine that are gone left half-written in ``folder``: once in this process."""
    folder = folder.absolute()
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            found = _TEMPORARY.fullmatch(entry.name)
            if found and is_left(found[1]) and entry.is_file(follow_symlinks=False):
                (folder / entry.name).unlink(missing_ok=True)
