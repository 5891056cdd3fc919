"""A user with an SD3 folder (a toy of its very layout): train, run, upscale; the sampler held against diffusers'."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
import shutil
import sys
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import rasterio
import torch
from accelerate.state import AcceleratorState
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3ControlNetModel,
    SD3Transformer2DModel,
    StableDiffusion3ControlNetPipeline,
)
from safetensors.torch import load_file

from bench.cli import interruption, main
from bench.records.run import find_runs
from rareflow.base import CheckedBase, controlnet_from_transformer, load_controlnet, open_base
from rareflow.checkpoint import load
from rareflow.images import upsample
from rareflow.model import RareFlow
from rareflow.networks import Gates
from rareflow.text import Sd3Text
from rareflow.train.stages import ControlStage
from tests.conftest import write_dataset, write_rows
from tests.sd3_folder import make_sd3_folder
from tests.small_rareflow import stir

CONTROL = "control/diffusion_pytorch_model.safetensors"
CAPTIONS = (
    " ".join(["a slump above a lake"] * 477),  # 10,000 characters
    "بحيرة في التندرا، 湖と永久凍土, \U0001f9ca",
    "a thaw slump",
    "the tundra, green and pale",
    "snow on ice",
    "a lake",
)
SETTINGS = {
    "extends": "sd3-medium", "name": "toy", "control.layers": 2, "sampling.steps": 3, "uncertainty.passes": 2,
    "loss.lambda_lpips": 0.0, "train.mixed_precision": "no", "train.bank_every": 2, "train.validate_every": 10,
    "train.validate_images": 1, "train.save_every": 2, "train.store": "float32", "train.control.steps": 4,
    "train.control.batch": 2, "train.control.accumulate": 2, "train.control.crop_px": 112, "train.control.lr": 1e-2,
    "train.control.warmup": 1,
}  # fmt: skip


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its one line of error."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == 2 and "Traceback" not in self.err
        return line


@dataclass
class Opened:
    """What text encoders were opened, and whether they are still in memory; ``at_base`` has how many of them had been
    opened, and were still alive, whenever a base was loaded."""

    encoders: list[list[weakref.ref[Any]]] = field(default_factory=list)
    at_base: list[tuple[int, int]] = field(default_factory=list)

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(ref() is not None for of_one in self.encoders for ref in of_one)


@dataclass
class World:
    """A base, data, a place for captions, and a checkpoint that was trained on them."""

    folder: Path
    base: Path
    data: Path
    captions: Path
    opened: Opened
    out: Path
    trained: Done


def rfbench(*words: object) -> Done:
    """The command in this process, where its text encoders can be counted."""
    out, err = io.StringIO(), io.StringIO()
    before, shown, threads = sys.argv, warnings.showwarning, torch.get_num_threads()
    AcceleratorState._reset_state(True)  # it holds a process to one precision
    sys.argv = ["rfbench", *map(str, words)]

    def leave() -> NoReturn:
        """As the command does it, but not with this process."""
        print(f"error: interrupted; {interruption.promise()}", file=sys.stderr)
        sys.exit(130)

    patch = pytest.MonkeyPatch()
    patch.setattr(interruption, "prepare", lambda: None)
    patch.setattr(interruption, "finish", lambda code: None)
    patch.setattr(interruption, "leave", leave)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        patch.undo()
        AcceleratorState._reset_state(True)
        sys.argv, warnings.showwarning = before, shown
        torch.set_num_threads(threads)
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def train(world: World, out: Path, base: Path | None = None, *more: object, **changes: object) -> Done:
    """``rfbench train`` with some settings changed, ``__`` for the dots of their names, and ``more`` words."""
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    config = out.with_suffix(".toml")
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    words = ("--config", config, "--base", base or world.base, "--data", world.data, "--out", out)
    return rfbench("train", *words, "--device", "cpu", "--threads", 1, *more)


def run(world: World, out: Path, options: str = "", *words: object, checkpoint: Path | None = None) -> Done:
    """``rfbench run`` on the two test images, two draws each."""
    model = f"rareflow:checkpoint={checkpoint or world.out},base={world.base},steps=3{options}"
    given = ("--model", model, "--protocol", "paired", "--data", world.data, "--out", out, "--draws", 2)
    return rfbench("run", *given, "--metrics", "psnr_rgb", "--workers", 0, "--device", "cpu", *words)


def predictions(out: Path) -> np.ndarray:
    """The draws of both test images, in their order."""
    (folder,) = out.glob("**/predictions")
    return np.stack([load_file(p)["samples"].numpy() for p in sorted(folder.glob("*.safetensors"))])


def files(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def raster(world: World) -> Path:
    """A georeferenced image of 20x24 px in three bands."""
    path, place = world.folder / "s2.tif", rasterio.Affine(10, 0, 500000, 0, -10, 7800000)
    with rasterio.open(path, "w", driver="GTiff", height=24, width=20, count=3, dtype="uint16", crs="EPSG:32608",
                       transform=place) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(300, 2500, (3, 24, 20)).astype(np.uint16))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("sd3")
    data = write_dataset(folder / "data", count=6, hr_px=(110, 120), factor=5, bands="R G B")
    with (data / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, (row, caption) in enumerate(zip(rows, CAPTIONS, strict=True)):
        row |= {"caption": caption, "split": "test" if i > 3 else "validation" if i == 3 else "train"}
        row["scene_id"] = f"s{i}"
    write_rows(data, rows)
    opened, really = Opened(), Sd3Text.open.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Sd3Text], *words: Any) -> Sd3Text:
        text: Sd3Text = really(cls, *words)
        opened.encoders.append([weakref.ref(encoder) for _, encoder in text._towers or ()])
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFBENCH_CAPTIONS", str(folder / "captions"))
        patch.setattr(Sd3Text, "open", classmethod(counted))
        load_base = CheckedBase.load

        def watched(self: CheckedBase, *words: Any) -> Any:
            opened.at_base.append((len(opened.encoders), opened.alive))
            return load_base(self, *words)

        patch.setattr(CheckedBase, "load", watched)
        made = World(folder, make_sd3_folder(folder / "base"), data, folder / "captions", opened, folder / "out",
                     Done(-1, "", ""))  # fmt: skip
        made.trained = train(made, made.out)
        yield made


# ---- training


def test_training_stores_what_it_trained_and_frees_the_text_encoders(world: World) -> None:
    assert world.trained.code == 0, world.trained.err
    assert len(world.opened.encoders[0]) == 3 and len(world.opened.encoders) == 1, "all captions at once, one time"
    assert world.opened.at_base[0] == (1, 0), "the base is loaded when the captions are there and the encoders gone"
    assert world.opened.alive == 0
    assert not list((world.out / "training").glob("*.pt")), "what a finished training needs no more is gone"
    assert len(list(world.captions.iterdir())) == 5, "three of training, one of validation, the empty one"
    stored = {name for name in files(world.out) if not name.startswith("training/")}
    weights = {CONTROL, "gates.safetensors"}
    assert stored == weights | {"card.json", "control/config.json", "training_ids.json"}
    card = json.loads((world.out / "card.json").read_text())
    base = open_base(world.base)
    assert card["base"] == base.identity and card["stages"]["control"]["steps"] == 4
    assert np.isfinite(card["stages"]["control"]["last"]["base"]) and card["bank"]["p50"] > 0
    before = controlnet_from_transformer(base.transformer, 2).state_dict()
    after = load_file(world.out / CONTROL)
    assert before.keys() == after.keys() and not torch.equal(
        before["pos_embed.proj.weight"], after["pos_embed.proj.weight"]
    )
    assert any(bool(v.any()) for v in load_file(world.out / "gates.safetensors").values())


def test_a_stopped_training_goes_on_to_the_same_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    out, really = world.folder / "stopped", ControlStage.batch

    def stopping(self: ControlStage, step: int) -> Any:
        if step == 5:  # the second half of the third step, one after the save
            raise KeyboardInterrupt
        return really(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(ControlStage, "batch", stopping)
        assert train(world, out).code == 130
    assert not (out / "card.json").exists()
    assert train(world, out).code == 0
    for name in (CONTROL, "gates.safetensors"):
        assert (out / name).read_bytes() == (world.out / name).read_bytes(), name
    scales = [json.loads((o / "card.json").read_text())["scale"] for o in (out, world.out)]
    assert scales[0] == scales[1]
    before = files(out)
    assert train(world, out).code == 0 and files(out) == before, "finished: nothing is done again"


def test_gradient_checkpointing_changes_no_loss(world: World) -> None:
    out = world.folder / "checkpointing"
    assert train(world, out, train__gradient_checkpointing=True).code == 0
    cards = [json.loads((o / "card.json").read_text())["stages"]["control"]["last"] for o in (out, world.out)]
    assert cards[0].keys() == cards[1].keys() >= {"base", "fft", "color"}
    for term, value in cards[0].items():
        assert value == pytest.approx(cards[1][term], rel=1e-4), term


def test_training_in_bfloat16_is_near_that_in_float32(world: World) -> None:
    out = world.folder / "bf16"
    done = train(world, out, train__mixed_precision="bf16")
    assert done.code == 0, done.err
    cards = [json.loads((o / "card.json").read_text()) for o in (out, world.out)]
    losses = [c["stages"]["control"]["last"]["base"] for c in cards]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]
    # a decoder in bfloat16 would measure 5e-6 of its own rounding
    assert cards[0]["bank"]["p50"] == pytest.approx(cards[1]["bank"]["p50"], abs=1e-6)
    assert "needs a GPU" in train(world, world.folder / "fp16", train__mixed_precision="fp16").error


def test_a_working_grid_twice_as_fine(world: World) -> None:
    out = world.folder / "fine"
    done = train(world, out, work_scale=2, train__control__steps=1, uncertainty__passes=2)
    assert done.code == 0, done.err
    model = load(out, base=str(world.base))
    assert model.latent_cells((110, 120)) == (28, 30) and model.config.work_scale == 2
    own = f",captions_dir={world.folder / 'captions-fine'}"
    assert run(world, world.folder / "run-fine", own, checkpoint=out).code == 0
    assert predictions(world.folder / "run-fine").shape == (2, 2, 110, 120, 3)


def test_a_given_controlnet_is_what_training_starts_from(world: World) -> None:
    given, other = world.folder / "controlnet", world.folder / "controlnet-of-another"
    config = dict(SD3Transformer2DModel.load_config(world.base / "transformer")) | {"num_layers": 1}
    torch.manual_seed(3)
    for folder, changes in ((given, {}), (other, {"pooled_projection_dim": 32})):
        known = SD3ControlNetModel.from_config(config | changes | {"extra_conditioning_channels": 0})
        stir(known, 3)
        known.save_pretrained(folder)
    words: dict[str, Any] = {"control__layers": 2, "train__control__steps": 1, "train__control__lr": 1e-9}
    assert train(world, world.folder / "from-given", control__init=str(given), **words).code == 0
    stored = load_file(world.folder / "from-given" / CONTROL)
    card = json.loads((world.folder / "from-given" / "card.json").read_text())
    assert card["config"]["control"]["layers"] == 1, "as many as it has"
    assert card["control"]["from"] == str(given) and len(card["control"]["identity"]) == 64
    for name, value in load_file(given / "diffusion_pytorch_model.safetensors").items():
        assert torch.allclose(stored[name], value, atol=1e-6), name
    wrong = train(world, world.folder / "from-other", control__init=str(other), **words).error
    assert "pooled_projection_dim 32, expected the transformer's 64" in wrong


def test_fewer_chips_and_another_seed_are_in_the_card(world: World) -> None:
    out = world.folder / "few"
    done = train(world, out, None, "--chips", 2, "--seed", 5, train__control__steps=1)
    assert done.code == 0, done.err
    card = json.loads((out / "card.json").read_text())
    assert card["data"]["train"] == card["training_ids"]["count"] == 2 and card["config"]["train"]["seed"] == 5
    refused = train(world, world.folder / "too-few", None, "--chips", 4, train__control__steps=1)
    assert "found 3 chips to train on, expected 4 or more" in refused.error


INSTANTX = (  # the names in config.json of the published SD3-Controlnet-Canny and -Tile, of diffusers 0.30
    "_class_name", "_diffusers_version", "attention_head_dim", "caption_projection_dim", "in_channels",
    "joint_attention_dim", "num_attention_heads", "num_layers", "out_channels", "patch_size", "pooled_projection_dim",
    "pos_embed_max_size", "sample_size",
)  # fmt: skip


def published(world: World, folder: Path) -> Path:
    """A ControlNet in the layout of InstantX's: old configuration, float16, one file of weights."""
    config = dict(SD3Transformer2DModel.load_config(world.base / "transformer")) | {"num_layers": 1}
    torch.manual_seed(5)
    known = SD3ControlNetModel.from_config(config | {"extra_conditioning_channels": 0})
    stir(known, 5, 0.5)
    known.half().save_pretrained(folder)
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in whole.items() if k in INSTANTX}))
    return folder


