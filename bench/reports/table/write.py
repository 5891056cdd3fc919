"""A table as a document, and its CSV and JSON. Marks, texts and notes come from the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench.core.errors import one_line
from bench.reports.document import Column, Document, Section
from bench.reports.render import data, latex, markdown, terminal
from bench.reports.table.build import Table

FORMAT = 1
CSV_HEAD = ("model", "metric", "value", "n", "reason", "identity", "direction", "unit", "group", "low", "high")


def about(table: Table) -> str:
    """What the numbers were measured on, in one sentence."""
    captions = table.protocol_options.get("captions")
    # A dataset's captions were written by somebody who saw the HR: a reader must know whether a model was told.
    source = {
        "dataset": "the dataset's (as a rule written from HR)",
        "template": "a template's (from LR)",
        "shuffled": "another scene's (a control)",
        "none": "none",
    }
    named = source.get(str(captions), f"the frozen file {one_line(captions, 60)}")
    words = named if table.reads_captions else "read by no model here"
    return (
        f"Dataset {table.dataset}, split {table.split}, {counted(table.images)}, fingerprint "
        f"{table.fingerprint[:12]}; protocol {table.protocol}"
        + (f"; captions: {words}" if captions is not None else "")
    )


def counted(images: int) -> str:
    """``24 images``"""
    return f"{images} image{'s' * (images != 1)}"


def section_of(table: Table, title: str = "") -> Section:
    """A table as a part of a document."""
    identities = tuple(column.identity for column in table.columns)
    return Section(title, table.grid, about(table), tuple(note for note in table.notes if note), identities)


def document_of(table: Table) -> Document:
    """A table as a document of its own."""
    return Document((section_of(table),))


def to_markdown(table: Table) -> str:
    """A pipe table with notes and identities below."""
    return markdown.to_markdown(document_of(table))


def to_latex(table: Table, style: latex.Style = latex.Style()) -> str:
    """A float that needs booktabs and nothing else."""
    return latex.to_latex(document_of(table), style)


def to_text(table: Table) -> str:
    """Aligned text."""
    return terminal.to_text(document_of(table))


def to_csv(table: Table) -> str:
    """One line for each row and metric, numbers at full precision, empty where there is none."""
    return data.to_csv(CSV_HEAD, csv_rows(table))


def csv_rows(table: Table) -> Iterator[list[Any]]:
    """The lines of ``to_csv``."""
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            facts = (column.direction, column.unit, column.group, cell.low, cell.high)
            yield [row.label, column.metric, cell.value, cell.n, cell.reason, cell.identity, *facts]


def described(column: Column) -> dict[str, Any]:
    """A column as documents have it; what is shown of it belongs to texts."""
    return {key: getattr(column, key) for key in ("metric", "title", "unit", "direction", "group", "identity")}


def head_of(table: Table) -> dict[str, Any]:
    """What was measured on what, as every document of a table has it."""
    return {
        "format": FORMAT,
        "protocol": {"label": table.protocol, **table.protocol_options},
        "dataset": {"name": table.dataset, "split": table.split, "fingerprint": table.fingerprint,
                    "images": table.images},
    }  # fmt: skip


def to_json(table: Table) -> str:
    """The whole table; ``format`` counts the versions of this document. There is no NaN in it."""
    return data.to_json(as_json(table))


def as_json(table: Table) -> dict[str, Any]:
    """What ``to_json`` writes."""
    shown = ("value", "n", "reason", "note", "identity", "std", "rank", "text", "low", "high")
    rows = []
    for row in table.rows:
        cells = [vars(cell) | {"note": table.footnotes[cell.note].text if cell.note is not None else None}
                 for cell in row.cells]  # fmt: skip
        metrics = {c.metric: {key: cell[key] for key in shown} for c, cell in zip(table.columns, cells, strict=True)}
        for place, cell in zip(metrics.values(), row.cells, strict=True):
            place |= {"level": True} if cell.is_level else {}
        rows.append({"model": row.label, "estimate": row.estimate, "run": dict(row.facts), "metrics": metrics})
    return head_of(table) | {
        "columns": [described(column) for column in table.columns],
        "rows": rows,
        "notes": [text for text in table.notes if text],
        "marking": table.marking,
    }


WRITERS: Mapping[str, Callable[[Table], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
}
