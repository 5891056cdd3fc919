"""Checkpoints: what is saved comes back, and whatever does not fit is one line that says what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rareflow.card import (
    Card,
    ScaleRecord,
    Stage,
    TrainingIds,
    card_identity,
    id_hash,
    read_card,
    training_ids,
    write_card,
)
from rareflow.checkpoint import load, save
from rareflow.config import Config, load_config, with_changes
from rareflow.errors import RareflowError
from rareflow.model import RareFlow, Result
from rareflow.uncertainty import Scale
from tests.small_rareflow import pixels, small_config, small_model

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = {
    "control": "control/diffusion_pytorch_model.safetensors", "gates": "gates.safetensors",
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors", "text": "text.safetensors",
}  # fmt: skip


def model(*changes: dict[str, Any], seed: int = 0) -> RareFlow:
    made = small_model(small_config(*changes), seed)
    made.scale = Scale(3e-5, 2e-5, made.config.uncertainty.form)
    return made


def sampled(model: RareFlow) -> Result:
    return model.upscale(pixels(3, 5, 6), (24, 30), captions=["a lake"], seeds=[(4, 5)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(folder, model(), Card(stages={"control": Stage(4)}), ["b", "a", "b"])
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object], *, rehash: bool = False) -> None:
    """Change the card; with ``rehash`` the hashes are those of the files as they are."""
    card = json.loads((folder / "card.json").read_text())
    change(card)
    if rehash:
        card["files"] = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in card["files"]}
    (folder / "card.json").write_text(json.dumps(card))


# --- there and back --------------------------------------------------------------------------------------------------


def test_a_saved_model_gives_the_same_images(saved: Path) -> None:
    expected, found = sampled(model()), sampled(load(saved))
    assert 0 < found.u[0] < 1
    for name in ("samples", "v", "u", "mean_v"):
        assert np.array_equal(getattr(expected, name), getattr(found, name)), name


@pytest.mark.parametrize(
    "changes",
    [{"control": {"gates": False}}, {"control": {"pu_min": 0.0}}, {"uncertainty": {"form": "exp", "p_do": 0.3}},
     {"control": {"s_ctrl": 0.5}}, {"work_scale": 2}, {"text": {"captions": False}}],
)  # fmt: skip
def test_all_that_a_configuration_changes_comes_back(changes: dict[str, Any], tmp_path: Path) -> None:
    made = model(changes)
    save(tmp_path / "model", made, Card(), [])
    back = load(tmp_path / "model")
    assert back.config == made.config and back.scale == made.scale
    assert (tmp_path / "model" / "gates.safetensors").exists() == made.config.control.gates
    expected, found = sampled(made), sampled(back)
    assert np.array_equal(expected.samples, found.samples) and np.array_equal(expected.u, found.u)


def test_float16_rounds_the_weights_and_never_the_gates(tmp_path: Path) -> None:
    made = model({"train": {"store": "float16"}})
    save(tmp_path, made, Card(), [])
    parts = {"control": made.field.control, "gates": made.field.gates, "transformer": made.field.transformer,
             "vae": made.codec.vae, "text": made.captions.table}  # type: ignore[attr-defined]  # fmt: skip
    for part, name in WEIGHTS.items():
        for key, value in load_file(tmp_path / name).items():
            expected = parts[part].state_dict()[key]  # type: ignore[union-attr]
            assert value.dtype == (torch.float32 if part == "gates" else torch.float16)
            assert torch.equal(value, expected.to(value.dtype)), (part, key)
    back = load(tmp_path)
    assert all(p.dtype == torch.float32 for p in back.field.transformer.parameters())
    np.testing.assert_allclose(sampled(back).samples, sampled(made).samples, atol=0.02)


def test_a_loaded_model_is_frozen_and_computes_in_the_dtype_asked_for(saved: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        found = load(saved, dtype=dtype)
        parts = [found.field.transformer, found.field.control, found.field.gates, found.codec.vae,
                 found.captions.table]  # type: ignore[attr-defined]  # fmt: skip
        for part in parts:
            assert part is not None and not part.training and not any(p.requires_grad for p in part.parameters())
        assert next(found.field.transformer.parameters()).dtype == getattr(torch, dtype)
        assert found.field.gates is not None and found.field.gates.p0.dtype == torch.float32
    np.testing.assert_allclose(sampled(found).samples, sampled(model()).samples, atol=0.1)


def test_the_card_lists_every_file_and_its_hash(saved: Path) -> None:
    card = read_card(saved)
    files = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()} - {"card.json"}
    assert set(card.files) == files and set(WEIGHTS.values()) < files
    for name, value in card.files.items():
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == value
    assert card.stages == {"control": Stage(4)} and card.scale == ScaleRecord(3e-5, 2e-5)
    assert Config.from_dict(card.config) == small_config() and card.label == "rareflow-small"
    assert not {p.suffix for p in saved.rglob("*") if p.is_file()} - {".json", ".safetensors"}


def test_a_folder_has_no_card_until_it_is_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop while an older checkpoint is overwritten must not leave its card on other weights."""

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rareflow.checkpoint.write_card", fail)
    with pytest.raises(KeyboardInterrupt):
        save(folder, model(seed=1), Card(), [])
    assert not (folder / "card.json").exists()
    with pytest.raises(RareflowError, match="found no card"):
        load(folder)


