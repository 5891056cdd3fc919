"""``rfbench score``"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import complete
from bench.cli.shared import (
    device_option,
    exact_option,
    executor,
    executor_options,
    metrics_option,
    say_failed,
    say_skipped,
    settle_threads,
    weights_option,
    workers_option,
)

if TYPE_CHECKING:
    from bench.executors.cluster import Cluster
    from bench.reports.document import Document

settle_threads()

_SHOWN = 5  # failures named on stderr; the document names all
_EPILOG = """\b
Examples:
  rfbench score runs/today/bicubic --metrics default,niqe_ref
  rfbench score --pred my-outputs --ref hr-images --out mine
  rfbench score --pred my-outputs --ref hr-images --border-px 4 \\
      --pred-name '{id}_x4_out' --metrics psnr_rgb,ssim_rgb
  rfbench score --pred floats --ref twelve-bit --scale 1 --ref-scale 4095 \\
      --format json --save scores.json
  rfbench score --pred my-outputs --data my-dataset --protocol paired
  rfbench score --pred geotiffs --data my-dataset --unit reflectance \\
      --bands 'R G B NIR' --format csv

\b
The JSON of --pred (docs/score-json.md):
  {"format": 1,
   "images": [{"id": "a", "scores": {"psnr_rgb": 28.1},
               "reasons": {"nll": "..."}, "error": null, ...}],
   "summary": {"psnr_rgb": {"value": 28.1, "n": 1, "reason": null}, ...},
   "identities": {"psnr_rgb": "psnr_rgb|rgb|peak1|cap100|q8|r1", ...}, ...}

