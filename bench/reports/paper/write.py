"""A ledger as a document, and its CSV and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from bench.core.errors import one_line
from bench.reports import document
from bench.reports.document import Cell, Column, Footnote, Grid, Row
from bench.reports.paper.build import STATUSES, Entry, Ledger, Line, Section
from bench.reports.paper.paper import CITATION, CLAIMED, decimals, matters
from bench.reports.render import data, latex, markdown, terminal
from bench.reports.table.write import about, head_of

FORMAT = 1
_LINES_A_PAGE = 46  # of article's letter page, below a caption of three lines
_LONGEST_ON_A_LINE = 22  # characters of a row's name
_SMALL_PRINT = 0.8, 100  # the height of a line of notes, and its characters
_LEGEND = (
    "difference: ours minus the paper's; with a star where it is at most one unit of the last printed decimal (half of "
    "which is the paper's rounding): reproduced; every other differs. The paper gives no seed, so of a stochastic "
    "model a small difference may be chance"
)


def title(section: Section) -> str:
    """``Table 1 of the paper (arXiv:2510.23816), ...``"""
    return f"Table {section.table.number} of the paper ({CITATION}), {section.table.subject}, and ours"


def part_of(section: Section, declared: Mapping[str, str]) -> document.Section:
    """A section as a part of a document: below each row of the paper our run of it, and the difference where it means
    something."""
    notes: dict[str, dict[str, None]] = {}  # text: the titles that it concerns
    rows: list[Row] = []
    last = None
    for entry in section.entries:
        if entry.row is not last:
            cells = [Cell(float(line.printed), text=line.printed) for line in entry.lines]
            rows.append(_row(f"{entry.row.name}, paper{'' if entry.label else ' (not run)'}", cells))
        last = entry.row
        if entry.label:
            rows.append(_row(f"ours: {entry.label}", [_ours(line, notes) for line in entry.lines]))
            word = "not comparable" if entry.reasons else "difference"
            rows.append(_row(word, [_difference(line, notes) for line in entry.lines]))
    columns = tuple(_column(section, j) for j in range(len(section.measures)))
    footnotes = tuple(Footnote(text, tuple(titles)) for text, titles in notes.items())
    return document.Section(
        title(section), Grid("model", columns, tuple(rows), footnotes), about(section.ours),
        tuple(note for note in _remarks(section, declared) if note), tuple(column.identity for column in columns),
    )  # fmt: skip


def _row(label: str, cells: list[Cell]) -> Row:
    return Row(label, tuple(cells))


def _column(section: Section, j: int) -> Column:
    measure = section.measures[j]
    of = CLAIMED[measure.claimed]
    identity = measure.identity or f"{measure.metric}: in no run here"
    return Column(measure.metric, measure.title, of.unit, of.direction, of.group, identity)


def _noted(line: Line, text: str, notes: dict[str, dict[str, None]]) -> int:
    notes.setdefault(text, {})[line.measure.title] = None
    return list(notes).index(text)


def _ours(line: Line, notes: dict[str, dict[str, None]]) -> Cell:
    note = None if line.text else _noted(line, line.reasons[0], notes)
    return Cell(line.ours, text=line.text, note=note)


def _difference(line: Line, notes: dict[str, dict[str, None]]) -> Cell:
    if line.difference is not None:
        text = f"{line.difference:+.{decimals(line.printed) + 1}f}"
        text = text[1:] if float(text) == 0 else text
        return Cell(line.difference, text=f"{text}*" if line.status == "reproduced" else text)
    reasons = line.reasons if line.text else line.reasons[1:]  # why there is no number stands with our number
    note = _noted(line, f"not comparable: {'; '.join(reasons)}", notes) if reasons else None
    return Cell(note=note)


def _remarks(section: Section, declared: Mapping[str, str]) -> list[str]:
    statuses = [line.status for entry in section.entries for line in entry.lines]
    counts = ", ".join(f"{statuses.count(s)} {s}" for s in STATUSES)
    lines = [f"{len(statuses)} numbers of the paper: {counts}"]
    labels: dict[str, list[str]] = {}
    for entry in section.entries:
        if entry.label and entry.reasons:
            labels.setdefault("; ".join(entry.reasons), []).append(entry.label)
    lines += [f"{', '.join(of)}: not comparable: {text}" for text, of in labels.items()]
    known: dict[str, list[str]] = {}
    for name, how in declared.items():
        if matters(name, section.table):
            known.setdefault(how, []).append(name)
    lines += [f"declared to be as in the paper: {', '.join(of)}: {one_line(how)}" for how, of in known.items()]
    if any(line.difference is not None for entry in section.entries for line in entry.lines):
        lines.append(_LEGEND)
    if section.elsewhere:
        lines.append(f"no row of the paper: {', '.join(section.elsewhere)}")
    return [*lines, *section.ours.notes]


def document_of(ledger: Ledger) -> document.Document:
    """The ledger as a document: a section for each table of the paper."""
    return document.Document(tuple(part_of(section, ledger.declared) for section in ledger.sections))


def to_text(ledger: Ledger) -> str:
    """Aligned columns for a terminal."""
    return terminal.to_text(document_of(ledger))


def to_markdown(ledger: Ledger) -> str:
    """A heading and a table for each table of the paper."""
    return markdown.to_markdown(document_of(ledger))


def to_latex(ledger: Ledger, style: latex.Style = latex.Style()) -> str:
    """Floats for each table of the paper, several where one would be taller than a page; needs booktabs."""
    floats = []
    for section in ledger.sections:
        parts = _on_pages(section, ledger.declared, style)
        for i, part in enumerate(parts, 1):
            more = f", part {i} of {len(parts)}" if len(parts) > 1 else ""
            label = f"{style.label}-paper-{section.table.number}{f'-{i}' if more else ''}"
            found = part_of(part, ledger.declared)
            found = dataclasses.replace(found, title=found.title + more)
            one = dataclasses.replace(style, label=label, caption=style.caption and style.caption + more)
            floats.append(latex.to_latex(document.Document((found,)), one))
    return "\n\n".join(floats)


def _on_pages(section: Section, declared: Mapping[str, str], style: latex.Style) -> list[Section]:
    """The section, or parts of it by rows of the paper, each of which fits a page with its notes."""
    part = part_of(section, declared)
    grid = part.grid
    assert grid is not None
    stacks = latex.to_latex(document.Document((part,)), style).count("\\begin{tabular}")
    names = list(dict.fromkeys(entry.row.name for entry in section.entries))
    rows = sum(1 + (len(row.label) > _LONGEST_ON_A_LINE) for row in grid.rows)
    small, width = _SMALL_PRINT
    notes = [*map(str, grid.footnotes), *part.notes, "".join(part.identities)]
    height = stacks * (rows + 4) + small * sum(1 + len(note) // width for note in notes)
    if height <= _LINES_A_PAGE or len(names) == 1:
        return [section]
    first = set(names[: (len(names) + 1) // 2])
    halves = [tuple(e for e in section.entries if (e.row.name in first) is here) for here in (True, False)]
    return [part for half in halves for part in _on_pages(dataclasses.replace(section, entries=half), declared, style)]


def _reasons(entry: Entry, line: Line) -> list[str]:
    return [*entry.reasons, *line.reasons]


def to_csv(ledger: Ledger) -> str:
    """One line for each number of the paper and run of it; numbers at full precision, empty where there is none."""
    head = [
        "table",
        "row",
        "run",
        "metric",
        "claimed",
        "ours",
        "difference",
        "tolerance",
        "status",
        "reasons",
        "identity",
    ]
    return data.to_csv(
        head,
        (
            [section.table.number, entry.row.name, entry.label, line.measure.metric, line.printed, line.ours,
             line.difference, line.tolerance, line.status, "; ".join(_reasons(entry, line)), line.measure.identity]
            for section in ledger.sections
            for entry in section.entries
            for line in entry.lines
        ),
    )  # fmt: skip


def to_json(ledger: Ledger) -> str:
    """The whole ledger; ``format`` counts the versions of this document. There is no NaN in it."""

    def described(section: Section) -> dict[str, Any]:
        ours = section.ours
        return {
            "table": section.table.number,
            "subject": section.table.subject,
            **{key: value for key, value in head_of(ours).items() if key != "format"},
            "rows": [
                {
                    "row": entry.row.name,
                    "model": entry.label,
                    "run": dict(entry.facts) or None,
                    "metrics": {
                        line.measure.metric: {
                            "column": line.measure.claimed,
                            "claimed": float(line.printed),
                            "printed": line.printed,
                            "ours": line.ours,
                            "difference": line.difference,
                            "tolerance": line.tolerance,
                            "status": line.status,
                            "reasons": _reasons(entry, line),
                            "identity": line.measure.identity or None,
                        }
                        for line in entry.lines
                    },
                }
                for entry in section.entries
            ],
            "elsewhere": list(section.elsewhere),
            "notes": [text for text in ours.notes if text],
        }  # fmt: skip

    whole = {
        "format": FORMAT,
        "paper": CITATION,
        "declared": dict(ledger.declared),
        "tables": [described(section) for section in ledger.sections],
    }
    return data.to_json(whole)


WRITERS: Mapping[str, Callable[[Ledger], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
}
