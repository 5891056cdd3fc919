"""``rfbench data``: make the procedural scenes, import folders of images."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

_Folder = click.Path(path_type=Path)


@click.group("data")
def command() -> None:
    """Make the procedural scenes; turn folders of images into datasets."""


@command.command("scenes")
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
    from bench.data.make import size_of, write_scenes
    from bench.run.progress import Progress

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


@command.command("import")
@click.argument("layout", metavar="LAYOUT")
@click.argument("source", type=_Folder, metavar="SRC")
@click.argument("target", type=_Folder, metavar="DST")
@click.option("--name", help="Of the dataset.  [default: the name of DST]")
@click.option("--split", default="test", show_default=True, help="The split that the images belong to.")
@click.option(
    "--unit",
    default="display",
    show_default=True,
    help="folder: what the numbers mean (display, reflectance, relative).",
)
@click.option(
    "--scale", type=float, metavar="N", help="folder: what stored numbers are divided by (4095: 12-bit white)."
)
@click.option("--bands", metavar="NAMES", help="folder: the files' bands in their order, such as 'B G R NIR'.")
@click.option("--role", "roles", multiple=True, help="catalogue: which rows; repeat for several.  [default: paired]")
def import_(
    layout: str,
    source: Path,
    target: Path,
    name: str | None,
    split: str,
    unit: str,
    scale: float | None,
    bands: str | None,
    roles: tuple[str, ...],
) -> None:
    """Turn the images of SRC into a dataset folder DST. Layouts:

    \b
    folder     a plain folder of HR images, or one with lr/ and hr/ (and pan/, mask/) inside
    catalogue  a folder with manifest.csv (id, role, kind, file, bands, value_meaning, ...)
    """
    from bench.core.errors import RfbenchError, unknown
    from bench.data.importers import LAYOUTS, import_catalogue, import_folder

    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    name = name or target.resolve().name
    if layout == "folder":
        if roles:
            raise RfbenchError("--role belongs to the layout catalogue; leave it out")
        count = import_folder(source, target, name=name, split=split, unit=unit, scale=scale, bands=bands)
    else:
        if unit != "display" or scale is not None or bands is not None:
            raise RfbenchError("--unit, --scale and --bands belong to the layout folder; a catalogue says them itself")
        count = import_catalogue(source, target, name=name, split=split, roles=roles or ("paired",))
    click.echo(f"{target}: {count} images")
    print(f"next: rfbench run --model bicubic --data {target}", file=sys.stderr)
