"""Whole trainings: stops and resumes, cards, priors, variants, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from rareflow.card import ScaleRecord, id_hash, read_card, training_ids
from rareflow.checkpoint import load
from rareflow.config import Config, StageConfig
from rareflow.errors import RareflowError
from rareflow.networks import Gates, NamedDropout
from rareflow.train import run as run_module
from rareflow.train.chips import Data
from rareflow.train.loop import read_log, read_state
from rareflow.train.stages import (
    ControlStage,
    PriorModule,
)
from tests.small_rareflow import (
    ONE,
    STAGES,
    chip,
    one_line,
    pixels,
    small_config,
    small_data,
    spoil,
    state_of,
    train_small,
    weights,
    with_pixels,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# --- whole trainings -------------------------------------------------------------------------------------------------


class Stopper:
    """Raises KeyboardInterrupt from ``report`` at a step of a stage, once."""

    def __init__(self, *at: object) -> None:
        self.at, self.stopped = at, False

    def __call__(self, stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
        if (stage, step) == self.at:
            self.stopped = True
            raise KeyboardInterrupt


def stop_once(out: Path, stopper: Stopper, config: Config | None = None) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_small(out, config, report=stopper)
    assert stopper.stopped and not (out / "card.json").exists()


def same_training(a: Path, b: Path) -> None:
    assert weights(a) == weights(b)
    for folder in (a, b), (a / "prior", b / "prior"):
        cards = [json.loads((f / "card.json").read_text()) for f in folder]
        assert cards[0] == cards[1]

    def steps(folder: Path, stage: str) -> list[dict[str, Any]]:
        log = read_log(folder / "training" / f"{stage}.jsonl")
        return [{k: v for k, v in line.items() if k != "seconds"} for line in log]

    assert all(steps(a, stage) == steps(b, stage) for stage in STAGES)


def test_a_training_stopped_again_and_again_is_the_uninterrupted_one_to_the_bit(trained: Path, tmp_path: Path) -> None:
    """States are saved after steps 2, 4 and the last; stops come before the first, between them, before the last."""
    out = tmp_path / "out"
    for stage, steps in {"vae": (3,), "prior": (4,), "control": (1, 3, 5)}.items():
        for step in steps:
            stop_once(out, Stopper(stage, step))
            state = read_state(out / "training" / f"{stage}.pt")
            assert (state["step"] if state else 0) == {1: 0, 3: 2, 4: 2, 5: 4}[step]
    train_small(out)
    same_training(out, trained)


def test_stops_beside_the_steps(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While chips are read or encoded, before a checkpoint is written, and before its card has the validation."""
    out = tmp_path / "out"
    for what, count in (("reading chips", 2), ("latents", 3)):
        left = count

        def tick(now: str, total: int, what: str = what) -> None:
            nonlocal left
            left -= now == what
            if left == 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_small(out, tick=tick)
    save, calls = run_module.save, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (1, 3):  # of the prior, and of the model
            raise KeyboardInterrupt
        return save(*args)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "save", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_small(out)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_module, "_with_validation", fail)
        train_small(out)
    assert (out / "card.json").exists()
    train_small(out)
    same_training(out, trained)
    assert calls == 7 and not (out / "training" / "cache").exists()


def test_a_stop_while_a_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Stop

    for patched in ("write_text", "replace"):
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(Path, patched, fail)
            train_small(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):  # it goes on
        train_small(tmp_path / "out", report=Stopper("vae", 1))


def test_a_finished_training_is_not_done_again(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))

    def never(*_: object) -> None:
        raise AssertionError

    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    card = train_small(copy, report=never, tick=never)
    assert card == read_card(trained)
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before


