"""Machines that lack what others have: commands do their work there, or say in one line what they need."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.attack.commands import clean_environ

NOBODY = """
import pwd
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
"""
"""As in a container that runs as a user without an entry among the users."""
WITHOUT_LOCKS = """
import fcntl
def flock(handle, how):
    raise OSError(37, "No locks available")
fcntl.flock = flock
"""
WITHOUT_FOLDER_SYNC = """
import os, stat
_fsync = os.fsync
def fsync(handle):
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        raise OSError(22, "Invalid argument")
    return _fsync(handle)
os.fsync = fsync
"""


@dataclass(frozen=True)
class Machine:
    """What is wrong with it.

    Attributes
    ----------
    environ : variables that are other; None removes one. ``{work}`` in a value is the folder of the attack.
    before : called in the process before it becomes the command.
    shell : a line of sh that comes before the command, in a mount namespace of its own; needs root.
    site : a ``sitecustomize`` for its Python.
    """

    environ: dict[str, str | None] = field(default_factory=dict)
    before: Callable[[], object] | None = None
    shell: str = ""
    site: str = ""


def _limit(what: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(what, (value, value))


def _close(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            with contextlib.suppress(OSError):
                os.close(number)

    return close


MACHINES = {
    "no HOME": Machine({"HOME": None}),
    "an empty HOME": Machine({"HOME": ""}),
    "a HOME that is not there": Machine({"HOME": "/nonexistent/home"}),
    "a HOME that is a file": Machine({"HOME": "/dev/null"}),
    "a user whom nobody knows": Machine(site=NOBODY),
    "a user whom nobody knows, without HOME": Machine({"HOME": None, "USER": None, "LOGNAME": None}, site=NOBODY),
    "a HOME that cannot be written": Machine({"HOME": "/proc"}),
    "a TMPDIR that is not there": Machine({"TMPDIR": "/nonexistent/tmp"}),
    "a TMPDIR that is a file": Machine({"TMPDIR": "/dev/null"}),
    "a tiny TMPDIR": Machine(
        {"TMPDIR": "{work}/tmp"}, shell="mkdir -p {work}/tmp && mount -t tmpfs -o size=64k t {work}/tmp"
    ),
    "no temporary folder at all": Machine(
        {"TMPDIR": None}, shell="for d in /tmp /var/tmp /usr/tmp; do [ -d $d ] && mount -t tmpfs -o ro t $d; done; true"
    ),
    "a /dev/shm that cannot be written": Machine(shell="mount -t tmpfs -o ro t /dev/shm"),
    "a tiny /dev/shm": Machine(shell="mount -t tmpfs -o size=4k t /dev/shm"),
    "umask 077": Machine(before=lambda: os.umask(0o077)),
    "umask 777": Machine(before=lambda: os.umask(0o777)),
    "a C locale without UTF-8": Machine({"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "streams in ASCII": Machine({"PYTHONIOENCODING": "ascii"}),
    "streams in UTF-16": Machine({"PYTHONIOENCODING": "utf-16"}),
    "no stdin": Machine(before=_close(0)),
    "no stdout": Machine(before=_close(1)),
    "64 open files": Machine(before=_limit(resource.RLIMIT_NOFILE, 64)),
    "files of at most 20 kB": Machine(before=_limit(resource.RLIMIT_FSIZE, 20_000)),
    "no locks": Machine(site=WITHOUT_LOCKS),
    "no sync of folders": Machine(site=WITHOUT_FOLDER_SYNC),
    "an empty PATH": Machine({"PATH": ""}),
    "a terminal of one column": Machine({"COLUMNS": "1", "TERM": "dumb"}),
    "another clock": Machine(site="import time\n_time = time.time\ntime.time = lambda: _time() - 4e8\n"),
}
COMMANDS = (
    ["run", "--model", "nearest", "--limit", "2", "--metrics", "psnr_rgb", "--workers", "1", "--out", "{work}/out"],
    ["weights", "ls"],
    ["envs", "ls"],
    ["ls", "protocols"],
)


@dataclass
class Endured:
    """What commands did on one machine."""

    name: str
    worked: int = 0
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def attack(name: str, work: Path, commands: tuple[list[str], ...] = COMMANDS) -> Endured | None:
    """Run the commands on a machine; None where this one cannot be made into it."""
    machine, result = MACHINES[name], Endured(name)
    if machine.shell and (os.geteuid() != 0 or shutil.which("unshare") is None):
        return None
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    environ: dict[str, str] = clean_environ()
    if machine.site:
        (work / "site").mkdir()
        (work / "site" / "sitecustomize.py").write_text(machine.site)
        environ["PYTHONPATH"] = f"{work / 'site'}{os.pathsep}{environ['PYTHONPATH']}"
    for key, value in machine.environ.items():
        environ.pop(key, None)
        if value is not None:
            environ[key] = value.format(work=work)
    for command in commands:
        words = [sys.executable, "-m", "bench.cli", *(w.format(work=work) for w in command)]
        if machine.shell:
            words = ["unshare", "-m", "sh", "-c", f'{machine.shell.format(work=work)}; exec "$@"', "sh", *words]
        done = subprocess.run(
            words, env=environ, cwd=work, capture_output=True, text=True, errors="replace", timeout=300, check=False,
            preexec_fn=machine.before,
        )  # fmt: skip
        lines = [line for line in done.stderr.replace("\0", "").splitlines() if "error:" in line]
        if "Traceback" in done.stderr or done.returncode not in (0, 1, 2):
            result.wrong.append(f"{' '.join(command[:2])}: {done.returncode} {done.stderr[-400:]}")
        elif done.returncode == 0:
            result.worked += 1
        elif len(lines) == 1 or "no stdout" in name:
            result.refused.append(lines[0] if lines else "")
        else:
            result.wrong.append(f"{' '.join(command[:2])}: {done.returncode} {done.stderr[-400:]}")
    return result
