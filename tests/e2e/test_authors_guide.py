"""docs/authors.md, followed to the letter: its files, its commands, and what it says they print."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from bench.records.folder import RunFolder
from tests.commands import CODE, rfbench
from tests.conftest import ROOT
from tests.guests import uv_is_here
from tests.runs import run as run_models
from tests.wheels import installed_wheel

GUIDE = (ROOT / "docs" / "authors.md").read_text(encoding="utf-8")
GUEST = re.findall(r"^## A model in an environment of its own\n.*?(?=^## )", GUIDE, flags=re.M | re.S)[0]
Blocks = list[tuple[str, str]]


def blocks(text: str) -> Blocks:
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S)


def files(found: Blocks) -> dict[str, str]:
    """The blocks that begin with a file's name, by that name."""
    named = [(re.match(r"# (\S+)\n", text), text) for kind, text in found if kind in ("python", "toml", "txt")]
    assert all(match for match, _ in named)
    return {match[1]: text for match, text in named if match}


def install(folder: Path, site: Path) -> None:
    """What pip makes of a package in development: its folder on the path, and its metadata."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]
    names = {f"{m}.py" for m in listed.get("py-modules", ())} | set(listed.get("packages", ()))
    assert names and names <= {p.name for p in folder.iterdir()}
    name, version = project["project"]["name"], project["project"]["version"]
    information = site / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = [
        text
        for group, named in project["project"]["entry-points"].items()
        for text in (f"[{group}]", *(f"{name} = {value}" for name, value in named.items()))
    ]
    (information / "entry_points.txt").write_text("\n".join(points) + "\n")


def follow(found: Blocks, tmp_path: Path, **more: str) -> str:
    """Write the files, type the commands; what they printed has all that the page says they print."""
    folder, printed = tmp_path / "mine", ""
    for name, text in files(found).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    install(folder, tmp_path / "site")
    path = [str(folder), str(tmp_path / "site"), str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"} | more
    for line in (line for kind, text in found if kind == "sh" for line in text.splitlines()):
        program, *words = shlex.split(line.replace("$PWD", str(folder)))
        if program == "export":
            environment |= [word.split("=", 1) for word in words]
            continue
        if program == "rfbench":
            done = rfbench(*words, cwd=folder, env=environment)
        elif program == "python":
            done = subprocess.run(
                [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
            )
        else:
            assert line == "pip install -e .", line  # which ``install`` did
            continue
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        printed += done.stdout
    said = printed.splitlines()
    for line in (line for kind, text in found if kind == "text" for line in text.splitlines()):
        assert line in said, printed
    assert printed.count("fail  ") == 0
    return printed


def test_the_guide_ends_in_passing_checks(tmp_path: Path) -> None:
    printed = follow(blocks(GUIDE.replace(GUEST, "")), tmp_path)
    assert printed.count(" 0 failed") == 3
    assert "grain@mean" in printed and "edges|luma-mean|central-differences|q8|r1" in printed


@pytest.mark.skipif(not uv_is_here(), reason="uv is not installed (pip install 'rfbench[envs]')")
def test_a_model_whose_packages_clash_with_ours_runs_beside_bicubic(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    # What the page's file pins, as a package index would serve it: the packages that are here, under those versions.
    installed_wheel(wheels, "numpy", "1.26.4")
    installed_wheel(wheels, "pillow", "9.5.0", more={"PIL/Image.py": "\nANTIALIAS = Resampling.LANCZOS\n"})
    printed = follow(
        blocks(GUEST), tmp_path, RFBENCH_ENVS=str(tmp_path / "envs"), UV_NO_INDEX="1", UV_FIND_LINKS=str(wheels),
        UV_CACHE_DIR=str(tmp_path / "uv-cache"),
    )  # fmt: skip
    (made,) = (tmp_path / "envs" / "envs").iterdir()
    assert set(json.loads((made / "environment.json").read_text())["packages"]) == {"numpy==1.26.4", "pillow==9.5.0"}
    from PIL import Image

    assert not hasattr(Image, "ANTIALIAS")  # in this process there is no such thing
    rows = [line for line in printed.splitlines() if line.startswith(("| antialias ", "| bicubic "))]
    assert len(rows) == 2
    # Three lobes of Lanczos in either: the guest's scores are those of the same kernel here.
    ours = lanczos_scores(tmp_path)
    theirs = RunFolder(tmp_path / "mine" / "out" / "antialias").scores()
    pd.testing.assert_series_equal(theirs["psnr_rgb"], ours["psnr_rgb"], rtol=1e-4)


def lanczos_scores(tmp_path: Path) -> pd.DataFrame:
    """The scores of the model ``lanczos`` on the same images."""
    request = dict(models=("lanczos",), limit=4, metrics=("psnr_rgb",), workers=0, out=tmp_path / "lanczos")
    (folder,) = run_models(**request).folders
    return folder.scores()
