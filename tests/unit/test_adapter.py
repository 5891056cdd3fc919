"""RareFlow as the harness runs it: the embedded checkpoint, its options, and what it refuses."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from bench.core.errors import RfbenchError
from bench.core.files import id_hash
from bench.core.licences import restriction
from bench.data.embedded import SCENES
from bench.models.call import Answer, Model
from bench.protocols.paired import Paired
from rareflow.card import EMBEDDED, read_card, training_ids
from tests.runs import planned


def tasks(count: int) -> list:
    dataset = SCENES()
    return [Paired().prepare(dataset.load(r)) for r in dataset.records("test")[:count]]


def answers(model: Model, chosen: list, draws: int = 1) -> list[Answer]:
    found = model.predict(chosen, run_seed=0, draws=draws)
    assert all(isinstance(a, Answer) for a in found), found
    return found  # type: ignore[return-value]


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model("rareflow:steps=2")
    found.load()
    return found


def test_the_embedded_checkpoint_is_small_whole_and_says_how_it_was_made() -> None:
    card = read_card(EMBEDDED)
    files = [p for p in EMBEDDED.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 16e6
    assert {p.suffix for p in files} == {".json", ".safetensors"}
    assert card.label == "rareflow-tiny"
    assert card.command.startswith("rfbench train --config tiny --data ")
    assert len(card.commit) == 40 and "/" not in card.command
    for field in ("data", "stages", "validation", "gates", "training_ids", "config", "left_out", "versions"):
        assert getattr(card, field), field
    assert set(card.gates) == {"sigma=0,u=0", "sigma=0,u=1", "sigma=1,u=0", "sigma=1,u=1"}


def test_no_scene_of_the_benchmark_was_trained_on() -> None:
    seen = training_ids(EMBEDDED)
    assert len(seen) == read_card(EMBEDDED).training_ids.count > 1000
    assert not seen & {id_hash(r.id) for r in SCENES().records("test")}


def test_a_checkpoint_on_sd3_is_under_its_licence_too(tmp_path: Path) -> None:
    plain = planned(models=("rareflow",), metrics=("psnr_rgb",), limit=1)
    assert plain.runs["rareflow-tiny"].licences["model"] == "Apache-2.0"
    shutil.copytree(EMBEDDED, tmp_path / "sd3")
    card = json.loads((tmp_path / "sd3/card.json").read_text())
    card |= {"label": "on-sd3", "base": {"transformer": "0" * 64}}
    (tmp_path / "sd3/card.json").write_text(json.dumps(card))
    plan = planned(models=(f"rareflow:checkpoint={tmp_path / 'sd3'}",), metrics=("psnr_rgb",), limit=1)
    found = plan.runs["on-sd3"].licences["model"]
    assert found.startswith("Apache-2.0; Stability AI Community License")
    assert restriction(found) == "conditions on who uses it, or what for"
    # Only a checkpoint on SD3 may be held against the paper's numbers.
    assert "without SD3" in plain.runs["rareflow-tiny"].unlike_paper and plan.runs["on-sd3"].unlike_paper == ""
    # For people alone: it changes no number, so no plan.
    assert "licence" not in str(plan.runs["on-sd3"].plan)


@pytest.mark.parametrize(("scale", "tile_px"), [(5, 40), (4, 51), (10, 20), (16, 12)])
def test_tiles_have_answers_as_large_as_the_crops_of_training(scale: float, tile_px: int) -> None:
    assert read_card(EMBEDDED).crop_px == 204
    assert Model("rareflow").spec.largest_tile_px(scale) == tile_px


def test_it_loads_and_runs_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    offline = Model("rareflow:steps=1")
    offline.load()
    assert answers(offline, tasks(1))[0].arrays["samples"].shape == (1, 200, 200, 3)


def test_a_batch_is_its_images_and_draw_0_does_not_know_how_many_follow(model: Model) -> None:
    together = answers(model, tasks(2), draws=2)
    for i, task in enumerate(tasks(2)):
        (alone,) = answers(model, [task], draws=1)
        assert np.array_equal(alone.arrays["samples"][0], together[i].arrays["samples"][0])
        assert alone.facts == together[i].facts
        assert np.array_equal(alone.maps["mc_dropout_var"], together[i].maps["mc_dropout_var"])
    assert not np.array_equal(*together[0].arrays["samples"])


def test_u_and_its_map_come_with_every_answer(model: Model) -> None:
    (answer,) = answers(model, tasks(1))
    assert 0 < answer.facts["u"] <= 1
    assert answer.maps["mc_dropout_var"].shape == (200, 200)
    assert answer.facts["mean_v"] == pytest.approx(float(answer.maps["mc_dropout_var"].mean()), rel=1e-4)


def test_u_can_be_given_instead(model: Model) -> None:
    given = Model("rareflow:steps=2,u=1")
    given.load()
    (answer,) = answers(given, tasks(1))
    assert answer.facts["u"] == 1.0
    assert not np.array_equal(answer.arrays["samples"], answers(model, tasks(1))[0].arrays["samples"])


def test_temperature_1_is_the_default_and_0_leaves_one_answer(model: Model) -> None:
    plain = answers(model, tasks(1), draws=2)[0].arrays["samples"]
    for value, same_as_plain, draws_alike in (("1", True, False), ("0", False, True)):
        given = Model(f"rareflow:steps=2,temperature={value}")
        given.load()
        samples = answers(given, tasks(1), draws=2)[0].arrays["samples"]
        assert np.array_equal(samples, plain) == same_as_plain
        assert np.array_equal(samples[0], samples[1]) == draws_alike


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("steps=0", "steps"),
        ("steps=many", "steps"),
        ("guidance=-1", "guidance"),
        ("u=2", "u"),
        ("temperature=-1", "temperature"),
        ("step=3", "did you mean steps"),
        ("checkpoint=nowhere", "no such folder"),
        ("base=somewhere", "leave base out"),
    ],
)
def test_bad_options_are_one_line(options: str, says: str) -> None:
    with pytest.raises(RfbenchError, match=says) as caught:
        Model(f"rareflow:{options}").load()
    assert "\n" not in str(caught.value)


def test_two_checkpoints_are_two_identities(tmp_path: Path, model: Model) -> None:
    other = tmp_path / "other"
    shutil.copytree(EMBEDDED, other)
    assert Model(f"rareflow:steps=2,checkpoint={other}").identity() == model.identity()
    card = json.loads((other / "card.json").read_text())
    card["scale"]["tau"] *= 2
    (other / "card.json").write_text(json.dumps(card))
    assert Model(f"rareflow:steps=2,checkpoint={other}").identity() != model.identity()