def test_training_ids_are_hashes_without_doubles(saved: Path, folder: Path) -> None:
    expected = {hashlib.blake2b(name, digest_size=8).hexdigest() for name in (b"a", b"b")}
    assert training_ids(saved) == expected == {id_hash("a"), id_hash("b")}
    ids = read_card(saved).training_ids
    assert ids == TrainingIds(2, hashlib.sha256("".join(sorted(expected)).encode()).hexdigest())
    (folder / "training_ids.json").write_text("[]")
    with pytest.raises(RareflowError, match=r"training_ids\.json has the SHA-256"):
        training_ids(folder)


def test_the_identity_is_of_what_is_computed_and_not_of_its_history(folder: Path) -> None:
    first = card_identity(read_card(folder))
    for change in (
        lambda c: c.update(stages={"control": {"steps": 9, "last": {"base": 0.1}}}, validation={"psnr": 3.0}),
        lambda c: c.update(command="rfbench train", commit="abc", label="another"),
        lambda c: c["config"]["train"].update(validate_every=7),
    ):
        edit(folder, change)
        assert card_identity(read_card(folder)) == first
    seen = {first}
    for change in (
        lambda c: c["scale"].update(tau=4e-6),
        lambda c: c["config"]["uncertainty"].update(passes=4),
        lambda c: c["config"]["sampling"].update(steps=3),
        lambda c: c["files"].update({"gates.safetensors": "0" * 64}),
        lambda c: c.update(base={"vae": "0" * 64}),
    ):
        edit(folder, change)
        seen.add(card_identity(read_card(folder)))
    assert len(seen) == 6


# --- what does not fit -----------------------------------------------------------------------------------------------


def refused(folder: Path, says: str, todo: str = "copy the checkpoint anew") -> None:
    with pytest.raises(RareflowError) as error:
        load(folder)
    text = str(error.value)
    assert "\n" not in text and says in text and todo in text, text


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_truncated_or_changed_file_is_found_by_its_hash(folder: Path, part: str) -> None:
    path = folder / WEIGHTS[part]
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    refused(folder, f"{WEIGHTS[part]} has the SHA-256")
    path.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
    refused(folder, f"{WEIGHTS[part]} has the SHA-256")
    path.unlink()
    refused(folder, f"{WEIGHTS[part]} is missing")


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_truncated_file_with_the_right_hash_is_found_by_its_format(folder: Path, part: str) -> None:
    path = folder / WEIGHTS[part]
    path.write_bytes(path.read_bytes()[:-7])
    edit(folder, lambda card: None, rehash=True)
    refused(folder, "not readable as safetensors")


def test_a_wrong_hash_in_the_card(folder: Path) -> None:
    edit(folder, lambda card: card["files"].update({"gates.safetensors": "1" * 64}))
    refused(folder, "gates.safetensors has the SHA-256")


@pytest.mark.parametrize("name", ["gates.safetensors", "vae/config.json", "text.safetensors"])
@pytest.mark.parametrize("value", [..., None, 5])
def test_a_file_without_a_hash(folder: Path, name: str, value: object) -> None:
    edit(folder, lambda card: card["files"].pop(name) if value is ... else card["files"].update({name: value}))
    refused(
        folder, f"no SHA-256 of {name}" if value is ... else "files: found an entry of another kind, expected a text"
    )


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "control/../../x", "a\0b"])
def test_a_card_never_reaches_outside_its_folder(folder: Path, name: str) -> None:
    (folder.parent / "x").write_text("secret")
    edit(folder, lambda card: card["files"].update({name: hashlib.sha256(b"secret").hexdigest()}))
    refused(folder, "expected names of files in this folder", "do not use this checkpoint")


