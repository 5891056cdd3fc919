"""The assembled model: LR images in, draws of HR images, the map v and the scalar u out."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rareflow.captions import Captions
from rareflow.card import Card
from rareflow.config import Config
from rareflow.errors import RareflowError
from rareflow.flow import Field, Grid, euler, noise_levels
from rareflow.images import next_multiple, pad_to, shrink, upsample
from rareflow.networks import Codec, Masks
from rareflow.noise import normal
from rareflow.uncertainty import Scale, measure, measure_levels

Array = npt.NDArray[np.float32]
Condition = tuple[Tensor, Tensor, Tensor]  # LR latents, caption tokens, pooled captions


@dataclass(frozen=True)
class Result:
    """What ``RareFlow.upscale`` gives.

    Attributes
    ----------
    samples : float32 (B, K, H, W, 3), display [0, 1]; K draws from the model's distribution.
    v : float32 (B, H, W), the variance map of MC dropout, in squared display range.
    u : float32 (B,), the scalar uncertainty in [0, 1] that the gates read (eq. 4-6).
    mean_v : float32 (B,), the mean of v over the image.
    """

    samples: Array
    v: Array
    u: Array
    mean_v: Array


@dataclass
class RareFlow:
    """A model ready to sample. ``rareflow.load`` makes one from a checkpoint.

    ``scale`` brings v to u; ``card`` is the checkpoint's card. On a processor samples run one after another, so that
    an image comes out the same, to the bit, in whatever batch; on a GPU ``batch`` samples run at once. ``threads`` is
    how many of a processor's ``upscale`` takes, whatever torch is set to; None leaves that as it is.
    """

    config: Config
    field: Field
    codec: Codec
    captions: Captions
    masks: Masks
    scale: Scale
    card: Card = dataclasses.field(default_factory=Card)
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    batch: int = 16
    threads: int | None = None

    @property
    def multiple(self) -> int:
        """What the sides of the padded working grid are multiples of, in pixels."""
        return self.codec.factor * int(self.field.transformer.config.patch_size)

    @property
    def largest_px(self) -> int:
        """The longest side of the working grid that the transformer has positions for."""
        positions = int(self.field.transformer.config.pos_embed_max_size)
        return (positions - self.config.sampling.moving_grid) * self.multiple

    def latent_cells(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the latents, and so of the noise, for an answer of ``size``."""
        work = next_multiple((size[0] * self.config.work_scale, size[1] * self.config.work_scale), self.multiple)
        return work[0] // self.codec.factor, work[1] // self.codec.factor

    def upscale(
        self, lr: Array, size: tuple[int, int], *, captions: Sequence[str] | None = None,
        seeds: Sequence[Sequence[int]] | None = None, noise: Array | None = None, steps: int | None = None,
        guidance: float | None = None, u: float | None = None, temperature: float | None = None,
    ) -> Result:  # fmt: skip
        """Draw HR images of ``size`` (H, W) from LR images (B, h, w, 3), display values in [0, 1].

        Parameters
        ----------
        captions : one an image; the empty caption unless given.
        seeds : K seeds an image, one a draw; (0,) each unless given. The first one is also that of dropout and of the
            noise from which v is measured, so v and u belong to the image and not to the draw.
        noise : standard normal noise to start from instead of the seeds' own, float32 (B, K, rows, columns, C) with
            the rows and columns of ``latent_cells(size)``.
        u : use this uncertainty, in [0, 1], in the gates instead of the measured one.
        temperature : what the noise that sampling starts from is multiplied by; v and u are measured at 1 all the same.

        A model trained without captions (``text.captions`` false) is given none here either. Raises RareflowError for
        images of another shape or range, for sizes beyond ``largest_px``, and for numbers out of their range.
        """
        with threads(self.threads):
            return self._upscale(lr, size, captions, seeds, noise, steps, guidance, u, temperature)

    def _upscale(
        self, lr: Array, size: tuple[int, int], captions: Sequence[str] | None, seeds: Sequence[Sequence[int]] | None,
        noise: Array | None, steps: int | None, guidance: float | None, u: float | None, temperature: float | None,
    ) -> Result:  # fmt: skip
        lr = _checked(lr)
        count = lr.shape[0]
        seeds = [(0,)] * count if seeds is None else seeds
        texts = [""] * count if captions is None else list(captions)
        if len(seeds) != count or len(texts) != count or len({len(s) for s in seeds}) != 1 or not seeds[0]:
            raise RareflowError(
                f"found {len(texts)} captions and {len(seeds)} rows of seeds for {count} images, expected one caption "
                "and one row of as many seeds (one or more) an image"
            )
        texts = texts if self.config.text.captions else [""] * count
        steps = self.config.sampling.steps if steps is None else steps
        strength = self.config.sampling.guidance if guidance is None else guidance
        warmth = self.config.sampling.temperature if temperature is None else temperature
        for what, value, low, high in (
            ("rows", size[0], 1, math.inf), ("columns", size[1], 1, math.inf), ("steps", steps, 1, 1000),
            ("guidance", strength, 0, 1000), ("u", 0 if u is None else u, 0, 1), ("temperature", warmth, 0, 10),
        ):  # fmt: skip
            if not low <= value <= high:
                raise RareflowError(f"{what}: found {value}, expected a number from {low} to {high}")
        work = next_multiple((size[0] * self.config.work_scale, size[1] * self.config.work_scale), self.multiple)
        if max(work) > self.largest_px:
            raise RareflowError(
                f"an answer of {size[0]}x{size[1]} px is larger than the {self.largest_px // self.config.work_scale} "
                "px a side that the model has positions for; tile the image"
            )
        x = self._condition(lr, size, work)
        tokens, pooled = (t.to(self.device, self.dtype) for t in self.captions.get(texts))
        z = self._noise(seeds, noise, work)
        sigmas = noise_levels(steps, self.config.sampling.shift)
        first = [row[0] for row in seeds]
        known = u is not None
        v = torch.zeros((count, *size))
        if not known:
            v = self._measure(z[:, 0], None, (x, tokens, pooled), first, size)
        mean_v = _means(v)
        scalar = self.scale.u(v) if u is None else torch.full((count,), float(u))
        z = warmth * z
        every = 0 if known else self.config.uncertainty.every
        samples = np.empty((count, z.shape[1], *size, 3), np.float32)
        which = [(i, k) for i in range(count) for k in range(z.shape[1])]
        at_once = 1 if self.device.type == "cpu" else self.batch
        for start in range(0, len(which), at_once):
            images, draws = (list(n) for n in zip(*which[start : start + at_once], strict=True))
            rows = torch.tensor(images, device=self.device)
            condition = x[rows], tokens[rows], pooled[rows]
            noises, masks = z[images, draws], [first[i] for i in images]
            samples[images, draws] = self._draw(noises, sigmas, condition, scalar[images], masks, strength, every, size)
        return Result(samples, v.numpy(), scalar.float().numpy(), mean_v.numpy())

    def _condition(self, lr: Array, size: tuple[int, int], work: tuple[int, int]) -> Tensor:
        """x~ = E(up(LR)) (B, C, rows, columns): what the control sees, whatever the LR's scale."""
        images = torch.from_numpy(np.ascontiguousarray(lr.transpose(0, 3, 1, 2)))
        inner = size[0] * self.config.work_scale, size[1] * self.config.work_scale
        with torch.no_grad():
            rows = [self.codec.encode(pad_to(upsample(i[None], inner), work).to(self.device)) for i in images]
        return torch.cat(rows).to(self.dtype)

    def _noise(self, seeds: Sequence[Sequence[int]], noise: Array | None, work: tuple[int, int]) -> Tensor:
        shape = (self.codec.channels, work[0] // self.codec.factor, work[1] // self.codec.factor)
        if noise is None:
            return torch.stack([normal(list(row), shape, "noise") for row in seeds]).to(self.device)
        expected = (len(seeds), len(seeds[0]), shape[1], shape[2], shape[0])
        if noise.shape != expected:
            raise RareflowError(f"found noise of the shape {noise.shape}, expected {expected}")
        if not np.isfinite(noise).all():
            raise RareflowError("the noise holds values that are not finite; give standard normal noise")
        return torch.from_numpy(np.ascontiguousarray(noise.transpose(0, 1, 4, 2, 3), np.float32)).to(self.device)

    def _measure(
        self, z: Tensor, sigma: float | None, condition: Condition, seeds: Sequence[int], size: tuple[int, int]
    ) -> Tensor:
        """v on the answer's grid, (B, *size), on the CPU; the padding of the working grid is left out.

        z is the state of sampling at ``sigma``; with None, noise, and v is measured at the configured levels.
        """
        x, tokens, pooled = condition
        common: dict[str, Any] = {
            "x": x, "tokens": tokens, "pooled": pooled, "seeds": seeds, "passes": self.config.uncertainty.passes,
        }  # fmt: skip
        parts, z = (self.field, self.masks, self.codec.decode), z.to(self.dtype)
        if sigma is None:
            found = measure_levels(*parts, noise=z, levels=self.config.uncertainty.levels, **common)
        else:
            found = measure(*parts, z=z, sigma=sigma, **common)
        inner = size[0] * self.config.work_scale, size[1] * self.config.work_scale
        return shrink(found.cpu()[:, None, : inner[0], : inner[1]], size)[:, 0]

    def _draw(
        self, z: Tensor, sigmas: list[float], condition: Condition, u: Tensor, seeds: Sequence[int],
        guidance: float, every: int, size: tuple[int, int],
    ) -> Array:  # fmt: skip
        """Images (B, H, W, 3) from noise z: dropout off, gates at u (measured again every ``every`` steps)."""
        x, tokens, pooled = condition
        nothing = self.captions.get([""]) if guidance != 1 else ()
        empty = tuple(t.to(self.device, self.dtype).expand(len(seeds), *t.shape[1:]) for t in nothing)
        gate = u.to(self.device)
        patch = int(self.field.transformer.config.patch_size)

        def velocity(step: int, now: Tensor, sigma: Tensor) -> Tensor:
            nonlocal gate
            if every and step and step % every == 0:
                again = self._measure(now, float(sigma[0]), condition, seeds, size)
                gate = self.scale.u(again).to(self.device)
            grid = Grid.of(step if self.config.sampling.moving_grid else 0, patch)
            laid, laid_x = grid.lay(now.to(self.dtype)), grid.lay(x)
            v = self.field.velocity(laid, sigma, laid_x, tokens, pooled, gate)
            if guidance != 1:
                free = self.field.velocity(laid, sigma, laid_x, empty[0], empty[1], gate)
                v = free + guidance * (v - free)
            return grid.lift(v, now)

        inner = size[0] * self.config.work_scale, size[1] * self.config.work_scale
        with torch.no_grad():
            decoded = self.codec.decode(euler(z, sigmas, velocity)).float()[..., : inner[0], : inner[1]]
        image: Array = shrink(decoded, size).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        return image


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch with ``count`` threads for the block inside; None leaves them as they are.

    A network of a few million parameters has nothing to share out: with two threads or more its threads wait for each
    other at every layer, at full load, and a draw takes many times the processor time of one.
    """
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _means(maps: Tensor) -> Tensor:
    """The mean (B,) of each map (B, H, W), by itself: in one reduction, threads split the sums as the batch has it."""
    return torch.stack([one.mean() for one in maps])


def _checked(lr: Array) -> Array:
    lr = np.asarray(lr)
    if lr.ndim == 3:
        lr = lr[None]
    if lr.ndim != 4 or lr.shape[3] != 3 or 0 in lr.shape:
        raise RareflowError(f"found LR images of the shape {lr.shape}, expected (B, height, width, 3)")
    if not np.isfinite(lr).all():
        raise RareflowError("the LR holds values that are not finite; mask or fill them")
    low, high = float(lr.min()), float(lr.max())
    if low < 0 or high > 1:
        raise RareflowError(
            f"the LR runs from {low:.4g} to {high:.4g}, expected display values in [0, 1]; normalise it"
        )
    return lr.astype(np.float32)
