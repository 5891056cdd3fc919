"""``rfbench export``"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bench.cli import complete

_EPILOG = """\b
Examples:
  rfbench export results-of-today --out pictures --references
  rfbench export runs/rareflow-tiny-paired-scenes-0123456789 --out means \\
      --estimate mean
"""


@click.command("export", epilog=_EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Pictures become DIR/RUN/ID.png."
)
@click.option(
    "--estimate",
    default="sample",
    show_default=True,
    type=click.Choice(["sample", "mean"]),
    help="Draw 0, which image metrics score, or the mean of the draws.",
)
@click.option("--references", is_flag=True, help="Also write the LR and HR images, to DIR/lr and DIR/hr.")
@click.option(
    "--data",
    metavar="DIR|NAME",
    shell_complete=complete.dataset,
    help="Where the dataset lies now.  [default: where the run found it]",
)
def command(runs: tuple[Path, ...], out: Path, estimate: str, references: bool, data: str | None) -> int:
    """Write the predictions of runs as 8-bit RGB pictures. RUN is a run folder, or a folder of them.

    The pictures are what image metrics looked at: in display range, rounded, without the protocol's border. Images
    that failed have none.
    """
    from bench.records.run import find_runs, read_run
    from bench.reports.pictures import export

    found = find_runs(runs)
    for run, folder, count in export(found, out, estimate=estimate, references=references, data=data):
        finished = read_run(run)
        failed, protocol = len(finished.summary.failed), finished.plan.protocol
        print(f"{folder}: {count} images" + (f", {failed} failed" if failed else ""), file=sys.stderr)
        if protocol.get("quantise") is None:
            print("note: this run scored unrounded images (quantise=none); the pictures are rounded", file=sys.stderr)
        if protocol.get("border_px"):
            print(f"note: the border of {protocol['border_px']} px is cut off, as for the metrics", file=sys.stderr)
    return 0
