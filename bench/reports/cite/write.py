"""What ``rfbench cite`` says as text, Markdown, LaTeX, BibTeX or JSON. Every string is escaped for where it goes."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence

from bench.core.errors import one_line
from bench.reports.cite.bibtex import plain
from bench.reports.cite.collect import Cite, Code, Methods
from bench.reports.document import Cell, Document, Grid, Row, Section, words
from bench.reports.render import data, markdown, terminal
from bench.reports.render.latex import latex_identity, latex_text
from bench.reports.render.markdown import fenced, markdown_code, markdown_text

FORMAT = 1


def to_bibtex(methods: Methods) -> str:
    """A .bib file of everything cited."""
    return "\n\n".join(entry.text() for entry in methods.works)


def to_text(methods: Methods) -> str:
    """For a terminal: names and years in the paragraph, lists below, BibTeX last."""
    works = {entry.key: entry for entry in methods.works}

    def cite(keys: Sequence[str]) -> str:
        return f"({'; '.join(works[k].shown() for k in keys)})"

    paragraph = "".join(
        cite(p.keys) if isinstance(p, Cite) else p.text if isinstance(p, Code) else p for p in methods.paragraph
    )
    lists = [terminal.to_text(Document((dataclasses.replace(section, title=title),)))
             for section, title in zip(_lists(methods), ("Identities", "Licences"), strict=True)]  # fmt: skip
    notes = ["\n".join(["For the author", *(f"  {note}" for note in methods.notes)])] if methods.notes else []
    return "\n\n".join([_wrapped(paragraph), *lists, *notes, "BibTeX", to_bibtex(methods)])


def _lists(methods: Methods) -> tuple[Section, Section]:
    """Identities and licences."""
    identities = [Row(i.kind, (Cell(text=i.name), Cell(text=i.signature, is_code=True))) for i in methods.identities]
    licences = [Row(x.what, (Cell(text=x.licence), Cell(text=x.restricts))) for x in methods.licences]

    def listed(corner: str, columns: Sequence[str], rows: Sequence[Row]) -> Section:
        return Section(grid=Grid(corner, tuple(map(words, columns)), tuple(rows)))

    return (
        listed("what", ("name", "identity"), identities),
        listed("used", ("licence", "restricts"), licences),
    )


def to_markdown(methods: Methods) -> str:
    """Markdown with pandoc's citations (``[@key]``), pipe tables, and the entries in a block."""
    paragraph = "".join(
        f"[{'; '.join(f'@{k}' for k in p.keys)}]"
        if isinstance(p, Cite)
        else markdown_code(p.text)
        if isinstance(p, Code)
        else _edges(p, lambda t: markdown_text(t).replace("@", "\\@"))
        for p in methods.paragraph
    )
    notes = ["\n".join(f"- {markdown_text(note)}" for note in methods.notes)] if methods.notes else []
    entries = "\n".join(fenced([to_bibtex(methods)], "bibtex"))
    return "\n\n".join([paragraph, markdown.to_markdown(Document(_lists(methods))), *notes, entries])


def to_latex(methods: Methods) -> str:
    """A paragraph with ``\\cite``, and two tables that need ``booktabs`` alone; the entries are ``--format bibtex``."""
    paragraph = "".join(
        f"\\cite{{{','.join(p.keys)}}}"
        if isinstance(p, Cite)
        else f"\\texttt{{{_breakable(p.text)}}}"
        if isinstance(p, Code)
        else _edges(p, latex_text)
        for p in methods.paragraph
    )
    lines = [
        "% needs \\usepackage{booktabs}; the works are in references.bib:",
        "%   rfbench cite RUN... --format bibtex --out references.bib",
        "% and are set by \\bibliography{references}",
        paragraph.replace(" \\cite", "~\\cite"),
        "",
    ]
    identities = [
        (latex_text(i.kind), latex_text(i.name), f"\\texttt{{{_breakable(i.signature)}}}") for i in methods.identities
    ]
    lines += _latex_table("Identities of everything that a score hangs on.", "identities", (0.09, 0.28, 0.51),
                          ("", "name", "identity"), identities)  # fmt: skip
    licences = [(latex_text(x.what), latex_text(x.licence), latex_text(x.restricts) or "--") for x in methods.licences]
    lines += _latex_table("Licences of everything used.", "licences", (0.3, 0.32, 0.25),
                          ("used", "licence", "restricts"), licences)  # fmt: skip
    return "\n".join([*lines, *(f"% note: {latex_text(note)}" for note in methods.notes)])


def to_json(methods: Methods) -> str:
    """Everything; ``format`` counts the versions of this document. Citations stand in the paragraph as ``[@key]``."""
    paragraph = "".join(
        f"[{'; '.join(f'@{k}' for k in p.keys)}]" if isinstance(p, Cite) else p.text if isinstance(p, Code) else p
        for p in methods.paragraph
    )
    document = {
        "format": FORMAT,
        "paragraph": paragraph,
        "identities": [vars(i) for i in methods.identities],
        "licences": [vars(x) for x in methods.licences],
        "works": [{"key": e.key, "title": plain(e.field("title")), "bibtex": e.text()} for e in methods.works],
        "notes": list(methods.notes),
    }
    return data.to_json(document)


WRITERS: Mapping[str, Callable[[Methods], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
    "bibtex": to_bibtex,
    "json": to_json,
}


def _edges(text: str, escape: Callable[[str], str]) -> str:
    """An escaped text that keeps the spaces at its ends, which join it to its neighbours."""
    inner = text.strip()
    if not inner:
        return text
    start, end = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{start}{escape(inner)}{end}"


def _breakable(text: str) -> str:
    """Typewriter that may break at the bars of a signature, within paths and options, and after 16 digits of a hash."""
    parts = re.split(r"([0-9a-f]{16}(?=[0-9a-f])|[/=,;_:]+(?![\s/=,;_:]))", one_line(text, 480))
    pairs = ["".join(pair) for pair in itertools.zip_longest(parts[::2], parts[1::2], fillvalue="")]
    return "\\allowbreak ".join(_edges(pair, latex_identity) for pair in pairs if pair)


def _latex_table(
    caption: str, label: str, widths: Sequence[float], head: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """A table whose columns, ``widths`` of the line, break their texts, whatever these are, and leave them ragged."""
    columns = "".join(f"p{{{width:g}\\linewidth}}" for width in widths)
    ragged = [" & ".join(f"\\raggedright {cell}" for cell in row) for row in rows]
    return [
        "\\begin{table}[tbp]",
        f"\\caption{{{caption}}}",
        f"\\label{{tab:rfbench-{label}}}\\vspace{{1ex}}\\scriptsize\\raggedright",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(head) + " \\\\",
        "\\midrule",
        *(f"{row} \\tabularnewline" for row in ragged),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
        "",
    ]


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
