"""What a model's code computes, as a hash: an edited adapter is another model, a reworded docstring is not.

Hashed is the syntax of the adapter's module and of those modules of its own package that it imports, without comments,
docstrings and places in the file, so it is the same from a wheel and from a checkout. The harness's own part (reading,
protocols, the model call) is not in it: ``bench.predict.plan.REVISION`` counts its changes that move a pixel.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.core.errors import RfbenchError, one_line

_OURS = "bench"
"""The harness's own package, which is no part of a model even where a model's modules import it."""


def code_hash(adapter: type, extra: tuple[Path, ...] = ()) -> str:
    """The hash (16 hex digits) of what an adapter's class computes with.

    Parameters
    ----------
    extra : further files of the model, such as the shim that runs in its guest.

    A class that has no module of its own on disk (a notebook's) is hashed by its source and that of the functions and
    classes of the same notebook that it names.
    """
    found = hashlib.sha256()
    module = sys.modules.get(adapter.__module__)
    path = _file_of(module)
    if path is None:
        for text in sorted(_sources_in_memory(adapter)):
            found.update(_digest_of_text(text, adapter.__qualname__))
    elif not _is_ours(adapter.__module__):
        for name, file in sorted(_modules(adapter.__module__, path).items()):
            found.update(name.encode() + _digest_of_file(file))
    for file in extra:
        found.update(file.name.encode() + _digest_of_file(file))
    return found.hexdigest()[:16]


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _OURS


def _file_of(module: ModuleType | None) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path) if path and Path(path).is_file() else None


def _modules(name: str, path: Path) -> dict[str, Path]:
    """The module and all modules of its top-level package that it imports, directly or not, by name."""
    package = name.partition(".")[0]
    found: dict[str, Path] = {}
    waiting = [(name, path)]
    while waiting:
        module, file = waiting.pop()
        if module in found:
            continue
        found[module] = file
        if file.suffix == ".py":
            for imported in _imports(module, file):
                if imported.partition(".")[0] == package and imported not in found:
                    where = _origin(imported)
                    waiting += [(imported, where)] if where is not None else []
    return found


def _origin(module: str) -> Path | None:
    """Where a module of a package that is imported lies, found without running it; None for what is no module."""
    package, *inner = module.split(".")
    for root in getattr(sys.modules.get(package), "__path__", ()):
        place = Path(root).joinpath(*inner)
        files = [place / "__init__.py", *([place.with_name(f"{place.name}.py")] if inner else [])]
        compiled = sorted(place.parent.glob(f"{place.name}.*.so")) if inner and place.name.isidentifier() else []
        for file in (*files, *compiled):
            if file.is_file():
                return file
    return None


def _imports(module: str, file: Path) -> Iterator[str]:
    """The names that a file may import modules by; some are names of objects, which are no modules."""
    is_package = file.name == "__init__.py"
    parents = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(_tree(_read(file), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            yield whole
            yield from (f"{whole}.{alias.name}" for alias in node.names)


def _sources_in_memory(adapter: type) -> set[str]:
    """The source of a class that lies in no file, and of what it names in the same module."""
    names = vars(sys.modules.get(adapter.__module__, ModuleType("none")))
    found: set[str] = set()
    waiting: list[Any] = [adapter]
    while waiting:
        for text in _sources_of(waiting.pop()):
            if text in found:
                continue
            found.add(text)
            for node in ast.walk(_tree(text, adapter.__qualname__)):
                named = names.get(node.id) if isinstance(node, ast.Name) else None
                if inspect.isfunction(named) or inspect.isclass(named):
                    waiting += [named] if named.__module__ == adapter.__module__ else []
    return found


def _sources_of(named: Any) -> list[str]:
    """The source of a function, or of a class as far as Python has it: as a whole, or function by function."""
    try:
        return [textwrap.dedent(inspect.getsource(named))]
    except (OSError, TypeError):
        parts = [part for part in vars(named).values() if inspect.isfunction(part)] if inspect.isclass(named) else []
    try:
        found = [textwrap.dedent(inspect.getsource(part)) for part in parts]
    except (OSError, TypeError):
        found = []
    if not found:
        raise RfbenchError(
            f"model {one_line(getattr(named, '__qualname__', named), 60)}: its source cannot be read, so nothing could "
            "tell when it changes; define it in a file or in a notebook's cell"
        )
    return found


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="surrogateescape")


def _tree(text: str, what: str) -> ast.AST:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise RfbenchError(f"{one_line(what, 160)}: no Python that can be read ({one_line(error, 80)})") from None


def _digest_of_file(file: Path) -> bytes:
    """Of a file's syntax; of its bytes where it is no Python source (an extension module)."""
    if file.suffix != ".py":
        return hashlib.sha256(file.read_bytes()).digest()
    return _digest_of_text(_read(file), str(file))


@functools.lru_cache(maxsize=1024)
def _digest_of_text(text: str, what: str) -> bytes:
    return hashlib.sha256("".join(_canonical(_tree(text, what))).encode("utf-8", "surrogatepass")).digest()


def _canonical(node: Any) -> Iterator[str]:
    """The syntax in one spelling: kinds and fields that say something, without docstrings and places.

    ``ast.dump`` will not do: what it writes of empty fields differs from one version of Python to the next.
    """
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list) and _has_docstring(node):
                value = value[1:]
            if value is not None and value != [] and name not in ("type_comment", "kind", "ctx"):
                yield f" {name}="
                yield from _canonical(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for one in node:
            yield from _canonical(one)
        yield "]"
    else:
        yield f"{type(node).__name__}:{node!r}"


def _has_docstring(node: ast.AST) -> bool:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return False
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
