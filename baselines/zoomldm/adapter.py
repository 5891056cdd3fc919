"""ZoomLDM as a model of the harness: a patch of 256x256 px whose corner is held to the LR."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from baselines.zoomldm import convert, features, network
from baselines.zoomldm.network import FACTOR, PATCH_PX, SLOTS, ZOOMS
from baselines.zoomldm.sampler import Constraint, Settings, sample
from baselines.zoomldm.spec import CHECKPOINT, DINO, SPEC
from bench.models import (
    Batch,
    ModelSpec,
    Prediction,
    Published,
    RfbenchError,
    choice,
    converted,
    load_state,
    number,
    randomise,
    read_state,
    resize,
    whole_number,
)

_REVISION = 1  # of the conversion
_FINEST_GSD_M = 1.0  # of NAIP's pixels, which zoom 0 has


class ZoomLDM(Published):
    """Options: ``condition`` (``dinov2``: the context of the enlarged LR's features; ``none``: that of no image,
    zeros), ``zoom`` (0 to 3, or ``auto``: by the answer's ground sampling distance, from 1 m at 0 to 8 m at 3), and
    those of ``sampler.Settings``, the published ones by default."""

    system = SPEC.name

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.condition = choice(options, "condition", "dinov2", "none")
        self.zoom = None if options["zoom"] == "auto" else whole_number(options, "zoom", 0, ZOOMS - 1)
        self.settings = Settings(
            stride=whole_number(options, "stride", 1, 1000),
            inner=whole_number(options, "inner", 0, 1000),
            rate=number(options, "rate", 0, 100),
            difference=number(options, "difference", 1e-6, 1),
            guidance=number(options, "guidance", 0, 100),
        )
        if self.settings.guidance and self.condition == "none":
            raise RfbenchError(
                "option guidance: found one with condition=none, which has nothing to guide to; leave it"
            )
        self.networks: dict[str, Any] = {}

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = super().specialise(spec)
        unused = (DINO,) if self.condition == "none" else ()
        return dataclasses.replace(spec, weights={k: v for k, v in spec.weights.items() if k not in unused})

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
            self._load_published(nets, size)
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

    def _load_published(self, nets: dict[str, Any], size: network.Size) -> None:
        path = self.weights_path(CHECKPOINT)
        names = {part: {k: v.shape for k, v in net.state_dict().items()} for part, net in nets.items()}
        whole = torch.nn.ModuleDict(nets)

        def make() -> dict[str, torch.Tensor]:
            return convert.state(read_state(path), names, size)

        load_state(whole, read_state(converted("zoomldm", _REVISION, {CHECKPOINT: path}, make)), CHECKPOINT)

    def _dino(self) -> Any:
        return features.load_dino(self.weights_path(DINO))

    def upscale(self, batch: Batch) -> Prediction:
        assert self.networks, "load() comes first"
        if max(batch.size) > PATCH_PX:
            raise RfbenchError(
                f"found an answer of {batch.size[0]}x{batch.size[1]} px, expected at most {PATCH_PX} px a side"
            )
        return Prediction(samples=np.stack([self._one(batch, i) for i in range(len(batch.ids))]))

    def _one(self, batch: Batch, i: int) -> np.ndarray:
        """The draws of one image, one by one: no draw depends on how many there are."""
        lr = batch.images[i]
        height, width = batch.size
        context = self._context(resize(lr, batch.size), self._zoom(batch))
        constraint = Constraint(_tensor(lr, self.device) * 2 - 1, batch.size)
        cells = PATCH_PX // FACTOR
        draws = []
        for seed in batch.seeds[i]:
            mine = dataclasses.replace(batch, images=batch.images[i : i + 1], seeds=((seed,),))
            noise = mine.noise(self.settings.noise_channels, height / FACTOR / lr.shape[0], (cells, cells))[0, 0]
            latent = sample(
                lambda x, t: self._predict(x, t, context), self._decode, constraint,
                _tensor(noise, self.device)[0], self.settings,
            )  # fmt: skip
            with torch.no_grad():
                image = (self._decode(latent)[0, :, :height, :width] / 2 + 0.5).clamp(0, 1)
            draws.append(image.permute(1, 2, 0).cpu().numpy())
        return np.stack(draws)

    def _zoom(self, batch: Batch) -> int:
        """The zoom whose pixels are nearest to the answer's: 2 m, which most tasks ask for, where nothing is known."""
        if self.zoom is not None:
            return self.zoom
        gsd_m = 2.0 if batch.gsd_m is None else batch.gsd_m * batch.images.shape[1] / batch.size[0]
        return min(max(round(math.log2(gsd_m / _FINEST_GSD_M)), 0), ZOOMS - 1)

    def _context(self, enlarged: np.ndarray, zoom: int) -> torch.Tensor:
        """The UNet's context (1, 65, width) from the enlarged LR, float32 (H, W, 3) in [0, 1]."""
        summariser = self.networks["summariser"]
        if self.condition == "none":
            return torch.zeros(1, SLOTS + 1, summariser.final_proj.out_features, device=self.device)
        h, w = enlarged.shape[:2]
        patch = np.pad(enlarged, ((0, PATCH_PX - h), (0, PATCH_PX - w), (0, 0)), mode="symmetric").clip(0, 1)
        found = features.features(self.networks["dino"], _tensor(patch, self.device), 2**zoom)
        with torch.no_grad():
            return summariser(network.standardised(found), zoom)

    def _predict(self, x: torch.Tensor, t: int, context: torch.Tensor) -> torch.Tensor:
        unet, w = self.networks["unet"], self.settings.guidance
        contexts = torch.cat([context, torch.zeros_like(context)]) if w else context
        latent = x.expand(len(contexts), -1, -1, -1).to(self.dtype)
        predicted = unet(latent, t, encoder_hidden_states=contexts.to(self.dtype), return_dict=False)[0].float()
        return (1 + w) * predicted[:1] - w * predicted[1:] if w else predicted

    def _decode(self, latent: torch.Tensor) -> torch.Tensor:
        return self.networks["vae"].decode(latent, return_dict=False)[0]


def _tensor(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """(H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))[None].to(device)
