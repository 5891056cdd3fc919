"""What the system was asked for while inputs ran, by strace: libraries in C act without Python's audit events.

A worker and all its children run under strace. From the moment at which the worker opens ``BEGIN``, a process may
change files only below the folders of inputs and of the decoders' own temporary files, and may connect to nothing but
sockets of this machine's own (``AF_UNIX``).
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

BEGIN = "/rfbench-fuzz-begins"
"""A file that there is not."""
_CALLS = (
    "connect,sendto,openat,open,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,"
    "link,linkat,truncate,chmod,fchmodat,mknod,mknodat,execve"
)
_LINE = re.compile(r"^\d+ +(\w+)\((.*)")
_TEXT = re.compile(r'(?:[\w]+<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
_INTERNET = re.compile(r"sa_family=AF_INET6?, ")
_HARMLESS = re.compile(r"/dev/(null|tty|urandom)|/proc/(self|\d+)/(clear_refs|oom_score_adj)|/dev/shm/\S+")


def words(log: Path) -> list[str]:
    """What comes before a command that is to be watched; SystemExit where strace is missing."""
    if shutil.which("strace") is None:
        raise SystemExit("--strace: strace is not installed; install it, or leave the option out")
    return ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-s", "512", "-e", f"trace={_CALLS}", "-o", str(log)]


def begin() -> None:
    """Mark where the inputs begin; what is imported and prepared before is not theirs."""
    with contextlib.suppress(OSError):
        Path(BEGIN).read_bytes()


def forbidden(log: Path, allowed: tuple[str, ...]) -> Iterator[str]:
    """The calls of a log that inputs must not lead to.

    Parameters
    ----------
    allowed : what the paths of files that may be changed begin with. A path without a folder is below the worker's
        folder, which is looked at after every input.
    """
    begun = False
    with log.open(errors="replace") as lines:
        for line in lines:
            begun = begun or BEGIN in line
            found = _LINE.match(line)
            if begun and found and not _is_allowed(found[1], found[2], allowed):
                yield line.strip()


def _is_allowed(call: str, said: str, allowed: tuple[str, ...]) -> bool:
    if call in ("connect", "sendto"):
        return _INTERNET.search(said) is None
    if call == "execve":
        return True  # a decoder's process; a program that is not ours would need a file that an input wrote
    if call in ("open", "openat") and not _WRITES.search(said):
        return True
    named = _TEXT.findall(said)
    changed = named[-1:] if call.startswith("symlink") else named  # where a link leads is no matter of its own
    return all(_is_below(Path(folder, path), allowed) for folder, path in changed)


def _is_below(path: Path, allowed: tuple[str, ...]) -> bool:
    if ".." in path.parts:
        return False
    return not path.is_absolute() or str(path).startswith(allowed) or _HARMLESS.fullmatch(str(path)) is not None
