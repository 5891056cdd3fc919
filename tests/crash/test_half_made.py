"""What is found half-made is as if it were not there: the command that made it makes it again, in the same bytes."""

from __future__ import annotations

import csv
import errno
import io
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click import Abort
from click.testing import CliRunner

from bench.cli import cli
from bench.core.lock import lock
from bench.core.progress import Progress
from bench.records.folder import RunFolder
from bench.reports.gate.golden import history
from tests.attack.commands import tree
from tests.conftest import write_dataset
from tests.scored_runs import numbers, scored_run
from tests.small_rareflow import small_config, write_config, write_pairs


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def call(*words: object) -> Any:
    return CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    data = write_dataset(tmp_path_factory.mktemp("half") / "data", count=2)
    return ["run", "--model", "bicubic", "--data", data, "--metrics", "psnr_rgb", "--workers", "0", "--no-report"]


def test_every_file_of_a_run_may_be_lost_or_cut(words: list[object], tmp_path: Path) -> None:
    command = [*words, "--out", tmp_path / "out"]
    assert call(*command).exception is None
    run = tmp_path / "out/bicubic"
    whole = tree(run)
    assert {Path(name).name for name in whole} >= {"run.json", "summary.json", "images.parquet", "metric.json"}
    for name, data in whole.items():
        for left in (b"", data[: len(data) // 2]):
            (run / name).write_bytes(left)
            done = call(*command)
            assert done.exception is None and tree(run) == whole, (name, len(left), done.exception)


def test_a_record_that_a_disk_does_not_give_just_now_is_not_given_up(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(*words, "--out", tmp_path / "out")
    lost, opened = tmp_path / "out/bicubic/run.json", io.open

    def fails(file: object, *options: Any, **more: Any) -> Any:
        if str(file) == str(lost):
            raise OSError(errno.EIO, "Input/output error", str(file))
        return opened(file, *options, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", fails)
        done = call(*words, "--out", tmp_path / "out")
    assert "run.json" in str(done.exception) and not (tmp_path / "out/superseded").exists()


def test_a_summary_that_cannot_be_read_is_one_line_to_readers(words: list[object], tmp_path: Path) -> None:
    call(*words, "--out", tmp_path / "out")
    (tmp_path / "out/bicubic/summary.json").write_bytes(b"")
    said = str(call("table", tmp_path / "out").exception)
    assert "summary.json is not readable JSON" in said and "\n" not in said


def test_scenes_that_were_interrupted_are_made_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scenes(name: str) -> Any:
        return call("data", "scenes", "--count", 2, "--size", 100, "--workers", 1, tmp_path / name)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    assert scenes("whole").exception is None
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", stop)
        assert isinstance(scenes("again").exception, KeyboardInterrupt | Abort)
    assert not (tmp_path / "again/pairs.csv").exists()
    assert scenes("again").exception is None and tree(tmp_path / "again") == tree(tmp_path / "whole")


def test_a_golden_run_whose_renewal_was_killed_at_a_rename_has_its_record_or_is_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        scored_run(tmp_path / name, "a", {"psnr_rgb": numbers(12, seed, 25.0)}) for seed, name in ((1, "x"), (2, "y"))
    ]
    golden, replace = tmp_path / "golden", Path.replace
    renewal = ["gate", runs[1].path, "--against", golden, "--update", "--reason", "second"]
    outcomes = set()
    for at in range(40):
        shutil.rmtree(golden, ignore_errors=True)
        call("gate", runs[0].path, "--against", golden, "--update", "--reason", "first")
        left = at

        def dies(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dies)
            was_killed = False
            try:
                call(*renewal)
            except Killed:
                was_killed = True
        held = call("gate", runs[1].path, "--against", golden).return_value == 0  # finishes what was begun
        reasons = [entry["reason"] for entry in history(RunFolder(golden / "a"))]
        assert reasons == ["first", "second"] if held else ["first"], at
        outcomes.add(held)
        assert call(*renewal).exception is None
        assert [entry["reason"] for entry in history(RunFolder(golden / "a"))] == ["first", "second"]
        if not was_killed:
            break
    assert outcomes == {True, False} and 3 <= at < 39


def test_a_second_training_in_a_folder_is_one_line(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", 5)
    config = write_config(tmp_path / "small.toml", small_config())
    with lock(tmp_path, "trains out", name="out"):
        done = call("train", "--config", config, "--data", data, "--out", tmp_path / "out", "--threads", 1)
    assert "trains out" in str(done.exception) and not (tmp_path / "out").exists(), done.exception


def test_labels_are_no_formulas_and_no_markup(tmp_path: Path) -> None:
    labels = ("=cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "[/red]x[bold]")
    for i, label in enumerate(labels):
        scored_run(tmp_path, f"m{i}", {"psnr_rgb": numbers(12, i, 25.0)}, label=label)
    rows = list(csv.reader(io.StringIO(call("table", tmp_path, "--format", "csv").stdout)))
    assert [row[0] for row in rows[1:]] == [f"'{label}" for label in labels[:3]] + [labels[3]]
    assert float(rows[1][2]) == pytest.approx(25, abs=1)
    shown = call("table", tmp_path, "--format", "text").stdout
    assert all(label in shown for label in labels)


def test_files_are_read_as_often_as_there_are_runs(tmp_path: Path) -> None:
    """A table, a comparison with one row and a gate: twice the runs, twice the files opened."""
    opened: dict[str, list[int]] = {}
    for count in (4, 8):
        runs = tmp_path / str(count)
        for i in range(count):
            scored_run(runs, f"m{i}", {"psnr_rgb": numbers(12, i, 25.0)})
        for words in (["table", runs], ["compare", runs, "--against", "m0"], ["gate", runs, "--against", runs]):
            _heard.clear()
            assert call(*words).exception is None
            opened.setdefault(str(words[0]), []).append(sum(path.startswith(str(runs)) for path in _heard))
    assert all(few > 0 and many <= 2 * few + 2 for few, many in opened.values()), opened


_heard: list[str] = []
sys.addaudithook(lambda event, arguments: _heard.append(str(arguments[0])) if event == "open" else None)
