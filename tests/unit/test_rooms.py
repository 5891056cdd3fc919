"""Who imports whom: dependencies point one way, and a model is data until it runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ADAPTERS_OF_RAREFLOW = ("adapter.py", "cli.py")
"""The files of the method that may import the harness: its adapter and its commands."""


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def test_the_harness_knows_no_model() -> None:
    for path in files("bench"):
        assert not {m for m in imports(path) if m.partition(".")[0] in ("baselines", "rareflow")}, path


def test_baselines_see_the_model_interface_only() -> None:
    for path in files("baselines"):
        assert {m for m in imports(path) if m.partition(".")[0] in ("bench", "rareflow")} <= {"bench.models"}, path


def test_the_method_stands_alone() -> None:
    for path in files("rareflow"):
        if path.name not in ADAPTERS_OF_RAREFLOW:
            assert not {m for m in imports(path) if m.partition(".")[0] in ("bench", "baselines")}, path


@pytest.mark.parametrize(
    ("before", "after"),
    [("core", "data"), ("data", "protocols"), ("data", "predict"), ("data", "score"), ("metrics", "predict"),
     ("metrics", "score"), ("models", "predict"), ("models", "score"), ("metrics", "reports"),
     ("records", "predict"), ("records", "score"), ("records", "reports"), ("predict", "reports"), ("predict", "cli"),
     ("score", "cli"), ("check", "predict"), ("check", "cli"), ("models", "check"),
     ("metrics", "check"), ("data", "check"), ("stats", "predict"), ("stats", "reports"), ("metrics", "stats"),
     ("reports", "cli"), ("core", "models"), ("core", "weights"), ("data", "captions"), ("protocols", "captions"),
     ("reports", "captions"), ("reports", "study"), ("captions", "study"), ("captions", "cli"), ("study", "cli")],
)  # fmt: skip
def test_nothing_flows_backwards(before: str, after: str) -> None:
    for path in files(f"bench/{before}"):
        assert not {m for m in imports(path) if m.startswith(f"bench.{after}")}, f"{path} imports bench.{after}"


@pytest.mark.parametrize(
    "verb",
    ["run", "score", "table", "ls", "metrics", "weights", "data", "validate", "export", "plot", "check", "doctor",
     "cite", "compare", "gate", "envs", "train", "upscale", "caption", "captions", "study"],
)  # fmt: skip
def test_a_verb_s_help_needs_no_torch(verb: str) -> None:
    call = f"from bench.cli import cli; cli(['{verb}', '--help'], standalone_mode=False)"
    code = f"import sys; {call}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("False")
