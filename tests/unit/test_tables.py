"""Tables: what is compared, what is refused, and each of the four writers."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli.table import command
from bench.core.errors import NotComparable, RfbenchError
from bench.core.reason import Reason
from bench.core.typed import encode
from bench.metrics.scorer import default_set
from bench.records.folder import RunFolder
from bench.records.types import FORMAT, Cell, Row, Software, Summary
from bench.reports.compare.build import compare
from bench.reports.document import Document, Grid, Section
from bench.reports.numbers import decimals_of, shown
from bench.reports.render import latex, markdown, terminal
from bench.reports.render.latex import Style, lost_letters
from bench.reports.table.build import ABSENT, build_table, build_tables, protocol_label, ranks
from bench.reports.table.shape import parts, shaped, together, transposed, without_empty
from bench.reports.table.write import WRITERS, document_of, to_csv, to_json, to_latex, to_markdown
from tests.runs import run
from tests.scored_runs import KNOWN, PROTOCOL, described, started

METRICS = default_set()
POINT = "no predictive distribution (a single deterministic image)"
HOSTILE = "a|b`c`<i>*x* _y_ \\dollar{$1} 100% #1 & ~^ $x$ 模型 é\nnew line"
Values = dict[str, float | None]


def fake(
    root: Path, name: str, values: Values, *, mean: Values | None = None, label: str | None = None,
    reasons: dict[str, str] | None = None, kinds: dict[str, Reason] | None = None, failed: tuple[str, ...] = (),
    n: dict[str, int] | None = None,
    finished: bool = True, identities: dict[str, str] | None = None, **begun: Any,
) -> RunFolder:  # fmt: skip
    """A finished run folder ``root/name`` of a model that scored ``values``; tables read its summary alone."""
    label = label or name
    folder, record = started(root, name, [f"scene-{i:02}" for i in range(24)], label=label, **begun)
    metrics = described(values, identities)

    def cell(metric: str, value: float | None) -> Cell:
        identity = metrics[metric].identity
        if value is None:
            given = (kinds or {}).get(metric) or Reason("unfit", (reasons or {}).get(metric, POINT))
            return Cell(identity=identity, reason=given)
        return Cell(identity=identity, value=value, n=(n or {}).get(metric, 24 - len(failed)))

    rows = {"sample": Row(label=label, metrics={m: cell(m, v) for m, v in values.items()})}
    if mean is not None:
        rows["mean"] = Row(label=f"{label}@mean", metrics={m: cell(m, mean.get(m)) for m in values})
    if finished:
        folder.finish(
            Summary(format=FORMAT, plan_sha256=record.plan_sha256, status="complete", images=24, failed=failed,
                    rows=rows, metrics=metrics)
        )  # fmt: skip
    return folder


def twelve(*numbers: float | None) -> Values:
    return dict(zip(METRICS, numbers, strict=True))


@pytest.fixture
def four(tmp_path: Path) -> list[RunFolder]:
    """Four models and twelve metrics, with a mean, missing metrics and failed images."""
    slow = {"maniqa_koniq": "takes minutes an image on a processor", "nll": POINT, "ece": POINT}
    flow = twelve(22.914, 0.6031, 0.8012, 0.2321, 0.1812, 87.12, 5.31, None, 3.61, 4.93, -1.2312, 0.0412)
    mean = twelve(24.514, 0.6631, 0.8312, 0.3321, 0.2812, 107.12, 7.31, None, 3.41, 4.73, None, None)
    nearest = twelve(22.314, 0.5231, 0.7412, 0.5123, 0.3812, 214.3, 11.2, None, 4.21, 6.13, None, None)
    bicubic = twelve(23.514, 0.6231, 0.8112, 0.4321, 0.3012, 187.1, 8.31, None, 3.81, 5.13, None, None)
    lanczos = twelve(23.516, 0.6242, 0.8142, 0.4121, 0.2912, 98.12, 8.11, None, 3.79, 5.12, None, None)
    return [
        fake(tmp_path, "nearest", nearest, reasons=slow),
        fake(tmp_path, "bicubic", bicubic, reasons=slow),
        fake(tmp_path, "lanczos", lanczos, reasons=slow, failed=("scene-03", "scene-07")),
        fake(tmp_path, "rareflow-tiny", flow, mean=mean, reasons=slow),
    ]


# --- build ----------------------------------------------------------------------------------------------------


def test_rows_columns_and_facts(four: list[RunFolder]) -> None:
    table = build_table(four)
    assert [r.label for r in table.rows] == ["nearest", "bicubic", "lanczos", "rareflow-tiny", "rareflow-tiny@mean"]
    assert [c.metric for c in table.columns] == list(METRICS)  # stored sorted by name, shown in the groups' order
    assert (table.protocol, table.dataset, table.split, table.images) == ("paired", "scenes", "test", 24)
    assert table.rows[0].facts["seed"] == 0 and table.rows[4].estimate == "mean"


def test_columns_follow_groups_then_the_defaults_then_names(tmp_path: Path) -> None:
    names = ["zeta", "ece", "pyiqa:alpha", "fsim", "psnr_rgb", "lpips_alex"]
    run = fake(tmp_path, "a", dict.fromkeys(names, 1.0))
    assert [c.metric for c in build_table([run]).columns] == [
        "psnr_rgb", "fsim", "lpips_alex", "pyiqa:alpha", "zeta", "ece",
    ]  # fmt: skip
    asked = build_table([run], ["ece", "fsim", "psnr_rgb"]).columns
    assert [c.metric for c in asked] == ["fsim", "psnr_rgb", "ece"]


@pytest.mark.parametrize(
    ("texts", "direction", "expected"),
    [
        (["1.0", "2.0", "3.0"], "up", [None, "second", "best"]),
        (["1.0", "2.0", "3.0"], "down", ["best", "second", None]),
        (["1.0", "1.0", "0.5"], "up", ["best", "best", "second"]),
        (["1.0", "0.5", "0.5"], "up", ["best", "second", "second"]),
        (["1.0", "1.0", "1.0"], "up", ["best", "best", "best"]),
        (["1.0", "2.0"], "up", ["second", "best"]),
        (["1.0", ""], "up", [None, None]),
        (["-2.0", "-1.0", "", "9.25"], "down", ["best", "second", None, None]),
        ([], "up", []),
    ],
)
def test_ranks(texts: list[str], direction: str, expected: list[str | None]) -> None:
    assert ranks(texts, direction) == expected


def test_numbers_that_look_equal_are_ties(tmp_path: Path) -> None:
    runs = [fake(tmp_path, n, {"psnr_rgb": v}) for n, v in (("a", 23.514), ("b", 23.5149), ("c", 20.0))]
    assert [r.cells[0].rank for r in build_table(runs).rows] == ["best", "best", "second"]


def test_means_of_fewer_images_say_so_and_are_not_ranked(four: list[RunFolder]) -> None:
    table = build_table(four)
    lanczos = table.rows[2].cells[0]
    assert lanczos.n == 22 and lanczos.rank is None and lanczos.note is not None
    assert str(table.footnotes[lanczos.note]) == "lanczos: over 22 of 24 images (2 failed), not ranked beside 24"
    assert any("2 of 24 images failed (scene-03, scene-07)" in note for note in table.notes)


def test_fid_says_of_how_many_images_it_is_and_kid_stands_beside_it(four: list[RunFolder], tmp_path: Path) -> None:
    told = (
        "FID is of 22 or 24 images and biased upwards for so few: compare it at equal numbers only; KID (kid_tf) is not"
    )
    assert any(note.startswith(told) for note in build_table(four).notes)
    assert not any("FID" in note for note in build_table(four, ["psnr_rgb"]).notes)
    values: Values = {"niqe": 5.0, "fid_tf": 87.1, "kid_tf": 0.021, "maniqa_koniq": 0.4}
    table = build_table([fake(tmp_path, "a", values), fake(tmp_path, "b", values)])
    assert [c.metric for c in table.columns] == ["fid_tf", "kid_tf", "niqe", "maniqa_koniq"]
    for written in (to_markdown(table), to_latex(table)):
        assert "FID is of 24 images and biased upwards" in written and "KID beside it is not biased" in written
    assert any("FID is of 24 images" in note for note in json.loads(to_json(table))["notes"])
    newer = build_table([fake(tmp_path, "e", {"fd_dinov2": 512.0, "cmmd": 0.4})]).notes
    assert any(n.startswith("FD-DINOv2 is of 24 images") and n.endswith("CMMD beside it is not biased") for n in newer)
    many = build_table([fake(tmp_path, "c", values, n={"fid_tf": 20_000})])
    assert any(note.startswith("FID is of 20000 images: compare") for note in many.notes)
    nothing = build_table([fake(tmp_path, "d", values | {"fid_tf": None})])
    assert not any(note.startswith("FID") for note in nothing.notes)


def test_where_all_lack_the_same_images_they_are_ranked(tmp_path: Path) -> None:
    runs = [fake(tmp_path, m, {"psnr_rgb": v}, n={"psnr_rgb": 20}) for m, v in (("a", 1.0), ("b", 2.0))]
    table = build_table(runs)
    assert [r.cells[0].rank for r in table.rows] == ["second", "best"]
    assert [str(f) for f in table.footnotes] == ["PSNR: over 20 of 24 images"]


def test_reasons_are_told_once_for_several_metrics(four: list[RunFolder]) -> None:
    notes = [str(f) for f in build_table(four).footnotes]
    assert "MANIQA: takes minutes an image on a processor" in notes
    assert f"NLL, ECE: {POINT}" in notes
    assert len(notes) == len(set(notes)) == 3


def test_a_metric_that_one_run_lacks(tmp_path: Path) -> None:
    runs = [fake(tmp_path, "a", {"psnr_rgb": 1.0, "fsim": 0.5}), fake(tmp_path, "b", {"psnr_rgb": 2.0})]
    cell = build_table(runs).rows[1].cells[1]
    assert (cell.value, cell.reason, cell.n) == (None, ABSENT, 0)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("psnr_rgb", 23.456, "23.46"), ("psnr_rgb_reg", 23.456, "23.46"),
        ("ssim_rgb", 0.12345, "0.123"), ("nll", -0.0001, "0.000"),
        ("nll", -1.25, "-1.250"), ("fid_tf", 1234.5, "1234.50"), ("nll", 123456789.0, "1.235e+08"),
        ("pyiqa:x", 0.00012345, "0.0001234"), ("pyiqa:x", 12.0, "12.00"), ("pyiqa:x", 1234.0, "1234"),
    ],
)  # fmt: skip
def test_shown_texts(metric: str, value: float, text: str) -> None:
    (found,) = described([metric]).values()
    assert shown(value, decimals_of(found)) == text


def test_labels_say_what_differs(tmp_path: Path) -> None:
    runs = [
        fake(tmp_path, "a", {"psnr_rgb": 1.0}, mean={"psnr_rgb": 2.0}, label="m", seed=0),
        fake(tmp_path, "b", {"psnr_rgb": 1.0}, mean={"psnr_rgb": 2.0}, label="m", seed=1, dtype="float16"),
        fake(tmp_path, "c", {"psnr_rgb": 1.0}, label="other"),
    ]
    assert [r.label for r in build_table(runs).rows] == [
        "m (seed 0, float32)", "m@mean (seed 0, float32)", "m (seed 1, float16)", "m@mean (seed 1, float16)", "other",
    ]  # fmt: skip


def test_labels_of_equal_plans_say_the_folder(tmp_path: Path) -> None:
    runs = [fake(tmp_path, name, {"psnr_rgb": 1.0}, label="m") for name in ("here", "there")]
    assert [r.label for r in build_table(runs).rows] == ["m (here)", "m (there)"]
    twins = [fake(tmp_path / name, "run", {"psnr_rgb": 1.0}, label="m") for name in ("here", "there")]
    assert [r.label for r in build_table(twins).rows] == ["m", "m #2"]


def test_labels_say_options_that_differ(tmp_path: Path) -> None:
    runs = [
        fake(tmp_path, f"r{steps}", {"psnr_rgb": 1.0}, label="m", model={"label": "m", "options": {"steps": steps}})
        for steps in ("4", "28")
    ]
    assert [r.label for r in build_table(runs).rows] == ["m (steps=4)", "m (steps=28)"]


def test_protocol_labels() -> None:
    paired = {"name": "paired", "normalisation": "percentile[2,98]", "quantise": None, "border_px": 0}
    assert protocol_label(paired) == "paired:normalisation=percentile[2,98],quantise=None"
    assert protocol_label({"name": "not-here", "a": 1}) == "not-here:a=1"


def test_other_versions_are_told(tmp_path: Path) -> None:
    newer = Software(rfbench="0.1.0", python="3.12.0", packages={"torch": "2.12.0"})
    runs = [fake(tmp_path, "a", {"psnr_rgb": 1.0}), fake(tmp_path, "b", {"psnr_rgb": 1.0}, software=newer)]
    assert any("versions differ between the runs: torch 2.11.0 or 2.12.0" in n for n in build_table(runs).notes)


# --- what is refused ------------------------------------------------------------------------------------------


def test_no_run() -> None:
    with pytest.raises(RfbenchError, match="rfbench run"):
        build_table([])


def test_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError, match="expected a finished run; run the same command again"):
        build_table([fake(tmp_path, "a", {"psnr_rgb": 1.0}, finished=False)])


@pytest.mark.parametrize("what", ["data", "protocol", "metric"])
def test_runs_that_must_not_be_mixed(tmp_path: Path, what: str) -> None:
    a = fake(tmp_path, "a", {"psnr_rgb": 1.0, "fsim": 1.0})
    change: dict[str, Any] = {
        "data": {"data": encode(a.record().plan.data) | {"fingerprint": "f" * 64}},
        "protocol": {"protocol": PROTOCOL | {"border_px": 4}},
        "metric": {"identities": {"fsim": "fsim|luma|pool256|q8|r2"}},
    }[what]
    b = fake(tmp_path, "b", {"psnr_rgb": 1.0, "fsim": 1.0}, **change)
    with pytest.raises(NotComparable) as caught:
        build_table([a, b])
    assert str(a.path) in str(caught.value) and str(b.path) in str(caught.value)
    assert {"data": "fingerprint", "protocol": "border_px", "metric": "fsim"}[what] in str(caught.value)
    if what == "metric":  # the metrics that are shown are the ones that count
        assert len(build_table([a, b], ["psnr_rgb"]).rows) == 2


def test_two_runs_that_disagree_on_what_the_first_lacks(tmp_path: Path) -> None:
    a = fake(tmp_path, "a", {"psnr_rgb": 1.0})
    b = fake(tmp_path, "b", {"psnr_rgb": 1.0, "fsim": 1.0})
    c = fake(tmp_path, "c", {"psnr_rgb": 1.0, "fsim": 1.0}, identities={"fsim": "fsim|other"})
    with pytest.raises(NotComparable, match="fsim"):
        build_table([a, b, c])


def test_an_unknown_metric(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError, match="did you mean psnr_rgb"):
        build_table([fake(tmp_path, "a", {"psnr_rgb": 1.0})], ["psnr_rbg"])


# --- Markdown -------------------------------------------------------------------------------------------------


def split_row(line: str) -> list[str]:
    """The cells of a pipe table's row as GitHub splits it: an escaped bar is text."""
    return [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_marks_and_shape(four: list[RunFolder]) -> None:
    lines = to_markdown(build_table(four)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(split_row(r)) for r in rows}) == 1
    assert len({len(r) for r in rows}) == 1, "columns do not stand below each other"
    assert split_row(rows[0])[1:6] == ["fidelity", "", "", "perceptual", ""]
    assert split_row(rows[2])[:3] == ["**model**", "**PSNR** (dB) ↑", "**SSIM** ↑"]
    mean = split_row(rows[-1])
    assert mean[1] == "**24.51**" and mean[4] == "<ins>0.332</ins>"
    assert split_row(rows[3])[8] == "–ᵃ"
    text = "\n".join(lines)
    assert "- ᵃ MANIQA: takes minutes an image on a processor" in text
    assert "24 images, fingerprint 0123456789ab; protocol paired; captions: read by no model here" in text
    assert all(identity in lines for identity in (KNOWN[m][4] for m in METRICS))


