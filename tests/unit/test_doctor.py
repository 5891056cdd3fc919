"""``rfbench doctor``: what is broken is a line with a next step, whatever it is, and never an exception."""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import doctor, weights
from bench.cli import cli
from bench.core.licences import restriction
from bench.doctor import installation, parts
from bench.doctor.line import Line
from tests.conftest import ROOT, install_plugin, installed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch's start, which one test below has."""
    known = {"version": "9.9", "threads": 3, "cuda": None, "devices": []}
    monkeypatch.setattr(installation, "_TORCH", f"import json; print(json.dumps({known}))")


def look(out: Path, weights_dir: Path | None = None) -> dict[str, list[Line]]:
    by_subject: dict[str, list[Line]] = {}
    for line in doctor.examine(out, weights_dir):
        assert "\n" not in str(line) and (line.state != "problem" or line.next_step)
        by_subject.setdefault(line.subject, []).append(line)
    return by_subject


def problems(found: dict[str, list[Line]]) -> list[Line]:
    return [line for lines in found.values() for line in lines if line.state == "problem"]


def test_a_whole_installation_has_no_problem(tmp_path: Path) -> None:
    found = look(tmp_path / "not" / "there" / "yet")
    assert not problems(found) and not doctor.broken([line for lines in found.values() for line in lines])
    assert "bicubic" in found["models"][0].found and "24 images" in found["data"][0].found
    assert "9.9, 3 threads" in found["torch"][0].found
    assert str(tmp_path) in found["output"][0].found and not list(tmp_path.iterdir())


def test_torch_is_looked_at_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.undo()
    first, *rest = installation.torch_probe()()
    assert first.state == "ok" and torch.__version__ in first.found
    assert rest and all(line.subject == "device" for line in rest)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_like_this", "does not work: ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("import os; os.abort()", "it ended with code -6"),
        ("import time; time.sleep(60)", "did not start within 1 s"),
        ("print('no json')", "could not be looked at: JSONDecodeError"),
    ],
)
def test_a_torch_that_does_not_start_is_a_line(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "_TORCH", code)
    monkeypatch.setattr(installation, "_TIMEOUT_S", 1 if "sleep" in code else 60)
    found = look(tmp_path)
    (line,) = problems(found)
    assert line.subject == "torch" and words in line.found and line.needed


@pytest.mark.parametrize(
    ("room", "probe"),
    [(installation, "rfbench"), (installation, "python"), (installation, "packages"), (installation, "threads"),
     (parts, "embedded"), (parts, "models"), (parts, "plugins"), (doctor.weights, "licences")],
)  # fmt: skip
@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), SystemExit(1), RecursionError()])
def test_a_probe_that_fails_is_a_line(
    room: Any, probe: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: Any) -> Any:
        raise error

    for place, other in ((parts, "embedded"), (parts, "models"), (parts, "plugins"), (doctor.weights, "licences")):
        monkeypatch.setattr(place, other, lambda *_: iter(()))  # quick: they read files
    monkeypatch.setattr(room, probe, raising)
    (line,) = problems(look(tmp_path))
    assert "could not be looked at: " in line.found and type(error).__name__ in line.found


def test_the_python_range_is_the_project_s(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (a, b), (c, d) = installation.PYTHON
    assert project["requires-python"] == f">={a}.{b},<{c}.{d}"
    monkeypatch.setattr("sys.version_info", (3, 9, 1))
    (line,) = installation.python()
    assert line.state == "problem" and line.needed and "3.9.1, expected 3.11 to 3.13" in line.found
    assert line.next_step == "python3.11 -m venv .venv"


def test_missing_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        return ["nowhere>=1", "numpy>=99", "click>=8", 'alsonowhere>=2; extra == "iqa"', 'third; extra == "test"']

    monkeypatch.setattr("importlib.metadata.requires", requires)
    first, second = installation.packages()
    assert first.needed and "nowhere is missing; numpy " in first.found and "(expected >=99)" in first.found
    assert second.state == "note" and "alsonowhere" in second.found and second.next_step == "pip install 'rfbench[iqa]'"


def test_a_broken_plugin_is_a_problem_but_not_the_benchmark_s(tmp_path: Path, plugin: Path) -> None:
    found = look(tmp_path)
    (line,) = problems(found)
    assert "rfbench-example 1.0" in line.found and "rfbench_example_missing" in line.found and not line.needed
    assert line.next_step == "rfbench check model broken"
    assert "model noisy (rfbench-example 1.0)" in found["plugins"][-1].found


def test_a_plugin_that_raises_where_it_is_asked_is_a_line(tmp_path: Path) -> None:
    code = """
from bench.metrics.base import Metric
class Bad(Metric):
    name, title, direction, group, licence = "bad", "bad", "up", "fidelity", "CC BY-NC 4.0"
    def missing(self):
        raise ValueError("a bug of the plugin")
def dataset():
    raise SystemError("no data")
"""
    points = "[rfbench.metrics]\nbad = badplugin:Bad\n[rfbench.datasets]\nnone = badplugin:dataset\n"
    with installed(install_plugin(tmp_path / "site", code, points, "badplugin"), "badplugin"):
        found = look(tmp_path)
    (line,) = problems(found)
    assert line.found == "bad: a bug of the plugin" and line.next_step == "rfbench check metric bad"
    assert any("CC BY-NC 4.0: no commercial use (metric bad)" in line.found for line in found["licences"])


def test_weights_missing_there_and_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(weights.ENVIRONMENT_VARIABLE, str(tmp_path / "gone"))
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "vgg16-397923af.pth").write_bytes(b"something else")
    found = look(tmp_path, folder)
    lines = {line.found.partition(":")[0]: line for line in found["metrics"]}
    assert lines["lpips_alex"].state == "note" and "weights missing: alexnet" in lines["lpips_alex"].found
    assert lines["lpips_alex"].next_step == "rfbench weights fetch --metrics lpips_alex"
    if "not installed" not in lines["dists"].found:
        assert lines["dists"].state == "problem" and "weights wrong" in lines["dists"].found
    assert any(line.next_step == f"mkdir -p '{tmp_path / 'gone'}'" for line in found["weights"])
    found = look(tmp_path, tmp_path / "nowhere")
    assert "--weights-dir" in found["weights"][0].found and not found["weights"][0].needed


