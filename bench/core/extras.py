"""Packages that not everybody needs: the extras of the distribution, and what to say where one is missing."""

from __future__ import annotations

import importlib.util

from bench.core.errors import Unavailable


def need(what: str, extra: str, *packages: str) -> None:
    """Unavailable, with the command that installs the extra, where one of its packages is not here.

    Nothing is imported, so that it may be asked before minutes of work.

    Parameters
    ----------
    what : what needs them, as the subject of a sentence.
    extra : which extra of rfbench brings them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f"{what} needs {', '.join(missing)}; install with: pip install 'rfbench[{extra}]'")
