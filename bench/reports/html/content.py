"""What a report holds, before anything is written: sections of words and numbers, and images one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bench.core.image import Mask
from bench.reports.document import Section

Pixels = npt.NDArray[np.uint8]
PanelKind = Literal["lr", "up", "model", "hr", "pan"]


@dataclass(frozen=True)
class Panel:
    """A place that every image has a picture for, or a reason.

    Attributes
    ----------
    key : short and plain, for addresses: ``lr``, ``up`` (the LR enlarged), ``r0`` (a row's), ``hr``, ``pan``.
    label : what it is called.
    row : the row whose numbers are this picture's; None for references.
    """

    key: str
    label: str
    kind: PanelKind
    row: int | None = None


@dataclass(frozen=True)
class Measure:
    """A metric of which images have numbers of their own: what columns of images are called, ordered and shown by.
    ``meaning`` is its definition in a line; ``decimals`` None stands for four significant digits."""

    name: str
    title: str
    unit: str
    direction: str
    decimals: int | None
    meaning: str = ""


@dataclass(frozen=True)
class Line:
    """Something said of an image: a note, why it failed, what validation found."""

    severity: Literal["error", "warning", "note"]
    text: str


@dataclass(frozen=True)
class Entry:
    """An image in the lists: its numbers, without its pixels.

    Attributes
    ----------
    values : (rows, measures); None where there is none.
    why : the reasons of those, by (row, measure).
    lines : what else is to be said of it.
    """

    id: str
    scene: str
    split: str = ""
    values: tuple[tuple[float | None, ...], ...] = ()
    why: Mapping[tuple[int, int], str] = field(default_factory=dict)
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Map:
    """What is known of every pixel of a panel's picture beside its colour.

    Attributes
    ----------
    panel : whose.
    name : ``deviation``, or what a model calls it.
    values : float (H, W), or uint8 where they are classes.
    unit : of the values, as words.
    classes : what a map of classes has: names, by index; a pixel with another index has none.
    """

    panel: str
    name: str
    values: npt.NDArray[np.floating[Any]] | Pixels
    unit: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """The pixels of one image.

    Attributes
    ----------
    size : (height, width) of the grid that all but the LR are on, after the protocol's border was cut.
    border_px : what was cut from every side of that grid, and not from the LR.
    pictures : by panel key, bytes (h, w, 3).
    absent : why a panel has none, by key.
    mask : the landform's, bool (H, W); ``valid`` is False where a side has no data (None: data everywhere).
    deviation : by row, the root mean square of the predicted deviation over pixels and colours, in grey levels of 255.
    caption : what models could read; ``facts``: lines of what was done to the image, such as the stretch.
    """

    id: str
    size: tuple[int, int]
    pictures: Mapping[str, Pixels]
    absent: Mapping[str, str] = field(default_factory=dict)
    maps: Sequence[Map] = ()
    mask: Mask | None = None
    valid: Mask | None = None
    deviation: Mapping[int, float] = field(default_factory=dict)
    border_px: int = 0
    caption: str = ""
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Strip:
    """A measure's distribution over images, a strip a row: number, interval, quartiles; the images' values are the
    entries'."""

    row: int
    number: float
    low: float | None
    high: float | None
    quartiles: tuple[float, float, float]


@dataclass(frozen=True)
class Point:
    """A row on the perception-distortion plane: (value, low, high) of both measures."""

    row: int
    x: tuple[float, float | None, float | None]
    y: tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Plane:
    """The perception-distortion plane: the metrics of its axes, what these are called, whether more is better on them,
    and a point a row."""

    x: str
    y: str
    x_title: str
    y_title: str
    x_up: bool
    y_up: bool
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Part:
    """A part of the first page: a heading, sections of grids and words, and lines of code that can be pasted."""

    key: str
    title: str
    sections: tuple[Section, ...] = ()
    lead: str = ""
    code: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes
    ----------
    kind : ``runs``, ``dataset`` or ``gate``.
    about : what was measured on what, in a sentence.
    parts : the first page, in order; ``figures`` stands where the figures go.
    rows : labels of the rows that images have numbers of.
    start : the state in which the gallery begins, as its address has it (``order``, ``metric``, ``row``, ``other``).
    views : yields the pixels of the images that can be looked at, one at a time, in the order of the entries.
    shown : the ids of those.
    files : what can be downloaded beside the page, by name.
    """

    kind: Literal["runs", "dataset", "gate"]
    title: str
    about: str
    parts: tuple[Part, ...]
    panels: tuple[Panel, ...]
    rows: tuple[str, ...]
    measures: tuple[Measure, ...]
    entries: tuple[Entry, ...]
    shown: tuple[str, ...]
    views: Callable[[], Iterator[View]]
    start: Mapping[str, str] = field(default_factory=dict)
    strips: Mapping[str, tuple[Strip, ...]] = field(default_factory=dict)
    plane: Plane | None = None
    files: Mapping[str, str] = field(default_factory=dict)
