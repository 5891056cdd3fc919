"""Environments and checkouts: addressed by content, whole or absent, verified; one line where they cannot be made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli import cli
from bench.core.errors import RfbenchError, Unavailable
from bench.models.guests import checkout, environment
from bench.models.guests.environment import Environment
from tests.conftest import installed
from tests.guests import fake_environment, install_guests, uv_is_here
from tests.wheels import wheel

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


needs_uv = pytest.mark.skipif(not uv_is_here(), reason="uv is not installed (pip install 'rfbench[envs]')")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RFBENCH_ENVS", str(tmp_path / "envs"))
    with installed(install_guests(tmp_path / "site"), "rfbench_guests", "rfbench_guests.shim") as found:
        yield found


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that is all uv sees."""
    folder = tmp_path / "wheels"
    wheel(folder, "clashlib", "1.0", {"clashlib.py": "VERSION = 1\n"})
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


def asked(site: Path, text: str = "clashlib==1.0\n", **changes: Any) -> Environment:
    (site / "rfbench_guests" / "requirements.txt").write_text(text)
    return Environment("rfbench_guests.shim:Noisy", "rfbench_guests/requirements.txt", **changes)


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def run(*words: str) -> int:
    code = cli.main(["envs", *words], standalone_mode=False)
    return code if isinstance(code, int) else 0


# --- environments ---------------------------------------------------------------------------------------------


@needs_uv
def test_an_environment_is_made_once_and_is_its_own(site: Path, wheels: Path) -> None:
    wanted = asked(site)
    made, is_new = environment.build("x", wanted)
    assert is_new and made.packages == ("clashlib==1.0",) and made.bytes > 0
    again, is_new = environment.build("x", wanted)
    assert not is_new and again == made == environment.find(wanted)
    code = (
        "import sys, clashlib; print(clashlib.VERSION, [m for m in ('torch', 'bench') if m in sys.modules], sys.prefix)"
    )
    done = subprocess.run([made.interpreter, "-c", code], capture_output=True, text=True, check=True, cwd=wheels)
    assert done.stdout.split() == ["1", "[]", str(made.path)]
    done = subprocess.run([made.interpreter, "-c", "import bench"], capture_output=True, text=True, cwd=wheels,
                          env=environment.clean_environ())  # fmt: skip
    assert "No module named 'bench'" in done.stderr
    assert files(environment.root() / "envs") == [made.key]


def test_the_address_says_what_is_in_it(site: Path) -> None:
    first = asked(site).key()
    assert asked(site).key() == first and len(first) == 16
    assert asked(site, "clashlib==1.0 \n").key() != first
    assert asked(site, python="3.9").key() != first
    assert asked(site, item_s=1, start_s=2).key() == first


def test_the_variant_for_processors_is_another_without_cuda(site: Path) -> None:
    both = "clashlib==1.0\nnvidia-cublas==13.4.1.3 ; sys_platform == 'linux'\ncuda-bindings==13.5.0\ntriton==3.9.0\n"
    wanted = asked(site, both)
    assert wanted.requirements_text("cpu") == "clashlib==1.0\n" and wanted.requirements_text() == both
    assert wanted.key("cpu") not in (wanted.key(), asked(site).key())


