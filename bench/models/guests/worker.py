"""The host's side of a guest: start it, hand arrays over, hold it to its time, end it with all that it started.

Headers go over two pipes of their own, arrays as ``.npy`` in a private folder, and what the guest prints goes to a log
there, whose end is part of an error. The guest is the leader of a process group; when this process is gone, however it
ended, a third pipe ends with it and the guest's watcher ends the group and removes the folder
(``bench.models.guests.guest``).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.core import provenance
from bench.core import seeds as seeds_module
from bench.core.errors import RfbenchError, one_line
from bench.core.files import safe_name, write_bytes
from bench.data.readers.arrays import claims
from bench.models.guests import environment, guest

_HEADER_BYTES = 2**24  # of one line; arrays do not travel in it
_LOG_BYTES = 2**22  # of what is kept of a crashed guest's log
_LOOK_EVERY_S = 0.2  # whether the process is still there, where a child of its holds its pipe open


class GuestFailed(RfbenchError):
    """The guest answered with an error, and lives on; ``told`` where it is one for the user (``UserError``)."""

    def __init__(self, message: object, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class GuestLost(RfbenchError):
    """The guest is gone: ``ended`` by itself, ``killed`` by a signal (a crash in C, or from outside), ``late`` (it took
    too long and was ended), ``garbled`` (what it sent was no answer), or ``idle`` (nothing had been asked for a while,
    so it ended)."""

    def __init__(self, message: object, how: Literal["ended", "killed", "late", "garbled", "idle"] = "ended") -> None:
        super().__init__(message)
        self.how = how


@dataclass(frozen=True)
class Launch:
    """What is started: the environment's Python, the shim in it, and what the shim is given."""

    name: str
    python: Path
    shim: Path
    cls: str
    checkout: Path | None = None
    options: Mapping[str, str] | None = None
    weights: Mapping[str, Path] | None = None
    start_s: float = 900.0
    idle_s: float = 1800.0


