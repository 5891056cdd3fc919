"""The report: its numbers are the run's, its pixels those that were scored, its bytes the same for equal runs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench.cli import cli
from bench.cli.report import report_of_runs
from bench.core.errors import RfbenchError
from bench.records.folder import RunFolder
from bench.reports.gate.check import check
from bench.reports.gate.golden import renew
from bench.reports.gate.rules import built_in
from bench.reports.html import write
from bench.reports.html.content import Entry, Report
from bench.reports.html.dataset import dataset_report
from bench.reports.html.encode import script_json
from bench.reports.html.gate import gate_report
from bench.reports.html.runs import spread
from bench.reports.html.write import write_file, write_folder
from bench.reports.pictures import export
from tests.reports import HOSTILE, hostile_plugin, report_runs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("report")
    with hostile_plugin(root / "site"):
        yield root


@pytest.fixture(scope="module")
def runs(place: Path) -> list[RunFolder]:
    return report_runs(place)


@pytest.fixture(scope="module")
def report(runs: list[RunFolder]) -> Report:
    return report_of_runs(runs, max_images=200)


@pytest.fixture(scope="module")
def written(place: Path, report: Report) -> Path:
    write_folder(report, place / "report")
    return place / "report"


def called(path: Path) -> Any:
    """The last argument of a script that hands data to the page."""
    text = path.read_text(encoding="ascii")
    found = re.fullmatch(r"rfbench\.\w+\((?:\d+,)?(.*)\);\n", text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_equal_runs_give_equal_bytes(place: Path, written: Path, runs: list[RunFolder]) -> None:
    write_folder(report_of_runs(runs, max_images=200), place / "again")
    files = sorted(p.relative_to(written) for p in written.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(place / "again") for p in (place / "again").rglob("*") if p.is_file())
    assert all((written / f).read_bytes() == (place / "again" / f).read_bytes() for f in files)
    assert str(place) not in (written / "index.html").read_text()  # no path of this machine


def test_numbers_are_the_run_s_and_pixels_those_that_were_scored(
    place: Path, written: Path, runs: list[RunFolder]
) -> None:
    index = called(written / "page" / "index.js")
    exported = {run.path: folder for run, folder, _ in export(runs, place / "pictures", references=True)}
    for row, panel in enumerate(p for p in index["panels"] if p["kind"] == "model"):
        run = next(r for r in runs if panel["label"].startswith(r.summary().rows["sample"].label))  # type: ignore[union-attr]
        kind = "mean" if panel["label"].endswith("@mean") else "sample"
        frame = run.scores()
        frame = frame[frame["estimate"] == kind].set_index("id")
        for entry in index["images"]:
            for j, measure in enumerate(index["measures"]):
                value = entry["values"][row][j]
                has = entry["id"] in frame.index and not np.isnan(frame.loc[entry["id"], measure["name"]])
                assert value == (frame.loc[entry["id"], measure["name"]] if has else None)
                assert has or index["reasons"][entry["why"][f"{row},{j}"]]
        if kind == "sample":
            image = called(written / "images" / "00001.js")
            data = base64.b64decode(image["pictures"][panel["key"]].removeprefix("data:image/png;base64,"))
            assert image["id"] == "im1" and data == (exported[run.path] / "im1.png").read_bytes()
    hr = base64.b64decode(image["pictures"]["hr"].removeprefix("data:image/png;base64,"))
    assert hr == (place / "pictures" / "hr" / "im1.png").read_bytes()
    assert [(m["panel"], m["name"]) for m in image["maps"]] == [
        ("r0", "classes of opensr_improvement"), ("r1", "predicted deviation"), ("r1", "guess"),
    ]  # fmt: skip
    assert index["images"][1]["deviation"]["1"] > 0


def test_what_has_no_picture_or_number_says_why(written: Path) -> None:
    index = called(written / "page" / "index.js")
    failed = next(entry for entry in index["images"] if entry["id"] == "im2")
    assert failed["lines"][0][0] == "error" and "does not suit me" in failed["lines"][0][1]
    image = called(written / "images" / f"{failed['n']:05}.js")
    assert "does not suit me" in image["absent"]["r1"] and "r0" in image["pictures"]


def test_hostile_names_are_text(written: Path) -> None:
    page = (written / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in page and "mean_error&lt;b&gt;{{7*7}}" in page
    assert "&lt;b&gt;bold" in page and "49" not in re.findall(r"noisy [^:]*", page)[0]
    for path in [*written.glob("images/*.js"), written / "page" / "index.js"]:
        text = path.read_bytes()
        assert b"<" not in text and b"\xe2\x80\xa8" not in text
    assert json.loads(script_json(HOSTILE)) == HOSTILE
    assert "Content-Security-Policy" in page and "unsafe" not in page and "http:" not in page and "https:" not in page


def test_one_file_holds_all_or_says_what_fits(
    place: Path, report: Report, runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(report, place / "one.html")
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json" id="(image-\d+)">', text)
    assert len(blocks) == 8 and not re.search(r'(src|href)="(?!#|data:)', text)
    monkeypatch.setattr(write, "LARGEST_FILE", 250_000)
    with pytest.raises(RfbenchError, match=r"8 images make .* MB, .* (\d+) images fit: give --max-images \1") as error:
        write_file(report, place / "large.html")
    fits = int(re.findall(r"--max-images (\d+)", str(error.value))[0])
    assert not (place / "large.html").exists() and 0 < fits < 8
    path = write_file(report_of_runs(runs, max_images=fits), place / "large.html")
    assert path.stat().st_size <= 250_000


def test_only_a_report_is_replaced(place: Path, report: Report, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RfbenchError, match="holds something else than a report"):
        write_folder(report, tmp_path / "mine")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text('{"rfbench_report": 1}')
    (tmp_path / "old" / "left.txt").write_text("of an earlier one")
    write_folder(report, tmp_path / "old")
    assert not (tmp_path / "old" / "left.txt").exists() and (tmp_path / "old" / "index.html").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "old"]


def test_of_many_images_the_worst_the_best_and_between_are_shown() -> None:
    entries = [Entry(f"im{i}", "s", values=((float(i % 7) if i else None,),)) for i in range(50)]
    chosen = spread(entries, 5)
    values = [entries[int(i[2:])].values[0][0] for i in chosen]
    assert len(chosen) == 5 and "im0" in chosen and 6.0 in values
    assert [int(i[2:]) for i in chosen] == sorted(int(i[2:]) for i in chosen)
    assert spread(entries, 50) == [e.id for e in entries]


def test_a_gate_shows_what_moved_old_beside_new(place: Path, runs: list[RunFolder], tmp_path: Path) -> None:
    mine = runs[0]
    golden = RunFolder(tmp_path / "golden" / "bicubic")
    renew(mine, golden, "a test", [])
    gates = [check(mine, golden, built_in(mine.summary().metrics))]  # type: ignore[union-attr]
    made = gate_report(gates)
    assert [p.key for p in made.panels if p.kind == "model"] == ["r0", "r1"] and not any(e.lines for e in made.entries)
    view = next(made.views())
    assert "keeps no pictures" in view.absent["r0"] and "r1" in view.pictures
    view = next(gate_report(gates, before=mine.path).views())
    assert np.array_equal(view.pictures["r0"], view.pictures["r1"])
    page = tmp_path / "page"
    done = CliRunner().invoke(
        cli, ["gate", str(mine.path), "--against", str(golden.path), "--report", str(page)], catch_exceptions=False
    )
    assert done.exit_code == 0 and (page / "index.html").is_file(), done.output


def test_a_dataset_is_looked_at_before_any_run(place: Path, runs: list[RunFolder], tmp_path: Path) -> None:
    (place / "data" / "hr" / "im3.npy").rename(tmp_path / "hidden.npy")
    try:
        made = dataset_report(str(place / "data"), max_images=3)
    finally:
        (tmp_path / "hidden.npy").rename(place / "data" / "hr" / "im3.npy")
    entry = next(e for e in made.entries if e.id == "im3")
    assert entry.lines[0].severity == "error" and "missing" in entry.lines[0].text
    assert len(made.shown) == 3 and len(made.entries) == 8
    views = {v.id: v for v in dataset_report(str(place / "data"), max_images=200).views()}
    assert views["im1"].pictures["lr"].shape == (15, 20, 3) and views["im1"].mask is not None
    assert "A slump" in views["im1"].caption
    with pytest.raises(RfbenchError, match="--against is for reports of runs"):
        CliRunner().invoke(
            cli, ["report", str(place / "data"), "--out", str(tmp_path / "x"), "--against", "a"], catch_exceptions=False
        )


def test_a_run_ends_by_naming_its_report(place: Path, tmp_path: Path) -> None:
    words = ["run", "--model", "bicubic", "--data", str(place / "data"), "--metrics", "psnr_rgb", "--workers", "0",
             "--limit", "2", "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.stderr.rstrip().endswith("out/report/index.html") and (tmp_path / "out/report/index.html").is_file()
    done = CliRunner().invoke(cli, [*words[:-1], str(tmp_path / "bare"), "--no-report"], catch_exceptions=False)
    assert "report" not in done.stderr and not (tmp_path / "bare" / "report").exists()
