"""``train``: everything from chips to a checkpoint, in a folder that the same call goes on in after a stop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, SD3ControlNetModel, SD3Transformer2DModel
from torch import Tensor

from rareflow.base import (
    Base,
    check_base,
    controlnet_fresh,
    controlnet_from_transformer,
    load_controlnet,
    locate_controlnet,
    part_identity,
)
from rareflow.captions import Captions, StoredCaptions, TableCaptions
from rareflow.card import Card, InitialControl, Origin, Stage, TrainingData, read_card, training_ids, write_card
from rareflow.checkpoint import load, save
from rareflow.config import Config, with_changes
from rareflow.errors import RareflowError
from rareflow.flow import Field
from rareflow.losses import Lpips
from rareflow.model import RareFlow
from rareflow.networks import Codec, Gates, Masks, name_dropout, new_transformer, start_jointly, start_linear
from rareflow.text import WordTable
from rareflow.train.cache import Cache
from rareflow.train.chips import Data
from rareflow.train.loop import Report, read_log, run_stage
from rareflow.train.stages import ControlStage, PriorStage, VaeStage, fit_latents
from rareflow.train.validate import validate
from rareflow.uncertainty import Scale

Tick = Callable[[str, int], None]
_CLAIM = ".training.json.tmp"
_PRECISION = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Parts:
    """What is trained or frozen in a run; ``control`` and ``gates`` where a prior or a start brings them along."""

    vae: AutoencoderKL
    transformer: SD3Transformer2DModel
    captions: Captions
    masks: Masks
    shift: float
    identity: dict[str, str]
    control: SD3ControlNetModel | None = None
    gates: Gates | None = None


def train(
    config: Config, data: Data, out: Path, *, prior: Path | None = None, start: Path | None = None,
    weights: Path | None = None, cache: Path | None = None, provenance: Mapping[str, Any] | None = None,
    report: Report = lambda *_: None, tick: Tick = lambda *_: None, device: str | None = None,
) -> Card:  # fmt: skip
    """Train a model, or go on where the same call was stopped, and write its checkpoint into ``out``.

    Parameters
    ----------
    prior : a checkpoint whose VAE, transformer and word table are taken as they are; only ``control`` is trained.
    start : a checkpoint whose weights every stage goes on from; one of no steps leaves its part as it is.
    weights : a folder with AlexNet's file, for LPIPS; without it LPIPS is left out by name, with a warning.
    cache : where pixels and latents are kept, for trainings that share them; ``out/training/cache`` unless given.
    provenance : what the card shall say beside (command, commit, versions).
    report : called with (stage, step, steps, numbers); ``tick`` with (what, total) for each chip that is prepared.

    Returns the card. Raises RareflowError for data or weights that do not fit, for a loss that is not finite, and for
    a folder that holds another training.
    """
    from_ = start or prior
    digest = _digest(config, data, prior, start)
    if _is_done(out, digest):
        _forget_states(out / "training")
        return read_card(out)
    work, kept = out / "training", cache or out / "training" / "cache"
    on_cpu = device == "cpu" or not torch.cuda.is_available()  # accelerate would take other devices too
    accelerator = Accelerator(mixed_precision=config.train.mixed_precision, cpu=on_cpu)
    if config.train.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise RareflowError("train.mixed_precision: found fp16, which needs a GPU, expected bf16 or no on a processor")
    lpips = _lpips(config, weights, accelerator.device)
    left_out = ["lpips"] if config.loss.lambda_lpips and lpips is None else []
    torch.manual_seed(config.train.seed)
    texts = {c.caption for c in (*data.train, *data.validation)} if config.text.captions else set()
    base, stored = None, None
    if config.base:
        _alone(config, prior, start)
        checked = check_base(config.base)
        stored = StoredCaptions.of(checked, config.text.max_t5_tokens, accelerator.device)
        stored.prepare(sorted({"", *texts}))  # the text encoders are freed before the base is loaded
        base = checked.load(accelerator.device, _PRECISION[config.train.mixed_precision])
    parts = _parts(config, base, stored, prior, start, accelerator.device)
    given = _given_control(config, parts.transformer, parts.control)
    if given is not None:
        config = with_changes(config, {"control": {"layers": int(given.config.num_layers)}})
    if accelerator.num_processes > 1:
        raise RareflowError(f"found {accelerator.num_processes} processes, expected one; start the command by itself")
    control_from = _control_identity(config)
    found = {"left_out": left_out, "base": base.identity if base else {}, "control": control_from}
    _claim(out, digest, config, found)
    board = _tensorboard(work)
    codec = Codec(parts.vae)
    config = with_changes(config, {"sampling": {"shift": parts.shift}})
    patch = int(parts.transformer.config.patch_size)
    caches = []
    for name, chips in (("train", data.train), ("validation", data.validation)):
        key = hashlib.sha256(f"{data.fingerprint} {[c.id for c in chips]}".encode()).hexdigest()
        augment = config.train.augment if name == "train" else None
        caches.append(
            Cache(kept / name, chips, codec.factor, patch, key, config.work_scale, augment, config.train.seed)
        )
        caches[-1].make_pixels(functools.partial(tick, "reading chips", len(chips)))
        positions = int(parts.transformer.config.pos_embed_max_size) - config.sampling.moving_grid
        largest = positions * caches[-1].multiple
        for item in caches[-1].items:
            if max(item.bucket) > largest:
                raise RareflowError(
                    f"{item.chip.id}: the HR has {'x'.join(str(n // config.work_scale) for n in item.valid)} px, "
                    f"expected {largest // config.work_scale} px a side or less, for which the transformer has "
                    "positions; cut it up"
                )
    numbers: dict[str, dict[str, float]] = {}
    own = not config.base and prior is None
    if own:
        if start is None:
            start_linear(parts.vae, caches[0].sample("hr", 200))
        if start is None or config.train.vae.steps:  # else its latents are what the other parts were trained on
            parts.vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
            stage = VaeStage(parts.vae, config, *caches)
            numbers["vae"] = run_stage(stage, config.train, work, accelerator, report, board)
            fit_latents(parts.vae, caches[0], 200)
    codec = Codec(parts.vae)
    identity = _identity(parts.vae)
    for made in caches:
        made.make_latents(codec, identity, accelerator.device, functools.partial(tick, "latents", 2 * len(made.items)))
    model = RareFlow(
        config, Field(parts.transformer, None, None, config.control.s_ctrl, codec.zero), codec, parts.captions,
        parts.masks,
        Scale(1.0, 1.0, config.uncertainty.form), device=accelerator.device,
        dtype=next(parts.transformer.parameters()).dtype,
    )  # fmt: skip

    def check(stage: str, u: float | None) -> Callable[[int], dict[str, float]]:
        def run(step: int) -> dict[str, float]:
            sheet = work / "pictures" / f"{stage}-{step:06d}.png"
            # the cached images are enlarged already
            on_grid = dataclasses.replace(model, config=with_changes(config, {"work_scale": 1}))
            with accelerator.autocast():
                return validate(on_grid, caches[1], config.train.validate_images, config.train.seed, u, sheet)

        return run

    seen = [c.id for c in data.train], frozenset() if from_ is None else training_ids(from_)
    joint = None
    if own:
        assert isinstance(parts.captions, TableCaptions)
        joint = parts.control
        if joint is None:
            torch.manual_seed(config.train.seed + 1)
            joint = controlnet_from_transformer(parts.transformer, config.control.layers)
            start_jointly(joint)
        model.field = Field(parts.transformer, joint, None, config.control.s_ctrl, codec.zero)
        jointly = PriorStage(model.field, parts.captions.table, config, codec, caches[0], check("prior", 0.0))
        numbers["prior"] = run_stage(jointly, config.train, work, accelerator, report, board)
        without = with_changes(config, {"name": f"{config.name}-prior", "control": {"gates": False}})
        copy = dataclasses.replace(model, config=without)
        save(out / "prior", copy, Card(data=TrainingData(fingerprint=data.fingerprint)), *seen)
    control = given or joint
    if config.control.init == "scratch":
        control = controlnet_fresh(parts.transformer, config.control.layers, seed=config.train.seed)
    elif control is None or config.control.init == "transformer":
        control = controlnet_from_transformer(parts.transformer, config.control.layers)
    name_dropout(control, parts.masks, config.uncertainty.p_do)
    if config.train.gradient_checkpointing:
        control.enable_gradient_checkpointing()
        parts.transformer.enable_gradient_checkpointing()
        parts.vae.enable_gradient_checkpointing()
    torch.nn.Module.to(control, accelerator.device)
    gates = None
    if config.control.gates:
        layers = config.control.layers
        gates = Gates(layers, parts.masks, config.uncertainty.p_do, pu_min=config.control.pu_min).to(accelerator.device)
        if start is not None and parts.gates is not None and parts.gates.pu_min == gates.pu_min:
            gates.load_state_dict(parts.gates.state_dict())
    model.field = Field(parts.transformer, control, gates, config.control.s_ctrl, codec.zero)

    def inputs(captions: list[str]) -> dict[str, Tensor]:
        tokens, pooled = parts.captions.get(captions)
        return {"tokens": tokens.float(), "pooled": pooled.float()}

    if lpips is None and config.loss.lambda_lpips:  # said above, and in the card
        config = with_changes(config, {"loss": {"lambda_lpips": 0.0}})
    last = ControlStage(
        model.field, parts.masks, config, codec, caches[0], inputs, check("control", 0.0), lpips
    )  # fmt: skip
    numbers["control"] = run_stage(last, config.train, work, accelerator, report, board)
    with accelerator.autocast():
        model.scale = last.fill_bank()
    card = Card(
        **(provenance or {}),
        data=TrainingData(
            name=data.name, description=data.description, fingerprint=data.fingerprint, train=len(data.train),
            validation=len(data.validation), scenes=len({c.group for c in data.train}),
            sides={k: dict(v) for k, v in data.sides.items()},
        ),
        base=parts.identity if config.base else {},
        control=InitialControl(config.control.init, control_from) if control_from else InitialControl(),
        prior=_origin(prior),
        start=_origin(start),
        left_out=left_out,
        parameters=_counts(model),
        gates=gates.corners() if gates is not None else {},
        bank={"chips": len(last.bank), **_quantiles(last.mean_v)},
        stages={name: _summary(work / f"{name}.jsonl", n) for name, n in numbers.items()},
        versions={"torch": str(torch.__version__), "diffusers": diffusers.__version__},
        device=accelerator.device.type,
    )  # fmt: skip
    save(out, model, card, *seen)
    if board:
        board.close()
    accelerator.free_memory()  # the optimiser's, which is more than the model's
    card = _with_validation(out, config, caches[1], accelerator.device.type)
    _forget_states(work)
    if cache is None:
        shutil.rmtree(kept, ignore_errors=True)
    return card


def _parts(
    config: Config, base: Base | None, stored: StoredCaptions | None, prior: Path | None, start: Path | None,
    device: torch.device,
) -> Parts:  # fmt: skip
    """What the configuration starts from."""
    masks = Masks()
    if base is not None:
        assert stored is not None
        return Parts(base.vae, base.transformer, stored, masks, base.shift, base.identity)
    if prior is not None and start is not None:
        raise RareflowError(f"found a prior {prior} beside a start {start}; give one of them")
    if prior is not None or start is not None:
        what, folder = ("prior", prior) if prior is not None else ("start", start)
        assert folder is not None
        known = load(folder, device=device.type)
        mine, its = config, known.config
        for name, same in (
            ("vae", its.vae == mine.vae),
            ("transformer", its.transformer == mine.transformer),
            ("text table", (its.text.positions, its.text.buckets) == (mine.text.positions, mine.text.buckets)),
        ):
            if not same:
                raise RareflowError(
                    f"{what} {folder}: its {name} is not that of the config {config.name}; take its config"
                )
        return Parts(
            known.codec.vae, known.field.transformer, known.captions, masks, config.sampling.shift, {},
            known.field.control, known.field.gates,
        )  # fmt: skip
    try:
        vae = AutoencoderKL(**config.vae | {"scaling_factor": 1.0, "shift_factor": 0.0}).to(device)
        transformer = new_transformer(config.transformer).to(device)
        width = int(config.transformer["joint_attention_dim"])
        table = WordTable(config.text.buckets, config.text.positions, width).to(device)
    except Exception as error:  # diffusers checks its arguments here and there, and torch the rest
        reason = " ".join(f"{type(error).__name__} {error}".split())[:160]
        raise RareflowError(
            f"config {config.name}: its vae, transformer and text make no model ({reason}); correct the configuration"
        ) from None
    latents = (vae.config.latent_channels, transformer.config.in_channels, transformer.config.out_channels)
    if len(set(latents)) > 1 or transformer.config.pooled_projection_dim != width:
        raise RareflowError(
            f"config {config.name}: found vae.latent_channels, transformer.in_channels and out_channels {latents}, "
            f"joint_attention_dim {width} and pooled_projection_dim {transformer.config.pooled_projection_dim}; "
            "expected the first three alike, and the last two"
        )
    return Parts(vae, transformer, TableCaptions(table), masks, config.sampling.shift, {})


def _alone(config: Config, prior: Path | None, start: Path | None) -> None:
    """RareflowError for a prior or a start beside a base."""
    for name, where in (("prior", prior), ("start", start)):
        if where is not None:
            raise RareflowError(f"found a {name} beside the base {config.base}; give one of them")


def _control_identity(config: Config) -> str:
    """The hash of the ControlNet that ``control.init`` names; empty where it names none."""
    if config.control.init in ("prior", "transformer", "scratch"):
        return ""
    return part_identity(locate_controlnet(config.control.init))


def _forget_states(work: Path) -> None:
    """The optimiser's states of a finished training: 17 GB at SD3's size, and nothing that would read them again."""
    for path in work.glob("*.pt"):
        path.unlink(missing_ok=True)


def _given_control(
    config: Config, transformer: SD3Transformer2DModel, inherited: SD3ControlNetModel | None
) -> SD3ControlNetModel | None:
    """The control that the last stage starts from, where there is one already: the folder ``control.init``, or the
    prior's. RareflowError for one that does not fit, and for more layers than the transformer has."""
    init, layers, depth = config.control.init, config.control.layers, int(transformer.config.num_layers)
    if init not in ("prior", "scratch", "transformer"):
        return load_controlnet(init, transformer)
    if layers > depth:
        raise RareflowError(f"control.layers: found {layers}, expected 1 to {depth}, the transformer's depth")
    control = inherited if init == "prior" else None
    if control is not None and control.config.num_layers != layers:
        raise RareflowError(f"control.layers: found {layers}, expected {control.config.num_layers}, as {init} has")
    return control