class Worker:
    """A guest that runs. It ends with ``close``, with this object and with this process."""

    def __init__(self, launch: Launch, device: str, dtype: str) -> None:
        """Start the guest and load its model.

        Raises
        ------
        GuestFailed
            If the shim cannot load its model.
        GuestLost
            If the process cannot be started, ends, or takes longer than ``launch.start_s``.
        """
        if os.name != "posix":
            raise RfbenchError(f"{launch.name} runs in an environment of its own, which needs Linux or macOS")
        self._launch, self._count = launch, 0
        self._deadline = time.monotonic() + launch.start_s
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="rfbench-guest-"))
        except OSError as error:
            raise RfbenchError(f"cannot make a folder for its process: {error.strerror}; set TMPDIR to one") from None
        self._lines, self._rest = list[bytes](), bytearray()
        self._start(launch)
        self.hello = self._hear("hello", "starting", launch.start_s)
        if self.hello.get("protocol") != guest.PROTOCOL:
            raise self._violated(f"speaks protocol {self.hello.get('protocol')!r:.20}, expected {guest.PROTOCOL}")
        request = {
            "shim": str(launch.shim),
            "class": launch.cls,
            "seeds": seeds_module.__file__,
            "checkout": None if launch.checkout is None else str(launch.checkout),
            "options": dict(launch.options or {}),
            "weights": {file: str(path) for file, path in (launch.weights or {}).items()},
            "device": device,
            "dtype": dtype,
            "idle_s": launch.idle_s,
        }
        loaded = self._ask("load", request, "loading its model", launch.start_s)
        versions = loaded.get("versions")
        self.hello |= versions if isinstance(versions, dict) else {}
        self.peak_bytes = self.device_peak_bytes = 0
        self._saw(loaded)

    def upscale(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], limit_s: float
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Send a batch and wait for its answer: the reply's header, and its arrays by name.

        Raises
        ------
        MemoryError
            If the model ran out of memory.
        GuestFailed, GuestLost
            See there.
        """
        self._deadline = time.monotonic() + limit_s
        files = {}
        for i, (name, values) in enumerate(arrays.items()):
            files[name] = f"request-{self._count}-{i}.npy"
            try:
                np.save(self.folder / files[name], values, allow_pickle=False)
            except OSError as error:
                raise RfbenchError(
                    f"cannot hand {values.nbytes} bytes to its process ({error.strerror or one_line(error, 80)}); set "
                    "TMPDIR to a folder with room"
                ) from None
        reply = self._ask("upscale", {**header, "arrays": files}, "answering", limit_s)
        self._saw(reply)
        described = reply.get("arrays")
        if not isinstance(described, dict):
            raise self._violated("sent a result without arrays")
        try:
            return reply, {name: self._array(name, entry) for name, entry in described.items()}
        finally:
            for path in self.folder.glob("*.npy"):
                path.unlink(missing_ok=True)

    def _saw(self, reply: Mapping[str, Any]) -> None:
        """What the guest held of the host's memory, and of its device's."""
        self.peak_bytes = max(self.peak_bytes, _count(reply.get("peak_bytes")))
        self.device_peak_bytes = max(self.device_peak_bytes, _count(reply.get("device_peak_bytes")))

    def log_tail(self, limit: int = 160) -> str:
        """The end of what the guest printed, in one line."""
        try:
            with (self.folder / "log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        text = one_line(" | ".join(line.strip() for line in lines if line.strip())[-4 * limit :], 8 * limit)
        return text if len(text) <= limit else "..." + text[3 - limit :]

    def close(self) -> None:
        """End the guest and all that it started."""
        self._finalizer()

    # --- the process ------------------------------------------------------------------------------------------

    def _start(self, launch: Launch) -> None:
        ours: list[int] = []
        theirs: list[int] = []
        process = None
        try:
            for mine in (1, 0, 1):  # which end of requests, answers and the lifeline is ours
                pipe = os.pipe()
                ours.append(pipe[mine])
                theirs.append(pipe[1 - mine])
            with (self.folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [str(launch.python), "-s", guest.__file__, *map(str, theirs), str(self.folder)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environ(launch.python), cwd=self.folder,
                    pass_fds=theirs, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            _end(None, ours, self.folder)
            raise GuestLost(
                f"its process does not start: {launch.python}: {error.strerror}; 'rfbench envs rm {launch.name}' and "
                f"'rfbench envs build {launch.name}' make its environment anew"
            ) from None
        finally:
            for fd in theirs:
                os.close(fd)
        self._process = process
        self._requests, self._answers, _ = ours
        self._finalizer = weakref.finalize(self, _end, process, ours, self.folder)

    def _ask(self, kind: str, request: Mapping[str, Any], doing: str, limit_s: float) -> dict[str, Any]:
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch is not None else provenance.cores()
        self._count += 1
        line = json.dumps({"type": kind, "id": self._count, "threads": threads, **request}) + "\n"
        try:
            self._write(line.encode())
        except OSError:
            raise self._gone(doing) from None
        reply = self._hear("loaded" if kind == "load" else "result", doing, limit_s)
        if reply.get("id") != self._count:
            raise self._violated(f"answered request {reply.get('id')!r:.20}, expected {self._count}")
        return reply

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._requests, data) :]

    def _hear(self, expected: str, doing: str, limit_s: float) -> dict[str, Any]:
        """The next header, which has to be of the type ``expected``."""
        while not self._lines:
            left = self._deadline - time.monotonic()
            if left <= 0:
                tail = self._tail()
                self._keep_log()
                self.close()
                raise GuestLost(f"its process was ended after {limit_s:g} s {doing}{tail}", "late")
            ready = select.select([self._answers], [], [], min(left, _LOOK_EVERY_S))[0]
            part = os.read(self._answers, 2**16) if ready else b""
            if (ready and not part) or (not ready and self._process.poll() is not None):
                raise self._gone(doing)
            *whole, rest = part.split(b"\n")
            for end in whole:
                self._lines.append(bytes(self._rest + end))
                self._rest.clear()
            self._rest += rest
            if len(self._rest) > _HEADER_BYTES:
                raise self._violated("sent a line without end")
        line = self._lines.pop(0)
        try:
            reply = json.loads(line.decode())
        except (ValueError, RecursionError):
            reply = None
        if isinstance(reply, dict) and reply.get("type") == "error":
            raise self._failure(reply)
        if isinstance(reply, dict) and reply.get("type") == "idle":
            raise self._gone(doing)
        if not isinstance(reply, dict) or reply.get("type") != expected:
            raise self._violated(f"sent {one_line(line[:60], 60)}, expected a header of type {expected}")
        return reply

    def _failure(self, reply: Mapping[str, Any]) -> Exception:
        where = f" ({one_line(reply.get('where'), 80)})" if reply.get("where") else ""
        kind = f"{one_line(reply['kind'], 40)}: " if reply.get("kind") else ""
        text = f"{kind}{one_line(reply.get('message'), 200)}{where}"
        return MemoryError(text) if reply.get("memory") else GuestFailed(text, told=not kind)

    def _gone(self, doing: str) -> GuestLost:
        """The process ended by itself: how, and the last that it said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll()
        if code == 0:
            self.close()
            return GuestLost("its process ended by itself", "idle")
        how = "closed its pipe" if code is None else f"ended with code {code}"
        if code is not None and code < 0:
            names = {s.value: s.name for s in signal.Signals}
            how = f"was ended by {names.get(-code, f'signal {-code}')}"
        tail = self._tail()
        self._keep_log()
        self.close()
        return GuestLost(
            f"its process {how} while {doing}{tail}", "killed" if code is not None and code < 0 else "ended"
        )

    def _violated(self, what: str) -> GuestLost:
        tail = self._tail()
        self._keep_log()
        self.close()
        return GuestLost(f"its process {what}{tail}", "garbled")

    def _tail(self) -> str:
        tail = self.log_tail()
        return f"; its log ends: {tail}" if tail else ""

    def _keep_log(self) -> None:
        """A copy of the log's end beside the environments, for whoever has to find out."""
        with contextlib.suppress(OSError, RfbenchError), (self.folder / "log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            write_bytes(kept_log(self._launch.name), file.read())

    def _array(self, name: str, entry: Any) -> np.ndarray:
        """An array that the guest wrote, held against what its header says."""
        try:
            file, shape, dtype = str(entry["file"]), tuple(int(n) for n in entry["shape"]), np.dtype(entry["dtype"])
        except (KeyError, TypeError, ValueError):
            raise GuestFailed(f"its process calls its array {one_line(name, 40)} a {one_line(entry, 60)}") from None
        expected = f"{dtype.name} of {'x'.join(map(str, shape)) or 'one number'}"
        path = self.folder / safe_name(file)
        try:
            if path.is_symlink():
                raise ValueError("a link")
            claimed = claims(path)
            if claimed != (shape, dtype):  # before numpy makes room for what the file claims
                raise ValueError(f"another array, {one_line(claimed[1], 40)} {one_line(claimed[0], 60)}")
            values: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            why = error.strerror if isinstance(error, OSError) else one_line(error, 80)
            raise GuestFailed(
                f"the array {one_line(name, 40)} of its process is not whole ({why}), expected {expected}; is "
                "the folder that TMPDIR names full?"
            ) from None
        return values


def _count(value: Any) -> int:
    """A number of bytes that a guest told; 0 for what is none."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**63 else 0


def kept_log(name: str) -> Path:
    """Where the log of the last crash of the model ``name`` is kept."""
    return environment.root() / "logs" / f"{safe_name(name)}.log"


def _environ(python: Path) -> dict[str, str]:
    """The guest's environment: nothing of rfbench on its path, our threads, hashes of texts that do not vary."""
    cores = str(max(1, provenance.cores() - 1))
    kept = environment.clean_environ()
    threads = {k: kept.get(k, cores) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return kept | threads | {
        "PATH": os.pathsep.join([str(python.parent), kept.get("PATH", os.defpath)]),
        "OMP_WAIT_POLICY": kept.get("OMP_WAIT_POLICY", "PASSIVE"),
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # a checkout stays as it was fetched
    }  # fmt: skip


def _end(process: subprocess.Popen[bytes] | None, fds: list[int], folder: Path) -> None:
    """End the group, close our ends (the watcher then ends too) and remove the folder."""
    if process is not None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    shutil.rmtree(folder, ignore_errors=True)
