"""``rfbench merge``"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bench.cli import complete
from bench.cli.run import shown_path
from bench.cli.shared import settle_threads

settle_threads()

_EPILOG = """\b
Examples:
  rfbench run --model seesr --data my-pairs --out results --shard 1/2
  rfbench run --model seesr --data my-pairs --out results --shard 2/2
  rfbench merge results
  rfbench table results
"""


@click.command("merge", epilog=_EPILOG)
@click.argument("places", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option(
    "--data",
    metavar="DIR|NAME",
    shell_complete=complete.dataset,
    help="Where the dataset lies now.  [default: where the parts found it]",
)
@click.option("--keep", is_flag=True, help="Leave the parts where they are; by default they go when the run is whole.")
def command(places: tuple[Path, ...], data: str | None, keep: bool) -> int:
    """Put the parts of runs together that were made with --shard I/N.

    DIR is the --out of the parts. The run has the bytes that it would have had in one piece. Nothing is predicted
    again; metrics of the set, such as FID, are computed from what the parts kept.
    """
    from bench.score.merge import merge

    for run in merge(places, sys.argv, data=data, keep=keep):
        click.echo(shown_path(run.path))
    return 0
