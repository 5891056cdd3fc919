"""Models, metrics, protocols, datasets, segmenters and commands are found by entry points, ours and a plugin's alike.

A plugin declares, for instance::

    [project.entry-points."rfbench.models"]
    mymodel = "mypackage.spec:SPEC"

and is then reachable by every door: ``run``, ``table`` and ``ls``. A broken plugin is a warning with its
name and does not stop the others.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from bench.core.contain import described, quiet
from bench.core.errors import RfbenchError, unknown

Kind = Literal["models", "metrics", "protocols", "datasets", "segmenters", "commands"]
_registered: dict[tuple[Kind, str], Any] = {}


@functools.cache
def points(kind: Kind) -> dict[str, EntryPoint]:
    """The entry points of one kind by name. Of two with one name the project's own stays, with a warning."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=f"rfbench.{kind}"), key=_ours_first):
        if point.name in found and found[point.name].value != point.value:
            warnings.warn(
                f"two packages register the {kind[:-1]} '{point.name}': {found[point.name].value} is used, "
                f"{point.value} is left out; rename one",
                stacklevel=2,
            )
        found.setdefault(point.name, point)
    return found


def _ours_first(point: EntryPoint) -> tuple[bool, str, str]:
    return (point.dist is None or point.dist.name != "rfbench", point.name, point.value)


def names(kind: Kind) -> list[str]:
    """The registered names of one kind."""
    return sorted({*points(kind), *_in_process(kind)})


def register(kind: Kind, name: str, found: Any) -> None:
    """Register an object for this process alone, as a notebook does; it stands before an entry point of its name."""
    _registered[kind, name] = found


def is_in_process(kind: Kind, name: str) -> bool:
    """Whether a name was registered for this process alone, so that no other one knows it."""
    return (kind, name) in _registered


def forget() -> None:
    """Forget what was found: what was installed meanwhile is found again, what was registered here is gone."""
    _registered.clear()
    points.cache_clear()
    _loaded.cache_clear()


def _in_process(kind: Kind) -> Iterable[str]:
    return (name for of, name in _registered if of == kind)


def load(kind: Kind, name: str) -> Any:
    """The object that ``name`` registers; RfbenchError for an unknown name or one that fails to load."""
    if (kind, name) in _registered:
        return _registered[kind, name]
    if name not in points(kind):
        raise unknown(kind[:-1], name, names(kind), hint=f"'rfbench ls {kind}' lists them")
    return _loaded(kind, name)


@functools.cache
def _loaded(kind: Kind, name: str) -> Any:
    try:
        with quiet():
            return points(kind)[name].load()
    except (Exception, SystemExit) as error:  # importing a plugin runs its code
        raise RfbenchError(
            f"the {kind[:-1]} '{name}' ({points(kind)[name].value}) cannot be loaded: "
            f"{described(error, 160)}; repair or uninstall its package"
        ) from error