Exit codes: 0 all scored; 1 some images failed (each is a row with its error); 2 wrong input, or nothing matched.
"""
_OF_IMAGES = ("ref", "split", "protocol", "label", "pred_name", "scale", "ref_scale", "bands", "sensor", "unit",
              "border_px", "quantise", "fresh", "out")  # fmt: skip


@click.command("score", epilog=_EPILOG)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN]...")
@click.option(
    "--pred",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Instead of runs: images that another program made, files of one folder.",
)
@click.option("--ref", type=click.Path(path_type=Path), metavar="DIR", help="A folder of references of the same names.")
@click.option(
    "--data",
    shell_complete=complete.dataset,
    metavar="DIR|NAME",
    help="With --pred: a dataset, whose ids the images are named by. With runs: where their dataset lies now.",
)
@click.option("--split", help="With --pred and --data: which of the dataset's images.  [default: test]")
@click.option(
    "--protocol",
    shell_complete=complete.protocol,
    metavar="NAME[:KEY=VALUE,...]",
    help="With --pred and --data: grid, border, rounding, display.  [default: paired]",
)
@click.option("--label", metavar="NAME", help="With --pred: the images' name in tables.  [default: the folder's]")
@metrics_option
@click.option(
    "--pred-name",
    metavar="PATTERN",
    help="What the images' names look like without ending; {id} is the reference's.  [default: {id}]",
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
    type=click.Choice(["display", "reflectance"]),
    help="What the images hold; reflectance (integers x 10000, or --scale) only with --data.  [default: display]",
)
@click.option(
    "--border-px", type=int, metavar="N", help="With --ref: pixels cut from every side of both.  [default: 0]"
)
@click.option(
    "--quantise", type=click.Choice(["8", "none"]), help="With --ref: round both to 8 bit before metrics.  [default: 8]"
)
@exact_option
@device_option
@workers_option
@executor_options
@click.option(
    "--strict", is_flag=True, help="Stop before anything is computed if a metric cannot be or a file has no partner."
)
@weights_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json", "csv"]),
    help="JSON and CSV of --pred hold every image, at full precision.  [default: text on a terminal, else markdown]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --pred: keep the images as a run, for table, compare and gate.",
)
@click.option("--fresh", is_flag=True, default=None, help="With --out: begin anew; an earlier run is set aside.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Write the result here, not to stdout.")
def command(runs: tuple[Path, ...], pred: Path | None, form: str | None, save: Path | None, **options: Any) -> int:
    """Score runs again, or images that another program made, without a model.

    RUN is a run's folder, or one that holds runs. What was scored already is kept: metrics that are new, that failed or
    whose weights were missing are computed, and only they.

    With --pred, PNG, JPEG, TIFF, npy and npz files of one folder are matched by name (without the ending) with those of
    another (--ref) or with the ids of a dataset (--data). Images without a partner are counted and named; a broken one
    is a row with its error. Progress goes to stderr, the result to stdout.
    """
    from bench.core.errors import RfbenchError
    from bench.score import execute

    if bool(runs) == (pred is not None):
        found = "both" if runs else "neither"
        raise RfbenchError(f"found {found} a run and --pred, expected one: rfbench score RUN, or --pred DIR --ref DIR")
    if save is not None:
        _check_save(save)
    if options["workers"] is not None and options["workers"] < 0:
        raise RfbenchError(f"--workers: found {options['workers']}, expected 0 or more")
    given = next((f"--{k.replace('_', '-')}" for k in _OF_IMAGES if options[k] is not None), None)
    if pred is None and given:
        raise RfbenchError(f"{given} goes with --pred; runs have their own")
    form = form or ("text" if save is None and sys.stdout.isatty() else "markdown")
    with executor(options) as cluster:
        options.pop("is_remote", None)
        names = ("metrics", "exact_libraries", "device", "workers", "strict", "weights_dir")
        scoring = execute.Request(**{key: options.pop(key) for key in names})
        if pred is None:
            return _score_runs(runs, scoring, cluster, options["data"], form, save)
        return _score_images(pred, scoring, cluster, options, form, save)


def _score_runs(
    runs: tuple[Path, ...], scoring: Any, cluster: Cluster | None, data: str | None, form: str, save: Path | None
) -> int:
    import dataclasses

    from bench.records.run import find_runs
    from bench.reports.table.build import build_table
    from bench.reports.table.shape import for_stdout
    from bench.reports.table.write import WRITERS
    from bench.score.execute import score

    outcome = score(find_runs(runs), dataclasses.replace(scoring, data=data), sys.argv, cluster)
    say_skipped(outcome.skipped, outcome.lacking_weights)
    table = build_table(outcome.folders, outcome.names)
    to_stdout = for_stdout(table, [folder.path for folder in outcome.folders], form)
    _deliver(to_stdout if save is None else WRITERS[form](table), save)
    failed = outcome.failed + outcome.broken
    say_failed(failed)
    return 1 if failed else 0


def _score_images(
    pred: Path, scoring: Any, cluster: Cluster | None, options: dict[str, Any], form: str, save: Path | None
) -> int:
    from bench.core.places import scratch
    from bench.metrics.scorer import chosen
    from bench.records.run import read_run
    from bench.reports.scores import WRITERS, document, document_of
    from bench.score.execute import score
    from bench.score.foreign import Request, import_images

    chosen(scoring.metrics)  # a name that is misspelt is told before any file is read
    out = options.pop("out")
    if out is not None:
        _check_out(out)
    request = Request(pred, strict=scoring.strict, **{k: v for k, v in options.items() if v is not None})
    with scratch("score") as place:
        try:
            folder = import_images(request, out or place / "run", sys.argv)
            outcome = score([folder], scoring, sys.argv, cluster)
        except KeyboardInterrupt:
            if out is not None:
                raise
            print(
                "error: interrupted; nothing was kept, the same command starts anew (--out keeps it)", file=sys.stderr
            )
            return 130
        found = document(read_run(folder), outcome.names)
        _deliver(_text(document_of(found), save) if form == "text" else WRITERS[form](found), save)
    if out is not None:
        print(f"run folder: {out}", file=sys.stderr)
    _report(found, with_reasons=form in ("json", "csv") or save is not None)
    return 1 if found["failed"] or outcome.broken else 0


def _text(document: Document, save: Path | None) -> str:
    """Aligned text: with bold and underlined type on a terminal, plain in a file or a pipe."""
    from bench.reports.render.terminal import printed, to_text

    return printed(document) if save is None else to_text(document)


def _deliver(text: str, save: Path | None) -> None:
    """The result on stdout, or in a file; on stdout too where the file cannot be written after all."""
    from bench.core.errors import RfbenchError
    from bench.core.files import write_bytes

    if save is None:
        click.echo(text)
        return
    try:
        write_bytes(save, (text + "\n").encode())
    except RfbenchError as error:
        click.echo(text)
        raise RfbenchError(f"{str(error).partition(';')[0]}; the result went to stdout instead") from None
    print(f"scores: {save}", file=sys.stderr)


def _check_save(save: Path) -> None:
    """Refuse what could not, or should not, be written, before an hour of work depends on it."""
    from bench.core.errors import RfbenchError
    from bench.data.readers import SUFFIXES

    parent = next(p for p in (save.parent, *save.parent.absolute().parents) if p.exists())
    if save.is_dir() or save.suffix.lower() in SUFFIXES:
        raise RfbenchError(
            f"--save: {save} is {'a folder' if save.is_dir() else 'an image'}, expected a file such as s.json"
        )
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise RfbenchError(f"--save: {save} cannot be written in {parent}; choose a folder that can be written")


def _check_out(out: Path) -> None:
    from bench.core.errors import RfbenchError

    if out.suffix.lower() in (".json", ".csv", ".md") or out.is_file():
        raise RfbenchError(f"--out: {out} is a file, expected the run's folder; --save {out} writes the result there")


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