def test_a_file_name_of_several_lines(folder: Path) -> None:
    edit(folder, lambda card: card["files"].update({"a\nb": "0" * 64}))
    refused(folder, r"'a\nb' is missing")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_pickled_weights_are_never_loaded(tmp_path: Path, suffix: str) -> None:
    name = f"diffusion_pytorch_model{suffix}"
    torch.save({"p0": torch.zeros(2)}, tmp_path / name)
    refused(tmp_path, f"pickled weights ({name}), which are never loaded", "train, or give another folder")


def test_a_pickle_in_place_of_safetensors_or_beside_them(folder: Path) -> None:
    expected = sampled(load(folder)).samples
    torch.save({}, folder / "control" / "diffusion_pytorch_model.bin")
    assert np.array_equal(sampled(load(folder)).samples, expected)  # nobody looks at it
    torch.save({}, folder / "gates.safetensors")
    edit(folder, lambda card: None, rehash=True)
    refused(folder, "gates.safetensors: not readable as safetensors")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"{", "not readable as JSON"), (b"\xff\xfe", "not readable as JSON"), (b"[" * 100_000, "not readable as JSON"),
     (b"", "not readable as JSON"), (b"[]", "found format 'list'"), (b'{"format": 2, "files": {}}', "found format '2'"),
     (b'{"format": 1, "files": {}, "config": []}', "config: found '[]', expected an object"),
     (b'{"format": 1, "files": {}, "config": null}', "config: found 'None', expected an object"),
     (b'{"format": 1, "files": {}, "config": {"train": 3}}', "config.train: found '3', expected an object"),
     (b'{"format": 1, "files": {}, "config": {"train": {"control": {"crop_px": "1"}}}}', "crop_px: found '1'"),
     (b'{"format": 1, "files": {}, "data": {"sides": "a\\nb"}}', r"data.sides: found 'a\nb', expected an object"),
     (b'{"format": 1}', "found format"), (b'{"format": "a\\nb"}', r"found format 'a\nb'")],
)  # fmt: skip
def test_a_card_that_is_none(folder: Path, content: bytes, says: str) -> None:
    (folder / "card.json").write_bytes(content)
    refused(folder, says, "anew")


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        ({"tau": float("nan"), "kappa": 1e-6}, "scale.tau: found 'nan', expected a number > 0.0"),
        ({"tau": 1e-6, "kappa": float("inf")}, "scale.kappa: found 'inf', expected a number < 1e+30"),
        ({"tau": 0.0, "kappa": 1.0}, "scale.tau: found '0.0', expected a number > 0.0"),
        ({"tau": -1.0, "kappa": 1.0}, "scale.tau: found '-1.0', expected a number > 0.0"),
        ({"tau": 10**400, "kappa": 1.0}, "scale.tau: Number out of range"),
        ({"tau": "1\n2", "kappa": 1.0}, "scale.tau: found '1\\n2', expected a number"),
        ({}, "scale: Object missing required field `tau`"),
        ([1.0, 2.0], "scale: found '[1.0, 2.0]', expected an object or null"),
        (None, "found no scale, expected tau and kappa"),
    ],
)
def test_a_scale_that_is_none(folder: Path, scale: object, says: str) -> None:
    edit(folder, lambda card: card.update(scale=scale))
    refused(folder, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["config"].update(colour="red"), "unknown field 'colour'"),
        (lambda c: c["config"]["control"].update(layer=2), "unknown field 'layer'; did you mean layers?"),
        (lambda c: c["config"]["control"].update(layers="two"), 'layers: found "two", expected a whole number'),
        (lambda c: c["config"]["uncertainty"].update(passes=1), "expected uncertainty.passes of 2 or more"),
        (lambda c: c["config"].update({"a\nb": 1}), r"unknown field 'a\nb'"),
        (lambda c: c.pop("config"), "expected a base, or the tables vae and transformer"),
    ],
)
def test_a_configuration_of_another_version(folder: Path, change: Callable, says: str) -> None:
    edit(folder, change)
    refused(folder, says, "copy it anew")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"control": {"layers": 3}}, ["control"]),
        ({"transformer": {"num_layers": 5}}, ["transformer"]),
        ({"vae": {"block_out_channels": [24]}}, ["vae"]),
        ({"text": {"buckets": 65}}, ["text"]),
        ({"control": {"layers": 3}}, ["gates"]),
        ({"transformer": {"attention_head_dim": 12, "caption_projection_dim": 24}}, ["control"]),
        ({"transformer": {"pooled_projection_dim": 24, "joint_attention_dim": 24}}, ["control"]),
    ],
)
def test_weights_of_another_configuration(
    folder: Path, tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    """Even where the card was made to fit: it is seen before anything is sampled."""
    other = tmp_path / "other"
    save(other, model(changes), Card(), [])
    for part in parts:
        for path in [
            p for p in other.rglob("*") if p.is_file() and p.relative_to(other).parts[0].split(".")[0] == part
        ]:
            shutil.copy(path, folder / path.relative_to(other))
    refused(folder, "has the SHA-256")
    edit(folder, lambda card: None, rehash=True)
    refused(folder, "")
    if parts != ["gates"] and parts != ["text"]:  # only the weights: their shapes tell
        shutil.copy(folder / WEIGHTS[parts[0]], tmp_path / "w")
        shutil.rmtree(folder)
        save(folder, model(), Card(), [])
        shutil.copy(tmp_path / "w", folder / WEIGHTS[parts[0]])
        edit(folder, lambda card: None, rehash=True)
        refused(folder, "tensors do not fit the configuration")


@pytest.mark.parametrize("part", ["gates", "control"])
def test_weights_that_are_not_finite(folder: Path, part: str) -> None:
    path = folder / WEIGHTS[part]
    values = load_file(path)
    values[min(values)].view(-1)[0] = float("nan")
    save_file(values, path)
    edit(folder, lambda card: None, rehash=True)
    refused(folder, "not finite", "train anew")


def test_a_part_without_a_usable_configuration(folder: Path) -> None:
    for content in ("{", "[]", '{"num_layers": 2}', '{"patch_size": "x"}'):
        (folder / "control" / "config.json").write_text(content)
        edit(folder, lambda card: None, rehash=True)
        refused(folder, "control/config.json")


def test_folders_that_are_no_checkpoint(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path / "nowhere", "found no such folder", "rfbench train")
    refused(tmp_path / "model" / "card.json", "found no such folder", "rfbench train")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "found no card.json", "train, or give another folder")
    with pytest.raises(RareflowError, match="leave base out") as error:
        load(folder, base="somewhere")
    assert "\n" not in str(error.value)


