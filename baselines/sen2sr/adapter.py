"""SEN2SRLite as a model of rfbench."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from baselines.sen2sr.spec import MASK, NETWORK
from bench.models import Batch, Prediction, Published, RfbenchError, choice, load_state, randomise, read_state

if TYPE_CHECKING:
    import torch

    from baselines.sen2sr.network import Network

_MASK_NAME = "weights"  # of the only tensor of the mask's file


class Sen2srLite(Published):
    """Options: ``weights``, ``size``, and ``constraint`` (``no`` shows the network's own answer).

    Larger images come in windows of 128x128 px that overlap by 32. The package puts the windows side by side and cuts
    the overlap; here they are blended like every model's.
    """

    system = "sen2sr-lite"

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.is_constrained = choice(options, "constraint", "yes", "no") == "yes"
        self.network: Network | None = None
        self.mask: torch.Tensor | None = None

    def label(self) -> str | None:
        return super().label() or (None if self.is_constrained else "sen2sr-lite-unconstrained")

    def load(self, device: str, dtype: str) -> None:
        import torch

        from baselines.sen2sr.network import FULL, SCALE, SMALL, WINDOW_PX, Network, usual_mask

        with torch.device("cpu" if self.is_random else "meta"):
            network = Network(*(SMALL if self.is_tiny else FULL))
        side = SCALE * WINDOW_PX
        mask = usual_mask(side)
        if self.is_random:
            randomise(network, self.system)
        else:
            load_state(network, read_state(self.weights_path(NETWORK), device=device), NETWORK)
            found = read_state(self.weights_path(MASK), device=device)
            if found.keys() != {_MASK_NAME} or found[_MASK_NAME].shape != mask.shape:
                raise RfbenchError(
                    f"{MASK}: expected one tensor '{_MASK_NAME}' of {side}x{side}; it is another model's file"
                )
            mask = found[_MASK_NAME].float()
        network.merge()
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
