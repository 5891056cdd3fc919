"""Checkpoints: a folder of safetensors files and a card that says what they are and how they were made.

``card.json`` has a hash of every file, the configuration, the scale of u, and the account of the training. With a base
the folder holds what was trained (``control/``, ``gates.safetensors``); without one the VAE, the transformer and the
word table too. Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3ControlNetModel, SD3Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from rareflow.captions import Captions, StoredCaptions, TableCaptions
from rareflow.config import Config, with_changes
from rareflow.errors import RareflowError
from rareflow.flow import Field
from rareflow.model import RareFlow
from rareflow.networks import Codec, Gates, Masks, name_dropout
from rareflow.text import CaptionStore, WordTable, sd3_encoder
from rareflow.uncertainty import Scale

FORMAT = 1
EMBEDDED = Path(__file__).parent / "tiny"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def id_hash(text: str) -> str:
    """How a training image's id is written down: 16 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def save(folder: Path, model: RareFlow, card: dict[str, Any], training_ids: Iterable[str]) -> dict[str, Any]:
    """Write a checkpoint: weights in ``config.train.store``, the card last, so that a folder with a card is whole.

    Returns the card as written.
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
    hashes = sorted({id_hash(i) for i in training_ids})
    (folder / "training_ids.json").write_text(json.dumps(hashes) + "\n", encoding="utf-8")
    files["training_ids.json"] = ""
    card = {
        "format": FORMAT,
        "label": f"rareflow-{model.config.name}",
        "config": model.config.to_dict(),
        "scale": {"tau": model.scale.tau, "kappa": model.scale.kappa},
        **card,
        "training_ids": {"count": len(hashes), "sha256": hashlib.sha256("".join(hashes).encode()).hexdigest()},
        "files": {name: _sha256(folder / name) for name in sorted(files)},
    }
    write_card(folder, card)
    return card


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write a checkpoint's card, whole or not at all."""
    temporary = folder / ".card.json.tmp"
    temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / "card.json")


def read_card(folder: Path) -> dict[str, Any]:
    """A checkpoint's card; RareflowError for a folder that is no checkpoint."""
    if not folder.is_dir():
        raise RareflowError(f"checkpoint {folder}: found no such folder, expected one that `rfbench train` wrote")
    path = folder / "card.json"
    if not path.is_file():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
        what = f"pickled weights ({pickled[0]}), which are never loaded" if pickled else "no card.json"
        raise RareflowError(
            f"checkpoint {folder}: found {what}, expected a folder that `rfbench train` finished (card.json and "
            "safetensors files); train, or give another folder"
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RareflowError(f"{path}: not readable as JSON: {' '.join(str(error).split())[:80]}") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("files"), dict):
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise RareflowError(f"{path}: found format {str(found)[:40]!r}, expected {FORMAT}; train the checkpoint anew")
    return card


