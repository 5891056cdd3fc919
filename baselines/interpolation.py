"""Interpolation: what every learned model has to beat. All bands, in the LR's own unit, any size and scale.

nearest is plain numpy; bilinear and bicubic are torch's (antialiased; bicubic with a = -0.5, the kernel of the
protocol ``bicubic-4x``); Lanczos (three lobes) is Pillow's, band by band in float32.
"""

from __future__ import annotations

import numpy as np

from baselines.opensr_test import on_opensr_test
from bench.models import Adapter, Array, Batch, Claim, ModelSpec, Prediction, resize


def _spec(name: str, adapter: str, summary: str, citation: str = "", published: tuple[Claim, ...] = ()) -> ModelSpec:
    return ModelSpec(
        name=name,
        adapter=f"baselines.interpolation:{adapter}",
        summary=summary,
        bands=None,
        unit="native",
        output_unit="native",
        dtypes=("float32",),
        licence="Apache-2.0",
        citation=citation,
        published=published,
        status="ready",
    )


NEAREST = _spec("nearest", "Nearest", "nearest neighbour")
BILINEAR = _spec("bilinear", "Bilinear", "bilinear (torch, antialiased)")
BICUBIC = _spec(
    "bicubic", "Bicubic", "bicubic (torch, antialiased, a = -0.5)", "keys1981cubic",
    (on_opensr_test(0.102, 0.830, 0.068, 0.279, 0.0234, 0.601, 0.0028),),
)  # fmt: skip
LANCZOS = _spec("lanczos", "Lanczos", "Lanczos, three lobes (Pillow)", "duchon1979lanczos pillow")


class _Interpolation(Adapter):
    """Image by image, so that a batch of eight is eight of one to the bit."""

    def upscale(self, batch: Batch) -> Prediction:
        return Prediction(mean=np.stack([self.resize(image, batch.size) for image in batch.images]))

    def resize(self, image: Array, size: tuple[int, int]) -> Array:
        """float32 (h, w, C) to ``size`` = (height, width)."""
        raise TypeError("a subclass resizes")


class Nearest(_Interpolation):
    def resize(self, image: Array, size: tuple[int, int]) -> Array:
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) * m / n).astype(int), m - 1)
            for n, m in zip(size, image.shape, strict=False)
        )
        return image[np.ix_(rows, columns)]


class Bilinear(_Interpolation):
    def resize(self, image: Array, size: tuple[int, int]) -> Array:
        return resize(image, size, "bilinear")


class Bicubic(_Interpolation):
    def resize(self, image: Array, size: tuple[int, int]) -> Array:
        return resize(image, size)


class Lanczos(_Interpolation):
    def resize(self, image: Array, size: tuple[int, int]) -> Array:
        from PIL import Image as Pillow

        bands = [
            Pillow.fromarray(np.ascontiguousarray(image[:, :, c])).resize((size[1], size[0]), Pillow.Resampling.LANCZOS)
            for c in range(image.shape[2])
        ]
        return np.stack([np.asarray(b, np.float32) for b in bands], axis=2)
