"""Documents in LaTeX: floats that need ``booktabs`` and nothing else, whatever names stand in them."""

from __future__ import annotations

import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.core.errors import one_line
from bench.reports.document import AS_SHOWN, Cell, Column, Document, Grid, Row, Section

ARTICLE_PT = 345.0  # \textwidth of article at 10 pt, the narrowest usual page
_LONGEST_NAME_PT = 110.0
_MARK_PT = 4.0  # room for a raised number behind the last column


@dataclass(frozen=True)
class _Size:
    """A size of type: its name, the em of its proportions in points (small fonts are wider), the gap
    between columns, and the next smaller size with its em, in which intervals are set."""

    name: str
    em: float
    gap: float
    small: str
    small_em: float


_SIZES = (_Size("small", 9.35, 5, "scriptsize", 8.1), _Size("footnotesize", 8.6, 4, "scriptsize", 8.1),
          _Size("footnotesize", 8.6, 3, "scriptsize", 8.1), _Size("scriptsize", 8.1, 2.5, "tiny", 6.6))  # fmt: skip


Notes = Literal["full", "short", "none"]


@dataclass(frozen=True)
class Style:
    """How a float is set.

    Attributes
    ----------
    width_pt : of the text; what is wider is set in stacks of columns.
    caption : instead of what the section says of its numbers; None for that.
    label : what ``\\ref{tab:...}`` finds it by; a document of several floats numbers them.
    notes : what stands below: all, ``short`` (why cells are empty or incomplete, and settings are left out), or none.
    """

    width_pt: float = ARTICLE_PT
    caption: str | None = None
    label: str = "rfbench"
    notes: Notes = "full"


def to_latex(document: Document, style: Style = Style()) -> str:
    """A ``table`` float for each grid, which needs ``\\usepackage{booktabs}`` and nothing else.

    ``\\rfbest`` and ``\\rfsecond`` set the marks and may be defined before to look otherwise. The size is the largest
    at which the grid fits the width; one that does not fit even at the smallest is set in as few stacks of columns as
    possible, each with all rows. Numbered notes, settings and identities follow in small print.
    """
    sections = [section for section in document.sections if section.grid is not None]
    labels = [f"{style.label}-{i}" if len(sections) > 1 else style.label for i in range(1, len(sections) + 1)]
    texts = [_float(section, style, label) for section, label in zip(sections, labels, strict=True)]
    return "\n\n".join(texts)


def lost_letters(document: Document) -> str:
    """The letters of a document that pdflatex cannot set with the fonts of article, each once."""
    texts: list[str] = [document.about, *document.notes]
    for section in document.sections:
        texts += [section.title, section.about, *section.notes]
        if section.grid is not None:
            texts += [row.label for row in section.grid.rows] + [c.title for c in section.grid.columns]
            texts += [cell.text for row in section.grid.rows for cell in row.cells]
            texts += map(str, section.grid.footnotes)
    return "".join(dict.fromkeys(c for text in texts for c in one_line(text, 500) if _latex_character(c) == "?" != c))