def test_a_card_is_written_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "card.json").read_bytes()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            write_card(folder, Card())
    assert (folder / "card.json").read_bytes() == before
    assert np.isfinite(sampled(load(folder)).samples).all()


# --- configurations --------------------------------------------------------------------------------------------------


def test_configurations_come_back_from_plain_values_and_extend_each_other(tmp_path: Path) -> None:
    tiny = load_config("tiny")
    assert Config.from_dict(json.loads(json.dumps(tiny.to_dict()))) == tiny
    (tmp_path / "mine.toml").write_text('extends = "tiny"\nname = "mine"\n[train.prior]\nsteps = 7\n')
    (tmp_path / "again.toml").write_text(f'extends = "{tmp_path}/mine.toml"\n[train.prior]\nbatch = 3\n')
    mine = load_config(str(tmp_path / "again.toml"))
    assert mine == with_changes(tiny, {"name": "mine", "train": {"prior": {"steps": 7, "batch": 3}}})
    assert mine.train.prior.lr == tiny.train.prior.lr and tiny.train.prior.steps != 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('extends = "tiny"\nsteps = 3\n', "unknown field 'steps'"),
        ('extends = "tiny"\n[train]\nprior = 3\n', "train: prior: found '3', expected a table"),
        ('extends = "tiny"\n[sampling]\nsteps = 2.5\n', "steps: found 2.5, expected a whole number"),
        ('extends = "tiny"\n[control]\ngates = 1\n', "gates: found 1, expected true or false"),
        (
            'extends = "tiny"\n[uncertainty]\nform = "log"\n',
            'form: found "log", expected clip or clip_kappa or ratio or exp',
        ),
        ('extends = "tiny"\n[uncertainty]\np_do = 1.0\n', r"uncertainty.p_do in (0, 1)"),
        ('extends = "tiny"\n[train]\nvalidate_images = 0\n', "train.validate_images of 1 or more"),
        ('extends = "tiny"\n[train.control]\ncrop_px = 0\n', "train crop_px of 1 or more"),
        ('extends = "tiny"\n[train.control]\nlr = nan\n', "train lr and gate_lr above 0"),
        ('extends = "tiny"\n[loss]\ngamma = -1\n', "loss.gamma: found -1.0"),
        ('name = "bare"\n', "a base, or the tables vae and transformer"),
        ('extends = "tinny"\n', "found no such file"),
        ("extends = 3\n", "extends must name a configuration"),
        ("name =", "not readable as TOML"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(RareflowError) as error:
        load_config(str(tmp_path / "mine.toml"))
    assert says in str(error.value) and "\n" not in str(error.value), error.value
    (tmp_path / "loop.toml").write_text(f'extends = "{tmp_path}/loop.toml"\n')
    with pytest.raises(RareflowError, match="not itself"):
        load_config(str(tmp_path / "loop.toml"))
