"""``rfbench run``"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bench.cli.shared import metrics_option, settle_threads, weights_option

settle_threads()

_EPILOG = """\b
Examples:
  rfbench run --model bicubic --model lanczos --protocol paired
  rfbench run --model bicubic --protocol bicubic-4x --data my-dataset --out results-of-today
  rfbench run --model files:folder=predictions --protocol paired:normalisation=percentile[2,98] --data my-dataset
"""


@click.command("run", epilog=_EPILOG)
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="A model; repeat for several.",
)
@click.option(
    "--protocol",
    default="paired",
    show_default=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="What is asked of the models.",
)
@click.option(
    "--data", default="scenes", show_default=True, metavar="DIR|NAME", help="A dataset folder, or a registered dataset."
)
@click.option("--split", default="test", show_default=True, help="Which of the dataset's images.")
@metrics_option
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where models run and networks score.",
)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Arithmetic of networks; interpolation stays float32.",
)
@click.option("--batch-size", default=1, show_default=True, metavar="N", help="Images a model gets at once.")
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Scoring processes; 0 scores in this one.  [default: one core less than there are, at most 4]",
)
@click.option(
    "--draws",
    default=4,
    show_default=True,
    metavar="K",
    help="Draws of a stochastic model; uncertainty metrics use all.",
)
@click.option(
    "--seed", default=0, show_default=True, metavar="S", help="Of the run; each image and draw has its own from it."
)
@click.option("--limit", type=int, metavar="N", help="Only the first N images by id.")
@click.option(
    "--strict",
    is_flag=True,
    help="Stop before anything is computed if a model lacks packages or weights, or a metric cannot be computed.",
)
@click.option(
    "--allow-train", is_flag=True, help="Also run a model on images that it was trained on; tables will say so."
)
@weights_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Run folders become DIR/MODEL.  [default: runs/, named by the plan, so the same command resumes]",
)
def command(**options: object) -> int:
    """Run models on a dataset under a protocol, score them, and print the table.

    The same command resumes an interrupted run and ends with the same bytes. Progress goes to stderr, the table to
    stdout. A model that lacks packages or weights is left out with a line that says what gets them, and the exit code
    is 2 then.
    """
    from bench.core.errors import one_line
    from bench.core.licences import restriction
    from bench.metrics.scorer import built
    from bench.predict.execute import execute
    from bench.predict.plan import SLOW, NotReady, Request, make_plan
    from bench.reports.table.build import build_table
    from bench.reports.table.write import to_markdown

    try:
        plan = make_plan(Request(**options))  # type: ignore[arg-type]
    except NotReady as error:
        for why in error.reasons:
            print(f"error: {why}", file=sys.stderr)
        return error.exit_code
    for why in plan.not_ready.values():
        print(f"warning: left out: {why}", file=sys.stderr)
    for name, why in plan.skipped.items():
        print(f"{'note' if why.startswith(SLOW) else 'warning'}: {name}: {why}", file=sys.stderr)
    for label, record in plan.runs.items():
        restricts = restriction(record["licences"]["model"])
        if restricts:
            print(f"note: {label} is under {one_line(record['licences']['model'])}: {restricts}", file=sys.stderr)
    lacking = [name for name in plan.skipped if built(name, plan.setting).lacking_weights()]
    if len(lacking) > 1:
        print(f"'rfbench weights fetch --metrics {','.join(lacking)}' gets all of these weights", file=sys.stderr)
    outcome = execute(plan, sys.argv)
    click.echo(to_markdown(build_table(outcome.folders)))
    for folder in outcome.folders:
        print(f"run folder: {folder.path}", file=sys.stderr)
    if outcome.failed:
        print(f"{outcome.failed} images failed; scores.parquet names each with its error", file=sys.stderr)
    return 1 if outcome.failed else 2 if plan.not_ready else 0
