"""What the metrics with networks share: quiet construction without downloads, verified weights, inference.

The libraries build their networks by asking torchvision, timm or a hub for pretrained weights, print while they
do so and load pickles unchecked. Here a network is built empty, on the quiet, and filled from a verified file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import types
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import weights
from bench.core.errors import Unavailable, one_line
from bench.core.image import Array
from bench.metrics.base import Setting

if TYPE_CHECKING:
    import torch

_PATCHING = threading.RLock()  # attributes of other packages are replaced by one thread at a time


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Swallow what a library prints, warns or logs, and leave torch's and numpy's random states untouched."""
    import torch

    numpy_state = np.random.get_state()  # noqa: NPY002 - the libraries draw from the old global generator
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
            torch.random.fork_rng(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        np.random.set_state(numpy_state)  # noqa: NPY002


@contextlib.contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Give ``owner`` other attributes for the length of the block."""
    with _PATCHING:
        before = {name: getattr(owner, name) for name in attributes}
        for name, value in attributes.items():
            setattr(owner, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(owner, name, value)


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """No gradients, and convolutions that give the same number every time (no autotuning, no TF32)."""
    import torch

    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield


def as_tensor(image: Array, device: str) -> torch.Tensor:
    """An image (H, W, C) as a float32 tensor (1, C, H, W) on ``device``."""
    import torch

    chw = np.ascontiguousarray(np.moveaxis(image, 2, 0)[None], np.float32)
    return torch.from_numpy(chw).to(device)


def load_state(file: str, setting: Setting) -> dict[str, torch.Tensor]:
    """The state dict in a listed weights file, after its hash was checked; nothing in it is executed."""
    import torch

    path = weights.find(file, setting.weights_dir)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # unpickling a damaged file fails in many ways
        raise Unavailable(f"{file} cannot be read: {one_line(error, 120)}") from error
    if not isinstance(state, dict):
        raise Unavailable(f"{file} holds a {type(state).__name__}, not named tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def fill(network: torch.nn.Module, state: dict[str, torch.Tensor], file: str, *, assign: bool = False) -> None:
    """Load ``state`` into ``network``, every tensor of it and nothing else."""
    try:
        network.load_state_dict(state, strict=True, assign=assign)
    except RuntimeError as error:
        raise Unavailable(f"{file} does not fit its network: {one_line(error, 160)}") from error


def ready(network: torch.nn.Module, setting: Setting) -> torch.nn.Module:
    """``network`` frozen, in evaluation mode, on the device.

    On a processor its convolutions run with the channels last, which takes a tenth (VGG16) to a fifth (InceptionV3) of
    the time off and moves features by float32 rounding.
    """
    import torch

    network = network.requires_grad_(False).eval().to(setting.device)
    return network.to(memory_format=torch.channels_last) if setting.device == "cpu" else network


def trunk(constructor: str, file: str, setting: Setting) -> torch.nn.Module:
    """The convolutions of a torchvision classifier (``alexnet``, ``vgg16``), filled from a verified file.

    The classifier, nine tenths of the file, is never built: the network is laid out without memory first.
    """
    import torch
    import torchvision

    with torch.device("meta"):
        features = getattr(torchvision.models, constructor)(weights=None).features
    state = load_state(file, setting)
    fill(features, {k[9:]: v for k, v in state.items() if k.startswith("features.")}, file, assign=True)
    return features


@contextlib.contextmanager
def given_trunk(constructor: str, features: torch.nn.Module) -> Iterator[None]:
    """Within the block ``torchvision.models.<constructor>`` gives ``features`` instead of downloading a file."""
    import torchvision

    def construct(*args: Any, **kwargs: Any) -> Any:
        return types.SimpleNamespace(features=features)

    with replaced(torchvision.models, **{constructor: construct}):
        yield


@contextlib.contextmanager
def safe_loading() -> Iterator[None]:
    """Within the block ``torch.load`` reads tensors only, whatever its caller asked for; nothing is unpickled."""
    import torch

    original = torch.load

    def load(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "weights_only": True})

    with replaced(torch, load=load):
        yield
