"""The gate: what holds, what is caught and named, what is refused, renewals and the files it writes."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bench.cli.gate import command
from bench.core.errors import NotComparable, RfbenchError
from bench.metrics.uncertainty import LEVELS
from bench.records.folder import RunFolder
from bench.records.types import Software
from bench.reports.gate.check import Gate, Verdict, check
from bench.reports.gate.golden import history, renew
from bench.reports.gate.rules import Rules, built_in, read_rules
from bench.reports.gate.write import to_junit, to_markdown, to_text
from tests.scored_runs import described, images, numbers, scored_run

PSNR, DE00 = numbers(24, 0, 25, 3), numbers(24, 1, 5, 1)
SCORES = {"psnr_rgb": PSNR, "de00": DE00}


def shifted(scores: dict[str, float | None], by: float, wobble: float = 0.0) -> dict[str, float | None]:
    return {i: (v or 0) + by + wobble * np.sin(k) for k, (i, v) in enumerate(sorted(scores.items()))}


@pytest.fixture
def golden(tmp_path: Path) -> RunFolder:
    run = scored_run(tmp_path / "first", "bicubic", SCORES)
    kept = RunFolder(tmp_path / "golden" / "bicubic")
    renew(run, kept, "the first", [])
    return kept


def rules(tmp_path: Path, text: str) -> Rules:
    path = tmp_path / "some.toml"
    path.write_text(f"format = 1\n{text}", encoding="utf-8")
    return read_rules(path)


def verdict(gate: Gate, metric: str) -> Verdict:
    return next(v for v in gate.verdicts if v.column.metric == metric)


def gated(*words: object) -> Result:
    """The command's result; ``return_value`` is its exit code, as for ``rfbench`` itself."""
    return CliRunner().invoke(command, [str(w) for w in words], standalone_mode=False)


# --- holds, and does not --------------------------------------------------------------------------------------


def test_a_golden_run_is_small_and_has_no_image(golden: RunFolder) -> None:
    names = {p.name.partition(".")[0] if p.is_dir() else p.name for p in golden.path.rglob("*")}
    assert names == {"run.json", "summary.json", "images.parquet", "golden.json", "scores", "psnr_rgb", "de00",
                     "metric.json", "scores.parquet"}  # fmt: skip


def test_the_same_run_holds(golden: RunFolder, tmp_path: Path) -> None:
    again = scored_run(tmp_path / "again", "bicubic", SCORES)
    done = gated(tmp_path / "again", "--against", tmp_path / "golden")
    assert done.return_value == 0, done.output
    assert "held (2 held)" in done.stdout and "the built-in rules" in done.stdout
    assert check(again, golden, built_in(described(SCORES))).differs == ()


def test_a_worse_run_is_caught_with_the_metric_and_the_images(golden: RunFolder, tmp_path: Path) -> None:
    worse = dict(PSNR) | {"scene_0003": (PSNR["scene_0003"] or 0) - 2, "scene_0009": (PSNR["scene_0009"] or 0) - 1}
    run = scored_run(tmp_path / "again", "bicubic", {"psnr_rgb": worse, "de00": DE00})
    gate = check(run, golden, built_in(described(SCORES)))
    psnr, de00 = verdict(gate, "psnr_rgb"), verdict(gate, "de00")
    assert (gate.exit_code, psnr.status, de00.status) == (1, "moved", "held")
    assert psnr.difference == pytest.approx(-3 / 24) and psnr.images == 2 and psnr.ahead == ()
    assert [i for i, _ in psnr.behind] == ["scene_0003", "scene_0009"]
    text = to_text([gate])
    assert "PSNR (dB) ↑: moved by more than 0.01" in text
    assert "2 images moved; most to the worse scene_0003 (-2.000), scene_0009 (-1.000)" in text


