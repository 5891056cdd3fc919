"""``rfbench plot``: one subcommand for each kind of figure."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.group("plot")
def command() -> None:
    """Draw figures of finished runs."""


@command.command("panel")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The figure, FILE.png or FILE.pdf."
)
@click.option("--ids", metavar="A,B,...", help="Which images, in this order.  [default: the first four]")
@click.option("--crop", type=int, metavar="PX", help="Only the middle PX x PX pixels of the HR grid.")
@click.option("--data", metavar="DIR|NAME", help="Where the dataset lies now.  [default: where the run found it]")
def panel(runs: tuple[Path, ...], out: Path, ids: str | None, crop: int | None, data: str | None) -> int:
    """Images side by side: LR, draw 0 of each run with the PSNR of the whole image, HR.

    RUN is a run folder, or a folder of them; all must be on the same data under the same protocol.
    """
    from bench import figures
    from bench.core.errors import RfbenchError
    from bench.store import find_runs

    if out.suffix.lower() not in figures.ENDINGS:
        raise RfbenchError(f"--out: found '{out.name}', expected a name that ends in .png or .pdf")
    names = [n.strip() for n in ids.split(",") if n.strip()] if ids else None
    content = figures.panel(find_runs(runs), names or None, data=data, crop_px=crop)
    figures.save(figures.draw_panel(content), out)
    print(f"figure: {out}", file=sys.stderr)
    return 0
