"""Code of plugins (models, metrics, protocols, datasets) runs contained: whatever it does, the run goes on.

Plugins are trusted to compute, not to behave: they print, change the working folder, call ``sys.exit`` and raise what
they like. One of them must cost its own column or image, in one line, and leave its traceback for its author.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

from bench.core.errors import RfbenchError, one_line

_LONGEST = 20_000  # characters of a traceback that is kept


class PluginFailed(RfbenchError):
    """Code of a plugin raised something that is no message to the user; ``traceback`` is for its author."""

    def __init__(self, message: object, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


@contextlib.contextmanager
def contained(what: str, error: type[RfbenchError] | None = None) -> Iterator[None]:
    """Run a plugin's code. What it prints goes to stderr, and the working folder is the same afterwards.

    Parameters
    ----------
    what : how the line begins where it raises, such as ``model mine: load``.
    error : what an RfbenchError of its own becomes, ``what`` before it; None lets it through as it is.

    Raises
    ------
    PluginFailed
        For any other exception, ``sys.exit`` included. Running out of memory and the user's interruption pass, for the
        caller has an answer to them.
    """
    try:
        with quiet():
            yield
    except RfbenchError as said:
        if error is None or isinstance(said, PluginFailed):
            raise
        raise error(f"{what}: {said}") from None
    except (MemoryError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as raised:  # SystemExit too: a plugin's exit code means nothing here
        raise PluginFailed(f"{what}: {described(raised)}", kept_traceback(raised)) from raised


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What is printed goes to stderr, since stdout is the command's, and the working folder is the same afterwards."""
    folder = os.getcwd()  # noqa: PTH109 - as chdir takes it
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(folder)


def described(error: BaseException, limit: int = 300) -> str:
    """An exception in one line: its kind and its words."""
    words = one_line(error, limit)
    if isinstance(error, SystemExit):
        return f"it called sys.exit({words})"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def kept_traceback(error: BaseException) -> str:
    """The traceback as ``host.json`` keeps it: its end, where the error is, if it is very long."""
    return "".join(traceback.format_exception(error))[-_LONGEST:]
