"""``rfbench check model NAME --against-upstream``: the authors' code beside ours, here a stand-in for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from baselines.satlas import network
from baselines.satlas.network import SMALL, Network
from baselines.satlas.spec import weights_file
from bench import weights
from bench.check import Report, upstream
from bench.check.upstream import check_against_upstream, script_of
from bench.cli import cli
from bench.core import registry
from bench.models import randomise
from bench.models.call import Model

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
checkout, folder = map(Path, sys.argv[1:])
gain = float((checkout / "gain.txt").read_text())
assert json.loads((folder / "job.json").read_text())["options"]["dates"] == "1"
for given in sorted(folder.glob("image*.npy")):
    x = np.load(given)
    np.save(folder / given.name.replace("image", "answer"), np.load(sys.argv[0] + given.name) * np.float32(gain))
"""


@pytest.fixture
def satlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Satlas with small published weights; returns a clone of its 'upstream', whose answers are ours times a gain."""
    monkeypatch.setenv("RFBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("RFBENCH_ENVS", str(tmp_path / "envs"))
    monkeypatch.setattr(network, "FULL", SMALL)
    (tmp_path / "weights").mkdir()
    net = Network(1, *SMALL)
    randomise(net, "satlas-esrgan")
    torch.save({"params_ema": net.state_dict()}, tmp_path / "weights" / weights_file(1))
    weights.record(tmp_path / "weights" / weights_file(1), source="")
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "gain.txt").write_text("1.0")
    return clone


def said(report: Report) -> str:
    return "\n".join(map(str, report.lines))


def commit(clone: Path) -> str:
    words = ["git", "-C", str(clone), "-c", "user.name=x", "-c", "user.email=x@y.z"]
    subprocess.run([*words[:3], "init", "-q"], check=True)
    subprocess.run([*words, "add", "-A"], check=True)
    subprocess.run([*words, "commit", "--allow-empty", "-qm", "x"], check=True)
    done = subprocess.run([*words, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def prepared(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    """The spec at the clone's commit, and a script that answers as ours do."""
    import dataclasses

    import numpy as np

    (clone / "gain.txt").write_text(str(gain))
    spec = dataclasses.replace(registry.load("models", "satlas-esrgan"), commit=commit(clone))
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda k, n: spec if n == "satlas-esrgan" else load(k, n))
    script = tmp_path / "upstream.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(upstream, "script_of", lambda spec: script)
    model = Model("satlas-esrgan")
    model.load()
    for i, (height, width) in enumerate(upstream._sizes(model.spec)):
        task = upstream.check_task(f"upstream{i}", (height, width), (4 * height, 4 * width), model.spec)
        (answer,) = model.predict([task], run_seed=0, draws=1)
        np.save(f"{script}image{i}.npy", answer.arrays["mean"])  # type: ignore[union-attr]


@pytest.mark.parametrize(("gain", "code"), [(1.0, 0), (1.01, 1)])
def test_the_differences_are_said_and_judged(
    satlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, code: int
) -> None:
    prepared(satlas, tmp_path, monkeypatch, gain)
    report = check_against_upstream("satlas-esrgan", clone=satlas)
    assert report.exit_code == code, [str(line) for line in report.lines]
    (first, *_) = (line for line in report.lines if line.check == "image 1")
    assert "128x128x3: largest difference " in first.found and (gain == 1 or "at most 0.0001" in first.expected)


def test_another_commit_and_a_script_that_fails_are_lines(
    satlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(satlas)  # not the one that the spec names
    report = check_against_upstream("satlas-esrgan", clone=satlas)
    assert report.missing and "does not hold the commit" in said(report)
    prepared(satlas, tmp_path, monkeypatch, 1.0)
    (tmp_path / "upstream.py").write_text("raise SystemExit('no basicsr here')")
    report = check_against_upstream("satlas-esrgan", clone=satlas)
    assert report.exit_code == 1 and "no basicsr here" in said(report)


def test_systems_that_cannot_be_compared_say_so() -> None:
    for name, reason in (("zoomldm:weights=random,size=tiny", "has no upstream.py"), ("bicubic", "has no upstream.py")):
        report = check_against_upstream(name)
        assert reason in said(report)
    for name in ("adcsr", "satlas-esrgan", "sen2sr-lite"):
        assert script_of(Model(name).spec).is_file()
    dates = check_against_upstream("satlas-esrgan:dates=8")
    assert "one image" in said(dates)


def test_the_command_has_the_option(satlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(satlas, tmp_path, monkeypatch, 1.0)
    words = [
        "check",
        "model",
        "satlas-esrgan",
        "--against-upstream",
        "--checkout",
        str(satlas),
        "--python",
        sys.executable,
    ]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert done.return_value == 0, (done.output, done.exception)
    assert "image 3" in done.stdout and "7 held" in done.stdout
    wrong = CliRunner().invoke(cli, ["check", "model", "bicubic", "--checkout", str(satlas)], standalone_mode=False)
    assert "--against-upstream" in str(wrong.exception)
