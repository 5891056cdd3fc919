"""SEN2SR and SEN2SRLite as models of rfbench."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from baselines.sen2sr.spec import LARGE_MASK, LARGE_NETWORK, MASK, NETWORK, WINDOW_PX
from bench.models import (
    Batch,
    ModelSpec,
    Prediction,
    Published,
    RfbenchError,
    choice,
    load_state,
    randomise,
    read_state,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

_MASK_NAME = "weights"  # of the only tensor of the mask's file
_RANDOM_GAIN = 0.1
_SMALL_WINDOW_PX = 32  # of the small large network, which is slow otherwise


class Constrained(Published):
    """Options: ``weights``, ``size``, and ``constraint`` (``no`` shows the network's own answer).

    Larger images come in windows of 128x128 px that overlap by 32. The package puts the windows side by side and cuts
    the overlap; here they are blended like every model's.
    """

    network_file: ClassVar[str]
    mask_file: ClassVar[str]

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.is_constrained = choice(options, "constraint", "yes", "no") == "yes"
        self.network: nn.Module | None = None
        self.mask: torch.Tensor | None = None

    @property
    def window_px(self) -> int:
        """The side of an LR, for which the mask is made."""
        return WINDOW_PX

    def label(self) -> str | None:
        return super().label() or (None if self.is_constrained else f"{self.system}-unconstrained")

    @abstractmethod
    def made(self) -> nn.Module:
        """The network, without its weights."""

    def finished(self, network: nn.Module) -> None:
        """What is left to do once the weights are there."""

    def load(self, device: str, dtype: str) -> None:
        import torch

        from baselines.sen2sr.network import SCALE, usual_mask

        with torch.device("cpu" if self.is_random else "meta"):
            network = self.made()
        side = SCALE * self.window_px
        mask = usual_mask(side)
        if self.is_random:
            randomise(network, self.system)
        else:
            state = read_state(self.weights_path(self.network_file), device=device)
            load_state(network, state, self.network_file)
            found = read_state(self.weights_path(self.mask_file), device=device)
            if found.keys() != {_MASK_NAME} or found[_MASK_NAME].shape != mask.shape:
                raise RfbenchError(
                    f"{self.mask_file}: expected one tensor '{_MASK_NAME}' of {side}x{side}; it is another model's file"
                )
            mask = found[_MASK_NAME].float()
        self.finished(network)
        self.network = network.to(device).eval().requires_grad_(False)
        self.mask = mask.to(device)

    def close(self) -> None:
        self.network = self.mask = None

    def upscale(self, batch: Batch) -> Prediction:
        return Prediction(mean=np.stack([self._one(image) for image in batch.images]))

    def _one(self, image: np.ndarray) -> np.ndarray:
        """One image at a time: in a batch, convolutions round otherwise.

        float32 (128, 128, 4) to (512, 512, 4), reflectance.
        """
        import torch

        from baselines.sen2sr.network import constrained

        assert self.network is not None and self.mask is not None, "load() comes first"
        lr = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))[None].to(self.mask.device)
        with torch.inference_mode():
            answer = self.network(lr).clamp(min=0)
            if self.is_constrained:
                answer = constrained(answer, lr, self.mask)
            return np.ascontiguousarray(np.moveaxis(answer[0].cpu().numpy(), 0, 2))


class Sen2srLite(Constrained):
    """The small convolutional network."""

    system, network_file, mask_file = "sen2sr-lite", NETWORK, MASK

    def made(self) -> nn.Module:
        from baselines.sen2sr import network

        return network.Network(*(network.SMALL if self.is_tiny else network.FULL))

    def finished(self, network: nn.Module) -> None:
        from baselines.sen2sr.network import Network

        assert isinstance(network, Network), "made() says so"
        network.merge()


class Sen2sr(Constrained):
    """The state-space network."""

    system, network_file, mask_file = "sen2sr", LARGE_NETWORK, LARGE_MASK

    @property
    def window_px(self) -> int:
        return _SMALL_WINDOW_PX if self.is_tiny else WINDOW_PX

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        side = self.window_px
        return dataclasses.replace(
            super().specialise(spec), multiple=side, min_side_px=side, max_side_px=side, overlap_px=side // 4
        )

    def made(self) -> nn.Module:
        from baselines.sen2sr import mamba

        return mamba.Network(*(mamba.SMALL if self.is_tiny else mamba.FULL))

    def finished(self, network: nn.Module) -> None:
        from baselines.sen2sr.mamba import Network

        assert isinstance(network, Network), "made() says so"
        if self.is_random:  # what it adds to the LR stays small, as what a trained one adds
            for parameter in network.conv_last.parameters():
                parameter.data *= _RANDOM_GAIN