@pytest.mark.parametrize(
    ("patch", "state", "words"),
    [
        (
            lambda m: m.setattr(tempfile, "TemporaryFile", _refuse),
            "problem",
            "cannot be written: Read-only file system",
        ),
        (lambda m: m.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(9, 8, 1)), "note", "0.0 GB free"),
    ],
)
def test_an_output_place_without_permission_or_room(
    patch: Callable[[pytest.MonkeyPatch], None], state: str, words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    patch(monkeypatch)
    (line,) = installation.output(tmp_path / "runs")
    assert line.state == state and words in line.found and line.next_step


def _refuse(**options: object) -> None:
    raise OSError(30, "Read-only file system")


def test_an_output_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (line,) = installation.output(tmp_path / "file" / "runs")
    assert line.state == "problem" and "is a file" in line.found


def test_thread_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9999")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    _, many, spinning = installation.threads()
    assert many.next_step.startswith("export OMP_NUM_THREADS=") and "spin" in spinning.found


@pytest.mark.parametrize(
    ("licence", "found"),
    [
        ("Apache-2.0", ""),
        ("MIT", ""),
        ("BSD-3-Clause (torchvision)", ""),
        ("CC BY 4.0", ""),
        ("CC BY-NC 4.0", "no commercial use"),
        ("cc_by_nc_sa_4.0", "no commercial use, changed copies under the same licence"),
        ("CC BY-SA 4.0", "changed copies under the same licence"),
        ("CC BY-ND 4.0", "no changed copies"),
        ("PolyForm Noncommercial (pyiqa)", "no commercial use"),
        ("GPL-3.0", "programs that contain it under the same licence"),
        ("LGPL-2.1", ""),
        ("Stability AI Community License", "conditions on who uses it, or what for"),
        ("all rights reserved", "no use without its owner's leave"),
    ],
)
def test_what_a_licence_restricts(licence: str, found: str) -> None:
    assert restriction(licence) == found


def test_a_licence_that_comes_with_an_option_is_named() -> None:
    found = [line.found for line in doctor.weights.licences()]
    (line,) = [text for text in found if "Stability AI Community License" in text]
    assert "conditions on who uses it, or what for" in line and "model rareflow with base=" in line


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["doctor", "--out", str(tmp_path)]
    assert cli.main(words, standalone_mode=False) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 problems; the embedded benchmark can run here"
    assert cli.main([*words, "--json"], standalone_mode=False) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == 1 and found["embedded_benchmark_runs"] and found["findings"][0]["subject"] == "rfbench"
    monkeypatch.setattr(installation, "_TORCH", "raise SystemExit('no torch')")
    assert cli.main(words, standalone_mode=False) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 problem; the embedded benchmark cannot run here"


def test_lists_of_metrics_name_them_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["ls", "metrics", "--json"], standalone_mode=False)
    rows = json.loads(capsys.readouterr().out)
    assert {r["metric"] for r in rows if r["default"]} >= {"psnr_rgb", "sam_rgb"} and not any(
        "*" in r["metric"] for r in rows
    )
    assert all(isinstance(r["default"], bool) for r in rows)


def test_a_long_finding_is_broken_below_its_beginning_on_a_terminal() -> None:
    line = Line("weights", "note", "alexnet is missing, and so are seven others of metrics", "rfbench weights ls")
    assert str(line) == line.shown(None) and "\n" not in str(line)
    first, *rest = line.shown(60).splitlines()
    assert first.startswith("note     weights   alexnet") and rest and max(map(len, [first, *rest])) <= 60
    assert all(part.startswith(" " * 19) and part[19] != " " for part in rest)
