"""The contract tests of models, metrics and datasets: one tester for all, ours and a plugin's.

A check looks at one promise and says what it found. One that does not hold says what was expected and what to do; one
that cannot be looked at says why. Nothing that a plugin does can stop the report: its exceptions are lines of it.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.core.errors import one_line

FORMAT = 1
Status = Literal["pass", "fail", "skip"]
_OURS = Path(__file__).resolve().parents[1]
_LIBRARIES = {
    "numpy",
    "torch",
    "scipy",
    "PIL",
    "importlib",
    "contextlib.py",
}  # an error deep in one has its cause above


class Broken(Exception):
    """A promise that does not hold: what was found, what was expected, what to do about it."""

    def __init__(self, found: str, expected: str, do: str) -> None:
        super().__init__(found)
        self.found, self.expected, self.do = found, expected, do


class Skipped(Exception):
    """A check that has no subject here; ``missing`` where that is because something is not installed or not given."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


@dataclass(frozen=True)
class Line:
    """One check: its name, how it went, what was found (the reason, where it was skipped), what was expected and what
    to do. All are single printable lines."""

    check: str
    status: Status
    found: str
    expected: str = ""
    do: str = ""

    def __str__(self) -> str:
        text = f"{self.status}  {self.check:<14} {self.found}"
        return text + (f"; expected {self.expected}" if self.expected else "") + (f"; {self.do}" if self.do else "")


@dataclass(frozen=True)
class Check:
    """``look`` returns what it found, or raises ``Broken`` or ``Skipped``. Without a ``vital`` one the others cannot be
    looked at."""

    name: str
    look: Callable[[], str]
    vital: bool = False


@dataclass
class Report:
    """All lines of one part; ``missing`` says whether something was not looked at for want of a file or package."""

    kind: str
    name: str
    lines: list[Line] = field(default_factory=list)
    missing: bool = False

    def count(self, status: Status) -> int:
        """How many lines have a status."""
        return sum(line.status == status for line in self.lines)

    @property
    def exit_code(self) -> int:
        """1 if a check failed, 2 if none did but something is missing, else 0."""
        return 1 if self.count("fail") else 2 if self.missing else 0

    def summary(self) -> str:
        """One line: how many held, failed and were skipped."""
        held, failed, skipped = (self.count(s) for s in ("pass", "fail", "skip"))
        end = "; something that it needs is missing" if self.missing and not failed else ""
        return f"{self.kind} {one_line(self.name, 120)}: {held} held, {failed} failed, {skipped} skipped{end}"

    def document(self) -> dict[str, Any]:
        """The report as JSON; ``format`` counts the versions of this document."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "name": one_line(self.name),
            "held": self.count("fail") == 0 and not self.missing,
            "missing": self.missing,
            "checks": [asdict(line) for line in self.lines],
        }


def examine(kind: str, name: str, checks: Iterable[Check], tell: Callable[[Line], None] | None = None) -> Report:
    """Look at each check in turn; ``tell`` hears each line as soon as it is known.

    What a part prints goes to stderr, so that a report on stdout stays one.
    """
    report, waiting = Report(kind, name), [*checks]
    while waiting:
        check = waiting.pop(0)
        line, missing = _look(check)
        lines = [line]
        if check.vital and line.status != "pass" and waiting:
            rest = ", ".join(c.name for c in waiting)
            lines.append(Line("the others", "skip", f"not looked at, since '{check.name}' did not hold: {rest}"))
            waiting.clear()
        report.missing = report.missing or missing
        for told in lines:
            report.lines.append(told)
            if tell is not None:
                tell(told)
    return report


def _look(check: Check) -> tuple[Line, bool]:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return Line(check.name, "pass", one_line(check.look(), 400)), False
    except Skipped as reason:
        return Line(check.name, "skip", one_line(reason, 400)), reason.missing
    except Broken as why:
        return Line(check.name, "fail", *(one_line(t, 800) for t in (why.found, why.expected, why.do))), False
    except (Exception, SystemExit) as error:
        return Line(check.name, "fail", described(error), "no exception", "repair it there"), False


def described(error: BaseException) -> str:
    """An exception in one line: its kind, its text, and the innermost place in it that is the part's own."""
    last: BaseException = error
    while last.__cause__ is not None:
        last = last.__cause__
    frames = [f for f in traceback.extract_tb(last.__traceback__) if not _not_the_part(f.filename)]
    where = f" ({Path(frames[-1].filename).name} line {frames[-1].lineno}, {frames[-1].name})" if frames else ""
    return one_line(f"{type(last).__name__}: {one_line(last, 240)}{where}", 400)


def _not_the_part(filename: str) -> bool:
    path = Path(filename)
    return filename.startswith("<") or path.resolve().is_relative_to(_OURS) or bool(_LIBRARIES & {*path.parts})


def few(names: Sequence[object], most: int = 3) -> str:
    """The first names of a list, for messages."""
    return ", ".join(one_line(n, 60) for n in names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