def test_better_is_an_alarm_on_two_sides_and_none_on_one(golden: RunFolder, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "again", "bicubic", {"psnr_rgb": shifted(PSNR, 1), "de00": shifted(DE00, -1)})
    both = check(run, golden, built_in(described(SCORES)))
    assert both.exit_code == 1 and "to the better" in verdict(both, "de00").said
    one = rules(tmp_path, '[[rule]]\nmetrics = ["*"]\nabsolute = 0.01\nsides = "one"\n')
    assert check(run, golden, one).exit_code == 0
    worse = scored_run(tmp_path / "worse", "bicubic", {"psnr_rgb": PSNR, "de00": shifted(DE00, 1)})
    assert verdict(check(worse, golden, one), "de00").status == "moved"


@pytest.mark.parametrize(
    ("rule", "by", "wobble", "status"),
    [
        ("absolute = 0.1", -0.09, 0.0, "held"),
        ("absolute = 0.1", -0.11, 0.0, "moved"),
        ("relative = 0.01", -0.2, 0.0, "held"),
        ("relative = 0.01", -0.3, 0.0, "moved"),
        ("relative = 0.01\nabsolute = 0.1", -0.2, 0.0, "moved"),
        ("statistical = { }", -0.3, 0.2, "moved"),
        ("statistical = { }", 0.3, 0.2, "moved"),
        ('statistical = { }\nsides = "one"', 0.3, 0.2, "held"),
        ("statistical = { }", -0.02, 0.2, "held"),
        ("statistical = { effect = 0.5 }", -0.3, 0.2, "held"),
        ("statistical = { alpha = 1e-6 }", -0.3, 0.2, "undecided"),
        ("statistical = { effect = 0.01 }", -1e-6, 0.0, "held"),
        ("statistical = { }\nabsolute = 0.1", -0.3, 0.2, "moved"),
    ],
)
def test_rules(golden: RunFolder, tmp_path: Path, rule: str, by: float, wobble: float, status: str) -> None:
    run = scored_run(tmp_path / "again", "bicubic", {"psnr_rgb": shifted(PSNR, by, wobble), "de00": DE00})
    found = check(run, golden, rules(tmp_path, f'[[rule]]\nmetrics = ["psnr_rgb"]\n{rule}\n'))
    assert verdict(found, "psnr_rgb").status == status, to_text([found])
    assert verdict(found, "de00").status == "not judged"


def test_holm_goes_over_all_statistical_rules(tmp_path: Path) -> None:
    """Of twenty metrics of which none moved, one is below 0.05 on its own."""
    names = [f"m{k:02}" for k in range(20)]
    first = {m: numbers(24, k) for k, m in enumerate(names)}
    second = {m: {i: (v or 0) + float(np.random.default_rng([k, j]).normal(0, 0.5))
                  for j, (i, v) in enumerate(first[m].items())} for k, m in enumerate(names)}  # fmt: skip
    golden, run = scored_run(tmp_path / "a", "x", first), scored_run(tmp_path / "b", "x", second)
    found = check(run, golden, rules(tmp_path, '[[rule]]\nmetrics = ["*"]\nstatistical = {}\n'))
    assert found.exit_code == 0
    assert min(v.inference.p for v in found.verdicts if v.inference and v.inference.p is not None) < 0.06


def test_more_statistical_rules_than_the_scenes_can_decide(tmp_path: Path) -> None:
    """With 8 scenes no p is below 2/2^8, so of eight metrics a lone one could fall as far as it likes."""
    scores = {f"m{k}": numbers(8, k, 25) for k in range(8)}
    golden = scored_run(tmp_path / "a", "x", scores)
    run = scored_run(tmp_path / "b", "x", scores | {"m3": shifted(scores["m3"], -9, 0.1)})
    found = check(run, golden, rules(tmp_path, '[[rule]]\nmetrics = ["*"]\nstatistical = {}\n'))
    assert found.exit_code == 2 and verdict(found, "m3").status == "undecided"
    assert "with 8 scenes no p is below 0.0078, which is not below 0.05 after Holm's method over 8" in to_text([found])
    few = check(run, golden, rules(tmp_path, '[[rule]]\nmetrics = ["m2", "m3"]\nstatistical = {}\n'))
    assert few.exit_code == 1 and verdict(few, "m3").status == "moved"


