"""From reflectance to display range: the one place where raw values become [0, 1] images.

Three forms, written as datasets and protocols write them:

``fixed[lo,hi]``
    x = clip((1e4 * reflectance - lo) / (hi - lo), 0, 1) (the paper's eq. 16); the range is in reflectance x 10000,
    the digital numbers of Sentinel-2, whatever scale a file uses. Only for reflectance.
``percentile[p_low,p_high]``
    per band x = clip((x - q_low) / (q_high - q_low), 0, 1) with the percentiles of the image's own valid pixels
    (eq. 13-15). A band whose percentiles coincide has no contrast to stretch: it becomes 0 (eq. 14).
``display``
    the image is display already; values are clipped to [0, 1].

An exponent ``gamma`` may follow: display = x ** gamma.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Array, Image, row_blocks

_FORM = re.compile(r"(fixed|percentile)\[\s*([-+0-9.eE]+)\s*,\s*([-+0-9.eE]+)\s*\]")


@dataclass(frozen=True)
class Normalisation:
    """A named normalisation; ``str()`` gives the form that ``parse`` reads."""

    kind: str
    low: float = 0.0
    high: float = 1.0

    @staticmethod
    def parse(text: str) -> Normalisation:
        """Read one of the three forms. Raises RfbenchError with the forms that exist."""
        if text == "display":
            return Normalisation("display")
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise RfbenchError(
                f"normalisation '{one_line(text, 60)}': expected fixed[lo,hi], percentile[p_low,p_high] or display"
            )
        kind = match[1]
        try:
            low, high = float(match[2]), float(match[3])
        except ValueError:
            raise RfbenchError(f"normalisation '{one_line(text, 60)}': its limits are no numbers") from None
        if not -math.inf < low < high < math.inf or (kind == "percentile" and not 0 <= low < high <= 100):
            raise RfbenchError(f"normalisation '{one_line(text, 60)}': expected a low limit below a high one")
        return Normalisation(kind, low, high)

    def __str__(self) -> str:
        return self.kind if self.kind == "display" else f"{self.kind}[{self.low:g},{self.high:g}]"

    def fit(self, image: Image, gamma: float = 1.0) -> Fitted:
        """Fix the limits for one image and its bands.

        Raises RfbenchError where the form does not go with the image's unit: ``fixed`` needs reflectance,
        ``relative`` numbers can only be stretched by percentiles.
        """
        if image.unit == "relative" and self.kind != "percentile":
            raise RfbenchError(
                f"normalisation {self} does not go with unit 'relative': such numbers have no absolute level; "
                "declare percentile[2,98]"
            )
        if self.kind == "fixed" and image.unit != "reflectance":
            raise RfbenchError(f"normalisation {self} needs reflectance, found unit '{image.unit}'; declare display")
        if self.kind == "display" and image.unit != "display":
            raise RfbenchError(
                f"normalisation display needs unit 'display', found '{image.unit}'; declare fixed[lo,hi]"
            )
        n = len(image.bands)
        if self.kind == "percentile":
            if not image.valid.any():
                raise RfbenchError("percentiles of an image without a single valid pixel; leave the image out")
            bands = (image.values[:, :, i][image.valid].astype(np.float64) for i in range(n))  # one at a time
            limits = [np.percentile(band, [self.low, self.high], overwrite_input=True) for band in bands]
            lows, highs = tuple(float(low) for low, _ in limits), tuple(float(high) for _, high in limits)
        elif self.kind == "fixed":
            lows, highs = (self.low / 1e4,) * n, (self.high / 1e4,) * n
        else:
            lows, highs = (0.0,) * n, (1.0,) * n
        return Fitted(str(self), image.unit, image.bands, lows, highs, gamma)


@dataclass(frozen=True)
class Fitted:
    """A normalisation with its limits for each band, in the image's unit. Recorded with every image."""

    form: str
    unit: str
    bands: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    gamma: float = 1.0

    def apply(self, image: Image) -> Array:
        """Display values, float32 (H, W, C) in [0, 1], of an image in the same unit and bands. Invalid pixels: 0."""
        if image.unit != self.unit or image.bands != self.bands:
            raise RfbenchError(
                f"a normalisation of {self.unit} {' '.join(self.bands)} was given {image.unit} {' '.join(image.bands)}"
            )
        low, high = np.array(self.low), np.array(self.high)
        flat = high <= low
        result = np.empty(image.values.shape, np.float32)
        for rows in row_blocks(result.shape):  # doubles of some rows at a time
            values = image.values[rows].astype(np.float64)
            stretched = (values - low) / np.where(flat, 1.0, high - low)
            stretched = np.where(flat, 0.0, stretched)
            display = np.clip(stretched, 0.0, 1.0)
            if self.gamma != 1.0:
                display = display**self.gamma
            result[rows] = np.where(image.valid[rows, :, None], display, 0.0)
        return result

    def record(self) -> dict[str, object]:
        """What is stored beside the image's scores."""
        return {"form": self.form, "bands": list(self.bands), "low": list(self.low), "high": list(self.high),
                "gamma": self.gamma}  # fmt: skip
