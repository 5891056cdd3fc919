"""What the tests of every wrapped system ask: the sizes, both protocols, and what must hold of each answer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bench.check.pictures import picture
from bench.core.image import Image
from bench.data.dataset import Pair, Record, Side
from bench.models.call import Answer, Model
from bench.protocols.base import Protocol, Task
from bench.protocols.bicubic import Bicubic4x
from bench.protocols.paired import Paired

LR_SIZES = ((6, 6), (30, 40), (32, 32), (37, 53), (128, 128))
BANDS = ("R", "G", "B", "NIR")


def task(
    protocol: Protocol, lr_px: tuple[int, int], name: str = "x", bands: tuple[str, ...] = BANDS, caption: str = ""
) -> Task:
    """A picture whose LR has ``lr_px``: x5 for ``paired``, x4 for ``bicubic-4x``."""
    factor = 4 if isinstance(protocol, Bicubic4x) else 5
    hr_px = (lr_px[0] * factor, lr_px[1] * factor)
    lr, hr = (
        Image((picture(3, *px, len(bands)) * 0.3).astype(np.float32), "reflectance", bands, np.ones(px, bool), gsd_m)
        for px, gsd_m in ((lr_px, 10.0), (hr_px, 2.0))
    )
    sides = {"lr": Side(), "hr": Side(), "pan": Side()}
    return protocol.prepare(Pair(Record(name, name, caption=caption, sides=sides), lr, hr))


def answer(model: Model, of: Task, *, seed: int = 0, draws: int = 1) -> Answer:
    """The model's answer; an image that failed is an assertion with its error."""
    (found,) = model.predict([of], run_seed=seed, draws=draws)
    assert isinstance(found, Answer), str(found)
    return found


def check_sizes(model: Model, sizes: Iterable[tuple[int, int]] = LR_SIZES) -> None:
    """LR to HR on both protocols: exact sizes, finite float32 in range, the native answer kept where it was resized.

    The largest size is asked for once, on the protocol whose factor is the systems' own.
    """
    sizes = list(sizes)
    for protocol, some in ((Paired(), [s for s in sizes if max(s) < 100]), (Bicubic4x(), sizes[::3] + sizes[4:])):
        for lr_px in some:
            asked = task(protocol, lr_px)
            found = answer(model, asked)
            for values in found.arrays.values():
                assert values.shape[-3:-1] == asked.size and values.dtype == np.float32, (lr_px, values.shape)
                assert np.isfinite(values).all() and values.min() > -0.2 and values.max() < 1.5, lr_px
            if model.spec.scale_factors == (4,):
                resized = isinstance(protocol, Paired)
                assert bool(found.native) == resized and any("post resize" in note for note in found.notes) == resized
                for values in found.native.values():
                    assert values.shape[-3:-1] == (4 * lr_px[0], 4 * lr_px[1])
