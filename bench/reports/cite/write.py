"""What ``rfbench cite`` says as text, Markdown, LaTeX, BibTeX or JSON. Every string is escaped for where it goes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence

from bench.core.errors import one_line
from bench.reports.cite.bibtex import plain
from bench.reports.cite.collect import Cite, Code, Methods
from bench.reports.table.write import latex_identity, latex_text, markdown_text

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
    parts = [_wrapped(paragraph), "Identities", *_columns([(i.kind, i.name, i.signature) for i in methods.identities])]
    parts += ["", "Licences", *_columns([(x.what, x.licence, x.restricts) for x in methods.licences])]
    if methods.notes:
        parts += ["", "For the author", *(f"  {note}" for note in methods.notes)]
    parts += ["", "BibTeX", "", to_bibtex(methods)]
    return "\n".join([parts[0], "", *parts[1:]])


def to_markdown(methods: Methods) -> str:
    """Markdown with pandoc's citations (``[@key]``), pipe tables, and the entries in a block."""
    paragraph = "".join(
        f"[{'; '.join(f'@{k}' for k in p.keys)}]"
        if isinstance(p, Cite)
        else _markdown_code(p.text)
        if isinstance(p, Code)
        else _edges(p, lambda t: markdown_text(t).replace("@", "\\@"))
        for p in methods.paragraph
    )
    rows = [(markdown_text(i.kind), markdown_text(i.name), _markdown_code(i.signature)) for i in methods.identities]
    licences = [tuple(markdown_text(t) for t in (x.what, x.licence, x.restricts or "–")) for x in methods.licences]
    lines = [paragraph, "", *_pipes(("what", "name", "identity"), rows)]
    lines += ["", *_pipes(("used", "licence", "restricts"), licences)]
    if methods.notes:
        lines += ["", *(f"- {markdown_text(note)}" for note in methods.notes)]
    entries = to_bibtex(methods)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", entries)), default=0))
    return "\n".join([*lines, "", f"{fence}bibtex", entries, fence])


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
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


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


def _markdown_code(text: str) -> str:
    """Text in backquotes, of which it may hold some itself; a bar would end a cell."""
    shown = one_line(text, 500).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if "`" in shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _pipes(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  " + "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    ]


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
