"""``rfbench upscale``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.cli import complete
from bench.cli.shared import settle_threads

settle_threads()

_UPSCALE_EPILOG = """\b
Examples:
  rfbench upscale s2.tif s2_2m.tif --caption "a thaw slump above a river"
  rfbench upscale s2.tif s2_2m.tif --uncertainty --draws 8
  rfbench upscale s2.tif s2_2m.tif --model bicubic --output reflectance \\
      --bands "B02 B03 B04 B08" --offset -1000
  gdalbuildvrt -separate s2.vrt B02.jp2 B03.jp2 B04.jp2
  rfbench upscale s2.vrt s2_2m.tif --bands "B G R"

\b
The same from Python:
  from bench.upscale import upscale
  upscale("s2.tif", "s2_2m.tif", model="rareflow")
"""


@click.command("upscale", epilog=_UPSCALE_EPILOG)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.tif", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="rareflow",
    shell_complete=complete.model,
    show_default=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="A registered model.",
)
@click.option("--scale", default=5.0, show_default=True, metavar="S", help="How many times finer, 1 to 16.")
@click.option("--caption", default="", metavar="TEXT", help="What the image shows, for models that read it.")
@click.option(
    "--uncertainty",
    is_flag=True,
    help="Add the band 'uncertainty', the standard deviation of the draws (root mean square over colours, in their "
    "unit), and the model's maps. The file is float32 then; its colours keep the same numbers.",
)
@click.option("--draws", type=int, metavar="K", help="Of a stochastic model, for a spread or a mean.  [default: 4]")
@click.option(
    "--estimate",
    default="sample",
    show_default=True,
    type=click.Choice(["sample", "mean"]),
    help="Draw 0 (sharp), or the mean of the draws (smoother, nearer to the truth on average).",
)
@click.option("--seed", default=0, show_default=True, metavar="S", help="Noise is of (seed, name of IN, draw, place).")
@click.option(
    "--output",
    default="display",
    show_default=True,
    type=click.Choice(["display", "reflectance", "float"]),
    help="display: 8 bit, a picture, with a mask where data are missing. reflectance: 16 bit, x 10000, 0 is no data. "
    "float: the picture unrounded, in [0, 1].",
)
@click.option(
    "--unit",
    default="reflectance",
    show_default=True,
    type=click.Choice(["reflectance", "display", "relative"]),
    help="Of IN: reflectance, a picture, or numbers without an absolute level.",
)
@click.option(
    "--input-scale",
    type=float,
    metavar="X",
    help="What IN's numbers are divided by.  [default: as IN's tags say, else 10000; 255]",
)
@click.option(
    "--offset",
    type=float,
    metavar="X",
    help="What is added to IN's numbers before; -1000 for Sentinel-2 products of 2022 and later.  [default: as IN's "
    "tags say, else 0]",
)
@click.option("--bands", metavar="NAMES", help="IN's bands in their order ('B G R NIR').  [default: as IN names them]")
@click.option("--sensor", metavar="NAME", help="Says which band B4 of IN is: sentinel-2, landsat-8, planetscope, ...")
@click.option("--nodata", type=float, metavar="X", help="IN's value without data.  [default: as IN declares]")
@click.option(
    "--normalisation",
    metavar="FORM",
    help="From reflectance to a picture: fixed[lo,hi] (x 10000) or percentile[lo,hi] of the whole image.  "
    "[default: the model's own, else fixed[0,3000]]",
)
@click.option("--gamma", type=float, metavar="X", help="Exponent after it.  [default: the model's own, else 1]")
@click.option(
    "--tile", type=int, metavar="PX", help="Side of a tile in pixels of IN.  [default: the model's, else 256]"
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where the model runs.")
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Arithmetic of the model.",
)
def command(source: Path, target: Path, **options: Any) -> int:
    """Upscale a georeferenced image of any size: IN (GeoTIFF, JP2, PNG, VRT, an image in a zip, NETCDF:FILE:VARIABLE)
    becomes OUT.tif on a finer grid.

    CRS, outline and holes stay. Memory depends on --tile, not on the size of IN. OUT.tif appears when it is whole; its
    tags say how it was made.

    A learned model shows what is plausible there, not what was seen: --uncertainty says where its draws disagree.
    With --output reflectance, what a model made as a picture is taken back to reflectance by the range that it was
    trained on (else IN's), so it is clipped to that range, and it is the level of the sensor that the model imitates:
    fit for display and for a rough index, not a measurement.
    """
    import torch

    from bench.core import provenance
    from bench.upscale import upscale

    torch.set_num_threads(max(1, provenance.cores() - 1))  # tiles come one after the other
    try:
        upscale(source, target, progress=True, **options)
    except KeyboardInterrupt:
        click.echo(f"interrupted; {target} was not written", err=True)
        return 130
    click.echo(f"wrote {target}", err=True)
    return 0
