"""What is installed: a wheel made of what the container's image copies, one version, and extras that only some need."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement

import bench
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = ROOT / "docs" / "docker" / "Dockerfile"
OF_TRAINING = ("accelerate", "tensorboard", "diffusers", "transformers")


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert importlib.metadata.version("rfbench") == bench.__version__
    assert f"\nversion: {bench.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_authors_and_licence_are_the_citation_s() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert all(f"- name: {author['name']}\n" in citation for author in PROJECT["authors"])
    assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_constraints_hold_what_the_project_requires() -> None:
    """A requirement of ours that the file lacks, or has in a version that is too old, would be found in CI alone."""
    pinned: dict[str, list[str]] = {}
    for line in (ROOT / "tests" / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition(";")[0].strip().partition("==")
            pinned.setdefault(_name(name), []).append(version)
    wanted = [*PROJECT["dependencies"], *(text for of in PROJECT["optional-dependencies"].values() for text in of)]
    for requirement in map(Requirement, wanted):
        if requirement.name == "rfbench":  # an extra that takes in another one
            assert requirement.extras <= set(PROJECT["optional-dependencies"])
            continue
        versions = pinned.get(_name(requirement.name), [])
        assert versions and all(requirement.specifier.contains(v) for v in versions), (str(requirement), versions)


def _name(text: str) -> str:
    return re.sub("[-_.]+", "-", text).lower()


def test_scoring_and_gating_import_nothing_of_training(tmp_path: Path) -> None:
    golden = ROOT / "results" / "golden" / "bicubic"
    code = f"""
import sys
from pathlib import Path
import numpy as np
from bench.cli import cli
for folder in ("pred", "ref"):
    Path(folder).mkdir()
    np.save(f"{{folder}}/a.npy", np.random.default_rng(len(folder)).random((32, 32, 3), dtype=np.float32))
