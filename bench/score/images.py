"""From files to what metrics look at, one image at a time: what the numbers mean is said, never guessed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.core.contain import described, kept_traceback
from bench.core.errors import ItemError, RfbenchError
from bench.core.files import sha256
from bench.core.image import RGB, Array, Image, Unit, quantised
from bench.data import fills, readers
from bench.data.bands import ALPHA
from bench.data.dataset import Dataset, Record
from bench.data.meaning import Scaling, Side, Voice, names_of, scaling_of
from bench.metrics.base import Reference
from bench.models.call import PLAUSIBLE, Answer
from bench.predict.unit import prepare_task
from bench.protocols.base import Protocol, Task, cut, cut_image
from bench.protocols.pictures import Pictures
from bench.score.match import Listing, Match, as_text, shown

Result = TypeVar("Result")
# A network's floats may lie a little beyond black and white and are cut there, as a model's are in a run; what lies
# farther out was divided by the wrong white.
_OVERSHOOT = 0.5
PICTURES = (".png", ".jpg", ".jpeg")
"""Files whose three channels are R, G and B by their format, whatever other files hold."""


class NeedsOption(ItemError):
    """An image whose numbers have no meaning without an option of the command."""


@dataclass(frozen=True)
class Meaning:
    """What the stored numbers of a folder's images mean.

    Attributes
    ----------
    unit : ``display`` (pictures) or ``reflectance``.
    scale : what they are divided by: display's white, or of reflectance the number that is 1. None where nobody said:
        8 bit is then (and always) stored / 255, other pictures are refused; integer reflectance is stored / 10000.
    bands : names of the bands, for files with as many that are no ``PICTURES``. None: as the files name them, R G B
        where there are three without names.
    option : what the user can say ``scale`` with.
    sensor : says which band ``B4`` is.
    """

    unit: Unit = "display"
    scale: float | None = None
    bands: tuple[str, ...] | None = None
    option: str = "--scale"
    sensor: str | None = None

    def side(self, raster: readers.Raster) -> Side:
        """What is said of a file, as a dataset would say it."""
        scale = None if self.unit == "display" and raster.values.dtype.itemsize == 1 else self.scale
        fits = self.bands is not None and sum(b != ALPHA for b in self.bands) == raster.values.shape[2]
        says = fits and not (raster.is_picture and raster.values.shape[2] == len(RGB))
        return Side(self.unit, " ".join(self.bands or ()) if says else None, scale, sensor=self.sensor)

    @property
    def voice(self) -> Voice:
        """How the user of the command can say what is missing."""
        return Voice(
            bands="give them with --bands 'R G B ...'",
            scale=f"say what 1 is stored as with {self.option}",
            who="--bands says",
            wrong_bands="correct --bands or leave it out",
            picture=f"if these are pictures, use --unit display, else {self.option}",
        )


@dataclass(frozen=True)
class Loaded:
    """An image as an answer to a task; ``files`` is what the run records of the files that it came from."""

    task: Task
    answer: Answer
    files: Mapping[str, Any]


class Source(ABC):
    """Where images and references come from."""

    def load(self, match: Match) -> Loaded | ItemError:
        """One image with its task; whatever its files bring is an error of this image."""
        return _guarded(self._load, match)

    def task(self, match: Match) -> Task | ItemError:
        """What an image is held against, or what is wrong with that."""
        return _guarded(self._task, match)

    @abstractmethod
    def _load(self, match: Match) -> Loaded: ...

    @abstractmethod
    def _task(self, match: Match) -> Task: ...


def _guarded(read: Callable[[Match], Result], match: Match) -> Result | ItemError:
    try:
        return read(match)
    except ItemError as error:
        return error
    except RfbenchError as error:
        return ItemError(str(error))
    except Exception as error:  # a reader or a plugin that fails loses its image, not the others
        return ItemError(f"{shown(match.id)}: {described(error)}", kept_traceback(error))


@dataclass(frozen=True)
class FolderSource(Source):
    """Pictures against pictures of the same size; ``protocol`` says what is cut from both, and how they are rounded."""

    pred: Listing
    ref: Listing
    meaning: Meaning
    ref_meaning: Meaning
    protocol: Pictures

    def _load(self, match: Match) -> Loaded:
        path, ref_path = self.pred.path(match.pred), self.ref.path(match.ref)
        # The reference first, both before any of them is converted: a picture that claims to be huge is found out by
        # its header.
        theirs = _read(ref_path, self.ref_meaning)
        size = (theirs.values.shape[0], theirs.values.shape[1])
        try:
            ours = _read(path, self.meaning, size)
        except readers.WrongSize as error:
            raise ItemError(f"{error}, the size of {ref_path}; make the two one size") from None
        b = self.protocol.border_px
        if b and min(size) <= 2 * b:
            raise ItemError(f"--border-px {b} leaves nothing of {path} and {ref_path}, {size[0]}x{size[1]} px")
        _refuse_other_bands(path, ours, self.meaning, ref_path, theirs, self.ref_meaning)
        image, white, notes = _display(path, ours, self.meaning)
        _refuse_holes(path, image)
        hr, ref_white, more = _display(ref_path, theirs, self.ref_meaning)
        return Loaded(
            self._shown(match.id, hr, more),
            Answer({"mean": image.values}, "display", RGB, normalised=True, notes=notes),
            {"pred": _facts(path, ours, white), "ref": _facts(ref_path, theirs, ref_white)},
        )

    def _task(self, match: Match) -> Task:
        path = self.ref.path(match.ref)
        hr, _, notes = _display(path, _read(path, self.ref_meaning), self.ref_meaning)
        return self._shown(match.id, hr, notes)

    def _shown(self, image_id: str, hr: Image, notes: tuple[str, ...]) -> Task:
        b = self.protocol.border_px
        name = as_text(image_id)
        reference = Reference(
            id=name,
            scene_id=name,
            display=cut(quantised(hr.values, self.protocol.quantise), b),
            display_float=cut(hr.values, b),
            hr=cut_image(hr, b),
            pan=None,
            lr=None,
            valid=cut(hr.valid, b),
        )
        return Task(
            id=name, scene_id=name, lr=None, size=hr.size, fitted=None, normalisation={}, caption="",
            reference=reference, notes=notes,
        )  # fmt: skip


@dataclass(frozen=True)
class DatasetSource(Source):
    """Images against a dataset's references under a protocol, as a run of a model would have scored them."""

    pred: Listing
    meaning: Meaning
    dataset: Dataset
    protocol: Protocol
    records: Mapping[str, Record] = field(repr=False)

    def _load(self, match: Match) -> Loaded:
        path = self.pred.path(match.pred)
        task = self._task(match)
        raster, cut_px = self._on_grid(path, match.id, task.size)
        if self.meaning.unit == "display":
            image, scale, notes = _display(path, raster, self.meaning)
        else:
            image, scale, notes = _reflectance(path, raster, self.meaning)
        _refuse_holes(path, image)
        # A border that was cut before is not scored: what stands there is of no matter.
        values = np.pad(image.values, ((cut_px, cut_px), (cut_px, cut_px), (0, 0)), mode="edge")
        answer = Answer({"mean": values}, image.unit, image.bands, normalised=image.unit == "display", notes=notes)
        return Loaded(task, answer, {"pred": _facts(path, raster, scale)})

    def _task(self, match: Match) -> Task:
        task = prepare_task(self.protocol, self.dataset, self.records[match.id])
        if isinstance(task, ItemError):
            raise task
        return task

    def _on_grid(self, path: Path, image_id: str, size: tuple[int, int]) -> tuple[readers.Raster, int]:
        """The file's content, and how many pixels of each side it lacks: it has the grid's size or, as ``rfbench
        export`` writes it, none of the border that is cut."""
        b = self.protocol.border_px
        try:
            return _read(path, self.meaning, size), 0
        except readers.WrongSize as error:
            why = f"{error}, the size of {shown(image_id)} under {self.protocol.name}; make the image on that grid"
        try:
            return _read(path, self.meaning, (size[0] - 2 * b, size[1] - 2 * b)), b
        except readers.WrongSize:
            raise ItemError(why) from None


