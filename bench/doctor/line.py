"""One finding of the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

AGAIN = "pip install --force-reinstall --no-deps rfbench"
"""The next step where a file of rfbench's own is broken."""
State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Line:
    """One finding: its subject, how it is, what was found, and the next step (a command to type, where there is one).

    ``needed`` says that the embedded benchmark cannot run with this as a problem.
    """

    subject: str
    state: State
    found: str
    next_step: str = ""
    needed: bool = False

    def __str__(self) -> str:
        return f"{self.state:<7}  {self.subject:<9} {self.found}" + (f"; {self.next_step}" if self.next_step else "")


Probe = Callable[[], Iterator[Line]]