@needs_uv
def test_a_device_gets_the_variant_that_serves_it(site: Path, wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = asked(site)
    made, _ = environment.build("x", wanted, environment.CPU)
    assert "pip install" in (log := (environment.root() / "logs" / f"uv-{made.key}.log").read_text())
    assert "--torch-backend cpu" in log and environment.need("x", wanted) == made
    with pytest.raises(Unavailable, match=r"for processors alone, expected one for cuda:0; .* --device cuda' makes it"):
        environment.need("x", wanted, "cuda:0")
    whole, is_new = environment.build("x", wanted)
    assert is_new and environment.need("x", wanted, "cuda:0") == whole and environment.need("x", wanted) == made
    assert run("ls", "--json") == 0
    rows = [r for r in json.loads(capsys.readouterr().out) if r["model"] == "guest-noisy"]
    assert {r["environment"]: r["state"] for r in rows} == {whole.key: "built", made.key: "built for cpu"}
    assert run("rm", "--unused") == 0 and len(files(environment.root() / "envs")) == 2
    assert run("rm", "guest-noisy") == 0 and files(environment.root() / "envs") == []


@needs_uv
@pytest.mark.parametrize("text", ["clashlib==3.0\n", "not-there\n", "!!\n"])
def test_a_build_that_fails_leaves_nothing_and_is_one_line(site: Path, wheels: Path, text: str) -> None:
    with pytest.raises(
        RfbenchError, match=r"^cannot build the environment of x: uv: .*; .*, and repeat \(log: "
    ) as error:
        environment.build("x", asked(site, text))
    log = Path(str(error.value).split("log: ")[1][:-1])
    assert "\n" not in str(error.value) and "$ uv pip install" in log.read_text()
    assert files(environment.root() / "envs") == []


@needs_uv
def test_a_machine_without_network_is_told_so(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(RfbenchError, match="connect this machine, or name a copy of the packages by UV_FIND_LINKS"):
        environment.build("x", asked(site, "numpy==1.26.4\n"))


def test_without_uv_the_line_says_how_to_get_it(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(RfbenchError, match=r"uv .* is not installed; pip install 'rfbench\[envs\]'"):
        environment.build("x", asked(site))


@needs_uv
def test_a_killed_build_is_swept_and_a_damaged_environment_made_again(site: Path, wheels: Path) -> None:
    wanted = asked(site)
    left = environment.root() / "envs" / f".{wanted.key()}.12345.part"
    left.mkdir(parents=True)
    made, _ = environment.build("x", wanted)
    assert files(left.parent) == [made.key]
    (made.path / "environment.json").write_text("{")
    assert environment.find(wanted) is None
    with pytest.raises(Unavailable, match="'rfbench envs build x' makes it"):
        environment.need("x", wanted)
    assert environment.build("x", wanted)[1] and files(left.parent) == [made.key]


@needs_uv
def test_two_builds_at_once_make_one(site: Path, wheels: Path) -> None:
    wanted = asked(site)
    code = (
        "import sys; from bench.models.guests.environment import *; "
        f"print(build('x', Environment({wanted.shim!r}, {wanted.requirements!r}))[1])"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    both = [subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, text=True,
                             stdout=subprocess.PIPE) for _ in range(2)]  # fmt: skip
    assert sorted(p.communicate(timeout=60)[0].strip() for p in both) == ["False", "True"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-r other.txt\n", "expected packages alone"), ("numpy\n--constraint x\n", "expected packages alone")],
)
def test_requirements_say_all_that_is_installed(site: Path, text: str, expected: str) -> None:
    with pytest.raises(RfbenchError, match=expected):
        asked(site, text).key()


def test_a_spec_that_names_nothing_is_one_line(site: Path) -> None:
    with pytest.raises(RfbenchError, match=r"requirements: found 'nowhere/x.txt', expected package/folder"):
        Environment("rfbench_guests.shim:Noisy", "nowhere/x.txt").key()
    with pytest.raises(RfbenchError, match=r"requirements rfbench_guests/x.txt cannot be read \("):
        Environment("rfbench_guests.shim:Noisy", "rfbench_guests/x.txt").key()
    with pytest.raises(RfbenchError, match=r"the shim rfbench_guests.nothing:X has no file"):
        Environment("rfbench_guests.nothing:X", "rfbench_guests/requirements.txt").shim_file()


# --- checkouts ------------------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def upstream(tmp_path: Path) -> tuple[Path, list[str]]:
    """A repository of two commits, the first of which is the good one, and their ids."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "-q")
    commits = []
    for text in ("GOOD = True\n", "GOOD = False\n"):
        (folder / "models.py").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", "x")
        commits.append(git(folder, "rev-parse", "HEAD"))
    return folder, commits


@needs_git
def test_a_checkout_is_at_the_commit_whatever_the_clone_is_at(site: Path, upstream: tuple[Path, list[str]]) -> None:
    source, (good, _) = upstream
    (source / "models.py").write_text("changed by the user\n")
    with pytest.raises(Unavailable, match=rf"checkout missing: x at commit {good[:12]}; 'rfbench envs build x' fetch"):
        checkout.need("x", good)
    folder, is_new = checkout.make("x", "https://example.org/x", good, source)
    assert is_new and (folder / "models.py").read_text() == "GOOD = True\n"
    assert checkout.make("x", "https://example.org/x", good) == (folder, False)
    assert checkout.need("x", good) == folder


@needs_git
def test_upstream_s_address_serves_as_well(site: Path, upstream: tuple[Path, list[str]]) -> None:
    source, (good, _) = upstream
    folder, _ = checkout.make("x", source.as_uri(), good)
    assert (folder / "models.py").read_text() == "GOOD = True\n"


@needs_git
def test_a_checkout_that_is_not_the_pinned_one_is_refused(site: Path, upstream: tuple[Path, list[str]]) -> None:
    source, (good, bad) = upstream
    folder, _ = checkout.make("x", source.as_uri(), good, source)
    (folder / "models.py").write_text("GOOD = None\n")
    with pytest.raises(
        Unavailable, match=r"checkout wrong: files of x were changed \(M models.py\); 'rfbench envs rm x'"
    ):
        checkout.need("x", good)
    git(folder, "checkout", "-q", "--", ".")
    (folder / "notes.txt").write_text("harmless")
    assert checkout.need("x", good) == folder
    (folder / ".gitignore").write_text("torch.py\n")
    (folder / "torch.py").write_text("")
    with pytest.raises(Unavailable, match=r"checkout wrong: modules were added to x \(torch.py\); 'rfbench envs rm x'"):
        checkout.need("x", good)
    git(folder, "fetch", "-q", str(source), bad)
    git(folder, "checkout", "-q", "--force", bad)
    with pytest.raises(Unavailable, match=rf"x is at commit {bad[:12]}, expected {good[:12]}; "):
        checkout.need("x", good)
    shutil.rmtree(folder / ".git")
    with pytest.raises(Unavailable, match="checkout wrong"):
        checkout.need("x", good)
    assert checkout.make("x", source.as_uri(), good)[1] and checkout.need("x", good)


@needs_git
def test_what_cannot_be_fetched_is_one_line(site: Path, upstream: tuple[Path, list[str]], tmp_path: Path) -> None:
    source, (good, _) = upstream
    with pytest.raises(
        RfbenchError, match=r"cannot fetch the checkout of x from .*: git: .*rfbench envs build x --checkou"
    ):
        checkout.make("x", (tmp_path / "nowhere").as_uri(), good)
    with pytest.raises(RfbenchError, match=f"does not hold the commit {'0' * 12} that rfbench runs"):
        checkout.make("x", "https://example.org/x", "0" * 40, source)
    with pytest.raises(RfbenchError, match="is no git clone"):
        checkout.make("x", "https://example.org/x", good, tmp_path / "nowhere")
    with pytest.raises(RfbenchError, match="needs upstream and a whole commit"):
        checkout.make("x", "https://example.org/x", good[:12], source)
    assert files(environment.root() / "checkouts") == []


# --- the command ----------------------------------------------------------------------------------------------


@needs_uv
def test_the_command_builds_lists_and_removes(site: Path, wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = asked(site).key()
    run("ls")
    said = capsys.readouterr()
    row = next(line for line in said.out.splitlines() if line.startswith("guest-noisy"))
    assert key in row and "missing" in row and "next: rfbench envs build " in said.err
    assert run("build", "guest-noisy") == 0
    said = capsys.readouterr()
    assert said.out.startswith("guest-noisy: environment made, Python 3.") and ", 1 packages, " in said.out
    assert run("build", "guest-noisy") == 0
    assert capsys.readouterr().out.startswith("guest-noisy: environment is here")
    run("ls", "--json")
    (found,) = [r for r in json.loads(capsys.readouterr().out) if r["model"] == "guest-noisy"]
    assert (found["state"], found["packages"]) == ("built", ["clashlib==1.0"]) and found["bytes"] > 1000
    asked(site, "clashlib\n")
    run("ls")
    assert f"-            {key}  unused" in capsys.readouterr().out
    run("rm", "--unused")
    assert f"environment {key} removed" in capsys.readouterr().out and environment.built() == []


def test_the_command_keeps_what_another_model_shares(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from bench.cli import envs

    guests = envs._guests()
    spec = guests["guest-noisy"]
    assert spec.environment is not None
    fake_environment(spec.environment)
    both = {"guest-noisy": spec, "other": dataclasses.replace(spec, name="other")}
    monkeypatch.setattr(envs, "_guests", lambda: both)
    run("rm", "guest-noisy")
    assert "stays, since other needs it" in capsys.readouterr().out and len(environment.built()) == 1
    run("rm", "guest-noisy", "other")
    assert environment.built() == []
    capsys.readouterr()
    run("rm", "guest-noisy")
    assert capsys.readouterr().err == "guest-noisy: nothing of it is here\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("build",), "name models, or give --all"),
        (("build", "bicubic"), "the model bicubic runs in rfbench's own process"),
        (("build", "guest-nois"), "did you mean guest-noisy?"),
        (("build", "guest-noisy", "--checkout", "x"), "guest-noisy needs no checkout"),
        (("rm",), "nothing is named"),
        (("rm", "guest-nois"), "did you mean guest-noisy?"),
    ],
)
def test_wrong_words_are_one_line(site: Path, words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(RfbenchError, match=expected.replace("?", r"\?")):
        run(*words)