def test_the_card_says_how_the_model_was_made(trained: Path) -> None:
    card = json.loads((trained / "card.json").read_text())
    data = small_data()
    assert card["data"] == {
        "name": "noise", "description": "", "fingerprint": data.fingerprint, "train": 4, "validation": 1, "scenes": 4,
        "sides": {"lr": {"unit": "display"}, "hr": {}},
    }  # fmt: skip
    assert list(card["stages"]) == list(STAGES)
    for name, stage in card["stages"].items():
        terms = {
            "vae": {"l1", "spectrum", "kl", "psnr"}, "prior": {"base"},
            "control": {"base", "fft", "color"},
        }[name]  # fmt: skip
        assert stage["steps"] == (5 if name == "control" else 4) and set(stage["first"]) == set(stage["last"]) == terms
        assert stage["validation"] and all(np.isfinite(v) for v in stage["validation"].values())
    assert set(card["gates"]) == {"sigma=0,u=0", "sigma=0,u=1", "sigma=1,u=0", "sigma=1,u=1"}
    assert card["bank"]["chips"] == 3 and 0 < card["bank"]["p5"] <= card["bank"]["p50"] <= card["bank"]["p95"]
    assert card["scale"]["tau"] == pytest.approx(card["bank"]["p95"])
    assert card["scale"]["kappa"] == pytest.approx(card["bank"]["p50"])
    model = load(trained)
    sizes = {"vae": model.codec.vae, "transformer": model.field.transformer, "control": model.field.control,
             "gates": model.field.gates}  # fmt: skip
    assert card["parameters"] == {k: sum(p.numel() for p in m.parameters()) for k, m in sizes.items()}  # type: ignore[union-attr]
    assert {"loss", "psnr", "bicubic_psnr", "ssim", "gradient", "u"} == set(card["validation"])
    assert card["left_out"] == [] and card["prior"] == {} and card["base"] == {} and card["device"] == "cpu"
    assert card["versions"] == {"torch": torch.__version__, "diffusers": card["versions"]["diffusers"]}
    assert card["training_ids"]["count"] == 4 and card["config"]["train"]["seed"] == 0


def test_a_training_leaves_losses_and_pictures_to_look_at(trained: Path) -> None:
    assert list((trained / "training" / "tensorboard").glob("events.*"))
    sheets = sorted(p.name for p in (trained / "training" / "pictures").iterdir())
    assert sheets == [
        *(f"control-{i:06d}.png" for i in range(1, 6)), "final.png", *(f"prior-{i:06d}.png" for i in range(1, 5)),
    ]  # fmt: skip
    with PIL.Image.open(trained / "training" / "pictures" / "final.png") as sheet:
        found = np.asarray(sheet)
    expected = (pixels(99, 105, 112)[:105, :105] * 255).round()
    assert found.shape == (107, 315, 3) and np.array_equal(found[:105, 210:], expected)
    assert not (trained / "training" / "cache").exists()


def test_every_stage_moves_its_parts_and_the_prior_is_a_model_too(trained: Path, tmp_path: Path) -> None:
    prior, whole = load(trained / "prior"), load(trained)
    assert prior.field.gates is None and prior.config.name == "small-prior" and whole.field.gates is not None
    for name in ("transformer", "vae", "text"):
        path = "text.safetensors" if name == "text" else f"{name}/diffusion_pytorch_model.safetensors"
        assert (trained / path).read_bytes() == (trained / "prior" / path).read_bytes()
    assert (
        weights(trained)["control/diffusion_pytorch_model.safetensors"]
        != weights(trained / "prior")["control/diffusion_pytorch_model.safetensors"]
    )
    result = prior.upscale(pixels(0, 6, 6), (30, 30), captions=["a picture"])
    assert np.isfinite(result.samples).all() and result.mean_v[0] > 0


# --- from a prior ----------------------------------------------------------------------------------------------------


def captured(monkeypatch: pytest.MonkeyPatch) -> list[ControlStage]:
    """The control stages that trainings make, as they were before their first step."""
    made: list[ControlStage] = []

    class Watched(ControlStage):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)
            self.at_start = state_of(self.field.control)[0]  # type: ignore[attr-defined]

    monkeypatch.setattr(run_module, "ControlStage", Watched)
    return made


