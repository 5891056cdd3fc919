"""The paper's ledger: its data, what is never compared, what a declaration opens, and each of the writers."""

from __future__ import annotations

import csv
import importlib
import io
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli.table import command
from bench.core.errors import NotComparable, RfbenchError
from bench.metrics.scorer import metric_class
from bench.models import ModelSpec
from bench.records.folder import RunFolder
from bench.reports.paper.build import Entry, Ledger, Line, build_ledger
from bench.reports.paper.paper import ABLATION as ABLATED
from bench.reports.paper.paper import CLAIMED, DECLARABLE, VARIANTS, as_csv, method, plain, tables
from bench.reports.paper.write import to_csv, to_json, to_latex, to_markdown
from rareflow.train.ablation import VARIANTS as ABLATION
from tests.conftest import ROOT
from tests.unit.test_tables import HOSTILE, compiled, fake

_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
SPECS: dict[str, ModelSpec] = {
    name: getattr(importlib.import_module(target.partition(":")[0]), target.partition(":")[2])
    for name, target in _POINTS["rfbench.models"].items()
}
ALL = {name: f"the authors told us of {name}" for name in DECLARABLE}
METRICS = tuple(c.metrics[0] for c in CLAIMED.values())
BICUBIC_4X = {"name": "bicubic-4x", "captions": "dataset"}


def claimed(table: int, row: str) -> dict[str, float | None]:
    """The paper's numbers of a row, by our metrics."""
    found = next(r for r in tables()[table - 1].rows if r.name == row)
    return {c.metrics[0]: float(found.printed[name]) for name, c in CLAIMED.items()}


def run_of(
    root: Path, model: str, values: Mapping[str, float | None], *, label: str | None = None,
    record: Mapping[str, Any] | None = None, spec: Mapping[str, Any] | None = None, **more: Any,
) -> RunFolder:  # fmt: skip
    """A finished run of a registered model on real images, which nothing is known to set apart from the paper's."""
    label = label or model
    of_model = {"label": label, "spec": {"name": model, "scale_factors": None, **(spec or {})}}
    about = {"sources": {"data": {"citation": "somebody's survey"}}} | dict(record or {})
    return fake(root, label, dict(values), label=label, model=of_model, record=about, **more)


def entry(ledger: Ledger, label: str) -> Entry:
    return next(e for s in ledger.sections for e in s.entries if e.label and e.label.split(" (")[0] == label)


def lines(ledger: Ledger, label: str) -> dict[str, Line]:
    return {line.measure.metric: line for line in entry(ledger, label).lines}


# --- the paper ------------------------------------------------------------------------------------------------


def test_the_tables_are_the_published_ones(shared: Path) -> None:
    found = {f"table{t.number}": as_csv(t) for t in tables()[:2]} | {"table3": ABLATED.read_text(encoding="utf-8")}
    for folder in (shared / "paper", ROOT / "results/paper"):
        published = {path.name.partition("_")[0]: path.read_text(encoding="utf-8") for path in folder.glob("*.csv")}
        assert {name: text.splitlines() for name, text in published.items()} == {
            name: text.splitlines() for name, text in found.items()
        }


def test_the_tables_are_whole() -> None:
    assert [(t.number, t.protocol, len(t.rows)) for t in tables()] == [
        (1, "paired", 7), (2, "bicubic-4x", 5), (3, "paired", 6),
    ]  # fmt: skip
    assert all(len(r.printed[c].partition(".")[2]) == 2 for t in tables() for r in t.rows for c in CLAIMED)
    # The last row of the ablation is the method of Table 1.
    assert tables()[2].rows[-1].printed == tables()[0].rows[-1].printed


def test_every_number_of_a_spec_is_in_a_table() -> None:
    claims = {(plain(name), where) for name, spec in SPECS.items() for where in spec.paper}
    assert claims == {(plain(row.name), f"table {t.number}") for t in tables()[:2] for row in t.rows}
    assert method() == "RareFlow"


def test_columns_are_our_metrics() -> None:
    for of in CLAIMED.values():
        metric = metric_class(of.metrics[0])
        assert (of.title, of.unit, of.direction, of.group) == (
            metric.title, metric.unit, metric.direction, metric.group,
        )  # fmt: skip
        assert all(metric_class(name).direction == of.direction for name in of.metrics)


def test_the_rows_of_the_ablation_are_its_variants() -> None:
    assert {v.number: name for name, v in ABLATION.items() if v.number} == VARIANTS
    titles = [ABLATION[name].label.replace("α", "alpha") for name in VARIANTS.values()]
    assert [row.name for row in tables()[2].rows] == titles


