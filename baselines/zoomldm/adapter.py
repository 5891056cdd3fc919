"""ZoomLDM as a model of rfbench: patches of 256x256 px, sampled together and held to the LR."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, cast

import numpy as np
import torch

from baselines.zoomldm import condition, convert, features, finish, network
from baselines.zoomldm.network import FACTOR, PATCH_PX, SLOTS, ZOOMS
from baselines.zoomldm.sampler import CELLS, Constraint, Settings, joined, parted, sample
from baselines.zoomldm.spec import CHECKPOINT, DINO, SPEC
from bench.models import (
    Batch,
    ModelSpec,
    Prediction,
    Published,
    RfbenchError,
    choice,
    converted_state,
    load_state,
    number,
    randomise,
    read_state,
    resize,
    whole_number,
)

_REVISION = 1  # of the conversion
_FINEST_GSD_M = 1.0  # of NAIP's pixels, which zoom 0 has
_AT_ONCE = 4  # patches that go through a network together


class ZoomLDM(Published):
    """The LR is an image of a coarse zoom, the answer a grid of patches of a fine one.

    Options
    -------
    condition : where the features that describe the image come from. ``inversion``: those with which the model explains
        the LR best, found in ``invert_steps`` steps, as its super-resolution does; ``dinov2``: DINOv2's of the enlarged
        LR, as its training did with HR images; ``none``: the context of no image, zeros.
    zoom : of the answer, 0 to 3; ``auto``: by its ground sampling distance, from 1 m at 0 to 8 m at 3.
    scales : zooms between the answer and the LR, 1 to 3 (answers of up to 512, 1024, 2048 px at once); ``auto``: by
        the task's scale; 0: the LR enlarged to the answer's zoom, and a single patch.
    guidance : ``auto`` is 2, and 0 without a condition, which has nothing to guide to.
    finish : the time from which the joined patches are sampled again through overlapping windows, 0 to leave it out.
    push, stride, inner, rate, difference : see ``sampler.Settings``.
    """

    system = SPEC.name

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.condition = choice(options, "condition", "inversion", "dinov2", "none")
        self.zoom = None if options["zoom"] == "auto" else whole_number(options, "zoom", 0, ZOOMS - 1)
        self.between = None if options["scales"] == "auto" else whole_number(options, "scales", 0, ZOOMS - 1)
        if (self.zoom or 0) + (self.between or 0) > ZOOMS - 1:
            raise RfbenchError(
                f"options zoom and scales: found {self.zoom} and {self.between}, expected together at most {ZOOMS - 1},"
                " the model's coarsest zoom"
            )
        self.invert_steps = whole_number(options, "invert_steps", 1, 10_000)
        self.finish = whole_number(options, "finish", 0, 1000)
        self.settings = Settings(
            stride=whole_number(options, "stride", 1, 1000),
            inner=whole_number(options, "inner", 0, 1000),
            rate=number(options, "rate", 0, 100),
            difference=number(options, "difference", 1e-6, 1),
            guidance=self._guidance(),
            push=cast(Literal["encoder", "decoder"], choice(options, "push", "encoder", "decoder")),
        )
        self.networks: dict[str, Any] = {}

    def _guidance(self) -> float:
        if self.options["guidance"] == "auto":
            return 0.0 if self.condition == "none" else Settings.guidance
        found = number(self.options, "guidance", 0, 100)
        if found and self.condition == "none":
            raise RfbenchError(
                "option guidance: found one with condition=none, which has nothing to guide to; leave it"
            )
        return found

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = super().specialise(spec)
        unused = () if self.condition == "dinov2" else (DINO,)
        return dataclasses.replace(
            spec,
            weights={k: v for k, v in spec.weights.items() if k not in unused},
            max_out_side_px=PATCH_PX << self._zooms_at_most(),
        )

    def _zooms_at_most(self) -> int:
        """How many zooms there may be between the answer and the LR where the scale leaves it open."""
        if self.between is not None:
            return self.between
        return 1 if self.zoom is None else min(1, ZOOMS - 1 - self.zoom)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"settings": dataclasses.asdict(self.settings)}

    def load(self, device: str, dtype: str) -> None:
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        size = network.SMALL if self.is_tiny else network.FULL
        builders = {"unet": network.build_unet, "vae": network.build_vae, "summariser": network.Summariser}
        with torch.device("cpu" if self.is_random else "meta"):
            nets: dict[str, Any] = {part: builders[part](size) for part in convert.PARTS}
        if self.is_random:
            for part, net in nets.items():
                randomise(net, f"{self.system}/{part}")
        else:
            self._load_published(nets, size, device)
        if self.condition == "dinov2":
            nets["dino"] = features.build_dino(small=self.is_tiny) if self.is_random else self._dino()
            if self.is_random:
                randomise(nets["dino"], f"{self.system}/dino")
        for part, net in nets.items():
            # The sampler's finite differences and gradients need float32 outside the UNet.
            nets[part] = torch.nn.Module.to(
                net.eval().requires_grad_(False), self.device, self.dtype if part == "unet" else torch.float32
            )
        self.networks = nets

    def close(self) -> None:
        self.networks = {}

    def _load_published(self, nets: dict[str, Any], size: network.Size, device: str) -> None:
        path = self.weights_path(CHECKPOINT)
        names = {part: {k: v.shape for k, v in net.state_dict().items()} for part, net in nets.items()}
        whole = torch.nn.ModuleDict(nets)

        def make() -> dict[str, torch.Tensor]:
            return convert.state(read_state(path, device=device), names, size)

        load_state(whole, converted_state("zoomldm", _REVISION, {CHECKPOINT: path}, make, device), CHECKPOINT)

    def _dino(self) -> Any:
        return features.load_dino(self.weights_path(DINO))

    def upscale(self, batch: Batch) -> Prediction:
        assert self.networks, "load() comes first"
        zoom, between = self._zooms(batch)
        if max(batch.size) > PATCH_PX << between:
            raise RfbenchError(
                f"found an answer of {batch.size[0]}x{batch.size[1]} px, expected at most {PATCH_PX << between} a side"
            )
        return Prediction(samples=np.stack([self._one(batch, i, zoom, between) for i in range(len(batch.ids))]))

    def _one(self, batch: Batch, i: int, zoom: int, between: int) -> np.ndarray:
        """The draws of one image, one by one: no draw depends on how many there are."""
        lr = batch.images[i]
        height, width = batch.size
        grid = (-(-height // PATCH_PX), -(-width // PATCH_PX))
        constraint = Constraint(_tensor(lr, self.device) * 2 - 1, batch.size, grid)
        coarse = self._coarse(lr, batch.size, between)
        settings, draws = self.settings, []
        for seed in batch.seeds[i]:
            mine = dataclasses.replace(batch, images=batch.images[i : i + 1], seeds=((seed,),))
            found = self._features(mine, coarse, zoom, between)
            channels = settings.noise_channels, finish.noise_channels(self.finish, settings.stride)
            cells = (grid[0] * CELLS, grid[1] * CELLS)
            noise = mine.noise(sum(channels), height / FACTOR / lr.shape[0], cells)[0, 0]
            start, later = _tensor(noise, self.device).split(channels, dim=1)
            latent = self._sampled(found, zoom, constraint, start)
            if self.finish:
                latent = self._finished(found, zoom, latent, later)
            with torch.no_grad():
                image = (finish.decode(latent, self._decode)[0, :, :height, :width] / 2 + 0.5).clamp(0, 1)
            draws.append(image.permute(1, 2, 0).cpu().numpy())
        return np.stack(draws)

    def _zooms(self, batch: Batch) -> tuple[int, int]:
        """The answer's zoom, and how many zooms coarser the LR is taken to be.

        The answer's is that of the nearest pixels, 2 m where nothing is known. The LR's is the last that is not coarser
        than the LR is, so that no pixel of it is lost; there is at least one zoom between them.
        """
        gsd_m = 2.0 if batch.gsd_m is None else batch.gsd_m * batch.images.shape[1] / batch.size[0]
        nearest = round(math.log2(gsd_m / _FINEST_GSD_M))
        zoom = min(max(nearest, 0), ZOOMS - 1 - (self.between or 0)) if self.zoom is None else self.zoom
        if self.between is not None:
            return zoom, self.between
        if self.zoom is None:
            zoom = min(zoom, ZOOMS - 2)
        scale = min(out / side for out, side in zip(batch.size, batch.images.shape[1:3], strict=True))
        return zoom, min(max(int(math.log2(scale) + 1e-6), 1), ZOOMS - 1 - zoom)

    def _coarse(self, lr: np.ndarray, size: tuple[int, int], between: int) -> torch.Tensor:
        """The LR as a patch of its own zoom, float (1, 3, 256, 256) in [0, 1], mirrored where it ends."""
        h, w = (max(1, round(n / 2**between)) for n in size)
        same = resize(lr, (h, w)).clip(0, 1)
        return _tensor(np.pad(same, ((0, PATCH_PX - h), (0, PATCH_PX - w), (0, 0)), mode="symmetric"), self.device)

    def _features(self, mine: Batch, coarse: torch.Tensor, zoom: int, between: int) -> torch.Tensor | None:
        """The features of all that the LR covers, float (D, side, side); None where there is no condition."""
        if self.condition == "none":
            return None
        side = 2 ** (zoom + between)
        if self.condition == "dinov2":
            return features.features(self.networks["dino"], coarse, side)[0]

        def denoise(noisy: torch.Tensor, t: int, found: torch.Tensor) -> torch.Tensor:
            return self._unet(noisy, t, self.networks["summariser"](found, zoom + between))

        with torch.no_grad():
            latent = self._encode(coarse * 2 - 1)
        width = self.networks["summariser"].dim_reduce.in_features
        start = mine.noise(width, size=(side, side))[0, 0]
        noise = mine.noise(condition.noise_channels(self.invert_steps), size=(CELLS, CELLS))[0, 0]
        return condition.invert(latent, denoise, *(_tensor(n, self.device)[0] for n in (start, noise)))

    def _sampled(
        self, found: torch.Tensor | None, zoom: int, constraint: Constraint, noise: torch.Tensor
    ) -> torch.Tensor:
        """The latent of the whole grid of patches, (1, C, rows * 64, columns * 64)."""
        rows, columns = constraint.grid
        side = 2**zoom
        parts = [
            None if found is None else found[:, r * side : (r + 1) * side, c * side : (c + 1) * side]
            for r in range(rows)
            for c in range(columns)
        ]
        contexts = torch.cat([self._context(part, zoom) for part in parts])
        drawn = parted(noise, constraint.grid)
        patches = sample(
            lambda x, t: self._guided(x, t, contexts),
            lambda images: _in_parts(self._encode, images),
            lambda latents: _in_parts(self._decode, latents),
            constraint, drawn, self.settings,
        )  # fmt: skip
        return joined(patches, constraint.grid)

    def _finished(
        self, found: torch.Tensor | None, zoom: int, latent: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        contexts = {place: self._context(self._at(found, zoom, *place), zoom) for place in finish.windows(latent)}
        return finish.sharpen(
            latent, lambda x, t, row, column: self._guided(x, t, contexts[row, column]), noise, self.finish,
            self.settings.stride,
        )  # fmt: skip

    def _at(self, found: torch.Tensor | None, zoom: int, row: int, column: int) -> torch.Tensor | None:
        """The features of a window from those of the whole, interpolated where it lies between them."""
        if found is None:
            return None
        side = 2**zoom
        places = [(row * side / CELLS + r, column * side / CELLS + c) for r in range(side) for c in range(side)]
        return torch.stack([condition.between(found, *place) for place in places], dim=1).unflatten(1, (side, side))

    def _context(self, found: torch.Tensor | None, zoom: int) -> torch.Tensor:
        """The UNet's context (1, 65, width) of a patch with these features."""
        summariser = self.networks["summariser"]
        if found is None:
            return torch.zeros(1, SLOTS + 1, summariser.final_proj.out_features, device=self.device)
        with torch.no_grad():
            return summariser(network.standardised(found[None]), zoom)

    def _guided(self, x: torch.Tensor, t: int, contexts: torch.Tensor) -> torch.Tensor:
        """The noise in latents (P, C, 64, 64), each under its own context."""
        w = self.settings.guidance
        with torch.no_grad():
            parts = zip(x.split(_AT_ONCE), contexts.split(_AT_ONCE), strict=True)
            found = []
            for latents, context in parts:
                if not w:
                    found.append(self._unet(latents, t, context))
                    continue
                both = self._unet(torch.cat([latents] * 2), t, torch.cat([context, torch.zeros_like(context)]))
                given, free = both.chunk(2)
                found.append((1 + w) * given - w * free)
            return torch.cat(found)

    def _unet(self, x: torch.Tensor, t: int, context: torch.Tensor) -> torch.Tensor:
        unet = self.networks["unet"]
        return unet(x.to(self.dtype), t, encoder_hidden_states=context.to(self.dtype), return_dict=False)[0].float()

    def _encode(self, image: torch.Tensor) -> torch.Tensor:
        return self.networks["vae"].encode(image, return_dict=False)[0]

    def _decode(self, latent: torch.Tensor) -> torch.Tensor:
        return self.networks["vae"].decode(latent, return_dict=False)[0]


def _in_parts(network: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([network(part) for part in x.split(_AT_ONCE)])


def _tensor(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """(H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))[None].to(device)
