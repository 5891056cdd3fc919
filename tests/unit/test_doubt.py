"""Tables with intervals, and marks only where the data separate the rows."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.cli.table import command
from bench.metrics.uncertainty import LEVELS
from bench.records.folder import RunFolder
from bench.reports.table.build import build_table
from bench.reports.table.doubt import with_intervals, with_separated_marks
from bench.reports.table.write import to_csv, to_json, to_latex, to_markdown
from bench.stats.means import mean_of
from tests.scored_runs import images, numbers, scored_run

BASE = numbers(24, 0, 25, 3)


def near(by: float, seed: int, noise: float = 0.3) -> dict[str, float | None]:
    """``BASE`` and some more, with noise of its own."""
    rng = np.random.default_rng(seed)
    return {i: (v or 0) + by + float(rng.normal(0, noise)) for i, v in BASE.items()}


@pytest.fixture
def four(tmp_path: Path) -> list[RunFolder]:
    """a is clearly last; b is second; c and d are the best and cannot be told from each other."""
    values = {"a": near(-5, 1), "b": near(-1, 2), "c": near(0, 3), "d": near(0.02, 4)}
    return [scored_run(tmp_path, n, {"psnr_rgb": v, "de00": numbers(24, 9, 5)}) for n, v in values.items()]


def ranks(runs: list[RunFolder], metric: str = "psnr_rgb") -> list[str | None]:
    table = with_separated_marks(build_table(runs, [metric]), runs)
    return [row.cells[0].rank for row in table.rows]


def test_what_the_data_cannot_tell_from_the_best_is_marked_like_it(four: list[RunFolder]) -> None:
    assert [r.cells[0].rank for r in build_table(four, ["psnr_rgb"]).rows].count("best") == 1
    assert ranks(four) == [None, "second", "best", "best"]
    assert ranks(four[::-1]) == ["best", "best", "second", None]


def test_equal_rows_are_all_best(four: list[RunFolder]) -> None:
    assert ranks(four, "de00") == ["best"] * 4


def test_a_column_with_one_number_has_no_mark(tmp_path: Path) -> None:
    runs = [
        scored_run(tmp_path, "a", {"psnr_rgb": BASE}),
        scored_run(tmp_path, "b", {"psnr_rgb": dict.fromkeys(BASE)}),
    ]
    assert ranks(runs) == [None, None]


def test_rows_of_fewer_images_are_not_marked(four: list[RunFolder], tmp_path: Path) -> None:
    fewer = scored_run(tmp_path, "e", {"psnr_rgb": near(9, 5)}, failed=("scene_0001",))
    assert ranks([*four, fewer]) == [None, "second", "best", "best", None]


def test_a_row_that_cannot_be_tested_has_no_mark(tmp_path: Path) -> None:
    """Not a tie with the best: nothing was found out about it."""
    runs = []
    for k, (name, shift) in enumerate((("a", 0.02), ("b", 0.02), ("c", 0.1), ("d", 0.05))):
        rng = np.random.default_rng(k // 2)  # a and b are alike
        ece = {
            i: {"coverage": np.clip(LEVELS + shift + rng.normal(0, 0.01, len(LEVELS)), 0, 1), "pixels": np.array([9.0])}
            for i in images(12)
        }
        runs.append(scored_run(tmp_path, name, {"psnr_rgb": numbers(12, 0)}, ece=ece))
    next(runs[3].path.glob("scores/ece.*/features.safetensors")).unlink()
    table = with_separated_marks(build_table(runs, ["ece"]), runs)
    marks = [row.cells[0].rank for row in table.rows]
    assert marks[3] is None and "best" in marks[:2] and marks[2] == "second"
    assert any(note.startswith("ECE of d: not marked, one number for all images") for note in table.notes)
    next(runs[0].path.glob("scores/ece.*/features.safetensors")).unlink()
    next(runs[1].path.glob("scores/ece.*/features.safetensors")).unlink()
    assert set(ranks(runs, "ece")) == {None}


def test_five_scenes_separate_nothing(tmp_path: Path) -> None:
    scenes = {i: f"s{k % 5}" for k, i in enumerate(images(24))}
    runs = [scored_run(tmp_path, n, {"psnr_rgb": near(k, k)}, scenes=scenes) for k, n in enumerate("ab")]
    assert ranks(runs) == [None, None]
    table = with_separated_marks(with_intervals(build_table(runs), runs), runs)
    text = to_markdown(table)
    assert "not marked: 5 scenes cannot separate rows, at least 6 are needed" in text
    assert "no interval: 5 scenes, an interval needs at least 6" in text and "[2" not in text


def test_intervals_are_those_of_the_rows_own_means(four: list[RunFolder]) -> None:
    table = with_intervals(build_table(four), four)
    expected = mean_of([v or 0 for v in near(-5, 1).values()], images(24))
    cell = table.rows[0].cells[0]
    assert (cell.low, cell.high) == (expected.low, expected.high)
    assert cell.interval == f"[{expected.low:.2f}, {expected.high:.2f}]"


def test_the_writers(four: list[RunFolder]) -> None:
    table = with_separated_marks(with_intervals(build_table(four), four), four)
    cell = table.rows[2].cells[0]
    shown = " ".join(to_markdown(table).split())
    other = table.rows[3].cells[0]  # the best, and what cannot be told from it
    assert f"**{cell.text}≈** {cell.interval}" in shown and f"**{other.text}** {other.interval}" in shown
    assert "of each column, ≈ beside what 24 scenes cannot tell from it (paired by image" in shown
    latex = to_latex(table)
    assert f"{{\\scriptsize {cell.interval}}}" in latex and latex.count("\\rfbest{") == 6 and "$^{\\approx}$" in latex
    assert "Best in bold, second underlined, $\\approx$ beside what 24 scenes cannot tell from it" in latex
    row = next(r for r in csv.DictReader(io.StringIO(to_csv(table))) if r["model"] == "c" and r["metric"] == "psnr_rgb")
    assert (float(row["low"]), float(row["high"])) == (cell.low, cell.high)
    found = json.loads(to_json(table))
    assert found["rows"][2]["metrics"]["psnr_rgb"]["low"] == cell.low and "24 scenes" in found["marking"]


def test_the_command(four: list[RunFolder], tmp_path: Path) -> None:
    def table(*words: str) -> str:
        done = CliRunner().invoke(command, [str(tmp_path), "--metrics", "psnr_rgb", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    plain, marked = table(), table("--ci")
    assert (
        "[" not in plain.splitlines()[4] and "as shown" in plain and plain.count("**") == 2 * 4
    )  # heads, legend, one cell
    assert "[" in marked.splitlines()[4] and marked.count("**") == 2 * 5
    assert "[" in table("--ci", "--mark", "plain").splitlines()[4] and "as shown" in table("--ci", "--mark", "plain")
    assert "[" not in table("--mark", "separated").splitlines()[4] and "as shown" not in table("--mark", "separated")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_compiles(four: list[RunFolder], tmp_path: Path) -> None:
    table = with_separated_marks(with_intervals(build_table(four), four), four)
    text = (
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{to_latex(table)}\n\\end{{document}}\n"
    )
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
