"""OSEDiff's networks: Stable Diffusion 2.1's UNet and autoencoder with low-rank updates added in.

Wu et al., "One-Step Effective Diffusion Network for Real-World Image Super-Resolution", NeurIPS 2024 (arXiv
2406.08177): the UNet and the autoencoder's encoder are tuned by updates of rank 4. Upstream keeps updates beside the
weights and adds up two products; here each weight is W + 2 B A, which is the same sum. The 2 is peft's: its factor is
8 / rank unless told otherwise, and upstream does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from baselines.seesr.network import Size
from bench.models import RfbenchError

_ALPHA = 8  # peft's default; an update counts _ALPHA / rank times
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.[^.]+\.weight")
_BESIDE = ".base_layer."  # where the weights themselves are once there are updates beside them

Tensors = Mapping[str, torch.Tensor]


def build_unet(size: Size) -> UNet2DConditionModel:
    """Stable Diffusion 2.1's noise predictor."""
    ups = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    return UNet2DConditionModel(out_channels=4, up_block_types=ups, **size.shared())


def tuned_modules(net: nn.Module) -> list[str]:
    """Which modules of a network upstream tunes: every matrix and kernel, but of what the UNet is told of time, and of
    the autoencoder only those on the way into the latent."""
    is_unet = isinstance(net, UNet2DConditionModel)
    return [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and ("time_emb" not in name if is_unet else name.startswith(("encoder.", "quant_conv")))
    ]


def tuned(net: nn.Module, base: Tensors, updates: Tensors, what: str) -> dict[str, torch.Tensor]:
    """``base`` with the updates added in, in float32.

    Parameters
    ----------
    net : the network, which says what is tuned; it may lie on the meta device.
    base : its weights by name.
    updates : the two factors of each tuned module by peft's names, and weights of modules that were trained whole.
    what : the file of the updates, for messages.

    Raises
    ------
    RfbenchError
        If a module has no update or one of another shape, or an update belongs to nothing.
    """
    state = {**base, **{k.replace(_BESIDE, "."): v for k, v in updates.items() if _BESIDE in k}}
    factors = {(m[1], m[2]): v for k, v in updates.items() if (m := _FACTOR.fullmatch(k))}
    modules = tuned_modules(net)
    expected = {(name, factor) for name in modules for factor in "AB"}
    missing = sorted(name for name, _ in expected - factors.keys())
    extra = sorted(name for name, _ in factors.keys() - expected)
    extra += sorted(k for k in updates if _BESIDE not in k and not _FACTOR.fullmatch(k))
    if missing or extra:
        found = [f"{len(n)} {kind} ({n[0]}, ...)" for n, kind in ((missing, "missing"), (extra, "unexpected")) if n]
        raise RfbenchError(
            f"{what}: of {len(expected)} expected updates {', '.join(found)}; it is another model's file"
        )
    for name in modules:
        key = f"{name}.weight"
        if key not in state:
            continue  # the check against the network says so
        down, up = (factors[name, k].float() for k in "AB")
        if down.shape[1:] != state[key].shape[1:] or up.shape[:2] != (len(state[key]), len(down)):
            sizes = " and ".join("x".join(map(str, t.shape)) for t in (down, up))
            raise RfbenchError(
                f"{what}: found factors of {sizes} for {name}, whose weight is "
                f"{'x'.join(map(str, state[key].shape))}; it is another model's file"
            )
        update = (up.flatten(1) @ down.flatten(1)).reshape(state[key].shape)
        state[key] = state[key].float() + update * (_ALPHA / len(down))
    return state
