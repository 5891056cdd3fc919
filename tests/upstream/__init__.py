"""Comparisons with the original code of wrapped systems, run by hand by whoever has a checkout of it."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any


def module_from(path: Path, name: str = "") -> Any:
    """A single file of a checkout, run as a module called ``name`` (``upstream_STEM`` unless given)."""
    spec = importlib.util.spec_from_file_location(name or f"upstream_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def stand_in(name: str, **contents: Any) -> None:
    """A module of the given contents, in the place of one that a file imports and a comparison has no need of."""
    module = types.ModuleType(name)
    module.__path__ = []  # a package, so that what lies below it may have stand-ins too
    module.__dict__.update(contents)
    sys.modules[name] = module
