"""``rfbench cite``"""

from __future__ import annotations

import sys
from pathlib import Path

import click

_EPILOG = """\b
Examples:
  rfbench cite results-of-today
  rfbench cite runs/rareflow-* runs/bicubic-* --format latex --out methods.tex
  rfbench cite results-of-today --format bibtex --out references.bib
"""


@click.command("cite", epilog=_EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="text",
    show_default=True,
    type=click.Choice(["text", "markdown", "latex", "bibtex", "json"]),
    help="LaTeX cites by \\cite, Markdown as pandoc does; BibTeX is the list of works alone.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
def command(runs: tuple[Path, ...], form: str, out: Path | None) -> int:
    """Say what a methods section needs of finished runs. RUN is a run folder, or a folder of them.

    A paragraph, the identities of everything a score hangs on, all licences with what they restrict, and BibTeX of
    every work used. Metrics that were not computed are not cited.
    """
    from bench.core.files import write_bytes
    from bench.records.folder import find_runs
    from bench.reports.cite.collect import collect
    from bench.reports.cite.write import WRITERS

    methods = collect(find_runs(runs))
    text = WRITERS[form](methods) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_bytes(out, text.encode())
        print(f"citations: {out}", file=sys.stderr)
    if form in ("latex", "bibtex"):
        for note in methods.notes:
            print(f"note: {note}", file=sys.stderr)
    return 0