def test_a_published_controlnet_keeps_its_convention_through_training(world: World) -> None:
    folder = published(world, world.folder / "published")
    words: dict[str, Any] = {"train__control__steps": 1, "train__control__lr": 1e-9}
    done = train(world, world.folder / "from-published", control__init=str(folder), **words)
    assert done.code == 0, done.err
    model = load(world.folder / "from-published", base=str(world.base), dtype="float32")
    assert model.field.control is not None
    assert model.field.control.config.force_zeros_for_pooled_projection and model.field.control.config.num_layers == 1
    stored = load_file(world.folder / "from-published" / CONTROL)
    for name, value in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        assert torch.allclose(stored[name], value.float(), atol=1e-6), name


# ---- use


def test_run_and_upscale_read_captions_once_and_write_nothing_into_the_checkpoint(world: World) -> None:
    before, opened, bases = files(world.out), len(world.opened.encoders), len(world.opened.at_base)
    plain = run(world, world.folder / "run1", ",guidance=1")
    assert plain.code == 0, plain.err
    assert "rareflow-toy@mean" in plain.out
    opened += 1
    assert len(world.opened.encoders) == opened, "for the two new captions"
    assert world.opened.at_base[bases:] == [(opened, 0)], "before the base, and freed"
    guided = run(world, world.folder / "run2", ",guidance=2")
    assert guided.code == 0, guided.err
    assert len(world.opened.encoders) == opened and world.opened.alive == 0
    assert len(list(world.captions.iterdir())) == 7
    one, two = predictions(world.folder / "run1"), predictions(world.folder / "run2")
    assert one.shape == (2, 2, 110, 120, 3) and one.min() >= 0 and one.max() <= 1
    assert np.abs(one[:, 0] - one[:, 1]).mean() > 0.01 < np.abs(one[0] - one[1]).mean(), "draws and images differ"
    assert np.abs(one - two).max() > 1e-3, "guidance does something"
    (folder,) = find_runs([world.folder / "run1"])
    assert folder.scores()["fact:u"].between(0, 1).all()

    elsewhere = world.folder / "elsewhere"
    again = run(world, world.folder / "run3", f",guidance=1,captions_dir={elsewhere}")
    assert again.code == 0 and len(list(elsewhere.iterdir())) == 3, "captions_dir is where they are kept"
    assert len(list(world.captions.iterdir())) == 7
    assert np.array_equal(predictions(world.folder / "run3"), one)

    source = raster(world)
    model, opened = f"rareflow:checkpoint={world.out},base={world.base},steps=2", len(world.opened.encoders)
    pictures = []
    for caption in ("", CAPTIONS[0], CAPTIONS[1], CAPTIONS[0] + " of another"):
        target = world.folder / "fine.tif"
        done = rfbench("upscale", source, target, "--model", model, "--bands", "R G B", "--caption", caption,
                       "--device", "cpu")  # fmt: skip
        assert done.code == 0, done.err
        with rasterio.open(target) as file:
            assert file.shape == (120, 100) and file.res == (2, 2) and file.crs == "EPSG:32608"
            pictures.append(file.read().astype(float))
    assert len(world.opened.encoders) == opened + 1, "only the last caption is new"
    assert np.abs(pictures[1] - pictures[2]).max() > 0, "captions do something"
    assert files(world.out) == before, "a checkpoint may lie where nothing can be written"


