"""``rfbench check``"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import complete
from bench.cli.help import Group

if TYPE_CHECKING:
    from bench.check import Line, Report

_EPILOG = """\b
Examples:
  rfbench check model mymodel:checkpoint=DIR,steps=4
  rfbench check model sen2sr-lite --against-upstream --checkout SEN2SR
  rfbench check metric lpips_alex --weights-dir DIR
  rfbench check dataset my-data --split train --limit 20

Exit codes: 0 all held; 1 a check failed; 2 an unknown name, or something that the part needs is missing.
"""
_json = click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
_device = click.option("--device", default="cpu", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where it runs.")


@click.group("check", cls=Group, epilog=_EPILOG)
def command() -> None:
    """Hold a model, a metric or a dataset (ours or a plugin's) against what rfbench expects of it.

    One line a check: whether it held, what was found, and where it did not, what was expected and what to do. Needs
    no data.
    """


@command.command("model", short_help="A model: sizes, tiles, draws, batches, seeds.", epilog=_EPILOG)
@click.argument("name", metavar="NAME[:KEY=VALUE,...]", shell_complete=complete.model)
@_device
@click.option("--against-upstream", is_flag=True, help="Hold a system against its authors' own code on three images.")
@click.option(
    "--checkout",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --against-upstream: a clone of the authors' repository.  [default: fetched from their address]",
)
@click.option(
    "--python", metavar="FILE", help="With --against-upstream: the interpreter that has the authors' packages."
)
@_json
def model(
    name: str, device: str, against_upstream: bool, checkout: Path | None, python: str | None, as_json: bool
) -> int:
    """Spec, sizes from 1x1 px, tiles, draws, batches, seeds, threads and captions of a model.

    A published system is looked at in a small network with random weights unless options say otherwise (such as
    NAME:weights=published).

    With --against-upstream a system runs with its published weights instead, and so does its authors' code, at the
    commit that rfbench follows and in a process of its own: read it first. The differences are printed.
    """
    from bench.check.models import check_model
    from bench.core.device import resolve_device
    from bench.core.errors import RfbenchError

    device = resolve_device(device)
    if against_upstream:
        from bench.check.upstream import check_against_upstream

        return _report(
            lambda tell: check_against_upstream(
                name, device=device, clone=checkout, python=python or sys.executable, tell=tell
            ),
            as_json,
        )
    if checkout is not None or python is not None:
        raise RfbenchError("--checkout and --python say how upstream's code runs; give them with --against-upstream")
    return _report(lambda tell: check_model(name, device=device, tell=tell), as_json)


@command.command("metric", short_help="A metric: identity, direction, order, sizes.", epilog=_EPILOG)
@click.argument("name", metavar="NAME", shell_complete=complete.metric)
@click.option("--weights-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where pretrained weights lie.")
@click.option("--exact-libraries", is_flag=True, help="As the library that defines it computes it.")
@_device
@_json
def metric(name: str, weights_dir: Path | None, exact_libraries: bool, device: str, as_json: bool) -> int:
    """Identity, direction, order, sizes, flat images and missing pixels of a metric (pyiqa:NAME included)."""
    from bench.check.metrics import check_metric
    from bench.core.device import resolve_device
    from bench.metrics.base import Setting

    setting = Setting(resolve_device(device), weights_dir, exact=exact_libraries)
    return _report(lambda tell: check_metric(name, setting, tell), as_json)


@command.command("dataset", short_help="A dataset: rows, units, bands, values.", epilog=_EPILOG)
@click.argument("name", metavar="NAME|DIR", shell_complete=complete.dataset)
@click.option("--split", default="test", show_default=True, help="Which of its images.")
@click.option("--limit", type=int, metavar="N", help="Read only the first N images by id.")
@_json
def dataset(name: str, split: str, limit: int | None, as_json: bool) -> int:
    """Rows, units, bands, values, scale and fingerprint of a registered dataset or a dataset folder."""
    from bench.check.datasets import check_dataset

    return _report(lambda tell: check_dataset(name, split=split, limit=limit, tell=tell), as_json)


def _report(look: Callable[[Callable[[Line], None]], Report], as_json: bool) -> int:
    """Lines as they come, or the document at the end."""

    stdout = sys.stdout  # while a part is looked at, the name means stderr

    def out(text: str) -> None:
        print(text, file=stdout, flush=True)

    def tell(line: Line) -> None:
        if not as_json:
            out(str(line))

    report = look(tell)
    if as_json:
        import json

        out(json.dumps(report.document(), indent=1, ensure_ascii=False))
    else:
        out(report.summary())
    return report.exit_code
