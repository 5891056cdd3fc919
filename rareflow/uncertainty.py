"""What the model does not know: MC dropout (eq. 4), its map v, and the scalar u that the gates read (eq. 5-6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rareflow.flow import Field, clean
from rareflow.networks import Masks

_ROUNDING = torch.finfo(torch.float32).eps ** 2  # a variance of images in [0, 1] that differ by rounding alone


@dataclass(frozen=True)
class Scale:
    """What brings the mean of v to u. ``tau`` and ``kappa`` are the 95th percentile and the median of mean(v) over
    training chips, stored with a checkpoint, so that u means the same in every batch."""

    tau: float
    kappa: float
    form: Literal["ratio", "exp"] = "ratio"

    def u(self, mean_v: Tensor) -> Tensor:
        """u in [0, 1] of mean(v): min(1, mean(v) / tau) (eq. 5), or 1 - exp(-mean(v) / kappa) (eq. 6)."""
        if self.form == "exp":
            return 1 - torch.exp(-mean_v / self.kappa)
        return (mean_v / self.tau).clamp(0, 1)

    @staticmethod
    def fit(mean_v: Tensor, form: Literal["ratio", "exp"] = "ratio") -> Scale:
        """The scale of a bank of mean(v); 1 where only rounding varies yet (a control whose outputs are still zero)."""
        # not median(), which is the lower of the two in the middle
        tau, kappa = (float(mean_v.double().quantile(q)) for q in (0.95, 0.5))
        return Scale(tau if tau > _ROUNDING else 1.0, kappa if kappa > _ROUNDING else 1.0, form)


def measure(
    field: Field, masks: Masks, decode: Callable[[Tensor], Tensor], *, z: Tensor, sigma: float, x: Tensor,
    tokens: Tensor, pooled: Tensor, seeds: Sequence[int], passes: int,
) -> Tensor:  # fmt: skip
    """Eq. 4: the variance map v (B, H, W) of x0_hat over T passes that differ in the dropout of control and gates only.

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