def test_arithmetic_in_bfloat16_gives_nearly_the_same_picture(world: World) -> None:
    kinds = {}
    for name in ("float32", "bfloat16"):
        model = load(world.out, base=str(world.base), dtype=name)
        assert model.field.transformer.dtype == model.field.control.dtype == getattr(torch, name)  # type: ignore[union-attr]
        kinds[name] = model.upscale(picture(), (112, 128), captions=["a lake"], steps=3, guidance=1.5)
    difference = kinds["bfloat16"].samples - kinds["float32"].samples
    assert 0 < np.abs(difference).mean() < 0.005, "rounding, and nothing else"
    assert kinds["bfloat16"].mean_v == pytest.approx(kinds["float32"].mean_v, abs=1e-6)


# ---- against diffusers' own pipeline


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, (1, 28, 32, 3)).astype(np.float32)


def pipeline(model: RareFlow) -> StableDiffusion3ControlNetPipeline:
    """diffusers' sampler around the same networks."""
    parts = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    made = StableDiffusion3ControlNetPipeline(
        transformer=model.field.transformer, vae=model.codec.vae, controlnet=model.field.control,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=model.config.sampling.shift), **dict.fromkeys(parts),
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("gates", ["none", "half open", "wide open", "published"])
def test_the_sampler_gives_what_diffusers_pipeline_gives(world: World, guidance: float, gates: str) -> None:
    """``published``: a control with InstantX's convention, whose pooled captions and latents the pipeline makes."""
    model = load(world.out, base=str(world.base), dtype="float32")
    assert model.field.control is not None
    if gates == "published":
        folder = world.folder / "published-too"
        model.field.control = load_controlnet(published(world, folder), model.field.transformer).eval()
        model.field.control.requires_grad_(False)
    stir(model.field.control, 1, 0.5)  # after four steps it does next to nothing
    model.field.gates = None if gates in ("none", "published") else Gates(2, model.masks, 0.1).eval()
    if gates == "wide open":
        assert model.field.gates is not None
        torch.nn.init.constant_(model.field.gates.p0, 20.0)  # alpha = 1, so that the residuals count twice
    with torch.no_grad():  # the pipeline draws from the posterior, whose mean we take: make it narrow
        last = model.codec.vae.encoder.conv_out
        last.weight[16:], last.bias[16:] = 0, -60
    noise = np.random.default_rng(1).standard_normal((1, 1, 14, 16, 16)).astype(np.float32)
    ours = model.upscale(
        picture(), (112, 128), captions=["a lake"], noise=noise, steps=5, guidance=guidance, u=0.7
    ).samples[0, 0]
    (tokens, pooled), (empty, empty_pooled) = ([t.float() for t in model.captions.get([c])] for c in ("a lake", ""))

    def theirs(scale: float) -> np.ndarray:
        found: np.ndarray = pipeline(model)(
            prompt_embeds=tokens, pooled_prompt_embeds=pooled, negative_prompt_embeds=empty,
            negative_pooled_prompt_embeds=empty_pooled, num_inference_steps=5, guidance_scale=guidance,
            control_image=2 * upsample(torch.from_numpy(picture().transpose(0, 3, 1, 2)), (112, 128)) - 1,
            controlnet_conditioning_scale=scale, latents=torch.from_numpy(noise[0].transpose(0, 3, 1, 2)).clone(),
            output_type="np",
        ).images[0]  # fmt: skip
        return found

    scale = 2.0 if gates == "wide open" else 1.0
    np.testing.assert_allclose(ours, theirs(scale), atol=2e-5)
    assert ours.std() > 0.02 and ((ours > 0) & (ours < 1)).mean() > 0.5, "not a comparison of clipped images"
    assert np.abs(ours - theirs(3 - scale)).mean() > 1e-3, "the control matters"


