"""Comparisons of run folders: pairing, orientation, refusals, and the three writers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from bench.cli.compare import command
from bench.core.errors import NotComparable, RfbenchError
from bench.core.files import safe_name
from bench.metrics.uncertainty import LEVELS, Ece
from bench.records.folder import RunFolder
from bench.records.run import PICTURES
from bench.reports.compare.build import Comparison, Finding, compare
from bench.reports.compare.write import WRITERS, to_json, to_markdown, to_text
from tests.conftest import ROOT
from tests.scored_runs import images, numbers, scored_run

HOSTILE = "a|b`c`<i>*x* _y_ \x1b[31m模型\nnew line"


def finding(comparison: Comparison, metric: str, pair: int = 0) -> Finding:
    return next(f for f in comparison.pairs[pair].findings if f.column.metric == metric)


@pytest.fixture
def two(tmp_path: Path) -> list[RunFolder]:
    """24 scenes; b is 1 dB above a but for one image, and its colours are worse."""
    psnr = numbers(24, 0, 25, 3)
    more = {i: (v or 0) + 1 + 0.2 * np.sin(k) for k, (i, v) in enumerate(psnr.items())}
    more["scene_0007"] = (psnr["scene_0007"] or 0) - 2
    more["scene_0009"] = (psnr["scene_0009"] or 0) + 0.001
    de00 = numbers(24, 1, 5, 1)
    worse = {i: (v or 0) + 0.5 + 0.1 * np.cos(k) for k, (i, v) in enumerate(de00.items())}
    return [
        scored_run(tmp_path, "a", {"psnr_rgb": psnr, "de00": de00}),
        scored_run(tmp_path, "b", {"psnr_rgb": more, "de00": worse}, keep_order=True),
    ]


def test_who_is_better_by_how_much_and_where(two: list[RunFolder]) -> None:
    found = compare(two)
    psnr, de00 = finding(found, "psnr_rgb"), finding(found, "de00")
    assert (found.pairs[0].a, found.pairs[0].b, found.scenes, found.tests) == ("a", "b", 24, 2)
    inference = psnr.paired.inference
    assert inference is not None and inference.low is not None and inference.high is not None
    assert inference.low < inference.value < inference.high < 0 and -1.1 < inference.value < -0.7
    assert (psnr.better, psnr.wins, psnr.ties, psnr.losses) == ("b", 1, 1, 22)
    assert psnr.ahead == (("scene_0007", pytest.approx(2.0)),) and len(psnr.behind) == 3
    assert psnr.behind[0][1] == min(psnr.paired.differences)
    assert de00.better == "a" and de00.losses == 0 and de00.effect is not None and de00.effect < 0
    assert de00.ahead[0][1] == min(de00.paired.differences) and de00.behind == ()
    assert psnr.p_holm is not None and psnr.paired.inference is not None and psnr.paired.inference.p is not None
    assert psnr.p_holm >= psnr.paired.inference.p


def test_pairs_are_made_by_id(two: list[RunFolder], tmp_path: Path) -> None:
    """The rows of a and b lie in opposite order."""
    values = {f.path.name: f.scores().set_index("id")["psnr_rgb"] for f in two}
    differences = (values["a"] - values["b"]).sort_index()
    assert finding(compare(two), "psnr_rgb").paired.differences == pytest.approx(differences.to_list())


def test_the_other_way_round_is_the_mirror(two: list[RunFolder]) -> None:
    there, back = finding(compare(two), "psnr_rgb"), finding(compare(two[::-1]), "psnr_rgb")
    a, b = there.paired.inference, back.paired.inference
    assert a is not None and b is not None and a.low is not None and b.high is not None
    assert (b.value, b.high, b.p) == pytest.approx((-a.value, -a.low, a.p))
    assert (back.better, back.wins, back.losses) == ("a", there.losses, there.wins) and back.ahead[:1] == tuple(
        (i, -d) for i, d in there.behind[:1]
    )


def test_more_runs_do_not_move_a_pair_s_numbers(two: list[RunFolder], tmp_path: Path) -> None:
    third = scored_run(tmp_path, "c", {"psnr_rgb": numbers(24, 5, 25), "de00": numbers(24, 6, 5)})
    one, many = compare(two), compare([*two, third])
    assert [(p.a, p.b) for p in many.pairs] == [("a", "b"), ("a", "c"), ("b", "c")] and many.tests == 6
    assert finding(many, "psnr_rgb").paired == finding(one, "psnr_rgb").paired
    assert [(p.a, p.b) for p in compare([*two, third], against="a").pairs] == [("b", "a"), ("c", "a")]


def test_noise_is_not_separated(tmp_path: Path) -> None:
    runs = [scored_run(tmp_path, n, {"psnr_rgb": numbers(24, seed, 25, 1)}) for n, seed in (("a", 1), ("b", 2))]
    found = compare(runs)
    assert finding(found, "psnr_rgb").better is None and "  not separated  " in to_text(found)
    assert "PSNR: not separated: a difference this small is no more than 24 scenes give by chance" in to_text(found)


def test_what_holm_s_method_does_not_separate_is_said(tmp_path: Path) -> None:
    runs = [scored_run(tmp_path, n, {"psnr_rgb": numbers(6, 0, 25 + k), "de00": numbers(6, 1, 5 + k)})
            for k, n in enumerate("ab")]  # fmt: skip
    said = "not separated: p is below 0.05, but not among 2 tests (Holm); fewer metrics (--metrics)"
    assert f"PSNR, ΔE00: {said}" in to_text(compare(runs))


def test_the_mean_of_the_draws_is_a_row(tmp_path: Path) -> None:
    scores = numbers(12, 0, 25)
    mean = {i: (v or 0) + 1 for i, v in scores.items()}
    run = scored_run(tmp_path, "flow", {"psnr_rgb": scores}, mean={"psnr_rgb": mean})
    found = compare([run])
    assert (found.pairs[0].a, found.pairs[0].b) == ("flow", "flow@mean")
    assert finding(found, "psnr_rgb").paired.inference.value == pytest.approx(-1)  # type: ignore[union-attr]


def test_images_that_failed_are_left_out_and_told(two: list[RunFolder], tmp_path: Path) -> None:
    third = scored_run(tmp_path, "c", {"psnr_rgb": numbers(24, 3, 25)}, failed=("scene_0003", "scene_0004"))
    found = compare([two[0], third])
    assert len(finding(found, "psnr_rgb").paired.ids) == 22
    assert "PSNR: over 22 of 24 images (2: no score)" in to_text(found)
    assert "ΔE00: not part of both runs" in to_text(found)


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"name": "other", "split": "test", "fingerprint": "f" * 64, "ids": images(24)}}, "data.fingerprint"),
        ({"protocol": {"name": "paired", "quantise": None}}, "protocol"),
    ],
)  # fmt: skip
def test_other_data_or_protocol(tmp_path: Path, two: list[RunFolder], change: dict[str, object], said: str) -> None:
    other = scored_run(tmp_path, "c", {"psnr_rgb": numbers(24, 0)}, **change)
    with pytest.raises(NotComparable, match=f"cannot be paired.*{said}"):
        compare([two[0], other])
    done = CliRunner().invoke(command, [str(two[0].path), str(other.path)])
    assert isinstance(done.exception, NotComparable) and done.exception.exit_code == 3


def test_another_identity_of_a_shown_metric(two: list[RunFolder], tmp_path: Path) -> None:
    scores = {"psnr_rgb": numbers(24, 0), "de00": numbers(24, 1)}
    other = scored_run(tmp_path, "c", scores, identities={"de00": "de00|r2"})
    with pytest.raises(NotComparable, match="metric de00"):
        compare([two[0], other])
    assert compare([two[0], other], ["psnr_rgb"]).tests == 1


def test_no_image_in_common(tmp_path: Path) -> None:
    half = images(24)[:12]
    first = {i: v if i in half else None for i, v in numbers(24, 0).items()}
    second = {i: None if i in half else v for i, v in numbers(24, 1).items()}
    runs = [scored_run(tmp_path, n, {"psnr_rgb": s}) for n, s in (("a", first), ("b", second))]
    with pytest.raises(NotComparable, match="no image has it in both runs"):
        compare(runs)


def test_wrong_input(two: list[RunFolder]) -> None:
    with pytest.raises(RfbenchError, match="at least two to compare"):
        compare(two[:1])
    with pytest.raises(RfbenchError, match="unknown row 'bb'; did you mean b"):
        compare(two, against="bb")
    with pytest.raises(RfbenchError, match="--alpha: found 5, expected"):
        compare(two, alpha=5)
    with pytest.raises(RfbenchError, match="unknown metric"):
        compare(two, ["psnr"])


def test_scores_that_are_not_the_summary_s(two: list[RunFolder]) -> None:
    path = next(two[1].path.glob("scores/psnr_rgb.*/scores.parquet"))
    frame = pd.read_parquet(path)
    frame.loc[0, "value"] = 99.0
    frame.to_parquet(path)
    with pytest.raises(RfbenchError, match=r"is not the file that summary\.json was made of"):
        compare(two)


# --- few scenes, sets, texts ----------------------------------------------------------------------------------


def test_five_scenes(tmp_path: Path) -> None:
    scenes = {i: f"s{k % 5}" for k, i in enumerate(images(25))}
    runs = [scored_run(tmp_path, n, {"psnr_rgb": numbers(25, k, 25 + k)}, scenes=scenes) for k, n in enumerate("ab")]
    text = to_text(compare(runs))
    assert (
        "5 scenes, an interval needs at least 6" in text and "[" not in text.partition("\n\n")[2].partition("\n  -")[0]
    )
    found = finding(compare(runs), "psnr_rgb").paired.inference
    assert found is not None and found.p is None and found.smallest is not None
    assert f"{found.smallest:.3f}" in text


def test_six_scenes_cannot_separate_one_of_many(tmp_path: Path) -> None:
    runs = [
        scored_run(tmp_path, n, {"psnr_rgb": numbers(6, 0, 25 + k), "de00": numbers(6, 1, 5 + k)})
        for k, n in enumerate("ab")
    ]
    assert "with 6 scenes no p is below 0.031, so that Holm's method over 2 tests" in to_text(compare(runs))


def calibration(seed: int, shift: float) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {
        i: {"coverage": np.clip(LEVELS + shift + rng.normal(0, 0.02, len(LEVELS)), 0, 1), "pixels": np.array([100.0])}
        for i in images(12)
    }


def test_a_metric_of_the_set_is_compared_from_its_features(tmp_path: Path) -> None:
    runs = [
        scored_run(tmp_path, n, {"psnr_rgb": numbers(12, k)}, ece=calibration(k, shift))
        for k, (n, shift) in enumerate((("a", 0.02), ("b", 0.1)))
    ]
    found = finding(compare(runs), "ece")
    assert found.paired.inference is not None and found.better == "a" and found.paired.differences == ()
    assert found.paired.inference.value == pytest.approx(-0.08, abs=0.01)
    assert "one number of the set, at 12 images" in to_text(compare(runs))
    next(runs[0].path.glob("scores/ece.*/features.safetensors")).unlink()
    without = finding(compare(runs), "ece").paired
    assert without.inference is None and without.reason is not None and "did not keep its features" in without.reason


def test_swaps_are_too_few_for_a_small_alpha_and_it_is_told(tmp_path: Path) -> None:
    runs = [
        scored_run(tmp_path, n, {"psnr_rgb": numbers(12, k, 25)}, ece=calibration(k, 0.1 * k))
        for k, n in enumerate("ab")
    ]
    found = compare(runs, alpha=0.002)
    assert "with 12 scenes no p of ECE is below 0.001, so that Holm's method over 2 tests" in to_text(found)
    assert not any("no p" in note for note in compare(runs).notes)


def test_a_set_metric_of_another_version_is_a_reason(tmp_path: Path) -> None:
    other = {"ece": Ece().identity().replace("quantiles0.05..0.95/0.05", "quantiles0.1..0.9/0.1")}
    runs = [
        scored_run(tmp_path, n, {"psnr_rgb": numbers(12, 0)}, ece=calibration(k, 0.0), identities=other)
        for k, n in enumerate("ab")
    ]
    found = finding(compare(runs), "ece").paired
    assert found.reason is not None and found.reason.startswith("it is defined otherwise here")


@pytest.mark.parametrize("form", list(WRITERS))
def test_hostile_names(tmp_path: Path, form: str) -> None:
    scores = {i + HOSTILE: v for i, v in numbers(8, 0).items()}
    more = {i: (v or 0) + 1 + k for k, (i, v) in enumerate(scores.items())}
    runs = [scored_run(tmp_path, n, {"psnr_rgb": s}, label=n + HOSTILE) for n, s in (("a", scores), ("b", more))]
    text = WRITERS[form](compare(runs))
    assert "\x1b" not in text
    if form == "markdown":
        assert all(line.count("|") - line.count("\\|") == 12 for line in text.splitlines() if line.startswith("|"))
    if form == "json":
        assert json.loads(text)["pairs"][0]["metrics"]["psnr_rgb"]["behind"][0][0] in more


def test_the_command_and_its_json(two: list[RunFolder], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "c.json"
    words = [str(two[0].path), str(two[1].path), "--format", "json"]
    done = CliRunner().invoke(command, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_text() == CliRunner().invoke(command, words).stdout == to_json(compare(two)) + "\n"
    found = json.loads(out.read_text())["pairs"][0]["metrics"]["psnr_rgb"]
    assert found["identity"].startswith("psnr_rgb|") and found["n"] == 24 and found["better"] == "b"
    assert (
        found["p"] == max(found["p_interval"], found["p_flip"]) and found["low"] < found["difference"] < found["high"]
    )
    assert "**b**" in to_markdown(compare(two))


# --- runs of earlier versions, and foreign pictures -----------------------------------------------------------


def test_runs_of_format_1_are_read() -> None:
    runs = [RunFolder(ROOT / "tests/format1" / name) for name in ("bicubic", "bicubic-affine")]
    found = finding(compare(runs), "psnr_rgb").paired
    assert found.inference is not None and found.inference.scenes == len(found.ids) == 24
    assert len({*found.scenes}) == 24 and not found.left_out


def test_changed_scores_of_format_1_are_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests/format1/bicubic", tmp_path / "a")
    frame = pd.read_parquet(tmp_path / "a/scores.parquet")
    frame.loc[0, "psnr_rgb"] = 99.0
    frame.to_parquet(tmp_path / "a/scores.parquet")
    with pytest.raises(RfbenchError, match=r"scores\.parquet is not the file that summary\.json was made of"):
        compare([RunFolder(tmp_path / "a"), RunFolder(ROOT / "tests/format1/bicubic-affine")])


def test_foreign_pictures_get_the_ids_and_scenes_of_the_run_beside_them(tmp_path: Path) -> None:
    """Pictures are named by safe names, and order by these: '#' becomes '_', which sorts elsewhere."""
    ids = ["b#1", "b-2", "a/3", "b.4", "c", "d", "e f", "g"]
    calibrated = calibration(0, 0.05)
    values = {i: 20.0 + k for k, i in enumerate(ids)}
    features = dict(zip(ids, calibrated.values(), strict=False))
    own = scored_run(tmp_path, "own", {"psnr_rgb": values}, scenes={i: f"scene of {i}" for i in ids}, ece=features,
                     references_sha256="r")  # fmt: skip
    renamed = {safe_name(i): i for i in ids}
    more = {name: {"coverage": features[i]["coverage"] + 0.01, "pixels": features[i]["pixels"]}
            for name, i in renamed.items()}  # fmt: skip
    data = {"name": "pictures", "split": "", "fingerprint": "", "ids": sorted(renamed)}
    foreign = scored_run(
        tmp_path, "foreign", {"psnr_rgb": {name: values[i] - 1.0 for name, i in renamed.items()}}, ece=more,
        references_sha256="r", protocol={"name": PICTURES, "quantise": 8, "border_px": 0}, data=data,
    )  # fmt: skip
    for pair_of in ([own, foreign], [foreign, own]):
        found = compare(pair_of)
        psnr, ece = finding(found, "psnr_rgb").paired, finding(found, "ece").paired
        assert sorted(psnr.ids) == sorted(ids) and set(psnr.scenes) == {f"scene of {i}" for i in ids}
        assert {abs(d) for d in psnr.differences} == {1.0}
        assert ece.inference is not None and ece.inference.scenes == 8
        assert ece.a is not None and ece.b is not None and abs(ece.a - ece.b) == pytest.approx(0.01, abs=2e-3)
        assert (found.table.dataset, found.table.protocol) == ("scenes", "paired")
    other = scored_run(tmp_path, "other", {"psnr_rgb": values}, references_sha256="s")
    with pytest.raises(
        NotComparable, match="references: the pictures that other was held against are not those of foreign"
    ):
        compare([other, foreign])
