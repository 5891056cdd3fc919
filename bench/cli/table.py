"""``rfbench table``"""

from __future__ import annotations

import sys
from pathlib import Path

import click

_EPILOG = """\b
Examples:
  rfbench table results-of-today
  rfbench table runs/bicubic-* runs/lanczos-* --format latex --out table.tex
  rfbench table runs --metrics psnr_rgb,lpips_alex --format json
  rfbench table runs --ci --format latex --width 516
"""


@click.command("table", epilog=_EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="markdown",
    show_default=True,
    type=click.Choice(["markdown", "latex", "csv", "json"]),
    help="LaTeX needs booktabs; CSV and JSON hold full precision.",
)
@click.option("--metrics", metavar="NAMES", help="Comma-separated.  [default: every metric of the runs]")
@click.option("--ci", is_flag=True, help="Add 95 % intervals of the means, with scenes as clusters.")
@click.option(
    "--mark",
    type=click.Choice(["separated", "plain"]),
    help="Best and second: ties where the data cannot separate rows, or by the shown numbers alone.  "
    "[default: separated with --ci, else plain]",
)
@click.option(
    "--width",
    "width_pt",
    default=345.0,
    show_default=True,
    metavar="PT",
    help="LaTeX: the text's width in points, 516 over two columns of a journal; what is wider is set in stacks.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
def command(
    runs: tuple[Path, ...],
    form: str,
    metrics: str | None,
    ci: bool,
    mark: str | None,
    width_pt: float,
    out: Path | None,
) -> int:
    """Make a table of finished runs. RUN is a run folder, or a folder of them.

    Runs on different data, under different protocols or with different definitions of a metric are refused (exit
    code 3). The best of each column is bold, the second underlined; what is missing is a dash with its reason below.
    With --ci, or --mark separated, every row that the images' paired differences cannot tell from the best is marked
    like it: docs/statistics.md says how.
    """
    from bench.core.files import write_bytes
    from bench.store import find_runs
    from bench.tables.build import build_table
    from bench.tables.doubt import with_intervals, with_separated_marks
    from bench.tables.write import WRITERS, to_latex

    names = tuple(n.strip() for n in metrics.split(",") if n.strip()) if metrics else None
    folders = find_runs(runs)
    table = build_table(folders, names or None)
    if ci:
        table = with_intervals(table, folders)
    if mark == "separated" or (ci and mark is None):
        table = with_separated_marks(table, folders)
    text = (to_latex(table, width_pt) if form == "latex" else WRITERS[form](table)) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_bytes(out, text.encode())
        print(f"table: {out}", file=sys.stderr)
    return 0