def _digest(config: Config, data: Data, prior: Path | None, start: Path | None) -> str:
    """What makes a training this one and no other. RareflowError for data that cannot be trained on."""
    if not data.train or not data.validation:
        raise RareflowError(
            f"{data.name}: found {len(data.train)} chips to train on and {len(data.validation)} to validate on, "
            "expected some of both"
        )
    both = {c.group for c in data.train} & {c.group for c in data.validation}
    if both:
        raise RareflowError(f"the scene {min(both)[:80]} is in the training and the validation split; move its chips")
    mine = {
        # a base is known by its content (see _claim), not by how its path was typed
        "config": config.to_dict() | {"base": bool(config.base)}, "data": data.fingerprint,
        "ids": [c.id for c in data.train],
        **{k: msgspec.to_builtins(_origin(v)) for k, v in {"prior": prior, "start": start}.items()},
    }  # fmt: skip
    return hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()


def _is_done(out: Path, digest: str) -> bool:
    """Whether a folder holds this training, and its end; RareflowError if it holds something else."""
    path = out / "training" / "training.json"
    if path.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(path.read_text(encoding="utf-8"))["sha256"] == digest:
                # the card gets its validation last
                return (out / "card.json").is_file() and bool(read_card(out).validation)
            if not any(path.parent.glob("*.pt")) and not any(out.rglob("card.json")):
                return False  # stopped before a first state, perhaps over what was since corrected
        raise RareflowError(f"{out} holds another training (other data, configuration or prior); give another --out")
    unclaimed = {path.parent, path.with_name(_CLAIM)}  # what a stop in the middle of claiming leaves
    if out.exists() and any(p not in unclaimed for p in out.rglob("*")):
        raise RareflowError(f"{out} is not empty and holds no training; give another --out")
    return False


