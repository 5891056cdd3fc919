"""Documents in Markdown as GitHub reads it: pipe tables, padded so that they also read well as text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from bench.core.errors import one_line
from bench.reports.document import ALIKE, NONE, Cell, Document, Grid, Section

_LETTERS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"  # there is no q above the line
_MARKS = {"best": ("**", "**"), "second": ("<ins>", "</ins>"), None: ("", "")}


def to_markdown(document: Document) -> str:
    """The document in Markdown.

    The best is ``**bold**``, the second ``<ins>underlined</ins>``, which is how GitHub's Markdown writes it. An empty
    cell is an en dash; raised letters lead to the notes.
    """
    blocks = [[markdown_text(document.about)]] if document.about else []
    blocks += [block for section in document.sections for block in _section(section)]
    blocks += [[f"- {markdown_text(note)}" for note in document.notes]] if document.notes else []
    return "\n\n".join("\n".join(block) for block in blocks)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is. Underscores inside words mean nothing there and stay readable."""
    escaped = re.sub(r"([\\|`<>*\[\]~$&#!])", r"\\\1", one_line(text, 500))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)


def markdown_code(text: str) -> str:
    """Text in backquotes, of which it may hold some itself; a bar would end a cell."""
    shown = one_line(text, 500).replace("|", "\\|")
    fence = "`" * (1 + _longest_run(shown))
    space = " " if "`" in shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def fenced(texts: Sequence[str], language: str = "text") -> list[str]:
    """Lines of a block that shows texts as they are. No text can end it: its fence is longer than any run of backticks
    inside."""
    fence = "`" * max(3, 1 + max(map(_longest_run, texts), default=0))
    return [f"{fence}{language}", *texts, fence]


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _section(section: Section) -> list[list[str]]:
    blocks = [[f"### {markdown_text(section.title)}"]] if section.title else []
    notes = []
    if section.grid is not None:
        blocks.append(_grid(section.grid))
        notes = [f"- {_letter(i)} {markdown_text(str(note))}" for i, note in enumerate(section.grid.footnotes)]
        ranks = section.grid.ranks
        if ranks:
            second = ", <ins>second</ins>" if "second" in ranks else ""
            notes.append(f"- **best**{second} {markdown_text(section.grid.legend)}")
    notes += [f"- {markdown_text(text)}" for text in (section.about, *section.notes) if text]
    blocks += [notes] if notes else []
    blocks += [fenced(section.identities)] if section.identities else []
    return blocks


def _grid(grid: Grid) -> list[str]:
    from rich.cells import cell_len

    has_groups = any(c.group for c in grid.columns)
    titles = [f"**{markdown_text(grid.corner)}**" if has_groups else markdown_text(grid.corner)]
    for column in grid.columns:
        unit = f"({markdown_text(column.shown_unit)}) " if column.unit else ""
        title = markdown_text(column.title)
        titles.append(f"**{title}** {unit}{column.arrow}" if has_groups else f"{title} {unit}{column.arrow}".rstrip())
    cells = [_column(grid.column(j)) for j in range(len(grid.columns))]
    rows, part = [titles], ""
    for row, *texts in zip(grid.rows, *cells, strict=True):
        if row.part != part:
            part = row.part
            rows.append([f"*{markdown_text(part)}*", *[""] * len(grid.columns)])
        rows.append([markdown_text(row.label), *texts])
    if has_groups:
        above = [""]
        for group, of in itertools.groupby(grid.columns, key=lambda c: c.group):
            above += [markdown_text(group), *[""] * (len(list(of)) - 1)]
        rows.insert(0, above)
    widths = [max(3, *(cell_len(row[j]) for row in rows)) for j in range(len(titles))]
    is_text = [True, *(c.is_text for c in grid.columns)]

    def line(texts: Sequence[str]) -> str:
        # Texts to the left, numbers to the right, as the rule below the first row tells GitHub.
        room = [" " * (w - cell_len(t)) for t, w in zip(texts, widths, strict=True)]
        padded = [t + r if left else r + t for t, r, left in zip(texts, room, is_text, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        f":{'-' * (w + 1)}" if left else f"{'-' * (w + 1)}:" for w, left in zip(widths, is_text, strict=True)
    )
    return [line(rows[0]), f"|{rule}|", *map(line, rows[1:])]


def _column(cells: Sequence[Cell]) -> list[str]:
    """The texts of a column, with room after those without a mark so that digits stand below digits, then intervals."""
    marks = [("**", "**") if c.is_strong else _MARKS[c.rank] for c in cells]
    after = [ALIKE * c.is_level + (_letter(c.note) if c.note is not None else "") + m[1]
             for c, m in zip(cells, marks, strict=True)]  # fmt: skip
    room = max(map(len, after), default=0)
    wide = max((len(c.interval) for c in cells), default=0)
    behind = [f" {c.interval:>{wide}}" if wide else "" for c in cells]
    texts = [markdown_code(c.text) if c.is_code and c.text else markdown_text(c.text) or NONE for c in cells]
    return [f"{m[0]}{t}{a:<{room}}{i}" for m, t, a, i in zip(marks, texts, after, behind, strict=True)]


def _letter(index: int) -> str:
    """A raised letter for each note; two letters when the alphabet is through."""
    more, last = divmod(index, len(_LETTERS))
    return (_letter(more - 1) if more else "") + _LETTERS[last]
