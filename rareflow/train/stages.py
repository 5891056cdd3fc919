"""The three stages: the VAE and the prior (for a model without a base), and the paper's: control and gates.

``vae``: autoencoder of the HR images. ``prior``: transformer, control and word table together, plain velocity loss; it
stands in for SD3's pre-training, which a small model does not have, and is the only addition to the paper. ``control``:
transformer, VAE and text frozen, eq. 12 on ControlNet and gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from rareflow.config import Config, StageConfig
from rareflow.errors import RareflowError
from rareflow.flow import Field, add_noise, training_levels
from rareflow.images import shrink
from rareflow.losses import LossConfig, Lpips, objective, velocity_loss
from rareflow.networks import Codec, Masks
from rareflow.noise import normal
from rareflow.noise import stream as torch_stream
from rareflow.text import WordTable
from rareflow.train.cache import Cache, Item
from rareflow.train.chips import batch_at, stream
from rareflow.train.loop import Stage
from rareflow.uncertainty import Scale, measure_levels

Window = tuple[int, int, int, int]
Check = Callable[[int], dict[str, float]]

Inputs = Callable[[list[str]], dict[str, Tensor]]  # captions to what a stage's module reads of them


def crop_window(item: Item, crop_px: int, grid: int, random: Any) -> Window:
    """(top, left, height, width) on the HR grid: multiples of ``grid``, ``crop_px`` a side or less."""
    rows, columns = (min(side, -(-crop_px // grid) * grid) for side in item.bucket)
    top = int(random.integers((item.bucket[0] - rows) // grid + 1)) * grid
    left = int(random.integers((item.bucket[1] - columns) // grid + 1)) * grid
    return top, left, rows, columns


def content(items: Sequence[Item], window: Window, cell: int) -> Tensor:
    """Which cells of ``cell`` px of a crop are image and not padding, bool (B, 1, rows, columns)."""
    top, left, rows, columns = window
    y = top + cell * torch.arange(rows // cell) + cell / 2
    x = left + cell * torch.arange(columns // cell) + cell / 2
    return torch.stack([((y < i.valid[0])[:, None] & (x < i.valid[1])[None, :])[None] for i in items])


class VaeModule(nn.Module):
    """L1 of the pixels, of their spectrum (keeps edges), and a small KL term (keeps the latents compact)."""

    vae: Any

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.vae, self.codec = codec.vae, codec

    def forward(self, images: Tensor, eps: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.codec.posterior(images)
        z = posterior.mean + posterior.std * eps
        found = self.codec.decode(z).float()
        pixels = (found - images).abs().mean()
        spectrum = torch.fft.rfft2(found - images, norm="ortho").abs().mean()
        kl = posterior.kl().mean() / z[0].numel()
        loss = pixels + 0.5 * spectrum + 1e-5 * kl
        psnr = -10 * torch.log10((found.detach().clamp(0, 1) - images).square().mean().clamp(min=1e-10))
        return loss, {"l1": pixels.detach(), "spectrum": spectrum.detach(), "kl": kl.detach(), "psnr": psnr}


class VaeStage(Stage):
    """Autoencoder of HR crops, and of LR crops in every fourth sample: it has to encode both.

    Its latents are the posterior's own until ``fit_latents`` gives them a shift and a scale.
    """

    name = "vae"

    def __init__(self, vae: AutoencoderKL, config: Config, cache: Cache, held_out: Cache) -> None:
        self.codec, self.cache, self.held_out, self.train = Codec(vae), cache, held_out, config.train
        self.module, self.config, self.seed = VaeModule(self.codec), config.train.vae, config.train.seed

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters())}]

    def batch(self, step: int) -> tuple[dict[str, Tensor], list[str]]:
        items = batch_at(self.cache.buckets, self.config.batch, step, self.seed, self.name)
        random = stream(self.seed, self.name, "crop", step)
        crops = []
        for n, item in enumerate(items):
            top, left, rows, columns = crop_window(item, self.config.crop_px, self.codec.factor, random)
            crops.append(self.cache.images([item], "up" if n % 4 == 3 else "hr", top, left, (rows, columns))[0])
        images = torch.stack(crops)
        cells = (images.shape[2] // self.codec.factor, images.shape[3] // self.codec.factor)
        eps = torch.randn((len(items), self.codec.channels, *cells), generator=torch_stream(self.seed, "vae", step))
        return {"images": images, "eps": eps}, [i.name for i in items]

    def validate(self, step: int) -> dict[str, float]:
        errors = []
        for item in self.held_out.items[: self.train.validate_images]:
            image = self.held_out.images([item], "hr", 0, 0, item.bucket).to(self.codec.vae.device)
            found = self.codec.decode(self.codec.encode(image)).clamp(0, 1)
            errors.append(float((found - image).square().mean()))
        return {"psnr": float(-10 * torch.log10(torch.tensor(errors).clamp(min=1e-10)).mean())}

    def badness(self, numbers: dict[str, float]) -> float:
        return -numbers["psnr"]


def fit_latents(vae: AutoencoderKL, cache: Cache, count: int) -> None:
    """Set the VAE's shift and scale so that the latents of the training images have mean 0 and deviation 1."""
    codec = Codec(vae)
    device = next(vae.parameters()).device
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    total, square, n = 0.0, 0.0, 0
    for item in cache.items[:count]:
        with torch.no_grad():
            z = codec.encode(cache.images([item], "hr", 0, 0, item.bucket).to(device)).double()
        total, square, n = total + float(z.sum()), square + float(z.square().sum()), n + z.numel()
    mean = total / n
    deviation = max(square / n - mean**2, 1e-12) ** 0.5
    vae.register_to_config(shift_factor=round(mean, 6), scaling_factor=round(1 / deviation, 6))


