"""Downloads of weights against a server that breaks off, lies, stalls and is asked by two processes at once."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.core.errors import RfbenchError
from bench.weights import WeightsFile, recorded, transfer
from bench.weights.fetch import obtain
from tests.conftest import ROOT
from tests.file_server import CONTENT, Handler, Server, error, hanging_after, other, part_of, redirect, serving, whole

FILE = "net-1.pth"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "_PAUSE_S", 0.0)
    with serving() as found:
        yield found


@pytest.fixture
def entry(server: Server) -> WeightsFile:
    return WeightsFile(FILE, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "CC0", f"{server.address}/{FILE}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights"


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def assert_there(folder: Path) -> None:
    """The file is there and right, and nothing else is."""
    assert (folder / FILE).read_bytes() == CONTENT
    assert names(folder) == {FILE}


def refused(entry: WeightsFile, folder: Path, message: str) -> str:
    with pytest.raises(RfbenchError, match=message) as caught:
        obtain(entry, folder)
    assert not (folder / FILE).exists()
    assert not list(folder.glob("*.lock"))
    return str(caught.value)


# --- what comes, and in how many pieces -------------------------------------------------------------------------------


def test_a_file_comes_whole_and_once(entry: WeightsFile, folder: Path, server: Server) -> None:
    seen: list[int] = []
    assert obtain(entry, folder, tick=seen.append) == "fetched"
    assert_there(folder)
    assert seen == sorted(seen) and seen[-1] == len(CONTENT)
    assert obtain(entry, folder) == "here"
    assert server.asked == [(f"/{FILE}", None)]


def test_what_breaks_off_goes_on(entry: WeightsFile, folder: Path, server: Server) -> None:
    server.answers = [part_of(100_000), part_of(50_000), error(503), whole]
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]


def test_the_next_call_goes_on_where_the_last_gave_up(
    entry: WeightsFile, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_TRIES", 1)
    server.answers = [part_of(100_000), whole]
    said = refused(entry, folder, r"ended at 100000 of 320000 bytes.*\(100 kB of 320 kB are kept\)")
    assert "run the same command again" in said
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)
    assert server.ranges == [None, "bytes=100000-"]


def test_a_server_that_ignores_ranges_sends_it_all_again(entry: WeightsFile, folder: Path, server: Server) -> None:
    server.answers = [part_of(100_000), other(CONTENT)]
    seen: list[int] = []
    assert obtain(entry, folder, tick=seen.append) == "fetched"
    assert_there(folder)
    assert server.ranges == [None, "bytes=100000-"] and seen != sorted(seen)


def test_a_server_that_sends_another_range_is_asked_anew(entry: WeightsFile, folder: Path, server: Server) -> None:
    def elsewhere(handler: Handler) -> None:
        handler.head(206, Content_Length=10, Content_Range=f"bytes 5-14/{len(CONTENT)}")
        handler.wfile.write(CONTENT[5:15])

    server.answers = [part_of(100_000), elsewhere, whole]
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)
    assert server.ranges == [None, "bytes=100000-", None]


@pytest.mark.parametrize("have", [1, 319_999, 320_000, 320_001])
def test_a_part_of_another_file_is_never_glued(entry: WeightsFile, folder: Path, server: Server, have: int) -> None:
    folder.mkdir(parents=True)
    (folder / f".{FILE}.part").write_bytes(b"x" * have)
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)
    assert server.ranges[-1] is None and len(server.asked) == (2 if have < len(CONTENT) else 1)


def test_a_whole_part_needs_no_network(entry: WeightsFile, folder: Path, server: Server) -> None:
    """A process was killed between the last byte and the rename."""
    folder.mkdir(parents=True)
    (folder / f".{FILE}.part").write_bytes(CONTENT)
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)
    assert server.asked == []


def test_a_part_that_is_a_link_leads_nowhere(entry: WeightsFile, folder: Path, tmp_path: Path) -> None:
    folder.mkdir(parents=True)
    (tmp_path / "precious").write_bytes(b"mine")
    (folder / f".{FILE}.part").symlink_to(tmp_path / "precious")
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_a_wrong_file_is_replaced(entry: WeightsFile, folder: Path) -> None:
    folder.mkdir(parents=True)
    for wrong in (b"short", b"x" * len(CONTENT)):
        (folder / FILE).write_bytes(wrong)
        assert obtain(entry, folder) == "fetched"
        assert_there(folder)


# --- servers that lie, stall or are not there -------------------------------------------------------------------------


def test_another_file_is_refused(entry: WeightsFile, folder: Path, server: Server) -> None:
    server.answers = [other(CONTENT[::-1])]
    wrong = hashlib.sha256(CONTENT[::-1]).hexdigest()
    refused(entry, folder, rf"other bytes than listed \(sha256 {wrong[:8]}\.\.\., expected {entry.short_hash}")
    assert len(server.asked) == 1 and names(folder) == set()


def test_another_size_is_refused_before_it_is_read(entry: WeightsFile, folder: Path, server: Server) -> None:
    for content in (CONTENT + b"x", CONTENT[:-1], b"<html>please log in</html>"):
        server.answers = [other(content)]
        refused(entry, folder, rf"has {len(content)} bytes, listed are {len(CONTENT)}")
        assert names(folder) == set()
    server.answers = [part_of(100), lambda h: h.head(206, Content_Range="bytes 100-200/999999", Content_Length=0)]
    refused(entry, folder, "has 999999 bytes, listed are 320000")


def test_an_endless_body_ends_at_the_listed_size(entry: WeightsFile, folder: Path, server: Server) -> None:
    sent = 0

    def endless(handler: Handler) -> None:
        nonlocal sent
        handler.head(200)
        while not handler.server.release.is_set():
            handler.wfile.write(CONTENT)
            sent += len(CONTENT)

    server.answers = [endless]
    seen: list[int] = []
    with pytest.raises(RfbenchError, match="sends more than the listed 320000 bytes"):
        obtain(entry, folder, tick=seen.append)
    assert max(seen) <= len(CONTENT)
    assert not [p for p in folder.iterdir() if p.stat().st_size]


def test_a_body_without_a_length_is_taken(entry: WeightsFile, folder: Path, server: Server) -> None:
    def plain(handler: Handler) -> None:
        handler.head(200)
        handler.wfile.write(CONTENT)

    server.answers = [plain]
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_one_line_at_once(entry: WeightsFile, folder: Path, server: Server, code: int) -> None:
    server.answers = [error(code)]
    said = refused(entry, folder, rf"/{FILE} answers HTTP {code} no <b>such thing; get it elsewhere and use --from")
    assert "\n" not in said and len(server.asked) == 1


def test_a_server_that_has_less_is_refused(entry: WeightsFile, folder: Path, server: Server) -> None:
    server.answers = [part_of(100_000), error(416)]
    refused(entry, folder, "has no more than 100000 bytes, listed are 320000")


def test_a_broken_server_is_asked_five_times(entry: WeightsFile, folder: Path, server: Server) -> None:
    server.answers = [error(500)]
    refused(entry, folder, "HTTP 500 .* after 5 tries")
    assert len(server.asked) == 5


def test_a_stall_ends(entry: WeightsFile, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "STALL_S", 0.15)
    server.answers = [hanging_after(1000), hanging_after(0)]
    started = time.monotonic()
    refused(entry, folder, r"nothing came for 0 s, after 5 tries \(1 kB of 320 kB are kept\)")
    assert time.monotonic() - started < 5
    server.answers = [whole]
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)


def test_a_trickle_is_a_stall(
    entry: WeightsFile, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trickle(handler: Handler) -> None:
        for byte in handler.ranged():
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            if handler.server.release.wait(0.02):
                return

    monkeypatch.setattr(transfer, "STALL_S", 0.2)
    monkeypatch.setattr(transfer, "_TRIES", 2)
    server.answers = [trickle]
    refused(entry, folder, r"[0-9]+ bytes in 0 s, after 2 tries")


def test_nobody_there_is_one_line_at_once(entry: WeightsFile, folder: Path) -> None:
    closed = Server()
    port = closed.server_port
    closed.server_close()
    nowhere = msgspec.structs.replace(entry, source=f"http://127.0.0.1:{port}/x")
    refused(nowhere, folder, r"no connection to 127\.0\.0\.1 \(Connection refused\).*--from DIR")


# --- redirects and addresses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_with_the_range(entry: WeightsFile, folder: Path, server: Server, code: int) -> None:
    server.answers = [part_of(100_000), redirect("/elsewhere", code), whole]
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)
    assert server.asked[1:] == [(f"/{FILE}", "bytes=100000-"), ("/elsewhere", "bytes=100000-")]


@pytest.mark.parametrize("scheme", ["file", "FILE", "ftp", "data", "gopher"])
def test_redirects_to_other_schemes_are_refused(
    entry: WeightsFile, folder: Path, server: Server, tmp_path: Path, scheme: str
) -> None:
    (tmp_path / "bait").write_bytes(CONTENT)
    server.answers = [redirect(f"{scheme}://{tmp_path}/bait")]
    refused(entry, folder, rf"its redirect is {scheme}://.*expected an http\(s\) address")


def test_redirects_never_leave_https(entry: WeightsFile) -> None:
    import urllib.request

    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(RfbenchError, match=r"its redirect is http://example\.org/b, expected an https address"):
        transfer._Redirects().http_error_302(request, None, 302, "", {"location": "http://example.org/b"})


def test_a_circle_of_redirects_ends(entry: WeightsFile, folder: Path, server: Server) -> None:
    server.answers = [redirect(f"/{FILE}")]
    refused(entry, folder, "answers HTTP 302")
    assert len(server.asked) < 20
    server.answers = [redirect("http://[::1/x")]
    refused(entry, folder, "leads to no usable address")


@pytest.mark.parametrize(
    "source", ["file:///etc/hostname", "ftp://example.org/a", "http://example.org/a", "/a", "", "http://[::1/a"]
)
def test_sources_are_https(entry: WeightsFile, folder: Path, source: str) -> None:
    refused(msgspec.structs.replace(entry, source=source), folder, "expected an https address|no usable address")


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_one_line(entry: WeightsFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for where in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            RfbenchError, match=r"cannot write into .*: (File exists|Not a directory); name another folder"
        ):
            obtain(entry, where)


SCRIPT = textwrap.dedent(
    """
    import encodings.idna, fcntl, os, resource, sys  # all of it while the library can be read
    from pathlib import Path
    from bench import weights
    from bench.weights import fetch, transfer
    from bench.core.errors import RfbenchError
    transfer._PAUSE_S = 0.0
    kind, folder, source, size, sha = sys.argv[1:]
    if kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    if kind == "nobody" and os.geteuid() == 0:
        os.setgid(65534); os.setuid(65534)
    try:
        print(fetch.obtain(weights.WeightsFile("net-1.pth", int(size), sha, "CC0", source), Path(folder)))
    except RfbenchError as error:
        print(error)
        sys.exit(2)
    """
)


def start(kind: str, entry: WeightsFile, folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SCRIPT, kind, str(folder), entry.source, str(entry.bytes), entry.sha256]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="users and limits of POSIX")
def test_a_read_only_cache_is_one_line_and_what_lies_there_is_used(
    entry: WeightsFile, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import tempfile

    folder = Path(tempfile.mkdtemp())  # one that another user may look into
    try:
        folder.chmod(0o555)
        process = start("nobody", entry, folder)
        assert f"cannot write into {folder}: Permission denied; name another folder" in process.communicate()[0]
        assert process.returncode == 2 and names(folder) == set() and server.asked == []
        folder.chmod(0o755)
        (folder / FILE).write_bytes(CONTENT)
        folder.chmod(0o555)
        process = start("nobody", entry, folder)
        assert process.communicate()[0] == "here\n" and process.returncode == 0
        assert names(folder) == {FILE}
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_is_one_line_and_the_part_stays(entry: WeightsFile, folder: Path, server: Server) -> None:
    process = start("full", entry, folder)
    out = process.communicate()[0]
    assert process.returncode == 2 and out.count("\n") == 1, out
    assert f"{folder} is full" in out and "free space and run the same command again" in out
    assert names(folder) == {f".{FILE}.part"}
    assert obtain(entry, folder) == "fetched"
    assert_there(folder)
    assert server.ranges[-1] == "bytes=100000-"


def test_too_little_space_is_seen_beforehand(
    entry: WeightsFile, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    refused(entry, folder, "needs 320 kB in .*, where 1 kB are free")
    assert server.asked == []


# --- several processes ------------------------------------------------------------------------------------------------


def test_three_processes_share_one_download(entry: WeightsFile, folder: Path, server: Server) -> None:
    def slowly(handler: Handler) -> None:
        body = handler.ranged()
        for i in range(0, len(body), 20_000):
            handler.wfile.write(body[i : i + 20_000])
            time.sleep(0.08)

    server.answers = [slowly]
    processes = [start("plain", entry, folder) for _ in range(3)]
    said = [p.communicate()[0].splitlines()[-1] for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0]
    assert sorted(said) == ["fetched", "here", "here"] or sorted(said)[:1] == ["fetched"]
    assert_there(folder)
    assert len(server.asked) == 1


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_a_kill_leaves_no_lock_and_loses_nothing(entry: WeightsFile, folder: Path, server: Server) -> None:
    server.answers = [hanging_after(100_000), whole]
    process = start("plain", entry, folder)
    part = folder / f".{FILE}.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size >= 65_536) and time.monotonic() < deadline:
        time.sleep(0.02)
    waiting = start("plain", entry, folder)  # this one takes over when the first is gone
    assert "waiting" in waiting.stdout.readline()
    assert not (folder / FILE).exists()
    have = part.stat().st_size  # seen before the kill: the other one goes on at once
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert waiting.communicate()[0] == "fetched\n"
    assert_there(folder)
    first, second = server.ranges
    assert first is None and second is not None
    assert have <= int(second.removeprefix("bytes=").removesuffix("-")) <= 100_000


# --- without network --------------------------------------------------------------------------------------------------


def test_copies_are_verified_before_and_after(entry: WeightsFile, folder: Path, server: Server, tmp_path: Path) -> None:
    usb = tmp_path / "usb"
    usb.mkdir()

    def offline() -> str:
        return obtain(entry, folder, copies=[usb / FILE], network=False)

    with pytest.raises(RfbenchError, match=rf"{FILE}: is not in {usb}; fetch it on a machine with network"):
        offline()
    (usb / FILE).write_bytes(CONTENT[:-1])
    with pytest.raises(RfbenchError, match=rf"has the sha256 .*, expected {entry.short_hash}"):
        offline()
    assert names(folder) == set()
    (usb / FILE).write_bytes(CONTENT)
    assert offline() == "copied"
    assert_there(folder)
    assert offline() == "here"
    assert server.asked == []


def test_a_right_copy_spares_the_download(entry: WeightsFile, folder: Path, server: Server, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(CONTENT)
    assert obtain(entry, folder, copies=[tmp_path / "none", tmp_path / FILE]) == "copied"
    assert_there(folder)
    assert server.asked == []


def test_a_hash_of_eight_digits_is_all_that_is_held_against(entry: WeightsFile, folder: Path, server: Server) -> None:
    short = msgspec.structs.replace(entry, sha256=entry.sha256[:8])
    assert obtain(short, folder) == "fetched"
    assert_there(folder)
    server.answers = [other(CONTENT[::-1])]
    refused(short, folder / "other", "other bytes than listed")


def test_what_a_package_carries_is_not_downloaded(
    entry: WeightsFile, folder: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = msgspec.structs.replace(entry, package_path="rfbench_carrier/data/net.pth")
    refused(carried, folder, "comes with the package rfbench_carrier and is not there; install the package")
    inside = tmp_path / "site" / "rfbench_carrier" / "data"
    inside.mkdir(parents=True)
    (inside.parent / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (inside / "net.pth").write_bytes(b"another version's")
    refused(carried, folder, "comes with the package rfbench_carrier")
    (inside / "net.pth").write_bytes(CONTENT)
    assert obtain(carried, folder) == "carried"
    assert names(folder) == set() and server.asked == []


# --- files whose publisher gives no hash ------------------------------------------------------------------------------


@pytest.fixture
def unlisted(entry: WeightsFile) -> WeightsFile:
    return msgspec.structs.replace(entry, sha256="", bytes=300_000)


RECORD = FILE + ".recorded.json"


def test_the_hash_of_the_first_copy_is_recorded_and_enforced(
    unlisted: WeightsFile, folder: Path, server: Server
) -> None:
    assert obtain(unlisted, folder) == "fetched"
    assert (folder / FILE).read_bytes() == CONTENT and names(folder) == {FILE, RECORD}
    known = recorded(folder / FILE)
    assert known is not None and known.sha256 == hashlib.sha256(CONTENT).hexdigest() and known.bytes == len(CONTENT)
    assert obtain(unlisted, folder) == "here"
    (folder / FILE).write_bytes(CONTENT[:-1] + b"!")
    assert obtain(unlisted, folder) == "fetched" and (folder / FILE).read_bytes() == CONTENT
    (folder / FILE).unlink()
    server.answers = [other(CONTENT[::-1])]
    refused(unlisted, folder, "gives other bytes than listed")


def test_an_unlisted_file_goes_on_and_is_never_glued_from_two(
    unlisted: WeightsFile, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_TRIES", 1)
    server.answers = [whole, part_of(100_000), whole]
    refused(unlisted, folder, r"ended at 100000 of 320000 bytes")
    assert obtain(unlisted, folder) == "fetched" and (folder / FILE).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"
    for path in folder.iterdir():
        path.unlink()
    changed = CONTENT[::-1]
    server.answers = [whole, part_of(100_000), other(changed, ETag='"2"')]
    refused(unlisted, folder, r"ended at 100000 of 320000 bytes")
    assert obtain(unlisted, folder) == "fetched" and (folder / FILE).read_bytes() == changed
    assert names(folder) == {FILE, RECORD}


def test_an_unlisted_file_must_be_about_as_large_as_listed(unlisted: WeightsFile, folder: Path, server: Server) -> None:
    refused(msgspec.structs.replace(unlisted, bytes=3_000), folder, "has 320000 bytes, expected about 3 kB")
    half = folder.parent / FILE
    half.write_bytes(CONTENT[:100_000])
    with pytest.raises(RfbenchError, match="has 100000 bytes, expected about 300 kB"):
        obtain(unlisted, folder, copies=[half], network=False)
    assert obtain(unlisted, folder, copies=[half]) == "fetched"  # such a copy is passed over
    (folder / FILE).unlink()
    (folder / RECORD).unlink()
    assert names(folder) == set() and not (half.parent / RECORD).exists()
    server.answers = [lambda handler: handler.head(200)]
    refused(unlisted, folder, "does not say how large it is, expected about 300 kB")
    server.answers = [error(404)]
    refused(unlisted, folder, "answers HTTP 404")


def test_an_unlisted_file_of_another_size_is_replaced(
    unlisted: WeightsFile, folder: Path, tmp_path: Path, server: Server
) -> None:
    folder.mkdir(parents=True)
    right = tmp_path / FILE
    right.write_bytes(CONTENT)
    for copies, download, outcome in (([right], False, "copied"), ([], True, "fetched")):
        (folder / RECORD).unlink(missing_ok=True)
        (folder / FILE).write_bytes(b"<html>not found</html>")
        with pytest.raises(RfbenchError, match="fetch it on a machine with network"):
            obtain(unlisted, folder, copies=[tmp_path / "nowhere"], network=False)
        assert names(folder) == {FILE}  # nothing is lost before there is a better one
        assert obtain(unlisted, folder, copies=copies, network=download) == outcome
        assert (folder / FILE).read_bytes() == CONTENT and names(folder) == {FILE, RECORD}


def test_an_unlisted_file_is_taken_from_a_folder_with_what_was_recorded_there(
    unlisted: WeightsFile, folder: Path, tmp_path: Path, server: Server
) -> None:
    copy = tmp_path / "stick" / FILE
    copy.parent.mkdir()
    copy.write_bytes(CONTENT)
    assert obtain(unlisted, folder, copies=[copy], network=False) == "copied"
    assert recorded(folder / FILE) is not None and not server.asked
    (folder / FILE).unlink()
    (folder / RECORD).unlink()
    obtain(unlisted, copy.parent)  # its hash is recorded there
    copy.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(RfbenchError, match=r"is not the file whose hash .* was recorded beside it"):
        obtain(unlisted, folder, copies=[copy], network=False)
    assert names(folder) == set()
    with pytest.raises(RfbenchError, match="fetch it on a machine with network"):
        obtain(unlisted, folder, copies=[tmp_path / "nowhere"], network=False)


def test_the_hash_of_a_file_that_lies_there_is_recorded(unlisted: WeightsFile, folder: Path, server: Server) -> None:
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(CONTENT)
    assert obtain(unlisted, folder) == "recorded" and not server.asked
    assert obtain(unlisted, folder) == "here"
