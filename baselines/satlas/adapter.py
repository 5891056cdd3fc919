"""Satlas's ESRGAN as a model of rfbench."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from baselines.satlas.spec import DATES, weights_file
from baselines.series import days_from, nearest
from bench.models import (
    RGB,
    Array,
    Batch,
    ModelSpec,
    Prediction,
    Published,
    RfbenchError,
    choice,
    load_state,
    randomise,
    read_state,
    whole_number,
)

if TYPE_CHECKING:
    from baselines.satlas.network import Network

WHITE = 0.3558
"""The reflectance that is 255 in the true-colour image of an L1C product, which upstream reads. 0 there is no data, so
the darkest pixel is 1."""
_LARGEST_TILE_PX = 4096
_STATE = "params_ema"  # the averaged parameters, which upstream's inference takes


class Satlas(Published):
    """
    Options
    -------
    dates : 1 (the LR itself), or 2, 4, 8, 16 of its time series: a network each. The frames are those without a black
        pixel that are nearest to the target's date, ones with black pixels only where there are too few, and where
        there are too few in all the last again. Upstream draws them at random without a seed, and takes a frame with a
        single dark channel for a black one.
    tile_px : LR pixels; larger images come in tiles (empty: whole; upstream runs tiles of 32).
    """

    system = "satlas-esrgan"

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.dates = int(choice(options, "dates", *map(str, DATES)))
        self.tile_px = whole_number(options, "tile_px", 8, _LARGEST_TILE_PX) if options["tile_px"] else None
        self.network: Network | None = None

    def label(self) -> str | None:
        name = super().label() or self.system
        return name if self.dates == 1 else f"{name}-{self.dates}-dates"

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = super().specialise(spec)
        mine = weights_file(self.dates)
        return dataclasses.replace(
            spec,
            weights={k: v for k, v in spec.weights.items() if k == mine},
            input_kind="image" if self.dates == 1 else "series",
            max_side_px=self.tile_px,
            overlap_px=min(spec.overlap_px, (self.tile_px or 32) // 2),
        )

    def load(self, device: str, dtype: str) -> None:
        import torch

        from baselines.satlas.network import FULL, SMALL, Network

        with torch.device("cpu" if self.is_random else "meta"):
            network = Network(self.dates, *(SMALL if self.is_tiny else FULL))
        if self.is_random:
            randomise(network, self.system)
        else:
            file = weights_file(self.dates)
            load_state(network, read_state(self.weights_path(file), _STATE, device), file)
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device

    def close(self) -> None:
        self.network = None

    def upscale(self, batch: Batch) -> Prediction:
        found = [self._one(batch, i) for i in range(len(batch.ids))]
        facts = tuple({"distinct_dates": float(n)} for _, n in found) if self.dates > 1 else ()
        return Prediction(mean=np.stack([image for image, _ in found]), facts=facts)

    def _one(self, batch: Batch, i: int) -> tuple[Array, int]:
        """One image at a time (in a batch, convolutions round otherwise), and how many dates it was made of."""
        import torch

        assert self.network is not None, "load() comes first"
        frames, distinct = self._frames(batch, i)
        bands = np.concatenate([np.moveaxis(true_colour(frame), 2, 0) for frame in frames])
        with torch.inference_mode():
            answer = self.network(torch.from_numpy(bands)[None].to(self.device))[0].clamp(0, 1)
        return np.ascontiguousarray(np.moveaxis(answer.cpu().numpy(), 0, 2)) * np.float32(WHITE), distinct

    def _frames(self, batch: Batch, i: int) -> tuple[Array, int]:
        """The frames that the network reads, reflectance (dates, h, w, 3), and how many are not repeats."""
        if self.dates == 1:
            return batch.images[i : i + 1], 1
        series = batch.series[i]
        missing = [b for b in RGB if b not in series.bands]
        if missing:
            raise RfbenchError(f"band {', '.join(missing)} is needed; the series has {' '.join(series.bands)}")
        values = series.values[..., [series.bands.index(b) for b in RGB]]
        days = days_from(series.dates, batch.target_dates[i] or batch.dates[i])
        whole = np.flatnonzero((values > 0).any(3).all((1, 2)))
        if len(whole) >= self.dates:
            values, days = values[whole], days[whole]
        kept, distinct = nearest(days, self.dates)
        return values[kept], distinct


def true_colour(reflectance: Array) -> Array:
    """Reflectance as ESA's 8-bit true-colour image divided by 255, float32 in [0, 1]."""
    return (np.rint(reflectance / WHITE * 255).clip(1, 255) / 255).astype(np.float32)