@pytest.mark.parametrize("name", ["zoomldm", "seesr", "adcsr", "misr-s2", "samsr", "opensr"])
def test_random_weights_are_never_a_system_of_the_paper(name: str) -> None:
    spec = SPECS[name]
    module, _, attribute = spec.adapter.partition(":")
    adapter = getattr(importlib.import_module(module), attribute)
    assert adapter(**spec.default_options).specialise(spec).unlike_paper == spec.unlike_paper == ""
    assert adapter(**spec.default_options | {"weights": "random"}).specialise(spec).unlike_paper == "random weights"


# --- status ---------------------------------------------------------------------------------------------------


def test_what_the_paper_says_is_reproduced_once_everything_is_known(tmp_path: Path) -> None:
    run = run_of(tmp_path, "seesr", claimed(1, "SeeSR"))
    found = lines(build_ledger([run], declared=ALL), "seesr")
    assert list(found) == list(METRICS)
    assert all(line.status == "reproduced" and line.difference == 0 and not line.reasons for line in found.values())


@pytest.mark.parametrize(
    ("value", "status", "difference"),
    [(18.78, "reproduced", 0.0), (18.79, "reproduced", 0.01), (18.77, "reproduced", -0.01),
     (18.7901, "differs", 0.0101), (18.7699, "differs", -0.0101), (26.9, "differs", 8.12)],
)  # fmt: skip
def test_tolerance_is_a_unit_of_the_last_printed_decimal(
    tmp_path: Path, value: float, status: str, difference: float
) -> None:
    line = lines(build_ledger([run_of(tmp_path, "seesr", {"psnr_rgb": value})], declared=ALL), "seesr")["psnr_rgb"]
    assert (line.status, line.tolerance, line.printed) == (status, 0.01, "18.78")
    assert line.difference == pytest.approx(difference, abs=1e-9)


@pytest.mark.parametrize("left_out", DECLARABLE)
def test_what_is_not_declared_stays_open(tmp_path: Path, left_out: str) -> None:
    protocol = {"protocol": BICUBIC_4X} if left_out == "kernel" else {}
    table = 2 if protocol else 1
    run = run_of(tmp_path, "adcsr", claimed(table, "AdcSR"), spec={"scale_factors": [4]}, **protocol)
    known = {name: how for name, how in ALL.items() if name != left_out}
    found = lines(build_ledger([run], declared=known), "adcsr")
    closed = {line.measure.claimed for line in found.values() if line.status == "not comparable"}
    assert closed == ({left_out} if left_out in CLAIMED else set(CLAIMED))
    for line in found.values():
        assert (line.difference is None) == (line.measure.claimed in closed)
        assert line.ours is not None  # our own number is always shown


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("procedural scenes", {"record": {"sources": {"data": {"citation": "rfbench, procedural scenes"}}}}),
        ("a small network", {"record": {"unlike_paper": "a small network"}}),
        ("trained on some", {"record": {"seen_in_training": 3}}),
        ("other captions", {"spec": {"supports_prompt": True}, "protocol": {"name": "paired", "captions": "none"}}),
    ],
)  # fmt: skip
def test_what_is_known_to_differ_is_never_compared(tmp_path: Path, reason: str, change: dict[str, Any]) -> None:
    """Not even where the user declares everything."""
    run = run_of(tmp_path, "rareflow", claimed(1, "RareFlow"), label="mine", **change)
    ledger = build_ledger([run], declared=ALL)
    assert [r for r in entry(ledger, "mine").reasons if r.startswith(reason)]
    rows = list(csv.DictReader(io.StringIO(to_csv(ledger))))
    mine = [row for row in rows if row["run"].startswith("mine")]
    assert len(mine) == 8 and {row["status"] for row in mine} == {"not comparable"}
    assert all(row["difference"] == "" and row["ours"] and reason in row["reasons"] for row in mine)
    assert "\n| difference" not in to_markdown(ledger)


def test_rows_without_a_run_and_metrics_without_a_value(tmp_path: Path) -> None:
    values = {**claimed(1, "SeeSR"), "lpips_alex": None}
    del values["niqe"]
    ledger = build_ledger([run_of(tmp_path, "seesr", values, reasons={"lpips_alex": "weights missing"})], declared=ALL)
    found = lines(ledger, "seesr")
    assert (found["lpips_alex"].status, found["lpips_alex"].reasons) == ("not run", ("weights missing",))
    assert found["niqe"].status == "not run" and found["niqe"].measure.identity == ""
    others = [e for e in ledger.sections[0].entries if e.label is None]
    assert len(others) == 6 and all(line.status == "not run" for e in others for line in e.lines)
    assert "56 numbers of the paper: 6 reproduced, 0 differs, 0 not comparable, 50 not run" in to_markdown(ledger)