def _float(section: Section, style: Style, label: str) -> str:
    grid = section.grid
    assert grid is not None
    if style.notes == "none":  # nor marks that lead nowhere
        grid = dataclasses.replace(grid, footnotes=(), rows=tuple(map(_without_notes, grid.rows)))
    panels, size = _layout(grid, style.width_pt)
    wide_names = _name_width(grid, size.em) > _LONGEST_NAME_PT
    of_each = f" of each {latex_text(grid.of_each)}" if grid.of_each != "column" else ""
    legend = {"best": f"Best{of_each} in bold", "second": "second underlined"}
    marks = ", ".join(text for rank, text in legend.items() if rank in grid.ranks)
    if marks and grid.marking != AS_SHOWN:
        marks += f", {latex_text(grid.marking)}"
    said = [style.caption] if style.caption else [section.title, section.about]
    sentences = [text if text.endswith((".", "!", "?")) else f"{text}." for text in map(latex_text, said) if text]
    sentences += [f"{marks}."] if marks else []
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\providecommand{\\rfbest}[1]{\\textbf{#1}}",
        "\\providecommand{\\rfsecond}[1]{\\underline{#1}}",
        "\\begin{table}[tbp]",
        # Stacks stand flush left, so that the names of their rows do.
        "\\centering" if len(panels) == 1 else "\\raggedright",
        f"\\caption{{{' '.join(sentences)}}}",
        f"\\label{{tab:{re.sub(r'[^A-Za-z0-9:._-]', '-', label)}}}\\vspace{{1ex}}",
        f"\\{size.name}\\setlength{{\\tabcolsep}}{{{size.gap:g}pt}}",
    ]
    for i, columns in enumerate(panels):
        lines += ["\\par\\medskip"] if i else []
        lines += _tabular(grid, columns, wide_names, size)
    notes = [f"$^{{{i}}}$\\,{latex_text(str(note))}" for i, note in enumerate(grid.footnotes, 1)]
    if style.notes == "full":
        notes += [latex_text(text) for text in section.notes if text]
        identities = ";\n".join(map(latex_identity, section.identities))
        notes += ["\\texttt{" + identities + "}"] if identities else []
    if notes and style.notes != "none":
        lines += [
            "\\par\\medskip",
            "\\begin{minipage}{\\linewidth}\\scriptsize\\raggedright\\setlength{\\parindent}{0pt}",
            *(f"\\hangindent=1em {note}\\par" for note in notes),
            "\\end{minipage}",
        ]
    return "\n".join([*lines, "\\end{table}"])


def _without_notes(row: Row) -> Row:
    return dataclasses.replace(row, cells=tuple(dataclasses.replace(cell, note=None) for cell in row.cells))


def _tabular(grid: Grid, places: Sequence[int], wide_names: bool, size: _Size) -> list[str]:
    """One stack: the columns at these places, with all rows."""
    columns = [grid.columns[j] for j in places]
    rows = [(row, [row.cells[j] for j in places]) for row in grid.rows]
    above, rules, at = [""], [], 2
    for group, of in itertools.groupby(columns, key=lambda c: c.group):
        count = len(list(of))
        above.append(f"\\multicolumn{{{count}}}{{c}}{{{latex_text(group)}}}")
        rules.append(f"\\cmidrule(lr){{{at}-{at + count - 1}}}")
        at += count
    # Beside the last numbers the line below the group may reach the table's edge.
    rules[-1:] = [rule.replace("(lr)", "(l)") for rule in rules[-1:]]
    heads = [" & ".join(above) + " \\\\", " ".join(rules)] if any(c.group for c in columns) else []
    heads.append(" & ".join(["", *(_latex_title(c.title) for c in columns)]) + " \\\\")
    heads += [" & ".join(["", *map(_latex_unit, columns)]) + " \\\\"] if any(c.direction for c in columns) else []
    lines: list[str] = []
    part = ""
    for row, cells in rows:
        if row.part != part:
            part = row.part
            lines += ["\\midrule"] if lines else []
            lines.append(f"\\multicolumn{{{len(columns) + 1}}}{{@{{}}l}}{{\\emph{{{latex_text(part)}}}}} \\\\")
        texts = " & ".join([_label(row, wide_names), *map(_latex_cell, cells)])
        intervals = [_latex_interval(cell, size) for cell in cells]
        if any(intervals):  # a line of their own, close below
            lines += [texts + " \\\\[-0.5ex]", " & ".join(["", *intervals]) + " \\\\[0.3ex]"]
        else:
            lines.append(texts + " \\\\")
    # The last column's raised numbers stand beside it, but not beyond the rules.
    marked = max((len(_marks(cells[-1])) for _, cells in rows if cells), default=0)
    end = f"@{{\\hspace{{{_MARK_PT * marked:g}pt}}}}" if marked else "@{}"
    names = f"p{{{_LONGEST_NAME_PT:g}pt}}" if wide_names else "l"
    kinds = "".join("l" if c.is_text else "r" for c in columns)
    return [
        f"\\begin{{tabular}}{{@{{}}{names}{kinds}{end}}}",
        "\\toprule",
        *heads,
        "\\midrule",
        *lines,
        "\\bottomrule",
        "\\end{tabular}",
    ]


def _label(row: Row, wide_names: bool) -> str:
    """A row's name; after the end of a line ``[`` and ``*`` would be read as part of that."""
    text = latex_text(row.label)
    text = "{}" + text if text.startswith(("[", "*")) else text
    return f"\\raggedright\\hangindent=1em {text}" if wide_names else text


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text).replace("-{}", "-").replace("-", "$-$") if cell.text else "--"
    text = f"\\textbf{{{text}}}" if cell.is_strong else text
    text = {"best": f"\\rfbest{{{text}}}", "second": f"\\rfsecond{{{text}}}"}.get(cell.rank or "", text)
    # Marks take no room, so that digits stay below digits.
    marks = ",".join(_marks(cell))
    return text + (f"\\makebox[0pt][l]{{$^{{{marks}}}$}}" if marks else "")


