"""RareFlow: physics-aware flow matching for cross-sensor super-resolution of rare landforms.

Usable without the harness::

    import rareflow

    model = rareflow.load()  # the embedded rareflow-tiny, or load("my-checkpoint")
    result = model.upscale(lr, (200, 200), captions=["a thaw slump above a river"], seeds=[(0, 1, 2, 3)])
    result.samples, result.v, result.u  # draws, map of MC dropout's variance, scalar uncertainty

The data's way: ``images`` (grid) -> ``networks`` (VAE, transformer, control, gates) -> ``flow`` (sampling) with
``captions`` and ``uncertainty`` -> ``model`` (all of it) ; ``losses`` and ``train`` make a ``checkpoint``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from rareflow.errors import RareflowError

if TYPE_CHECKING:
    from rareflow.checkpoint import load
    from rareflow.model import RareFlow, Result

# diffusers imports it where pyiqa brings it along, and it warns at once of a kernel that nothing here uses
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__all__ = ["RareFlow", "RareflowError", "Result", "load"]


def __getattr__(name: str) -> Any:
    """Torch and diffusers are imported with the first use, not with the package."""
    if name == "load":
        from rareflow.checkpoint import load

        return load
    if name in ("RareFlow", "Result"):
        from rareflow import model

        return getattr(model, name)
    raise AttributeError(f"module 'rareflow' has no attribute '{name}'")
