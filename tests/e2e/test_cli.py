"""The command line as a user meets it: a plugin through every door, one-line errors, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import rfbench, start
from tests.conftest import ROOT, install_plugin

FAST = "psnr_rgb,ssim_rgb,mean_error"


def test_a_plugin_works_in_run_table_and_ls(tmp_path: Path) -> None:
    site = install_plugin(tmp_path / "site")
    done = rfbench(
        "run", "--model", "noisy:amount=0.1", "--model", "bicubic", "--protocol", "darker:factor=0.8",
        "--data", "ramps", "--metrics", FAST, "--out", str(tmp_path / "out"), "--workers", "1", site=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "noisy@mean" in done.stdout and "mean error" in done.stdout and "darker:factor=0.8" in done.stdout
    table = rfbench("table", str(tmp_path / "out"), "--format", "json", site=site)
    rows = {row["model"]: row["metrics"] for row in json.loads(table.stdout)["rows"]}
    assert set(rows) == {"bicubic", "noisy", "noisy@mean"}
    assert rows["bicubic"]["mean_error"]["n"] == 3 and rows["bicubic"]["mean_error"]["identity"].startswith(
        "mean_error|"
    )
    for kind, name in {"models": "noisy", "metrics": "mean_error", "protocols": "darker", "datasets": "ramps"}.items():
        listed = rfbench("ls", kind, site=site)
        assert listed.returncode == 0 and name in listed.stdout
    assert "broken: " in rfbench("ls", "models", site=site).stdout
    assert rfbench("hello", site=site).stdout == "hello from a plugin\n"
    assert "hello" in rfbench("--help", site=site).stdout


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    words = ("run", "--model", "nearest", "--limit", "2", "--metrics", "psnr_rgb", "--workers", "0")
    first = rfbench(*words, cwd=tmp_path)
    folder = next((tmp_path / "runs").glob("*/run.json")).parent
    stamp = (folder / "summary.json").stat().st_mtime_ns
    second = rfbench(*words, cwd=tmp_path)
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    assert (folder / "summary.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "did you mean run"),
        (["run"], "no model was named; give --model NAME"),
        (["run", "--model", "bicubc"], "did you mean bicubic"),
        (["run", "--model", "bicubic:steps=2"], "unknown option of model bicubic 'steps'"),
        (["run", "--model", "bicubic", "--model", "bicubic"], "two models would both be called 'bicubic'"),
        (["run", "--model", "bicubic", "--protocol", "pared"], "did you mean paired"),
        (["run", "--model", "bicubic", "--protocol", "paired:bordr=2"], "did you mean border_px"),
        (["run", "--model", "bicubic", "--protocol", "paired:border_px=-2"], "expected 0 or more"),
        (["run", "--model", "bicubic", "--metrics", "psnr"], "did you mean psnr_y or psnr_rgb"),
        (["run", "--model", "bicubic", "--data", "./nowhere"], "does not exist; give a dataset folder"),
        (["run", "--model", "bicubic", "--data", "scene"], "did you mean scenes"),
        (["run", "--model", "bicubic", "--split", "train"], "it has test: choose with --split"),
        (["run", "--model", "bicubic", "--limit", "0"], "--limit: found 0, expected 1 or more"),
        (["run", "--model", "bicubic", "--device", "tpu"], "expected auto, cpu, cuda"),
        (["run", "--model", "bicubic", "--strict"], "--strict: "),
        (["run", "--model", "bicubic", "--device", "cpu:1"], "expected auto, cpu, cuda"),
        (["run", "--model", "bicubic", "--dtype", "float16"], "expected float32, the arithmetic of bicubic"),
        (["run", "--model", "bicubic", "--metrics", ","], "--metrics: found no name"),
        (["run", "--model", "bicubic", "--protocol", "paired:scale=nan"], "expected a number"),
        (["run", "--model", "bicubic", "--protocol", "paired:scale=-2"], "expected a number of 1 or more"),
        (["run", "--model", "bicubic", "--weights-dir", "/nowhere"], "is not a folder"),
        (["run", "--model", "bicubic", "--dtype", "float8"], "'float8' is not one of"),
        (["table", "/nowhere"], "holds no run"),
        (["weights", "fetch"], "nothing is named; give files, --metrics NAMES"),
        (["weights", "fetch", "alexnet-owt.pth"], "did you mean alexnet-owt-7be5be79.pth"),
        (["weights", "verify", "--weights-dir", "/nowhere"], "is not a folder"),
        (["weights", "fetc"], "No such command 'fetc'"),
        (["data", "import", "foldr", "a", "b"], "did you mean folder"),
        (["data", "import", "folder", "/nowhere", "b"], "is not a folder"),
        (["data", "scenes", "b", "--size", "201"], "no multiple of the factor 5"),
        (["data", "scenes", "b", "--count", "0"], "expected 1 or more"),
        (["data", "scenes", "b", "--factor", "0"], "expected 1 or more"),
        (["ls", "model"], "'model' is not one of"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(words: list[str], message: str, tmp_path: Path) -> None:
    done = rfbench(*words, cwd=tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1 and message in errors[0], done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_runs_that_cannot_be_compared_are_refused_with_exit_code_3(tmp_path: Path) -> None:
    for name, protocol in (("a", "paired"), ("b", "paired:quantise=none")):
        rfbench(
            "run", "--model", "nearest", "--limit", "1", "--metrics", "psnr_rgb", "--workers", "0",
            "--protocol", protocol, "--out", str(tmp_path / name),
        )  # fmt: skip
    done = rfbench("table", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.returncode == 3 and "quantise" in done.stderr and "cannot stand in one table" in done.stderr


def one_image(out: Path) -> tuple[str, ...]:
    """The command that tests of run folders repeat."""
    return ("run", "--model", "nearest", "--limit", "1", "--metrics", "psnr_rgb", "--workers", "0", "--out", str(out))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ``one_image``, which goes on without its ``host.json``; to be copied."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert rfbench(*one_image(out)).returncode == 0
    (out / "nearest" / "host.json").write_text("{}")  # no number depends on it
    assert rfbench(*one_image(out)).returncode == 0
    return out


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "{}"),
        ("run.json", '{"format": 1, "plan": {}, "plan_sha256": "", "software": {}}'),
    ],
)
def test_a_broken_run_folder_is_one_line(whole: Path, tmp_path: Path, file: str, content: str) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "nearest" / file).write_text(content)
    for done in (rfbench(*one_image(out)), rfbench("table", str(out))):
        assert done.returncode == 2 and "Traceback" not in done.stderr and file in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "["),
        ("summary.json", "{}"),
        ("summary.json", '{"format": 1, "rows": {"sample": {}}, "failed": [], "plan_sha256": ""}'),
    ],
)
def test_a_record_that_cannot_be_read_is_one_line_to_readers_and_made_again_by_a_run(
    whole: Path, tmp_path: Path, file: str, content: str
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    good = (out / "nearest" / file).read_bytes()
    (out / "nearest" / file).write_text(content)
    read = rfbench("table", str(out))
    assert read.returncode == 2 and "Traceback" not in read.stderr and file in read.stderr, read.stderr
    again = rfbench(*one_image(out))
    assert again.returncode == 0 and (out / "nearest" / file).read_bytes() == good, again.stderr


def test_a_folder_that_another_process_uses_is_refused(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path / "out" / "nearest"
    folder.mkdir(parents=True)
    with os.fdopen(os.open(tmp_path / "held", os.O_CREAT | os.O_RDWR)):
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = rfbench(
            "run", "--model", "nearest", "--limit", "1", "--metrics", "psnr_rgb", "--out", str(tmp_path / "out")
        )
        os.close(handle)
    assert done.returncode == 2 and "another process runs in" in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = rfbench(
        "run", "--model", "nearest", "--limit", "1", "--metrics", "psnr_rgb", "--out", str(tmp_path / "file")
    )
    assert done.returncode == 2 and "choose another --out" in done.stderr and "Traceback" not in done.stderr


def test_an_interruption_keeps_what_was_computed(tmp_path: Path) -> None:
    process = start("run", "--model", "bicubic", "--out", str(tmp_path), "--workers", "0")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("bicubic/items/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and "the same command goes on" in process.stderr
    assert "Traceback" not in process.stderr
    assert list(tmp_path.glob("bicubic/items/*.json"))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from bench.cli import cli; cli(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.rsplit("[", 1)[1]
    for heavy in ("torch", "numpy", "pandas", "rasterio", "rich", "matplotlib"):
        assert f"'{heavy}'" not in loaded


def test_the_readme_s_commands_are_the_ones_that_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    (line,) = [line for line in ci.splitlines() if "tox" in line and not line.startswith("#")]
    assert line.replace("install -q", "install") in readme


def test_validate_says_by_its_exit_code_what_it_found(dataset: Path, tmp_path: Path) -> None:
    clean = rfbench("validate", str(dataset))
    assert clean.returncode == 0 and clean.stdout.splitlines()[-1].startswith("fingerprint: "), clean.stdout
    (dataset / "hr" / "im1.npy").write_bytes(b"no array")
    broken = rfbench("validate", str(dataset))
    assert broken.returncode == 1 and "error: im1: hr: hr/im1.npy cannot be read" in broken.stdout
    nothing = rfbench("validate", str(tmp_path / "nothing"))
    assert nothing.returncode == 2 and nothing.stdout == "" and nothing.stderr.startswith("error: ")
    assert len(nothing.stderr.splitlines()) == 1


def test_a_path_that_no_file_system_takes_is_one_line(tmp_path: Path) -> None:
    done = rfbench("score", "--pred", "9" * 400, "--ref", str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: 999") and "File name too long; check the path" in done.stderr
