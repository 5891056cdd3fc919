"""SAMSR's side in rfbench: which files it needs. The model itself is in ``shim``, which runs in the guest."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.models import GuestAdapter, ModelSpec, choice


class SamSR(GuestAdapter):
    """``version``: v1 (for real images) or v2 (their ImageNet test); ``weights=random`` needs no files."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.is_random = choice(options, "weights", "published", "random") == "random"
        choice(options, "version", "v1", "v2")

    def label(self) -> str | None:
        if self.is_random:
            return "samsr-random"
        return "samsr-v2" if self.options["version"] == "v2" else None

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        other = {"v1": "SamSR_v2.pth", "v2": "SamSR_v1.pth"}[self.options["version"]]
        kept = {} if self.is_random else {file: entry for file, entry in spec.weights.items() if file != other}
        return dataclasses.replace(spec, weights=kept, unlike_paper="random weights" if self.is_random else "")

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights_kind": self.options["weights"]}