def test_too_few_scenes_for_a_statistical_rule(tmp_path: Path) -> None:
    scenes = {i: f"s{k % 3}" for k, i in enumerate(images(24))}
    golden = scored_run(tmp_path / "a", "x", {"psnr_rgb": PSNR}, scenes=scenes)
    run = scored_run(tmp_path / "b", "x", {"psnr_rgb": shifted(PSNR, -1, 0.1)}, scenes=scenes)
    found = check(run, golden, rules(tmp_path, '[[rule]]\nmetrics = ["*"]\nstatistical = {}\n'))
    assert found.exit_code == 2 and verdict(found, "psnr_rgb").status == "undecided"
    assert "3 scenes, an interval needs at least 6; give an absolute or relative rule" in to_text([found])


def test_a_number_that_is_gone_and_an_image_that_failed(golden: RunFolder, tmp_path: Path) -> None:
    gone = scored_run(tmp_path / "gone", "bicubic", {"psnr_rgb": PSNR, "de00": dict.fromkeys(DE00)})
    found = check(gone, golden, built_in(described(SCORES)))
    assert (found.exit_code, verdict(found, "de00").status, verdict(found, "de00").said) == (2, "missing", "too small")
    failed = scored_run(tmp_path / "failed", "bicubic", SCORES, failed=("scene_0002",))
    found = check(failed, golden, built_in(described(SCORES)))
    assert (found.exit_code, found.failed) == (1, ("scene_0002",)) and verdict(found, "psnr_rgb").status == "held"


def test_images_that_lost_their_number_do_not_make_it_hold(golden: RunFolder, tmp_path: Path) -> None:
    half: dict[str, float | None] = {i: v if k % 2 else None for k, (i, v) in enumerate(PSNR.items())}
    fewer = check(
        scored_run(tmp_path / "half", "bicubic", {"psnr_rgb": half, "de00": DE00}), golden, built_in(described(SCORES))
    )
    said = "12 of 24 images have no number any more, such as scene_0000 (too small)"
    psnr = verdict(fewer, "psnr_rgb")
    assert (fewer.exit_code, psnr.status, psnr.said, psnr.difference) == (2, "missing", said, 0.0)
    assert said in to_text([fewer]) and said in to_junit([fewer])
    worse = {i: v and v - 1 for i, v in half.items()}
    both = check(
        scored_run(tmp_path / "worse", "bicubic", {"psnr_rgb": worse, "de00": DE00}),
        golden,
        built_in(described(SCORES)),
    )
    assert both.exit_code == 1 and said in verdict(both, "psnr_rgb").said


