"""Runs that the version before the two stages made (``tests/format1``) are read as they were written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.core.errors import NotComparable, RfbenchError
from bench.records.folder import RunFolder
from bench.records.run import find_runs, read_run
from bench.reports.compare.build import compare
from bench.reports.table.build import build_table
from bench.reports.table.write import to_markdown
from bench.score import execute
from tests.conftest import ROOT

OLD = ROOT / "tests" / "format1"


def test_numbers_reasons_and_rows_are_those_of_the_files() -> None:
    for folder in find_runs([OLD]):
        run = read_run(folder)
        written = json.loads((folder.path / "summary.json").read_text())
        assert folder.is_format1 and run.record.format == 1
        for kind, row in written["rows"].items():
            for name, cell in row["metrics"].items():
                found = run.summary.rows[kind].metrics[name]
                assert (found.value, found.n, found.identity) == (cell["value"], cell["n"], cell["identity"])
                assert (str(found.reason) if found.reason else None) == cell["reason"]
        frame = folder.scores()
        sample = frame[frame["estimate"] == "sample"]
        assert sample["psnr_rgb"].mean() == pytest.approx(run.summary.rows["sample"].metrics["psnr_rgb"].value)
        assert len(folder.images()) == len(run.plan.data.ids) == run.summary.images


def test_they_stand_in_tables_and_keep_their_features() -> None:
    assert "23.49" in to_markdown(build_table([RunFolder(OLD / "bicubic")], ["psnr_rgb", "de00"]))
    (features, *_) = RunFolder(OLD / "rareflow-tiny").features("sample", "ece")
    assert features["coverage"].size
    with pytest.raises(NotComparable):  # three images against 24
        compare([RunFolder(OLD / "bicubic"), RunFolder(OLD / "rareflow-tiny")])


def test_scoring_one_again_is_refused_in_one_line(tmp_path: Path) -> None:
    shutil.copytree(OLD / "bicubic", tmp_path / "old")
    with pytest.raises(RfbenchError, match="an earlier version of rfbench made it") as error:
        execute.score([RunFolder(tmp_path / "old")], execute.Request(("psnr_rgb",)))
    assert "\n" not in str(error.value)
