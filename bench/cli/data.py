"""``rfbench data``: make the procedural scenes, import folders of images."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from bench.cli.help import Group

_Folder = click.Path(path_type=Path)


_EPILOG = """\b
Examples:
  rfbench data import folder PICTURES my-data
  rfbench data scenes scenes --count 5000 --seed 7 --split train
"""


@click.group("data", cls=Group, epilog=_EPILOG)
def command() -> None:
    """Make the procedural scenes; turn folders of images into datasets."""


_SCENES_EPILOG = """\b
Examples:
  rfbench data scenes scenes
  rfbench data scenes scenes --count 5000 --seed 7 --split train
  rfbench data scenes large --size 400 --factor 4
"""


@command.command("scenes", epilog=_SCENES_EPILOG)
@click.argument("target", type=_Folder, metavar="DST")
@click.option("--count", default=24, show_default=True, metavar="N", help="How many scenes.")
@click.option(
    "--seed", default=2026, show_default=True, metavar="S", help="The embedded benchmark has 2026; train on others."
)
@click.option("--size", default="200", show_default=True, metavar="PX|HxW", help="HR size in pixels of 2 m.")
@click.option("--factor", default=5, show_default=True, metavar="F", help="HR pixels per LR pixel.")
@click.option("--split", default="test", show_default=True, help="The split that the scenes belong to.")
@click.option("--prefix", metavar="TEXT", help="Of the ids.  [default: scene; scene<seed> with another seed than 2026]")
@click.option("--workers", default=os.cpu_count() or 1, metavar="N", help="Processes.  [default: one a core]")
def scenes(
    target: Path, count: int, seed: int, size: str, factor: int, split: str, prefix: str | None, workers: int
) -> None:
    """Make procedural cross-sensor scenes as a dataset folder DST.

    A scene depends on the seed and its id alone. The embedded benchmark was made by the defaults.
    """
    from bench.core.errors import RfbenchError, one_line
    from bench.core.files import safe_name
    from bench.core.progress import Progress
    from bench.data.make import size_of, write_scenes

    hr_px = size_of(size)
    # Two seeds have two sets of ids: the ids of training scenes are never those of the benchmark.
    prefix = prefix or ("scene" if seed == 2026 else f"scene{seed}")
    if prefix != safe_name(prefix):
        raise RfbenchError(f"--prefix: found '{one_line(prefix, 40)}', expected letters, digits, - and _")
    line = f"rfbench data scenes DST --count {count} --seed {seed} --size {size} --factor {factor} --split {split}"
    with Progress(count, 0, "scenes", steps=("make",)) as progress:
        write_scenes(
            target, count=count, seed=seed, split=split, hr_px=hr_px, factor=factor, prefix=prefix, command=line,
            workers=workers, tick=lambda: progress.advance("make"),
        )  # fmt: skip
    click.echo(f"{target}: {count} scenes")


class _ImportHelp(click.Command):
    """Help that lists the layouts from the table that also reads them."""

    def format_help_text(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from bench.data.layouts import LAYOUTS

        super().format_help_text(context, formatter)
        with formatter.section("Layouts, and what SRC holds"):
            formatter.write_dl([(name, layout.expects) for name, layout in LAYOUTS.items()])


def _of(option: str) -> str:
    """The layouts that take an option, for its help."""
    from bench.data.layouts import LAYOUTS

    return ", ".join(name for name, layout in LAYOUTS.items() if option in layout.options)


_IMPORT_EPILOG = """\b
Examples:
  rfbench data import folder PICTURES my-data --unit reflectance \\
      --scale 10000 --bands "B G R NIR"
  rfbench data import folder PAIRS my-data --hr unit=display \\
      --lr 'unit=reflectance sensor=sentinel-2 offset=-1000'
  rfbench data import csv MY-PAIRS my-data --offset -1000
  rfbench data import worldstrat WORLDSTRAT ws --dates clearest
  rfbench data import opensr-test opensr-test/100 opensr --reference raw
  rfbench data import rts-cyber2a rts slumps --hr-gsd-m 4
