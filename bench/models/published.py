"""What the adapters of other people's systems share: their own weights, or random ones to prove the code with.

Every system takes ``weights=published|random`` and ``size=full|tiny``. With random weights the whole code runs, from LR
to HR, and its images mean nothing: they are never shown under the system's own name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import TYPE_CHECKING, Any, ClassVar

from bench.core.errors import RfbenchError, one_line
from bench.models.spec import Adapter, ModelSpec

if TYPE_CHECKING:
    from torch import nn

WEIGHTS_OPTIONS = {"weights": "published", "size": "full"}
"""Options of every such system, for ``ModelSpec.default_options``."""
RANDOM_TINY = {"weights": "random", "size": "tiny"}
"""A small network with random weights, for ``ModelSpec.check_options``."""
RANDOM_KIND = "random r1"
"""What identities call random weights; raised with the numbers that ``randomise`` gives."""


class Published(Adapter):
    """The adapter of a published system; ``system`` is the name of its spec."""

    system: ClassVar[str]

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.is_random = choice(options, "weights", "published", "random") == "random"
        self.is_tiny = choice(options, "size", "full", "tiny") == "tiny"
        if self.is_tiny and not self.is_random:
            raise RfbenchError(f"size=tiny has no published weights; write {self.system}:weights=random,size=tiny")

    def label(self) -> str | None:
        return f"{self.system}-random-{self.options['size']}" if self.is_random else None

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        """Random weights need no files, and say nothing about the system."""
        return dataclasses.replace(spec, weights={}, unlike_paper="random weights") if self.is_random else spec

    def check_weights(self) -> None:
        """``load`` on torch's device ``meta``, where tensors have names, shapes and no numbers: no file is read beyond
        what names its tensors."""
        if not self.is_random:
            self.load("meta", "float32")
            self.close()

    def identity(self) -> dict[str, Any]:
        return {"weights_kind": RANDOM_KIND if self.is_random else "published"}


def randomise(module: nn.Module, name: str) -> None:
    """Give a network random weights that depend on ``name`` and on each parameter's own name and shape alone.

    Matrices and kernels are normal with a variance of 1 / fan-in, gains lie about 1, biases about 0. Nothing stays
    zero, so that no layer (such as ControlNet's first and last) is left out of a test.
    """
    import torch

    with torch.no_grad():
        for key, parameter in module.named_parameters():
            seed = int.from_bytes(hashlib.blake2b(f"{name}\x1f{key}".encode(), digest_size=8).digest(), "little") >> 1
            values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            if parameter.ndim > 1:
                values /= math.sqrt(max(1, math.prod(parameter.shape[1:])))
            else:
                values = values * 0.05 + (1.0 if key.endswith("weight") else 0.0)
            parameter.copy_(values.to(parameter.dtype))


def choice(options: dict[str, str], name: str, *allowed: str) -> str:
    """The option ``name``, one of ``allowed``; RfbenchError otherwise."""
    value = options[name]
    if value not in allowed:
        raise RfbenchError(f"option {name}: found '{one_line(value, 60)}', expected {' or '.join(allowed)}")
    return value


def whole_number(options: dict[str, str], name: str, low: int, high: int) -> int:
    """The option ``name`` as a whole number from ``low`` to ``high``; RfbenchError otherwise."""
    text = options[name]
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else low - 1
    if not low <= value <= high:
        raise RfbenchError(f"option {name}: found '{one_line(text, 60)}', expected a whole number from {low} to {high}")
    return value


def number(options: dict[str, str], name: str, low: float, high: float) -> float:
    """The option ``name`` as a number from ``low`` to ``high``; RfbenchError otherwise."""
    try:
        value = float(options[name])
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise RfbenchError(
            f"option {name}: found '{one_line(options[name], 60)}', expected a number from {low:g} to {high:g}"
        )
    return value
