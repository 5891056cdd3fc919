"""Give one input to its target, under guard, and say what came of it."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import guard
from tests.fuzz.case import Case
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets.models import rehash

LONGEST_LINE = 1000
# libtiff says "out of memory" of a count that the file cannot hold, without asking for any.
_NO_MEMORY = re.compile(
    r"MemoryError|[Uu]nable to allocate|bad_alloc|not enough memory|Cannot allocate|"
    r"(?<!TIFFReadDirectory:)[Oo]ut of memory"
)


@dataclass(frozen=True)
class Observation:
    """``outcome`` is ``ok``, ``refused`` or, for a finding, its kind; ``detail`` the message or the traceback.

    ``seconds`` are of computing.
    """

    outcome: str
    detail: str
    seconds: float
    peak_bytes: int

    @property
    def is_finding(self) -> bool:
        """Whether this must not happen."""
        return self.outcome not in ("ok", "refused")


def observe(case: Case, most_bytes: int = guard.RESIDENT_BYTES) -> Observation:
    """Lay the input out in a folder of its own, run its target, look what is left, remove it.

    ``most_bytes`` of memory may come to what the process, with its libraries, held before.
    """
    here, writes_no_code = Path.cwd(), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a module's first import is the input's doing, and its compiled file no harm
    root = Path(tempfile.mkdtemp(prefix="rfbench-fuzz-"))
    folder, out, work, scratch = root / "in", root / "out", root / "work", root / "tmp"
    for place in (out, work, scratch):
        place.mkdir()
    elsewhere, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        case.lay_out(folder)
        if case.args.get("rehash"):
            rehash(folder)
        before = _state(folder)
        os.chdir(work)
        held = guard.resident_bytes()
        guard.reset_peak()
        started = time.process_time()
        with guard.watched(out, scratch) as seen, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome, detail = _run(case, folder, out)
        seconds = time.process_time() - started
        peak = guard.peak_bytes() - held
    finally:
        os.chdir(here)
        sys.dont_write_bytecode = writes_no_code
        tempfile.tempdir = elsewhere
        changed = "" if not folder.exists() else _difference(before, _state(folder)) if "before" in locals() else ""
        left = sorted(p.name for place in (work, scratch) for p in place.iterdir())
        shutil.rmtree(root, ignore_errors=True)
    if seen:
        outcome, detail = "forbidden", "; ".join(seen)
    elif changed or left:
        outcome, detail = (
            "wrote outside",
            changed or f"left {left} in the working directory or among the temporary files",
        )
    elif peak > most_bytes:
        outcome, detail = "memory", f"{peak / 1e9:.2f} GB taken; {detail}"
    elif seconds > guard.SECONDS:
        outcome, detail = "hang", f"{seconds:.1f} s; {detail}"
    return Observation(outcome, detail.replace(str(root), "ROOT"), seconds, peak)


def _run(case: Case, folder: Path, out: Path) -> tuple[str, str]:
    import click

    from bench.core.errors import RfbenchError
    from rareflow.errors import RareflowError

    try:
        shown = list(TARGETS[case.target].run(folder, out, case.args))
    except (RfbenchError, RareflowError, click.ClickException, click.Abort) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        if _wants_memory(error, text):
            return "memory", f"asked for more than there is: {text}"
        return ("refused", text) if _is_line(text) else ("message", f"no printable line: {text[:3000]!r}")
    except guard.Hang as error:
        return "hang", f"{error}\n{traceback.format_exc(limit=-6)}"
    except guard.Forbidden as error:
        return "forbidden", str(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "memory" if isinstance(error, MemoryError) else "traceback", traceback.format_exc()
    bad = [text for text in shown if not _is_line(text)]
    if bad:
        return "message", f"no printable line: {bad[0][:3000]!r}"
    starved = [text for text in shown if _NO_MEMORY.search(text)]
    return ("memory", starved[0]) if starved else ("ok", "")


def _is_line(text: str) -> bool:
    return text.isprintable() and 0 < len(text) <= LONGEST_LINE


def _wants_memory(error: BaseException, text: str) -> bool:
    """Whether a refusal is only that the limit of memory was met: an honest machine would have swapped."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return True
        cause = cause.__cause__ or cause.__context__
    return bool(_NO_MEMORY.search(text))


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = f"{where}/{name}"
            status = os.lstat(path)
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


def _difference(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> str:
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    return f"the input's files changed: {changed[:3]}" if changed else ""


def import_all() -> None:
    """Import what is heavy, so that no input pays for it."""
    import rareflow.base
    import rareflow.checkpoint  # noqa: F401
    from bench.metrics.scorer import metric_class

    for name in ("psnr_rgb", "sam_rgb", "nll"):
        metric_class(name)


def prepare() -> None:
    """Make this process one that fuzzes: quiet, offline, with an empty cache, and everything heavy imported."""
    import sys

    sys.dont_write_bytecode = True
    home = tempfile.mkdtemp(prefix="rfbench-fuzz-home-")
    os.environ |= {"HOME": home, "RFBENCH_WEIGHTS": home, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    logging.disable(logging.CRITICAL)
    import torch

    torch.set_num_threads(1)
    import_all()
    from bench.core import provenance

    # Both ask other programs (git, uname), which no input may start.
    software, machine = provenance.software(), provenance.machine("cpu")
    provenance.software = lambda also=(): software
    provenance.machine = lambda device: machine
