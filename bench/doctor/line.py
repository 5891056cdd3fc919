"""One finding of the doctor."""

from __future__ import annotations

import textwrap
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
        return self.shown(None)

    def shown(self, width: int | None) -> str:
        """The finding in a line, or broken to a terminal's width with what follows below what begins."""
        text = f"{self.state:<7}  {self.subject:<9} {self.found}" + (f"; {self.next_step}" if self.next_step else "")
        if width is None:
            return text
        # What is to be typed or opened is never broken.
        return textwrap.fill(
            text, max(width, 40), subsequent_indent=" " * 19, break_long_words=False, break_on_hyphens=False
        )


Probe = Callable[[], Iterator[Line]]