# ---- bad input


def test_another_base_is_refused(world: World) -> None:
    other = make_sd3_folder(world.folder / "other", seed=1)
    mine, world.base = world.base, other
    try:
        wrong = run(world, world.folder / "refused")
    finally:
        world.base = mine
    assert "it was trained on another base: the transformer in" in wrong.error
    model = f"rareflow:checkpoint={world.out},base={other}"
    refused = rfbench("upscale", raster(world), world.folder / "any-fine.tif", "--model", model, "--bands", "R G B")
    assert "it was trained on another base" in refused.error and not (world.folder / "any-fine.tif").exists()


def test_a_base_that_is_missing_or_none_or_lacks_a_part_is_one_line(world: World, tmp_path: Path) -> None:
    for name, change, message in (
        ("nowhere", None, "found no such folder, expected one or a hub id owner/name"),
        ("other", lambda f: (f / "model_index.json").write_text('{"_class_name": "FluxPipeline"}'), "FluxPipeline"),
        ("no-t5", lambda f: shutil.rmtree(f / "text_encoder_3"), "text_encoder_3"),
        ("no-vae", lambda f: shutil.rmtree(f / "vae"), "vae/config.json: found no such file"),
    ):
        folder = tmp_path / name
        if change is not None:
            shutil.copytree(world.base, folder)
            change(folder)
        out = tmp_path / f"out-{name}"
        assert message in train(world, out, base=folder).error, name
        assert not out.exists(), "nothing is left that would stand in the way of the right folder"
        mine, world.base = world.base, folder
        try:
            assert message in run(world, tmp_path / f"run-{name}").error, name
        finally:
            world.base = mine