def _read(path: Path, meaning: Meaning, size: tuple[int, int] | None = None) -> readers.Raster:
    return readers.read(path, bands=meaning.bands or len(RGB), size=size)


def _facts(path: Path, raster: readers.Raster, scale: float) -> dict[str, Any]:
    return {"name": path.name, "sha256": sha256(path), "dtype": str(raster.values.dtype), "scale": scale}


def _names(path: Path, raster: readers.Raster, meaning: Meaning) -> tuple[str, ...]:
    """The bands of a file, by the rules of datasets. NeedsOption where an option has to say them."""
    if raster.is_picture and raster.values.shape[2] == len(RGB):
        return RGB
    try:
        return names_of(path, raster.bands, raster.values.shape[2], meaning.side(raster), meaning.voice)
    except RfbenchError as error:
        raise NeedsOption(str(error)) from None


def _refuse_other_bands(
    path: Path, ours: readers.Raster, meaning: Meaning, ref_path: Path, theirs: readers.Raster, ref_meaning: Meaning
) -> None:
    """ItemError unless both have R, G and B."""
    both = {path: _names(path, ours, meaning), ref_path: _names(ref_path, theirs, ref_meaning)}
    if any(not set(RGB) <= set(names) for names in both.values()):
        found = " and ".join(f"{p} has {' '.join(names)}" for p, names in both.items())
        raise ItemError(f"{found}; both need the bands R G B")


