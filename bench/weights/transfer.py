"""One file over the network, to the byte: over as many connections as it takes, each going on where the last ended.

What is fetched is known beforehand, and that decides everything here: nothing beyond the listed size is read, and a
part that was glued from two different files cannot pass the hash; it is fetched once more from its beginning.

Why not a library: pooch does not go on where it was; huggingface_hub takes its own addresses alone, and looks at sizes
when all has been written; httpx and requests follow a redirect from https to http, wait for a server that sends a byte
now and then, and leave all that is below (ranges, sizes, another file under the same address) to their caller.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from bench import __version__
from bench.core.errors import RfbenchError, one_line
from bench.core.files import sha256
from bench.weights.listing import WeightsFile, megabytes

Tick = Callable[[int], None]
"""Called with the number of bytes that are there so far; fewer than before where a download begins anew."""

STALL_S = 30.0
"""A connection that brings less than ``_LEAST_BYTES`` within this time is given up."""
_LEAST_BYTES = 4096
_CHUNK = 1 << 18
_TRIES = 5  # in a row that bring less than a megabyte
_WORTH = 1 << 20
_PAUSE_S = 1.0  # before the second try; twice as long before each further one
_HOPELESS = (socket.gaierror, ConnectionRefusedError, ssl.SSLError)  # another try would end alike


class _Broken(Exception):
    """A download ended early for a reason that may pass."""


def download(entry: WeightsFile, part: Path, tick: Tick) -> None:
    """Fill ``part`` until it is the listed file, over as many connections as it takes."""
    fruitless, one_piece = 0, not part.exists()
    while True:
        have = part.stat().st_size if part.exists() else 0
        if have > entry.bytes:
            part.unlink()
            have = 0
        if have == entry.bytes:
            if is_right(entry, part):
                return
            found = sha256(part)
            part.unlink()
            if one_piece:
                raise RfbenchError(
                    f"{entry.file}: {entry.source} gives other bytes than listed (sha256 {found[:8]}..., expected "
                    f"{entry.short_hash}...); nothing was kept; get it elsewhere and use --from"
                )
            have, one_piece = 0, True  # an old part may have been of another file
        check_space(entry, part.parent, entry.bytes - have)
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


def described(entry: WeightsFile) -> tuple[WeightsFile, list[Any]]:
    """The entry of a file without a published hash, with the size that its server states, and what tells this state of
    the file from another."""
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
    return msgspec.structs.replace(entry, bytes=_checked_size(entry, total)), [total, *version]


def _checked_size(entry: WeightsFile, size: int | None) -> int:
    """``size``; RfbenchError unless a file without a published hash is about as large as listed: a page that says 'not
    found', or half a file, must not become the one that is enforced."""
    if size is None or not is_about_right(entry, size):
        said = "does not say how large it is" if size is None else f"has {size} bytes"
        raise RfbenchError(
            f"{entry.file}: {entry.source} {said}, expected about {megabytes(entry.bytes)}; get the file elsewhere and "
            "use --from"
        )
    return size


def is_about_right(entry: WeightsFile, size: int) -> bool:
    """Whether a file of which only about the size is known may have this one."""
    return entry.bytes / 2 <= size <= entry.bytes * 2


def is_right(entry: WeightsFile, path: Path) -> bool:
    """Whether the file is there with the listed size and hash."""
    try:
        return path.is_file() and path.stat().st_size == entry.bytes and sha256(path).startswith(entry.sha256)
    except OSError:
        return False


def check_space(entry: WeightsFile, folder: Path, wanted: int) -> None:
    """RfbenchError unless the folder's disk has room for so many more bytes."""
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise RfbenchError(
            f"{entry.file}: needs {megabytes(wanted)} in {folder}, where {megabytes(free)} are free; free space, or "
            "name another folder by --weights-dir"
        )


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
