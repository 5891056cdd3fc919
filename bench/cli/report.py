"""``rfbench report``"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import complete

if TYPE_CHECKING:
    from bench.records.folder import RunFolder
    from bench.reports.html.content import Report

_EPILOG = """\b
Examples:
  rfbench report runs/bicubic-* runs/rareflow-* --out report
  rfbench report results-of-today --out report --against bicubic \\
      --max-images 50
  rfbench report results-of-today --out report.html --single-file
  rfbench report results-of-today --out report --votes my-study
  rfbench report my-dataset --out look
"""


@click.command("report", epilog=_EPILOG)
@click.argument("what", nargs=-1, required=True, metavar="RUN...|DATASET", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The report becomes DIR/index.html."
)
@click.option("--title", metavar="TEXT", help="The page's title.  [default: the data and the models]")
@click.option("--against", metavar="ROW", help="The row that others are compared with.  [default: bicubic, else first]")
@click.option(
    "--votes", type=click.Path(path_type=Path), metavar="STUDY", help="Add what people said in a closed study of these."
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="How many images can be looked at: of more, the worst, the best and evenly what lies between.",
)
@click.option("--single-file", is_flag=True, help="One file, --out FILE.html, of at most 40 MB.")
@click.option(
    "--data",
    metavar="DIR|NAME",
    shell_complete=complete.dataset,
    help="Where the runs' dataset lies now.  [default: as found]",
)
def command(
    what: tuple[Path, ...],
    out: Path,
    title: str | None,
    against: str | None,
    votes: Path | None,
    max_images: int,
    single_file: bool,
    data: str | None,
) -> int:
    """Make a page to look at finished runs, or at a dataset before any run.

    It opens by double click and needs neither server nor network: the table with its intervals, figures, differences, a
    gallery with orders and filters, and every image with a slider between any two models, errors, predicted deviations,
    values and scores. RUN is a run folder, or a folder of them, on the same data and protocol. DATASET is a dataset
    folder or a registered dataset: its pairs, masks, captions, and what 'rfbench validate' says of each image.

    An earlier report in DIR is replaced. Equal runs give equal bytes.
    """
    from bench.core.errors import RfbenchError
    from bench.core.progress import Ticker
    from bench.reports.html.write import write_file, write_folder

    if single_file and out.suffix.lower() not in (".html", ".htm"):
        raise RfbenchError(f"--out: found '{out.name}', expected FILE.html with --single-file")
    if len(what) == 1 and _is_dataset(what[0]):
        given = {"--against": against, "--votes": votes, "--data": data}
        wrong = next((name for name, value in given.items() if value), None)
        if wrong:
            raise RfbenchError(f"{wrong} is for reports of runs, {what[0]} is a dataset; leave it out")
        from bench.reports.html.dataset import dataset_report

        report = dataset_report(str(what[0]), title=title, max_images=max_images)
    else:
        from bench.records.run import find_runs

        report = report_of_runs(
            find_runs(what), title=title, against=against, votes=votes, max_images=max_images, data=data
        )
    with Ticker("report") as ticker:
        write = write_file if single_file else write_folder
        page = write(report, out, lambda done, total: ticker.tick("images", done, total))
    say_written(report, page)
    return 0


def report_of_runs(
    runs: Sequence[RunFolder],
    *,
    title: str | None = None,
    against: str | None = None,
    votes: Path | None = None,
    max_images: int,
    data: str | None = None,
) -> Report:
    """The report of runs, with intervals, separated marks and, where there are any, votes."""
    from bench.reports.html.runs import runs_report
    from bench.reports.table.build import build_table
    from bench.reports.table.doubt import with_intervals, with_separated_marks
    from bench.study.columns import votes_of_images, with_votes

    table = with_separated_marks(with_intervals(build_table(runs), runs), runs)
    of_images = None
    if votes is not None:
        table = with_votes(table, runs, votes)
        of_images = votes_of_images(table, runs, votes)
    words = ["rfbench", "report", *(run.path.resolve().name for run in runs), "--out", "report"]
    words += ["--against", against] if against else []
    return runs_report(
        runs, table, title=title, against=against, data=data, max_images=max_images, votes=of_images,
        command=shlex.join(words),
    )  # fmt: skip


def say_written(report: Report, page: Path) -> None:
    """Name the page on stderr, and what it leaves out."""
    from bench.cli.run import shown_path

    left = len(report.entries) - len(report.shown)
    if left:
        print(
            f"note: {len(report.shown)} of {len(report.entries)} images can be looked at; --max-images takes more",
            file=sys.stderr,
        )
    print(f"report: {shown_path(page)}", file=sys.stderr)


def _is_dataset(path: Path) -> bool:
    """Whether a word names a dataset: a folder with a manifest, or a registered one where no folder has its name."""
    from bench.core import registry

    if path.is_dir():
        return (path / "dataset.json").is_file() or (path / "pairs.csv").is_file()
    return not path.exists() and str(path) in registry.names("datasets")
