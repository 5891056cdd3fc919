"""OpenSR as a model of rfbench."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from baselines.opensr.spec import PACKAGE
from bench.models import (
    Array,
    Batch,
    ModelSpec,
    Prediction,
    Published,
    RfbenchError,
    choice,
    load_state,
    number,
    randomise,
    read_state,
    whole_number,
)

WEIGHTS = "opensr-ldsrs2_v1_0_0.ckpt"
TINY_WINDOW_PX = 32
_TRAINED_STEPS = 1000
_LEAST_VARIATIONS = 4  # upstream's own bound
_NIR = {"band": ("R", "G", "B", "NIR"), "from_ndvi": ("R", "G", "B", "NDVI"), "copy_red": ("R", "G", "B")}
_NDVI_ROUNDING = 0.2  # resampling overshoots at edges; numbers in another scale are far beyond
_LARGEST_NDVI = 0.98  # NIR would be a hundred times R there; beyond lies noise


class OpenSR(Published):
    """Options: ``weights``, ``size``, ``steps``, ``eta``, ``temperature`` and ``histogram`` (upstream's, with its
    defaults), and

    nir : what the fourth band is. ``band``: the image's own NIR; ``from_ndvi``: R (1 + NDVI) / (1 - NDVI) of a band
        NDVI of the same acquisition; ``copy_red``: R. The last two answer in R, G, B alone, since their NIR is made up.
    uncertainty : K of upstream's uncertainty map, twice the deviation of K samples with eta 0 averaged over bands, as
        the map ``opensr_uncertainty``; 0 for none.
    """

    system = "opensr"

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.nir = choice(options, "nir", *_NIR)
        self.steps = whole_number(options, "steps", 1, _TRAINED_STEPS // 2)
        if _TRAINED_STEPS % self.steps:
            raise RfbenchError(
                f"option steps: found {self.steps}, expected a divisor of {_TRAINED_STEPS}, such as 50 or 100: "
                "upstream takes other steps than asked for otherwise"
            )
        self.eta = number(options, "eta", 0, 1)
        self.temperature = number(options, "temperature", 0, 10)
        self.histogram = choice(options, "histogram", "yes", "no") == "yes"
        self.variations = whole_number(options, "uncertainty", 0, 1000)
        if 0 < self.variations < _LEAST_VARIATIONS:
            raise RfbenchError(
                f"option uncertainty: found {self.variations}, expected {_LEAST_VARIATIONS} or more samples (upstream "
                "takes 15), or 0 for no map"
            )
        self.model: Any = None

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = dataclasses.replace(super().specialise(spec), bands=_NIR[self.nir])
        if not self.is_tiny:
            return spec
        side = TINY_WINDOW_PX
        return dataclasses.replace(spec, multiple=side, min_side_px=side, max_side_px=side, overlap_px=8)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"package": PACKAGE}

    def load(self, device: str, dtype: str) -> None:
        from baselines.opensr.network import Config, build, tiny

        config = tiny() if self.is_tiny else Config()
        self.model = build(config, device)
        if self.is_random:
            randomise(self.model.model, self.system)
        else:
            # As upstream: a perceptual loss that was saved with the network is left out.
            state = read_state(self.weights_path(WEIGHTS), "state_dict", device)
            load_state(self.model.model, {k: v for k, v in state.items() if "loss" not in k}, WEIGHTS)
            self.model.model.to(device)
        self.model.requires_grad_(False)
        self.device = device

    def close(self) -> None:
        self.model = None

    def upscale(self, batch: Batch) -> Prediction:
        """Image by image and draw by draw, so that no batch moves a bit."""
        bands = slice(None) if self.nir == "band" else slice(3)
        images = [self._four_bands(image) for image in batch.images]
        samples = [list(self._samples(batch, i, image, self.eta)) for i, image in enumerate(images)]
        found = np.stack([np.stack(of_one) for of_one in samples])[..., bands]
        maps = {"opensr_uncertainty": self._uncertainty(batch, images)} if self.variations else {}
        return Prediction(samples=np.ascontiguousarray(found), maps=maps)

    def _four_bands(self, image: Array) -> Array:
        """(h, w, 3 or 4) to R, G, B, NIR, float32 (h, w, 4)."""
        if self.nir == "band":
            return image
        red = image[..., 0]
        if self.nir == "copy_red":
            return np.concatenate([image, red[..., None]], axis=2)
        ndvi = image[..., 3]
        if np.abs(ndvi).max() > 1 + _NDVI_ROUNDING:
            raise RfbenchError(
                f"nir=from_ndvi: band NDVI runs from {ndvi.min():.4g} to {ndvi.max():.4g} once scaled and offset as "
                "the other bands, expected -1 to 1; store it so (with scale 10000 as NDVI x 10000)"
            )
        ndvi = np.clip(ndvi, -1, _LARGEST_NDVI)
        return np.concatenate([image[..., :3], (red * (1 + ndvi) / (1 - ndvi))[..., None]], axis=2)

    def _samples(self, batch: Batch, index: int, image: Array, eta: float) -> Iterator[Array]:
        """float32 (4h, 4w, 4) for each draw of one image of the batch."""
        import torch

        from baselines.opensr.network import noise_channels, sample

        assert self.model is not None, "load() comes first"
        lr = torch.from_numpy(np.moveaxis(image, 2, 0)[None].copy()).to(self.device)

        def noises() -> Iterator[torch.Tensor]:
            # One draw's noise at a time: that of 100 steps is as large as the network's activations.
            for seed in batch.seeds[index]:
                of_one = dataclasses.replace(batch, images=batch.images[index : index + 1], seeds=((seed,),))
                noise = of_one.noise(noise_channels(self.steps))[0, 0]
                yield torch.from_numpy(np.moveaxis(noise, 2, 0)[None].copy()).to(self.device)

        with torch.inference_mode():
            for found in sample(
                self.model, lr, noises(), steps=self.steps, eta=eta, temperature=self.temperature,
                histogram=self.histogram,
            ):  # fmt: skip
                yield np.moveaxis(found[0].float().cpu().numpy(), 0, 2).astype(np.float32)

    def _uncertainty(self, batch: Batch, images: list[Array]) -> Array:
        """Upstream's map for each image, float32 (N, 4h, 4w), from samples with seeds of their own."""
        import torch

        from baselines.opensr.network import uncertainty

        seeds = tuple(tuple(_variation(mine[0], k) for k in range(self.variations)) for mine in batch.seeds)
        varied = dataclasses.replace(batch, seeds=seeds)
        maps = []
        for i, image in enumerate(images):
            samples = np.stack([np.moveaxis(s, 2, 0) for s in self._samples(varied, i, image, 0.0)])
            maps.append(uncertainty(torch.from_numpy(samples)).numpy())
        return np.stack(maps)


def _variation(seed: int, number: int) -> int:
    """The seed of one of the samples behind a map, from that of the image's first draw."""
    text = f"{seed}/uncertainty/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