def test_markdown_digits_stand_below_digits(four: list[RunFolder]) -> None:
    rows = [line for line in to_markdown(build_table(four)).splitlines() if line.startswith("|")][3:]
    for j in (2, 3, 7):  # PSNR and FID have marks of all kinds
        assert len({row.split("|")[j].index(".") for row in rows}) == 1


def test_markdown_of_hostile_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "fsim", ("F|*", "|", "up", "fidelity", "fsim|```\n</details>"))
    run = fake(tmp_path, "x", {"fsim": None}, label=HOSTILE, reasons={"fsim": HOSTILE})
    text = to_markdown(build_table([run]))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [len(split_row(r)) for r in rows] == [2] * 4
    label = split_row(rows[3])[0]
    assert "\\|b\\`c\\`\\<i\\>\\*x\\*" in label and "\\_y\\_" in label and "new line" in label
    assert "````text" in text and text.endswith("````")  # the identity cannot end its block
    assert "\\$x\\$" in label


def test_markdown_keeps_underscores_inside_words(tmp_path: Path) -> None:
    text = to_markdown(build_table([fake(tmp_path, "my_model_2", {"psnr_rgb": 1.0})]))
    assert "| my_model_2 |" in text


def test_markdown_has_notes_beyond_the_alphabet(tmp_path: Path) -> None:
    names = [f"pyiqa:m{i:02}" for i in range(60)]
    run = fake(tmp_path, "a", dict.fromkeys(names), reasons={n: f"reason of {n}" for n in names})
    marks = re.findall(r"^- (\S+) M\d\d: reason", to_markdown(build_table([run])), re.M)
    assert len(marks) == len(set(marks)) == 60


