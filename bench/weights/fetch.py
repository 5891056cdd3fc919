"""Bringing listed weights into a folder: downloads that resume, copies for machines without network.

A file takes its name only after its SHA-256 was found right. Until then it is ``.NAME.part``, which stays where an
attempt ends early, so that the same command goes on from there. What is fetched is known beforehand to the byte, and
that decides everything here: nothing beyond the listed size is read, and a part that was glued from two different
files cannot pass the hash; it is fetched once more from its beginning.

Some publishers give no hash. Then the first copy is taken as it comes, in a part that is named by what the server says
of the file (so none is glued from two), and its hash is recorded; from then on the file is like a listed one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import http.client
import os
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from bench import __version__
from bench.core.errors import RfbenchError, one_line
from bench.core.files import TEMPORARY, digest, sha256
from bench.weights import WeightsFile, megabytes, pinned, record, recorded

Outcome = Literal["here", "carried", "copied", "fetched", "recorded"]
Tick = Callable[[int], None]
"""Called with the number of bytes that are there so far; fewer than before where a download begins anew."""

STALL_S = 30.0
"""A connection that brings less than ``_LEAST_BYTES`` within this time is given up."""
_LEAST_BYTES = 4096
_CHUNK = 1 << 18
_TRIES = 5  # in a row that bring less than a megabyte
_WORTH = 1 << 20
_PAUSE_S = 1.0  # before the second try; twice as long before each further one
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HOPELESS = (socket.gaierror, ConnectionRefusedError, ssl.SSLError)  # another try would end alike


class _Broken(Exception):
    """A download ended early for a reason that may pass."""


def obtain(
    entry: WeightsFile, folder: Path, *, copies: Sequence[Path] = (), download: bool = True, tick: Tick = lambda _: None
) -> Outcome:
    """See to it that ``folder`` (made if need be) holds the right bytes under the entry's name.

    Two processes may ask for one file at once: the second waits for the first and finds it done. A file of that name
    with other bytes is replaced.

    Parameters
    ----------
    copies : paths that may have the same bytes already; the first right one is copied instead of a download.
    download : whether the network may be used.

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
        return _first_copy(entry, folder, copies, download, tick)
    if _is_right(entry, path):
        return "here"
    if entry.in_package is not None and _is_right(entry, entry.in_package):
        return "carried"
    with _writable(folder), _lock(folder, entry.file):
        if _is_right(entry, path):
            return "here"
        part = folder / f".{entry.file}{TEMPORARY}"
        if part.is_symlink():
            part.unlink()
        for copy in copies:
            if _is_right(entry, copy):
                _check_space(entry, folder, entry.bytes)
                shutil.copyfile(copy, part)
                if not _is_right(entry, part):
                    part.unlink()
                    raise RfbenchError(f"{entry.file}: changed while it was copied; run the same command again")
                _finish(part, path)
                return "copied"
        if not download:
            raise RfbenchError(f"{entry.file}: {_without_network(entry, copies)}")
        if entry.package:
            raise RfbenchError(f"{entry.file}: comes with the package {entry.package} and is not there; {entry.remedy}")
        _download(entry, part, tick)
        _finish(part, path)
        return "fetched"


def _first_copy(entry: WeightsFile, folder: Path, copies: Sequence[Path], download: bool, tick: Tick) -> Outcome:
    """``obtain`` of a file whose publisher gives no hash and of which none was recorded here: the copy that is there,
    else the first of ``copies`` (held against the record that lies beside it, if one does), else a download. Files that
    are not about as large as listed are passed over."""
    path = folder / entry.file
    with _writable(folder), _lock(folder, entry.file):
        outcome: Outcome = "recorded"
        if recorded(path) is not None:  # another process was first
            return "here"
        # As of listed files, what is there with other bytes (here: of another size) is replaced once the right is had.
        if not (path.is_file() and _is_about_right(entry, path.stat().st_size)):
            copy = next((c for c in copies if c.is_file() and _is_about_right(entry, c.stat().st_size)), None)
            if copy is not None:
                _check_space(entry, folder, copy.stat().st_size)
                part = folder / f".{entry.file}{TEMPORARY}"
                shutil.copyfile(copy, part)
                known = pinned(entry, copy)
                if known.sha256 and not _is_right(known, part):
                    part.unlink()
                    raise RfbenchError(
                        f"{entry.file}: {copy} is not the file whose hash {known.short_hash}... was recorded beside "
                        "it; copy it there again"
                    )
                outcome = "copied"
            elif not download:
                raise RfbenchError(f"{entry.file}: {_without_network(entry, copies)}")
            else:
                told, part = _described(entry, folder)
                _download(told, part, tick)
                outcome = "fetched"
            _finish(part, path)
            for stale in folder.glob(f".{entry.file}.*{TEMPORARY}"):
                stale.unlink(missing_ok=True)
        record(path, source=entry.source)
        return outcome


