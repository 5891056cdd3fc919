"""The model interface: all that an adapter or a plugin imports.

A model is a ``ModelSpec`` (imports nothing heavy) that names an adapter class; the adapter has ``load`` and
``upscale``. Everything dangerous (units, bands, padding, tiling, checks, out-of-memory retreat) is done once for
all models by ``bench.models.call.Model``.

The adapter of someone else's published system derives from ``Published`` (random weights to prove its code with) and
opens upstream's files by ``read_state``, ``converted_state`` and ``load_state``.

A model that is fitted by a command of its own reads its training pairs through ``FolderDataset`` and ``Paired``, whose
tasks hold the display images that ``upscale`` and the metrics will see.
"""

from bench.core.errors import RfbenchError
from bench.core.files import atomic_path, digest, id_hash, read_json, safe_name, sha256, write_json
from bench.core.image import RGB, Array
from bench.core.resample import resize
from bench.data.dataset import FolderDataset, Side, read_image
from bench.data.readers import SUFFIXES
from bench.models.checkpoint import check_state, converted, converted_state, load_state, read_state
from bench.models.guests.adapter import GuestAdapter
from bench.models.guests.environment import Environment
from bench.models.published import (
    RANDOM_KIND,
    RANDOM_TINY,
    WEIGHTS_OPTIONS,
    Published,
    choice,
    number,
    randomise,
    whole_number,
)
from bench.models.spec import Adapter, Batch, Claim, ModelSpec, Prediction
from bench.models.tiling import pad, padded_size
from bench.protocols.paired import Paired

__all__ = [
    "RANDOM_KIND",
    "RANDOM_TINY",
    "RGB",
    "SUFFIXES",
    "WEIGHTS_OPTIONS",
    "Adapter",
    "Array",
    "Batch",
    "Claim",
    "Environment",
    "FolderDataset",
    "GuestAdapter",
    "ModelSpec",
    "Paired",
    "Prediction",
    "Published",
    "RfbenchError",
    "Side",
    "atomic_path",
    "check_state",
    "choice",
    "converted",
    "converted_state",
    "digest",
    "id_hash",
    "load_state",
    "number",
    "pad",
    "padded_size",
    "randomise",
    "read_image",
    "read_json",
    "read_state",
    "resize",
    "safe_name",
    "sha256",
    "whole_number",
    "write_json",
]
