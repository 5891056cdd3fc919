"""The ablation: what each row changes and what it must not, its trainings, and its table."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench.core.errors import RfbenchError
from rareflow.card import read_card
from rareflow.checkpoint import load
from rareflow.config import Config
from rareflow.errors import RareflowError
from rareflow.train.ablation import VARIANTS, start_config, train_variants, variant_config
from rareflow.train.cli import ablate
from tests.conftest import write_dataset
from tests.small_rareflow import pixels, small_config, small_data

# What a row of the paper's Table 3 has: (pre-trained control, captions, gates, losses), then the scale of control.
_ROWS = {
    "from-scratch": (False, False, False, False, 2.0),
    "pretrained-control": (True, False, False, False, 2.0),
    "caption": (True, True, False, False, 2.0),
    "caption-gate": (True, True, True, False, 2.0),
    "caption-loss": (True, True, False, True, 2.0),
    "full": (True, True, True, True, 2.0),
    "spatial-only": (True, False, True, True, 2.0),
    "text-only": (True, True, False, False, 0.0),
}


def flat(config: Config) -> dict[str, Any]:
    """A configuration as ``{"control.gates": True, ...}``."""

    def walk(values: dict[str, Any], before: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            found |= walk(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
        return found

    return walk(config.to_dict(), "")


@pytest.mark.parametrize("name", list(_ROWS))
def test_a_row_has_what_the_paper_s_table_says_and_differs_in_nothing_else(name: str) -> None:
    config = variant_config(small_config(), name, steps=7)
    loss = config.loss.lambda_fft, config.loss.lambda_color, config.loss.lambda_lpips
    full = (small_config().loss.lambda_fft, small_config().loss.lambda_color, small_config().loss.lambda_lpips)
    assert loss in (full, (0.0, 0.0, 0.0))
    found = (config.control.init != "scratch", config.text.captions, config.control.gates, loss == full)
    assert (*found, config.control.s_ctrl) == _ROWS[name]
    assert config.name == f"small-{name}"
    mine, given = flat(config), flat(small_config())
    allowed = {"name", "control.init", "control.gates", "control.s_ctrl", "text.captions", "loss.lambda_fft",
               "loss.lambda_color", "loss.lambda_lpips", "train.control.steps"}  # fmt: skip
    if name == "text-only":
        assert config.train.control.steps == 0
        allowed.add("train.bank_size")
    else:
        assert config.train.control.steps == 7
    assert {key for key in mine if mine[key] != given[key]} <= allowed


def test_the_rows_are_the_paper_s(shared: Path) -> None:
    lines = (shared / "paper" / "table3_ablation.csv").read_text(encoding="utf-8").splitlines()[1:]
    theirs = [line.split(",")[:2] for line in lines]
    ours = [[v.number, v.title.replace("α", "alpha")] for v in VARIANTS.values() if v.number]
    assert ours == theirs
    assert {v.title for v in VARIANTS.values() if not v.number} == {"spatial only", "text only"}


def test_a_given_controlnet_is_the_pre_trained_one() -> None:
    given = small_config({"control": {"init": "some/folder"}})
    assert variant_config(given, "caption").control.init == "some/folder"
    assert variant_config(given, "from-scratch").control.init == "scratch"
    scratch = small_config({"control": {"init": "scratch"}})
    assert variant_config(scratch, "caption").control.init == "prior"


@pytest.mark.parametrize(
    "change", [{"text": {"captions": False}}, {"control": {"gates": False}}, {"control": {"s_ctrl": 0.0}},
               {"loss": {"lambda_fft": 0.0, "lambda_color": 0.0}}],
)  # fmt: skip
def test_a_configuration_with_something_off_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RareflowError, match="everything on") as error:
        variant_config(small_config(change), "full")
    assert "\n" not in str(error.value)


def test_the_start_is_a_prior_and_not_a_finished_model(trained: Path) -> None:
    config = start_config(trained / "prior")
    assert config == small_config()
    with pytest.raises(RareflowError, match="finished model"):
        start_config(trained)


@pytest.mark.parametrize(("names", "message"), [(["caption", "captions"], "'captions'"), ([], "none")])
def test_unknown_names_are_refused_before_anything_is_trained(
    trained: Path, tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(RareflowError, match=message):
        train_variants(small_config(), small_data(), tmp_path / "out", names, prior=trained / "prior")
    with pytest.raises(RareflowError, match="no prior"):
        train_variants(small_config(), small_data(), tmp_path / "out", ["full"])
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def ablation(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three variants, two steps each."""
    out = tmp_path_factory.mktemp("ablation")
    names = ["pretrained-control", "full", "text-only"]
    return train_variants(small_config(), small_data(), out, names, prior=trained / "prior", steps=2, device="cpu")


