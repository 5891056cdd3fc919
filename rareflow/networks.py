"""The networks: diffusers' SD3 classes, the gates on the control's residuals, and dropout whose masks have names.

No class of diffusers is forked or subclassed. The gates (eq. 2-3) act between the ControlNet's list of residuals and
the transformer that consumes it; dropout (eq. 4) takes the place of the modules that SD3's blocks have for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, SupportsFloat

import torch
from diffusers import AutoencoderKL, SD3ControlNetModel, SD3Transformer2DModel
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from rareflow.errors import RareflowError
from rareflow.noise import stream


@dataclass
class Masks:
    """What the dropout modules of one model share: None (no dropout), or a seed for every sample of the batch.

    ``pass_`` numbers the T passes, so that every pass has masks of its own; ``training`` draws from torch's global
    generator instead, whose state a training run keeps. Masks are drawn where the activations lie: at SD3's size T = 8
    passes take 10^9 numbers, seconds on a processor.
    """

    seeds: tuple[tuple[int, int], ...] | None = None
    training: bool = False

    @contextmanager
    def use(self, seeds: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Dropout with one (seed, pass) a sample, for the forward pass inside."""
        self.seeds = tuple(seeds)
        try:
            yield
        finally:
            self.seeds = None

    def keep(self, x: Tensor, p: float, layer: str) -> Tensor | None:
        """What a layer's activations (B, ...) are multiplied by: 0 or 1/(1-p); None where dropout is off."""
        if self.seeds is not None:
            if len(self.seeds) != x.shape[0]:
                raise ValueError(f"{len(self.seeds)} dropout seeds for a batch of {x.shape[0]}")
            rows = []
            for key in self.seeds:
                generator = stream(key[0], "dropout", key[1], layer, device=x.device)
                rows.append(torch.rand(x.shape[1:], generator=generator, device=x.device) >= p)
            return (torch.stack(rows) / (1 - p)).to(x.dtype)
        if self.training:
            return (torch.rand(x.shape, device=x.device) >= p).to(x.dtype) / (1 - p)
        return None


class NamedDropout(nn.Module):
    """Dropout whose mask depends on (seed, pass, layer) and on no other sample of the batch."""

    def __init__(self, masks: Masks, p: float, layer: str) -> None:
        super().__init__()
        self.masks, self.p, self.layer = masks, p, layer

    def forward(self, x: Tensor) -> Tensor:
        keep = self.masks.keep(x, self.p, self.layer)
        return x if keep is None else x * keep

    def extra_repr(self) -> str:
        return f"p={self.p}, layer={self.layer}"


def name_dropout(module: nn.Module, masks: Masks, p: float) -> list[str]:
    """Put a NamedDropout in place of every nn.Dropout of ``module``; the names of those layers.

    A NamedDropout is replaced too: a control that comes with a prior was named for the masks of another model.
    """
    found = [name for name, child in module.named_modules() if isinstance(child, nn.Dropout | NamedDropout)]
    for name in found:
        parent, _, last = name.rpartition(".")
        owner = module.get_submodule(parent)
        replacement = NamedDropout(masks, p, name)
        if last.isdigit() and isinstance(owner, nn.ModuleList | nn.Sequential):
            owner[int(last)] = replacement
        else:
            setattr(owner, last, replacement)
    return found


class Gates(nn.Module):
    """alpha^l(t, u) = sigmoid(p0 + pt * norm(t) + pu * u), one gate for each control layer (eq. 2-3).

    norm(t) is the noise level sigma in [0, 1], in training and in sampling alike. p0 = pt = pu = 0 opens every gate
    half; with s_ctrl = 2 a pretrained control starts unchanged, on the logistic's steepest part. Dropout acts on the
    two modulating terms and not on p0, so that alpha keeps its range and its base value. ``pu_min`` bounds pu from
    below (0: more uncertainty never means less control, what the paper says in words and its losses do not enforce).
    """

    def __init__(self, layers: int, masks: Masks, p_do: float, *, pu_min: float | None = None) -> None:
        super().__init__()
        self.p0 = nn.Parameter(torch.zeros(layers))
        self.pt = nn.Parameter(torch.zeros(layers))
        # softplus(-5) is near 0, so that bounded gates start like unbounded ones
        self.pu = nn.Parameter(torch.full((layers,), 0.0 if pu_min is None else -5.0))
        self.drop_t = NamedDropout(masks, p_do, "gates.t")
        self.drop_u = NamedDropout(masks, p_do, "gates.u")
        self.pu_min = pu_min

    def forward(self, sigma: Tensor, u: Tensor) -> Tensor:
        """alpha, (B, layers) in (0, 1), of noise levels sigma (B,) and uncertainties u (B,), both in [0, 1]."""
        pu = self.pu if self.pu_min is None else self.pu_min + nn.functional.softplus(self.pu)
        t_term = self.drop_t(sigma[:, None] * self.pt)
        u_term = self.drop_u(u[:, None] * pu)
        return torch.sigmoid(self.p0 + t_term + u_term)

    def corners(self) -> dict[str, list[float]]:
        """alpha at the four corners of (sigma, u), by name, for the card."""
        square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], device=self.p0.device)
        with torch.no_grad():
            alpha = self(square[:, 0], square[:, 1]).float().cpu()
        return {f"sigma={int(s)},u={int(u)}": [round(a, 4) for a in row.tolist()]
                for (s, u), row in zip(square.tolist(), alpha, strict=True)}  # fmt: skip


