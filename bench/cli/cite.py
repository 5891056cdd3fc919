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
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    metavar="STUDY",
    help="Also the paragraph on a closed expert study (text, Markdown and LaTeX).",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
def command(runs: tuple[Path, ...], form: str, study: Path | None, out: Path | None) -> int:
    """Say what a methods section needs of finished runs. RUN is a run folder, or a folder of them.

    A paragraph, the identities of everything a score hangs on, all licences with what they restrict, and BibTeX of
    every work used. Metrics that were not computed are not cited.
    """
    from bench.core.files import write_bytes
    from bench.records.run import find_runs
    from bench.reports.cite.collect import collect
    from bench.reports.cite.write import WRITERS

    methods = collect(find_runs(runs))
    text = WRITERS[form](methods) + "\n"
    if study is not None:
        text += _on_study(study, form)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_bytes(out, text.encode())
        print(f"citations: {out}", file=sys.stderr)
    if form in ("latex", "bibtex"):
        for note in methods.notes:
            print(f"note: {note}", file=sys.stderr)
    return 0


def _on_study(study: Path, form: str) -> str:
    from bench.core.errors import RfbenchError
    from bench.reports.render.latex import latex_text
    from bench.study.report import build, to_methods

    if form not in ("text", "markdown", "latex"):
        raise RfbenchError(f"--study writes a paragraph, and --format {form} has none; leave one out")
    paragraph = to_methods(build(study))
    if form != "latex":
        return f"\n{paragraph}\n"
    sentences = paragraph.split(". ")  # latex_text shortens what is very long
    return "\n" + ". ".join(map(latex_text, sentences)) + "\n"
