"""``rfbench captions``"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bench.cli import complete
from bench.cli.help import Group

_EPILOG = """\b
Examples:
  rfbench captions check my-data vlm
  rfbench captions compare runs --metrics psnr_rgb,lpips_alex
"""


@click.group("captions", cls=Group, epilog=_EPILOG)
def command() -> None:
    """Check captions that there are; say what they are worth to a model."""


@command.command("check", epilog=_EPILOG)
@click.argument("data", metavar="DATA")
@click.argument("name", default="dataset", metavar="[NAME]")
@click.option("--split", default="test", show_default=True)
@click.option("--skip-check", "skip", multiple=True, metavar="CLAUSE", help="Leave a rule out; repeat for several.")
@click.option(
    "--tokenizers", type=click.Path(path_type=Path), metavar="DIR", help="Such as Stable Diffusion 3's folder."
)
def check(data: str, name: str, split: str, skip: tuple[str, ...], tokenizers: Path | None) -> int:
    """Hold captions against the rules: the dataset's own, or a frozen file NAME. Exit code 1 if one breaks a rule."""
    from bench.captions.checks import Rules
    from bench.core.errors import one_line
    from bench.data.captions import with_captions
    from bench.data.find import resolve_dataset

    rules = Rules(skip, tokenizers)
    dataset = with_captions(resolve_dataset(data), name)
    records = [r for r in dataset.records(split) if r.caption]
    broken = 0
    for record in records:
        mask = dataset.load(record, ("mask",)).mask
        others = {r.id: r.caption for r in records if r.id != record.id}
        failures = rules.failures(record.caption, mask, others)
        broken += bool(failures)
        for failure in failures:
            click.echo(f"{one_line(record.id, 80)}: {failure}")
    for clause, reason in rules.left_out.items():
        print(f"note: {clause} is not checked: {reason}", file=sys.stderr)
    print(f"{len(records)} captions, {broken} break a rule", file=sys.stderr)
    return 1 if broken else 0


@command.command("compare", epilog=_EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="VARIANT", help="dataset, shuffled, none or a NAME.  [default: none, else the first]"
)
@click.option(
    "--metrics",
    metavar="NAMES",
    shell_complete=complete.metrics_list,
    help="Comma-separated.  [default: every metric of the runs]",
)
@click.option("--format", "form", default="markdown", show_default=True, type=click.Choice(["markdown", "json"]))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
def compare(runs: tuple[Path, ...], against: str | None, metrics: str | None, form: str, out: Path | None) -> int:
    """Say what captions are worth: runs of one model that differ in nothing but --protocol ...:captions=.

    Differences are paired by image, with intervals over scenes and p-values adjusted by Holm's method, as in
    'rfbench compare' (docs/statistics.md).
    """
    from bench.captions.worth import WRITERS, worth
    from bench.core.files import write_bytes
    from bench.records.run import find_runs

    names = tuple(n.strip() for n in metrics.split(",") if n.strip()) if metrics else None
    text = WRITERS[form](worth(find_runs(runs), against, names or None))
    if out is None:
        click.echo(text)
    else:
        write_bytes(out, f"{text}\n".encode())
        print(f"comparison: {out}", file=sys.stderr)
    return 0
