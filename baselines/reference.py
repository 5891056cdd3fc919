"""``hr``: the HR image itself as an answer. Not a model, but the row that says what a metric gives a perfect one.

Beside ``bilinear`` or ``bicubic`` it is the other end of the scale: opensr-test's measures, a segmenter's agreement
and metrics without a reference have no perfect value that could be looked up. ``hr`` answers in the HR sensor's own
reflectance, which a table shows in the LR's colours as it does every such answer; ``hr:unit=display`` is the HR image
as it is displayed, which every metric of displayed images is held against.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.models import Adapter, Batch, ModelSpec, Prediction, RfbenchError

HR = ModelSpec(
    name="hr",
    adapter="baselines.reference:Itself",
    summary="the HR image itself, to see what a perfect answer is given",
    bands=None,
    unit="native",
    output_unit="native",
    input_kind="reference",
    default_options={"unit": "native"},
    dtypes=("float32",),
    licence="Apache-2.0",
    status="ready",
)


class Itself(Adapter):
    """Gives back what it is given, which the harness takes from the reference."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        if options["unit"] not in ("native", "display"):
            raise RfbenchError(f"option unit: found '{options['unit']:.40}', expected native or display")

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        unit: Any = self.options["unit"]
        return dataclasses.replace(spec, output_unit=unit)

    def upscale(self, batch: Batch) -> Prediction:
        return Prediction(mean=batch.images)
