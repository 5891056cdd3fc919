"""Documents as text, aligned by ``rich``, with bold and underlined type where it goes to a terminal."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.core.errors import one_line
from bench.reports.document import ALIKE, NONE, Cell, Document, Grid, Section

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_UNBROKEN = 10_000  # columns, more than any line of ours has
_GAP = 2
_LABEL, _WORDS = 28, 16
"""What the names of rows, and a column of words, keep of their width before the table is set in stacks."""
_STYLES = {"best": "bold", "second": "underline", None: ""}


def to_text(document: Document, *, width: int | None = None, is_terminal: bool = False) -> str:
    """The document as aligned text.

    Parameters
    ----------
    width : lines are broken there, and a table that is wider is set in stacks of columns, each with all rows; None for
        lines as long as they are.
    is_terminal : with the escapes that set bold and underlined type; without them the marks are a star and a plus sign.
    """
    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=width or _UNBROKEN, force_terminal=is_terminal, no_color=True, highlight=False,
        color_system="standard" if is_terminal else None, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    for part in _parts(document, width or _UNBROKEN, plain=not is_terminal):
        console.print(part, soft_wrap=width is None)
    written = console.file
    assert isinstance(written, io.StringIO)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def printed(document: Document) -> str:
    """The document as it goes to stdout: broken and marked for a terminal, plain anywhere else."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    return to_text(document, width=width, is_terminal=is_terminal)


def _parts(document: Document, width: int, *, plain: bool) -> Iterator[RenderableType]:
    if document.about:
        yield _line(document.about)
        yield ""
    for i, section in enumerate(document.sections):
        if i:
            yield ""
        yield from _section(section, width, plain=plain)
    if document.notes:
        yield ""
        yield from map(_line, document.notes)


def _section(section: Section, width: int, *, plain: bool) -> Iterator[RenderableType]:
    from rich.padding import Padding

    inset = 2 if section.title else 0
    notes = [text for text in (section.about, *section.notes) if text]
    if section.title:
        yield _line(section.title)
    if section.grid is not None:
        for i, table in enumerate(_stacks(section.grid, width - inset, plain=plain)):
            if i:
                yield ""
            yield Padding(table, (0, 0, 0, inset))
        marks = {"best": "*" if plain else "bold", "second": "+" if plain else "underlined"}
        ranks = [f"{marks[rank]} {rank}" for rank in ("best", "second") if rank in section.grid.ranks]
        said = [f"{', '.join(ranks)} {section.grid.legend}"] if ranks else []
        if not section.title:
            yield ""
        notes = [*(f"[{_letter(i)}] {note}" for i, note in enumerate(section.grid.footnotes)), *said, *notes]
    for note in notes:
        yield _line(f"{' ' * inset}- {one_line(note, 1000)}")


@dataclass(frozen=True)
class _Set:
    """A column as it is set: its heading and texts, and how narrow it may become."""

    head: Text
    texts: list[Text]
    is_text: bool

    @property
    def least(self) -> int:
        widest = max(_widths([self.head, *self.texts]))
        return min(widest, _WORDS) if self.is_text else widest


def _widths(texts: Iterable[Text]) -> list[int]:
    return [line.cell_len for text in texts for line in text.split("\n")]


def _stacks(grid: Grid, width: int, *, plain: bool) -> Iterator[Table]:
    """The grid as tables below each other, each with as many columns as fit."""
    two_lines = any(c.group for c in grid.columns)
    columns = []
    for j, column in enumerate(grid.columns):
        heads = [column.title, f"{column.shown_unit} {column.arrow}".strip()] if two_lines else [column.heading]
        head, texts = _column([one_line(h, 60) for h in heads], grid.column(j), column.is_text, plain=plain)
        columns.append(_Set(head, texts, column.is_text))
    label = min(_LABEL, max(_widths(map(_line, [grid.corner, *(row.label for row in grid.rows)]))))
    stack: list[_Set] = []
    for found in columns:
        if stack and label + sum(_GAP + one.least for one in [*stack, found]) > width:
            yield _table(grid, stack, label)
            stack = []
        stack.append(found)
    yield _table(grid, stack, label)


def _table(grid: Grid, columns: Sequence[_Set], label: int) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="", show_edge=False)
    table.add_column(_line(grid.corner), no_wrap=False, min_width=label)
    for column in columns:
        table.add_column(column.head, no_wrap=not column.is_text, overflow="fold", min_width=column.least)
    part = ""
    for row, *cells in zip(grid.rows, *(column.texts for column in columns), strict=True):
        if row.part != part:
            part = row.part
            table.add_row(_line(part))
        table.add_row(_line(row.label), *cells)
    return table


def _column(heads: list[str], cells: list[Cell], is_text: bool, *, plain: bool) -> tuple[Text, list[Text]]:
    """A column's heading and marked texts; numbers are filled up from the left, so that digits stand below digits
    (rich drops what is blank at the end of a line), headings above them, and intervals behind."""
    from rich.cells import cell_len
    from rich.text import Text

    room = max((len(_mark(c, plain=plain)) for c in cells), default=0)
    wide = max((len(c.interval) for c in cells), default=0)
    texts = [one_line(cell.text, 500) or NONE for cell in cells]
    behind = [f"{_mark(cell, plain=plain):<{room}}" + (f" {cell.interval:>{wide}}" if wide else "") for cell in cells]
    above = "" if wide else " " * room
    widths = [cell_len(t + b) for t, b in zip(texts, behind, strict=True)] + [cell_len(h + above) for h in heads]
    width = 0 if is_text else max(widths)
    found = []
    for cell, text, after in zip(cells, texts, behind, strict=True):
        made = Text(" " * (width - cell_len(text + after)))
        made.append(text, style="bold" if cell.is_strong else _STYLES[cell.rank])
        found.append(made.append(after))
    return Text("\n".join(" " * (width - cell_len(h + above)) + h for h in heads)), found


def _mark(cell: Cell, *, plain: bool) -> str:
    rank = {"best": "*", "second": "+"}.get(cell.rank or "", "") if plain else ""
    return rank + ALIKE * cell.is_level + (f"[{_letter(cell.note)}]" if cell.note is not None else "")


def _letter(index: int) -> str:
    more, last = divmod(index, 26)
    return (_letter(more - 1) if more else "") + chr(ord("a") + last)


def _line(text: str) -> Text:
    """Text of a file as one line that holds no escape."""
    from rich.text import Text

    leading = text[: len(text) - len(text.lstrip(" "))]
    return Text(leading + one_line(text, 1000))
