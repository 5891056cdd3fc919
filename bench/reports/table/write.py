"""A table as Markdown, LaTeX, CSV or JSON. Marks, texts and notes come from the table; a writer only sets them."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.core.errors import one_line
from bench.reports.table.build import AS_SHOWN, Cell, Column, Table

FORMAT = 1
_LETTERS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"  # there is no q above the line


def about(table: Table) -> str:
    """What the numbers were measured on, in one sentence."""
    count = f"{table.images} image{'s' * (table.images != 1)}"
    captions = table.protocol_options.get("captions")
    # A dataset's captions were written by somebody who saw the HR: a reader must know whether a model was told.
    source = {
        "dataset": "the dataset's (as a rule written from HR)",
        "template": "a template's (from LR)",
        "shuffled": "another scene's (a control)",
        "none": "none",
    }
    words = (
        source.get(str(captions), f"the frozen file {one_line(captions, 60)}")
        if table.reads_captions
        else "read by no model here"
    )
    return (
        f"Dataset {table.dataset}, split {table.split}, {count}, fingerprint {table.fingerprint[:12]}; protocol "
        f"{table.protocol}" + (f"; captions: {words}" if captions is not None else "")
    )


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """The groups in order, each with how many columns it has."""
    return [(group, len(list(of))) for group, of in itertools.groupby(columns, key=lambda c: c.group)]


def _ranks_used(table: Table) -> set[str]:
    return {cell.rank for row in table.rows for cell in row.cells if cell.rank}


# --- Markdown -------------------------------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """A pipe table, padded so that it also reads well in a terminal, with notes and identities below.

    The best is ``**bold**``, the second ``<ins>underlined</ins>``, which is how GitHub's Markdown writes it. An empty
    cell is an en dash; raised letters lead to the notes.
    """
    above = [""]
    for group, count in _spans(table.columns):
        above += [markdown_text(group), *[""] * (count - 1)]
    below = ["**model**"]
    for column in table.columns:
        unit = "°" if column.unit == "degrees" else column.unit
        arrow = "↑" if column.direction == "up" else "↓"
        below.append(f"**{markdown_text(column.title)}** {f'({markdown_text(unit)}) ' if unit else ''}{arrow}")
    cells = [_markdown_column([row.cells[j] for row in table.rows]) for j in range(len(table.columns))]
    rows = [above, below, *([markdown_text(r.label), *texts] for r, *texts in zip(table.rows, *cells, strict=True))]
    widths = [max(3, *(columns_wide(row[j]) for row in rows)) for j in range(len(below))]

    def line(cells: Sequence[str]) -> str:
        # Texts to the left, numbers to the right, as the rule below the first row tells GitHub.
        padded = [
            c + " " * (w - columns_wide(c)) if j == 0 else " " * (w - columns_wide(c)) + c
            for j, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join([":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])])
    lines = [line(rows[0]), f"|{rule}|", *(line(row) for row in rows[1:]), ""]
    lines += [f"- {_letter(i)} {markdown_text(str(note))}" for i, note in enumerate(table.footnotes)]
    used = _ranks_used(table)
    if used:
        second = ", <ins>second</ins>" if "second" in used else ""
        lines.append(f"- **best**{second} of each column, {markdown_text(table.marking)}")
    lines += [f"- {markdown_text(text)}" for text in (about(table), *table.notes) if text]
    lines += ["", *fenced([column.identity for column in table.columns])]
    return "\n".join(lines)


def fenced(texts: Sequence[str]) -> list[str]:
    """Lines of a Markdown block that shows texts as they are. No text can end it: its fence is longer than any run of
    backticks inside."""
    fence = "`" * max(3, 1 + max((len(m) for t in texts for m in re.findall("`+", t)), default=0))
    return [f"{fence}text", *texts, fence]


def _markdown_column(cells: Sequence[Cell]) -> list[str]:
    """The texts of a column, with room after those without a mark so that digits stand below digits, then intervals."""
    before = {"best": "**", "second": "<ins>", None: ""}
    behind = {"best": "**", "second": "</ins>", None: ""}
    after = [(_letter(c.note) if c.note is not None else "") + behind[c.rank] for c in cells]
    room = max(map(len, after), default=0)
    wide = max((len(c.interval) for c in cells), default=0)
    behind_it = [f" {c.interval:>{wide}}" if wide else "" for c in cells]
    return [f"{before[c.rank]}{c.text or '–'}{a:<{room}}{i}" for c, a, i in zip(cells, after, behind_it, strict=True)]


def _letter(index: int) -> str:
    """A raised letter for each note; two letters when the alphabet is through."""
    more, last = divmod(index, len(_LETTERS))
    return (_letter(more - 1) if more else "") + _LETTERS[last]


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is. Underscores inside words mean nothing there and stay readable."""
    escaped = re.sub(r"([\\|`<>*\[\]~$&#!])", r"\\\1", one_line(text, 500))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)