# --- LaTeX ----------------------------------------------------------------------------------------------------


def test_latex_marks_groups_and_units(four: list[RunFolder]) -> None:
    text = to_latex(build_table(four))
    assert "\\rfbest{24.51}" in text and "\\rfsecond{0.332}" in text
    assert "\\providecommand{\\rfbest}[1]{\\textbf{#1}}" in text
    assert "\\providecommand{\\rfsecond}[1]{\\underline{#1}}" in text
    assert "\\multicolumn{3}{c}{fidelity} & \\multicolumn{2}{c}{perceptual}" in text
    assert "\\cmidrule(lr){2-4} \\cmidrule(lr){5-6}" in text
    assert "$\\Delta E_{00}$" in text and "dB\\,$\\uparrow$" in text and "nats\\,$\\downarrow$" in text
    assert "$-$1.231" in text and "$^{1}$\\,MANIQA: takes minutes" in text
    assert "psnr\\_rgb|\\allowbreak rgb|\\allowbreak peak1" in text
    assert "Best in bold, second underlined" in text


def test_latex_is_one_table_where_the_page_is_wide(four: list[RunFolder]) -> None:
    table = build_table(four)
    assert to_latex(table).count("\\begin{tabular}") == 2
    assert to_latex(table, Style(516)).count("\\begin{tabular}") == 1
    few = build_table(four, ["psnr_rgb", "ssim_rgb", "lpips_alex", "fid_tf"])
    assert to_latex(few).count("\\begin{tabular}") == 1 and "\\small" in to_latex(few)


