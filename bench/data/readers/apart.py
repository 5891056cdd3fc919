"""Files whose decoders may run away are opened in a process beside this one, with limits of processor time and memory.

JPEG 2000, netCDF, HDF and the rarer codecs of TIFF are decoded by libraries that a small file can keep busy, fill the
memory with, or end. What happens there is a line here. One such process serves a whole command: it costs some 0.3 s to
start, and a copy of the pixels each time they are read. Plain TIFF, PNG, JPEG and npy stay in this process, since their
sizes, blocks and scans are looked over before.

The answers are JSON and raw numbers; nothing of the other process is run here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Mask
from bench.data.readers import limits
from bench.data.readers.geometry import Georeference
from bench.data.readers.source import Header, Part, Source

PROCESSOR_S = 30
"""Of one request."""
MEMORY_BYTES = 2 * 10**9
"""Beyond what the process has with its libraries."""
_PATIENCE_S = 20 * PROCESSOR_S  # by the clock, on a machine that does other things too
_LONGEST_ANSWER = 2**22  # bytes of a header


class Apart(Source):
    """A file that is opened over there; the same as ``source.open_raster`` or ``source.open_named`` gives here."""

    def __init__(self, path: Path, name: str, driver: str, **options: Any) -> None:
        self._path = path
        self._process = _Process.of_this_one()
        request = {"do": "open", "path": str(path), "name": name, "driver": driver, "folder": str(Path.cwd())}
        said, _ = self._process.ask(path, request | options)
        self._number = said["number"]
        self._pid = self._process.pid
        self.header = _header(path, said["header"])
        self._place = _georeference(said["place"])
        self._other_place = str(said["other_place"])

    def stored(self, bands: Sequence[int], part: Part | None = None, shape: tuple[int, int] | None = None) -> Any:
        found = self._ask("stored", bands=[int(b) for b in bands], part=_plain(part), shape=shape)
        if found is None:
            raise RfbenchError(f"{self._path} cannot be read: it has no pixels; replace the file")
        return found

    def mask(self, part: Part | None = None, shape: tuple[int, int] | None = None) -> Mask | None:
        found = self._ask("mask", part=_plain(part), shape=shape)
        return None if found is None else found.astype(bool)

    def _ask(self, what: str, **more: Any) -> np.ndarray | None:
        return self._process.ask(self._path, {"do": what, "number": self._number, **more}, self._pid)[1]

    def place(self) -> Georeference | None:
        return self._place

    def other_place(self) -> str:
        return self._other_place

    def close(self) -> None:
        with contextlib.suppress(RfbenchError):
            self._process.ask(self._path, {"do": "close", "number": self._number}, self._pid)


def _plain(part: Part | None) -> Any:
    return None if part is None else [[s.start, s.stop] for s in part]


def _header(path: Path, said: dict[str, Any]) -> Header:
    tuples = {k: tuple(said[k]) for k in ("size", "names", "alpha", "scales", "offsets", "nodata", "notes")}
    return Header(path=path, dtype=np.dtype(said["dtype"]), is_picture=bool(said["is_picture"]), **tuples)


def _georeference(said: dict[str, Any] | None) -> Georeference | None:
    if said is None:
        return None
    pixel_m = said["pixel_m"]
    return Georeference(
        said["crs"], tuple(said["transform"]), tuple(said["size"]), None if pixel_m is None else tuple(pixel_m),
        said["by_points"],
    )  # fmt: skip


class _Process:
    """The process over there, started when it is first asked and again when it has died."""

    _one: _Process | None = None

    def __init__(self) -> None:
        self._owner, self._lock = os.getpid(), threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    @classmethod
    def of_this_one(cls) -> _Process:
        """That of this process: one that was forked off has none of its parent's."""
        if cls._one is None or cls._one._owner != os.getpid():
            cls._one = cls()
        return cls._one

    @property
    def pid(self) -> int | None:
        """Of the process that answered last."""
        return self._running.pid if self._running is not None else None

    def ask(self, path: Path, request: dict[str, Any], pid: int | None = None) -> tuple[Any, np.ndarray | None]:
        """The answer to a request about a file that the process ``pid`` has open (None: to open one).

        RfbenchError where it says no, or does not live to answer.
        """
        with self._lock:
            is_there = self._running is not None and self._running.poll() is None and self._running.pid == pid
            if pid is not None and not is_there:  # another one has no file of that number
                raise _lost(path)
            try:
                running = self._started()
                assert running.stdin is not None and running.stdout is not None
                running.stdin.write(json.dumps(request).encode() + b"\n")
                running.stdin.flush()
                deadline = time.monotonic() + _PATIENCE_S
                (length,) = struct.unpack("<Q", _exactly(running.stdout, 8, deadline))
                if length > _LONGEST_ANSWER:
                    raise EOFError
                said = json.loads(_exactly(running.stdout, length, deadline))
                values = None
                if said.get("shape") is not None:
                    dtype, shape = np.dtype(said["dtype"]), tuple(map(int, said["shape"]))
                    limits.check_size(path, dtype, *shape)
                    raw = _exactly(running.stdout, int(np.prod(shape)) * dtype.itemsize, deadline)
                    values = np.frombuffer(raw, dtype).reshape(shape)
            except (OSError, EOFError, ValueError, struct.error):
                self._end()
                raise _lost(path) from None
            except BaseException:  # an interruption between question and answer: the next answer would be this one's
                self._end()
                raise
        if "error" in said:
            kind = limits.WrongSize if said.get("kind") == "WrongSize" else RfbenchError
            raise kind(said["error"])
        return said, values

    def _started(self) -> subprocess.Popen[bytes]:
        if self._running is None or self._running.poll() is not None:
            # -P: what lies in the working folder is no module of ours.
            command = [sys.executable, "-P", "-m", "bench.data.readers.apart"]
            environ = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            self._running = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ
            )
        return self._running

    def _end(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None


def _exactly(file: IO[bytes], count: int, deadline: float) -> bytearray:
    """So many bytes of a pipe. EOFError where it ends before, or at the deadline."""
    found = bytearray(count)
    view, have = memoryview(found), 0
    while have < count:
        if not select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise EOFError
        read = os.readv(file.fileno(), [view[have : have + 2**20]])
        if not read:
            raise EOFError
        have += read
    return found


def _lost(path: Path) -> RfbenchError:
    return RfbenchError(
        f"{path} cannot be read: decoding it took more than {PROCESSOR_S} s of processor time or "
        f"{MEMORY_BYTES // 10**9} GB, or ended the process that did; replace the file, or write it as a plain GeoTIFF "
        "('gdal_translate -co COMPRESS=DEFLATE IN OUT.tif')"
    )


# --- over there --------------------------------------------------------------------------------------------------


def main() -> None:
    """Serve requests until the other end is closed."""
    import signal
    import warnings

    warnings.simplefilter("ignore")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the process that started this one ends it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    server = _Server()
    _limit_memory()
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S)
        said, values = server.answer(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        if values is not None:
            said |= {"dtype": values.dtype.str, "shape": values.shape}
        text = json.dumps(said).encode()
        answers.write(struct.pack("<Q", len(text)) + text)
        if values is not None:
            answers.write(np.ascontiguousarray(values).data)
        answers.flush()


def _cut(ends: list[list[int]] | None) -> Part | None:
    return None if ends is None else (slice(*ends[0]), slice(*ends[1]))


def _limit_memory() -> None:
    import resource

    import rasterio  # noqa: F401 - its libraries take room of their own

    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        have = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY_BYTES,) * 2)


