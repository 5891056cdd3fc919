"""Checkpoints: a folder of safetensors files and a card that says what they are and how they were made.

``card.json`` has a hash of every file, the configuration, the scale of u, and the account of the training. With a base
the folder holds what was trained (``control/``, ``gates.safetensors``); without one the VAE, the transformer and the
word table too. Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from diffusers import AutoencoderKL, SD3ControlNetModel, SD3Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from rareflow.captions import Captions, StoredCaptions, TableCaptions
from rareflow.card import (
    EMBEDDED,
    Card,
    ScaleRecord,
    TrainingIds,
    file_hash,
    id_hash,
    read_card,
    verify,
    write_card,
)
from rareflow.config import Config, with_changes
from rareflow.errors import RareflowError
from rareflow.flow import Field
from rareflow.model import RareFlow, threads
from rareflow.networks import Codec, Gates, Masks, name_dropout
from rareflow.text import WordTable
from rareflow.uncertainty import Scale

if TYPE_CHECKING:
    from rareflow.base import CheckedBase

# What a ControlNet has in common with the transformer that adds up its residuals
_SHARED = ("patch_size", "in_channels", "num_attention_heads", "attention_head_dim", "joint_attention_dim",
           "caption_projection_dim", "pooled_projection_dim")  # fmt: skip
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def save(folder: Path, model: RareFlow, card: Card, training_ids: Iterable[str], inherited: Iterable[str] = ()) -> Card:
    """Write a checkpoint: weights in ``config.train.store``, the card last, so that a folder with a card is whole.

    ``card`` has the account of the training; what the checkpoint itself is comes in here. ``inherited`` are the
    hashes of the ids that its prior or start was trained on. Returns the card as written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").unlink(missing_ok=True)
    dtype = _DTYPES[model.config.train.store]
    parts: dict[str, nn.Module | None] = {"control": model.field.control, "gates": model.field.gates}
    if not model.config.base:
        assert isinstance(model.captions, TableCaptions)
        parts |= {"transformer": model.field.transformer, "vae": model.codec.vae, "text": model.captions.table}
    files = {}
    for name, module in parts.items():
        if module is None:
            continue
        weights = {k: v.detach().cpu().to(dtype if v.is_floating_point() and name != "gates" else v.dtype).contiguous()
                   for k, v in module.state_dict().items()}  # fmt: skip
        path = folder / f"{name}.safetensors"
        if isinstance(module, AutoencoderKL | SD3Transformer2DModel | SD3ControlNetModel):
            module.save_config(folder / name)
            path = folder / name / "diffusion_pytorch_model.safetensors"
            files[f"{name}/config.json"] = ""
        save_file(weights, path)
        path.chmod(0o644)  # safetensors makes it private; a package's files are for all
        files[path.relative_to(folder).as_posix()] = ""
    hashes = sorted({*(id_hash(i) for i in training_ids), *inherited})
    (folder / "training_ids.json").write_text(json.dumps(hashes) + "\n", encoding="utf-8")
    files["training_ids.json"] = ""
    card = msgspec.structs.replace(
        card,
        label=f"rareflow-{model.config.name}",
        config=model.config.to_dict(),
        scale=ScaleRecord(model.scale.tau, model.scale.kappa),
        training_ids=TrainingIds(len(hashes), hashlib.sha256("".join(hashes).encode()).hexdigest()),
        files={name: file_hash(folder / name) for name in sorted(files)},
    )
    write_card(folder, card)
    return card


def load(
    checkpoint: str | Path | None = None, *, base: str | None = None, device: str = "cpu", dtype: str | None = None,
    captions: str | Path | None = None, prepare: Iterable[str] = (),
) -> RareFlow:  # fmt: skip
    """Open a checkpoint; the embedded ``rareflow-tiny`` unless a folder is given.

    ``base``: the diffusers SD3 folder or hub id that it was trained on, where that is not what its card says.
    ``dtype``: ``float32``, ``float16`` or ``bfloat16``; unless given bfloat16 with a base, which is then half as large,
    and float32 without one. ``captions``: where SD3's caption embeddings are kept (see
    ``rareflow.captions.caption_folder``); those of ``prepare`` are computed before the base is loaded, so that the text
    encoders (11 GB) and the base never lie in memory together. Every file is held against the card's hash before it is
    used. RareflowError, in one line, for whatever does not fit.

    A model without a base is small: it loads and samples in one thread of a processor, whatever torch is set to, unless
    its ``threads`` is changed.
    """
    folder = EMBEDDED if checkpoint is None else Path(checkpoint)
    card = read_card(folder)
    with threads(None if card.config.get("base") else 1):
        return _load(folder, card, base, device, dtype, captions, prepare)


def check(checkpoint: str | Path, base: str | None = None) -> None:
    """RareflowError for what ``load`` would refuse before it loads: files of other hashes than the card's, a base of
    other tensors than its configuration's, or not the one that the checkpoint was trained on."""
    _checked(Path(checkpoint), read_card(Path(checkpoint)), base)


def _checked(folder: Path, card: Card, base: str | None) -> tuple[Config, CheckedBase | None]:
    """The configuration of a checkpoint whose files are right, and its base, if it has one."""
    try:
        config = Config.from_dict(card.config, f"{folder / 'card.json'}: config")
    except RareflowError as error:
        raise RareflowError(f"{error}; the card was changed, or is of another version: copy it anew") from None
    if base:
        if not config.base:
            raise RareflowError(f"checkpoint {folder}: it has a transformer and a VAE of its own; leave base out")
        config = with_changes(config, {"base": str(base)})
    verify(folder, card, {*card.files, *_needed(config)})
    if not config.base:
        return config, None
    from rareflow.base import check_base

    found = check_base(config.base)
    for part, identity in found.identity.items():
        if card.base.get(part) != identity:
            raise RareflowError(
                f"checkpoint {folder}: it was trained on another base: the {part} in {config.base} has the "
                f"identity {identity[:12]}, expected {str(card.base.get(part))[:12]}; give that base"
            )
    return config, found


