"""AdcSR as a model of rfbench."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.adcsr import convert
from bench.models import (
    Batch,
    ModelSpec,
    Prediction,
    Published,
    converted_state,
    load_state,
    pad,
    padded_size,
    randomise,
    whole_number,
)

if TYPE_CHECKING:
    from baselines.adcsr.network import Network

_LARGEST_TILE_PX = 4096


class AdcSR(Published):
    """Options: ``weights``, ``size``, and ``tile_px`` (LR pixels; larger images come in tiles; empty: whole, as
    upstream).

    Upstream takes sides that are multiples of 16 only. Other images are padded here by reflection and cropped, and the
    colour fix sees the unpadded LR and the cropped answer, so padding moves no colour.
    """

    system = "adcsr"

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.tile_px = whole_number(options, "tile_px", 16, _LARGEST_TILE_PX) if options["tile_px"] else None
        self.network: Network | None = None

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = super().specialise(spec)
        return dataclasses.replace(spec, max_side_px=self.tile_px, overlap_px=min(16, (self.tile_px or 32) // 2))

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"converter": convert.REVISION}

    def load(self, device: str, dtype: str) -> None:
        import torch

        from baselines.adcsr.network import TINY, Config, Network

        config = TINY if self.is_tiny else Config()
        with torch.device("cpu" if self.is_random else "meta"):
            network = Network(config)
        if self.is_random:
            randomise(network, self.system)
        else:
            files = {name: self.weights_path(name) for name in (convert.NET, convert.DECODER)}
            state = converted_state(
                self.system,
                convert.REVISION,
                files,
                lambda: convert.state(files[convert.NET], files[convert.DECODER], device),
                device,
            )
            load_state(network, state, " and ".join(files))
        self.network = network.to(device=device, dtype=getattr(torch, dtype)).eval().requires_grad_(False)
        self.device, self.dtype = device, getattr(torch, dtype)

    def close(self) -> None:
        self.network = None

    def upscale(self, batch: Batch) -> Prediction:
        return Prediction(mean=np.stack([self._one(image) for image in batch.images]))

    def _one(self, image: np.ndarray) -> np.ndarray:
        """One image at a time: in a batch, convolutions round otherwise.

        float32 (h, w, 3) in [0, 1] to (4h, 4w, 3) in [0, 1].
        """
        import torch

        from baselines.adcsr.network import LR_MULTIPLE, match_colours

        assert self.network is not None, "load() comes first"
        h, w, _ = image.shape
        size = padded_size(h, w, multiple=LR_MULTIPLE, min_side_px=LR_MULTIPLE, square=False)
        padded = torch.from_numpy(np.moveaxis(pad(image[None], *size), 3, 1).copy()).to(self.device) * 2 - 1
        with torch.inference_mode():
            answer = self.network(padded.to(self.dtype)).float()[:, :, : 4 * h, : 4 * w]
            answer = match_colours(answer, padded[:, :, :h, :w]) / 2 + 0.5
            return np.ascontiguousarray(np.moveaxis(answer.clamp(0, 1)[0].cpu().numpy(), 0, 2))
