"""``rfbench runs``"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from bench.cli.help import Group

_EPILOG = """\b
Examples:
  rfbench runs ls
  rfbench runs ls results-of-today results-of-may
  rfbench runs prune --dry-run
"""


@click.group("runs", cls=Group, epilog=_EPILOG)
def command() -> None:
    """Look after run folders: what lies there, and what another version of the code left behind."""


@command.command("ls", epilog=_EPILOG)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
def ls(folders: tuple[Path, ...]) -> None:
    """List the runs in DIR (runs/ unless given) with model, protocol, dataset, and how far each is."""
    from bench.core.errors import one_line
    from bench.records.run import find_runs

    for run in find_runs(folders or (Path("runs"),)):
        plan, summary = run.record().plan, run.summary()
        state = "unfinished" if summary is None else f"{len(summary.metrics)} metrics" + (
            f", {len(summary.failed)} images failed" if summary.failed else "")  # fmt: skip
        what = f"{plan.model.label}, {plan.protocol_name}, {plan.data.name} ({len(plan.data.ids)} images)"
        click.echo(one_line(f"{run.path}: {what}, {state}", 400))


@command.command("prune", epilog=_EPILOG)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def prune(folders: tuple[Path, ...], dry_run: bool) -> None:
    """Remove the runs that were set aside in DIR (runs/ unless given), since a model's code changed or --fresh was
    asked for."""
    from bench.core.errors import one_line
    from bench.records.folder import SUPERSEDED, RunFolder

    count = freed = 0
    for folder in folders or (Path("runs"),):
        place = folder / SUPERSEDED
        if place.is_symlink() or not place.is_dir():
            continue
        for path in sorted(place.iterdir()):
            if path.is_symlink() or not RunFolder(path).is_run:
                click.echo(f"{one_line(path, 200)} holds no run; left alone", err=True)
                continue
            size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())
            click.echo(f"{'would remove' if dry_run else 'removed'} {one_line(path, 200)} ({size / 1e6:.1f} MB)")
            count, freed = count + 1, freed + size
            if not dry_run:
                shutil.rmtree(path)
        if not dry_run and not any(place.iterdir()):
            place.rmdir()
    click.echo(f"{count} runs, {freed / 1e6:.1f} MB", err=True)
