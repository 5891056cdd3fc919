"""Tables in other shapes: without what has no number, with rows and columns exchanged, several in one grid."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.core.errors import NotComparable, one_line
from bench.reports.document import Cell, Column, Document, Footnote, Grid, Row, Section, grouped
from bench.reports.render import terminal
from bench.reports.table.build import Table
from bench.reports.table.write import WRITERS, about, counted, document_of


def without_empty(table: Table, folders: Sequence[Path] = ()) -> Table:
    """The table without columns that have no number at all, and a note of what is missing and how to get it.

    Parameters
    ----------
    folders : where the runs lie, for the command that computes what is missing.
    """
    kept = [j for j in range(len(table.columns)) if any(row.cells[j].value is not None for row in table.rows)]
    if len(kept) == len(table.columns):
        return table
    rows = [dataclasses.replace(row, cells=tuple(row.cells[j] for j in kept)) for row in table.rows]
    rows, footnotes = _renumbered(rows, table.footnotes)
    empty = [j for j in range(len(table.columns)) if j not in kept]
    return dataclasses.replace(
        table, columns=tuple(table.columns[j] for j in kept), rows=tuple(rows), footnotes=footnotes,
        notes=(*table.notes, _said_of_empty(table, empty, folders)),
    )  # fmt: skip


def _renumbered(rows: Sequence[Row], footnotes: Sequence[Footnote]) -> tuple[list[Row], tuple[Footnote, ...]]:
    """Rows of which only some footnotes are left, numbered anew."""
    used = sorted({cell.note for row in rows for cell in row.cells if cell.note is not None})
    new = {old: i for i, old in enumerate(used)}
    renumbered = [
        dataclasses.replace(
            row,
            cells=tuple(c if c.note is None else dataclasses.replace(c, note=new[c.note]) for c in row.cells),
        )
        for row in rows
    ]
    return renumbered, tuple(footnotes[old] for old in used)


def _said_of_empty(table: Table, empty: Sequence[int], folders: Sequence[Path]) -> str:
    """``not computed: LPIPS, DISTS (weights missing: ...); 'rfbench weights fetch ...' gets them``, in one line."""
    why: dict[str, list[str]] = {}
    for j in empty:
        reasons = [cell.reason for cell in (row.cells[j] for row in table.rows) if cell.reason]
        why.setdefault(_brief(reasons[0]) if reasons else "no reason was given", []).append(table.columns[j].title)
    listed = "; ".join(f"{', '.join(titles)} ({text})" for text, titles in why.items())
    command = _command(table, empty, folders)
    return f"not computed: {listed}" + (f"; '{command}' computes what it can" if command else "")


def _brief(reason: str) -> str:
    """A reason without what it names behind a colon or a semicolon: which file, which command."""
    return one_line(reason.partition(";")[0].partition(":")[0], 80)


def _command(table: Table, empty: Sequence[int], folders: Sequence[Path]) -> str:
    """The command that fetches missing weights and scores again, for what may have a number then."""
    columns = [(table.columns[j], {row.cells[j].kind for row in table.rows}) for j in empty]
    weights = [c.metric for c, kinds in columns if "missing" in kinds and "|w:" in c.identity]
    slow = [c.metric for c, kinds in columns if "slow" in kinds]
    again = [c.metric for c, kinds in columns if "failed" in kinds]
    if not (weights or slow or again):
        return ""
    runs = " ".join(shlex.quote(one_line(folder, 200)) for folder in folders) or "RUN..."
    fetch = f"rfbench weights fetch {' '.join(weights)} && " if weights else ""
    return f"{fetch}rfbench score {runs} --metrics {','.join([*weights, *slow, *again])}"


def transposed(grid: Grid) -> Grid:
    """A row for each metric and a column for each row: for many metrics and a narrow page."""
    columns = tuple(Column("", row.label, group=row.part) for row in grid.rows)
    rows = tuple(Row(column.heading, tuple(grid.column(j))) for j, column in enumerate(grid.columns))
    return dataclasses.replace(grid, corner="metric", columns=columns, rows=rows, of_each="row")


def together(tables: Mapping[str, Table], whole: Table | None = None) -> Document:
    """Tables of several datasets, protocols or strata as one grid, a part for each, within which numbers are ranked.

    Parameters
    ----------
    tables : by the label of their part.
    whole : the table of all images where the parts are strata of them, which are said of each otherwise.

    Raises
    ------
    NotComparable
        A metric that is defined otherwise in one of them.
    """
    columns: dict[str, Column] = {}
    for table in tables.values():
        for column in table.columns:
            known = columns.setdefault(column.metric, column)
            if _definition(known) != _definition(column):
                raise NotComparable(
                    f"{column.metric}: found values of two identities, {known.identity} and {column.identity}, "
                    "expected one; leave the metric out (--metrics), or run the models again with one set of versions"
                )
    ordered = sorted(columns.values(), key=lambda c: [g for t in tables.values() for g in _groups(t)].index(c.group))
    rows: list[Row] = []
    concerned: dict[str, dict[str, None]] = {}
    said: dict[str, list[str]] = {}
    for label, table in tables.items():
        part = f"{label} ({counted(table.images)})" if whole is not None else label
        for note in table.footnotes:
            concerned.setdefault(note.text, {}).update(dict.fromkeys(note.concerns))
        at = {i: list(concerned).index(note.text) for i, note in enumerate(table.footnotes)}
        where = {column.metric: j for j, column in enumerate(table.columns)}
        for row in table.rows:
            cells = [row.cells[where[c.metric]] if c.metric in where else Cell() for c in ordered]
            noted = [c if c.note is None else dataclasses.replace(c, note=at[c.note]) for c in cells]
            rows.append(dataclasses.replace(row, cells=tuple(noted), part=part))
        for line in (about(whole or table), *(whole or table).notes):
            said.setdefault(line, []).append(part)
    notes = [text if len(parts) == len(tables) else grouped({text: parts})[0] for text, parts in said.items() if text]
    footnotes = tuple(Footnote(text, tuple(concerns)) for text, concerns in concerned.items())
    marking = next(iter(tables.values())).marking
    grid = Grid("model", tuple(ordered), tuple(rows), footnotes, marking, of_each="column within a part")
    return Document((Section(grid=grid, notes=tuple(notes), identities=tuple(c.identity for c in ordered)),))


def _groups(table: Table) -> list[str]:
    return list(dict.fromkeys(column.group for column in table.columns))


def _definition(column: Column) -> str:
    """An identity without what was fitted on a dataset's references."""
    return "|".join(part for part in column.identity.split("|") if not part.startswith("fit:"))


