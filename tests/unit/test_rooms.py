"""Who imports whom: dependencies point one way, and a model is data until it runs.

One table says it for every module of the harness; a module in a room that the table does not know is an error too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Room -> the rooms that its modules may import. The order is the data's way; `__init__` is the package's version.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "weights": {"core"},
    "data": {"core"},
    "protocols": {"core", "data", "metrics"},  # a task holds the reference that metrics see (metrics/base.py)
    "metrics": {"core", "weights"},
    "models": {"core", "weights", "data", "protocols"},
    "records": {"core"},
    "executors": {"core"},
    "configs": {"core"},
    "predict": {"core", "data", "protocols", "metrics", "models", "records", "executors"},
    "score": {"core", "data", "protocols", "metrics", "models", "records", "predict", "executors"},
    "stats": {"core", "metrics", "records"},
    "reports": {"core", "weights", "data", "protocols", "metrics", "models", "records", "score", "stats"},
    "captions": {"core", "data", "protocols", "records", "stats", "reports"},
    "study": {"core", "data", "protocols", "metrics", "records", "captions", "score", "stats", "reports"},
    "upscale": {"core", "data", "protocols", "metrics", "models", "reports"},
    "check": {"core", "weights", "data", "protocols", "metrics", "models", "predict", "score"},
    "doctor": {"core", "weights", "data", "metrics", "models", "reports"},
    "api": {"core", "data", "protocols", "metrics", "models", "records", "predict", "score", "stats", "reports"},
}
ROOMS["cli"] = {*ROOMS}

OF_RAREFLOW = ("adapter.py", "train/cli.py", "experiments/")
"""The files of the method that may import the harness: its adapter, its commands and its experiments."""


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def rooms_of(names: set[str]) -> set[str]:
    """The rooms of the harness among some modules; objects of ``bench`` itself, such as its version, are in none."""
    rooms = {name.split(".")[1] for name in names if name.startswith("bench.")}
    return {room for room in rooms if (ROOT / "bench" / room).is_dir() or (ROOT / "bench" / f"{room}.py").is_file()}


def test_every_module_is_in_a_room_of_the_table() -> None:
    modules = files("bench")
    assert {p.relative_to(ROOT / "bench").parts[0] for p in modules} == {*ROOMS, "__init__.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_the_table_allows(room: str) -> None:
    for path in files(f"bench/{room}"):
        others = rooms_of(imports(path)) - {room}
        assert others <= ROOMS[room], f"{path.relative_to(ROOT)} imports {sorted(others - ROOMS[room])}"


def test_the_table_has_no_circle() -> None:
    """Each room can be built after those that it imports; protocols and metrics meet in one file of types."""
    waiting, built = {room: needs - {room} for room, needs in ROOMS.items()}, set[str]()
    while waiting:
        ready = {room for room, needs in waiting.items() if needs <= built}
        assert ready, f"a circle among {sorted(waiting)}"
        built |= ready
        waiting = {room: needs for room, needs in waiting.items() if room not in ready}


def test_modules_import_each_other_in_one_direction() -> None:
    """No circle among modules at their heads; what is imported inside a function is found when it is called."""
    heads, paths = {}, {_module(path): path for path in files("bench")}
    modules = {*paths}
    for name, path in paths.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bench"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                # Of a package from which modules alone are taken, nothing is needed but that it is there.
                found |= {n if n in modules else node.module for n in names}
        heads[name] = found
    heads = {name: (found & modules) - {name} for name, found in heads.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for other in heads[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in heads:
        visit(name, ())


def test_the_harness_knows_no_model() -> None:
    for path in files("bench"):
        assert not {m for m in imports(path) if m.partition(".")[0] in ("baselines", "rareflow")}, path


def test_baselines_see_the_model_interface_only() -> None:
    for path in files("baselines"):
        found = {m for m in imports(path) if m.partition(".")[0] in ("bench", "rareflow")}
        assert all(m == "bench.models" or m.startswith("bench.models.") for m in found), path


def test_the_method_stands_alone() -> None:
    for path in files("rareflow"):
        if not str(path.relative_to(ROOT / "rareflow")).startswith(OF_RAREFLOW):
            assert not {m for m in imports(path) if m.partition(".")[0] in ("bench", "baselines")}, path


@pytest.mark.parametrize("verb", ["--help", "run", "score", "table", "ls", "upscale", "train"])
def test_a_verb_s_help_needs_no_torch(verb: str) -> None:
    words = [verb] if verb == "--help" else [verb, "--help"]
    call = f"from bench.cli import cli; cli({words}, standalone_mode=False)"
    code = f"import sys; {call}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("False")


def test_no_verb_s_help_imports_torch() -> None:
    """All verbs in one process: those that are not tried alone above are tried together."""
    code = (
        "import sys, click; from bench.cli import cli\n"
        "context = click.Context(cli)\n"
        "for name in cli.list_commands(context): cli.get_command(context, name)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("False")