def test_means_of_fewer_images_are_not_compared(tmp_path: Path) -> None:
    run = run_of(tmp_path, "seesr", claimed(1, "SeeSR"), failed=("scene-03",))
    found = lines(build_ledger([run], declared=ALL), "seesr")
    assert all(line.reasons == ("over 23 of 24 images",) and line.difference is None for line in found.values())


def test_variants_of_a_metric_have_columns_of_their_own(tmp_path: Path) -> None:
    run = run_of(tmp_path, "seesr", {"lpips_vgg": 0.46, "lpips_alex": 0.30})
    found = lines(build_ledger([run], ["lpips_alex", "lpips_vgg"], ALL), "seesr")
    assert {m: line.status for m, line in found.items()} == {"lpips_alex": "differs", "lpips_vgg": "reproduced"}
    with pytest.raises(RfbenchError, match="--metrics: found none that the paper has"):
        build_ledger([run_of(tmp_path, "bicubic", {"sam_rgb": 1.0})], ["sam_rgb"])


# --- which row ------------------------------------------------------------------------------------------------


def test_runs_stand_for_rows_by_model_label_or_variant(tmp_path: Path) -> None:
    values = {"psnr_rgb": 20.0}
    runs = [
        run_of(tmp_path, "misr_s2", values),
        run_of(tmp_path, "files", values, label="OpenSR"),
        run_of(tmp_path, "rareflow", values, label="my-sd3", mean=values),
        run_of(tmp_path, "rareflow", values, label="my-caption-gate"),
        run_of(tmp_path, "files", values, label="another-full"),
        run_of(tmp_path, "bicubic", values),
    ]
    ledger = build_ledger(runs)
    places = {e.label: (s.table.number, e.row.name) for s in ledger.sections for e in s.entries if e.label}
    assert places == {
        "misr_s2": (1, "MISR-S2"), "OpenSR": (1, "OpenSR"), "my-sd3": (1, "RareFlow"),
        "my-caption-gate": (3, "4 + Caption & alpha-gate"),
    }  # fmt: skip
    assert {s.elsewhere for s in ledger.sections} == {("another-full", "bicubic")}
    assert [s.table.number for s in build_ledger([runs[-1]]).sections] == [1]  # no variant, no Table 3


def test_each_protocol_has_its_tables_and_others_have_none(tmp_path: Path) -> None:
    four_times = run_of(tmp_path, "adcsr", claimed(2, "AdcSR"), label="adcsr-4", protocol=BICUBIC_4X)
    ledger = build_ledger([run_of(tmp_path, "adcsr", claimed(1, "AdcSR")), four_times], declared=ALL)
    assert [s.table.number for s in ledger.sections] == [1, 2]
    assert all(line.status == "reproduced" for line in lines(ledger, "adcsr-4").values())
    with pytest.raises(NotComparable, match="of protocol mine, the paper's tables are of paired and bicubic-4x"):
        build_ledger([run_of(tmp_path, "seesr", {"psnr_rgb": 1.0}, protocol={"name": "mine"})])


def test_runs_of_different_data_are_refused(tmp_path: Path) -> None:
    other = {"data": {"name": "b", "split": "test", "fingerprint": "f" * 64, "ids": ["1"]}}
    runs = [run_of(tmp_path, n, {"psnr_rgb": 1.0}, **more) for n, more in (("seesr", {}), ("adcsr", other))]
    with pytest.raises(NotComparable, match="cannot stand in one table"):
        build_ledger(runs)


# --- writers and command --------------------------------------------------------------------------------------


@pytest.fixture
def seven(tmp_path: Path) -> list[RunFolder]:
    """A run of every row of Table 1, some near and some far from it."""
    runs = []
    for i, row in enumerate(tables()[0].rows):
        values = {m: v + 0.004 * i for m, v in claimed(1, row.name).items() if v is not None}
        runs.append(run_of(tmp_path, plain(row.name), values, spec={"stochastic": True}))
    return runs


def test_markdown_shows_claimed_ours_and_difference(seven: list[RunFolder]) -> None:
    text = to_markdown(build_ledger(seven, ["psnr_rgb"], ALL))
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[3:6] == [["ZoomLDM, paper", "17.23"], ["ours: zoomldm", "17.23"], ["difference", "0.000\\*"]]
    assert rows[-3:] == [["RareFlow, paper", "18.76"], ["ours: rareflow", "18.78"], ["difference", "+0.024"]]
    assert "### Table 1 of the paper (arXiv:2510.23816)" in text and "with a star where it is at most one unit" in text
    assert "declared to be as in the paper: data: the authors told us of data" in text
    assert "scale: the authors" in text and "kernel: the authors" not in text  # nothing is reduced here


