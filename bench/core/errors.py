"""The one family of errors that a user may see, and how unknown names are reported.

A user error is one line that says what was found, what was expected and what to do next; the command line
prints it without a traceback and exits with ``exit_code``. Anything else that is raised is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bench.core.reason import Reason

LONGEST_LINE = 1000


class RfbenchError(Exception):
    """The user's input is wrong, or something that is needed is missing (exit code 2).

    Its message is one printable line, whatever names and texts of files were put into it.
    """

    exit_code = 2

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message, LONGEST_LINE))


class NotComparable(RfbenchError):
    """Results that must not stand in one table (exit code 3)."""

    exit_code = 3


class Unavailable(RfbenchError):
    """A part cannot work here: a package, a weights file or a device is missing. Becomes a reason in a cell.

    ``reason`` is what it becomes: the one that was given, or, of plain words, one that lies in the images or the model.
    """

    def __init__(self, message: object) -> None:
        super().__init__(message)
        self.reason = message if isinstance(message, Reason) else Reason("unfit", one_line(message))


class ItemError(RfbenchError):
    """One image could not be processed; it becomes a row with this error and the others go on.

    ``traceback`` is that of a plugin's error, for its author.
    """

    def __init__(self, message: object, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class RfbenchWarning(UserWarning):
    """What the user should know, though the command goes on; the command line prints it as one line."""


def one_line(text: object, limit: int = 300) -> str:
    """``text`` without line breaks or control characters, shortened to ``limit`` characters.

    Names and messages that come from files are hostile until they went through here.
    """
    whole = str(text)
    # Some messages quote a whole file; what is behind many times the limit will not be seen.
    printable = "".join(c if c.isprintable() else " " for c in whole[: 20 * limit])
    flat = " ".join(printable.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def unknown(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> RfbenchError:
    """An error for an unknown ``name``: the nearest known names first, else the (shortened) list."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near.sort(key=lambda other: not other.startswith(name))  # "psnr" begins a name rather than having a slip in it
    if near:
        help_text = f"did you mean {' or '.join(near)}?"
    elif names:
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        help_text = f"known: {shown}"
    else:
        help_text = "none is known here"
    return RfbenchError(f"unknown {kind} '{one_line(name, 80)}'; {help_text}{'; ' + hint if hint else ''}")
