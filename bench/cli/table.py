"""``rfbench table``"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.records.folder import RunFolder

_EPILOG = """\b
Examples:
  rfbench table results-of-today
  rfbench table runs/bicubic-* runs/lanczos-* --format latex --out table.tex
  rfbench table runs --metrics psnr_rgb,lpips_alex --format json
  rfbench table runs --ci --format latex --width 516
  rfbench table runs --against paper
  rfbench table runs --against opensr-test
  rfbench table runs --against paper --same data="the authors' archive of 3 May" --same normalisation="their letter"
"""


@click.command("table", epilog=_EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="markdown",
    show_default=True,
    type=click.Choice(["markdown", "latex", "csv", "json"]),
    help="LaTeX needs booktabs; CSV and JSON hold full precision.",
)
@click.option("--metrics", metavar="NAMES", help="Comma-separated.  [default: every metric of the runs]")
@click.option("--ci", is_flag=True, help="Add 95 % intervals of the means, with scenes as clusters.")
@click.option(
    "--mark",
    type=click.Choice(["separated", "plain"]),
    help="Best and second: ties where the data cannot separate rows, or by the shown numbers alone.  "
    "[default: separated with --ci, else plain]",
)
@click.option(
    "--width",
    "width_pt",
    default=345.0,
    show_default=True,
    metavar="PT",
    help="LaTeX: the text's width in points, 516 over two columns of a journal; what is wider is set in stacks.",
)
@click.option(
    "--against",
    metavar="paper|SOURCE",
    help="Beside printed numbers. paper: the RareFlow paper's Tables 1 to 3: claimed, ours, difference, status. Else a "
    "publication that the models' specs have numbers of, such as opensr-test: printed and ours.",
)
@click.option(
    "--same",
    "declarations",
    multiple=True,
    metavar="WHAT=TEXT",
    help="With --against: WHAT is as in the paper though it does not say so, and TEXT how you know; printed with the "
    "table. Repeatable. WHAT: data, normalisation, weights, scale, kernel, or a metric of the paper such as ssim.",
)
@click.option(
    "--votes",
    type=click.Path(path_type=Path),
    metavar="STUDY",
    help="Add what people said in a closed study of these runs: shares for clarity and parity.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
def command(
    runs: tuple[Path, ...],
    form: str,
    metrics: str | None,
    ci: bool,
    mark: str | None,
    width_pt: float,
    against: str | None,
    declarations: tuple[str, ...],
    votes: Path | None,
    out: Path | None,
) -> int:
    """Make a table of finished runs. RUN is a run folder, or a folder of them.

    Runs on different data, under different protocols or with different definitions of a metric are refused (exit
    code 3). The best of each column is bold, the second underlined; what is missing is a dash with its reason below.
    With --ci, or --mark separated, every row that the images' paired differences cannot tell from the best is marked
    like it: docs/statistics.md says how.

    With --against paper every row of the paper stands above our run of that model, with the difference where it means
    something and otherwise the reason why it does not: docs/paper.md.
    """
    from bench.core.errors import RfbenchError
    from bench.core.files import write_bytes
    from bench.records.folder import find_runs

    names = tuple(n.strip() for n in metrics.split(",") if n.strip()) if metrics else None
    if against and (ci or mark):
        raise RfbenchError(
            f"{'--ci' if ci else '--mark'} is for tables of our runs alone, and printed numbers have no intervals; "
            "leave it out, or --against"
        )
    if against and votes:
        raise RfbenchError("--votes is for tables of our runs alone, and a paper's rows have none; leave one out")
    if declarations and against != "paper":
        raise RfbenchError("--same declares what is as in a paper; give it with --against paper")
    folders = find_runs(runs)
    if against == "paper":
        text = _ledger(folders, names, declarations, form, width_pt)
    elif against:
        text = _beside(folders, against, form)
    else:
        text = _table(folders, names, form, width_pt, ci=ci, mark=mark, votes=votes)
    if out is None:
        click.echo(text)
    else:
        write_bytes(out, f"{text}\n".encode())
        print(f"table: {out}", file=sys.stderr)
    return 0


def _table(
    folders: Sequence[RunFolder], names: tuple[str, ...] | None, form: str, width_pt: float, *, ci: bool,
    mark: str | None, votes: Path | None,
) -> str:  # fmt: skip
    from bench.reports.table.build import build_table
    from bench.reports.table.doubt import with_intervals, with_separated_marks
    from bench.reports.table.write import WRITERS, to_latex

    table = build_table(folders, names or None)
    if ci:
        table = with_intervals(table, folders)
    if mark == "separated" or (ci and mark is None):
        table = with_separated_marks(table, folders)
    if votes is not None:
        from bench.study.columns import with_votes

        table = with_votes(table, folders, votes)
    return to_latex(table, width_pt) if form == "latex" else WRITERS[form](table)


def _beside(folders: Sequence[RunFolder], source: str, form: str) -> str:
    from bench.core.errors import RfbenchError
    from bench.reports import claims

    rows = claims.beside(folders, source)
    writers = {"markdown": claims.to_markdown, "json": claims.to_json}
    if form not in writers:
        raise RfbenchError(f"--format: found {form} with --against {source}, expected markdown or json")
    return writers[form](rows)


def _ledger(
    folders: Sequence[RunFolder], names: tuple[str, ...] | None, declarations: Sequence[str], form: str, width_pt: float
) -> str:
    from bench.core.errors import RfbenchError, one_line
    from bench.reports.paper.build import build_ledger
    from bench.reports.paper.write import WRITERS, to_latex

    declared: dict[str, str] = {}
    for text in declarations:
        what, equals, how = text.partition("=")
        if not equals or what.strip() in declared:
            found = f"'{one_line(text, 80)}'" if not equals else f"{one_line(what, 40)} twice"
            raise RfbenchError(f"--same: found {found}, expected one WHAT=TEXT for each; TEXT says how you know it")
        declared[what.strip()] = how.strip()
    ledger = build_ledger(folders, names or None, declared)
    return to_latex(ledger, width_pt) if form == "latex" else WRITERS[form](ledger)