def test_json_and_csv_hold_everything(seven: list[RunFolder]) -> None:
    ledger = build_ledger(seven, declared=ALL)
    document = json.loads(to_json(ledger))
    assert (document["format"], document["paper"], document["declared"]) == (1, "arXiv:2510.23816", ALL)
    cell = document["tables"][0]["rows"][6]["metrics"]["fid_tf"]
    assert (cell["claimed"], cell["printed"], cell["status"]) == (116.16, "116.16", "differs")
    assert cell["difference"] == pytest.approx(0.024) and cell["identity"].startswith("fid_tf|")
    rows = list(csv.DictReader(io.StringIO(to_csv(ledger))))
    assert len(rows) == 56 and all(
        float(r["difference"]) == pytest.approx(float(r["ours"]) - float(r["claimed"])) for r in rows
    )
    assert to_json(build_ledger(seven, declared=ALL)) == to_json(ledger)


def test_latex_compiles_and_fits(seven: list[RunFolder], tmp_path: Path) -> None:
    declared = ALL | {"data": HOSTILE}
    del declared["lpips"]
    variants = [
        run_of(tmp_path, "rareflow", claimed(3, row.name), label=f"my-sd3-{row.variant}") for row in tables()[2].rows
    ]
    evil = [run_of(tmp_path, "files", {"psnr_rgb": 3.0}, label="RareFlow", record={"unlike_paper": HOSTILE})]
    text = to_latex(build_ledger([*seven, *variants, *evil], declared=declared))
    assert text.count("\\begin{table}") > 3 and "\\label{tab:rfbench-paper-3-2}" in text
    log = compiled(text, tmp_path)
    assert "Overfull" not in log and "too large" not in log


def test_hostile_records_are_one_line_or_a_reason(tmp_path: Path) -> None:
    evil = run_of(tmp_path, "rareflow", {"psnr_rgb": 3.0}, label="evil", record={"unlike_paper": HOSTILE})
    for text in (to_markdown(build_ledger([evil])), to_csv(build_ledger([evil]))):
        assert "\nnew line" not in text and "new line" in text


def test_a_run_of_an_older_version_does_not_say_whether_it_is_the_paper_s_model() -> None:
    found = entry(build_ledger([RunFolder(ROOT / "tests/format1/rareflow-tiny")], declared=ALL), "rareflow-tiny")
    assert any("an older run that does not say" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--same", "data=x"], "--same declares what is as in a paper; give it with --against paper"),
        (["--against", "paper", "--ci"], "--ci is for tables of our runs alone"),
        (["--against", "paper", "--mark", "plain"], "--mark is for tables of our runs alone"),
        (["--against", "paper", "--same", "date=x"], "unknown thing to declare 'date'; did you mean data?"),
        (["--against", "paper", "--same", "data="], "data: found no word on how that is known"),
        (["--against", "paper", "--same", "data"], "--same: found 'data', expected one WHAT=TEXT"),
        (["--against", "paper", "--same", "fid=a", "--same", "fid=b"], "--same: found fid twice"),
        (["--against", "paper", "--same", "dists=x"], "unknown thing to declare 'dists'"),  # nothing of it is open
    ],
)
def test_the_command_refuses_in_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    run = run_of(tmp_path, "seesr", {"psnr_rgb": 3.0})
    done = CliRunner().invoke(command, [str(run.path), *options])
    assert isinstance(done.exception, RfbenchError) and message in str(done.exception)
    assert done.exception.exit_code == 2 and done.stdout == ""


@pytest.mark.parametrize("form", ["markdown", "latex", "csv", "json"])
def test_the_command_writes_what_it_prints(tmp_path: Path, form: str) -> None:
    run = run_of(tmp_path, "seesr", {"psnr_rgb": 18.78})
    words = [str(run.path), "--against", "paper", "--format", form]
    for name, how in ALL.items():
        words += ["--same", f"{name}={how}"]
    printed = CliRunner().invoke(command, words)
    assert (
        printed.exit_code == 0
        and "18.78" in printed.stdout
        and "the authors told us of data" in (printed.stdout if form != "csv" else "the authors told us of data")
    )
    CliRunner().invoke(command, [*words, "--out", str(tmp_path / "out")])
    assert (tmp_path / "out").read_text(encoding="utf-8") == printed.stdout
