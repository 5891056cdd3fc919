"""Files that are either whole or absent, their hashes, and names that are safe on disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line

TEMPORARY = ".part"
_MAX_DIGITS = 300  # of a whole number in JSON: more is no number for a float
MAX_TEXT_BYTES = 2**26  # a million rows or ids; parsed, the worst of such texts takes about 1.5 GB


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write to the path this yields; it takes the name ``path`` when the block ends well, else it is removed."""
    if not path.name:  # "." and "/"
        raise RfbenchError(f"cannot write {path}: it is a folder; give the name of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise RfbenchError(
            f"cannot write {path}: {error.strerror or one_line(error)}; free space or choose a folder that can "
            "be written, then run the same command again (what was computed is kept)"
        ) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; keys keep their order. NaN and infinity are refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_text(path: Path) -> str:
    """The UTF-8 text of a manifest or another small file, without a byte-order mark.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    RfbenchError
        If it is no regular file (a device never ends) or of more than ``MAX_TEXT_BYTES``.
    OSError, ValueError
        If it cannot be read, or is no UTF-8.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise RfbenchError(f"{path} is no regular file, expected a text file; replace it")
    if status.st_size > MAX_TEXT_BYTES:
        raise RfbenchError(f"{path} holds {status.st_size} bytes, expected at most {MAX_TEXT_BYTES}; split it")
    return path.read_bytes().decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """The JSON in ``path``; RfbenchError naming the file where it is missing or broken."""
    try:
        text = read_text(path)
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
        if "\\ud" in text or "\\uD" in text:  # escapes of half characters, which no file and no terminal takes
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except FileNotFoundError:
        raise RfbenchError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RfbenchError(f"{path} is not readable JSON: {one_line(error, 120)}") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"found {one_line(name, 40)}, expected a finite number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _whole(text: str) -> int:
    return int(text) if len(text) <= _MAX_DIGITS else _refuse(text)


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


def is_temporary(path: Path) -> bool:
    """Whether a file is one that ``atomic_path`` was writing when its process was killed."""
    return re.fullmatch(rf"\..+\.[0-9]+{re.escape(TEMPORARY)}", path.name) is not None


def sweep_temporary(folder: Path) -> None:
    """Remove what a killed process left half-written below ``folder``."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        if is_temporary(path):
            path.unlink(missing_ok=True)
