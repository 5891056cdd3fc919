"""One configuration type for every size of the method, read from TOML and kept in a checkpoint's card as JSON.

``tiny`` and ``sd3-medium`` are files in ``rareflow/configs``; a file of one's own names the one it starts from in
``extends`` and gives what differs.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rareflow.errors import RareflowError
from rareflow.losses import LossConfig

_MOST_BYTES, _MOST_PARTS, _MOST_BRACKETS = 2**16, 64, 512  # of a file that people write by hand
_PRESETS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class TextConfig:
    """Captions: read by the three encoders of the base; without one, by a learned word table.

    ``positions`` and ``buckets`` are the table's, ``max_t5_tokens`` the encoders'. ``captions`` off trains and samples
    with the empty caption only; ``dropout`` is the share of training samples that get it otherwise (needed for
    guidance).
    """

    captions: bool = True
    dropout: float = 0.1
    positions: int = 16
    buckets: int = 512
    max_t5_tokens: int = 256


@dataclass(frozen=True)
class ControlConfig:
    """The ControlNet g on the LR latent (eq. 2-3).

    ``init``: ``prior`` (the control that came with the prior, else the transformer's blocks), ``transformer`` (copies
    of the transformer's first blocks), ``scratch`` (random), or the folder or hub id of an SD3 ControlNet, whose own
    number of layers is then taken and ``layers`` not read.
    ``s_ctrl`` is eq. 3's scale; with the gates off, the residuals are scaled by ``s_ctrl`` / 2, as open gates at their
    start would.
    """

    layers: int = 3
    init: str = "prior"
    s_ctrl: float = 2.0
    gates: bool = True
    pu_min: float | None = None


@dataclass(frozen=True)
class UncertaintyConfig:
    """MC dropout (eq. 4-6). ``form``: see ``rareflow.uncertainty.Scale``. ``levels``: the noise levels that v is
    measured at, see ``measure_levels``. ``every`` 0 measures u once, before sampling; k > 0 again every k steps of it.
    """

    p_do: float = 0.1
    passes: int = 8
    form: Literal["clip", "clip_kappa", "ratio", "exp"] = "clip"
    levels: tuple[float, ...] = (1.0,)
    every: int = 0


@dataclass(frozen=True)
class SamplingConfig:
    """Euler steps from pure noise along the scheduler's sigmas; ``guidance`` 1 is off (classifier-free guidance).

    ``temperature`` multiplies the noise that sampling starts from: below 1, draws lie nearer to each other and to their
    mean, with less detail.
    ``moving_grid`` lays the transformer's patches elsewhere in every step (see ``flow.Grid``), against seams between
    the patches of a small model; it costs a row and a column of tokens.
    """

    steps: int = 20
    guidance: float = 1.0
    shift: float = 3.0
    moving_grid: bool = False
    temperature: float = 1.0


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: optimiser steps, samples a step, crop on the HR grid, learning rate."""

    steps: int = 0
    batch: int = 8
    crop_px: int = 200
    lr: float = 1e-3
    warmup: int = 100
    accumulate: int = 1


@dataclass(frozen=True)
class AugmentConfig:
    """Further copies of the training chips, made once when the cache is made, so that a step costs no more.

    A chip is kept ``copies`` times. ``turns``: each copy but the first is flipped and turned by quarters at random.
    ``degraded``: the share of copies whose LR is degraded as sensors do it (see ``rareflow.degrade``), while the HR is
    left; the prior is trained on the others only. What becomes of a copy follows from its name and the seed.
    """

    copies: int = 1
    turns: bool = False
    degraded: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """Training. ``vae`` and ``prior`` make the frozen parts of a model without a base; ``control`` is the
    paper's.

    ``mixed_precision`` is accelerate's; ``bank_every`` the optimiser steps between two measurements of the u of every
    training chip (0: u stays 0), ``random_u`` the share of samples with u drawn from [0, 1] instead; ``validate`` is
    the share of scenes held out where the data has no split of that name; ``keep`` says whether a stage ends with its
    last averaged weights, or with those that were best in validation (the least velocity loss on held-out scenes);
    ``store`` is the precision of the saved weights.

    Against a full GPU memory: ``optimiser`` ``adamw_8bit`` keeps Adam's two moments in a byte each (bitsandbytes),
    ``ema_on`` ``host`` keeps the averaged weights in the machine's memory, at the price of copying the trained ones
    there in every step. A batch that does not fit is halved, and halved again, by itself; its gradient stays that of
    the whole.
    """

    vae: StageConfig = field(default_factory=StageConfig)
    prior: StageConfig = field(default_factory=StageConfig)
    control: StageConfig = field(default_factory=StageConfig)
    gate_lr: float = 1e-2
    optimiser: Literal["adamw", "adamw_8bit"] = "adamw"
    ema: float = 0.998
    ema_on: Literal["device", "host"] = "device"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    control_dropout: float = 0.1
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    bank_every: int = 0
    bank_size: int = 0
    random_u: float = 0.1
    seed: int = 0
    validate: float = 0.02
    validate_every: int = 500
    validate_images: int = 16
    save_every: int = 200
    keep: Literal["last", "best"] = "last"
    store: Literal["float16", "float32"] = "float16"


@dataclass(frozen=True)
class Config:
    """Everything that makes a model, beside weights and data.

    ``base`` is a diffusers SD3 folder or hub id with the frozen VAE, transformer and text encoders; where it is empty,
    ``vae`` and ``transformer`` hold the arguments of diffusers' AutoencoderKL and SD3Transformer2DModel and the parts
    are trained here and stored with the checkpoint. A VAE of 3 b^2 channels reads squares of b x b pixels.
    ``work_scale``: whole-number enlargement of the HR grid inside the model (SD3 knows textures at 512 px better than
    at 256).
    """

    name: str = "tiny"
    base: str = ""
    work_scale: int = 1
    vae: dict[str, Any] = field(default_factory=dict)
    transformer: dict[str, Any] = field(default_factory=dict)
    text: TextConfig = field(default_factory=TextConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    uncertainty: UncertaintyConfig = field(default_factory=UncertaintyConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``from_dict`` reads them back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Any, where: str = "config") -> Config:
        """The configuration of plain values; RareflowError naming the field for anything unknown or of another type."""
        config = _build(Config, values, where)
        _check(config, where)
        return config


def load_config(text: str) -> Config:
    """``tiny``, ``sd3-medium`` or the path of a TOML file, which may begin with ``extends = "tiny"``."""
    return Config.from_dict(_read(text, depth=0), f"config {text}")


def with_changes(config: Config, changes: dict[str, Any]) -> Config:
    """A configuration with some fields changed: ``{"control": {"gates": False}}``."""
    return Config.from_dict(_merge(config.to_dict(), changes), f"config {config.name}")


def _read(text: str, depth: int) -> dict[str, Any]:
    presets = sorted(p.stem for p in _PRESETS.glob("*.toml"))
    path = _PRESETS / f"{text}.toml" if text in presets else Path(text)
    if not path.is_file():
        raise RareflowError(f"config '{text[:80]}': found no such file, expected {', '.join(presets)} or a TOML file")
    try:
        values = tomllib.loads(_plain_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise RareflowError(f"config {path}: not readable as TOML: {' '.join(str(error).split())[:120]}") from None
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if depth > 4 or not isinstance(parent, str):
        raise RareflowError(f"config {path}: extends must name a configuration, and not itself")
    return _merge(_read(parent, depth + 1), values)


def _plain_text(path: Path) -> str:
    """The text of a configuration; ValueError for one that would keep the parser busy for minutes."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"found {path.stat().st_size} bytes, expected at most {_MOST_BYTES}")
    text = path.read_text(encoding="utf-8")
    if any(
        line.count(".") > _MOST_PARTS or line.count("[") + line.count("{") > _MOST_PARTS for line in text.splitlines()
    ):
        raise ValueError(f"found a line of more than {_MOST_PARTS} dots or brackets")
    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        raise ValueError(f"found more than {_MOST_BRACKETS} brackets")
    return text


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merge(old[k], v) for k, v in new.items() if isinstance(v, dict) and isinstance(old.get(k), dict)}
    return old | new | both


def _build(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise RareflowError(f"{where}: found {str(values)[:40]!r}, expected a table of fields")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            known = f"did you mean {near[0]}?" if near else f"known: {', '.join(hints)}"
            raise RareflowError(f"{where}: unknown field {str(key)[:40]!r}; {known}")
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if typing.get_origin(hint) is Literal:
        fits, expected = value in typing.get_args(hint), " or ".join(map(str, typing.get_args(hint)))
    elif typing.get_origin(hint) in (types.UnionType, typing.Union):
        fits = value is None or _is_number(value)
        expected = "a number"
    elif typing.get_origin(hint) is tuple:  # of numbers; JSON and TOML have lists
        fits = isinstance(value, list | tuple) and all(_is_number(v) for v in value)
        value = tuple(map(float, value)) if fits else value
        expected = "a list of numbers"
    elif typing.get_origin(hint) is dict:
        fits, expected = isinstance(value, dict), "a table"
    elif hint is float:
        fits = _is_number(value)
        value = float(value) if fits else value
        expected = "a number"
    else:
        fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
        expected = {int: "a whole number", bool: "true or false", str: "text"}.get(hint, str(hint))
    if not fits:
        raise RareflowError(f"{where}: found {json.dumps(value, default=str)[:60]}, expected {expected}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(config: Config, where: str) -> None:
    """Ranges that would otherwise fail far from their cause."""
    u, t = config.uncertainty, config.train
    channels = [config.vae.get(side, 3) for side in ("in_channels", "out_channels")]
    stages = (t.vae, t.prior, t.control)
    rules = {
        "uncertainty.p_do in (0, 1)": 0 < u.p_do < 1,
        "uncertainty.passes of 2 or more": u.passes >= 2,
        "uncertainty.levels in (0, 1], one or more": bool(u.levels) and all(0 < level <= 1 for level in u.levels),
        "uncertainty.every of 0 or more": u.every >= 0,
        "sampling.steps of 1 or more": config.sampling.steps >= 1,
        "sampling.guidance of 0 or more": config.sampling.guidance >= 0,
        "sampling.shift above 0": config.sampling.shift > 0,
        "sampling.temperature in [0, 10]": 0 <= config.sampling.temperature <= 10,
        "control.layers of 1 or more": config.control.layers >= 1,
        "control.s_ctrl of 0 or more": config.control.s_ctrl >= 0,
        "work_scale of 1 or more": config.work_scale >= 1,
        "text.dropout in [0, 1]": 0 <= config.text.dropout <= 1,
        "a base, or the tables vae and transformer": bool(config.base) or bool(config.vae and config.transformer),
        "vae.in_channels and out_channels alike, 3 b^2 (3, 12, 27, 48, ...)": channels[0] == channels[1]
        and isinstance(channels[0], int)
        and channels[0] == 3 * math.isqrt(max(channels[0], 0) // 3) ** 2 > 0,
        "train.ema in [0, 1)": 0 <= t.ema < 1,
        "train.validate in (0, 0.5]": 0 < t.validate <= 0.5,
        "train steps of 0 or more": all(s.steps >= 0 for s in stages),
        "train batch and accumulate of 1 or more": all(s.batch >= 1 and s.accumulate >= 1 for s in stages),
        "train crop_px of 1 or more": all(s.crop_px >= 1 for s in stages),
        "train lr and gate_lr above 0": all(s.lr > 0 for s in stages) and t.gate_lr > 0,
        "train warmup of 0 or more": all(s.warmup >= 0 for s in stages),
        "train.clip_norm above 0": t.clip_norm > 0,
        "train.bank_every and bank_size of 0 or more": min(t.bank_every, t.bank_size) >= 0,
        "train.save_every and validate_every of 1 or more": min(t.save_every, t.validate_every) >= 1,
        "train.validate_images of 1 or more": t.validate_images >= 1,
        "train.augment.copies of 1 or more": t.augment.copies >= 1,
        "train.augment.degraded in [0, 1]": 0 <= t.augment.degraded <= 1,
        "train.augment.degraded below 1 where a prior is trained": bool(config.base) or t.augment.degraded < 1,
        "train.random_u and control_dropout in [0, 1]": 0 <= t.random_u <= 1 and 0 <= t.control_dropout <= 1,
    }
    for rule, holds in rules.items():
        if not holds:
            raise RareflowError(f"{where}: expected {rule}; correct the configuration")