def part(folder: Path, name: str) -> str:
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_variants_share_the_frozen_parts_and_train_the_control(ablation: dict[str, Path], trained: Path) -> None:
    file = "diffusion_pytorch_model.safetensors"
    for frozen in (f"vae/{file}", f"transformer/{file}", "text.safetensors"):
        assert {part(folder, frozen) for folder in ablation.values()} == {part(trained / "prior", frozen)}
    controls = {name: part(folder, f"control/{file}") for name, folder in ablation.items()}
    assert len(set(controls.values())) == 3
    assert controls["text-only"] == part(trained / "prior", f"control/{file}")  # nothing of it trains
    assert [(folder / "gates.safetensors").exists() for folder in ablation.values()] == [False, True, False]
    labels = [read_card(folder).label for folder in ablation.values()]
    assert labels == [f"rareflow-small-{name}" for name in ablation]


def test_only_what_a_variant_has_can_change_its_answer(ablation: dict[str, Path]) -> None:
    lr, other = (pixels(seed, 8, 8)[None] for seed in (1, 2))

    def answers(name: str) -> list[np.ndarray]:
        model = load(ablation[name])
        inputs = ((lr, "a lake"), (lr, "two slumps"), (other, "a lake"))
        return [model.upscale(i, (24, 24), captions=[c], seeds=[(3,)], u=0.0).samples for i, c in inputs]

    first, caption, image = answers("pretrained-control")
    assert np.array_equal(first, caption) and not np.array_equal(first, image)
    first, caption, image = answers("text-only")
    assert np.array_equal(first, image) and not np.array_equal(first, caption)
    first, caption, image = answers("full")
    assert not np.array_equal(first, caption) and not np.array_equal(first, image)


def test_a_finished_variant_is_not_trained_again_and_a_new_one_is(ablation: dict[str, Path], trained: Path) -> None:
    out = ablation["full"].parent
    assert not (out / "cache").exists()
    before = {name: read_card(folder) for name, folder in ablation.items()}
    steps: list[str] = []
    train_variants(
        small_config(), small_data(), out, ["full", "caption"], prior=trained / "prior", steps=2, device="cpu",
        report=lambda stage, *_: steps.append(stage),
    )  # fmt: skip
    assert set(steps) == {"caption, control"}
    assert {name: read_card(folder) for name, folder in ablation.items()} == before
    with pytest.raises(RareflowError, match="another training"):
        train_variants(small_config(), small_data(), out, ["full"], prior=trained / "prior", steps=3, device="cpu")


def test_the_command_prints_table_3_and_goes_on(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.score.execute.usual_workers", lambda **_: 0)
    # 'train' has other scenes than 'test', as it must
    data = write_dataset(tmp_path / "data", count=6, hr_px=(105, 110), factor=5)
    rows = (data / "pairs.csv").read_text().splitlines()
    rows = [rows[0], *(r.replace(",test,", ",train,") if i < 4 else r for i, r in enumerate(rows[1:]))]
    (data / "pairs.csv").write_text("\n".join(rows) + "\n")
    words = ["--prior", str(trained / "prior"), "--data", str(data), "--test-data", str(data), "--steps", "1",
             "--variants", "full,text-only", "--out", str(tmp_path / "out"), "--threads", "1"]  # fmt: skip
    first = CliRunner().invoke(ablate, words, catch_exceptions=False)
    assert first.exit_code == 0
    lines = [line for line in first.stdout.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines] == [
        "", "**model**", "6 Full Model", "text only", "minus 6 Full Model", "text only",
    ]  # fmt: skip
    titles = [t.split("**")[1] for t in lines[1].split("|")[2:-1]]
    assert titles[:8] == ["PSNR", "SSIM", "FSIM", "LPIPS", "DISTS", "FID", "NIQE", "MANIQA"]
    assert "text only: the prior and the caption, no control" in first.stdout and "1 steps of control" in first.stdout
    assert (tmp_path / "out" / "table.md").read_text() == first.stdout

    again = CliRunner().invoke(ablate, [*words, "--format", "json"], catch_exceptions=False)
    table = json.loads(again.stdout)
    psnr = [row["metrics"]["psnr_rgb"]["value"] for row in table["rows"]]
    shown = [float(line.split("|")[2].strip("* <>ins/")) for line in lines[2:4]]
    assert np.allclose(psnr, shown, atol=0.005)
    difference = float(lines[5].split("|")[2].split("[")[0])
    assert abs(difference - (psnr[1] - psnr[0])) < 0.0051
    assert (tmp_path / "out" / "table.md").read_text() == first.stdout  # made from the same runs

    with pytest.raises(RfbenchError, match="neither --prior nor --config"):
        CliRunner().invoke(ablate, [*words[2:]], catch_exceptions=False)
