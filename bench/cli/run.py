"""``rfbench run``"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.experiment import commands_of, config_options, experiment_of, run_further
from bench.cli.shared import (
    exact_option,
    executor,
    metrics_option,
    predicting_options,
    say_failed,
    say_skipped,
    settle_threads,
)

if TYPE_CHECKING:
    from bench.executors.cluster import Cluster
    from bench.predict.plan import Request

settle_threads()

_EPILOG = """\b
Examples:
  rfbench run --model bicubic --model lanczos
  rfbench run --model bicubic --protocol bicubic-4x --data my-dataset \\
      --out results-of-today
  rfbench run --model mymodel.py:MyModel --metrics psnr_rgb,ssim_rgb
  rfbench run --config table1 --data my-pairs --out table1
"""


@click.command("run", epilog=_EPILOG)
@config_options
@predicting_options
@metrics_option
@exact_option
@click.option(
    "--strict",
    is_flag=True,
    help="Stop before anything is computed if a model lacks packages or weights, or a metric cannot be computed.",
)
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="Also write a page to look at, report/index.html beside the run folders.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "latex", "csv", "json"]),
    help="Of the table; 'rfbench table' has more of it.  [default: text on a terminal, else markdown]",
)
@click.pass_context
def command(context: click.Context, /, report: bool, form: str | None, **given: Any) -> int:
    """Run models on a dataset under a protocol, score them, print the table, and write a report to look at.

    It is 'rfbench predict' and 'rfbench score' in one: what is there already is not computed again, so the same command
    resumes an interrupted run and ends with the same bytes, and one more metric costs that metric alone. Progress goes
    to stderr, the table to stdout. A model that cannot run is left out with a line that says why, and the exit code is
    2 then. --config takes all of it from a file: docs/scale.md.
    """
    experiment = experiment_of(context)
    folders, codes = list[Path](), list[int]()
    commands = [*commands_of(context, experiment)]
    for number, options in enumerate(commands, 1):
        del options["report"], options["form"]
        found, code = _run(form, **options)
        if report and found:
            _report(found, "report" if len(commands) == 1 else f"report-{number}")
        folders += [path for path in found if path not in folders]
        codes.append(code)
    if folders:
        codes.append(run_further(experiment, folders))
    return 1 if 1 in codes else max(codes)


def _run(
    form: str | None, metrics: tuple[str, ...] | None, exact_libraries: bool, strict: bool, **options: Any
) -> tuple[list[Path], int]:  # fmt: skip
    """One command: models on one dataset under one protocol; the run folders, and the exit code."""
    from bench.predict.plan import Request

    with executor(options) as cluster:
        return _run_on(cluster, Request(strict=strict, **options), metrics, exact_libraries, form)


def _run_on(
    cluster: Cluster | None, request: Request, metrics: tuple[str, ...] | None, exact_libraries: bool, form: str | None
) -> tuple[list[Path], int]:
    from bench.core.device import resolve_device
    from bench.metrics.base import Setting
    from bench.predict.plan import NotReady, make_plan
    from bench.protocols.find import resolve_protocol
    from bench.reports.table.build import build_table
    from bench.reports.table.shape import for_stdout
    from bench.score import execute
    from bench.score.choice import choose_metrics
    from bench.score.run import run

    # One GPU scores, however many predict.
    device = request.device.partition(",")[0]
    scoring = execute.Request(
        metrics, device, request.workers, request.strict, request.weights_dir, exact_libraries=exact_libraries
    )
    try:
        prepared = make_plan(request)
        # What is misspelt or missing is told before anything is predicted.
        protocol = resolve_protocol(request.protocol)
        device = resolve_device(device) if cluster is None else device
        setting = Setting(device, request.weights_dir, protocol.quantise, protocol.border_px, exact_libraries)
        choice = choose_metrics(metrics, setting, strict=request.strict)
        say_prepared(prepared)
        say_skipped(choice.skipped, choice.lacking_weights)
        outcome = run(request, scoring, sys.argv, prepared=prepared, cluster=cluster)
    except NotReady as error:
        for why in error.reasons:
            print(f"error: {why}", file=sys.stderr)
        return [], error.exit_code
    if request.shard is not None:
        for folder in outcome.folders:
            print(f"part {request.shard[0]} of {request.shard[1]}: {shown_path(folder.path)}", file=sys.stderr)
        say_failed(outcome.failed)
        return [], outcome.exit_code
    click.echo(for_stdout(build_table(outcome.folders, outcome.names), [f.path for f in outcome.folders], form))
    for folder in outcome.folders:
        print(f"run folder: {shown_path(folder.path)}", file=sys.stderr)
    say_failed(outcome.failed)
    return [folder.path for folder in outcome.folders], outcome.exit_code


def _report(folders: Sequence[Path], name: str) -> None:
    """Write the report ``name`` beside the run folders. A run is done whatever becomes of it."""
    from bench.cli.report import report_of_runs, say_written
    from bench.core.errors import RfbenchError
    from bench.records.folder import RunFolder
    from bench.reports.html.runs import MAX_IMAGES
    from bench.reports.html.write import write_folder

    try:
        made = report_of_runs([*map(RunFolder, folders)], max_images=MAX_IMAGES)
        say_written(made, write_folder(made, folders[0].parent / name))
    except RfbenchError as error:
        print(f"warning: no report: {error}", file=sys.stderr)


def say_prepared(prepared: Any) -> None:
    """Say on stderr what a plan leaves out, and which models, or their weights, a licence restricts the use of."""
    from bench.core.errors import one_line
    from bench.core.licences import restriction

    for why in prepared.not_ready.values():
        print(f"warning: left out: {why}", file=sys.stderr)
    for label, record in prepared.runs.items():
        for part, what in (("model", f"{label} is"), ("weights", f"the weights of {label} are")):
            licence = record.licences.get(part, "")
            if restricts := restriction(licence):
                print(f"note: {what} under {one_line(licence, 300)}: {restricts}", file=sys.stderr)


def shown_path(path: Any) -> str:
    """A path as the user would write it: relative to the working folder where it lies below it."""
    from pathlib import Path

    from bench.core.errors import one_line

    try:
        return one_line(path.relative_to(Path.cwd()), 300)
    except ValueError:
        return one_line(path, 300)