words = ["score", "--pred", "pred", "--ref", "ref", "--metrics", "psnr_rgb,ssim_rgb,de00", "--scale", "1"]
codes = [cli.main([*words, "--workers", "0"], standalone_mode=False)]
codes.append(cli.main(["gate", {str(golden)!r}, "--against", {str(golden)!r}], standalone_mode=False))
print(codes, sorted(set({OF_TRAINING!r}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=_environment(ROOT)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 0] []"


def test_training_without_its_extra_says_in_a_line_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.core.errors import Unavailable
    from rareflow.train.cli import need_packages

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(Unavailable) as caught:
        need_packages()
    assert str(caught.value) == "training needs tensorboard; install with: pip install 'rfbench[train]'"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it, of what the container's image copies."""
    place = tmp_path_factory.mktemp("built")
    source = place / "source"
    for path in _copied():
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, source / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, source / path)
    _build("sdist", source, place)
    with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
        archive.extractall(place, filter="data")
    _build("wheel", next(place.glob("rfbench-*/")), place)
    return place


def _build(kind: str, source: Path, target: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_wheel_holds_the_packages_their_data_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    information = f"rfbench-{bench.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"bench", "baselines", "rareflow", "rfbench", information}
    for package in ("bench", "baselines", "rareflow", "rfbench"):
        assert f"{package}/py.typed" in names
    for root in ("bench", "baselines", "rareflow"):  # whatever git has of a package, code or data, is there
        tracked = _tracked(root)
        assert tracked - names == {p for p in tracked if p.startswith("bench/api/rfbench/")}
    metadata = zipfile.ZipFile(wheel).read(f"{information}/METADATA").decode()
    needed = {Requirement(line[15:]) for line in metadata.splitlines() if line.startswith("Requires-Dist: ")}
    always = {requirement.name for requirement in needed if requirement.marker is None}
    assert "torch" in always and not {"accelerate", "tensorboard", "pyiqa"} & always


def _tracked(root: str) -> set[str]:
    """The files of a package that git has; in a tree without git all that lie there. Pages for readers are left out."""
    found = [path.relative_to(ROOT).as_posix() for path in (ROOT / root).rglob("*") if path.is_file()]
    if (ROOT / ".git").exists() and shutil.which("git"):
        words = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--", root]
        listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        found = sorted({*found} & {*listed})  # a file that was taken away and not yet committed is none
    return {path for path in found if "__pycache__" not in path and not path.endswith(".md")}


def test_the_sdist_holds_what_it_is_built_of(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2].partition("/")[0] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "bench", "baselines", "rareflow"} <= names
    assert not {"results", ".venv", "runs"} & names


def test_the_wheel_works_beside_a_folder_called_bench(built: Path, tmp_path: Path) -> None:
    """Installed into an environment of its own, with a folder of the user's that has our package's name."""
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    (site,) = environment.glob("lib/python*/site-packages")
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(site)
    # What rfbench requires comes from where it lies already.
    (site / "base.pth").write_text(f"{Path(click.__file__).parents[1]}\n")
    script = environment / "bin" / "rfbench"
    script.write_text(  # as an installer writes it
        f"#!{environment}/bin/python\nimport sys\nfrom bench.cli import main\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n"
    )
    script.chmod(0o755)
    mine = tmp_path / "mine"
    (mine / "bench").mkdir(parents=True)
    (mine / "bench" / "__init__.py").write_text("raise SystemExit('this is the folder of the user')\n")
    done = subprocess.run([script, "ls", "models"], cwd=mine, env=_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("bicubic ")]
    # Processes that compute come from the same place, and where their parent's socket has no room, too.
    far = tmp_path / ("a" * 60) / ("b" * 60)
    far.mkdir(parents=True)
    words = ["run", "--model", "bicubic", "--limit", "2", "--metrics", "psnr_rgb", "--no-report"]
    tables = set()
    for workers, more in ((2, {}), (1, {"TMPDIR": str(far)})):  # there each starts from nothing: one is enough
        own = ["--workers", str(workers), "--out", str(tmp_path / f"runs{workers}")]
        done = subprocess.run(
            [script, *words, *own], cwd=mine, env=_environment() | more, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        tables.add(done.stdout.partition("\n\n")[0])
    assert len(tables) == 1
    assert not [p for p in far.iterdir() if p.name.startswith("pymp-")]
    where = "import bench, rfbench; print(bench.__file__, rfbench.__version__)"
    done = subprocess.run(
        [environment / "bin" / "python", "-P", "-c", where],
        cwd=mine,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(site / "bench" / "__init__.py"), bench.__version__], done.stderr


def _environment(*path: Path) -> dict[str, str]:
    """This process's, without what would lead Python to the checkout."""
    found = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return found | ({"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {})


# --- the container ------------------------------------------------------------------------------------------


def _instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, broken lines put together."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole.splitlines())]


def _copied() -> list[str]:
    return [path for word, rest in _instructions() if word == "COPY" for path in rest.split()[:-1]]


def test_the_container_copies_what_there_is_and_its_commands_are_of_the_shell() -> None:
    """As far as a machine without Docker can go; that the package builds of what is copied, ``built`` shows."""
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT"}
    assert {word for word, _ in _instructions()} == known
    assert [path for path in _copied() if not (ROOT / path).exists()] == []
    allowed = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{path}" for path in _copied()} == {line for line in allowed if line.startswith("!")}
    (base,) = [rest for word, rest in _instructions() if word == "FROM"]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(re.findall(r"[\d.]+", base)[0])
    for word, rest in _instructions():
        if word == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)


@pytest.mark.parametrize(("extras", "expected"), [("", "."), ("iqa,train", ".[iqa,train]")])
def test_the_container_s_extras_are_the_project_s(extras: str, expected: str) -> None:
    (install,) = [rest for word, rest in _instructions() if word == "RUN" and "EXTRAS" in rest]
    said = subprocess.run(
        ["sh", "-c", install.replace("pip install", "echo")], env={"EXTRAS": extras, "PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shlex.split(said.stdout)[-1] == expected
    assert set(filter(None, extras.split(","))) <= set(PROJECT["optional-dependencies"])
