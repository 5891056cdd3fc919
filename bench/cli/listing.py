"""Lists that fit a terminal: a line for each entry, of which the last column gives way first."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import click

from bench.core.errors import one_line

_GAP = 2
_LEAST = 8
"""What a column keeps while another one can give way."""

wide_option = click.option("--wide", is_flag=True, help="All columns, whole, however long the lines become.")


def show(headings: Sequence[str], rows: Sequence[Sequence[str]], brief: Sequence[str], *, wide: bool) -> None:
    """Print a list: the columns ``brief`` in the terminal's width, 80 where there is none, or all of them ``wide``.

    What was cut ends in three dots. The last column is cut first, and the first, which names the entry, last.
    """
    shown = headings if wide else brief
    places = [headings.index(name) for name in shown]
    lines = [[one_line(row[i], 2000) for i in places] for row in [headings, *rows]]
    widths = [max(len(line[j]) for line in lines) for j in range(len(shown))]
    if not wide:
        widths = _fitted(widths, shutil.get_terminal_size((80, 24)).columns - _GAP * (len(shown) - 1))
    for line in lines:
        cells = [one_line(cell, width).ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo((" " * _GAP).join(cells).rstrip())


def _fitted(widths: Sequence[int], room: int) -> list[int]:
    """Widths that sum up to ``room`` where that is possible: the last becomes narrower, then the widest between, then
    the first."""
    found = list(widths)
    for j in (len(found) - 1, *sorted(range(1, len(found) - 1), key=lambda j: -found[j]), 0):
        found[j] = min(found[j], max(_LEAST, found[j] - (sum(found) - room)))
    return found
