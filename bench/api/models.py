"""Models of a notebook or a script: a class is enough."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.core import registry
from bench.core.errors import RfbenchError
from bench.models.spec import Adapter, ModelSpec


def register_model(adapter: type[Adapter], name: str | None = None, **spec: Any) -> str:
    """Register a model for this process; returns the name that ``run`` knows it by.

    Parameters
    ----------
    adapter : a class derived from ``Adapter`` with ``upscale``. Its attribute ``spec``, a ``ModelSpec``, says what it
        reads and gives; without one it reads R, G, B in [0, 1] and answers in them.
    name : the class's name in small letters unless given.
    spec : fields of ``ModelSpec`` that are otherwise, such as ``scale_factors=(4,)``.

    Its source is part of the key of what it predicts: run a changed cell again, and it predicts anew.

    Examples
    --------
    >>> import numpy as np
    >>> class Darker(Adapter):
    ...     def upscale(self, batch):
    ...         images = np.stack([resize(image, batch.size) for image in batch.images])
    ...         return Prediction(mean=np.clip(0.9 * images, 0, 1).astype(np.float32))
    >>> register_model(Darker)
    'darker'
    """
    if not (isinstance(adapter, type) and issubclass(adapter, Adapter)):
        raise RfbenchError(f"register_model: found a {type(adapter).__name__}, expected a class derived from Adapter")
    stated = adapter.spec or ModelSpec(name=adapter.__name__.lower(), adapter="")
    try:
        adapter.spec = dataclasses.replace(stated, name=name or stated.name, **spec)
    except TypeError as error:
        raise RfbenchError(f"register_model: {error}; the fields are those of ModelSpec") from None
    registry.register("models", adapter.spec.name, adapter)
    return adapter.spec.name