def _display(path: Path, raster: readers.Raster, meaning: Meaning) -> tuple[Image, float, tuple[str, ...]]:
    """R, G, B in [0, 1], what white was, and notes on what was done."""
    names, values = _names(path, raster, meaning), raster.values
    if not set(RGB) <= set(names):
        raise ItemError(f"{path}: found the bands {' '.join(names)}, expected R G B among them")
    if values.dtype.itemsize > 1 and meaning.scale is None and raster.scales is None:
        raise NeedsOption(
            f"{path}: found {values.dtype} values up to {_highest(raster):.6g}, expected to be told what white is; "
            f"give it with {meaning.option} (1 for floats in [0, 1], 65535, 4095, ...)"
        )
    scaling = _scaling(path, raster, meaning)
    channels = [names.index(b) for b in RGB]
    white = float(scaling.divide[channels[0]])
    display = _divided(path, raster, channels, scaling)
    low, high = float(display.min()), float(display.max())
    is_float = values.dtype.kind == "f"
    if low < -_OVERSHOOT * is_float or high > 1.0 + _OVERSHOOT * is_float:
        raise ItemError(
            f"{path}: its values run from {low * white:.6g} to {high * white:.6g}, expected 0 to {white:g}; say what "
            f"white is with {meaning.option}"
        )
    notes = [f"{path.name}: {note}" for note in (*raster.notes, *scaling.notes)]
    if low < 0.0 or high > 1.0:
        beyond = int(((display < 0.0) | (display > 1.0)).sum())
        notes.append(f"{path.name}: {beyond} values beyond 0 to {white:g} were cut to it ({low * white:.6g} to "
                     f"{high * white:.6g})")  # fmt: skip
        np.clip(display, 0.0, 1.0, out=display)
    if 0.0 < high < 1.0 / 255.0 and values.dtype != np.uint8:
        notes.append(f"{path.name}: no value is above {high * white:.6g}, black for a white of {white:g}")
    return Image(display, "display", RGB, raster.valid), white, tuple(notes)


def _reflectance(path: Path, raster: readers.Raster, meaning: Meaning) -> tuple[Image, float, tuple[str, ...]]:
    """All bands in reflectance, and what stored numbers were divided by."""
    names = _names(path, raster, meaning)
    scaling = _scaling(path, raster, meaning)
    values = _divided(path, raster, range(len(names)), scaling)
    image = Image(values, "reflectance", names, raster.valid)
    for fill in fills.impossible(image, raster):
        raise ItemError(f"{path}: {fill}; fill such pixels, or say what 1 is stored as with {meaning.option}")
    low, high = float(values.min()), float(values.max())
    if not PLAUSIBLE["reflectance"][0] <= low <= high <= PLAUSIBLE["reflectance"][1]:
        raise ItemError(
            f"{path}: its reflectance runs from {low:.4g} to {high:.4g} after {scaling.text()}, expected about 0 to 1; "
            f"say what 1 is stored as with {meaning.option}"
        )
    notes = tuple(f"{path.name}: {note}" for note in (*raster.notes, *scaling.notes))
    return image, float(scaling.divide[0]), notes


def _scaling(path: Path, raster: readers.Raster, meaning: Meaning) -> Scaling:
    return scaling_of(path, raster.values, raster.scales, raster.offsets, meaning.side(raster), meaning.voice)


def _divided(path: Path, raster: readers.Raster, channels: Sequence[int], scaling: Scaling) -> Array:
    """Some channels in their unit, in double precision, one at a time to spare memory; 0 where there is no data."""
    if set(channels) & set(raster.empty):
        raise ItemError(f"{path}: found a band without a single pixel of data, expected none; fill it")
    result = np.empty((*raster.values.shape[:2], len(channels)), np.float32)
    for i, channel in enumerate(channels):
        values = raster.values[:, :, [channel]].astype(np.float64)
        values[~raster.valid] = 0.0
        with np.errstate(over="ignore"):  # infinity is out of every range
            result[:, :, i] = np.where(raster.valid, scaling.pick([channel]).apply(values)[:, :, 0], 0.0)
    return result


def _highest(raster: readers.Raster) -> float:
    return float(np.max(raster.values[raster.valid], initial=0))


def _refuse_holes(path: Path, image: Image) -> None:
    holes = int((~image.valid).sum())
    if holes:
        raise ItemError(
            f"{path}: found {holes} pixels without data (not finite, or transparent), expected none; fill them"
        )