class Codec:
    """Images (B, 3, H, W) in [0, 1] to latents and back, in the latent convention of SD3: (E(x) - shift) * scale.

    A VAE of 3 b^2 channels gets squares of b x b pixels, stacked into channels; SD3's has b = 1.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae
        self.block_px = math.isqrt(int(vae.config.in_channels) // 3)
        # image pixels a latent cell, a side
        self.factor = self.block_px * 2 ** (len(vae.config.block_out_channels) - 1)
        for name in ("shift_factor", "scaling_factor"):
            value = vae.config.get(name) or 0.0
            if isinstance(value, bool | str) or not isinstance(value, SupportsFloat) or not math.isfinite(value):
                raise RareflowError(f"the VAE's config has {value!r:.40} as {name}, expected a number; restore it")

    @property
    def channels(self) -> int:
        return int(self.vae.config.latent_channels)

    def posterior(self, images: Tensor) -> Any:
        """diffusers' distribution of the latents, without shift and scale; sides are multiples of ``factor``."""
        return self.vae.encode(pixel_unshuffle(images.to(self.vae.dtype) * 2 - 1, self.block_px)).latent_dist

    def encode(self, images: Tensor) -> Tensor:
        """The mean of the posterior; images of sides that are multiples of ``factor``."""
        mean: Tensor = self.posterior(images).mean
        return (mean - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """Images, around [0, 1] and not clipped."""
        latents = latents.to(self.vae.dtype)
        image = self.vae.decode(latents / self._scale + self._shift, return_dict=False)[0]
        return (pixel_shuffle(image, self.block_px) + 1) / 2

    @property
    def zero(self) -> float:
        """What a latent of the VAE's own zero is in SD3's convention, -shift * scale."""
        return -self._shift * self._scale

    @property
    def _shift(self) -> float:
        return float(self.vae.config.shift_factor or 0.0)

    @property
    def _scale(self) -> float:
        return float(self.vae.config.scaling_factor)


def new_transformer(arguments: dict[str, object]) -> SD3Transformer2DModel:
    """A transformer to be trained from nothing: adaLN and both output layers start at zero, as DiT's do."""
    transformer = SD3Transformer2DModel(**arguments)
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and (
            name.endswith(("norm1.linear", "norm1_context.linear", "norm_out.linear")) or name == "proj_out"
        ):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer


def start_jointly(control: SD3ControlNetModel) -> None:
    """Let a control that is trained together with its transformer see the condition from the first step.

    diffusers starts both ends of the ControlNet at zero: right beside a trained transformer, slow beside a new one.
    """
    nn.init.normal_(control.pos_embed_input.proj.weight, std=0.05)


def start_linear(vae: AutoencoderKL, images: Tensor) -> bool:
    """Let a VAE that is trained from nothing start as the best linear code of its images: principal components.

    Image squares of b x b px become their first components, each divided by the square root of its deviation, so that
    the faint ones (grain) get a share of the latents; the decoder is its inverse. Everything between starts as zero
    (the residual blocks) or unused. Training then begins where a linear code ends, which a VAE from random weights
    does not reach in thousands of steps at this size. Both ends of the network have a group norm and a SiLU, which are
    made linear: a group holds s, -s, C and -C with C far above s, so its mean is 0 and its deviation constant, and
    SiLU(s) - SiLU(-s) = s.

    ``images`` (B, 3, H, W) in [0, 1]. Returns whether the VAE has room for it: one level (no halving of sides), a group
    of 4 channels or more for each latent channel, neither attention nor convolutions around the latents. Others are
    left as they are.
    """
    config = vae.config
    latents, groups = int(config.latent_channels), int(config.norm_num_groups)
    width = int(config.block_out_channels[0])
    size = width // groups
    between = config.mid_block_add_attention or config.use_quant_conv or config.use_post_quant_conv
    if len(config.block_out_channels) > 1 or groups < latents or size < 4 or between:
        return False
    squares = pixel_unshuffle(images.double() * 2 - 1, Codec(vae).block_px).movedim(1, -1).flatten(0, -2)
    mean = squares.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(squares.T, correction=0))
    values, vectors = values.flip(0)[:latents].clamp(min=1e-8), vectors.flip(1)[:, :latents].T
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    vectors = vectors * largest.sign()  # the sign of a component is arbitrary, so that of its largest part is +
    scale = values.pow(0.25)
    code, back = vectors / scale[:, None], vectors.T * scale
    constant = 30 * float(scale.max())  # components have the deviation sqrt(values) / scale = scale
    for part, ahead, offset in (
        (vae.encoder, code, -code @ mean), (vae.decoder, torch.eye(latents).double(), torch.zeros(latents).double()),
    ):  # fmt: skip
        for name, module in part.named_modules():
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
        first, last = part.conv_in, part.conv_out
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        deviation = constant * math.sqrt(2 / size)
        with torch.no_grad():
            for i in range(latents):
                plus, minus, high, low = range(i * size, i * size + 4)
                first.weight[plus : low + 1] = 0
                first.weight[plus, :, 1, 1], first.weight[minus, :, 1, 1] = ahead[i], -ahead[i]
                first.bias[plus], first.bias[minus] = offset[i], -offset[i]
                first.bias[high], first.bias[low] = constant, -constant
                out = (torch.eye(2 * latents).double()[i] if part is vae.encoder else back[:, i]) * deviation
                last.weight[:, plus, 1, 1], last.weight[:, minus, 1, 1] = out, -out
            if part is vae.encoder:
                last.bias[latents:] = 2 * math.log(0.05)  # the log variance of the posterior
            else:
                last.bias.copy_(mean)
    return True