def test_latex_escapes(tmp_path: Path) -> None:
    text = to_latex(build_table([fake(tmp_path, "x", {"fsim": None}, label=HOSTILE, reasons={"fsim": HOSTILE})]))
    assert "a\\textbar{}b{`}c" in text and "\\textbackslash{}dollar\\{\\$1\\}" in text
    assert "100\\% \\#1 \\& \\textasciitilde{}\\textasciicircum{}" in text and "模" not in text and "é" in text


def compiled(text: str, folder: Path) -> str:
    """What pdflatex says of the table in a plain article."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + text + "\n\\end{document}\n"
    (folder / "t.tex").write_text(document, encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, check=False, timeout=120)
    log = (folder / "t.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    return log


def test_latex_compiles_and_fits(four: list[RunFolder], tmp_path: Path) -> None:
    assert "Overfull" not in compiled(to_latex(build_table(four)), tmp_path)


@pytest.mark.parametrize(
    "name", ["[ours]", "*ours", "[a] (b)", "模型 ours", "\\\\[2ex] x", "a & b % c", "--x", "ours]{"]
)
def test_latex_compiles_whatever_rows_are_called(tmp_path: Path, name: str) -> None:
    runs = [fake(tmp_path, f"r{i}", {"psnr_rgb": 20.0 + i}, label=n) for i, n in enumerate(("bicubic", name, name))]
    for document in (document_of(build_table(runs)), shaped(build_table(runs), is_transposed=True)):
        compiled(latex.to_latex(document), tmp_path)
    assert lost_letters(document_of(build_table(runs))) == ("模型" if "模" in name else "")


def test_latex_has_the_user_s_caption_and_label_and_as_many_notes_as_asked_for(four: list[RunFolder]) -> None:
    text = to_latex(build_table(four), Style(caption="Ours, 50 % of it", label="ours x", notes="short"))
    assert "\\caption{Ours, 50 \\% of it. Best in bold, second underlined.}" in text
    assert "\\label{tab:ours-x}" in text
    assert "no predictive distribution" in text and "\\texttt{" not in text and "seed 0" not in text
    none = to_latex(build_table(four), Style(notes="none"))
    assert "minipage" not in none and "makebox" not in none and "fingerprint" in none


def test_latex_of_many_metrics_and_long_names_fits(tmp_path: Path) -> None:
    names = [*METRICS, *(f"pyiqa:m{i:02}" for i in range(14))]
    long = "A model with quite a long name, 512 steps of it"
    runs = [fake(tmp_path, f"r{i}", dict.fromkeys(names, i + 0.1), label=n) for i, n in enumerate((long, "b"))]
    assert "Overfull" not in compiled(to_latex(build_table(runs)), tmp_path)


def test_latex_of_hostile_texts_compiles(tmp_path: Path) -> None:
    names = ["psnr_rgb", "fsim", *(f"pyiqa:m{i:02}" for i in range(30))]
    every = "".join(map(chr, range(32, 0x180))) + "αβγΩ∞≤→“”…\u0301\u202e😀"
    runs = [
        fake(tmp_path, "a", dict.fromkeys(names), label=HOSTILE, reasons=dict.fromkeys(names, every)),
        fake(tmp_path, "b", dict.fromkeys(names, -1234.5678), label="x" * 20 + " " + "y" * 30),
    ]
    compiled(to_latex(build_table(runs)), tmp_path)


# --- CSV and JSON ---------------------------------------------------------------------------------------------


def test_csv_round_trip(tmp_path: Path) -> None:
    values: Values = {"psnr_rgb": math.pi * 7, "fsim": 1e-17, "nll": None}
    run = fake(tmp_path, "a", values, label='comma, "quote"\nline', reasons={"nll": 'why, "so"'})
    rows = list(csv.DictReader(io.StringIO(to_csv(build_table([run])))))
    columns = ["model", "metric", "value", "n", "reason", "identity", "direction", "unit", "group", "low", "high"]
    assert list(rows[0]) == columns
    assert {r["model"] for r in rows} == {'comma, "quote" line'}
    found = {r["metric"]: float(r["value"]) if r["value"] else None for r in rows}
    assert found == values
    nll = next(r for r in rows if r["metric"] == "nll")
    assert (nll["reason"], nll["n"], nll["unit"], nll["group"]) == ('why, "so"', "0", "nats", "uncertainty")
    assert nll["identity"] == KNOWN["nll"][4]


def test_json_is_whole_and_free_of_nan(four: list[RunFolder]) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in the JSON")

    found = json.loads(to_json(build_table(four)), parse_constant=refuse)
    assert found["format"] == 1 and found["protocol"]["label"] == "paired"
    assert found["dataset"]["images"] == 24 and [c["metric"] for c in found["columns"]] == list(METRICS)
    flow = found["rows"][3]
    assert (flow["model"], flow["estimate"]) == ("rareflow-tiny", "sample")
    assert flow["metrics"]["nll"]["value"] == -1.2312  # full precision, not the shown text
    assert flow["metrics"]["lpips_alex"]["rank"] == "best" and found["rows"][4]["metrics"]["fid_tf"]["rank"] == "second"
    assert found["rows"][0]["metrics"]["nll"]["reason"] == POINT


def test_a_summary_with_a_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    run = fake(tmp_path, "a", {"psnr_rgb": 1.0, "fsim": 0.5})
    path = run.path / "summary.json"
    path.write_text(path.read_text().replace("0.5", "NaN"))
    with pytest.raises(RfbenchError, match="found NaN, expected a finite number"):
        build_table([run])


# --- other shapes ---------------------------------------------------------------------------------------------


def test_empty_columns_are_one_line_with_the_command_that_gets_them(tmp_path: Path) -> None:
    values: Values = {"psnr_rgb": 20.0, "lpips_alex": None, "niqe": None, "nll": None}
    of = {"lpips_alex": Reason("missing", "weights missing: a.pth", "'rfbench weights fetch a.pth' gets it"),
          "niqe": Reason("missing", "weights missing: b.mat"), "nll": Reason("unfit", POINT)}  # fmt: skip
    found = without_empty(build_table([fake(tmp_path, "a b", values, kinds=of)]), [tmp_path / "a b"])
    assert [c.metric for c in found.columns] == ["psnr_rgb"] and found.footnotes == ()
    assert found.notes[-1] == (
        "not computed: LPIPS, NIQE (weights missing), NLL (no predictive distribution (a single deterministic image)); "
        f"'rfbench weights fetch lpips_alex niqe && rfbench score '{tmp_path}/a b' --metrics lpips_alex,niqe' computes "
        "what it can"
    ).replace("), NLL", "); NLL")
    whole = build_table([fake(tmp_path, "c", {"psnr_rgb": 1.0})])
    assert without_empty(whole) is whole


def test_text_leaves_empty_columns_out_and_keeps_footnotes_of_the_others(four: list[RunFolder]) -> None:
    text = terminal.to_text(document_of(without_empty(build_table(four))))
    assert "MANIQA" not in text.partition("not computed")[0] and "not computed: MANIQA (takes minutes an image" in text
    used = set(re.findall(r"\[([a-z])\](?=  |\n)", text))
    assert used == set(re.findall(r"(?m)^- \[([a-z])\]", text)) and len(used) > 1
    lines = text.splitlines()
    psnr = [line.index(".") for line in lines[2:7]]
    assert len(set(psnr)) == 1  # digits stand below digits


def test_a_wide_table_is_set_in_stacks_on_a_narrow_terminal(four: list[RunFolder]) -> None:
    table = build_table(four)
    document, first = document_of(table), table.rows[0].label
    narrow = terminal.to_text(document, width=60, is_terminal=True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", narrow).splitlines()
    assert max(map(len, plain)) <= 60
    heads = [i for i, line in enumerate(plain) if line.startswith("model ")]
    assert len(heads) > 1 and all(plain[i + 1].startswith(f"{first} ") for i in heads)  # each stack has all rows
    wide = terminal.to_text(document).splitlines()
    assert [w for i in heads for w in plain[i - 1].split()] == wide[0].split()  # and none of the columns is lost
    assert set(re.findall(r"\x1b\[([0-9;]*)m", narrow)) <= {"0", "1", "4"}  # bold and underlined, no colour


def test_a_transposed_table_has_the_same_cells(four: list[RunFolder]) -> None:
    table = build_table(four)
    turned = transposed(table.grid)
    assert [c.title for c in turned.columns] == [r.label for r in table.rows]
    assert [r.label for r in turned.rows][:2] == ["PSNR (dB) ↑", "SSIM ↑"]
    assert transposed(transposed(table.grid)).rows[1].cells == table.rows[1].cells
    assert "of each row" in to_document_markdown(turned)


def to_document_markdown(grid: Grid) -> str:
    return markdown.to_markdown(Document((Section(grid=grid),)))


def test_two_datasets_stand_in_one_table_with_a_part_each(tmp_path: Path) -> None:
    data = {"name": "other", "split": "test", "fingerprint": "f" * 64, "ids": ["x", "y"]}
    first = [fake(tmp_path, n, {"psnr_rgb": v, "fsim": 0.5}, n={"psnr_rgb": 24}) for n, v in (("a", 20.0), ("b", 21.0))]
    second = [fake(tmp_path, f"{n}2", {"psnr_rgb": v, "sam_rgb": 3.0}, label=n, data=data, n={"psnr_rgb": 2})
              for n, v in (("a", 31.0), ("b", 30.0))]  # fmt: skip
    with pytest.raises(NotComparable):
        build_table([*first, *second])
    tables = parts([table for table, _ in build_tables([first[0], second[0], first[1], second[1]])])
    assert list(tables) == ["scenes", "other"]
    (section,) = together(tables).sections
    grid = section.grid
    assert grid is not None and [c.metric for c in grid.columns] == ["psnr_rgb", "fsim", "sam_rgb"]
    assert [(r.part, r.label, r.cells[0].rank) for r in grid.rows] == [
        ("scenes", "a", "second"), ("scenes", "b", "best"), ("other", "a", "best"), ("other", "b", "second"),
    ]  # fmt: skip
    assert grid.rows[2].cells[1].value is None and grid.rows[0].cells[2].value is None
    done = CliRunner().invoke(command, [str(tmp_path), "--together", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {r["part"] for r in rows} == {"scenes", "other"} and len(rows) == 8
    compiled(latex.to_latex(together(tables)), tmp_path)


def test_tables_of_other_identities_are_not_put_together(tmp_path: Path) -> None:
    data = {"name": "other", "split": "test", "fingerprint": "f" * 64, "ids": ["x", "y"]}
    runs = [fake(tmp_path, "a", {"fsim": 0.5}), fake(tmp_path, "b", {"fsim": 0.5}, data=data, identities={"fsim": "z"})]
    with pytest.raises(NotComparable, match="fsim: found values of two identities"):
        together(parts([table for table, _ in build_tables(runs)]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "scene", "--ci"], "--ci does not go with"),
        (["--data", "x"], "give it with --by"),
        (["--caption", "x"], "give --format latex"),
        (["--format", "csv", "--transpose"], "csv holds all"),
        (["--against", "paper", "--together"], "--together is for tables of our runs alone"),
    ],
)
def test_options_that_do_nothing_together_are_refused(four: list[RunFolder], words: list[str], said: str) -> None:
    done = CliRunner().invoke(command, [str(four[0].path), *words])
    assert isinstance(done.exception, RfbenchError) and said in str(done.exception)


# --- the command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", list(WRITERS))
def test_command(four: list[RunFolder], tmp_path: Path, form: str) -> None:
    done = CliRunner().invoke(command, [str(tmp_path), "--format", form, "--metrics", "psnr_rgb, lpips_alex"])
    assert done.exit_code == 0, done.output
    assert "psnr" in done.stdout.lower() and "sam_rgb" not in done.stdout
    out = tmp_path / "deep" / "table.txt"
    words = [str(f.path) for f in sorted(four, key=lambda f: f.path)]
    words += ["--format", form, "--metrics", "psnr_rgb,lpips_alex", "--out", str(out)]
    assert CliRunner().invoke(command, words).exit_code == 0
    assert out.read_text(encoding="utf-8") == done.stdout


def test_captions_are_named_where_a_model_reads_them(tmp_path: Path) -> None:
    reads = {"label": "a", "options": {}, "spec": {"supports_prompt": True}}
    run = fake(tmp_path, "a", {"psnr_rgb": 20.0}, model=reads)
    assert "captions: the dataset's (as a rule written from HR)" in to_markdown(build_table([run]))


def test_two_ways_to_bring_a_model_to_the_grid_stand_in_one_table_and_say_so(tmp_path: Path) -> None:
    """The sensitivity of an x4 model on the 5x task to ``post`` and ``pre``; what is asked of both is the same."""
    post = fake(tmp_path, "post", {"psnr_rgb": 20.0}, label="adcsr")
    protocol = {**PROTOCOL, "policy": "pre"}
    pre = fake(tmp_path, "pre", {"psnr_rgb": 21.0}, label="adcsr", protocol=protocol)
    table = build_table([post, pre])
    assert [row.label for row in table.rows] == ["adcsr (policy=post)", "adcsr (policy=pre)"]
    assert table.protocol == "paired" and "policy" not in table.protocol_options
    assert build_table([pre]).rows[0].label == "adcsr" and "policy=pre" in build_table([pre]).protocol
    other = fake(tmp_path, "other", {"psnr_rgb": 21.0}, protocol={**protocol, "border_px": 4})
    with pytest.raises(NotComparable, match="border_px"):
        build_table([post, other])


def test_a_number_that_only_describes_is_ranked_nowhere(tmp_path: Path) -> None:
    """Neither more nor less of it is better: no arrow, no best row, no better model."""
    names = ("psnr_rgb", "opensr_synthesis")
    made = run(models=("nearest", "bicubic"), limit=6, workers=0, out=tmp_path, metrics=names)
    table = build_table(made.folders, names)
    psnr, synthesis = ([row.cells[j] for row in table.rows] for j in (0, 1))
    assert [c.direction for c in table.columns] == ["up", ""]
    assert {c.rank for c in psnr} == {"best", "second"} and {c.rank for c in synthesis} == {None}
    (pair,) = compare(made.folders, names).pairs
    assert pair.findings[1].better is None
    assert pair.findings[1].p_holm is not None and pair.findings[1].p_holm < 0.1