class _Server:
    """The files that are open, by number."""

    def __init__(self) -> None:
        self.files: dict[int, Source] = {}
        self.count = 0

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
        """What to say, and the numbers to send behind it."""
        try:
            if request["do"] == "open":
                return self._open(request), None
            if request["do"] == "close":
                self.files.pop(request["number"]).close()
                return {}, None
            file = self.files[request["number"]]
            part = _cut(request["part"])
            shape = None if request["shape"] is None else (int(request["shape"][0]), int(request["shape"][1]))
            if request["do"] == "mask":
                mask = file.mask(part, shape)
                return {}, None if mask is None else mask.astype(np.uint8)
            return {}, file.stored(request["bands"], part, shape)
        except RfbenchError as error:
            return {"error": str(error), "kind": type(error).__name__}, None
        except MemoryError:
            return {"error": str(_lost(Path(request.get("path", "the file"))))}, None
        except Exception as error:  # whatever a decoder meets
            return {"error": f"{request.get('path', 'the file')} cannot be read ({type(error).__name__}: "
                             f"{one_line(error, 120)}); replace the file"}, None  # fmt: skip

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        from bench.data.readers import source

        os.chdir(request["folder"])
        path = Path(request["path"])
        if request["driver"] == "":  # by its ending
            size = None if request.get("size") is None else (int(request["size"][0]), int(request["size"][1]))
            opened = source.open_raster(path, size=size, part=_cut(request.get("part")), here=True)
        else:
            opened = source.Raster(path, request["name"], request["driver"])
        try:
            header, place = opened.header, opened.place()
            limits.check_bands(path, header.count)
        except BaseException:
            opened.close()
            raise
        self.count += 1
        self.files[self.count] = opened
        plain = {f.name: getattr(header, f.name) for f in dataclasses.fields(header) if f.name not in ("path", "dtype")}
        return {
            "number": self.count,
            "header": plain | {"dtype": header.dtype.str},
            "place": None if place is None else dataclasses.asdict(place),
            "other_place": opened.other_place(),
        }


if __name__ == "__main__":
    main()