def _described(entry: WeightsFile, folder: Path) -> tuple[WeightsFile, Path]:
    """The entry with the size that its server states, and the part of exactly this state of the file."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with _open(entry, 0) as response:
                total = _whole(response.headers.get("Content-Length"))
                version = [response.headers.get(name, "") for name in ("ETag", "Last-Modified")]
            break
        except _Broken as error:
            if not tries_left:
                raise RfbenchError(f"{entry.file}: {error}, after {_TRIES} tries; run the same command again") from None
            time.sleep(_PAUSE_S)
    told = dataclasses.replace(entry, bytes=_checked_size(entry, entry.source, total))
    return told, folder / f".{entry.file}.{digest([total, *version])[:8]}{TEMPORARY}"


def _checked_size(entry: WeightsFile, where: object, size: int | None) -> int:
    """``size``; RfbenchError unless a file without a published hash is about as large as listed: a page that says 'not
    found', or half a file, must not become the one that is enforced."""
    if size is None or not _is_about_right(entry, size):
        said = "does not say how large it is" if size is None else f"has {size} bytes"
        raise RfbenchError(
            f"{entry.file}: {where} {said}, expected about {megabytes(entry.bytes)}; get the file elsewhere and use "
            "--from"
        )
    return size


def _is_about_right(entry: WeightsFile, size: int) -> bool:
    return entry.bytes / 2 <= size <= entry.bytes * 2


def _without_network(entry: WeightsFile, copies: Sequence[Path]) -> str:
    for copy in copies:
        if entry.sha256 and copy.is_file():
            return f"{copy} has the sha256 {_hash(copy)[:8]}..., expected {entry.short_hash}...; copy the right one"
        if copy.is_file():
            return f"{copy} has {copy.stat().st_size} bytes, expected {entry.size}; copy the right one"
    return f"is not in {copies[0].parent if copies else 'any folder'}; fetch it on a machine with network"


