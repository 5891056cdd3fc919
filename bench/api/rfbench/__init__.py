"""rfbench from Python: run models, score images, read runs; and all that a plugin derives from.

>>> import rfbench
>>> runs = rfbench.run(["bicubic", "lanczos"], metrics=["psnr_rgb", "ssim_rgb"], limit=6, out=folder)
>>> runs.summary().round(3)
         psnr_rgb  ssim_rgb
bicubic    24.442     0.688
lanczos    24.487     0.692
>>> round(rfbench.metrics.psnr_rgb(pred, ref), 2)
20.17

``docs/python.md`` has a page of it; ``docs/authors.md`` is for those who add a model, a metric or a dataset.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bench import __version__

# name -> the module that has it: what is not asked for is not imported, and ``import rfbench`` costs nothing.
_WHERE = {
    "bench.api.runs": ("Runs", "load_dataset", "read_run", "read_runs", "run", "score", "score_runs"),
    "bench.api.models": ("register_model",),
    "bench.core.files": ("sha256",),
    "bench.core.errors": ("NotComparable", "RfbenchError", "Unavailable"),
    "bench.core.image": ("RGB", "Array", "Image", "Mask"),
    "bench.core.reason": ("Reason",),
    "bench.core.resample": ("resize",),
    "bench.data.dataset": ("Dataset", "FolderDataset", "Pair", "Record", "Side"),
    "bench.metrics.base": ("Estimate", "Features", "Metric", "Reference", "Score", "SetScore", "Setting"),
    "bench.models.checkpoint": ("check_state", "converted", "converted_state", "load_state", "read_state"),
    "bench.models.guests.adapter": ("GuestAdapter",),
    "bench.models.guests.environment": ("Environment",),
    "bench.models.published": ("Published",),
    "bench.models.spec": ("Adapter", "Batch", "ModelSpec", "Prediction"),
    "bench.protocols.base": ("Protocol", "Task"),
    "bench.protocols.bicubic": ("Bicubic4x",),
    "bench.protocols.paired": ("Paired",),
    "bench.records.run": ("Run",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

if TYPE_CHECKING:
    from bench.api.models import register_model
    from bench.api.rfbench import metrics
    from bench.api.runs import Runs, load_dataset, read_run, read_runs, run, score, score_runs
    from bench.core.errors import NotComparable, RfbenchError, Unavailable
    from bench.core.files import sha256
    from bench.core.image import RGB, Array, Image, Mask
    from bench.core.reason import Reason
    from bench.core.resample import resize
    from bench.data.dataset import Dataset, FolderDataset, Pair, Record, Side
    from bench.metrics.base import Estimate, Features, Metric, Reference, Score, SetScore, Setting
    from bench.models.checkpoint import check_state, converted, converted_state, load_state, read_state
    from bench.models.guests.adapter import GuestAdapter
    from bench.models.guests.environment import Environment
    from bench.models.published import Published
    from bench.models.spec import Adapter, Batch, ModelSpec, Prediction
    from bench.protocols.base import Protocol, Task
    from bench.protocols.bicubic import Bicubic4x
    from bench.protocols.paired import Paired
    from bench.records.run import Run

__all__ = [
    "RGB", "Adapter", "Array", "Batch", "Bicubic4x", "Dataset", "Environment", "Estimate", "Features", "FolderDataset",
    "GuestAdapter", "Image", "Mask", "Metric", "ModelSpec", "NotComparable", "Pair", "Paired", "Prediction", "Protocol",
    "Published", "Reason", "Record", "Reference", "RfbenchError", "Run", "Runs", "Score", "SetScore", "Setting",
    "Side", "Task", "Unavailable", "__version__", "check_state", "converted", "converted_state", "load_dataset",
    "load_state", "metrics", "read_run", "read_runs", "read_state", "register_model", "resize",
    "run", "score", "score_runs", "sha256",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("rfbench.metrics")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'rfbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
