"""What metrics of sets share that look at the features of a network of torch-fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bench.core.image import Array
from bench.metrics.base import Estimate, Features, Metric, Reference
from bench.metrics.networks import inference
from bench.metrics.software import TORCH_FIDELITY


class OfFeatures(Metric):
    """A metric of the features that one network makes of both sides of a set.

    Images enter the network as 8-bit RGB (rounded here where the protocol rounds otherwise) and one by one, so that no
    feature depends on what is scored beside it. Metrics of one ``extractor`` share what it makes of an image.

    ``extractor`` is the network's name, and the key of an image's features in the cache of its ``Reference`` or
    ``Estimate``; ``setup`` puts the network itself into ``_network``.
    """

    group = "realism"
    level = "set"
    min_images = 2
    package = "torch_fidelity"
    software = (TORCH_FIDELITY,)
    extractor: ClassVar[str]
    _network: Any

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """Both images' features. One extraction serves all metrics of the network, one of the reference all models."""
        assert reference.display is not None
        return {
            "prediction": self._shared(estimate.cache, estimate.display),
            "reference": self._shared(reference.cache, reference.display),
        }

    def _shared(self, cache: dict[str, Any], display: Array) -> Array:
        key = f"{self.extractor}@{self.setting.device}"
        if key not in cache:
            cache[key] = self._extract(display)
        features: Array = cache[key]
        return features

    def _extract(self, display: Array) -> Array:
        import torch

        eight_bit = np.rint(np.clip(display, 0.0, 1.0) * 255.0).astype(np.uint8)
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(eight_bit, 2, 0)[None])).to(self.setting.device)
        with inference():
            return self._network(x)[0][0].cpu().numpy().astype(np.float32)


class Side(Sequence[np.ndarray]):
    """The vectors of one side (``prediction`` or ``reference``) of a set, each read when it is asked for."""

    def __init__(self, features: Sequence[Features], side: str) -> None:
        self._features, self._side = features, side

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, i: Any) -> Any:
        return self._features[i][self._side]


def both_sides(features: Sequence[Features]) -> tuple[Side, Side]:
    """The predictions' vectors and the references'."""
    return Side(features, "prediction"), Side(features, "reference")
