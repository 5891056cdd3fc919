"""Flow matching (eq. 1): noise levels, the gated velocity field (eq. 2-3), and Euler's way from noise to an image."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3ControlNetModel, SD3Transformer2DModel
from torch import Tensor
from torch.nn import functional

from rareflow.networks import Gates


@dataclass
class Field:
    """The networks that together give a velocity: the frozen f_theta, the control g_phi and its gates.

    ``gates`` None leaves the residuals ungated; their scale is then ``s_ctrl`` / 2, where half-open gates start.
    ``control`` None (or s_ctrl 0) is the text-only extreme of the paper's Figure 1.

    A control whose configuration has ``force_zeros_for_pooled_projection`` follows InstantX's convention, as the
    published SD3 ControlNets do and diffusers' pipeline has it: its pooled caption is zero, and its latents are without
    SD3's shift, so ``zero`` (``Codec.zero``) is taken from x before it sees them. Ours are without it.
    """

    transformer: SD3Transformer2DModel
    control: SD3ControlNetModel | None
    gates: Gates | None
    s_ctrl: float = 2.0
    zero: float = 0.0

    def velocity(
        self, z: Tensor, sigma: Tensor, x: Tensor, tokens: Tensor, pooled: Tensor, u: Tensor, on: Tensor | None = None
    ) -> Tensor:
        """dz/dsigma at latents z (B, C, h, w), noise levels sigma (B,), LR latents x, caption embeddings, u (B,).

        ``on`` (B,), 0 or 1, switches the control of single samples off (training's control dropout).
        """
        time = sigma * 1000
        residuals = None
        if self.control is not None and self.s_ctrl != 0:
            published = self.control.config.force_zeros_for_pooled_projection
            listed = self.control(
                hidden_states=z, controlnet_cond=x - self.zero if published else x, conditioning_scale=1.0,
                encoder_hidden_states=tokens, pooled_projections=torch.zeros_like(pooled) if published else pooled,
                timestep=time, return_dict=False,
            )[0]  # fmt: skip
            scale = self.scales(sigma, u, len(listed))
            if on is not None:
                scale = scale * on[:, None]
            residuals = [r * scale[:, i, None, None].to(r.dtype) for i, r in enumerate(listed)]
        velocity: Tensor = self.transformer(
            hidden_states=z, encoder_hidden_states=tokens, pooled_projections=pooled, timestep=time,
            block_controlnet_hidden_states=residuals, return_dict=False,
        )[0]  # fmt: skip
        return velocity

    def scales(self, sigma: Tensor, u: Tensor, layers: int) -> Tensor:
        """s_ctrl * alpha^l(t, u) of eq. 3, (B, layers)."""
        if self.gates is None:
            return sigma.new_full((sigma.shape[0], layers), self.s_ctrl / 2)
        return self.s_ctrl * self.gates(sigma, u)


@dataclass(frozen=True)
class Grid:
    """Where the transformer's patches lie on the latents in a step of sampling: their upper left corner, in cells.

    Each token answers for its own patch, and a small model leaves steps between neighbours. Where every step cuts the
    latents elsewhere, the next one sees such an edge in the middle of a patch, and mends it.
    """

    patch: int
    offset: tuple[int, int] = (0, 0)

    @staticmethod
    def of(step: int, patch: int) -> Grid:
        """The grid of a step: the offsets of ``patch`` steps visit every row and every column of a patch once."""
        k = step % patch
        return Grid(patch, (k, (patch - k) % patch))

    def lay(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) continued by reflection on all sides, so that whole patches begin at the offset."""
        (top, left), p = self.offset, self.patch
        if self.offset == (0, 0):
            return latents
        return functional.pad(latents, ((p - left) % p, left, (p - top) % p, top), mode="reflect")

    def lift(self, latents: Tensor, like: Tensor) -> Tensor:
        """The part of laid latents that ``like`` had before."""
        top, left = ((self.patch - o) % self.patch for o in self.offset)
        return latents[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def noise_levels(steps: int, shift: float) -> list[float]:
    """The sigmas of ``steps`` Euler steps, from 1 down to 0, as diffusers' scheduler has them."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    return [float(s) for s in scheduler.sigmas]


def euler(z: Tensor, sigmas: list[float], velocity: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """Follow dz/dsigma = v from sigmas[0] to sigmas[-1]. ``velocity(step, z, sigma (B,))``; z stays float32."""
    for step, (now, after) in enumerate(itertools.pairwise(sigmas)):
        v = velocity(step, z, torch.full((z.shape[0],), now, device=z.device))
        z = z + (after - now) * v.float()
    return z


def add_noise(z0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """z_t = (1 - sigma) z0 + sigma eps (eq. 1), sigma (B,)."""
    s = sigma[:, None, None, None]
    return (1 - s) * z0 + s * eps


def clean(z: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """x0_hat = z_t - sigma v: what the model takes the clean latents to be."""
    return z - sigma[:, None, None, None] * v


def training_levels(count: int, shift: float, generator: torch.Generator, uniform: float = 0.0) -> Tensor:
    """Noise levels for training (count,): SD3's logit-normal density, an even one in a share ``uniform``; shifted."""
    s = torch.sigmoid(torch.randn(count, generator=generator))
    even = torch.rand(count, generator=generator)
    s = torch.where(torch.rand(count, generator=generator) < uniform, even, s)
    return (shift * s / (1 + (shift - 1) * s)).clamp(1e-3, 1.0)