@pytest.mark.parametrize("init", ["prior", "transformer", "scratch"])
def test_a_training_from_a_prior_trains_a_control_for_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    made = captured(monkeypatch)
    config = small_config(ONE, {"control": {"init": init}, "uncertainty": {"p_do": 0.3}})
    card = train_small(tmp_path / "out", config, prior=trained / "prior")
    assert card.stages is not None and list(card.stages) == ["control"] and card.prior.label == "rareflow-small-prior"
    assert card.prior.files == read_card(trained / "prior").files
    old, new = weights(trained / "prior"), weights(tmp_path / "out")
    assert all(new[name] == old[name] for name in old if not name.startswith("control"))
    # Dropout belongs to this training, whoever named it before.
    (stage,) = made
    drops = [m for m in stage.field.control.modules() if isinstance(m, NamedDropout)]  # type: ignore[union-attr]
    assert len(drops) == 6 and all(m.masks is stage.masks and m.p == 0.3 for m in drops)
    assert isinstance(stage.field.gates, Gates) and stage.field.gates.drop_t.masks is stage.masks
    start, theirs = stage.at_start, load(trained / "prior").field  # type: ignore[attr-defined]
    block = "transformer_blocks.0.attn.to_q.weight"
    if init == "prior":
        assert all(torch.equal(start[k], v) for k, v in state_of(theirs.control)[0].items())
    else:
        assert not start["controlnet_blocks.0.weight"].any()
        assert torch.equal(start[block], theirs.transformer.state_dict()[block]) == (init == "transformer")


def test_a_stopped_training_from_a_prior_goes_on_too(trained: Path, tmp_path: Path) -> None:
    whole, parts, config = tmp_path / "whole", tmp_path / "parts", small_config({"train": {"control": {"steps": 3}}})
    train_small(whole, config, prior=trained / "prior")
    with pytest.raises(KeyboardInterrupt):
        train_small(parts, config, prior=trained / "prior", report=Stopper("control", 3))
    train_small(parts, config, prior=trained / "prior")
    assert weights(whole) == weights(parts)
    assert (whole / "card.json").read_text() == (parts / "card.json").read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vae": {"norm_num_groups": 8}}, "its vae is not that of the config small"),
        ({"transformer": {"num_layers": 5}}, "its transformer is not that"),
        ({"text": {"positions": 7}}, "its text table is not that"),
        ({"text": {"buckets": 65}}, "its text table is not that"),
        ({"control": {"layers": 3}}, "control.layers: found 3, expected 2"),
    ],
)
def test_a_prior_of_another_shape(trained: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RareflowError, match=says) as error:
        train_small(tmp_path / "out", small_config(changes), prior=trained / "prior")
    one_line(error)


