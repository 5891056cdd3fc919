"""``rfbench metrics``: what a metric is, and whether an identity can be computed again here."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bench.cli import complete
from bench.cli.help import Group

_EPILOG = """\b
Examples:
  rfbench metrics show ssim_rgb
  rfbench metrics show niqe niqe_ref --json
  rfbench metrics show pyiqa:gmsd
  rfbench metrics show 'ssim_rgb|gauss11,1.5|popcov|range1|q8|r1'

'rfbench ls metrics' lists the names. Exit codes: 0 done; 2 an unknown name, or an identity of another revision, other
weights or other parameters than are here.
"""


@click.group("metrics", cls=Group, epilog=_EPILOG)
def command() -> None:
    """Say what metrics are (ours, a plugin's or pyiqa's)."""


@command.command("show", short_help="Definition, equation, range, needs and traps of metrics.", epilog=_EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="NAME|IDENTITY...", shell_complete=complete.metric)
@click.option("--weights-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where pretrained weights lie.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: a list with an object for each.")
def show(names: tuple[str, ...], weights_dir: Path | None, as_json: bool) -> None:
    """Print the definition, equation, parameters, range, needs, references and traps of metrics.

    An identity, as tables print it, is taken for its metric if that gives the same number here; else it says what
    differs.
    """
    import contextlib

    from bench.metrics.base import Setting
    from bench.metrics.identity import rebuild
    from bench.metrics.scorer import built
    from bench.reports.metric_page import metric_page

    found = []
    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints while it is loaded
        for name in names:
            if "|" in name:
                metric = rebuild(name, weights_dir=weights_dir)
            else:
                metric = built(name, Setting(weights_dir=weights_dir))
            found.append(metric_page(metric))
    if as_json:
        import json

        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    click.echo("\n\n".join("\n".join(_page(about, width)) for about in found))


def _page(about: dict[str, Any], width: int) -> Iterator[str]:
    """The lines of one metric: heading, definition, then a label and its text each."""
    from bench.reports.metric_page import facts

    yield f"{about['name']} ({about['title']}): {about['summary']}"
    for paragraph in about["definition"]:
        yield ""
        yield from textwrap.wrap(paragraph, width)
    yield ""
    for label, text in facts(about):
        begin = f"{label:<13} "
        # An identity or an address is to be pasted, so it is never broken.
        yield from textwrap.wrap(
            text, width, initial_indent=begin, subsequent_indent=" " * len(begin), break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