def columns_wide(text: str) -> int:
    """How many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


# --- LaTeX ----------------------------------------------------------------------------------------------------

ARTICLE_PT = 345.0  # \textwidth of article at 10 pt, the narrowest usual page
_LONGEST_NAME_PT = 110.0
_MARK_PT = 4.0  # room for a raised number behind the last column


@dataclass(frozen=True)
class _Size:
    """A size of type: its name, the em of its proportions in points (small fonts are wider), \tabcolsep, and the
    next smaller size with its em, in which intervals are set."""

    name: str
    em: float
    gap: float
    small: str
    small_em: float


_SIZES = (_Size("small", 9.35, 5, "scriptsize", 8.1), _Size("footnotesize", 8.6, 4, "scriptsize", 8.1),
          _Size("footnotesize", 8.6, 3, "scriptsize", 8.1), _Size("scriptsize", 8.1, 2.5, "tiny", 6.6))  # fmt: skip


def to_latex(table: Table, width_pt: float = ARTICLE_PT, *, title: str = "", label: str = "rfbench") -> str:
    """A ``table`` float that needs ``\\usepackage{booktabs}`` and nothing else.

    ``\\rfbest`` and ``\\rfsecond`` set the marks and may be defined before to look otherwise. The size is the largest
    at which the table fits ``width_pt``; a table that does not fit even at the smallest is set in as few stacks of
    columns as possible, each with all rows. Numbered notes, settings and identities follow in small print. ``title``
    begins the caption, and ``label`` is what ``\\ref{tab:...}`` finds the float by.
    """
    panels, size = _layout(table, width_pt)
    wide_names = _name_width(table, size.em) > _LONGEST_NAME_PT
    used = _ranks_used(table)
    legend = {"best": "Best in bold", "second": "second underlined"}
    marks = ", ".join(text for rank, text in legend.items() if rank in used)
    if marks and table.marking != AS_SHOWN:
        marks += f", each {latex_text(table.marking)}"
    sentences = [f"{text}." for text in (latex_text(title), latex_text(about(table)), marks) if text]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\providecommand{\\rfbest}[1]{\\textbf{#1}}",
        "\\providecommand{\\rfsecond}[1]{\\underline{#1}}",
        "\\begin{table}[tbp]",
        # Stacks stand flush left, so that the names of their rows do.
        "\\centering" if len(panels) == 1 else "\\raggedright",
        f"\\caption{{{' '.join(sentences)}}}",
        f"\\label{{tab:{label}}}\\vspace{{1ex}}",
        f"\\{size.name}\\setlength{{\\tabcolsep}}{{{size.gap:g}pt}}",
    ]
    for i, columns in enumerate(panels):
        lines += ["\\par\\medskip"] if i else []
        lines += _latex_tabular(table, columns, wide_names, size)
    notes = [f"$^{{{i}}}$\\,{latex_text(str(note))}" for i, note in enumerate(table.footnotes, 1)]
    notes += [latex_text(text) for text in table.notes if text]
    notes.append("\\texttt{" + ";\n".join(latex_identity(column.identity) for column in table.columns) + "}")
    lines += [
        "\\par\\medskip",
        "\\begin{minipage}{\\linewidth}\\scriptsize\\raggedright\\setlength{\\parindent}{0pt}",
        *(f"\\hangindent=1em {note}\\par" for note in notes),
        "\\end{minipage}",
        "\\end{table}",
    ]
    return "\n".join(lines)


def _latex_tabular(table: Table, columns: Sequence[Column], wide_names: bool, size: _Size) -> list[str]:
    above, rules, at = [""], [], 2
    for group, count in _spans(columns):
        above.append(f"\\multicolumn{{{count}}}{{c}}{{{latex_text(group)}}}")
        rules.append(f"\\cmidrule(lr){{{at}-{at + count - 1}}}")
        at += count
    # Beside the last numbers the line below the group may reach the table's edge.
    if rules:
        rules[-1] = rules[-1].replace("(lr)", "(l)")
    titles = ["", *(_latex_title(c.title) for c in columns)]
    units = ["", *(_latex_unit(c) for c in columns)]
    where = {c.metric: j for j, c in enumerate(table.columns)}
    rows = [[latex_text(row.label), *(_latex_cell(row.cells[where[c.metric]]) for c in columns)] for row in table.rows]
    names = f"p{{{_LONGEST_NAME_PT:g}pt}}" if wide_names else "l"
    if wide_names:
        rows = [[f"\\raggedright\\hangindent=1em {row[0]}", *row[1:]] for row in rows]
    lines = []
    for row, texts in zip(table.rows, rows, strict=True):
        intervals = [_latex_interval(row.cells[where[c.metric]], size) for c in columns]
        if any(intervals):  # a line of their own, close below
            lines += [" & ".join(texts) + " \\\\[-0.5ex]", " & ".join(["", *intervals]) + " \\\\[0.3ex]"]
        else:
            lines.append(" & ".join(texts) + " \\\\")
    # The last column's raised numbers stand beside it, but not beyond the rules.
    marked = any(row.cells[where[columns[-1].metric]].note is not None for row in table.rows)
    end = f"@{{\\hspace{{{_MARK_PT:g}pt}}}}" if marked else "@{}"
    return [
        f"\\begin{{tabular}}{{@{{}}{names}{'r' * len(columns)}{end}}}",
        "\\toprule",
        " & ".join(above) + " \\\\",
        " ".join(rules),
        " & ".join(titles) + " \\\\",
        " & ".join(units) + " \\\\",
        "\\midrule",
        *lines,
        "\\bottomrule",
        "\\end{tabular}",
    ]


def _latex_cell(cell: Cell) -> str:
    text = cell.text.replace("-", "$-$") if cell.text else "--"
    text = {"best": f"\\rfbest{{{text}}}", "second": f"\\rfsecond{{{text}}}"}.get(cell.rank or "", text)
    # The mark takes no room, so that digits stay below digits.
    return text + (f"\\makebox[0pt][l]{{$^{{{cell.note + 1}}}$}}" if cell.note is not None else "")


def _latex_interval(cell: Cell, size: _Size) -> str:
    return f"{{\\{size.small} {cell.interval.replace('-', '$-$')}}}" if cell.interval else ""


def _latex_title(title: str) -> str:
    known = {"ΔE00": "$\\Delta E_{00}$", "D_λ": "$D_{\\lambda}$", "D_s": "$D_{s}$"}
    return known.get(title) or latex_text(title)


def _latex_unit(column: Column) -> str:
    arrow = "$\\uparrow$" if column.direction == "up" else "$\\downarrow$"
    unit = {"degrees": "deg"}.get(column.unit, column.unit)
    return f"{latex_text(unit)}\\,{arrow}" if unit else arrow


_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}",
    "|": "\\textbar{}", "`": "{`}", '"': "''", "–": "--", "—": "---", "−": "$-$",
    "‘": "`", "’": "'", "“": "``", "”": "''", "…": "\\dots{}", "°": "$^{\\circ}$", "×": "$\\times$", "±": "$\\pm$",
    "·": "$\\cdot$", "≤": "$\\leq$", "≥": "$\\geq$", "→": "$\\rightarrow$", "↑": "$\\uparrow$", "↓": "$\\downarrow$",
    "∞": "$\\infty$", "²": "$^{2}$", "³": "$^{3}$", "µ": "$\\mu$", "∆": "$\\Delta$",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "η": "eta", "θ": "theta", "κ": "kappa",
    "λ": "lambda", "μ": "mu", "ν": "nu", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi",
    "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Π": "Pi", "Σ": "Sigma",
    "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_LATEX |= {letter: f"$\\{name}$" for letter, name in _GREEK.items()}


def latex_text(text: str) -> str:
    """Text that pdflatex sets as it is, with the fonts of article and no package.

    Accents of western Europe stay, other letters lose theirs; what is then still unknown becomes a question mark.
    """
    # Two hyphens in a row would become a dash.
    return re.sub("-(?=-)", "-{}", "".join(map(_latex_character, one_line(text, 500))))


def _latex_character(c: str) -> str:
    if c in _LATEX:
        return _LATEX[c]
    if c.isascii() or ("À" <= c <= "ÿ" and c not in "ÐðÞþ÷"):
        return c
    plain = unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode()
    return "".join(_LATEX.get(p, p) for p in plain) or ("" if unicodedata.combining(c) else "?")


def latex_identity(identity: str) -> str:
    """A signature in typewriter, which has the bar as a letter; a line may end at each."""
    return "|\\allowbreak ".join(map(latex_text, identity.split("|")))


def _layout(table: Table, width_pt: float) -> tuple[list[tuple[Column, ...]], _Size]:
    """The fewest stacks of columns, and the largest size that needs no more of them."""
    tried = [(_panels(table, size, width_pt), size) for size in _SIZES]
    return min(tried, key=lambda option: len(option[0]))


def _panels(table: Table, size: _Size, width_pt: float) -> list[tuple[Column, ...]]:
    """The columns in stacks that fit, broken between groups where that is possible."""
    panels: list[tuple[Column, ...]] = []
    for _, group in itertools.groupby(table.columns, key=lambda c: c.group):
        whole = tuple(group)
        alone = _latex_width(table, whole, size) <= width_pt
        for part in [whole] if alone else [(column,) for column in whole]:
            if panels and _latex_width(table, panels[-1] + part, size) <= width_pt:
                panels[-1] += part
            else:
                panels.append(part)
    return panels


def _latex_width(table: Table, columns: Sequence[Column], size: _Size) -> float:
    """About how wide the tabular comes out, in points; 0 to 10 % too much."""
    em, gap = size.em, size.gap
    total = min(_name_width(table, em), _LONGEST_NAME_PT) + 2 * gap * len(columns) + _MARK_PT
    where = {c.metric: j for j, c in enumerate(table.columns)}
    for name, group in itertools.groupby(columns, key=lambda c: c.group):
        widths = []
        for column in group:
            cells = [row.cells[where[column.metric]] for row in table.rows]
            heads = max(_text_width(text, em) for text in (column.title, f"{column.unit} ↑"))
            bold = 1.1
            numbers = (_text_width(c.text, em) * (bold if c.rank == "best" else 1) for c in cells)
            widths.append(max(heads, *numbers, *(_text_width(c.interval, size.small_em) for c in cells)))
        total += max(sum(widths), _text_width(name, em) - 2 * gap * (len(widths) - 1))
    return total


def _name_width(table: Table, em: float) -> float:
    return max(_text_width(row.label, em) for row in table.rows)


def _text_width(text: str, em: float) -> float:
    """The width of a text in Computer Modern, from the widths of its kinds of characters."""

    def width(c: str) -> float:
        if c in "., :;'|()-fijlrtI":
            return 0.34
        if c.isupper() or c in "@%&":
            return 0.93 if c in "MWm" else 0.7
        return 0.53

    return em * sum(map(width, text))


# --- CSV and JSON ---------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """One line for each row and metric, numbers at full precision, empty where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["model", "metric", "value", "n", "reason", "identity", "direction", "unit", "group", "low", "high"]
    )
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            value = "" if cell.value is None else repr(cell.value)
            ends = ("" if end is None else repr(end) for end in (cell.low, cell.high))
            facts = (column.direction, column.unit, column.group, *ends)
            writer.writerow([row.label, column.metric, value, cell.n, cell.reason or "", cell.identity, *facts])
    return buffer.getvalue().rstrip("\n")


def to_json(table: Table) -> str:
    """The whole table; ``format`` counts the versions of this document. There is no NaN in it."""
    document = {
        "format": FORMAT,
        "protocol": {"label": table.protocol, **table.protocol_options},
        "dataset": {
            "name": table.dataset,
            "split": table.split,
            "fingerprint": table.fingerprint,
            "images": table.images,
        },
        "columns": [vars(column) for column in table.columns],
        "rows": [
            {
                "model": row.label,
                "estimate": row.estimate,
                "run": dict(row.facts),
                "metrics": {
                    column.metric: {
                        "value": cell.value,
                        "n": cell.n,
                        "reason": cell.reason,
                        "note": table.footnotes[cell.note].text if cell.note is not None else None,
                        "identity": cell.identity,
                        "std": cell.std,
                        "rank": cell.rank,
                        "text": cell.text,
                        "low": cell.low,
                        "high": cell.high,
                    }
                    for column, cell in zip(table.columns, row.cells, strict=True)
                },
            }
            for row in table.rows
        ],
        "notes": [text for text in table.notes if text],
        "marking": table.marking,
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


WRITERS: Mapping[str, Callable[[Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
}