def _claim(out: Path, digest: str, config: Config, found: Mapping[str, Any]) -> None:
    """Take a folder for this training; not before all it starts from is found, so that a wrong path can be mended.

    ``found`` is what the machine had of what the configuration names (the base's content, which losses were left out
    for want of weights); RareflowError where a training goes on with something else.
    """
    path = out / "training" / "training.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["sha256"] == digest and before.get("found") != found:
            what = next(k for k in found if before.get("found", {}).get(k) != found[k])
            said = {
                "left_out": f"the losses left out for want of weights are now {list(found['left_out'])}; give the same "
                "--weights-dir",
                "base": "the files of the base are others now; give the same --base",
                "control": "the files of the initial control are others now; give the same control.init",
            }[what]
            raise RareflowError(f"{out}: since this training began, {said}, or another --out")
    temporary = path.with_name(_CLAIM)
    text = json.dumps({"sha256": digest, "found": found, "config": config.to_dict()}, indent=1)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _with_validation(out: Path, config: Config, cache: Cache, device: str) -> Card:
    """Read the checkpoint back, rounded as it is stored, and add to its card how that one does."""
    precision = str(_PRECISION[config.train.mixed_precision]).removeprefix("torch.")
    model = load(out, device=device, base=config.base or None, dtype=precision)
    model.config = with_changes(model.config, {"work_scale": 1})  # the cache is enlarged already
    sheet = out / "training" / "pictures" / "final.png"
    numbers = validate(model, cache, config.train.validate_images, config.train.seed, None, sheet)
    card = msgspec.structs.replace(read_card(out), validation={k: round(v, 4) for k, v in numbers.items()})
    write_card(out, card)
    return card