def test_a_value_of_another_fit_is_not_comparable(golden: RunFolder, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "again", "bicubic", SCORES)
    summary = json.loads((run.path / "summary.json").read_text())
    summary["rows"]["sample"]["metrics"]["psnr_rgb"]["identity"] += "|fit:0123"
    (run.path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(NotComparable, match="fit:0123"):
        check(run, golden, built_in(described(SCORES)))


def test_an_equal_number_is_worse_in_neither_direction(tmp_path: Path) -> None:
    """Too few scenes to decide on anything, but nothing moved to the worse."""
    few = {"psnr_rgb": numbers(3, 0, 25), "de00": numbers(3, 1, 5)}
    kept = RunFolder(tmp_path / "golden")
    renew(scored_run(tmp_path / "first", "bicubic", few), kept, "x", [])
    one = rules(tmp_path, '[[rule]]\nmetrics = ["*"]\nstatistical = { }\nsides = "one"\n')
    found = check(scored_run(tmp_path / "again", "bicubic", few), kept, one)
    assert [v.status for v in found.verdicts] == ["held", "held"]


def test_a_metric_of_the_set(tmp_path: Path) -> None:
    def calibrated(shift: float) -> dict[str, dict[str, np.ndarray]]:
        rng = np.random.default_rng(0)
        noise = {i: rng.normal(0, 0.02, len(LEVELS)) for i in images(12)}
        return {i: {"coverage": LEVELS + shift + e, "pixels": np.array([9.0])} for i, e in noise.items()}

    scores = {"psnr_rgb": numbers(12, 0)}
    golden = scored_run(tmp_path / "a", "x", scores, ece=calibrated(0.02))
    kept = RunFolder(tmp_path / "kept")
    renew(golden, kept, "first", [])
    assert len(list(kept.path.glob("scores/*/features.safetensors"))) == 1
    run = scored_run(tmp_path / "b", "x", scores, ece=calibrated(0.06))
    assert verdict(check(run, kept, built_in(described(["ece"]))), "ece").status == "moved"
    found = check(run, kept, rules(tmp_path, '[[rule]]\nmetrics = ["ece"]\nstatistical = {}\n'))
    assert verdict(found, "ece").status == "moved" and "p = " in verdict(found, "ece").said


# --- what is told, and what is refused ------------------------------------------------------------------------


def test_other_versions_weights_and_device_are_told(golden: RunFolder, tmp_path: Path) -> None:
    newer = Software(rfbench="0.1.0", python="3.12.0", packages={"torch": "2.12.0"})
    model = {"label": "bicubic", "adapter": {"weights": "ffff"}}
    scored_run(tmp_path / "again", "bicubic", SCORES, software=newer, model=model, device="cuda")
    done = gated(tmp_path / "again", "--against", tmp_path / "golden")
    assert done.return_value == 0
    for text in ("torch 2.11.0 -> 2.12.0", "model.adapter.weights: golden null", 'device: golden "cpu", run "cuda"'):
        assert text in done.stdout


def test_other_data_are_refused(golden: RunFolder, tmp_path: Path) -> None:
    data = {"name": "other", "split": "test", "fingerprint": "f" * 64, "ids": images(24)}
    run = scored_run(tmp_path / "again", "bicubic", SCORES, data=data)
    with pytest.raises(NotComparable, match="renew it"):
        check(run, golden, built_in(described(SCORES)))
    done = gated(run.path, "--against", golden.path)
    assert isinstance(done.exception, NotComparable) and done.exception.exit_code == 3


def test_runs_are_matched_by_label(golden: RunFolder, tmp_path: Path) -> None:
    scored_run(tmp_path / "again", "one", SCORES, label="bicubic")
    scored_run(tmp_path / "again", "two", SCORES, label="lanczos")
    done = gated(tmp_path / "again", "--against", tmp_path / "golden")
    assert isinstance(done.exception, RfbenchError) and "found no golden run of 'lanczos'" in str(done.exception)
    assert "--update --reason WHY' makes one" in str(done.exception)
    assert gated(tmp_path / "again" / "two", "--against", golden.path).return_value == 0  # one and one need no name
    assert gated(tmp_path / "again", "--against", tmp_path / "golden", "--update", "--reason", "both").return_value == 0
    assert gated(tmp_path / "again", "--against", tmp_path / "golden").return_value == 0
    assert gated(tmp_path / "again" / "one", "--against", tmp_path / "golden").return_value == 0
    shutil.rmtree(tmp_path / "again" / "two")
    done = gated(tmp_path / "again", "--against", tmp_path / "golden")
    assert isinstance(done.exception, RfbenchError) and "found no run of 'lanczos'" in str(done.exception)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule]]\nmetrics = [", "not readable TOML"),
        ("", "the field 'rule' is missing; docs/gate.md shows such a file"),
        ('[[rule]]\nmetrics = "psnr_rgb"\nabsolute = 1', r"rule\[0\].metrics: found 'psnr_rgb', expected a list"),
        ('[[rule]]\nmetrics = ["*"]', "found no limit"),
        ('[[rule]]\nmetrics = ["*"]\nabsolut = 1', "did you mean absolute"),
        ('[[rule]]\nmetrics = ["*"]\nabsolute = -1', "found -1, expected a number >= 0"),
        ('[[rule]]\nmetrics = ["*"]\nabsolute = nan', "found nan"),
        ('[[rule]]\nmetrics = ["*"]\nabsolute = true', "found true, expected a number"),
        ('[[rule]]\nmetrics = ["*"]\nstatistical = { alpha = 2 }', "alpha: found 2, expected a number < 1"),
        ('[[rule]]\nmetrics = ["*"]\nstatistical = { d = 2 }', "unknown field 'd'; known: alpha, effect"),
        ('[[rule]]\nmetrics = ["*"]\nabsolute = 1\nsides = "both"', "found 'both', expected one of one, two"),
    ],
)
def test_wrong_rules(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RfbenchError, match=said):
        rules(tmp_path, text)