def card_identity(card: dict[str, Any]) -> str:
    """A SHA-256 of all that a checkpoint's card says of what it computes: weights, configuration, base, scale of u."""
    config = {k: v for k, v in card.get("config", {}).items() if k not in ("train", "loss", "base")}
    parts = [card["files"], config, card.get("base", {}), card.get("scale")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def training_ids(folder: Path) -> frozenset[str]:
    """The hashes (see ``id_hash``) of the ids that a checkpoint was trained on."""
    card = read_card(folder)
    _verify(folder, card, ["training_ids.json"])
    return frozenset(json.loads((folder / "training_ids.json").read_text(encoding="utf-8")))


def load(
    checkpoint: str | Path | None = None, *, base: str | None = None, device: str = "cpu", dtype: str = "float32",
    captions: str | Path | None = None,
) -> RareFlow:  # fmt: skip
    """Open a checkpoint; the embedded ``rareflow-tiny`` unless a folder is given.

    ``base``: the diffusers SD3 folder or hub id that it was trained on, where that is not what its card says.
    ``captions``: where SD3's caption embeddings are kept (``captions/`` beside the card unless given). Every file is
    held against the card's hash before it is used. RareflowError, in one line, for whatever does not fit.
    """
    folder = EMBEDDED if checkpoint is None else Path(checkpoint)
    card = read_card(folder)
    config = Config.from_dict(card.get("config"), f"{folder / 'card.json'}: config")
    if base:
        if not config.base:
            raise RareflowError(
                f"checkpoint {folder}: {card.get('label')} has its own transformer and VAE; leave base out"
            )
        config = with_changes(config, {"base": str(base)})
    _verify(folder, card, {*card["files"], *_needed(config)})
    masks = Masks()
    store: Captions
    if config.base:
        from rareflow.base import open_base

        opened = open_base(config.base, device=device, dtype=_DTYPES[dtype])
        trained_on = card.get("base", {})
        for part, identity in opened.identity.items():
            if trained_on.get(part) != identity:
                raise RareflowError(
                    f"checkpoint {folder}: it was trained on another base: the {part} in {config.base} has the "
                    f"identity {identity[:12]}, expected {str(trained_on.get(part))[:12]}; give that base"
                )
        transformer, vae = opened.transformer, opened.vae
        assert opened.text_folder is not None
        length = config.text.max_t5_tokens
        place = Path(captions) if captions else folder / "captions"
        encode = sd3_encoder(opened.text_folder, device, _DTYPES[dtype], length)
        store = StoredCaptions(CaptionStore(place, opened.identity["text"], length), encode)
    else:
        transformer = _module(folder, "transformer", SD3Transformer2DModel, config.transformer)
        vae = _module(folder, "vae", AutoencoderKL, config.vae)
        table = WordTable(config.text.buckets, config.text.positions, int(config.transformer["joint_attention_dim"]))
        _fill(table, folder / "text.safetensors")
        store = TableCaptions(table.to(device, _DTYPES[dtype]).eval().requires_grad_(False))
    control = _module(folder, "control", SD3ControlNetModel, {"num_layers": config.control.layers})
    name_dropout(control, masks, config.uncertainty.p_do)
    gates = None
    if config.control.gates:
        gates = Gates(config.control.layers, masks, config.uncertainty.p_do, pu_min=config.control.pu_min)
        _fill(gates, folder / "gates.safetensors")
        gates.to(device).eval().requires_grad_(False)
    for module in (transformer, vae, control):
        # diffusers' own to() warns of modules to be kept in float32 even where there are none
        nn.Module.to(module, device, _DTYPES[dtype]).eval().requires_grad_(False)
    scale = _scale(card, config, folder)
    field = Field(transformer, control, gates, config.control.s_ctrl)
    return RareFlow(config, field, Codec(vae), store, masks, scale, card, torch.device(device), _DTYPES[dtype])


def _needed(config: Config) -> list[str]:
    """The files that a checkpoint of this configuration is loaded from."""
    modules = ["control"] if config.base else ["control", "transformer", "vae"]
    files = [f"{m}/{f}" for m in modules for f in ("config.json", "diffusion_pytorch_model.safetensors")]
    return files + ["gates.safetensors"] * config.control.gates + ["text.safetensors"] * (not config.base)


def _scale(card: dict[str, Any], config: Config, folder: Path) -> Scale:
    values = card.get("scale")
    numbers = [values.get(k) for k in ("tau", "kappa")] if isinstance(values, dict) else []
    if len(numbers) != 2 or not all(isinstance(n, int | float) and math.isfinite(n) and n > 0 for n in numbers):
        raise RareflowError(
            f"{folder / 'card.json'}: found the scale {str(values)[:60]}, expected tau and kappa above 0"
        )
    tau, kappa = (float(n) for n in numbers if n is not None)
    return Scale(tau, kappa, config.uncertainty.form)


def _module(folder: Path, part: str, kind: type, expected: dict[str, Any]) -> Any:
    """One of diffusers' models from its config.json, which must agree with the card's configuration."""
    path = folder / part / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        for key, value in expected.items():
            if _plain(values.get(key)) != _plain(value):
                raise RareflowError(
                    f"{path}: found {key} {str(values.get(key))[:40]}, the card's configuration has {str(value)[:40]}; "
                    "the parts are of different checkpoints"
                )
        module = kind.from_config({k: v for k, v in values.items() if not k.startswith("_")})  # type: ignore[attr-defined]
    except RareflowError:
        raise
    except Exception as error:
        raise RareflowError(f"{path}: no configuration of a {kind.__name__}: {_flat(error)}") from None
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
            f"{path}: {len(wrong)} tensors do not fit the configuration, first {wrong[0][:80]}: found "
            f"{_shape(found.get(wrong[0]))}, expected {_shape(wanted.get(wrong[0]))}; the checkpoint is of another "
            "configuration"
        )
    broken = [k for k, v in weights.items() if not bool(torch.isfinite(v.float()).all())]
    if broken:
        raise RareflowError(f"{path}: {broken[0][:80]} holds values that are not finite; train anew")
    module.load_state_dict({k: v.float() for k, v in weights.items()})


def _verify(folder: Path, card: dict[str, Any], names: Iterable[str]) -> None:
    """Hold files against the card's hashes."""
    root = folder.resolve()
    for name in names:
        path = (root / str(name)).resolve()
        expected = card["files"].get(name)
        if not path.is_relative_to(root) or not isinstance(expected, str):
            raise RareflowError(f"{folder / 'card.json'}: the file name {str(name)[:60]!r} is not one of a checkpoint")
        if not path.is_file():
            raise RareflowError(f"checkpoint {folder}: {name} is missing; copy the checkpoint anew")
        found = _sha256(path)
        if found != expected:
            raise RareflowError(
                f"checkpoint {folder}: {name} has the SHA-256 {found[:12]}..., the card says {expected[:12]}...: it is "
                "truncated or was changed; copy the checkpoint anew"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _shape(shape: Any) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape)) or "a scalar"
