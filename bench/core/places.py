"""The folders that rfbench keeps between commands, and those that last for one, on machines of every kind.

What is kept lies below ``~/.cache/rfbench``. Containers run as users without a home or without an entry among the
users; then a folder of this user's own in the system's temporary folder takes its place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.core.errors import RfbenchError, one_line
from bench.core.process import is_left, mark

_PREFIX = "rfbench-"


def home() -> Path:
    """The user's home; a private folder in the temporary one where the system knows of none.

    Raises
    ------
    RfbenchError
        Where somebody else has made that folder.
    """
    with contextlib.suppress(RuntimeError, KeyError):
        found = Path.home()
        if found.is_absolute():
            return found
    user = os.getuid() if hasattr(os, "getuid") else "user"
    place = Path(temporary_root()) / f"{_PREFIX}home-{user}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        status = place.lstat()
    except OSError as error:
        raise RfbenchError(f"there is no home folder, and none in {place.parent}: {error.strerror}; set HOME") from None
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        raise RfbenchError(f"there is no home folder, and {place} is somebody else's; set HOME to a folder of yours")
    return place


def kept(name: str, variable: str) -> Path:
    """The folder ``name`` (``weights``, ``envs``) of what is kept: where ``variable`` says, else below the home.

    It need not exist. An empty ``variable`` is none.
    """
    named = os.environ.get(variable) if variable else None
    return Path(named).absolute() if named else home() / ".cache" / "rfbench" / name


def temporary_root() -> str:
    """The system's temporary folder; RfbenchError where none can be written."""
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise RfbenchError(f"no temporary folder can be written ({one_line(error, 200)}); set TMPDIR to one") from None


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A private folder for this block, removed at its end; what killed processes left of theirs is removed first."""
    root = Path(temporary_root())
    _sweep(root)
    try:
        place = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-{mark()}-", dir=root))
    except OSError as error:
        raise RfbenchError(f"cannot make a folder in {root}: {error.strerror}; set TMPDIR to one with room") from None
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove the scratch folders of this user's processes that are gone."""
    with contextlib.suppress(OSError):
        for path in root.glob(f"{_PREFIX}*-*-*-*"):
            parts = path.name.split("-")
            if len(parts) >= 5 and is_left("-".join(parts[-3:-1])) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
