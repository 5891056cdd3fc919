"""``rfbench validate``"""

from __future__ import annotations

import sys
from pathlib import Path

import click

_EPILOG = """\b
Examples:
  rfbench validate my-dataset
  rfbench validate my-dataset --json > report.json
"""


@click.command("validate", epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, when all is read.")
def command(folder: Path, as_json: bool) -> int:
    """Read every file of the dataset folder DIR and print one line for each problem, then its fingerprint.

    An error is what a run would refuse or what makes its numbers wrong (a missing or corrupt file, wrong bands, another
    place, the same image or scene in two splits); a warning is what a reader of the numbers should know (a suspected
    offset of +1000, cloud, saturation, nodata, relative units, tiny images). The fingerprint changes with every byte
    that can change a number, and with nothing else; that of a split is the one that its runs record.

    Exit codes: 0 no error (perhaps warnings); 1 errors; 2 no dataset.
    """
    import json

    from bench.core.errors import one_line
    from bench.core.progress import Ticker
    from bench.data.validate import Problem, validate

    def found(problem: Problem) -> None:
        if not as_json:
            click.echo(str(problem))

    with Ticker("validate") as ticker:
        report = validate(folder, found, ticker.tick)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    else:
        splits = ", ".join(f"{one_line(n, 40)} {s['images']}" for n, s in report.splits.items())
        click.echo(
            f"{one_line(report.name, 100)}: {report.images} images ({splits}), {report.files} files, "
            f"{report.count('error')} errors, {report.count('warning')} warnings"
        )
        if len(report.splits) > 1:
            for name, split in report.splits.items():
                click.echo(f"fingerprint {one_line(name, 40)}: {split['fingerprint']}")
        click.echo(f"fingerprint: {report.fingerprint}")
    if report.count("error"):
        print(
            "correct the errors, then validate again; a run gives each such image a row with its error", file=sys.stderr
        )
    return 1 if report.count("error") else 0
