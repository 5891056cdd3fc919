"""The frozen prior from a diffusers folder, and ControlNets for it, held against diffusers' own."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, SD3ControlNetModel, SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from rareflow import base
from rareflow.base import (
    controlnet_fresh,
    controlnet_from_transformer,
    load_controlnet,
    open_base,
    part_identity,
    text_identity,
)
from rareflow.errors import RareflowError
from tests.sd3_folder import make_sd3_folder

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd3_folder(tmp_path_factory.mktemp("sd3"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "sd3"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# ---- folders that are right


def test_the_parts_of_a_folder_are_diffusers_own_and_frozen(whole: Path) -> None:
    opened = open_base(str(whole), dtype=torch.bfloat16)
    assert opened.shift == 3.0 and opened.text_folder == whole
    for model, kind, part in (
        (opened.transformer, SD3Transformer2DModel, "transformer"),
        (opened.vae, AutoencoderKL, "vae"),
    ):
        dtype = torch.float32 if part == "vae" else torch.bfloat16
        theirs = kind.from_pretrained(whole / part, torch_dtype=dtype, local_files_only=True).state_dict()
        assert isinstance(model, kind) and not model.training
        assert not any(p.requires_grad for p in model.parameters())
        ours = model.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
        assert all(p.dtype == dtype for p in model.parameters())


def test_a_folder_without_text_opens_where_no_text_is_wanted(folder: Path) -> None:
    for name in [p.name for p in folder.iterdir() if p.name.startswith(("text", "token", "model_index"))]:
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "model_index.json").unlink()
    opened = open_base(folder, text=False)
    assert opened.text_folder is None and opened.identity.keys() == {"transformer", "vae"}
    with pytest.raises(RareflowError, match=r"found no such file"):
        open_base(folder)


def test_sharded_and_half_precision_files_are_found(folder: Path) -> None:
    expected = open_base(folder, text=False).transformer.state_dict()
    part = folder / "transformer"
    SD3Transformer2DModel.from_pretrained(part).save_pretrained(part, max_shard_size="100KB", variant="fp16")
    (part / WEIGHTS).unlink()
    variant, files = base.weight_files(part)
    assert variant == "fp16" and len(files) > 1
    found = open_base(folder, text=False).transformer.state_dict()
    assert all(torch.equal(found[k], expected[k]) for k in expected)
    files[0].unlink()
    with pytest.raises(RareflowError, match=f"^[^\n]*transformer: found no {files[0].name}[^\n]*$"):
        open_base(folder, text=False)


def test_identity_follows_the_content_and_nothing_else(whole: Path, folder: Path, monkeypatch: Any) -> None:
    part = folder / "vae"
    (part / "README.md").write_text("not read")
    assert part_identity(part) == part_identity(whole / "vae")
    assert text_identity(folder) == text_identity(whole)
    seen = set()
    for limit in (base._WHOLE, 1000):  # hashed whole, and by header and blocks as a large file is
        monkeypatch.setattr(base, "_WHOLE", limit)
        for at in (None, 100, 20_000, -1):  # nowhere, in the header, among the numbers, at the end
            content = bytearray((whole / "vae" / WEIGHTS).read_bytes())
            if at is not None:
                content[at] ^= 1
            (part / WEIGHTS).write_bytes(content)
            seen.add(part_identity(part))
    assert len(seen) == 2 * (1 + 3)
    before = text_identity(folder)
    with (folder / "tokenizer/merges.txt").open("a") as file:
        file.write("x y\n")
    assert text_identity(folder) != before


# ---- folders that are not

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another pipeline": (
        lambda f: change(f / "model_index.json", _class_name="FluxPipeline"), "class FluxPipeline, expected Stable"),
    "index of a list": (lambda f: (f / "model_index.json").write_text("[1]"), "model_index.json: found JSON list"),
    "index of no JSON": (lambda f: (f / "model_index.json").write_bytes(b"\xff{"), "model_index.json: not readable"),
    "index nested": (lambda f: (f / "model_index.json").write_text("[" * 100_000), "model_index.json: not readable"),
    "transformer of Flux": (
        lambda f: change(f / "transformer/config.json", _class_name="FluxTransformer2DModel"), "transformer/config.j"),
    "no text": (lambda f: change(f / "transformer/config.json", joint_attention_dim=None), "no joint_attention_dim"),
    "wild number": (lambda f: change(f / "transformer/config.json", num_layers=10**9), "num_layers: found 1000000000"),
    "text for a number": (lambda f: change(f / "transformer/config.json", patch_size="2"), "patch_size: found 2"),
    "odd width": (lambda f: change(f / "transformer/config.json", num_attention_heads=3), "caption_projection_dim"),
    "odd value": (lambda f: change(f / "transformer/config.json", qk_norm=7), "transformer/config.json: builds no"),
    "output channels": (lambda f: change(f / "transformer/config.json", out_channels=4), "out_channels: found 4"),
    "more layers": (
        lambda f: change(f / "transformer/config.json", num_layers=3), "transformer: found transformer_blocks.1.norm1"),
    "other width": (
        lambda f: change(f / "transformer/config.json", pooled_projection_dim=48), r"shape \(32, 64\), expected \(32,"),
    "VAE channels": (lambda f: change(f / "vae/config.json", latent_channels=4), "vae/config.json: found 4 latent"),
    "VAE shift": (lambda f: change(f / "vae/config.json", shift_factor=None), "vae/config.json: shift_factor"),
    "VAE scale": (lambda f: change(f / "vae/config.json", scaling_factor=float("nan")), "scaling_factor: found nan"),
    "scheduler": (lambda f: change(f / "scheduler/scheduler_config.json", _class_name="DDIM"), "DDIM, expected Flow"),
    "shift": (lambda f: change(f / "scheduler/scheduler_config.json", shift=-1), "shift of -1"),
    "no VAE": (lambda f: shutil.rmtree(f / "vae"), "vae/config.json: found no such file"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler/scheduler_config.json: found no such file"),
    "no T5": (lambda f: shutil.rmtree(f / "text_encoder_3"), "text_encoder_3/config.json: found no such file"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer_2"), "found no tokenizer_2/tokenizer_config.json"),
    "CLIP left out": (lambda f: change(f / "model_index.json", text_encoder=[None, None]), "found no text_encoder,"),
    "encoder of T5": (lambda f: change(f / "text_encoder/config.json", architectures=["T5EncoderModel"]), "CLIPText"),
    "no weights": (lambda f: (f / "vae" / WEIGHTS).unlink(), "vae: found no weights"),
    "pickled": (
        lambda f: (f / "vae" / WEIGHTS).rename(f / "vae/diffusion_pytorch_model.bin"), "vae: found pickled weights"),
    "pickle renamed": (lambda f: torch.save({"x": torch.ones(9)}, f / "vae" / WEIGHTS), "vae.*truncated or damaged"),
    "cut": (
        lambda f: (f / "text_encoder_2/model.safetensors").write_bytes(
            (f / "text_encoder_2/model.safetensors").read_bytes()[:-100]),
        "text_encoder_2/model.safetensors: truncated or damaged"),
    "shard elsewhere": (
        lambda f: (
            (f / "vae" / WEIGHTS).unlink(),
            (f / "vae" / f"{WEIGHTS}.index.json").write_text('{"weight_map": {"x": "../../x.safetensors"}}')),
        "index.json: found the file '../../x.safetensors'"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_named_in_one_line_before_weights_load(
    damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded before everything was checked")

    monkeypatch.setattr(SD3Transformer2DModel, "from_pretrained", loaded)
    monkeypatch.setattr(AutoencoderKL, "from_pretrained", loaded)
    act, expected = DAMAGES[damage]
    act(folder)
    with pytest.raises(RareflowError, match=expected) as caught:
        open_base(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("where", ["/nowhere/x", "~nobody-here/x", "a/b/c", "x\ny/z", "\0", "x" * 9000])
def test_what_is_neither_folder_nor_hub_id_is_refused(where: str) -> None:
    with pytest.raises(RareflowError, match=r"^[^\n]*found no such folder[^\n]*$"):
        open_base(where)


def test_a_hub_id_comes_from_the_cache_when_offline(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RareflowError, match=r"^base 'someone/sd3': [^\n]*cannot be reached[^\n]*give a folder$"):
        open_base("someone/sd3")
    store = tmp_path / "models--someone--sd3"
    (store / "refs").mkdir(parents=True)
    (store / "refs/main").write_text("0" * 40)
    shutil.copytree(whole, store / "snapshots" / ("0" * 40))
    assert open_base("someone/sd3").identity == open_base(whole).identity


# ---- ControlNets


def transformer(layers: int = 3, **changes: Any) -> SD3Transformer2DModel:
    arguments: dict[str, Any] = {
        "sample_size": 16, "in_channels": 4, "out_channels": 4, "num_layers": layers, "attention_head_dim": 8,
        "num_attention_heads": 2, "joint_attention_dim": 12, "caption_projection_dim": 16, "pooled_projection_dim": 10,
        "pos_embed_max_size": 12,
    }  # fmt: skip
    torch.manual_seed(5)
    return SD3Transformer2DModel(**(arguments | changes)).eval()


def inputs() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(2, 4, 8, 12, generator=g),
        "encoder_hidden_states": torch.randn(2, 5, 12, generator=g),
        "pooled_projections": torch.randn(2, 10, generator=g),
        "timestep": torch.tensor([900.0, 20.0]),
    }


SD35 = {"qk_norm": "rms_norm", "dual_attention_layers": (0, 2)}


@pytest.mark.parametrize("changes", [{}, SD35], ids=["sd3", "sd3.5"])
@pytest.mark.parametrize("layers", [1, 2])
def test_copies_equal_diffusers_where_that_works(layers: int, changes: dict[str, Any]) -> None:
    source = transformer(**changes)
    before = dict(source.config)
    ours = controlnet_from_transformer(source, layers)
    theirs = SD3ControlNetModel.from_transformer(copy.deepcopy(source), layers, num_extra_conditioning_channels=0)
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert dict(source.config) == before, "the transformer's configuration was changed"
    assert ours.config.force_zeros_for_pooled_projection is False
    assert ours.config.dual_attention_layers == tuple(i for i in changes.get("dual_attention_layers", ()) if i < layers)
    assert ours.training and all(p.requires_grad and p.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("changes", [{}, SD35], ids=["sd3", "sd3.5"])
def test_a_copy_of_full_depth_sees_what_the_transformer_sees(changes: dict[str, Any]) -> None:
    source = transformer(**changes)
    control = controlnet_from_transformer(source, 3)
    for linear in control.controlnet_blocks:  # so that residuals are the blocks' own outputs
        torch.nn.init.eye_(linear.weight)
    seen: list[torch.Tensor] = []
    for block in source.transformer_blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out[1]))
    with torch.no_grad():
        source(**inputs())
        residuals = control(**inputs(), controlnet_cond=torch.ones(2, 4, 8, 12))[0]
    assert len(residuals) == len(seen) == 3
    for ours, theirs in zip(residuals[:2], seen[:2], strict=True):
        torch.testing.assert_close(ours, theirs)
    last = {k for k in source.state_dict() if k.startswith("transformer_blocks.2.") and "norm1_context" not in k}
    assert len(last) > 10 and all(torch.equal(control.state_dict()[k], source.state_dict()[k]) for k in last)


@pytest.mark.parametrize("make", [controlnet_fresh, controlnet_from_transformer])
def test_a_new_control_changes_nothing_yet(make: Any) -> None:
    control = make(transformer(), 2)
    residuals = control(**inputs(), controlnet_cond=torch.ones(2, 4, 8, 12))[0]
    assert len(residuals) == 2 and not any(r.any() for r in residuals)


def test_fresh_weights_follow_from_the_seed_alone() -> None:
    source = transformer().half()
    state = torch.get_rng_state()
    one, same, other = (controlnet_fresh(source, 2, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[k], same[k]) for k in one)
    name = "transformer_blocks.1.attn.to_q.weight"
    copied = controlnet_from_transformer(source, 2).state_dict()
    assert not torch.equal(one[name], other[name]) and not torch.equal(one[name], copied[name])
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in copied.items()}
    assert torch.equal(copied[name], source.state_dict()[name].float()) and copied[name].dtype == torch.float32


def test_layers_out_of_range() -> None:
    for layers in (0, 4):
        with pytest.raises(RareflowError, match=f"found {layers} control layers, expected 1 to 3"):
            controlnet_from_transformer(transformer(), layers)


def test_a_saved_control_loads_for_its_transformer_only(tmp_path: Path) -> None:
    source = transformer(**SD35)
    control = controlnet_fresh(source, 2)
    control.register_to_config(force_zeros_for_pooled_projection=True)  # as published ones have it; it stays
    control.save_pretrained(tmp_path / "control")
    loaded = load_controlnet(tmp_path / "control", source)
    assert all(torch.equal(v, control.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert loaded.config.force_zeros_for_pooled_projection is True and loaded.config.qk_norm == "rms_norm"
    assert loaded.training and all(p.requires_grad for p in loaded.parameters())

    def refused(folder: Path, target: SD3Transformer2DModel, expected: str) -> None:
        with pytest.raises(RareflowError, match=f"^[^\n]*{expected}[^\n]*$"):
            load_controlnet(folder, target)

    refused(tmp_path / "absent", source, "no such folder")
    refused(tmp_path / "control", transformer(layers=1), "found 2 layers, expected at most the transformer's 1")
    refused(tmp_path / "control", transformer(pooled_projection_dim=8), "pooled_projection_dim 10, expected .* 8")
    SD3ControlNetModel.from_transformer(
        copy.deepcopy(source), 1, num_extra_conditioning_channels=1, load_weights_from_transformer=False
    ).save_pretrained(tmp_path / "extra")
    refused(tmp_path / "extra", source, "extra conditioning channels")
    source.save_pretrained(tmp_path / "transformer")
    refused(tmp_path / "transformer", source, "SD3Transformer2DModel, expected SD3ControlNetModel")
    weights = load_file(tmp_path / "control" / WEIGHTS)
    del weights["controlnet_blocks.1.bias"]
    save_file(weights, tmp_path / "control" / WEIGHTS, {"format": "pt"})
    refused(tmp_path / "control", source, "found no controlnet_blocks.1.bias")
