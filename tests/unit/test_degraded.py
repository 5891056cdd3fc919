"""What u and the gates are worth on degraded inputs: against the parts written out, and what the command writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

from rareflow.degrade import degrade
from rareflow.errors import RareflowError
from rareflow.experiments import degraded as module
from rareflow.experiments.cli import degraded
from rareflow.experiments.degraded import CONDITIONS, LEVELS, PLAIN, degraded_study, markdown
from rareflow.experiments.scores import Image, image_seed, measure_image
from rareflow.images import pad_to, upsample
from rareflow.model import RareFlow
from rareflow.noise import normal
from rareflow.train.chips import stream
from rareflow.uncertainty import Scale
from tests.conftest import write_dataset
from tests.small_rareflow import pixels, small_config, small_model

pytestmark = pytest.mark.usefixtures("one_thread")


def image(number: int) -> Image:
    lr = np.float32(0.5) + (pixels(number, 12, 12) - np.float32(0.5)) * np.float32(0.3 + 0.1 * (number % 7))
    return Image(f"i{number}", f"s{number}", f"word{number} and lake", lr, (50, 50), pixels(number, 50, 50))


@pytest.fixture(scope="module")
def model() -> RareFlow:
    made = small_model()
    found = [measure_image(made, image(i)).mean_v for i in range(3)]
    made.scale = Scale(max(found) * 1.2, float(np.median(found)))
    return made


@pytest.fixture(scope="module")
def looks() -> list[Any]:
    """What the study of ``found`` saw of its images, in order."""
    return []


@pytest.fixture(scope="module")
def found(model: RareFlow, looks: list[Any]) -> dict:
    look = module._look

    def kept(*words: Any) -> Any:
        looks.append(look(*words))
        return looks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_look", kept)
        return degraded_study(model, [image(i) for i in range(3)])


def loss_by_hand(model: RareFlow, one: Image, lr: np.ndarray, u: float, scale: float = 1.0) -> float:
    """The velocity loss of an image from diffusers' parts: control, gates, transformer."""
    field = model.field
    assert field.control is not None and field.gates is not None and one.hr is not None

    def encoded(side: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(side.transpose(2, 0, 1)))[None]
        return model.codec.encode(pad_to(upsample(tensor, (50, 50)), (60, 60)))

    total = 0.0
    with torch.no_grad():
        x, z0 = encoded(lr), encoded(one.hr)
        tokens, pooled = model.captions.get([one.caption])
        for level in LEVELS:
            eps = normal([image_seed(one.id)], tuple(z0.shape[1:]), "held out", level)
            common = {
                "hidden_states": (1 - level) * z0 + level * eps, "encoder_hidden_states": tokens,
                "pooled_projections": pooled, "timestep": torch.tensor([1000 * level]), "return_dict": False,
            }  # fmt: skip
            alpha = field.gates(torch.tensor([level]), torch.tensor([u]))[0]
            residuals = field.control(controlnet_cond=x, **common)[0]
            residuals = [scale * field.s_ctrl * a * r for a, r in zip(alpha, residuals, strict=True)]
            v = field.transformer(block_controlnet_hidden_states=residuals, **common)[0]
            total += float((v - (eps - z0)).square().mean()) / len(LEVELS)
    return total


def test_losses_are_those_of_the_parts_on_the_degraded_image(model: RareFlow, found: dict) -> None:
    images = [image(i) for i in range(3)]
    for name in ("clean", "noise .15"):
        kind, strength = CONDITIONS[name]
        rows, us = [], []
        for one in images:
            lr = degrade(one.lr, kind, strength, stream(0, "degraded", name, one.id)) if kind else one.lr
            seen = Image(one.id, one.scene, one.caption, lr, one.size, one.hr)
            us.append(measure_image(model, seen).u)
            at = [(us[-1], 1.0), (0.0, 1.0), (1.0, 1.0), (us[-1], 0.5)]
            rows.append([loss_by_hand(model, one, lr, u, scale) for u, scale in at])
        table, given = np.array(rows), found["conditions"][name]
        assert given["u"] == pytest.approx([np.mean(us), np.std(us, ddof=1)], rel=1e-4)
        assert given["loss"] == pytest.approx(table[:, 0].mean(), rel=1e-4)
        for column, key in ((1, "0"), (2, "1"), (3, "x0.5")):
            difference = (table[:, column] - table[:, 0]).mean()
            mean, low, high = given["minus_measured"][key]
            assert mean == pytest.approx(difference, rel=1e-2, abs=2e-6) and low <= mean <= high
    assert found["conditions"]["clean"]["loss"] != found["conditions"]["noise .15"]["loss"]


def test_the_ranking_is_over_all_images_and_plain_statistics_have_their_better_side(found: dict) -> None:
    assert list(found["ranking"]) == ["u", "mean_v", *PLAIN]
    for name, (rho, low, high, kept) in found["ranking"].items():
        assert -1 <= low <= high <= 1 and 0 < kept < 2
        assert name not in PLAIN or rho >= 0
    text = markdown(found)
    assert text.count("| clean |") == 1 and "| u | " in text
    rho = {name: row[0] for name, row in found["ranking"].items()}
    best = max(PLAIN, key=rho.__getitem__)
    assert ("u orders errors better" in " ".join(text.split())) == (rho["u"] > rho[best])


def test_the_ranking_sees_an_order(
    model: RareFlow, found: dict, looks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With errors that are u itself, u orders them wholly and keeps the smaller half, whatever the losses are."""
    seen = iter(looks)
    monkeypatch.setattr(module, "_look", lambda *words: replace(one := next(seen), error=one.measured.u + 1))
    monkeypatch.setattr(module, "_loss", lambda *words: 1.0)
    study = degraded_study(model, [image(i) for i in range(3)])
    assert next(seen, None) is None and len(looks) == 3 * len(CONDITIONS)
    rho, low, high, kept = study["ranking"]["u"]
    assert rho == low == high == 1 and kept < 1
    assert study["ranking"]["mean_v"][0] > 0.9
    ties = np.array([[1.0, 2, 2, 5, 3], [2.0, 1, 4, 4, 4]])
    assert module._spearman(*ties) == pytest.approx(stats.spearmanr(*ties).statistic)


def test_without_gates_or_an_hr_there_is_nothing_to_show(model: RareFlow) -> None:
    ungated = small_model(small_config({"control": {"gates": False}}))
    with pytest.raises(RareflowError, match="found a model without gates"):
        degraded_study(ungated, [image(0)])
    with pytest.raises(RareflowError, match="found images without an HR"):
        degraded_study(model, [Image("a", "s", "", image(0).lr, (50, 50))])


def test_the_command_writes_both_tables_and_names_no_place(trained: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", count=3, hr_px=(40, 50), factor=5)
    out = tmp_path / "out"
    words = ["--checkpoint", str(trained), "--data", str(data), "--threads", "1", "--limit", "2", "--out", str(out)]
    done = CliRunner().invoke(degraded, words, catch_exceptions=False)
    assert done.exit_code == 0 and done.stdout == (out / "degraded.md").read_text()
    document = json.loads((out / "degraded.json").read_text())
    assert document["images"] == 2 and list(document["conditions"]) == list(CONDITIONS)
    assert "rareflow-small" in done.stdout and str(tmp_path) not in done.stdout + (out / "degraded.json").read_text()
