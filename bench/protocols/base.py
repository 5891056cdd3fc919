"""The interface of a protocol, and what all protocols share: normalisation, captions, target grid."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, overload

import numpy as np

from bench.core.errors import ItemError, RfbenchError
from bench.core.image import RGB, Array, Image, Mask, quantised
from bench.core.resample import resize
from bench.data.bands import canonical
from bench.data.captions import NONE, OWN, RESERVED, TEMPLATE, Captioned, check_name
from bench.data.dataset import FILES, Pair, Side
from bench.data.normalise import Fitted, Normalisation
from bench.data.readers import Series
from bench.metrics.base import Reference

Policy = Literal["post", "pre"]


@dataclass(frozen=True)
class Task:
    """One image of a run: what the model may see, and (apart) what its answer is held against.

    Attributes
    ----------
    lr : the LR image in its own unit, all bands; invalid pixels hold the band's median. None where pictures are held
        against pictures: no model is asked then.
    size : (height, width) of the answer.
    fitted : the normalisation that brings the LR's R, G, B to display; predictions in the LR's unit use it too. None
        where the LR has no R, G, B.
    normalisation : the fitted normalisations of both sides, for the record.
    caption : what the protocol lets the model read; may be empty.
    series : the LR's time series in its unit, float32, for models that read one.
    """

    id: str
    scene_id: str
    lr: Image | None
    size: tuple[int, int]
    fitted: Fitted | None
    normalisation: dict[str, Any]
    caption: str
    reference: Reference
    series: Series | None = None
    lr_date: str = ""
    notes: tuple[str, ...] = ()

    @property
    def input(self) -> Image:
        """The LR image; ItemError where there is none."""
        if self.lr is None:
            raise ItemError(f"'{self.id}' has no LR image")
        return self.lr

    @property
    def lr_display(self) -> Array:
        """The LR's RGB in display range, float32 (h, w, 3); ItemError where it has none."""
        if self.fitted is None:
            raise ItemError(f"display needs the bands R G B; the LR image has {' '.join(self.input.bands)}")
        return self.fitted.apply(self.input.select(RGB))


@dataclass(frozen=True)
class Protocol(ABC):
    """A frozen spec. Its fields are its options (``--protocol NAME:key=value``) and its identity.

    Fields
    ------
    normalisation : ``declared`` takes each side's own; ``percentile[2,98]`` or ``fixed[lo,hi]`` replace it (a fixed
        range only where the side is reflectance).
    quantise : 8 rounds every display image once to 8 bit before image metrics; ``none`` keeps floats.
    border_px : pixels cut from every side before metrics.
    captions : ``dataset`` (its own), ``template`` (filled from the LR alone), ``none``, ``shuffled`` (another scene's,
        by a fixed permutation), or the name of a caption file that ``rfbench caption`` froze in the dataset.
    policy : how a model of another scale than the task's is brought to the grid: ``post`` resizes its answer,
        ``pre`` its input.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = FILES
    lr_from: ClassVar[str] = "lr"  # the side of a record that a model's LR comes from
    normalisation: str = "declared"
    quantise: int | None = 8
    border_px: int = 0
    captions: str = OWN
    policy: Policy = "post"

    def __post_init__(self) -> None:
        if self.normalisation != "declared":
            Normalisation.parse(self.normalisation)
        if self.quantise not in (None, 8):
            raise RfbenchError(f"protocol {self.name}: quantise={self.quantise}, expected 8 or none")
        if self.border_px < 0:
            raise RfbenchError(f"protocol {self.name}: border_px={self.border_px}, expected 0 or more")
        if self.captions not in RESERVED:
            check_name(self.captions)

    @abstractmethod
    def prepare(self, pair: Pair) -> Task:
        """Turn a pair into a task. Raises ItemError where the pair does not fit."""

    def identity(self) -> dict[str, Any]:
        """All that can change a number, as stored with a run."""
        return {"name": self.name} | dataclasses.asdict(self)

    def label(self) -> str:
        """``NAME`` with the options that differ from the defaults."""
        changed = [
            f"{f.name}={getattr(self, f.name)}" for f in dataclasses.fields(self) if getattr(self, f.name) != f.default
        ]
        return self.name + (":" + ",".join(changed) if changed else "")

    # --- for subclasses ---------------------------------------------------------------------------------------

    def task(self, pair: Pair, lr: Image, hr: Image | None, pan: Image | None, size: tuple[int, int]) -> Task:
        """The task of an LR image and the reference on the grid ``size``."""
        record = pair.record
        if not lr.valid.any():
            raise ItemError("the LR image has no valid pixel")
        # Percentiles are of valid pixels alone, so this comes before holes are filled.
        fitted = self._fit(lr, record.sides["lr" if pair.lr is not None else "hr"]) if lr.has(RGB) else None
        fitted_hr = self._fit(hr, record.sides["hr"]) if hr is not None and hr.has(RGB) else None
        display = fitted_hr.apply(hr.select(RGB)) if hr is not None and fitted_hr else None
        # What a model made of a hole in the LR says nothing about the model: holes of all sides are left out.
        valid = np.ones(size, bool)
        covered = on_grid(lr, size)
        for image in (covered, hr, pan):
            if image is not None:
                valid &= image.valid
        lr, notes = filled(lr)
        enlarged = on_grid(lr, size) if notes else covered
        lr_display = fitted.apply(enlarged.select(RGB)) if fitted else None
        b = self.border_px
        if b and min(size) <= 2 * b:
            raise ItemError(f"border_px={b} leaves nothing of an image of {size[0]}x{size[1]} px")
        reference = Reference(
            id=record.id,
            scene_id=record.scene_id,
            display=cut(quantised(display, self.quantise), b) if display is not None else None,
            display_float=cut(display, b) if display is not None else None,
            hr=cut_image(hr, b),
            pan=cut_image(pan, b),
            # With a border the LR must cover the same ground as the cut images: it is brought to their grid and cut.
            lr=cut_image(enlarged, b) if b else lr,
            lr_display=cut(quantised(lr_display, self.quantise), b) if lr_display is not None else None,
            valid=cut(valid, b),
            mask=cut(_mask_on_grid(pair.mask, size), b) if pair.mask is not None else None,
            hr_date=record.hr_date,
        )
        return Task(
            id=record.id,
            scene_id=record.scene_id,
            lr=lr,
            size=size,
            fitted=fitted,
            normalisation={
                "lr": fitted.record() if fitted else None,
                "hr": fitted_hr.record() if fitted_hr else None,
            },
            caption=self._caption(pair, lr),
            reference=reference,
            series=_series(pair.series, record.sides["lr"]) if pair.series is not None else None,
            lr_date=record.lr_date,
            notes=(*pair.notes, *notes),
        )

    def _fit(self, image: Image, side: Any) -> Fitted:
        form = side.declared if self.normalisation == "declared" else Normalisation.parse(self.normalisation)
        if form.kind == "fixed" and image.unit == "display":
            form = Normalisation("display")  # a fixed range of reflectance says nothing about a picture
        return form.fit(image.select(RGB), side.gamma)

    def _caption(self, pair: Pair, lr: Image) -> str:
        if self.captions == NONE:
            return ""
        if self.captions == TEMPLATE:
            return template_caption(lr)
        source = pair.record.source if isinstance(pair.record, Captioned) else OWN
        if source != self.captions:  # a caller that forgot bench.data.captions.with_captions: never another's caption
            raise ValueError(f"the protocol reads the captions '{self.captions}', the record has '{source}'")
        return pair.record.caption


def filled(lr: Image) -> tuple[Image, tuple[str, ...]]:
    """The LR with its invalid pixels set to the band's median, so that models see no holes; and a note of it."""
    holes = int((~lr.valid).sum())
    if not holes:
        return lr, ()
    values = lr.values.copy()
    values[~lr.valid] = np.median(lr.values[lr.valid], axis=0)
    return dataclasses.replace(lr, values=values, valid=np.ones_like(lr.valid)), (
        f"{holes} LR pixels without data were filled with the band's median",
    )


