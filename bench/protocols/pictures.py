"""``pictures``: images that another program made, held against a folder of references, without dataset and model.

It is what ``rfbench score --pred DIR --ref DIR`` records; no model can be asked under it, so it is not registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bench.core.errors import ItemError
from bench.data.dataset import Pair
from bench.protocols.base import Protocol, Task


@dataclass(frozen=True)
class Pictures(Protocol):
    """Pictures against pictures of their size. Rounding and border are all that it fixes."""

    name: ClassVar[str] = "pictures"
    summary: ClassVar[str] = "images of another program against a folder of references"

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "quantise": self.quantise, "border_px": self.border_px}

    def prepare(self, pair: Pair) -> Task:
        raise ItemError("pictures are held against pictures; no model is asked under this protocol")