def parts(tables: Sequence[Table]) -> dict[str, Table]:
    """Tables by what tells each from the others: dataset, split, protocol, images, as far as they differ."""
    aspects = [
        {
            "dataset": t.dataset, "split": t.split, "protocol": t.protocol, "images": counted(t.images),
            "fingerprint": t.fingerprint[:8],
        }
        for t in tables
    ]  # fmt: skip
    differing = [key for key in aspects[0] if len({a[key] for a in aspects}) > 1]
    chosen: list[str] = []
    for key in differing or ["dataset"]:  # no more than what tells them apart
        chosen.append(key)
        if len({tuple(a[k] for k in chosen) for a in aspects}) == len(tables):
            break
    return {", ".join(a[key] for key in chosen): table for a, table in zip(aspects, tables, strict=True)}


def for_stdout(table: Table, folders: Sequence[Path] = (), form: str | None = None) -> str:
    """A table as it goes to stdout, in one of the forms of ``WRITERS``; None for text on a terminal, else Markdown.

    Text is without empty columns.
    """
    form = form or ("text" if sys.stdout.isatty() else "markdown")
    if form != "text":
        return WRITERS[form](table)
    return terminal.printed(document_of(without_empty(table, folders)))


def shaped(found: Table | Document, *, is_transposed: bool) -> Document:
    """A table as a document, with rows and columns exchanged where that is asked for."""
    document = found if isinstance(found, Document) else document_of(found)
    if not is_transposed:
        return document
    turned = [
        dataclasses.replace(section, grid=transposed(section.grid) if section.grid is not None else None)
        for section in document.sections
    ]
    return dataclasses.replace(document, sections=tuple(turned))
