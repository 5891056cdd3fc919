"""What the model does not know: MC dropout, its map v, and the scalar u that the gates read (eq. 4-6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rareflow.flow import Field, clean
from rareflow.networks import Masks

Form = Literal["clip", "clip_kappa", "ratio", "exp"]
_ROUNDING = torch.finfo(torch.float32).eps ** 2  # a variance of images in [0, 1] that differ by rounding alone


@dataclass(frozen=True)
class Scale:
    """What brings a map v to u. ``tau`` and ``kappa`` are the 95th percentile and the median of mean(v) over training
    chips, stored with a checkpoint, so that u means the same in every batch.

    ``form``: ``clip`` is eq. 4 with the tau of eq. 5, clip(mean(clip(v, 0, tau)) / tau, 0, 1): a few wild pixels
    cannot bring u to 1, since each counts for tau at most. ``clip_kappa`` is the same with the kappa of eq. 6 in
    tau's place. Two simpler ones read mean(v) alone: ``ratio`` min(1, mean(v) / tau), ``exp``
    1 - exp(-mean(v) / kappa).
    """

    tau: float
    kappa: float
    form: Form = "clip"

    def u(self, v: Tensor) -> Tensor:
        """u (B,) in [0, 1] of maps v (B, H, W), each by itself: in one reduction, threads split sums as the batch
        has it."""
        return torch.stack([self._one(one) for one in v])

    def _one(self, v: Tensor) -> Tensor:
        if self.form == "exp":
            return 1 - torch.exp(-v.mean() / self.kappa)
        if self.form == "ratio":
            return (v.mean() / self.tau).clamp(0, 1)
        limit = self.kappa if self.form == "clip_kappa" else self.tau
        return (v.clamp(0, limit).mean() / limit).clamp(0, 1)

    @staticmethod
    def fit(mean_v: Tensor, form: Form = "clip") -> Scale:
        """The scale of a bank of mean(v); 1 where only rounding varies yet (a control whose outputs are still zero)."""
        # not median(), which is the lower of the two in the middle
        tau, kappa = (float(mean_v.double().quantile(q)) for q in (0.95, 0.5))
        return Scale(tau if tau > _ROUNDING else 1.0, kappa if kappa > _ROUNDING else 1.0, form)


def measure_levels(
    field: Field, masks: Masks, decode: Callable[[Tensor], Tensor], *, noise: Tensor, levels: Sequence[float],
    x: Tensor, tokens: Tensor, pooled: Tensor, seeds: Sequence[int], passes: int,
) -> Tensor:  # fmt: skip
    """v (B, H, W) before sampling starts: ``measure`` at one or more noise levels.

    At level 1 the passes see the noise (B, C, h, w) itself, as the first step of sampling does. At a level s below 1
    they see (1 - s) x + s noise: the LR latents stand in for the clean ones, which are not known. Since the error of
    x0_hat is s times that of the velocity, the map of level s is divided by s^2, so that every level counts; v is the
    mean over levels. For levels (1.0,) that is ``measure`` at 1.
    """
    maps = []
    for level in levels:
        z = noise if level == 1 else (1 - level) * x + level * noise
        found = measure(
            field, masks, decode, z=z, sigma=level, x=x, tokens=tokens, pooled=pooled, seeds=seeds, passes=passes
        )
        maps.append(found / level**2)
    return torch.stack(maps).mean(dim=0) if len(maps) > 1 else maps[0]


def measure(
    field: Field, masks: Masks, decode: Callable[[Tensor], Tensor], *, z: Tensor, sigma: float, x: Tensor,
    tokens: Tensor, pooled: Tensor, seeds: Sequence[int], passes: int,
) -> Tensor:  # fmt: skip
    """The variance map v (B, H, W) of x0_hat over T passes that differ in the dropout of control and gates only.

    All T passes see the same z (B, C, h, w), noise level and condition, and u = 0; each x0_hat is decoded. The
    variance is taken per channel of images in [0, 1] before clipping (unit: squared display range), with T - 1 in the
    denominator, then averaged over channels. The T passes of one sample are one batch; samples follow one another, so
    that the map of an image does not depend on its neighbours in the batch.
    """
    maps = []
    for i, seed in enumerate(seeds):
        zs, xs, ts, ps = (t[i : i + 1].expand(passes, *t.shape[1:]) for t in (z, x, tokens, pooled))
        level = torch.full((passes,), sigma, device=z.device)
        with torch.no_grad(), masks.use([(seed, t) for t in range(passes)]):
            v = field.velocity(zs, level, xs, ts, ps, torch.zeros_like(level))
        # in the VAE's own precision: bfloat16 rounds as much as v varies
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            images = decode(clean(zs, v.float(), level)).float()
        maps.append(images.var(dim=0, correction=1).mean(dim=0))
    return torch.stack(maps)
