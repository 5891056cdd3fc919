"""Experiments in files do what the command line does, and whatever is wrong in them is one line; plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli import cli
from bench.configs.experiment import Experiment, dump, load, shipped
from bench.core.errors import RfbenchError
from bench.models.call import Model
from bench.records.folder import RunFolder
from bench.reports.paper.paper import _SYSTEMS
from tests.e2e.test_run import tree


def call(*words: object) -> Any:
    return CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)


def test_a_file_does_what_the_command_does_that_it_was_saved_by(dataset: Path, tmp_path: Path) -> None:
    options = ("--model", "bicubic", "--model", "nearest:label=N", "--data", dataset, "--metrics", "psnr_rgb,de00",
               "--limit", 2, "--workers", 0, "--batch-size", 2)  # fmt: skip
    saved = tmp_path / "saved.toml"
    done = call("run", *options, "--out", tmp_path / "a", "--save-config", saved)
    assert done.exit_code == 0 and done.exception is None, done.output
    again = call("run", "--config", saved, "--out", tmp_path / "b")
    assert again.return_value == 0 and again.stdout == done.stdout
    assert all(tree(tmp_path / "a" / name) == tree(tmp_path / "b" / name) for name in ("bicubic", "N"))
    found = load(str(saved))
    assert found.batch_size == 2 and found.model == ["bicubic", "nearest:label=N"] and load(str(saved)) == found
    assert found.draws is None and "draws" not in saved.read_text()


def test_several_protocols_and_seeds_then_tables_and_gates(dataset: Path, tmp_path: Path) -> None:
    """Each combination in a folder of its own; a gate that does not hold is the command's exit code."""
    golden = tmp_path / "golden"
    call("run", "--model", "bicubic", "--data", dataset, "--metrics", "psnr_rgb", "--workers", 0, "--out", golden)
    file = tmp_path / "e.toml"
    text = f"""
        protocol = ["paired", "paired:border_px=2"]
        data = "{dataset}"
        metrics = ["psnr_rgb"]
        workers = 0
        out = "{tmp_path / "out"}"
        [[model]]
        name = "bicubic"
        label = "B"
        [[table]]
        format = "csv"
        together = true
        out = "{tmp_path / "all.csv"}"
        """
    file.write_text(text)
    done = call("run", "--config", file)
    assert done.return_value == 0, done.output
    folders = sorted(p.parent for p in (tmp_path / "out").glob("*/B/run.json"))
    assert [RunFolder(p).record().plan.protocol["border_px"] for p in folders] == [0, 2]
    assert len((tmp_path / "all.csv").read_text().splitlines()) > 2
    file.write_text(text.replace('["paired", "paired:border_px=2"]', '"paired"').replace('label = "B"', "")
                    + f'[[gate]]\nagainst = "{golden}"\n')  # fmt: skip
    assert call("run", "--config", file, "--out", tmp_path / "held").return_value == 0
    assert isinstance(call("run", "--config", file, "--limit", 2, "--out", tmp_path / "other").exception, RfbenchError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle = ['bicubic']", "unknown field 'modle'; did you mean model?"),
        ("batch_size = 2", "unknown field 'batch_size'; did you mean batch-size?"),
        ("draws = 'four'", "draws: found 'four', expected a whole number"),
        ("format = 2", "format: found 2"),
        ("[[model]]\nnme = 'bicubic'", "model\\[0\\]: the field 'name' is missing"),
        ("model = [3]", "model\\[0\\]: found 3, expected"),
        ("draws = ", "is no TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(RfbenchError, match=said):
        load(str(tmp_path / "e.toml"))


def test_what_is_of_one_call_is_in_no_file(dataset: Path, tmp_path: Path) -> None:
    words = ("--model", "bicubic", "--data", dataset, "--limit", 1, "--metrics", "psnr_rgb", "--workers", 0)
    done = call(
        "run", *words, "--no-report", "--fresh", "--out", tmp_path / "out", "--save-config", tmp_path / "e.toml"
    )
    assert done.return_value == 0, done.output
    assert not {"report", "fresh"} & {line.partition(" ")[0] for line in (tmp_path / "e.toml").read_text().splitlines()}


def test_a_table_s_options_are_checked(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(
        f'model = ["bicubic"]\ndata = "{dataset}"\nmetrics = ["psnr_rgb"]\nlimit = 1\nworkers = 0\n'
        f'out = "{tmp_path / "out"}"\n[[table]]\nfromat = "csv"\n'
    )
    assert "did you mean format" in str(call("run", "--config", tmp_path / "e.toml").exception)
    assert not (tmp_path / "out").exists(), "it is told before anything is computed"


def test_a_name_that_is_no_experiment_has_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError, match="did you mean table1 or table2"):
        load("table11")
    assert shipped() == ["embedded", "table1", "table2"]


@pytest.mark.parametrize(("name", "table"), [("table1", 1), ("table2", 2)])
def test_shipped_experiments_have_the_systems_of_the_paper(name: str, table: int) -> None:
    """Each is known here with its options, and what is written is what is read."""
    experiment = load(name)
    models = [Model(text) for text in experiment.models()]
    printed = {row.replace("-", "").casefold() for row in _SYSTEMS[table]}
    assert {m.spec.name.replace("-", "") for m in models} == printed and len(models) == len(printed)
    assert all(m.spec.paper.get(f"table {table}") for m in models)
    assert load(name) == experiment and "name = " in dump(experiment)


def test_what_is_dumped_is_read(tmp_path: Path) -> None:
    experiment = Experiment(
        model=["bicubic", {"name": "files", "folder": 'a "b"\\c', "draws": 2}], seed=[0, 1], data="é",
        batch_size="auto", table=[{"ci": True, "format": "csv"}], metrics=["psnr_rgb"],
    )  # fmt: skip
    (tmp_path / "e.toml").write_text(dump(experiment), encoding="utf-8")
    found = load(str(tmp_path / "e.toml"))
    assert found.models() == experiment.models() and found.seed == [0, 1] and found.batch_size == "auto"
    assert found.table == experiment.table and found.data == "é"


def test_a_plan_says_what_would_be_done(dataset: Path, tmp_path: Path) -> None:
    """What is done, what earlier runs cost, and what is missing; nothing is written."""
    words = ("--model", "bicubic", "--model", "adcsr", "--data", dataset, "--metrics", "psnr_rgb,lpips_alex",
             "--weights-dir", tmp_path / "site", "--out", tmp_path / "out", "--workers", 0)  # fmt: skip
    (tmp_path / "site").mkdir()
    before = call("plan", *words)
    assert before.return_value == 2 and not (tmp_path / "out").exists()
    row = next(line for line in before.output.splitlines() if line.startswith("| bicubic"))
    # 60 x 80 px of four bands in float32, five times.
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["5", "5", "1", "1", "float32", "–", "–", "384 kB"]
    assert "left out: model adcsr" in before.output and "metric lpips_alex: weights missing" in before.output
    call("run", *words, "--limit", 2)
    after = call("plan", *words, "--limit", 2)
    row = next(line for line in after.output.splitlines() if line.startswith("| bicubic"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[:2] == ["2", "0"] and cells[5] == "0 s" and cells[6].endswith(("MB", "GB"))
