"""``rfbench score``"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from bench.cli.shared import metrics_option, settle_threads, weights_option

settle_threads()

_SHOWN = 5  # failures named on stderr; the document names all
_EPILOG = """\b
Examples:
  rfbench score --pred my-outputs --ref hr-images
  rfbench score --pred my-outputs --ref hr-images --pred-name '{id}_x4_out' --metrics psnr_rgb,ssim_rgb --border-px 4
  rfbench score --pred floats --ref twelve-bit --scale 1 --ref-scale 4095 --format json --out scores.json
  rfbench score --pred my-outputs --data my-dataset --split test --protocol paired
  rfbench score --pred geotiffs --data my-dataset --unit reflectance --bands 'R G B NIR' --format csv

\b
The JSON (docs/score-json.md):
  {"format": 1,
   "images": [{"id": "a", "scores": {"psnr_rgb": 28.1}, "reasons": {"nll": "..."}, "error": null, ...}],
   "summary": {"psnr_rgb": {"value": 28.1, "n": 1, "reason": null}, ...},
   "identities": {"psnr_rgb": "psnr_rgb|rgb|peak1|cap100|q8|r1", ...}, ...}

\b
Exit codes: 0 all scored; 1 some images failed (each is a row with its error); 2 wrong input, or nothing matched.
"""


@click.command("score", epilog=_EPILOG)
@click.option(
    "--pred",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The images to score: files of one folder.",
)
@click.option("--ref", type=click.Path(path_type=Path), metavar="DIR", help="A folder of references of the same names.")
@click.option("--data", metavar="DIR|NAME", help="Or a dataset, whose ids the images are named by.")
@click.option("--split", help="With --data: which of its images.  [default: test]")
@click.option(
    "--protocol",
    metavar="NAME[:KEY=VALUE,...]",
    help="With --data: grid, border, rounding, display.  [default: paired]",
)
@metrics_option
@click.option(
    "--pred-name",
    default="{id}",
    show_default=True,
    metavar="PATTERN",
    help="What the images' names look like without ending; {id} is the reference's.",
)
@click.option(
    "--scale",
    type=float,
    metavar="WHITE",
    help="What is stored for white in 16-bit and float images: 1, 4095, 65535, ... 8-bit images are stored / 255.",
)
@click.option(
    "--ref-scale", type=float, metavar="WHITE", help="With --ref: the same of the references.  [default: --scale]"
)
@click.option(
    "--bands",
    metavar="NAMES",
    help="Bands of TIFF, npy and npz files in their order, such as 'B G R NIR' (A for alpha); colour PNG and JPEG are "
    "R G B.  [default: as the files name them, R G B of three]",
)
@click.option(
    "--sensor", metavar="NAME", help="Says which band B4 of a file is: sentinel-2, landsat-8, planetscope, ..."
)
@click.option(
    "--unit",
    default="display",
    show_default=True,
    type=click.Choice(["display", "reflectance"]),
    help="What the images hold; reflectance (integers x 10000, or --scale) only with --data.",
)
@click.option(
    "--border-px", type=int, metavar="N", help="With --ref: pixels cut from every side of both.  [default: 0]"
)
@click.option(
    "--quantise", type=click.Choice(["8", "none"]), help="With --ref: round both to 8 bit before metrics.  [default: 8]"
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where networks score.")
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Scoring processes; 0 scores in this one. No number depends on it.  [default: one a core, at most 4; none for "
    "few images]",
)
@click.option(
    "--strict", is_flag=True, help="Stop before anything is computed if a metric cannot be or a file has no partner."
)
@weights_option
@click.option(
    "--format",
    "form",
    default="markdown",
    show_default=True,
    type=click.Choice(["markdown", "json", "csv"]),
    help="JSON and CSV hold every image, at full precision.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
def command(form: str, out: Path | None, **options: Any) -> int:
    """Score images that another program wrote, without a model.

    PNG, JPEG, TIFF, npy and npz files of one folder are matched by name (without the ending) with those of another
    (--ref) or with the ids of a dataset (--data). Images without a partner are counted and named; a broken one is a row
    with its error. Progress goes to stderr, the result to stdout.
    """
    from bench.core.errors import RfbenchError
    from bench.core.files import write_bytes
    from bench.score.score import Request, score
    from bench.score.write import WRITERS

    if out is not None:
        _check_out(out)
    request = Request(**options)
    try:
        document = score(request, title=request.pred.name or "score")
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written, the same command starts anew", file=sys.stderr)
        return 130
    text = WRITERS[form](document) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        try:
            write_bytes(out, text.encode())
        except RfbenchError as error:
            click.echo(text, nl=False)
            raise RfbenchError(f"{str(error).partition(';')[0]}; the result went to stdout instead") from None
        print(f"scores: {out}", file=sys.stderr)
    _report(document, with_reasons=form != "markdown" or out is not None)
    return 1 if document["failed"] else 0


def _check_out(out: Path) -> None:
    """Refuse what could not, or should not, be written, before an hour of work depends on it."""
    from bench.core.errors import RfbenchError
    from bench.data.readers import SUFFIXES

    parent = next(p for p in (out.parent, *out.parent.absolute().parents) if p.exists())
    if out.is_dir() or out.suffix.lower() in SUFFIXES:
        raise RfbenchError(
            f"--out: {out} is {'a folder' if out.is_dir() else 'an image'}, expected a file such as s.json"
        )
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise RfbenchError(f"--out: {out} cannot be written in {parent}; choose a folder that can be written")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _report(document: dict[str, Any], with_reasons: bool) -> None:
    """What a reader of the numbers must know, on stderr."""
    from bench.score.match import some

    for name, cell in document["summary"].items():
        if with_reasons and cell["value"] is None:
            print(f"note: {name}: {cell['reason']}", file=sys.stderr)
    for side, what in (("pred", ("image", "reference")), ("ref", ("reference", "image"))):
        alone, ignored = document["unmatched"][side], document["ignored"][side]
        if alone:
            mine, other = what
            have = "has" if len(alone) == 1 else "have"
            print(f"note: {_count(len(alone), mine)} {have} no {other}: {some(alone)}", file=sys.stderr)
        if ignored:
            entries = "1 other entry" if ignored == 1 else f"{ignored} other entries"
            were = "was" if ignored == 1 else "were"
            print(f"note: {entries} in --{side} {were} left alone (no image files)", file=sys.stderr)
    noted = [(image["id"], note) for image in document["images"] for note in image["notes"]]
    for image_id, note in noted[:_SHOWN]:
        print(f"note: {some([image_id])}: {note}", file=sys.stderr)
    if len(noted) > _SHOWN:
        print(f"note: {len(noted) - _SHOWN} more notes on images; --format json has all", file=sys.stderr)
    broken = [image for image in document["images"] if image["error"]]
    for image in broken[:_SHOWN]:
        print(f"failed: {some([image['id']])}: {image['error']}", file=sys.stderr)
    if broken:
        more = "" if len(broken) <= _SHOWN else "; --format json or csv names all"
        print(f"{len(broken)} of {_count(len(document['images']), 'image')} failed{more}", file=sys.stderr)
