"""``rfbench doctor``"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.doctor.line import Line

_EPILOG = """\b
Examples:
  rfbench doctor
  rfbench doctor --out /data/runs --weights-dir /data/weights --json

Exit codes: 0 the embedded benchmark can run here; 1 something that it needs is broken.
"""


@click.command("doctor", epilog=_EPILOG)
@click.option(
    "--out",
    default="runs",
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where runs would be written.",
)
@click.option("--weights-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where pretrained weights lie.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(out: Path, weights_dir: Path | None, as_json: bool) -> int:
    """Say what works here, what is missing, and the next step for each.

    Python, packages, device, threads, models, plugins, weights of each metric, licences that restrict use, room on the
    disk. A line is ok, a note, or a problem.
    """
    import contextlib

    from bench import doctor

    stdout = sys.stdout
    width = shutil.get_terminal_size().columns if stdout.isatty() else None

    def tell(line: Line) -> None:
        if not as_json:
            print(line.shown(width), file=stdout, flush=True)

    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints while it is loaded
        lines = doctor.examine(out, weights_dir, tell)
    if as_json:
        import json

        click.echo(json.dumps(doctor.document(lines), indent=1, ensure_ascii=False))
    else:
        problems = sum(line.state == "problem" for line in lines)
        runs = "cannot run here" if doctor.broken(lines) else "can run here"
        click.echo(f"{problems} problem{'s' * (problems != 1)}; the embedded benchmark {runs}")
    return 1 if doctor.broken(lines) else 0