class LatentStage(Stage):
    """What prior and control share: latents, noise, levels, captions of a step."""

    def __init__(
        self, config: Config, stage: StageConfig, codec: Codec, cache: Cache, inputs: Inputs, check: Check
    ) -> None:
        self.settings, self.config, self.seed = config, stage, config.train.seed
        self.codec, self.cache, self.inputs, self.check = codec, cache, inputs, check

    def buckets(self) -> list[list[Item]]:
        """The chips that this stage draws from."""
        return self.cache.buckets

    def latents(self, step: int) -> tuple[dict[str, Tensor], list[Item], Window]:
        """z0, x, eps, sigma, captions and perhaps a mask of a step's crops; noise comes from (seed, stage, step)."""
        items = batch_at(self.buckets(), self.config.batch, step, self.seed, self.name)
        grid, f = self.cache.multiple, self.codec.factor
        window = crop_window(
            items[0], self.config.crop_px * self.settings.work_scale, grid, stream(self.seed, self.name, "crop", step)
        )
        top, left, rows, columns = window
        cells = rows // f, columns // f
        generator = torch_stream(self.seed, self.name, step)
        batch = {
            "z0": self.cache.latents(items, "z0", top // f, left // f, cells),
            "x": self.cache.latents(items, "x", top // f, left // f, cells),
            "eps": torch.randn((len(items), self.codec.channels, *cells), generator=generator),
            "sigma": training_levels(len(items), self.settings.sampling.shift, generator, uniform=0.5),
        }
        empty = torch.rand(len(items), generator=generator) < self.settings.text.dropout
        captions = ["" if e else i.chip.caption for e, i in zip(empty.tolist(), items, strict=True)]
        batch |= self.inputs(captions if self.settings.text.captions else [""] * len(items))
        mask = content(items, window, f)
        if not bool(mask.all()):
            batch["mask"] = mask
        return batch, items, window

    def validate(self, step: int) -> dict[str, float]:
        return self.check(step)


class PriorModule(nn.Module):
    """The plain velocity loss on transformer, control and word table together, u = 0."""

    def __init__(self, field: Field, table: nn.Module) -> None:
        super().__init__()
        self.transformer, self.control, self.table, self.field = field.transformer, field.control, table, field

    def forward(
        self, z0: Tensor, x: Tensor, eps: Tensor, sigma: Tensor, ids: Tensor, on: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tokens, pooled = self.table(ids)
        v = self.field.velocity(add_noise(z0, eps, sigma), sigma, x, tokens, pooled, torch.zeros_like(sigma), on)
        loss = velocity_loss(v, z0, eps, sigma, "inv_sigma", mask).mean()
        return loss, {"base": loss.detach()}


class PriorStage(LatentStage):
    """Transformer, control and word table, jointly; the control of some samples is off, so that f_theta alone is a
    usable prior."""

    name = "prior"

    def __init__(
        self, field: Field, table: WordTable, config: Config, codec: Codec, cache: Cache, check: Check
    ) -> None:
        super().__init__(config, config.train.prior, codec, cache, lambda texts: {"ids": table.ids(texts)}, check)
        self.module = PriorModule(field, table)
        self.clean = [found for bucket in cache.buckets if (found := [i for i in bucket if not i.degraded])]
        if not self.clean:
            raise RareflowError(
                "train.augment.degraded: found no chip whose LR is left as it is, expected some to train the prior on; "
                "lower it, or add data"
            )

    def buckets(self) -> list[list[Item]]:
        return self.clean

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters())}]

    def batch(self, step: int) -> tuple[dict[str, Tensor], list[str]]:
        batch, items, _ = self.latents(step)
        off = torch.rand(len(items), generator=torch_stream(self.seed, self.name, "off", step))
        batch["on"] = (off >= self.settings.train.control_dropout).float()
        return batch, [i.name for i in items]


