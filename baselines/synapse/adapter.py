"""SYNAPSE Flash and Pro as models of rfbench."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any, ClassVar

import numpy as np

from baselines.synapse.spec import FLASH_FILE, PACKAGE, PRO_FILE
from bench.models import Array, Batch, ModelSpec, Prediction, Published, choice, read_state

_HALO_PX = 16
_SMALL_SIDE_PX = 12  # where the sensor's kernels are small, as the network is
_TAKEN_FOR_DN = 2.0
"""The package takes an image whose largest number is above this for DN, which it divides by 10,000."""
_DN = 10_000.0
_DEVIATION = math.sqrt(math.pi / 2)
"""Of a Gaussian, in units of its mean absolute error, which is what the package predicts."""


class Synapse(Published):
    """Options: ``weights``, ``size``, and ``tta`` (``yes``: the mean over eight turns and flips, as the package can).

    The answer has a standard deviation, from the package's expected absolute error (its ``uncertainty()``, fitted by
    its author; with random weights the network's own error scale). ``synapse_support`` is its map of what the
    measurement determines (2), between (1), and what the network made up (0); ``fact:synapse_consistency`` how far the
    answer, seen through the model of the sensor, lies from the LR: the worst band's root mean square, in units of the
    sensor's noise. An image without a valid pixel where the sensor's kernels lie wholly within has no such number.
    """

    kind: ClassVar[str]
    file: ClassVar[str]
    tile_px: ClassVar[int]
    """What the package chooses by its 6 GB for processors; fixed, so that no number depends on a machine's memory."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.turns = choice(options, "tta", "no", "yes") == "yes"
        self.model: Any = None

    def label(self) -> str | None:
        name = super().label()
        return f"{name or self.system}-tta" if self.turns else name

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = super().specialise(spec)
        return dataclasses.replace(spec, min_side_px=_SMALL_SIDE_PX) if self.is_tiny else spec

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"package": PACKAGE}

    def load(self, device: str, dtype: str) -> None:
        from baselines.synapse import network

        if self.is_random:
            self.model = network.random(self.kind, self.system, device, is_tiny=self.is_tiny)
        else:
            self.model = network.published(self.kind, read_state(self.weights_path(self.file)), self.file, device)

    def close(self) -> None:
        self.model = None

    def upscale(self, batch: Batch) -> Prediction:
        """Image by image: the package solves for one at a time."""
        results = [self._one(image) for image in batch.images]
        return Prediction(
            mean=np.stack([_last(r.image) for r in results]),
            std=np.stack([_last(self._deviation(r)) for r in results]),
            maps={"synapse_support": np.stack([r.support.astype(np.float32) for r in results])},
            facts=tuple(_facts(r) for r in results),
        )

    def _one(self, image: Array) -> Any:
        """The package's result for reflectance, float32 (h, w, 10)."""
        from baselines.synapse.network import BANDS

        assert self.model is not None, "load() comes first"
        values = np.moveaxis(image, 2, 0)
        with warnings.catch_warnings():
            # That answer and LR disagree is the fact above.
            warnings.filterwarnings("ignore", "the output disagrees", RuntimeWarning)
            return self.model.super_resolve(
                values * np.float32(_DN) if values.max() > _TAKEN_FOR_DN else values, band_names=BANDS, scl=None,
                offset=0.0, tile=self.tile_px, halo=_HALO_PX, batch=1, context=False, progress=False, tta=self.turns,
            )  # fmt: skip

    def _deviation(self, result: Any) -> Array:
        """float32 (4, 5h, 5w) in R G B NIR, reflectance."""
        error = result.confidence if self.is_random else result.uncertainty()
        return (error * _DEVIATION).astype(np.float32)


def _facts(result: Any) -> dict[str, float]:
    worst = float(np.max([*result.consistency.values()]))  # not a number where one is none
    return {"synapse_consistency": worst} if math.isfinite(worst) else {}


def _last(values: Array) -> Array:
    """Bands first to bands last."""
    return np.ascontiguousarray(np.moveaxis(values, 0, 2))


class Flash(Synapse):
    """The convolutional network."""

    system, kind, file, tile_px = "synapse-flash", "flash", FLASH_FILE, 256


class Pro(Synapse):
    """The state-space network, 14.4 M parameters; in plain torch unless the package finds a faster scan."""

    system, kind, file, tile_px = "synapse-pro", "pro", PRO_FILE, 96
