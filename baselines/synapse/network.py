"""The package's networks with weights of ours: published ones, opened as safetensors, or random ones."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from synapse_sr import Flash, Pro
from synapse_sr.models import pro
from synapse_sr.models.flash import SynapseFlashX5
from synapse_sr.models.forward import S2Forward
from synapse_sr.pretrained import registry
from torch import Tensor

from bench.models import RfbenchError, load_state, randomise

BANDS = pro.INPUT_BANDS
SCALE = 5
KERNEL_CELLS = 89
"""The side of the sensor's kernels in the published files, in cells of 0.5 m."""
_KERNELS = "operator.weight"
_TARGET_M = 2.0
_SMALL_PRO = {"embed_dim": 32, "depths": [1], "num_heads": [1]}
_SMALL_KERNEL_CELLS = 39
_BLUR = 9  # kernels' sides in deviations: 5 m of the published side, about Sentinel-2's at 10 m


def network(kind: str, *, is_tiny: bool = False) -> SynapseFlashX5 | pro.SynapseProX5:
    """The network of ``flash`` or ``pro`` as the package makes it for its published files, or a small one."""
    if kind == "flash":
        size = {"feat": 8, "blocks": 2} if is_tiny else {"feat": 48, "blocks": 8}
        return SynapseFlashX5(**size, n_in=len(BANDS), chained=True)
    if not is_tiny:
        return pro.SynapseProX5()
    # The package knows one size of it, which is a constant of its module.
    with mock.patch.object(pro, "BACKBONE", pro.BACKBONE | _SMALL_PRO):
        return pro.SynapseProX5()


def published(kind: str, state: dict[str, Tensor], file: str, device: str) -> Any:
    """The package's model with the tensors of a published file, and the calibration that the package has of it.

    Raises
    ------
    RfbenchError
        One line, if the file lacks tensors of the network or the sensor's kernels, or has them in another shape.
    """
    kernels = _kernels(state, file)
    prefix = "model."
    net = network(kind)  # not on the meta device, where the package's Pro cannot be made
    load_state(net, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, file)
    return assembled(kind, net, kernels, device, registry.manifest(_name_of(file)))


def _kernels(state: dict[str, Tensor], file: str) -> Tensor:
    """The sensor's kernels, taken out of a file's tensors: one a band, square, with a cell in the middle."""
    found = state.pop(_KERNELS, None)
    shape = () if found is None else tuple(found.shape)
    if found is None or len(shape) != 4 or shape[:2] != (4, 1) or shape[2] != shape[3] or shape[2] % 2 == 0:
        said = f"no {_KERNELS}" if found is None else f"{_KERNELS} of {'x'.join(map(str, shape)) or 'one number'}"
        raise RfbenchError(
            f"{file}: found {said}, expected the sensor's kernels, 4x1xNxN with N odd; it is the checkpoint of another "
            "model or version"
        )
    return found


def random(kind: str, name: str, device: str, *, is_tiny: bool) -> Any:
    """The package's model with random weights, and a sensor whose kernels are Gaussian."""
    net = network(kind, is_tiny=is_tiny)
    randomise(net, name)
    kernels = gaussian_kernels(_SMALL_KERNEL_CELLS if is_tiny else KERNEL_CELLS)
    return assembled(kind, net, kernels, device, {"name": "random"})


def gaussian_kernels(side: int = KERNEL_CELLS) -> Tensor:
    """Kernels of sum 1 for four bands, float32 (4, 1, side, side)."""
    axis = torch.arange(side) - side // 2
    profile = torch.exp(-(axis**2) / (2 * (side / _BLUR) ** 2))
    kernel = profile[:, None] * profile[None]
    return (kernel / kernel.sum()).expand(4, 1, -1, -1).contiguous()


def assembled(
    kind: str, net: SynapseFlashX5 | pro.SynapseProX5, kernels: Tensor, device: str, about: dict[str, Any]
) -> Any:
    """The package's model of ``kind`` with a network, the sensor's kernels and what a manifest says."""
    if isinstance(net, SynapseFlashX5):
        net.reparameterise()
    made: Any = Flash if kind == "flash" else Pro
    model = made(net, S2Forward(kernels, target_m=_TARGET_M), device, about)
    model.model.requires_grad_(False)
    return model


def _name_of(file: str) -> str:
    """The name under which the package lists a file: synapse-flash-v1.safetensors is its flash-v1."""
    return file.removeprefix("synapse-").removesuffix(".safetensors")
