"""Bringing listed weights into a folder: downloads that resume, copies for machines without network.

A file takes its name only after its SHA-256 was found right. Until then it is ``.NAME.part``, which stays where an
attempt ends early, so that the same command goes on from there (``bench.weights.transfer``).

Some publishers give no hash. Then the first copy is taken as it comes, in a part that is named by what the server says
of the file (so none is glued from two), and its hash is recorded; from then on the file is like a listed one.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from bench.core.errors import RfbenchError, one_line
from bench.core.files import TEMPORARY, digest, settle, sha256
from bench.core.lock import lock
from bench.weights.listing import WeightsFile
from bench.weights.search import pinned, record, recorded
from bench.weights.transfer import Tick, check_space, described, download, is_about_right, is_right

Outcome = Literal["here", "carried", "copied", "fetched", "recorded"]
_ELSEWHERE = "name another folder by --weights-dir or $RFBENCH_WEIGHTS"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def obtain(
    entry: WeightsFile, folder: Path, *, copies: Sequence[Path] = (), network: bool = True, tick: Tick = lambda _: None
) -> Outcome:
    """See to it that ``folder`` (made if need be) holds the right bytes under the entry's name.

    Two processes may ask for one file at once: the second waits for the first and finds it done. A file of that name
    with other bytes is replaced.

    Parameters
    ----------
    copies : paths that may have the same bytes already; the first right one is copied instead of a download.
    network : whether it may be used.

    Returns
    -------
    ``here`` (it was already), ``carried`` (by an installed package: nothing had to be done), ``copied`` or ``fetched``;
    ``recorded`` where a file without a published hash was already there and its hash was recorded now.

    Raises
    ------
    RfbenchError
        One line that says what was found and what to do. What was downloaded so far is kept for the next try.
    """
    path = folder / entry.file
    entry = pinned(entry, path)
    if not entry.sha256:
        return _first_copy(entry, folder, copies, network, tick)
    if is_right(entry, path):
        return "here"
    if entry.in_package is not None and is_right(entry, entry.in_package):
        return "carried"
    with _writable(folder), _lock(folder, entry.file):
        if is_right(entry, path):
            return "here"
        part = folder / f".{entry.file}{TEMPORARY}"
        if part.is_symlink():
            part.unlink()
        for copy in copies:
            if is_right(entry, copy):
                check_space(entry, folder, entry.bytes)
                shutil.copyfile(copy, part)
                if not is_right(entry, part):
                    part.unlink()
                    raise RfbenchError(f"{entry.file}: changed while it was copied; run the same command again")
                settle(part, path)
                return "copied"
        if not network:
            raise RfbenchError(f"{entry.file}: {_without_network(entry, copies)}")
        if entry.package:
            raise RfbenchError(f"{entry.file}: comes with the package {entry.package} and is not there; {entry.remedy}")
        download(entry, part, tick)
        settle(part, path)
        return "fetched"


def _first_copy(entry: WeightsFile, folder: Path, copies: Sequence[Path], network: bool, tick: Tick) -> Outcome:
    """``obtain`` of a file whose publisher gives no hash and of which none was recorded here: the copy that is there,
    else the first of ``copies`` (held against the record that lies beside it, if one does), else a download. Files that
    are not about as large as listed are passed over."""
    path = folder / entry.file
    with _writable(folder), _lock(folder, entry.file):
        outcome: Outcome = "recorded"
        if recorded(path) is not None:  # another process was first
            return "here"
        # As of listed files, what is there with other bytes (here: of another size) is replaced once the right is had.
        if not (path.is_file() and is_about_right(entry, path.stat().st_size)):
            copy = next((c for c in copies if c.is_file() and is_about_right(entry, c.stat().st_size)), None)
            if copy is not None:
                check_space(entry, folder, copy.stat().st_size)
                part = folder / f".{entry.file}{TEMPORARY}"
                shutil.copyfile(copy, part)
                known = pinned(entry, copy)
                if known.sha256 and not is_right(known, part):
                    part.unlink()
                    raise RfbenchError(
                        f"{entry.file}: {copy} is not the file whose hash {known.short_hash}... was recorded beside "
                        "it; copy it there again"
                    )
                outcome = "copied"
            elif not network:
                raise RfbenchError(f"{entry.file}: {_without_network(entry, copies)}")
            else:
                told, version = described(entry)
                part = folder / f".{entry.file}.{digest(version)[:8]}{TEMPORARY}"
                download(told, part, tick)
                outcome = "fetched"
            settle(part, path)
            for stale in folder.glob(f".{entry.file}.*{TEMPORARY}"):
                stale.unlink(missing_ok=True)
        record(path, source=entry.source)
        return outcome


def _without_network(entry: WeightsFile, copies: Sequence[Path]) -> str:
    for copy in copies:
        if entry.sha256 and copy.is_file():
            return f"{copy} has the sha256 {_hash(copy)[:8]}..., expected {entry.short_hash}...; copy the right one"
        if copy.is_file():
            return f"{copy} has {copy.stat().st_size} bytes, expected {entry.size}; copy the right one"
    return f"is not in {copies[0].parent if copies else 'any folder'}; fetch it on a machine with network"


def _hash(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return "unreadable"


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Make the folder; what the disk refuses within the block is one line."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        why = error.strerror or one_line(error)
        if error.errno in _FULL:
            text = f"{folder} is full ({why}); free space and run the same command again, it goes on from here"
        else:
            text = f"cannot write into {folder}: {why}; {_ELSEWHERE}"
        raise RfbenchError(text) from error


def _lock(folder: Path, file: str) -> AbstractContextManager[None]:
    return lock(folder, f"fetches {file}", name=file, wait=True, elsewhere=_ELSEWHERE)