"""


@command.command("import", cls=_ImportHelp, epilog=_IMPORT_EPILOG)
@click.argument("layout", metavar="LAYOUT")
@click.argument("source", type=_Folder, metavar="SRC")
@click.argument("target", type=_Folder, metavar="DST")
@click.option("--name", help="Of the dataset.  [default: the name of DST]")
@click.option(
    "--split", default="test", show_default=True, help="The split of images to which the layout itself gives none."
)
@click.option(
    "--offset",
    type=float,
    metavar="N",
    help="Added to stored LR numbers (HR where there is no LR) before the scale: -1000 for Sentinel-2 of "
    "baseline 04.00 (from 2022-01-25) that "
    f"is not harmonised, -0.1 where it is 0 to 1. [{_of('offset')}]",
)
@click.option(
    "--unit",
    metavar="UNIT",
    help=f"What the numbers mean (worldstrat: those of HR): display, reflectance, relative. [{_of('unit')}]",
)
@click.option(
    "--scale",
    type=float,
    metavar="N",
    help=f"What stored numbers are divided by (4095: 12-bit white). [{_of('scale')}]",
)
@click.option(
    "--bands",
    metavar="NAMES",
    help=f"The files' bands in their order, such as 'B G R NIR' (A for an alpha channel). [{_of('bands')}]",
)
@click.option(
    "--sensor",
    metavar="NAME",
    help=f"Says which band B4 is: sentinel-2, landsat-8, planetscope, worldview-2, ... [{_of('sensor')}]",
)
@click.option("--nodata", type=float, metavar="N", help=f"The files' number without data. [{_of('nodata')}]")
@click.option(
    "--lr",
    multiple=True,
    metavar="'KEY=VALUE ...'",
    help="What the LR's numbers mean, whatever the layout believes: unit, scale, offset, bands, sensor, nodata, gsd_m, "
    "normalisation, gamma. [every layout]",
)
@click.option("--hr", multiple=True, metavar="'KEY=VALUE ...'", help="The same of the HR.")
@click.option("--pan", multiple=True, metavar="'KEY=VALUE ...'", help="The same of the PAN.")
@click.option(
    "--role", "roles", multiple=True, help=f"Which rows; repeat for several. [{_of('roles')}]  [default: paired]"
)
@click.option("--lr-gsd-m", type=float, metavar="M", help=f"Metres of an LR pixel. [{_of('lr_gsd_m')}]")
@click.option("--hr-gsd-m", type=float, metavar="M", help=f"Metres of an HR pixel. [{_of('hr_gsd_m')}]")
@click.option(
    "--dates",
    metavar="nearest|clearest|all|series",
    help=f"Which LR dates of an area; series: the nearest, with all as its time series. [{_of('dates')}]  "
    "[default: nearest]",
)
@click.option("--level", metavar="L2A|L1C|10m|20m", help=f"Which LR. [{_of('level')}]  [default: L2A; 10m]")
@click.option(
    "--reference",
    metavar="harmonised|raw|histogram",
    help=f"HR matched to the LR's radiometry, or not. [{_of('reference')}]  [default: harmonised of opensr-test, else "
    "raw]",
)
def import_(
    layout: str,
    source: Path,
    target: Path,
    name: str | None,
    split: str,
    lr: tuple[str, ...],
    hr: tuple[str, ...],
    pan: tuple[str, ...],
    **options: object,
) -> None:
    """Turn the images of SRC, which lie in the way LAYOUT names, into a dataset folder DST.

    Files are copied, never changed. What a layout leaves open, and what was believed of it and is not so, is a line on
    stderr that begins with 'warning:'.
    """
    from bench.core.errors import RfbenchError
    from bench.core.progress import Ticker
    from bench.data.bands import check_sensor
    from bench.data.layouts import import_layout, parse_sides

    if options["sensor"] is not None:
        check_sensor(str(options["sensor"]))
    sides = parse_sides({"lr": lr, "hr": hr, "pan": pan})
    for key in ("lr_gsd_m", "hr_gsd_m", "scale"):
        value = options[key]
        if isinstance(value, float) and not 0 < value < float("inf"):
            raise RfbenchError(f"--{key.replace('_', '-')}: found {value:g}, expected a number above 0")
    with Ticker("import") as ticker:
        count = import_layout(
            layout, source, target, name=name or Path(os.path.realpath(target)).name, split=split,
            note=lambda text: print(f"warning: {text}", file=sys.stderr), tick=ticker.tick, sides=sides,
            **options,
        )  # fmt: skip
    click.echo(f"{target}: {count} images")
    print(f"next: rfbench validate {target}", file=sys.stderr)