def test_wrong_rules_files(golden: RunFolder, tmp_path: Path) -> None:
    other = tmp_path / "r.toml"
    other.write_text('format = 2\n[[rule]]\nmetrics = ["*"]\nabsolute = 1\n')
    with pytest.raises(RfbenchError, match="format: found 2, expected 1; docs"):
        read_rules(other)
    other.write_text('format = 1\n[[rule]]\nmetrics = ["psnr"]\nabsolute = 1\n')
    done = gated(golden.path, "--against", golden.path, "--rules", other)
    assert "did you mean psnr_rgb" in str(done.exception)
    done = gated(golden.path, "--against", golden.path, "--rules", tmp_path / "none.toml")
    assert "does not exist" in str(done.exception)


def test_rules_beside_the_golden_runs_are_found(golden: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "golden" / "rules.toml").write_text('format = 1\n[[rule]]\nmetrics = ["*"]\nabsolute = 9\n')
    run = scored_run(tmp_path / "again", "bicubic", {"psnr_rgb": shifted(PSNR, -2), "de00": DE00})
    for against in (tmp_path / "golden", golden.path):
        done = gated(run.path, "--against", against)
        assert done.return_value == 0 and "rules.toml" in done.stdout
    (tmp_path / "golden" / "rules.toml").write_text('format = 1\n[[rule]]\nmetrics = ["psnr"]\nabsolute = 9\n')
    for against in (tmp_path / "golden", golden.path):
        done = gated(run.path, "--against", against)
        assert isinstance(done.exception, RfbenchError) and "did you mean psnr_rgb" in str(done.exception)


def test_a_gate_that_judges_nothing_does_not_hold(golden: RunFolder, tmp_path: Path) -> None:
    found = check(golden, golden, Rules((), "no rules"))
    assert found.exit_code == 2 and "(nothing judged)" in to_text([found])


def test_the_headline_names_the_run_s_own_model(golden: RunFolder, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "again", "lanczos", SCORES)
    assert to_text([check(run, golden, built_in(described(SCORES)))]).startswith("lanczos against ")


def test_limits_of_a_registered_metric_are_those_of_the_metric() -> None:
    of = built_in(described(["psnr_rgb", "psnr_rgb_reg"])).of
    assert of("psnr_rgb_reg")[0].absolute == of("psnr_rgb")[0].absolute == 0.01


# --- renewals and files ---------------------------------------------------------------------------------------


def test_a_renewal_keeps_its_reason(golden: RunFolder, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "again", "bicubic", {"psnr_rgb": shifted(PSNR, -2), "de00": DE00})
    assert gated(run.path, "--against", golden.path).return_value == 1
    done = gated(run.path, "--against", golden.path, "--update", "--reason", "a new\nkernel")
    assert done.return_value == 0 and "sample psnr_rgb " in done.stdout and "de00" not in done.stdout
    assert gated(run.path, "--against", golden.path).return_value == 0
    found = history(golden)
    assert [r["reason"] for r in found] == ["the first", "a new kernel"]
    again = gated(run.path, "--against", golden.path, "--update", "--reason", "a new kernel")  # as after a kill
    assert again.return_value == 0 and history(golden) == found
    other = gated(run.path, "--against", tmp_path / "other", "--update", "--reason", "x")
    assert other.return_value == 0 and other.stdout == "  the first one\n"
    assert found[1]["moved"] == [done.stdout.strip()]


