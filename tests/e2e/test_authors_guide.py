"""docs/authors.md, followed to the letter: its files, its commands, and what it says they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.conftest import ROOT

GUIDE = (ROOT / "docs" / "authors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, flags=re.M | re.S)


def files() -> dict[str, str]:
    """The blocks that begin with a file's name, by that name."""
    named = [(re.match(r"# (\S+)\n", text), text) for kind, text in BLOCKS if kind in ("python", "toml")]
    assert all(match for match, _ in named)
    return {match[1]: text for match, text in named if match}


def install(folder: Path, site: Path) -> None:
    """What pip makes of a package in development: its folder on the path, and its metadata."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert {f"{m}.py" for m in project["tool"]["setuptools"]["py-modules"]} < {p.name for p in folder.iterdir()}
    information = site / "my_rfbench_parts-0.1.dist-info"
    information.mkdir(parents=True)
    lines = [f"Name: {project['project']['name']}", f"Version: {project['project']['version']}"]
    (information / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))
    points = [
        text
        for group, named in project["project"]["entry-points"].items()
        for text in (f"[{group}]", *(f"{name} = {value}" for name, value in named.items()))
    ]
    (information / "entry_points.txt").write_text("\n".join(points) + "\n")


def test_the_guide_ends_in_passing_checks(tmp_path: Path) -> None:
    folder, tools = tmp_path / "mine", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    for name, text in files().items():
        (folder / name).write_text(text)
    install(folder, tmp_path / "site")
    python = shlex.quote(sys.executable)
    for name, words in {"rfbench": "-P -m bench.cli", "python": "", "pip": "-P -c 'import sys'"}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {python} {words} "$@"\n')
        (tools / name).chmod(0o755)
    path = [str(folder), str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1",
    }
    commands = "\n".join(text for kind, text in BLOCKS if kind == "sh")
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.splitlines()
    for line in (line for kind, text in BLOCKS if kind == "text" for line in text.splitlines()):
        assert line in printed, done.stdout
    assert done.stdout.count("fail  ") == 0 and done.stdout.count(" 0 failed") == 3
    assert "grain@mean" in done.stdout and "edges|luma-mean|central-differences|q8|r1" in done.stdout