def _marks(cell: Cell) -> list[str]:
    """What stands raised beside a number."""
    return ["\\approx"] * cell.is_level + ([str(cell.note + 1)] if cell.note is not None else [])


def _latex_interval(cell: Cell, size: _Size) -> str:
    return f"{{\\{size.small} {cell.interval.replace('-', '$-$')}}}" if cell.interval else ""


def _latex_title(title: str) -> str:
    known = {"ΔE00": "$\\Delta E_{00}$", "D_λ": "$D_{\\lambda}$", "D_s": "$D_{s}$"}
    return known.get(title) or latex_text(title)


def _latex_unit(column: Column) -> str:
    arrow = {"up": "$\\uparrow$", "down": "$\\downarrow$"}.get(column.direction, "")
    unit = {"degrees": "deg"}.get(column.unit, column.unit)
    return f"{latex_text(unit)}\\,{arrow}" if unit else arrow


_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}",
    "|": "\\textbar{}", "`": "{`}", '"': "''", "–": "--", "—": "---", "−": "$-$",
    "‘": "`", "’": "'", "“": "``", "”": "''", "…": "\\dots{}", "°": "$^{\\circ}$", "×": "$\\times$", "±": "$\\pm$",
    "·": "$\\cdot$", "≤": "$\\leq$", "≥": "$\\geq$", "→": "$\\rightarrow$", "↑": "$\\uparrow$", "↓": "$\\downarrow$",
    "∞": "$\\infty$", "²": "$^{2}$", "³": "$^{3}$", "µ": "$\\mu$", "∆": "$\\Delta$",
    "≈": "$\\approx$",
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


def _layout(grid: Grid, width_pt: float) -> tuple[list[list[int]], _Size]:
    """The fewest stacks of columns, by their places, and the largest size that needs no more of them."""
    tried = [(_panels(grid, size, width_pt), size) for size in _SIZES]
    return min(tried, key=lambda option: len(option[0]))


def _panels(grid: Grid, size: _Size, width_pt: float) -> list[list[int]]:
    """The columns in stacks that fit, broken between groups where that is possible."""
    panels: list[list[int]] = []
    for _, group in itertools.groupby(range(len(grid.columns)), key=lambda j: grid.columns[j].group):
        whole = list(group)
        alone = _width(grid, whole, size) <= width_pt
        for part in [whole] if alone else [[j] for j in whole]:
            if panels and _width(grid, panels[-1] + part, size) <= width_pt:
                panels[-1] += part
            else:
                panels.append(part)
    return panels or [[]]


def _width(grid: Grid, places: Iterable[int], size: _Size) -> float:
    """About how wide the tabular comes out, in points; 0 to 10 % too much."""
    em, gap, places = size.em, size.gap, list(places)
    total = min(_name_width(grid, em), _LONGEST_NAME_PT) + 2 * gap * len(places) + _MARK_PT
    for name, group in itertools.groupby(places, key=lambda j: grid.columns[j].group):
        widths = []
        for j in group:
            column, cells = grid.columns[j], grid.column(j)
            heads = max(_text_width(text, em) for text in (column.title, f"{column.unit} ↑"))
            bold = 1.1
            numbers = (_text_width(c.text, em) * (bold if c.rank == "best" else 1) for c in cells)
            widths.append(max(heads, *numbers, *(_text_width(c.interval, size.small_em) for c in cells)))
        total += max(sum(widths), _text_width(name, em) - 2 * gap * (len(widths) - 1))
    return total


def _name_width(grid: Grid, em: float) -> float:
    return max((_text_width(row.label, em) for row in grid.rows), default=0.0)


def _text_width(text: str, em: float) -> float:
    """The width of a text in Computer Modern, from the widths of its kinds of characters."""

    def width(c: str) -> float:
        if c in "., :;'|()-fijlrtI":
            return 0.34
        if c.isupper() or c in "@%&":
            return 0.93 if c in "MWm" else 0.7
        return 0.53

    return em * sum(map(width, text))
