"""The model interface: all that an adapter or a plugin imports.

A model is a ``ModelSpec`` (imports nothing heavy) that names an adapter class; the adapter has ``load`` and
``upscale``. Everything dangerous (units, bands, padding, tiling, checks, out-of-memory retreat) is done once for
all models by ``bench.models.call.Model``.
"""

from bench.core.errors import RfbenchError
from bench.core.files import digest, safe_name, sha256
from bench.core.image import RGB, Array
from bench.core.resample import resize
from bench.data.dataset import Side, read_image
from bench.data.readers import SUFFIXES
from bench.models.spec import Adapter, Batch, ModelSpec, Prediction

__all__ = [
    "RGB",
    "SUFFIXES",
    "Adapter",
    "Array",
    "Batch",
    "ModelSpec",
    "Prediction",
    "RfbenchError",
    "Side",
    "digest",
    "read_image",
    "resize",
    "safe_name",
    "sha256",
]