def _origin(checkpoint: Path | None) -> Origin:
    return Origin() if checkpoint is None else read_card(checkpoint).origin


def _lpips(config: Config, weights: Path | None, device: torch.device) -> Lpips | None:
    """The LPIPS term, or None with a warning that says what is missing."""
    if not config.loss.lambda_lpips:
        return None
    missing = Lpips.missing(weights)
    if missing:
        warnings.warn(f"LPIPS is left out of the objective: {missing}", RuntimeWarning, stacklevel=2)
        return None
    return Lpips(weights).to(device)


def _tensorboard(work: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(work / "tensorboard"))


def _identity(vae: AutoencoderKL) -> str:
    """A hash of the VAE's weights and latent convention: latents in a cache belong to it."""
    found = hashlib.sha256(f"{vae.config.shift_factor} {vae.config.scaling_factor}".encode())
    for name, value in sorted(vae.state_dict().items()):
        found.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


def _counts(model: RareFlow) -> dict[str, int]:
    parts = {"vae": model.codec.vae, "transformer": model.field.transformer, "control": model.field.control,
             "gates": model.field.gates}  # fmt: skip
    return {k: sum(p.numel() for p in m.parameters()) for k, m in parts.items() if m is not None}


def _quantiles(values: Tensor) -> dict[str, float]:
    points = values.double().quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    return dict(zip(("p5", "p50", "p95"), points.tolist(), strict=True))


def _summary(log: Path, validation: dict[str, float]) -> Stage:
    """Steps, and the terms of the loss at both ends of a stage: means over its first and last lines."""
    lines = [line for line in read_log(log) if "validation" not in line]
    if not lines:
        return Stage(0, validation=validation)
    terms = [k for k in lines[0] if k not in ("step", "seconds", "lr", "grad_norm")]

    def mean(part: list[dict[str, Any]]) -> dict[str, float]:
        return {k: round(sum(p.get(k, 0.0) for p in part) / len(part), 5) for k in terms}

    return Stage(lines[-1]["step"], mean(lines[:10]), mean(lines[-10:]), validation)