def _load(
    folder: Path, card: Card, base: str | None, device: str, dtype: str | None,
    captions: str | Path | None, prepare: Iterable[str],
) -> RareFlow:  # fmt: skip
    config, found = _checked(folder, card, base)
    dtype = dtype or ("bfloat16" if config.base else "float32")
    masks = Masks()
    store: Captions
    if found is not None:
        store = StoredCaptions.of(found, config.text.max_t5_tokens, torch.device(device), captions)
        wanted = list(prepare)
        if wanted:
            store.prepare(["", *(wanted if config.text.captions else ())])
        opened = found.load(device, _DTYPES[dtype])
        transformer, vae = opened.transformer, opened.vae
    else:
        transformer = _module(folder, "transformer", SD3Transformer2DModel, config.transformer)
        vae = _module(folder, "vae", AutoencoderKL, config.vae)
        table = WordTable(config.text.buckets, config.text.positions, int(config.transformer["joint_attention_dim"]))
        _fill(table, folder / "text.safetensors")
        store = TableCaptions(table.to(device, _DTYPES[dtype]).eval().requires_grad_(False))
    like = {name: transformer.config[name] for name in _SHARED}
    control = _module(folder, "control", SD3ControlNetModel, {"num_layers": config.control.layers} | like)
    name_dropout(control, masks, config.uncertainty.p_do)
    gates = None
    if config.control.gates:
        gates = Gates(config.control.layers, masks, config.uncertainty.p_do, pu_min=config.control.pu_min)
        _fill(gates, folder / "gates.safetensors")
        gates.to(device).eval().requires_grad_(False)
    # A decoder in bfloat16 rounds as much as v varies (eq. 4), one in float16 does not; processors are slow at float16.
    half = dtype != "float32" and torch.device(device).type != "cpu"
    for module, kind in ((transformer, _DTYPES[dtype]), (control, _DTYPES[dtype]),
                         (vae, torch.float16 if half else torch.float32)):  # fmt: skip
        # diffusers' own to() warns of modules to be kept in float32 even where there are none
        nn.Module.to(module, device, kind).eval().requires_grad_(False)
    scale = _scale(card, config, folder)
    codec = Codec(vae)
    field = Field(transformer, control, gates, config.control.s_ctrl, codec.zero)
    return RareFlow(
        config, field, codec, store, masks, scale, card, torch.device(device), _DTYPES[dtype],
        threads=None if config.base else 1,
    )  # fmt: skip


def _needed(config: Config) -> list[str]:
    """The files that a checkpoint of this configuration is loaded from."""
    modules = ["control"] if config.base else ["control", "transformer", "vae"]
    files = [f"{m}/{f}" for m in modules for f in ("config.json", "diffusion_pytorch_model.safetensors")]
    return files + ["gates.safetensors"] * config.control.gates + ["text.safetensors"] * (not config.base)


def _scale(card: Card, config: Config, folder: Path) -> Scale:
    if card.scale is None:
        raise RareflowError(f"{folder / 'card.json'}: found no scale, expected tau and kappa; copy the checkpoint anew")
    return Scale(card.scale.tau, card.scale.kappa, config.uncertainty.form)


def _module(folder: Path, part: str, kind: type, expected: dict[str, Any]) -> Any:
    """One of diffusers' models from its config.json, which must agree with the card's configuration."""
    path = folder / part / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        for key, value in expected.items():
            if _plain(values.get(key)) != _plain(value):
                raise RareflowError(
                    f"{path}: found {key} {str(values.get(key))[:40]!r}, expected {str(value)[:40]!r}: the parts are "
                    "of different checkpoints; copy the checkpoint anew"
                )
        module = kind.from_config({k: v for k, v in values.items() if not k.startswith("_")})  # type: ignore[attr-defined]
    except RareflowError:
        raise
    except Exception as error:
        raise RareflowError(
            f"{path}: no configuration of a {kind.__name__}: {_flat(error)}; copy the checkpoint anew"
        ) from None
    _fill(module, folder / part / "diffusion_pytorch_model.safetensors")
    return module


def _fill(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into a module, every name and shape accounted for."""
    try:
        weights = load_file(path)
    except Exception as error:
        raise RareflowError(f"{path}: not readable as safetensors: {_flat(error)}; copy the checkpoint anew") from None
    wanted = {k: v.shape for k, v in module.state_dict().items()}
    found = {k: v.shape for k, v in weights.items()}
    if wanted != found:
        wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        raise RareflowError(
            f"{path}: {len(wrong)} tensors do not fit the configuration, first {wrong[0][:80]!r}: found "
            f"{_shape(found.get(wrong[0]))}, expected {_shape(wanted.get(wrong[0]))}: the weights are of another "
            "configuration; copy the checkpoint anew"
        )
    broken = [k for k, v in weights.items() if not bool(torch.isfinite(v.float()).all())]
    if broken:
        raise RareflowError(f"{path}: {broken[0][:80]} holds values that are not finite; train anew")
    module.load_state_dict({k: v.float() for k, v in weights.items()})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _shape(shape: Any) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape)) or "a scalar"
