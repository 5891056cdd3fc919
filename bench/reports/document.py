"""Every report is one document: sections of grids whose cells know their value, text, rank, interval, reason and note.

Reports build documents (``bench.reports.table``, ``compare``, ``gate``, ``paper``, ``scores``, ``cite``); what a text
looks like in a terminal, in Markdown and in LaTeX is the renderers' (``bench.reports.render``). Texts in a document are
as files have them: a renderer escapes them for where they go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Rank = Literal["best", "second", None]
AS_SHOWN = "as shown"
NONE = "–"
"""What stands where a grid has no text."""
ALIKE = "≈"
"""The mark of a number that the data cannot tell from a better one."""


@dataclass(frozen=True)
class Cell:
    """One number of a grid, or why there is none.

    Attributes
    ----------
    value : finite, at full precision; None where there is no number.
    n : the images behind it.
    reason : why there is no value; ``kind`` of reason, as ``bench.core.reason`` has it.
    identity : the metric's signature.
    text : the value as it is shown, empty where there is none.
    rank : best or second of its column, as ``Grid.marking`` says.
    std : the standard deviation over images, where the metric has a value for each.
    note : index of the cell's footnote in ``Grid.footnotes``: it is empty, or stands for fewer images than the grid
        has.
    low, high : the 95 % interval of the mean, where the grid has intervals; ``interval`` as it is shown.
    is_level : it shares its rank with a better number that the data cannot tell it from.
    is_strong : it is what a reader looks for, such as what moved.
    is_code : a signature or the like, which is set as typed.
    """

    value: float | None = None
    n: int = 0
    reason: str | None = None
    identity: str = ""
    text: str = ""
    rank: Rank = None
    std: float | None = None
    note: int | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    is_strong: bool = False
    is_code: bool = False
    kind: str = ""
    is_level: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a grid: a metric, or words.

    Attributes
    ----------
    metric : its name (``psnr_rgb``); empty for a column that is no metric's.
    title : ``PSNR``; ``unit`` (``dB``), ``direction`` (``up``, ``down``, or empty) and ``group`` (``fidelity``).
    identity : the metric's signature.
    decimals : what is shown; None stands for four significant digits.
    is_text : words, which stand flush left.
    """

    metric: str
    title: str
    unit: str = ""
    direction: str = ""
    group: str = ""
    identity: str = ""
    decimals: int | None = None
    is_text: bool = False

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return {"up": "↑", "down": "↓"}.get(self.direction, "")

    @property
    def shown_unit(self) -> str:
        """The unit as a sign where there is one."""
        return "°" if self.unit == "degrees" else self.unit

    @property
    def heading(self) -> str:
        """``PSNR (dB) ↑``"""
        return f"{self.title}{f' ({self.shown_unit})' if self.unit else ''} {self.arrow}".rstrip()


@dataclass(frozen=True)
class Row:
    """A row: its label, its cells in the order of the columns, and of a run's row the estimate and ``facts`` (folder
    name, plan's hash, seed, draws, dtype, device, batch size, command, licences, failed ids, images seen in training).
    ``part`` heads the rows from the first that has it, such as a dataset's among those of several."""

    label: str
    cells: tuple[Cell, ...]
    estimate: str = ""
    part: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Footnote:
    """Why cells are empty or incomplete, and what it concerns: metrics by title or rows by label, whichever are
    fewer."""

    text: str
    concerns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.concerns)}: {self.text}"


@dataclass(frozen=True)
class Grid:
    """Rows and columns. ``corner`` is what the rows are, ``marking`` says what best and second mean, and ``of_each``
    of what they are best and second."""

    corner: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[Footnote, ...] = ()
    marking: str = AS_SHOWN
    of_each: str = "column"

    @property
    def ranks(self) -> set[str]:
        """The ranks that some cell has."""
        return {cell.rank for row in self.rows for cell in row.cells if cell.rank}

    @property
    def legend(self) -> str:
        """What follows the names of the marks."""
        return f"of each {self.of_each}, {self.marking}"

    def column(self, j: int) -> list[Cell]:
        """The cells of a column."""
        return [row.cells[j] for row in self.rows]


@dataclass(frozen=True)
class Section:
    """A grid with what is said of it.

    Attributes
    ----------
    title : empty for none.
    about : what the numbers were measured on.
    notes : what a reader must know, each a line.
    identities : signatures of what the grid shows.
    """

    title: str = ""
    grid: Grid | None = None
    about: str = ""
    notes: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """A report: ``about`` stands before its sections, ``notes`` behind them."""

    sections: tuple[Section, ...]
    about: str = ""
    notes: tuple[str, ...] = ()


def words(title: str) -> Column:
    """A column of words."""
    return Column("", title, is_text=True)


def figures(title: str) -> Column:
    """A column of figures that are no metric's."""
    return Column("", title)


def grouped(said: Mapping[str, Sequence[str]]) -> list[str]:
    """``PSNR, SSIM: fewer than 12 scenes``: what is said, each once, with all that it concerns."""
    return [f"{', '.join(dict.fromkeys(concerned))}: {text}" for text, concerned in said.items()]
