"""``rfbench metrics show`` and the way back from an identity to its metric."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.check.pairs import measure, scene
from bench.cli import cli
from bench.core import registry
from bench.core.errors import RfbenchError
from bench.metrics.base import Metric, Setting
from bench.metrics.identity import rebuild
from bench.metrics.scorer import metric_class
from bench.reports.metric_page import metric_page
from tests.commands import rfbench

NAMES = list(registry.names("metrics"))
OURS = {"logspec_l1", "seams", "style_spectrum"}  # without a publication


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    cli(["metrics", "show", *words], standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_says_what_a_reader_asks(name: str) -> None:
    about = metric_page(metric_class(name)(Setting()))
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    assert about["definition"] and about["equation"] and about["parameters"]
    assert about["traps"] or name in OURS
    assert about["package"]["version"] or about["missing"]
    assert about["perfect"] is None or about["symmetric"] is not None
    if name not in OURS | {"psnr_rgb", "psnr_y"}:
        assert about["references"] and any(r["doi"] or r["arxiv"] for r in about["references"])
        assert about["source"]
    if "reference" not in about["needs"] or "inception" in about["identity"]:
        assert len(about["on_satellite"]) > 100
    low, high = about["range"]
    assert low is None or high is None or low < high
    assert about["identity"].startswith(name)


def test_the_sources_doi_is_that_of_a_reference() -> None:
    """A docstring and the bibliography cannot name two works."""
    for name in NAMES:
        about = metric_page(metric_class(name)(Setting()))
        in_text = {found.rstrip(".,;") for found in re.findall(r"doi:(10\.[^\s,;]+)", about["source"])}
        in_text = {d.rstrip(")") if d.count(")") > d.count("(") else d for d in in_text}
        assert in_text <= {r["doi"] for r in about["references"]}, name


def test_a_variant_has_the_traps_of_what_it_varies() -> None:
    about, base = (metric_page(metric_class(n)(Setting())) for n in ("lpips_vgg", "lpips_alex"))
    assert about["traps"] == base["traps"] != "" and about["definition"] != base["definition"]


def test_show_prints_a_page_and_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "ssim_rgb")
    flat = " ".join(page.split())
    for text in (
        "ssim_rgb (SSIM): Structural similarity of RGB", "C1 = 0.01^2", "-1 to 1; higher is better; 1 for an image",
        "doi:10.1109/TIP.2003.819861", "7x7 uniform window", "ssim_rgb|gauss11,1.5|popcov|range1|q8|r2",
        "11 px on the shorter side", "an image; of a set the mean over its images",
    ):  # fmt: skip
        assert text in flat, text
    assert max(map(len, page.splitlines())) <= 110
    several = json.loads(shown(capsys, "ssim_rgb", "niqe_ref", "--json"))
    assert [a["name"] for a in several] == ["ssim_rgb", "niqe_ref"]
    assert several[0]["range"] == [-1.0, 1.0] and several[0]["format"] == 1


def test_a_plugin_s_metric_is_shown_from_its_class(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "mean_error")
    assert page.startswith("mean_error (mean error): mean absolute error of display values\n")
    assert "rfbench_example:MeanError" in page and "equation" not in page and "not bounded" in page
    assert "mean_error|q8|r1" in page


def test_a_plugin_s_texts_are_printed_as_one_line_each(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = metric_class("mean_error")
    monkeypatch.setattr(kind, "__doc__", "What\x1b[31m it is.\n\nTraps: many\x07.\n\nMore.")
    monkeypatch.setattr(kind, "citation", "me, in a\nbook")
    about = metric_page(kind(Setting()))
    assert about["definition"] == ["What [31m it is.", "More."] and about["traps"] == "many ."
    assert about["references"][0]["where"] == "me, in a book"


def test_pyiqa_s_metrics_are_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyiqa")
    flat = " ".join(shown(capsys, "pyiqa:gmsd", "pyiqa:entropy").split())
    assert "type=GMSD" in flat and "pyiqa gives its range as" in flat and "lower is better" in flat
    assert "nobody judged satellite images" in flat  # of the one without reference


def test_unknown_names_and_foreign_identities_are_one_line_and_exit_2() -> None:
    for word, text in (
        ("ssim", "unknown metric 'ssim'; did you mean"),
        ("ssim_rgb|gauss11,1.5|popcov|range1|q8|r1", "is of revision 1, expected 2"),
    ):
        done = rfbench("metrics", "show", word)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: ") and text in done.stderr and done.stderr.count("\n") == 1


# --- from an identity to its metric -----------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [Setting(), Setting(quantise=None), Setting(border_px=4)])
@pytest.mark.parametrize("name", [*NAMES, "mean_error"])
def test_an_identity_gives_its_metric_back(name: str, setting: Setting, plugin: Path) -> None:
    identity = metric_class(name)(setting).identity()
    again = rebuild(identity)
    assert type(again) is metric_class(name) and again.identity() == identity
    assert again.setting.border_px == setting.border_px
    if again.display:
        assert again.setting.quantise == setting.quantise


@pytest.mark.parametrize("name", ["psnr_rgb", "de00", "logspec_l1", "qnr", "nll", "ece", "pyiqa:psnry"])
def test_a_rebuilt_metric_gives_the_same_number(name: str) -> None:
    """Those that need weights are rebuilt in the contract tests, on random ones."""
    if name.startswith("pyiqa:"):
        pytest.importorskip("pyiqa")
    metric = metric_class(name)(Setting())
    pairs = [scene(48, 64, s) for s in range(2)]
    found = measure(metric, *pairs)
    assert found.value is not None
    assert measure(rebuild(metric.identity()), *pairs) == found


def test_an_identity_of_a_fit_asks_for_that_fit() -> None:
    metric: Metric = rebuild("niqe_ref|fit-references|sharp0.75|yiq|block96|fit:0123abcd|q8|r2")
    assert metric.planned_fit == "0123abcd"
    assert rebuild("niqe_ref|fit-references|sharp0.75|yiq|block96|q8|r2").planned_fit is None


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ("psnr_rgb", "is no identity of a metric"),
        ("psnr_rgb|rgb|peak1|cap100|q8|r", "is no identity of a metric"),
        ("psnr_rgb||peak1|cap100|q8|r1", "is no identity of a metric"),
        ("psnr_rgb|rgb|peak1|cap100|r1", "found no q8 or qnone"),
        ("psnr_rgb|rgb|peak1|cap100|q4|r1", "found no q8 or qnone"),
        ("psnr_rgb|rgb|peak1|cap100|q8|r7", "of revision 7, expected 2"),
        ("psnr_rgb|rgb|peak2|cap100|q8|r2", "other parameters than psnr_rgb has here, expected psnr_rgb|rgb|peak1"),
        ("psnr_rgb|rgb|peak1|cap100|q8|border0|r1", "found no q8 or qnone"),
        ("lpips_alex|v0.1|alex|w:0+1|q8|r1", "of the weights 0+1, expected 7be5be79+"),
        ("psnr_bgr|rgb|q8|r1", "unknown metric 'psnr_bgr'; did you mean psnr_rgb"),
        ("psnr_rgb|rgb\n\x1b[31m|q8|r2", "other parameters"),
    ],
)
def test_an_identity_that_is_not_ours_is_refused(identity: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=re.escape(message)) as caught:
        rebuild(identity)
    assert str(caught.value).isprintable()


def test_weights_that_are_missing_do_not_hide_the_metric(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    identity = metric_class("lpips_alex")(Setting()).identity()
    metric = rebuild(identity, weights_dir=tmp_path)
    assert "weights missing" in str(metric.missing())