class ControlModule(nn.Module):
    """Eq. 12 on the ControlNet and the gates; everything else is frozen."""

    def __init__(self, field: Field, masks: Masks, codec: Codec, loss: LossConfig, lpips: Lpips | None) -> None:
        super().__init__()
        self.control, self.gates, self.field, self.masks, self.codec = field.control, field.gates, field, masks, codec
        self.loss, self.lpips = loss, lpips

    def train(self, mode: bool = True) -> ControlModule:
        self.masks.training = mode  # dropout lives in control and gates alone, so this is all of it
        return super().train(mode)

    def forward(
        self, z0: Tensor, x: Tensor, eps: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor, u: Tensor,
        target: Tensor, mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        z = add_noise(z0, eps, sigma)
        v = self.field.velocity(z, sigma, x, tokens, pooled, u)
        return objective(
            self.loss, v_hat=v, z_t=z, z0=z0, eps=eps, sigma=sigma, decode=self.codec.decode, target=target,
            lpips=self.lpips, mask=mask,
        )  # fmt: skip


class ControlStage(LatentStage):
    """The paper's training. Half of what a gate can read, u, is measured ahead: a bank of one u a chip, made as at
    sampling. Every ``bank_every`` steps ``bank_size`` other chips are drawn, measured and trained on; some samples get
    a random u instead, so that the gates see the whole range. Without gates there is nothing to measure, and the
    stage draws from all chips."""

    name = "control"

    def __init__(
        self, field: Field, masks: Masks, config: Config, codec: Codec, cache: Cache, inputs: Inputs, check: Check,
        lpips: Lpips | None,
    ) -> None:  # fmt: skip
        super().__init__(config, config.train.control, codec, cache, inputs, check)
        self.module = ControlModule(field, masks, codec, config.loss, lpips)
        self.field, self.masks = field, masks
        self.bank = self.drawn(0)
        self.mean_v = torch.zeros(len(self.bank))
        self.u_of: dict[str, float] = {}

    def groups(self) -> list[dict[str, Any]]:
        assert self.field.control is not None
        groups: list[dict[str, Any]] = [{"params": list(self.field.control.parameters())}]
        if self.field.gates is not None:
            rate = self.settings.train.gate_lr
            groups.append({"params": list(self.field.gates.parameters()), "lr": rate, "weight_decay": 0.0})
        return groups

    def drawn(self, nth: int) -> list[Item]:
        """The chips of the nth bank."""
        size = self.settings.train.bank_size or len(self.cache.items)
        order = stream(self.seed, self.name, "bank", nth).permutation(len(self.cache.items))[:size]
        return [self.cache.items[i] for i in sorted(order)]

    def buckets(self) -> list[list[Item]]:
        if self.field.gates is None or not self.settings.train.bank_every:
            return self.cache.buckets
        sizes = sorted({i.bucket for i in self.bank})
        return [[i for i in self.bank if i.bucket == size] for size in sizes]

    def renews(self, step: int) -> bool:
        every = self.settings.train.bank_every
        return bool(every) and self.field.gates is not None and step % every == 0

    def before(self, step: int) -> None:
        every = self.settings.train.bank_every
        if every and self.field.gates is not None:
            self.bank = self.drawn(step // every)
            if step % every == 0:
                self.fill_bank()

    def fill_bank(self) -> Scale:
        """Measure mean(v) of every chip of the bank, set their u, and give the scale that this makes."""
        was_training, self.masks.training = self.masks.training, False
        device = next(self.module.parameters()).device
        maps = []
        for item in self.bank:
            rows, columns = (side // self.codec.factor for side in item.bucket)
            x = self.cache.latents([item], "x", 0, 0, (rows, columns)).to(device)
            tokens, pooled = self.embedded([item.chip.caption if self.settings.text.captions else ""])
            seed = int(stream(self.seed, self.name, "bank", item.name).integers(2**62))
            z = normal([seed], (self.codec.channels, rows, columns), "noise").to(device)
            v = measure_levels(
                self.field, self.masks, self.codec.decode, noise=z, levels=self.settings.uncertainty.levels, x=x,
                tokens=tokens.to(device), pooled=pooled.to(device), seeds=[seed],
                passes=self.settings.uncertainty.passes,
            )  # fmt: skip
            size = item.valid[0] // self.cache.work_scale, item.valid[1] // self.cache.work_scale
            maps.append(shrink(v[:, None, : item.valid[0], : item.valid[1]], size)[:, 0].cpu())
        self.mean_v = torch.stack([v.mean() for v in maps])
        scale = Scale.fit(self.mean_v, self.settings.uncertainty.form)
        self.u_of = {item.name: float(scale.u(v)) for item, v in zip(self.bank, maps, strict=True)}
        self.masks.training = was_training
        return scale

    def embedded(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens and pooled embeddings of captions."""
        found = self.inputs(captions)
        return found["tokens"], found["pooled"]

    def batch(self, step: int) -> tuple[dict[str, Tensor], list[str]]:
        batch, items, (top, left, rows, columns) = self.latents(step)
        ids = [i.name for i in items]
        generator = torch_stream(self.seed, self.name, "u", step)
        measured = torch.tensor([self.u_of.get(i, 0.0) for i in ids])
        drawn, random = torch.rand((2, len(ids)), generator=generator)
        batch["u"] = torch.where(drawn < self.settings.train.random_u, random, measured)
        batch["target"] = self.cache.images(items, "hr", top, left, (rows, columns))
        return batch, ids

    def extra_state(self) -> dict[str, Any]:
        return {"mean_v": self.mean_v, "u": self.u_of}

    def load_extra(self, state: dict[str, Any]) -> None:
        self.mean_v, self.u_of = state["mean_v"], dict(state["u"])
        if self.u_of:  # the scale of u is that of the last bank, for a stage that has no step left, too
            self.bank = [item for item in self.cache.items if item.name in self.u_of]