@pytest.mark.parametrize("words", [["--update"], ["--reason", "x"], ["--update", "--reason", " "]])
def test_a_renewal_needs_a_reason(golden: RunFolder, words: list[str]) -> None:
    done = gated(golden.path, "--against", golden.path, *words)
    assert isinstance(done.exception, RfbenchError) and "belong together" in str(done.exception)


def test_a_run_is_not_overwritten_by_a_golden_one(tmp_path: Path) -> None:
    run, other = (scored_run(tmp_path, n, {"psnr_rgb": shifted(PSNR, k)}) for k, n in enumerate("ab"))
    (other.path / "host.json").write_text("{}")
    before = {p: p.read_bytes() for p in other.path.rglob("*") if p.is_file()}
    for given in (run, other):
        done = gated(given.path, "--against", other.path, "--update", "--reason", "x")
        assert isinstance(done.exception, RfbenchError) and "give --against another folder" in str(done.exception)
    assert before == {p: p.read_bytes() for p in other.path.rglob("*") if p.is_file()}


def test_a_run_with_failures_is_no_golden_one(golden: RunFolder, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "again", "bicubic", SCORES, failed=("scene_0002",))
    with pytest.raises(RfbenchError, match="found 1 failed images, expected a complete run"):
        renew(run, golden, "x", [])


def test_junit_and_markdown(golden: RunFolder, tmp_path: Path) -> None:
    hostile = "<b>&\x00\ud800|`x`"
    scores = {"psnr_rgb": shifted(PSNR, -2), "de00": dict.fromkeys(DE00)}
    scored_run(tmp_path / "again", "bicubic", scores, model={"label": "bicubic", "options": {"x": "<b>&|`x`"}})
    junit, markdown = tmp_path / "deep" / "g.xml", tmp_path / "g.md"
    done = gated(tmp_path / "again", "--against", tmp_path / "golden", "--junit", junit, "--markdown", markdown)
    assert done.return_value == 1
    suite = ET.parse(junit).getroot().find("testsuite")
    assert suite is not None
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2", "failures": "1", "errors": "1", "skipped": "0",
    }  # fmt: skip
    failure = suite.find("testcase[@name='psnr_rgb']/failure")
    assert failure is not None and "scene_" in str(failure.text) and "moved by more than" in str(failure.get("message"))
    written = markdown.read_text()
    assert "**moved**" in written and "**missing**" in written and "\\<b\\>" in written
    gate = check(RunFolder(tmp_path / "again" / "bicubic"), golden, built_in(described(SCORES)))
    broken = Gate(hostile, gate.run, gate.golden, hostile, gate.verdicts, (hostile,), (hostile,))
    ET.fromstring(to_junit([broken]))
    assert "\x00" not in to_text([broken]) + to_markdown([broken])


def test_a_broken_golden_run_is_one_line(golden: RunFolder, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "again", "bicubic", SCORES)
    shutil.copy(golden.path / "run.json", next(golden.path.glob("scores/de00.*")) / "scores.parquet")
    done = gated(run.path, "--against", golden.path)
    assert isinstance(done.exception, RfbenchError) and "scores.parquet is not the file" in str(done.exception)
    (golden.path / "golden.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(RfbenchError, match="not a history of format 1"):
        history(golden)


@pytest.mark.parametrize("failed", [[3], [{"a": 1}]])
def test_a_hostile_summary_is_one_line(golden: RunFolder, failed: list[object]) -> None:
    path = golden.path / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failed": failed}))
    done = gated(golden.path, "--against", golden.path)
    assert isinstance(done.exception, RfbenchError) and "summary.json: failed[0]: found " in str(done.exception)


def test_a_model_record_of_other_types_is_one_line(golden: RunFolder, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "again", "bicubic", SCORES)
    path = run.path / "run.json"
    broken = json.loads(path.read_text())
    broken["plan"]["model"] = {"label": 5, "spec": 3, "options": [1]}
    path.write_text(json.dumps(broken))
    with pytest.raises(RfbenchError, match=r"run.json: plan.model.(label|spec|options): found"):
        check(run, golden, built_in(described(SCORES)))
