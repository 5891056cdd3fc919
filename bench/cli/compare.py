"""``rfbench compare``"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bench.cli import complete

_EPILOG = """\b
Examples:
  rfbench compare runs/bicubic-* runs/rareflow-*
  rfbench compare results-of-today --against bicubic --metrics psnr_rgb,de00
  rfbench compare A B C --format json --out comparison.json

Exit codes: 0 compared, whatever was found; 2 wrong input; 3 the runs cannot be paired.
"""


@click.command("compare", epilog=_EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--against", metavar="ROW", help="Compare the others with this row only.  [default: every pair]")
@click.option(
    "--metrics",
    metavar="NAMES",
    shell_complete=complete.metrics_list,
    help="Comma-separated.  [default: every metric of the runs]",
)
@click.option(
    "--alpha", default=0.05, show_default=True, metavar="P", help="What Holm's p must stay below to call one better."
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="How many of the images that differ most.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    help="JSON holds full precision.  [default: text on a terminal, else markdown]",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
def command(
    runs: tuple[Path, ...],
    against: str | None,
    metrics: str | None,
    alpha: float,
    top: int,
    form: str | None,
    out: Path | None,
) -> int:
    """Say whether one model is better than another, metric by metric, as far as the data can say it.

    RUN is a run folder, or a folder of them; nothing is run again. Images are paired by id, scenes are the clusters:
    for each pair and metric the difference with its 95 % interval, a p-value (adjusted by Holm's method over all
    metrics and pairs), images won and lost, the effect size, the smallest difference that these data could have shown,
    and the images that differ most. With fewer than six scenes there is no interval. docs/statistics.md says how each
    is computed, and how well it keeps its word.
    """
    from bench.core.files import write_bytes
    from bench.records.run import find_runs
    from bench.reports.compare.build import compare
    from bench.reports.compare.write import WRITERS, document_of
    from bench.reports.render.terminal import printed

    names = tuple(n.strip() for n in metrics.split(",") if n.strip()) if metrics else None
    comparison = compare(find_runs(runs), names or None, against=against, alpha=alpha, top=top)
    is_terminal = out is None and sys.stdout.isatty()
    form = form or ("text" if is_terminal else "markdown")
    text = (printed(document_of(comparison)) if is_terminal and form == "text" else WRITERS[form](comparison)) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_bytes(out, text.encode())
        print(f"comparison: {out}", file=sys.stderr)
    return 0
