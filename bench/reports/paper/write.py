"""A ledger as Markdown, LaTeX, CSV or JSON. Markdown and LaTeX are set by the writers of tables."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from bench.core.errors import one_line
from bench.reports.paper.build import STATUSES, Entry, Ledger, Line, Section
from bench.reports.paper.paper import CITATION, CLAIMED, decimals, matters
from bench.reports.table.build import Cell, Column, Footnote, Row, Table
from bench.reports.table.write import ARTICLE_PT, markdown_text
from bench.reports.table.write import to_latex as table_to_latex
from bench.reports.table.write import to_markdown as table_to_markdown

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


def as_table(section: Section, declared: Mapping[str, str]) -> Table:
    """A section as a table: below each row of the paper our run of it, and the difference where it means something."""
    notes: dict[str, dict[str, None]] = {}  # text: the titles that it concerns
    rows: list[Row] = []
    last = None
    for entry in section.entries:
        if entry.row is not last:
            cells = [Cell(float(line.printed), 0, None, "", line.printed) for line in entry.lines]
            rows.append(_row(f"{entry.row.name}, paper{'' if entry.label else ' (not run)'}", cells))
        last = entry.row
        if entry.label:
            rows.append(_row(f"ours: {entry.label}", [_ours(line, notes) for line in entry.lines]))
            word = "not comparable" if entry.reasons else "difference"
            rows.append(_row(word, [_difference(line, notes) for line in entry.lines]))
    return dataclasses.replace(
        section.ours,
        columns=tuple(_column(section, j) for j in range(len(section.measures))),
        rows=tuple(rows),
        footnotes=tuple(Footnote(text, tuple(titles)) for text, titles in notes.items()),
        notes=tuple(_remarks(section, declared)),
    )


def _row(label: str, cells: list[Cell]) -> Row:
    return Row(label, "sample", tuple(cells), {})


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
    return Cell(line.ours, 0, None, "", line.text, note=note)


def _difference(line: Line, notes: dict[str, dict[str, None]]) -> Cell:
    if line.difference is not None:
        text = f"{line.difference:+.{decimals(line.printed) + 1}f}"
        text = text[1:] if float(text) == 0 else text
        return Cell(line.difference, 0, None, "", f"{text}*" if line.status == "reproduced" else text)
    reasons = line.reasons if line.text else line.reasons[1:]  # why there is no number stands with our number
    note = _noted(line, f"not comparable: {'; '.join(reasons)}", notes) if reasons else None
    return Cell(None, 0, None, "", "", note=note)


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


def to_markdown(ledger: Ledger) -> str:
    """A heading and a table for each table of the paper."""
    parts = []
    for section in ledger.sections:
        parts += [f"### {markdown_text(title(section))}", table_to_markdown(as_table(section, ledger.declared))]
    return "\n\n".join(parts)


def to_latex(ledger: Ledger, width_pt: float = ARTICLE_PT) -> str:
    """Floats for each table of the paper, several where one would be taller than a page; needs booktabs."""
    floats = []
    for section in ledger.sections:
        parts = _on_pages(section, ledger.declared, width_pt)
        for i, part in enumerate(parts, 1):
            more = f", part {i} of {len(parts)}" if len(parts) > 1 else ""
            label = f"rfbench-paper-{section.table.number}{f'-{i}' if more else ''}"
            table = as_table(part, ledger.declared)
            floats.append(table_to_latex(table, width_pt, title=title(section) + more, label=label))
    return "\n\n".join(floats)


def _on_pages(section: Section, declared: Mapping[str, str], width_pt: float) -> list[Section]:
    """The section, or parts of it by rows of the paper, each of which fits a page with its notes."""
    table = as_table(section, declared)
    stacks = table_to_latex(table, width_pt).count("\\begin{tabular}")
    names = list(dict.fromkeys(entry.row.name for entry in section.entries))
    rows = sum(1 + (len(row.label) > _LONGEST_ON_A_LINE) for row in table.rows)
    small, width = _SMALL_PRINT
    notes = [*map(str, table.footnotes), *table.notes, "".join(column.identity for column in table.columns)]
    height = stacks * (rows + 4) + small * sum(1 + len(note) // width for note in notes)
    if height <= _LINES_A_PAGE or len(names) == 1:
        return [section]
    first = set(names[: (len(names) + 1) // 2])
    halves = [tuple(e for e in section.entries if (e.row.name in first) is here) for here in (True, False)]
    return [
        part for half in halves for part in _on_pages(dataclasses.replace(section, entries=half), declared, width_pt)
    ]


def _reasons(entry: Entry, line: Line) -> list[str]:
    return [*entry.reasons, *line.reasons]


def to_csv(ledger: Ledger) -> str:
    """One line for each number of the paper and run of it; numbers at full precision, empty where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["table", "row", "run", "metric", "claimed", "ours", "difference", "tolerance", "status",
                     "reasons", "identity"])  # fmt: skip
    for section in ledger.sections:
        for entry in section.entries:
            for line in entry.lines:
                numbers = ["" if n is None else repr(n) for n in (line.ours, line.difference, line.tolerance)]
                place = [section.table.number, entry.row.name, entry.label or "", line.measure.metric, line.printed]
                reasons = "; ".join(_reasons(entry, line))
                writer.writerow([*place, *numbers, line.status, reasons, line.measure.identity])
    return buffer.getvalue().rstrip("\n")


def to_json(ledger: Ledger) -> str:
    """The whole ledger; ``format`` counts the versions of this document. There is no NaN in it."""

    def described(section: Section) -> dict[str, Any]:
        ours = section.ours
        return {
            "table": section.table.number,
            "subject": section.table.subject,
            "protocol": {"label": ours.protocol, **ours.protocol_options},
            "dataset": {"name": ours.dataset, "split": ours.split, "fingerprint": ours.fingerprint,
                        "images": ours.images},
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

    document = {
        "format": FORMAT,
        "paper": CITATION,
        "declared": dict(ledger.declared),
        "tables": [described(section) for section in ledger.sections],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


WRITERS: Mapping[str, Callable[[Ledger], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
}