def _is_right(entry: WeightsFile, path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size == entry.bytes and sha256(path).startswith(entry.sha256)
    except OSError:
        return False


def _hash(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return "unreadable"


def _finish(part: Path, path: Path) -> None:
    """Give a verified part its name, once it is on the disk."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- the folder -------------------------------------------------------------------------------------------------------


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
            text = f"cannot write into {folder}: {why}; name another folder by --weights-dir or $RFBENCH_WEIGHTS"
        raise RfbenchError(text) from error


def _check_space(entry: WeightsFile, folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise RfbenchError(
            f"{entry.file}: needs {megabytes(wanted)} in {folder}, where {megabytes(free)} are free; free space, or "
            "name another folder by --weights-dir"
        )


@contextlib.contextmanager
def _lock(folder: Path, file: str) -> Iterator[None]:
    """One process at a time. The system takes a lock back when its process ends, however it ends: none can be stale."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system; the hash before the rename still keeps files right
        yield
        return
    path = folder / f".{file}.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{file}: another process is fetching it; waiting", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Whoever had it removed the file at its end: then this is a lock on a file that nobody else will find.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


# --- the network ------------------------------------------------------------------------------------------------------


def _download(entry: WeightsFile, part: Path, tick: Tick) -> None:
    """Fill ``part`` until it is the listed file, over as many connections as it takes."""
    fruitless, one_piece = 0, not part.exists()
    while True:
        have = part.stat().st_size if part.exists() else 0
        if have > entry.bytes:
            part.unlink()
            have = 0
        if have == entry.bytes:
            if _is_right(entry, part):
                return
            found = sha256(part)
            part.unlink()
            if one_piece:
                raise RfbenchError(
                    f"{entry.file}: {entry.source} gives other bytes than listed (sha256 {found[:8]}..., expected "
                    f"{entry.short_hash}...); nothing was kept; get it elsewhere and use --from"
                )
            have, one_piece = 0, True  # an old part may have been of another file
        _check_space(entry, part.parent, entry.bytes - have)
        try:
            begun_anew = _receive(entry, part, have, tick)
            one_piece = begun_anew or have == 0
        except _Broken as error:
            now = part.stat().st_size if part.exists() else 0
            one_piece = False
            fruitless = 1 if now - have >= _WORTH else fruitless + 1
            if fruitless >= _TRIES:
                raise RfbenchError(
                    f"{entry.file}: {error}, after {fruitless} tries ({megabytes(now)} of {entry.size} are kept); run "
                    "the same command again to go on"
                ) from None
            time.sleep(_PAUSE_S * 2 ** (fruitless - 1))


def _receive(entry: WeightsFile, part: Path, have: int, tick: Tick) -> bool:
    """Append what one connection brings; returns whether it began anew, since the server gave the file whole."""
    with _open(entry, have) as response:
        if response.status not in (200, 206) or response.headers.get("Content-Encoding", "identity") != "identity":
            raise RfbenchError(f"{entry.file}: {entry.source} answers with no file (HTTP {response.status})")
        if response.status == 206:
            have_there, total = _content_range(response.headers.get("Content-Range", ""))
            if have_there != have:
                part.unlink(missing_ok=True)
                raise _Broken("the server sent another part than was asked for")
        else:
            have, total = 0, _whole(response.headers.get("Content-Length"))
        if total is not None and total != entry.bytes:
            part.unlink(missing_ok=True)
            raise RfbenchError(
                f"{entry.file}: {entry.source} has {total} bytes, listed are {entry.bytes}; the publisher's file is "
                "another one now: get the listed one elsewhere and use --from"
            )
        with part.open("ab" if have else "wb") as file:
            _pour(response, file, entry, have, tick)
    return response.status == 200


def _pour(response: Any, file: IO[bytes], entry: WeightsFile, have: int, tick: Tick) -> None:
    since, brought = time.monotonic(), 0
    tick(have)
    while True:
        try:
            # One byte more than listed would be seen, and is never written.
            block = response.read1(min(_CHUNK, entry.bytes - have + 1))
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(_why(error)) from None
        if not block:
            if have < entry.bytes:
                raise _Broken(f"the connection ended at {have} of {entry.bytes} bytes")
            return
        have += len(block)
        if have > entry.bytes:
            file.truncate(0)
            raise RfbenchError(
                f"{entry.file}: {entry.source} sends more than the listed {entry.bytes} bytes; nothing was kept; get "
                "it elsewhere and use --from"
            )
        file.write(block)
        tick(have)
        brought += len(block)
        if time.monotonic() - since > STALL_S:
            if brought < _LEAST_BYTES:
                raise _Broken(f"{brought} bytes in {STALL_S:.0f} s")
            since, brought = time.monotonic(), 0


def _open(entry: WeightsFile, have: int) -> Any:
    headers = {"User-Agent": f"rfbench/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirects,
        urllib.request.HTTPErrorProcessor, urllib.request.HTTPDefaultErrorHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    try:
        _check_address(entry.source, f"{entry.file}: its source", plain=_is_local(entry.source))
        return opener.open(urllib.request.Request(entry.source, headers=headers), timeout=STALL_S)
    except urllib.error.HTTPError as error:
        said = f"{entry.source} answers HTTP {error.code} {one_line(error.reason, 80)}"
        if error.code == 416:
            raise RfbenchError(
                f"{entry.file}: {entry.source} has no more than {have} bytes, listed are {entry.bytes}; the "
                "publisher's file is another one now: get the listed one elsewhere and use --from"
            ) from None
        if error.code >= 500 or error.code in (408, 425, 429):
            raise _Broken(said) from None
        raise RfbenchError(f"{entry.file}: {said}; get it elsewhere and use --from") from None
    except ValueError as error:  # an address that is none
        raise RfbenchError(f"{entry.file}: {entry.source} leads to no usable address ({one_line(error, 80)})") from None
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, _HOPELESS):
            host = urllib.parse.urlsplit(entry.source).hostname
            raise RfbenchError(
                f"{entry.file}: no connection to {host} ({_why(cause)}); on a machine without network fill the folder "
                "by --from DIR"
            ) from None
        raise _Broken(_why(cause)) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects to http and https only, and never from https to http."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        there = headers.get("location") or headers.get("uri")
        if there:
            there = urllib.parse.urljoin(req.full_url, there)
            _check_address(there, f"{req.full_url}: its redirect", plain=req.type == "http")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _check_address(address: str, what: str, *, plain: bool) -> None:
    """RfbenchError unless an address is https, or http where that is allowed."""
    if urllib.parse.urlsplit(address).scheme not in (("https", "http") if plain else ("https",)):
        expected = "an http(s)" if plain else "an https"
        raise RfbenchError(f"{one_line(what, 160)} is {one_line(address, 120)}, expected {expected} address")


def _is_local(address: str) -> bool:
    return urllib.parse.urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")


def _content_range(text: str) -> tuple[int | None, int | None]:
    """First byte and total of ``bytes 5-9/10``; None for what it does not say."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    return (_whole(first) if unit == "bytes" else None), _whole(total)


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _why(error: BaseException | str) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {STALL_S:.0f} s"
    if isinstance(error, OSError):
        return one_line(error.strerror or error, 120)
    return one_line(f"{type(error).__name__} {error}" if isinstance(error, BaseException) else error, 120)
