"""``rfbench runs``"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from bench.cli.help import Group
from bench.cli.listing import show, wide_option

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
@wide_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def ls(folders: tuple[Path, ...], wide: bool, as_json: bool) -> None:
    """List the runs in DIR (runs/ unless given), and how far each is; --wide adds model, protocol and dataset."""
    from bench.records.run import find_runs

    headings = ("run", "model", "protocol", "dataset", "images", "metrics", "state")
    rows = []
    for run in find_runs(folders or (Path("runs"),)):
        plan, summary = run.record().plan, run.summary()
        failed = len(summary.failed) if summary else 0
        state = "unfinished" if summary is None else f"{failed} failed" if failed else "finished"
        rows.append((str(run.path), plan.model.label, plan.protocol_name, plan.data.name, len(plan.data.ids),
                     len(summary.metrics) if summary else 0, state))  # fmt: skip
    if as_json:
        import json

        click.echo(json.dumps([dict(zip(headings, row, strict=True)) for row in rows], indent=1, ensure_ascii=False))
        return
    show(headings, [[*map(str, row)] for row in rows], ("run", "images", "metrics", "state"), wide=wide)


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