def test_a_training_goes_on_from_all_weights_of_a_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = captured(monkeypatch)
    still = {"train": {stage: {"steps": 0} for stage in STAGES}}
    copy = train_small(tmp_path / "copy", small_config(still), start=trained)
    assert (
        weights(tmp_path / "copy")["vae/diffusion_pytorch_model.safetensors"]
        == (trained / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    )
    mine, theirs = load(tmp_path / "copy"), load(trained)
    for part in ("transformer", "control", "gates"):
        a, b = (state_of(getattr(m.field, part))[0] for m in (mine, theirs))
        assert all(torch.equal(a[k], b[k]) for k in b), part
    assert mine.codec.vae.config.scaling_factor == theirs.codec.vae.config.scaling_factor
    assert copy.start.label == "rareflow-small" and "vae" not in (copy.stages or {})
    # other data: what the start was trained on stays among the ids that it must not be tested on
    other = dataclasses.replace(small_data(), fingerprint="other", train=tuple(chip(i) for i in range(50, 54)))
    further = small_config({"train": {"vae": {"steps": 0}, "prior": {"steps": 3}, "control": {"steps": 1}}})
    train_small(tmp_path / "further", further, other, start=trained)
    assert training_ids(tmp_path / "further") == training_ids(trained) | {id_hash(f"chip{i}") for i in range(50, 54)}
    moved = load(tmp_path / "further").field
    block = "transformer_blocks.0.attn.to_q.weight"
    for part in ("transformer", "control"):
        a, b = (state_of(getattr(f, part))[0][block] for f in (moved, theirs.field))
        assert not torch.equal(a, b) and float((a - b).abs().max()) < 0.1, part
    assert len(made) == 2 and all(isinstance(s.field.gates, Gates) for s in made)
    with pytest.raises(RareflowError, match="beside a start"):
        train_small(tmp_path / "both", small_config(), prior=trained / "prior", start=trained)
    with pytest.raises(RareflowError, match="holds another training"):
        train_small(tmp_path / "further", further, other, start=trained / "prior")


def test_trainings_that_share_a_cache_read_the_chips_once(trained: Path, tmp_path: Path) -> None:
    def prepared(name: str) -> Counter[str]:
        ticks: Counter[str] = Counter()
        config = small_config(ONE, {"name": name, "control": {"gates": name == "a"}})
        train_small(
            tmp_path / name, config, prior=trained / "prior", cache=tmp_path / "cache",
            tick=lambda what, total: ticks.update([what]),
        )  # fmt: skip
        return ticks

    assert prepared("a") == {"reading chips": 5, "latents": 10} and not prepared("b")
    assert (tmp_path / "cache" / "train" / "pixels.json").exists()


# --- variants of a training ------------------------------------------------------------------------------------------


def test_chips_of_several_sizes_train_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked, whole = [0], [0]
    forward = PriorModule.forward

    def watched(self: PriorModule, **batch: Tensor) -> Any:
        (masked if "mask" in batch else whole)[0] += 1
        return forward(self, **batch)

    monkeypatch.setattr(PriorModule, "forward", watched)
    data = small_data(6, ((108, 120), (105, 150), (131, 106)))
    card = train_small(
        tmp_path / "out",
        small_config(ONE, {"train": {"prior": {"steps": 9, "crop_px": 156}, "validate_every": 9}}),
        data,
    )
    assert masked[0] >= 2 and whole[0] >= 2
    assert np.isfinite([v for s in (card.stages or {}).values() for v in s.last.values()]).all()


def test_a_training_without_captions_never_sees_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    from rareflow.text import WordTable

    ids = WordTable.ids
    monkeypatch.setattr(WordTable, "ids", lambda self, captions: (seen.extend(captions), ids(self, captions))[1])
    train_small(tmp_path / "off", small_config(ONE, {"text": {"captions": False}}))
    assert set(seen) == {""}
    model = load(tmp_path / "off")
    plain, told = (model.upscale(pixels(0, 5, 5), (24, 24), captions=[c]).samples for c in ("", "number1"))
    assert not model.config.text.captions and np.array_equal(plain, told)


def test_lpips_left_out_is_in_the_card(tmp_path: Path) -> None:
    config = small_config(ONE, {"loss": {"lambda_lpips": 0.5}})
    with pytest.warns(RuntimeWarning, match="LPIPS is left out of the objective: alexnet") as caught:
        card = train_small(tmp_path / "out", config, weights=tmp_path)
    assert len([w for w in caught if "LPIPS" in str(w.message)]) == 1  # not at every step
    assert card.left_out == ["lpips"] and card.stages and "lpips" not in card.stages["control"].last
    assert card.config["loss"]["lambda_lpips"] == 0.5


def test_a_training_of_no_steps_is_a_model_all_the_same(tmp_path: Path) -> None:
    card = train_small(tmp_path / "out", small_config({"train": {s: {"steps": 0} for s in STAGES}}))
    assert card.stages and all(stage.steps == 0 for stage in card.stages.values())
    assert card.scale == ScaleRecord(1.0, 1.0)  # a new transformer answers nothing, so nothing varies
    assert np.isfinite(load(tmp_path / "out").upscale(pixels(0, 5, 5), (24, 24)).samples).all()


# --- what is refused -------------------------------------------------------------------------------------------------


def untouched(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("other", ["config", "data", "chips", "prior"])
def test_a_folder_of_another_training(trained: Path, tmp_path: Path, other: str) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "out"))
    before, options = untouched(out), {}
    config, data = small_config(), small_data()
    if other == "config":
        config = small_config({"train": {"seed": 1}})
    elif other == "data":
        data = dataclasses.replace(data, fingerprint="changed")
    elif other == "chips":
        data = dataclasses.replace(data, train=data.train[:3])
    else:
        options = {"prior": trained / "prior"}
    with pytest.raises(RareflowError, match=r"holds another training .*give another --out") as error:
        train_small(out, config, data, **options)
    one_line(error)
    assert untouched(out) == before


def test_a_folder_stopped_before_its_first_state_may_be_corrected(tmp_path: Path) -> None:
    """A chip that could not be read, say: mending it changes the data's fingerprint, and nothing was trained yet."""
    broken = dataclasses.replace(small_data(), train=(with_pixels(spoil(np.nan, 1), 0), *small_data().train[1:]))
    with pytest.raises(RareflowError, match="chip0: the HR holds 1 values"):
        train_small(tmp_path / "out", small_config(ONE), dataclasses.replace(broken, fingerprint="broken"))
    card = train_small(tmp_path / "out", small_config(ONE))
    assert card.validation and card.data.fingerprint == small_data().fingerprint


