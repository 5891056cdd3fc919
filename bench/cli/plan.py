"""``rfbench plan``"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from bench.cli.experiment import commands_of, config_options, experiment_of
from bench.cli.shared import exact_option, metrics_option, predicting_options, settle_threads

if TYPE_CHECKING:
    from bench.models.call import Model
    from bench.predict.plan import Prepared
    from bench.reports.cost import Cost
    from bench.reports.document import Document

settle_threads()

_EPILOG = """\b
Examples:
  rfbench plan --config table1 --data my-pairs
  rfbench plan --model seesr:dtype=float16 --model bicubic --data my-pairs \\
      --out results
"""
_NOTES = (
    "'to do' are images that are not predicted yet; disk is what their predictions take",
    "time and memory are those of an earlier run of the model here, in one process; a dash: none is known",
)


@click.command("plan", epilog=_EPILOG)
@config_options
@predicting_options
@metrics_option
@exact_option
@click.option("--strict", is_flag=True, help="As of 'rfbench run'; here nothing is computed either way.")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> int:
    """Say what 'rfbench run' with the same options would do, without doing it: models, images, memory, time and disk,
    and what is missing.

    Exit code 2 where a model or a metric would be left out.
    """
    from bench.reports.render.markdown import to_markdown
    from bench.reports.render.terminal import printed

    shown = printed if sys.stdout.isatty() else to_markdown
    experiment = experiment_of(context)
    is_lacking = False
    for one in commands_of(context, experiment):
        document, lacks = _planned(one)
        click.echo(shown(document))
        is_lacking |= lacks
    return 2 if is_lacking else 0


def _planned(options: dict[str, Any]) -> tuple[Document, bool]:
    """What a command would do, and whether anything would be left out."""
    from bench.core.device import resolve_device
    from bench.metrics.base import Setting
    from bench.predict.plan import NotReady, Request, make_plan
    from bench.protocols.find import resolve_protocol
    from bench.reports.document import Document, Grid, Section, figures
    from bench.score.choice import choose_metrics

    names = {f.name for f in dataclasses.fields(Request)} - {"strict"}
    request = Request(**{k: v for k, v in options.items() if k in names})
    protocol = resolve_protocol(request.protocol)
    setting = Setting(
        resolve_device(request.device), request.weights_dir, protocol.quantise, protocol.border_px,
        options["exact_libraries"],
    )  # fmt: skip
    choice = choose_metrics(options["metrics"], setting)
    try:
        prepared = make_plan(request)
    except NotReady as error:
        lines = [f"left out: {why}" for why in error.reasons]
        rows, about = (), "no model is ready"
    else:
        lines = [f"left out: {why}" for why in prepared.not_ready.values()]
        rows = tuple(_row(prepared, model) for model in prepared.models)
        about = (
            f"{request.protocol}, {len(prepared.records)} images of {prepared.dataset.name} ({request.split}), seed "
            f"{request.seed}, {prepared.device}"
        )
    lines += [f"metric {name}: {why}" for name, why in choice.skipped.items()]
    columns = ("images", "to do", "draws", "batch", "arithmetic", "time", "memory", "disk")
    grid = Grid("model", tuple(map(figures, columns)), rows) if rows else None
    metrics = f"metrics: {', '.join(choice.computed) or 'none'}"
    section = Section(about=about, grid=grid, notes=(metrics, *lines, *(_NOTES if rows else ())))
    return Document((section,)), bool(lines)


def _row(prepared: Prepared, model: Model) -> Any:
    from bench.core import memory
    from bench.core.progress import duration
    from bench.reports.document import NONE, Cell, Row

    folder, record = prepared.folders[model.label], prepared.runs[model.label]
    ids = [r.id for batch in prepared.batches(model.batch_size or 1) for r in batch]
    left = len(ids)
    if folder.is_run and folder.record().plan_sha256 == record.plan_sha256:
        items = [folder.predictions.item(i) for i in ids]
        left = sum(item is None or item.error is not None for item in items)
    known = _known(prepared, model)
    size = _bytes_an_image(prepared, model)
    texts = (
        str(len(ids)), str(left), str(model.draws if model.spec.stochastic else 1), str(model.batch_size or "auto"),
        model.dtype,
        duration(known.each_s * left) if known is not None and known.each_s is not None else NONE,
        memory.shown(known.host_bytes) if known is not None and known.host_bytes else NONE,
        memory.shown(size * left) if size is not None else NONE,
    )  # fmt: skip
    return Row(model.label, tuple(Cell(text=text) for text in texts))


def _known(prepared: Prepared, model: Model) -> Cost | None:
    """What the model cost in the last run of it, with the same options, beside where this one will lie."""
    from bench.core.errors import RfbenchError
    from bench.records.folder import RunFolder
    from bench.reports.cost import costs

    plan = prepared.runs[model.label].plan
    found: list[tuple[float, Cost]] = []
    for path in prepared.folders[model.label].path.parent.glob("*/run.json"):
        folder = RunFolder(path.parent)
        try:
            theirs = folder.record().plan
        except RfbenchError:
            continue
        alike = (theirs.model.spec.get("name"), theirs.model.options, theirs.draws, theirs.dtype, theirs.device)
        if alike == (plan.model.spec.get("name"), plan.model.options, plan.draws, plan.dtype, plan.device):
            (cost,) = costs([folder]).models
            found += [(path.stat().st_mtime, cost)] if cost.count else []
    return max(found, key=lambda one: one[0])[1] if found else None


def _bytes_an_image(prepared: Prepared, model: Model) -> int | None:
    """What a prediction takes on the disk, by the first image's size; None where that one cannot be read."""
    from bench.core.errors import ItemError
    from bench.predict.unit import prepare_task

    task = prepare_task(prepared.protocol, prepared.dataset, prepared.records[0])
    if isinstance(task, ItemError):
        return None
    bands = len(task.input.bands) if model.spec.output_unit == "native" else 3
    return 4 * task.size[0] * task.size[1] * bands * (model.draws if model.spec.stochastic else 1)