def on_grid(image: Image, size: tuple[int, int]) -> Image:
    """An image brought to ``size`` by the one bicubic; a target pixel is valid where its source is."""
    if image.size == size:
        return image
    rows = np.minimum((np.arange(size[0]) + 0.5) * image.size[0] / size[0], image.size[0] - 1).astype(int)
    columns = np.minimum((np.arange(size[1]) + 0.5) * image.size[1] / size[1], image.size[1] - 1).astype(int)
    return dataclasses.replace(image, values=resize(image.values, size), valid=image.valid[np.ix_(rows, columns)])


def _series(series: Series, side: Side) -> Series:
    """The time series in the LR's unit: float32, canonical bands; holes are filled with their date's band median."""
    stored = series.values
    scale = side.scale if side.scale is not None else 10000.0 if stored.dtype.kind in "ui" else 1.0
    values = np.empty(stored.shape, np.float32)
    for into, frame in zip(values, stored, strict=True):
        into[:] = (frame.astype(np.float64) + (side.offset or 0.0)) / (scale if side.unit != "relative" else 1.0)
        holes = ~np.isfinite(into)
        if holes.any():
            seen = [into[..., c][~holes[..., c]] for c in range(into.shape[-1])]
            into[:] = np.where(holes, np.array([np.median(s) if s.size else 0.0 for s in seen], np.float32), into)
    return Series(values, tuple(canonical(b) for b in series.bands), series.dates)


def _mask_on_grid(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask on the target grid: as it is, cropped like the HR, or (made for the LR) each pixel repeated."""
    if mask.shape[0] >= size[0] and mask.shape[1] >= size[1]:
        return mask[: size[0], : size[1]]
    return mask[np.ix_(*(np.arange(n) * m // n for n, m in zip(size, mask.shape, strict=True)))]


def cut(values: Any, border_px: int) -> Any:
    """An array (H, W, ...) without its border, rows one after the other in memory: numpy's sums depend on the layout in
    their last digits, and a metric must not see by which way an image came."""
    return np.ascontiguousarray(
        values[border_px : values.shape[0] - border_px, border_px : values.shape[1] - border_px]
    )


@overload
def cut_image(image: Image, border_px: int) -> Image: ...
@overload
def cut_image(image: Image | None, border_px: int) -> Image | None: ...
def cut_image(image: Image | None, border_px: int) -> Image | None:
    """An image without its border, None for None."""
    if image is None or not border_px:
        return image
    return dataclasses.replace(image, values=cut(image.values, border_px), valid=cut(image.valid, border_px))


def template_caption(lr: Image) -> str:
    """A caption from the LR alone: how green, bright and wet it is. Nothing of the HR enters."""
    means = {b: float(np.mean(lr.values[:, :, i], dtype=np.float64)) for i, b in enumerate(lr.bands)}
    words = []
    if {"R", "NIR"} <= means.keys():
        ndvi = (means["NIR"] - means["R"]) / max(means["NIR"] + means["R"], 1e-6)
        words.append(
            "densely vegetated" if ndvi > 0.6 else "sparsely vegetated" if ndvi > 0.3 else "mostly bare or wet"
        )
    if lr.unit == "reflectance" and "G" in means:
        words.append("bright" if means["G"] > 0.3 else "dark" if means["G"] < 0.05 else "evenly lit")
    return f"a satellite image of {' and '.join(words)} ground" if words else "a satellite image"
