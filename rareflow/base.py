"""A diffusers SD3 folder, or a hub id of one, as the frozen prior; and ControlNets that fit its transformer.

A folder is read part by part: every configuration first, then the headers of all weight files (names, shapes, sizes),
then the weights. Only safetensors are read, never pickled files, and nothing of a folder is run as code.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3ControlNetModel, SD3Transformer2DModel
from safetensors import SafetensorError, safe_open
from torch import nn

from rareflow.errors import RareflowError

_TEXT_ENCODERS = {
    "text_encoder": "CLIPTextModelWithProjection",
    "text_encoder_2": "CLIPTextModelWithProjection",
    "text_encoder_3": "T5EncoderModel",
}
_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
_STEMS = ("diffusion_pytorch_model", "model")  # diffusers' and transformers' names of weight files
_PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_SIZES = {
    "num_layers": 256,
    "patch_size": 64,
    "in_channels": 1024,
    "sample_size": 4096,
    "pos_embed_max_size": 4096,
    "num_attention_heads": 1024,
    "attention_head_dim": 4096,
    "caption_projection_dim": 65536,
    "pooled_projection_dim": 65536,
    "joint_attention_dim": 65536,
}  # and the largest value believed, so that a wild number fails before it takes all memory
_HUB_FILES = (
    "model_index.json",
    "scheduler/*.json",
    *(f"{part}/*.{end}" for part in ("transformer", "vae", *_TEXT_ENCODERS) for end in ("json", "safetensors")),
    *(f"{part}/*.{end}" for part in _TOKENIZERS for end in ("json", "txt", "model")),
)
_CONTROL_FILES = ("config.json", "diffusion_pytorch_model*")
_WHOLE = 64 << 20  # weight files up to this many bytes are hashed whole
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Base:
    """The frozen parts, in eval mode and without gradients.

    ``shift`` is the scheduler's; ``text_folder`` is where ``rareflow.text.Sd3Text`` finds the encoders (None where
    the folder was opened without them); ``identity`` maps each part (``transformer``, ``vae``, ``text``) to the hash
    of its content (see ``part_identity``).
    """

    transformer: SD3Transformer2DModel
    vae: AutoencoderKL
    shift: float
    text_folder: Path | None
    identity: dict[str, str]


@dataclass(frozen=True)
class CheckedBase:
    """A base whose files are whole, before any weight of it is in memory: captions are encoded, and their encoders
    freed, while this is all there is. ``transformer`` is its configuration; the rest as in ``Base``."""

    folder: Path
    transformer: dict[str, Any]
    shift: float
    text_folder: Path | None
    identity: dict[str, str]

    def load(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Base:
        """The networks. ``dtype`` is the transformer's; the VAE comes in float32: a decoder in bfloat16 rounds as much
        as v varies (eq. 4)."""
        return Base(
            transformer=_load(SD3Transformer2DModel, self.folder / "transformer", dtype).to(device),
            vae=_load(AutoencoderKL, self.folder / "vae", torch.float32).to(device),
            shift=self.shift,
            text_folder=self.text_folder,
            identity=self.identity,
        )


def open_base(
    where: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    text: bool = True,
) -> Base:
    """``check_base`` and ``CheckedBase.load`` at once."""
    return check_base(where, text=text).load(device, dtype)


def check_base(where: str | Path, *, text: bool = True) -> CheckedBase:
    """Find a local diffusers SD3 folder or a hub id ``owner/name``, and hold its files against its configurations.

    ``text`` False leaves out the text encoders and tokenizers, which the folder then need not have (nor a
    ``model_index.json``). A hub id is fetched, or taken from the hub's cache, as ``huggingface_hub`` is set up
    (``HF_HUB_OFFLINE`` is honoured); a folder is never looked up on a network. Configurations and the headers of all
    weight files are checked before any weight is loaded. RareflowError in one line for whatever does not fit.
    """
    folder = _locate(where, "base", "a diffusers SD3 folder", _HUB_FILES)
    if text or (folder / "model_index.json").exists():
        _check_index(folder)
    transformer = _transformer_config(folder / "transformer", "SD3Transformer2DModel")
    vae = _vae_config(folder / "vae", transformer["in_channels"])
    shift = _shift(folder / "scheduler")
    _check_weights(folder / "transformer", SD3Transformer2DModel, transformer)
    _check_weights(folder / "vae", AutoencoderKL, vae)
    identity = {part: part_identity(folder / part) for part in ("transformer", "vae")}
    if text:
        identity["text"] = text_identity(folder)
    return CheckedBase(folder, transformer, shift, folder if text else None, identity)


def controlnet_from_transformer(transformer: SD3Transformer2DModel, layers: int) -> SD3ControlNetModel:
    """A ControlNet that starts as a copy of the transformer's first ``layers`` blocks and embeddings.

    ``layers`` is 1 to the transformer's depth. All linears that leave the ControlNet and the embedding of the
    condition are zero, so that it changes nothing before it is trained. The transformer and its configuration are
    left as they are (diffusers' ``from_transformer`` overwrites the latter). At full depth the last block's context
    branch, which the transformer does not have and whose output nothing uses, starts at random (seed 0). Returned in
    float32 on the transformer's device, in train mode, with gradients.
    """
    control = controlnet_fresh(transformer, layers)
    wanted = control.state_dict()
    copied = {
        name: value
        for name, value in transformer.state_dict().items()
        if name in wanted and value.shape == wanted[name].shape
    }
    control.load_state_dict(copied, strict=False)
    return control


def controlnet_fresh(transformer: SD3Transformer2DModel, layers: int, *, seed: int = 0) -> SD3ControlNetModel:
    """A ControlNet of the same shape with random weights, the outputs zero as in ``controlnet_from_transformer``.

    The weights follow from ``seed`` alone; torch's global generator is left as it was.
    """
    source = dict(transformer.config)
    if not 1 <= layers <= source["num_layers"]:
        raise RareflowError(
            f"found {layers} control layers, expected 1 to {source['num_layers']}, the transformer's depth; "
            "change control.layers"
        )
    arguments = {name: source[name] for name in (*_SIZES, "qk_norm")}
    arguments |= {
        "num_layers": layers,
        "out_channels": source["out_channels"],
        "dual_attention_layers": tuple(i for i in source["dual_attention_layers"] if i < layers),
        "extra_conditioning_channels": 0,
        # diffusers' pipeline feeds the ControlNet zeros and unshifted latents where this is True, its default
        "force_zeros_for_pooled_projection": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the GPU's too
        control = SD3ControlNetModel(**arguments)
    # diffusers' own to() warns of modules to be kept in float32 even where there are none
    return nn.Module.to(control, transformer.device, torch.float32)


def load_controlnet(where: str | Path, transformer: SD3Transformer2DModel) -> SD3ControlNetModel:
    """The SD3 ControlNet of a local folder or a hub id, in float32 on the transformer's device, in train mode.

    It keeps its convention (``force_zeros_for_pooled_projection``, see ``rareflow.flow.Field``), and has as many layers
    as its configuration says.

    RareflowError unless it reads the latents, text and width of ``transformer`` and takes a plain latent as its
    condition (no mask or other extra channel).
    """
    folder = locate_controlnet(where)
    config = _transformer_config(folder, "SD3ControlNetModel")
    mine = dict(transformer.config)
    for name in _SIZES:
        if name in ("num_layers", "sample_size", "pos_embed_max_size"):
            continue
        if config[name] != mine[name]:
            raise RareflowError(
                f"{folder}: found a ControlNet with {name} {config[name]}, expected the transformer's {mine[name]}; "
                "take one made for this base"
            )
    if config["num_layers"] > mine["num_layers"]:
        raise RareflowError(
            f"{folder}: found {config['num_layers']} layers, expected at most the transformer's {mine['num_layers']}; "
            "take a ControlNet made for this base"
        )
    if config.get("extra_conditioning_channels", 0) or not config.get("use_pos_embed", True):
        raise RareflowError(
            f"{folder}: found a ControlNet with extra conditioning channels or without positions, expected one whose "
            "condition is a plain latent; take another"
        )
    _check_weights(folder, SD3ControlNetModel, config)
    control = _load(SD3ControlNetModel, folder, torch.float32).to(transformer.device)
    return control.train().requires_grad_(True)


def locate_controlnet(where: str | Path) -> Path:
    """The folder of an SD3 ControlNet: itself, or that of a hub id's snapshot. RareflowError where there is none."""
    return _locate(where, "control.init", "the folder of an SD3 ControlNet", _CONTROL_FILES)


def part_identity(part: Path) -> str:
    """SHA-256, 64 hex digits, of the files of one part that are read: its JSON, vocabulary and weight files.

    A weight file of at most 64 MiB is hashed whole; of a larger one the size, the header (names, shapes and places of
    all tensors) and 64 evenly spaced blocks of 64 KiB, the first and last bytes among them: a second instead of
    minutes for a text encoder of 9 GB. Training changes every tensor and is always seen; a few bytes changed by hand
    may not be.
    """
    digest = hashlib.sha256()
    small = [p for p in part.iterdir() if p.suffix in (".json", ".txt", ".model") and ".index." not in p.name]
    weights = weight_files(part)[1] if (part / "config.json").is_file() else []  # a tokenizer has none
    try:
        for path in sorted([*small, *weights]):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                if size <= _WHOLE or path not in weights:
                    digest.update(file.read())
                    continue
                header = int.from_bytes(file.read(8), "little")
                digest.update(file.read(min(header, 100 << 20)))  # the format's own limit
                for i in range(64):
                    file.seek((size - _BLOCK) * i // 63)
                    digest.update(file.read(_BLOCK))
    except OSError as error:
        raise RareflowError(f"{part}: not readable: {one_line(error)}; check the folder's permissions") from None
    return digest.hexdigest()


def text_identity(folder: Path) -> str:
    """SHA-256 over the identities of the text encoders and tokenizers of an SD3 folder, which are checked."""
    digest = hashlib.sha256()
    for part in text_parts(folder):
        digest.update(f"{part}\0{part_identity(folder / part)}\0".encode())
    return digest.hexdigest()


def text_parts(folder: Path) -> tuple[str, ...]:
    """The encoders and tokenizers that are there, in order, their configurations and weight headers checked.

    T5 (``text_encoder_3`` and ``tokenizer_3``) may be absent, but only where ``model_index.json`` says so with
    ``[null, null]`` or nothing: an encoder that was merely not copied must not go unnoticed.
    """
    index = read_json(folder / "model_index.json")
    listed = {part for part in (*_TEXT_ENCODERS, *_TOKENIZERS) if any(_listed(index, part))}
    if not {"text_encoder_3", "tokenizer_3"} <= listed:
        listed -= {"text_encoder_3", "tokenizer_3"}
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        if part not in listed:
            raise RareflowError(f"{folder}/model_index.json: found no {part}, expected SD3's two CLIP encoders")
    for part, kind in _TEXT_ENCODERS.items():
        if part in listed:
            config = read_json(folder / part / "config.json")
            found = config.get("architectures")
            if found not in ([kind], None):
                raise RareflowError(f"{folder / part}/config.json: found {str(found)[:60]}, expected a {kind}")
            weight_shapes(folder / part)
    for part in _TOKENIZERS:
        if part in listed and not (folder / part / "tokenizer_config.json").is_file():
            raise RareflowError(f"{folder}: found no {part}/tokenizer_config.json; get the folder whole")
    return tuple(part for part in (*_TEXT_ENCODERS, *_TOKENIZERS) if part in listed)


def weight_files(part: Path) -> tuple[str | None, list[Path]]:
    """The safetensors files of a part, and the variant they are (None, or ``fp16`` where only that is there)."""
    for stem in _STEMS:
        for variant in (None, "fp16"):
            dot = f".{variant}" if variant else ""
            single = part / f"{stem}{dot}.safetensors"
            if single.is_file():
                return variant, [single]
            for index in (part / f"{stem}.safetensors.index{dot}.json", part / f"{stem}{dot}.safetensors.index.json"):
                if index.is_file():
                    return variant, _shards(index)
    if any(p.suffix in _PICKLED for p in part.iterdir()):
        raise RareflowError(
            f"{part}: found pickled weights, expected safetensors (pickled files can run code and are never read); "
            "get the safetensors version"
        )
    raise RareflowError(f"{part}: found no weights, expected a .safetensors file; get the folder whole")


def weight_shapes(part: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a part, from the headers; RareflowError for a file that is cut short."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(part)[1]:
        try:
            with safe_open(path, "pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise RareflowError(f"{path}: truncated or damaged ({one_line(error)}); get the file again") from None
    return shapes


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; RareflowError where it is missing or holds something else."""
    if not path.is_file():
        raise RareflowError(f"{path}: found no such file, expected a whole diffusers SD3 folder; get it again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RareflowError(f"{path}: not readable as JSON ({one_line(error)}); get the file again") from None
    if not isinstance(value, dict):
        raise RareflowError(f"{path}: found JSON {type(value).__name__}, expected an object; get the file again")
    return value


def one_line(error: BaseException) -> str:
    """An exception's message in one line of at most 160 characters."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise RareflowError(f"{index}: found no weight_map, expected the files of all tensors; get the file again")
    files = sorted({str(name) for name in names.values()})
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise RareflowError(f"{index}: found the file {name[:60]!r}, expected .safetensors files beside it")
        if not (index.parent / name).is_file():
            raise RareflowError(f"{index.parent}: found no {name}, which {index.name} names; get the folder whole")
    return [index.parent / name for name in files]


def _locate(where: str | Path, what: str, expected: str, patterns: tuple[str, ...]) -> Path:
    """The local folder, or the folder of the hub's snapshot of the files of ``patterns``."""
    try:
        folder = Path(where).expanduser()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, RuntimeError):  # a name too long for the file system, or ~ of an unknown user
        is_folder = is_file = False
    if is_folder:
        return folder
    if is_file:
        raise RareflowError(f"{where}: found a file, expected {expected} or a hub id owner/name")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(where), re.ASCII):
        raise RareflowError(f"{what} {str(where)[:200]!r}: found no such folder, expected one or a hub id owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        ignored = ["*.fp16*", *(f"*{end}" for end in _PICKLED)]
        return Path(snapshot_download(str(where), allow_patterns=list(patterns), ignore_patterns=ignored))
    except GatedRepoError:
        cause = f"its licence must be accepted at huggingface.co/{where}, then run `hf auth login`"
    except RepositoryNotFoundError:
        cause = "the hub has none of that name that you may read; check the name, or run `hf auth login`"
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        cause = "the hub cannot be reached and its cache has no copy; fetch it with a network, or give a folder"
    except Exception as error:  # whatever the hub's client and the network below it may raise
        cause = f"fetching it failed ({one_line(error)}); try again, or give a folder"
    raise RareflowError(f"{what} '{where}': no such folder, and as a hub id: {cause}")


def _listed(index: dict[str, Any], part: str) -> list[Any]:
    """A part's [library, class] of model_index.json; empty where there is none."""
    value = index.get(part)
    return value if isinstance(value, list) else []


def _check_index(folder: Path) -> None:
    index = read_json(folder / "model_index.json")
    found = index.get("_class_name")
    if not (isinstance(found, str) and found.startswith("StableDiffusion3")):
        raise RareflowError(
            f"{folder}: found a pipeline of class {str(found)[:60]}, expected StableDiffusion3Pipeline; "
            "give the folder of an SD3 model"
        )


def _class(path: Path, config: dict[str, Any], expected: str) -> None:
    if config.get("_class_name") != expected:
        raise RareflowError(
            f"{path}: found the class {str(config.get('_class_name'))[:60]}, expected {expected}; "
            "give the folder of an SD3 model"
        )


def _transformer_config(part: Path, kind: str) -> dict[str, Any]:
    """The configuration of an SD3 transformer or ControlNet, its numbers checked."""
    path = part / "config.json"
    config = read_json(path)
    _class(path, config, kind)
    if config.get("joint_attention_dim") is None:
        raise RareflowError(f"{path}: found no joint_attention_dim, expected a network that reads text; give another")
    for name, most in _SIZES.items():
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise RareflowError(f"{path}: {name}: found {str(value)[:40]}, expected a whole number from 1 to {most}")
    width = config["num_attention_heads"] * config["attention_head_dim"]
    if config["caption_projection_dim"] != width:
        raise RareflowError(
            f"{path}: caption_projection_dim: found {config['caption_projection_dim']}, expected {width}, "
            "num_attention_heads x attention_head_dim"
        )
    if config.get("out_channels") not in (None, config["in_channels"]):
        raise RareflowError(
            f"{path}: out_channels: found {str(config['out_channels'])[:40]}, expected in_channels, "
            f"{config['in_channels']}"
        )
    return config


def _vae_config(part: Path, channels: int) -> dict[str, Any]:
    path = part / "config.json"
    config = read_json(path)
    _class(path, config, "AutoencoderKL")
    if config.get("latent_channels") != channels:
        raise RareflowError(
            f"{path}: found {str(config.get('latent_channels'))[:40]} latent channels, expected {channels}, the "
            "transformer's in_channels; give the VAE that belongs to it"
        )
    if config.get("in_channels", 3) != 3:
        raise RareflowError(f"{path}: in_channels: found {str(config['in_channels'])[:40]}, expected 3, as SD3 has")
    for name in ("scaling_factor", "shift_factor"):
        if not _number(config.get(name)) or (name == "scaling_factor" and config[name] <= 0):
            raise RareflowError(f"{path}: {name}: found {str(config.get(name))[:40]}, expected a number, as SD3 has")
    return config


def _shift(part: Path) -> float:
    path = part / "scheduler_config.json"
    config = read_json(path)
    _class(path, config, "FlowMatchEulerDiscreteScheduler")
    shift = config.get("shift", 1.0)
    if not _number(shift) or shift <= 0 or config.get("use_dynamic_shifting"):
        raise RareflowError(f"{path}: found a shift of {str(shift)[:40]} or a dynamic one, expected a number above 0")
    return float(shift)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_weights(part: Path, kind: Any, config: dict[str, Any]) -> None:
    """Hold the weight files' names and shapes against the configuration, without loading any weight."""
    found = weight_shapes(part)
    try:
        with torch.device("meta"):
            network: nn.Module = kind.from_config(config)
    except Exception as error:  # a hostile value may fail anywhere in the network's constructor
        raise RareflowError(f"{part}/config.json: builds no {kind.__name__} ({one_line(error)})") from None
    for name, value in network.state_dict().items():
        if name not in found:
            if ".attentions." in name:  # VAEs of old name these otherwise, and diffusers renames them in loading
                continue
            raise RareflowError(f"{part}: found no {name} in the weights, as config.json wants; get the folder whole")
        if found[name] != tuple(value.shape):
            raise RareflowError(
                f"{part}: found {name} of shape {found[name]}, expected {tuple(value.shape)} by config.json; "
                "get the folder whole"
            )


def _load(kind: Any, part: Path, dtype: torch.dtype) -> Any:
    """A diffusers model of a local folder, frozen."""
    try:
        model, info = kind.from_pretrained(
            part,
            torch_dtype=dtype,
            variant=weight_files(part)[0],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # diffusers, safetensors and torch each have errors of their own
        raise RareflowError(f"{part}: the weights do not load ({one_line(error)}); get the folder again") from None
    check_loaded(part, info)
    return model.eval().requires_grad_(False)


def check_loaded(part: Path, info: dict[str, Any]) -> None:
    """RareflowError where the library had to make up weights that the files lack."""
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise RareflowError(f"{part}: found no {names} in the weights; get the folder whole")
