"""``rfbench table``"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import complete

if TYPE_CHECKING:
    from bench.records.folder import RunFolder
    from bench.reports.document import Document
    from bench.reports.render.latex import Style
    from bench.reports.table.build import Table

_EPILOG = """\b
Examples:
  rfbench table results-of-today
  rfbench table runs/bicubic-* runs/lanczos-* --format latex --out table.tex
  rfbench table runs --metrics psnr_rgb,lpips_alex --format json
  rfbench table runs --ci --format latex --width 516 --notes short \\
      --caption "Ours and others" --label ours
  rfbench table sentinel/* worldstrat/* --together
  rfbench table runs --by scene --metrics psnr_rgb
  rfbench table runs --by regions.csv:region
  rfbench table runs --cost
  rfbench table runs --against opensr-test
  rfbench table runs --against paper --same normalisation="their letter" \\
      --same data="the authors' archive of 3 May"
"""


@click.command("table", epilog=_EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "latex", "csv", "json"]),
    help="LaTeX needs booktabs; CSV and JSON hold full precision.  [default: text on a terminal, else markdown]",
)
@click.option(
    "--metrics",
    metavar="NAMES",
    shell_complete=complete.metrics_list,
    help="Comma-separated.  [default: every metric of the runs]",
)
@click.option("--ci", is_flag=True, help="Add 95 % intervals of the means, with scenes as clusters.")
@click.option(
    "--mark",
    type=click.Choice(["separated", "plain"]),
    help="Best and second: with a sign beside what the data cannot separate from them, or by the shown numbers alone.  "
    "[default: separated with --ci, else plain]",
)
@click.option("--together", is_flag=True, help="Runs of several datasets and protocols in one table, a part for each.")
@click.option(
    "--by",
    metavar="STRATUM",
    help="A part for each stratum: scene, region, date-gap, cover (of the mask), shift, fact:NAME, or FILE.csv:COLUMN.",
)
@click.option(
    "--data",
    metavar="DIR|NAME",
    shell_complete=complete.dataset,
    help="With --by: where the dataset lies now.  [default: as found]",
)
@click.option(
    "--drop-empty/--keep-empty",
    default=None,
    help="Leave out columns without any number, and say in a line how to get them.  [default: dropped in text alone]",
)
@click.option("--transpose", is_flag=True, help="A row for each metric and a column for each model.")
@click.option(
    "--width",
    "width_pt",
    default=345.0,
    show_default=True,
    metavar="PT",
    help="LaTeX: the text's width in points, 516 over two columns of a journal; what is wider is set in stacks.",
)
@click.option("--caption", metavar="TEXT", help="LaTeX: instead of what was measured on what.")
@click.option("--label", default="rfbench", show_default=True, help=r"LaTeX: what \ref{tab:LABEL} finds it by.")
@click.option(
    "--notes",
    default="full",
    show_default=True,
    type=click.Choice(["full", "short", "none"]),
    help="LaTeX, below the table: all; why cells are empty or incomplete alone; nothing.",
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
@click.option("--cost", is_flag=True, help="Instead: seconds and peak memory of each model and metric.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
def command(runs: tuple[Path, ...], form: str | None, metrics: str | None, out: Path | None, **options: Any) -> int:
    """Make a table of finished runs. RUN is a run folder, or a folder of them.

    Runs on different data, under different protocols or with different definitions of a metric are refused (exit
    code 3), unless --together gives each data and protocol a part of the table. The best of each column is bold, the
    second underlined; what is missing is a dash with its reason below. With --ci, or --mark separated, a sign stands
    beside every number that the images' paired differences cannot tell from the best or the second:
    docs/statistics.md says how.

    With --against paper every row of the paper stands above our run of that model, with the difference where it means
    something and otherwise the reason why it does not: docs/paper.md.
    """
    from bench.core.files import write_bytes
    from bench.records.run import find_runs
    from bench.reports.render.latex import Style

    names = tuple(n.strip() for n in metrics.split(",") if n.strip()) if metrics else None
    style = Style(*(options.pop(key) for key in ("width_pt", "caption", "label", "notes")))
    to_terminal = out is None and sys.stdout.isatty()
    wanted = _Wanted(form or ("text" if to_terminal else "markdown"), names or None, style, **options)
    _refuse(wanted, is_styled=style != Style())
    folders = find_runs(runs)
    if wanted.cost:
        text = _costs(folders, wanted.form, style)
    elif wanted.against == "paper":
        text = _ledger(folders, wanted)
    elif wanted.against:
        text = _beside(folders, wanted.against, wanted.form)
    elif wanted.form in ("csv", "json"):
        text = _data(folders, wanted)
    else:
        text = _shown(_document(folders, wanted, runs), wanted.form, style)
    if out is None:
        click.echo(text)
    else:
        write_bytes(out, f"{text}\n".encode())
        print(f"table: {out}", file=sys.stderr)
    return 0


@dataclass(frozen=True)
class _Wanted:
    """The options."""

    form: str
    metrics: tuple[str, ...] | None
    style: Style
    ci: bool
    mark: str | None
    together: bool
    by: str | None
    data: str | None
    drop_empty: bool | None
    transpose: bool
    against: str | None
    declarations: tuple[str, ...]
    votes: Path | None
    cost: bool


def _refuse(wanted: _Wanted, *, is_styled: bool) -> None:
    """RfbenchError for options that do nothing together."""
    from bench.core.errors import RfbenchError

    ours = {
        "--ci": wanted.ci, "--mark": wanted.mark, "--together": wanted.together, "--by": wanted.by,
        "--drop-empty": wanted.drop_empty is not None, "--transpose": wanted.transpose,
        "--votes": wanted.votes,
    }  # fmt: skip
    given = [name for name, value in ours.items() if value]
    others = [*given, *(["--against"] if wanted.against else []), *(["--metrics"] if wanted.metrics else [])]
    if wanted.cost and others:
        raise RfbenchError(f"--cost is a table of its own, which {others[0]} does not go with; leave one out")
    if wanted.against and given:
        raise RfbenchError(
            f"{given[0]} is for tables of our runs alone, and printed numbers have no images behind them; leave it "
            "out, or --against"
        )
    if wanted.declarations and wanted.against != "paper":
        raise RfbenchError("--same declares what is as in a paper; give it with --against paper")
    if wanted.by and (wanted.ci or wanted.mark or wanted.together or wanted.votes):
        other = next(name for name in ("--together", "--ci", "--mark", "--votes") if ours[name])
        raise RfbenchError(f"--by makes parts of few images, which {other} does not go with; leave one out")
    if wanted.data and not wanted.by:
        raise RfbenchError("--data says where the dataset lies that --by reads; give it with --by")
    if is_styled and wanted.form != "latex":
        raise RfbenchError("--width, --caption, --label and --notes set LaTeX; give --format latex")
    if wanted.form in ("csv", "json") and (wanted.transpose or wanted.drop_empty is not None):
        raise RfbenchError(f"--transpose and --drop-empty are for readers, {wanted.form} holds all; leave them out")


def _tables(folders: Sequence[RunFolder], wanted: _Wanted) -> tuple[Table | None, dict[str, Table]]:
    """What is to be shown: tables by the label of their part, and the table that strata are parts of."""
    from bench.reports.table.build import build_table, build_tables
    from bench.reports.table.doubt import with_intervals, with_separated_marks
    from bench.reports.table.shape import parts
    from bench.reports.table.strata import by_stratum
    from bench.study.columns import with_votes

    if wanted.by:
        return by_stratum(folders, wanted.by, wanted.metrics, wanted.data)
    alone = [] if wanted.together else [(build_table(folders, wanted.metrics), folders)]
    tables = []
    for table, of in alone or build_tables(folders, wanted.metrics):
        table = with_intervals(table, of) if wanted.ci else table
        separated = wanted.mark == "separated" or (wanted.ci and wanted.mark is None)
        table = with_separated_marks(table, of) if separated else table
        tables.append(with_votes(table, of, wanted.votes) if wanted.votes is not None else table)
    return None, parts(tables) if len(tables) > 1 else {"": tables[0]}


def _beside(folders: Sequence[RunFolder], source: str, form: str) -> str:
    from bench.core.errors import RfbenchError
    from bench.reports import claims

    rows = claims.beside(folders, source)
    writers = {"markdown": claims.to_markdown, "json": claims.to_json}
    if form not in writers:
        raise RfbenchError(f"--format: found {form} with --against {source}, expected markdown or json")
    return writers[form](rows)


def _document(folders: Sequence[RunFolder], wanted: _Wanted, runs: Sequence[Path]) -> Document:
    from bench.reports.table.shape import shaped, together, without_empty

    whole, tables = _tables(folders, wanted)
    if wanted.drop_empty or (wanted.drop_empty is None and wanted.form == "text"):
        if whole is None:
            tables = {label: without_empty(table, runs) for label, table in tables.items()}
        else:
            whole = without_empty(whole, runs)
            tables = {label: without_empty(table) for label, table in tables.items()}
    found = together(tables, whole) if len(tables) > 1 or whole is not None else next(iter(tables.values()))
    return shaped(found, is_transposed=wanted.transpose)


def _costs(folders: Sequence[RunFolder], form: str, style: Style) -> str:
    from bench.reports import cost

    found = cost.costs(folders)
    writers = {"csv": cost.to_csv, "json": cost.to_json}
    return writers[form](found) if form in writers else _shown(cost.document_of(found), form, style)


def _shown(document: Document, form: str, style: Style) -> str:
    from bench.reports.render.latex import lost_letters, to_latex
    from bench.reports.render.markdown import to_markdown
    from bench.reports.render.terminal import printed

    if form == "markdown":
        return to_markdown(document)
    if form == "text":
        return printed(document)
    lost = lost_letters(document)
    if lost:
        print(f"note: pdflatex has no letters for {lost[:40]}; each became a question mark", file=sys.stderr)
    return to_latex(document, style)


def _data(folders: Sequence[RunFolder], wanted: _Wanted) -> str:
    """CSV and JSON; of several parts, each with its label."""
    from bench.reports.render import data
    from bench.reports.table.write import CSV_HEAD, as_json, csv_rows, to_csv, to_json

    _, tables = _tables(folders, wanted)
    if len(tables) == 1 and not wanted.by:
        (table,) = tables.values()
        return to_csv(table) if wanted.form == "csv" else to_json(table)
    if wanted.form == "json":
        return data.to_json({"format": 1, "parts": [{"part": part} | as_json(table) for part, table in tables.items()]})
    rows = ([part, *row] for part, table in tables.items() for row in csv_rows(table))
    return data.to_csv(["part", *CSV_HEAD], rows)


def _ledger(folders: Sequence[RunFolder], wanted: _Wanted) -> str:
    from bench.core.errors import RfbenchError, one_line
    from bench.reports.paper.build import build_ledger
    from bench.reports.paper.write import WRITERS, document_of, to_latex
    from bench.reports.render.terminal import printed

    declared: dict[str, str] = {}
    for text in wanted.declarations:
        what, equals, how = text.partition("=")
        if not equals or what.strip() in declared:
            found = f"'{one_line(text, 80)}'" if not equals else f"{one_line(what, 40)} twice"
            raise RfbenchError(f"--same: found {found}, expected one WHAT=TEXT for each; TEXT says how you know it")
        declared[what.strip()] = how.strip()
    ledger = build_ledger(folders, wanted.metrics, declared)
    if wanted.form == "latex":
        return to_latex(ledger, wanted.style)
    return printed(document_of(ledger)) if wanted.form == "text" else WRITERS[wanted.form](ledger)
