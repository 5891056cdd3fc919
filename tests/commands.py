"""Commands as a user gives them, each in a process of its own: ``rfbench("run", "--model", ...)``, and what else Python
is told to run, ``python("baselines.affine", ...)``.

Importing torch and its company takes seconds, and a suite gives hundreds of commands. So a process that has imported
them, and has done nothing else, forks once for each command; the fork has its own folder, environment and streams, and
runs ``python -m bench.cli`` from there. The parent of a command's own processes is a fork of it too. What a start
itself does (its time, its encodings, its threads) is tested with a plain ``subprocess``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import multiprocessing.forkserver
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import bench

CODE = Path(bench.__file__).resolve().parents[1]
"""Where ``bench`` is taken from, the clone or an installation: processes that are compared must be of one version."""
_HEAVY = (
    "torch", "numpy", "pandas", "scipy.stats", "skimage.metrics", "rasterio", "pyarrow.parquet", "safetensors.torch",
    "PIL.Image", "bench.cli.run", "bench.score.run", "bench.reports.table.build", "bench.reports.html.write",
    "bench.metrics.fidelity", "bench.metrics.niqe", "rich.console", "rich.table",
)  # fmt: skip
_RAREFLOW = ("rareflow.adapter", "rareflow.checkpoint")
_FOR = {
    "rareflow": _RAREFLOW,
    "upscale": _RAREFLOW,  # its model unless another is named
    "--config": _RAREFLOW,
    "train": (*_RAREFLOW, "rareflow.train.run"),
    "plot": ("matplotlib.figure", "matplotlib.backends.backend_agg"),
}
"""What is imported besides, before the first command with such a word: seconds that most files of tests never need."""
_server: subprocess.Popen[str] | None = None
_start_program = multiprocessing.util.spawnv_passfds


class Started:
    """A command that runs: as much of ``subprocess.Popen`` as tests want."""

    def __init__(
        self,
        words: tuple[str, ...],
        site: Path | None,
        cwd: Path | None,
        env: dict[str, str] | None,
        program: str = "bench.cli",
    ) -> None:
        self._words, self._place = words, tempfile.TemporaryDirectory()
        self._out, self._err = Path(self._place.name, "out"), Path(self._place.name, "err")
        for place in (self._out, self._err):
            place.touch()  # to be read before the command has begun
        self.returncode: int | None = None
        seen = [str(site or ""), str(CODE), os.environ.get("PYTHONPATH", "")]
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, seen))} | (env or {})
        asked = {"program": program, "words": words, "cwd": str(cwd or Path.cwd()), "env": environment}
        self.pid = _ask(asked | {"out": str(self._out), "err": str(self._err)})

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(self._words, timeout, self.stdout, self.stderr)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")


def start(*words: str, site: Path | None = None, cwd: Path | None = None, env: dict[str, str] | None = None) -> Started:
    """Start ``rfbench WORDS``; ``site`` is a folder of packages to see, ``env`` is added to the environment."""
    return Started(words, site, cwd, env)


def rfbench(
    *words: str, site: Path | None = None, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``rfbench WORDS`` to its end, as ``start`` does."""
    started = start(*words, site=site, cwd=cwd, env=env)
    return subprocess.CompletedProcess(["rfbench", *words], started.wait(), started.stdout, started.stderr)


def python(program: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a module or a script (``*.py``) to its end, ``python -m PROGRAM WORDS`` or ``python PROGRAM WORDS``."""
    started = Started(words, None, cwd, None, program)
    return subprocess.CompletedProcess([program, *words], started.wait(), started.stdout, started.stderr)


def hears() -> None:
    """For ``preexec_fn``: what is started hears its signals, also where the suite runs under nohup or in the background
    of a shell, which have them ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _ask(asked: dict[str, Any]) -> Any:
    global _server
    if _server is None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CODE), os.environ.get("PYTHONPATH", "")])}
        _server = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        atexit.register(_server.terminate)
    assert _server.stdin is not None and _server.stdout is not None
    print(json.dumps(asked), file=_server.stdin, flush=True)
    return json.loads(_server.stdout.readline())


def _serve() -> None:
    """Fork for each line of stdin that asks for it, and answer with the number; say of others how they ended."""
    os.fsync = lambda handle: None  # type: ignore[assignment]  # as tests/conftest.py has it
    for name in _HEAVY:
        importlib.import_module(name)
    gc.freeze()  # a fork that looks at what is here copies it
    for line in sys.stdin:
        asked = json.loads(line)
        if "poll" in asked:
            number, status = os.waitpid(asked["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if number else None
        else:
            _import_for(asked["words"])
            answer = os.fork()
            if answer == 0:
                _become(asked)
        print(json.dumps(answer), flush=True)


def _import_for(words: list[str]) -> None:
    for name in {word.partition(":")[0] for word in words} & _FOR.keys():
        for module in _FOR.pop(name):
            importlib.import_module(module)
        gc.freeze()


def _become(asked: dict[str, Any]) -> None:
    """In the fork: run the command and leave, whatever happens."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the server's parent made of it
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for number, place in ((1, asked["out"]), (2, asked["err"])):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        multiprocessing.util.spawnv_passfds = _fork_server  # type: ignore[assignment]
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
        program = asked["program"]
        sys.argv = ["rfbench" if program == "bench.cli" else program, *asked["words"]]
        seen = asked["env"].get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [p for p in seen if p and p not in sys.path]
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _fork_server(path: bytes, words: list[str], kept: list[int]) -> int:
    """``multiprocessing``'s start of a program: its server of forks becomes a fork of this process, which is warm."""
    if "forkserver" not in words[-1]:
        return _start_program(path, words, kept)
    if number := os.fork():
        return number
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for handle in {int(at.name) for at in Path("/proc/self/fd").iterdir()} - {0, 1, 2, *kept}:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(handle)
        multiprocessing.forkserver.main(*kept, preload=())
    finally:
        os._exit(0)


if __name__ == "__main__":
    _serve()
