"""RareFlow at a size for tests: a configuration, models with random weights, chips made of noise, whole trainings."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn

from rareflow.base import controlnet_fresh
from rareflow.captions import TableCaptions
from rareflow.config import Config, load_config, with_changes
from rareflow.flow import Field
from rareflow.model import RareFlow
from rareflow.networks import Codec, Gates, Masks, name_dropout
from rareflow.text import WordTable
from rareflow.train.cache import Cache
from rareflow.train.chips import Chip, Data
from rareflow.train.run import train
from rareflow.uncertainty import Scale
from tests.conftest import write_rows

STAGES = ("vae", "prior", "control")
_STAGE = {"steps": 4, "batch": 2, "crop_px": 108, "warmup": 1, "lr": 1e-2}  # so high that few steps are seen
_SMALL: dict[str, Any] = {
    "name": "small",
    "vae": {"block_out_channels": [16], "latent_channels": 4, "norm_num_groups": 4},
    "transformer": {
        "sample_size": 48, "in_channels": 4, "out_channels": 4, "num_layers": 4, "attention_head_dim": 8,
        "num_attention_heads": 2, "joint_attention_dim": 16, "caption_projection_dim": 16,
        "pooled_projection_dim": 16, "pos_embed_max_size": 20,
    },
    "text": {"positions": 6, "buckets": 64},
    "control": {"layers": 2},
    "sampling": {"steps": 2},
    "uncertainty": {"passes": 3},
    "loss": {"lambda_lpips": 0.0},
    "train": {
        "bank_every": 2, "bank_size": 3, "validate_every": 1, "validate_images": 1, "save_every": 2,
        "vae": _STAGE | {"crop_px": 24}, "prior": _STAGE,
        "control": _STAGE | {"steps": 5},
        "store": "float32",
    },
}  # fmt: skip


def small_config(*changes: dict[str, Any]) -> Config:
    """``tiny`` with networks of a few thousand parameters: f 4, patch 3, 4 blocks, 2 of control, 20 positions a side.

    The numbers of blocks are such that the transformer reads every residual of the control.
    """
    config = with_changes(load_config("tiny"), _SMALL)
    for change in changes:
        config = with_changes(config, change)
    return config


ALL = small_config({"train": {"bank_size": 0}})  # a bank of all chips
ONE = {"train": {stage: {"steps": 1} for stage in STAGES}}
SIZES = ((105, 112), (105, 150), (131, 106))  # buckets 108x120, 108x156, 132x108


def squares(image: np.ndarray, b: int = 4) -> np.ndarray:
    """(C, H, W) as squares of b x b pixels stacked into channels, (C b b, H / b, W / b), in numpy."""
    c, h, w = image.shape
    return image.reshape(c, h // b, b, w // b, b).transpose(0, 2, 4, 1, 3).reshape(c * b * b, h // b, w // b)


def unsquared(stacked: np.ndarray, b: int = 4) -> np.ndarray:
    """What ``squares`` was given."""
    cbb, h, w = stacked.shape
    return stacked.reshape(cbb // b**2, b, b, h, w).transpose(0, 3, 1, 4, 2).reshape(-1, h * b, w * b)


def stir(module: nn.Module, seed: int, std: float = 0.2) -> None:
    """Give the parameters that start at zero (the ControlNet's ends, gates) random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            if not bool(p.any()):
                p.normal_(0, std, generator=generator)


def small_model(config: Config | None = None, seed: int = 0) -> RareFlow:
    """A model whose every part has random weights that matter: all residuals, gates and captions change the answer."""
    config = config or small_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(**config.vae)
        vae.register_to_config(shift_factor=0.05, scaling_factor=1.3)
        transformer = SD3Transformer2DModel(**config.transformer)
        table = WordTable(config.text.buckets, config.text.positions, int(config.transformer["joint_attention_dim"]))
    control = controlnet_fresh(transformer, config.control.layers, seed=seed)
    stir(control, seed)
    masks = Masks()
    name_dropout(control, masks, config.uncertainty.p_do)
    gates = None
    if config.control.gates:
        gates = Gates(config.control.layers, masks, config.uncertainty.p_do, pu_min=config.control.pu_min)
        stir(gates, seed, 2.0)
    for module in (vae, transformer, table, control, gates):
        if module is not None:
            module.eval().requires_grad_(False)
    field = Field(transformer, control, gates, config.control.s_ctrl)
    return RareFlow(config, field, Codec(vae), TableCaptions(table), masks, Scale(1.0, 1.0, config.uncertainty.form))


def pixels(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth noise, float32 (height, width, 3) in [0, 1], its values on the 8-bit grid as the training cache's are."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal((height, width, 3)), (2, 2, 0), mode="wrap")
    values = 0.5 + 0.15 * smooth / smooth.std()
    return (np.clip(values, 0, 1) * 255).round().astype(np.float32) / np.float32(255)


def chip(number: int, size: tuple[int, int] = (105, 112), group: str | None = None, factor: int = 5) -> Chip:
    """A chip whose LR is the HR's area mean."""

    def load() -> tuple[np.ndarray, np.ndarray]:
        hr = pixels(number, *size)
        h, w = size[0] // factor, size[1] // factor
        lr = hr[: h * factor, : w * factor].reshape(h, factor, w, factor, 3).mean(axis=(1, 3))
        return lr, hr

    return Chip(f"chip{number}", group or f"scene{number}", f"a picture of number{number}", load)


def with_pixels(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], number: int = 7) -> Chip:
    """A chip with its pixels changed."""
    good = chip(number)
    return dataclasses.replace(good, load=lambda: change(*(image.copy() for image in good.load())))


def spoil(value: float, side: int) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A change that puts ``value`` into a pixel of the LR (0) or the HR (1)."""

    def change(*images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images[side][3, 4, 1] = value
        return images[0], images[1]

    return change


def small_data(count: int = 4, sizes: tuple[tuple[int, int], ...] = ((105, 112),)) -> Data:
    """``count`` chips of the sizes in turn, and one to validate on."""
    chips = tuple(chip(i, sizes[i % len(sizes)]) for i in range(count))
    return Data("noise", f"{count} {sizes}", chips, (chip(99),), sides={"lr": {"unit": "display"}, "hr": {}})


def train_small(
    out: Path, config: Config | None = None, data: Data | None = None, report: Callable[..., None] | None = None,
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """``train`` on the processor with one thread, without the warnings that no test is about."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            given = {"report": report} if report else {}
            return train(config or small_config(), data or small_data(), out, device="cpu", **given, **options)
    finally:
        torch.set_num_threads(threads)


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of all safetensors files of a checkpoint, by name, of its prior too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


def make_cache(folder: Path, chips: tuple[Chip, ...], codec: Codec, key: str = "key", **options: Any) -> Cache:
    """Pixels and latents of chips for the patches of 3 cells that the small model has."""
    cache = Cache(folder, chips, codec.factor, 3, key, **options)
    cache.make_pixels(lambda: None)
    cache.make_latents(codec, "vae", torch.device("cpu"), lambda: None)
    return cache


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The message of an error, which must not have a second line."""
    text = str(error.value)
    assert "\n" not in text
    return text


def state_of(*modules: nn.Module | None) -> list[dict[str, Tensor]]:
    """Copies of the states of modules."""
    return [{k: v.clone() for k, v in m.state_dict().items()} for m in modules if m is not None]


def write_pairs(folder: Path, count: int) -> Path:
    """A dataset folder of display values with both splits."""
    rows = []
    for side in ("lr", "hr"):
        (folder / side).mkdir(parents=True)
    for i in range(count):
        split = "validation" if i == 0 else "train"
        for side, image in zip(("lr", "hr"), chip(i).load(), strict=True):
            np.save(folder / side / f"{i}.npy", (image * 255).round().astype(np.uint8))
        rows.append({"id": f"chip{i}", "scene_id": f"scene{i}", "split": split, "lr": f"lr/{i}.npy",
                     "hr": f"hr/{i}.npy", "caption": f"number{i}"})  # fmt: skip
    write_rows(folder, rows)
    side = {"unit": "display", "scale": 255, "bands": "R G B"}
    (folder / "dataset.json").write_text(
        json.dumps({"format": 1, "name": "noise", "licence": "CC0", "lr": side, "hr": side})
    )
    return folder


def write_config(path: Path, config: Config) -> Path:
    """A configuration as TOML, every field of it (JSON's values are TOML's here)."""

    def lines(values: dict[str, Any], prefix: str) -> list[str]:
        plain = [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None and not isinstance(v, dict)]
        tables = [line for k, v in values.items() if isinstance(v, dict) for line in lines(v, f"{prefix}{k}.")]
        return ([f"[{prefix[:-1]}]"] if prefix else []) + plain + tables

    path.write_text("\n".join(lines(config.to_dict(), "")) + "\n")
    assert load_config(str(path)) == config
    return path