@pytest.mark.parametrize("control", [{"layers": 5}, {"init": "nowhere"}])
def test_a_control_that_cannot_be_is_said_before_anything_is_taken(tmp_path: Path, control: dict[str, Any]) -> None:
    with pytest.raises(RareflowError, match=r"found 5, expected 1 to 4|'nowhere': found no such folder") as error:
        train_small(tmp_path / "out", small_config({"control": control}))
    one_line(error)
    assert not (tmp_path / "out").exists()


def test_a_training_does_not_go_on_with_other_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS there at first and missing later would be a training that no configuration names."""
    config, out = small_config({"loss": {"lambda_lpips": 0.5}}), tmp_path / "out"
    monkeypatch.setattr(run_module, "_lpips", lambda *_: torch.nn.Identity())
    stop_once(out, Stopper("prior", 3), config)
    monkeypatch.setattr(run_module, "_lpips", lambda *_: None)
    before = untouched(out)
    with pytest.raises(RareflowError, match=r"are now \['lpips'\]; give the same --weights-dir, or another") as error:
        train_small(out, config)
    one_line(error)
    assert untouched(out) == before


@pytest.mark.parametrize("content", ["", "[]", "{}", "{"])
def test_a_folder_whose_claim_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "out" / "training").mkdir(parents=True)
    (tmp_path / "out" / "training" / "training.json").write_text(content)
    with pytest.raises(RareflowError, match="give another --out") as error:
        train_small(tmp_path / "out")
    one_line(error)


def test_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RareflowError, match="is not empty and holds no training; give another --out") as error:
        train_small(tmp_path / "out")
    one_line(error)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def refused(tmp_path: Path, says: str, data: Data | None = None, config: Config | None = None) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a stage began")

    with pytest.raises(RareflowError, match=says) as error:
        train_small(tmp_path / "out", config, data, report=never)
    one_line(error)
    assert not (tmp_path / "out" / "card.json").exists()


def test_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    good = small_data()
    both = dataclasses.replace(good, validation=(chip(50, group="scene2"),))
    refused(tmp_path, "the scene scene2 is in the training and the validation split; move its chips", both)
    refused(tmp_path, "found 4 chips to train on and 0 to validate on", dataclasses.replace(good, validation=()))
    refused(tmp_path, "found 0 chips to train on", dataclasses.replace(good, train=()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["train", "validation"])
def test_nan_in_data_stops_before_anything_is_trained_and_names_the_chip(tmp_path: Path, side: str) -> None:
    good = small_data()
    bad = with_pixels(spoil(np.nan, 1), 77)
    data = dataclasses.replace(good, **{side: (*getattr(good, side), bad)})
    refused(tmp_path, "^chip77: the HR holds 1 values that are not finite; repair or remove it", data)


def test_chips_too_small_or_too_large_are_named(tmp_path: Path) -> None:
    for name, size, says in (
        ("small", (104, 200), "104x200 px, expected 105 px a side or more; leave it out"),
        ("large", (120, 241), "120x241 px, expected 228 px a side or less.*cut it up"),
    ):
        data = dataclasses.replace(small_data(), train=(chip(0), chip(5, size)))
        refused(tmp_path / name, f"^chip5: the HR has {says}", data)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"transformer": {"attention": 3}}, "its vae, transformer and text make no model"),
        ({"vae": {"norm_num_groups": 3}}, "its vae, transformer and text make no model"),
        ({"transformer": {"num_layers": 0}, "control": {"layers": 1}}, "expected 1 to 0, the transformer's depth"),
        ({"vae": {"latent_channels": 8}}, r"found vae.latent_channels, .*\(8, 4, 4\)"),
        ({"transformer": {"pooled_projection_dim": 24}}, "pooled_projection_dim 24; expected the first three alike"),
        ({"control": {"layers": 9}}, "control.layers: found 9, expected 1 to 4, the transformer's depth"),
    ],
)
def test_a_configuration_that_makes_no_model(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RareflowError, match=says) as error:
        train_small(tmp_path / "out", small_config(changes, {"train": {"vae": {"steps": 0}}}))
    one_line(error)


def test_stage_configurations_are_read_by_name() -> None:
    config = small_config({"train": {"prior": {"steps": 7, "accumulate": 3}}})
    assert config.train.prior == StageConfig(7, 2, 108, 1e-2, 1, 3)
