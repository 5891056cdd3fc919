"""The published checkpoint under diffusers' names: the averaged UNet, the autoencoder and the summariser.

The file is the state of latent diffusion's training class. Beside what is used it holds the UNet before averaging, the
schedule and counters. The averaged UNet (``model_ema``) has the UNet's names without their dots, so its names are found
from ours and not read backwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch

from baselines.zoomldm.network import Size, cumulative_products
from bench.models import RfbenchError

PARTS = ("unet", "vae", "summariser")
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
# What the file may hold that is not used: the schedule's tables and the averaging's counters.
_TABLES = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "lvlb_weights", "logvar",
    "scale_factor", "model_ema.decay", "model_ema.num_updates",
)  # fmt: skip
_UNAVERAGED, _AVERAGED = "model.diffusion_model.", "model_ema.diffusion_model"
_VAE, _SUMMARISER = "first_stage_model.", "cond_stage_model."


def state(
    file: Mapping[str, torch.Tensor], names: Mapping[str, Mapping[str, torch.Size]], size: Size
) -> dict[str, torch.Tensor]:
    """The tensors that are used, by our names with the part in front (``unet.conv_in.weight``).

    Parameters
    ----------
    names : of each of ``PARTS``, the names and shapes that our network has.

    Raises
    ------
    RfbenchError
        If the file's schedule is another one. Tensors that are missing are left out, ones that nothing uses kept under
        their own name, so that a check against the networks finds both.
    """
    schedule = file.get("alphas_cumprod")
    if schedule is not None:
        expected = cumulative_products().float()
        same = schedule.shape == expected.shape  # and on the device meta nothing more is known
        if not same or not (schedule.is_meta or torch.allclose(schedule.float(), expected, atol=1e-5)):
            raise RfbenchError("found another noise schedule than 0.0015 to 0.0195 in 1000 steps; it is another model")
    used: set[str] = set()
    found = {}
    for part in PARTS:
        for name, shape in names[part].items():
            theirs = source(part, name, size)
            if theirs in file:
                used.add(theirs)
                tensor = file[theirs]
                # Attention of the autoencoder is a convolution of 1x1 px there and a linear layer here.
                pointwise = part == "vae" and tensor.ndim == 4 and len(shape) == 2 and tensor.shape[2:] == (1, 1)
                found[f"{part}.{name}"] = tensor[:, :, 0, 0] if pointwise else tensor
    spare = {n for n in file if n in _TABLES or n.startswith((_UNAVERAGED, "first_stage_model.loss."))}
    return found | {name: tensor for name, tensor in file.items() if name not in used | spare}


def source(part: str, name: str, size: Size) -> str:
    """The file's name of a tensor of ours."""
    if part == "unet":
        return _AVERAGED + unet_name(name, size).replace(".", "")
    if part == "vae":
        return _VAE + vae_name(name, size)
    return _SUMMARISER + name


def unet_name(name: str, size: Size) -> str:
    """Latent diffusion's name of a tensor of diffusers' UNet."""
    stem, _, kind = name.rpartition(".")
    per_stage, stages = size.layers + 1, len(size.channels)
    plain = {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "conv_norm_out": "out.0",
        "time_embedding.linear_2": "time_embed.2", "conv_out": "out.2",
    }  # fmt: skip
    if stem in plain:
        return f"{plain[stem]}.{kind}"
    middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name)
    if middle:
        at = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return f"middle_block.{at}.{_inner(middle[1], middle[3])}"
    block = re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    if not block:
        return name
    way, stage, what, index, rest = block[1], int(block[2]), block[3], int(block[4]), block[5]
    if what == "downsamplers":
        return f"input_blocks.{(stage + 1) * per_stage}.0.op.{kind}"
    if what == "upsamplers":  # behind the last block of its stage, which attends in all but the last stage
        return f"output_blocks.{stage * (per_stage) + size.layers}.{2 if stage < stages - 1 else 1}.conv.{kind}"
    at = 1 + stage * per_stage + index if way == "down" else stage * per_stage + index
    place = 1 if what == "attentions" else 0
    return f"{'input' if way == 'down' else 'output'}_blocks.{at}.{place}.{_inner(what, rest)}"


def vae_name(name: str, size: Size) -> str:
    """Latent diffusion's name of a tensor of diffusers' VQModel."""
    last = len(size.vae_channels) - 1
    name = name.replace("conv_norm_out.", "norm_out.")
    name = name.replace("mid_block.resnets.0.", "mid.block_1.").replace("mid_block.resnets.1.", "mid.block_2.")
    attention = re.fullmatch(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.*)\.(\w+)", name)
    if attention:
        return f"{attention[1]}.mid.attn_1.{_VAE_ATTENTION[attention[2]]}.{attention[3]}"
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)\.", r"down.\1.block.\2.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"up.{last - int(m[1])}.block.{m[2]}.", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{last - int(m[1])}.upsample.", name)
    return name.replace(".conv_shortcut.", ".nin_shortcut.")


def _inner(what: str, rest: str) -> str:
    if what == "attentions":
        return rest
    stem, _, kind = rest.rpartition(".")
    return f"{_RESNET[stem]}.{kind}"


def split(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The parts of ``state``, each by the names of its network."""
    for part in PARTS:
        yield part, {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
