"""``rfbench gate``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.reports.gate.rules import Rules

_EPILOG = """\b
Examples:
  rfbench run --model bicubic --out today
  rfbench gate today --against results/golden
  rfbench gate today/bicubic --against results/golden/bicubic \\
      --rules rules.toml --junit gate.xml
  rfbench gate today --against results/golden --report gate-report \\
      --before runs-of-main
  rfbench gate today --against results/golden --update \\
      --reason "the kernel of bicubic is antialiased now"

\b
A rules file (docs/gate.md):
  format = 1
  [[rule]]
  metrics = ["psnr_rgb"]          # or ["*"]
  absolute = 0.01                 # in dB
  [[rule]]
  metrics = ["de00"]
  statistical = { alpha = 0.05, effect = 0.1 }
  sides = "one"                   # only worse is an alarm

Exit codes: 0 held; 1 something moved further than its rule allows, or an image failed; 2 wrong input, or a number
that the golden run has is missing; 3 other data, protocol or definition of a metric.
"""


@click.command("gate", epilog=_EPILOG)
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--against", required=True, type=click.Path(path_type=Path), metavar="GOLDEN", help="A golden run, or a folder."
)
@click.option(
    "--rules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML.  [default: rules.toml in GOLDEN or beside it; else the last decimal that tables show]",
)
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Also write JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Also write Markdown.")
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write a page to look at: which images moved, new beside old.",
)
@click.option(
    "--before",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="With --report: the run, or a folder of runs, that the golden one was made of; it has the old pictures.",
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="How many of the images that moved most.",
)
@click.option("--update", is_flag=True, help="Keep RUN as the golden run, whatever moved; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why the golden run is renewed; it is kept in golden.json.")
def command(
    run: Path,
    against: Path,
    rules: Path | None,
    junit: Path | None,
    markdown: Path | None,
    page: Path | None,
    before: Path | None,
    top: int,
    update: bool,
    reason: str | None,
) -> int:
    """Hold a finished run against a golden one: a regression gate for CI.

    RUN and GOLDEN are run folders, or folders of them, matched by the models' labels. Says which metric moved by how
    much, which images moved it, and what else differs (versions, weights, device), which is told and not judged.
    """
    from bench.core.errors import RfbenchError

    if update != (reason is not None) or (update and not (reason or "").strip()):
        raise RfbenchError("--update and --reason belong together: say why the golden run is renewed")
    if before is not None and page is None:
        raise RfbenchError("--before has the old pictures of a report; give it with --report DIR")
    if update:
        return _renew(run, against, (reason or "").strip())
    from bench.core.files import write_bytes
    from bench.reports.gate.check import check
    from bench.reports.gate.golden import pairs
    from bench.reports.gate.write import document_of, exit_code, to_junit, to_markdown
    from bench.reports.render.terminal import printed

    found = pairs(run, against)
    judged_by = _rules(rules, against)  # once: it looks at every golden run
    gates = [check(mine, golden, judged_by, top=top) for mine, golden in found]
    click.echo(printed(document_of(gates)))
    for path, text in ((junit, to_junit), (markdown, to_markdown)):
        if path is not None:
            write_bytes(path, (text(gates) + "\n").encode())
            print(f"written: {path}", file=sys.stderr)
    if page is not None:
        from bench.cli.run import shown_path
        from bench.reports.html.gate import write_gate_report

        print(f"report: {shown_path(write_gate_report(gates, page, before))}", file=sys.stderr)
    return exit_code(gates)


def _rules(given: Path | None, against: Path) -> Rules:
    from bench.records.run import find_runs, read_run
    from bench.records.types import MetricRecord
    from bench.reports.gate.golden import HISTORY
    from bench.reports.gate.rules import FILE, built_in, read_rules

    def metrics(folder: Path) -> dict[str, MetricRecord]:
        return {name: metric for golden in find_runs([folder]) for name, metric in read_run(golden).metrics.items()}

    beside = [against / FILE, *([against.parent / FILE] if (against / HISTORY).is_file() else [])]
    path = given or next((p for p in beside if p.is_file()), None)
    if path is None:
        return built_in(metrics(against))
    rules = read_rules(path)
    # A file beside golden runs serves them all; one that was named is meant for these.
    rules.check(metrics(against if given is not None else path.parent))
    return rules


def _renew(run: Path, against: Path, reason: str) -> int:
    from bench.reports.gate.check import lines_moved
    from bench.reports.gate.golden import renew, targets

    for mine, golden in targets(run, against):
        first = not golden.is_run
        moved = lines_moved(mine, golden)
        renew(mine, golden, reason, moved)
        print(f"golden run: {golden.path}", file=sys.stderr)
        unmoved = "the first one" if first else "no number moved"
        click.echo("\n".join(f"  {line}" for line in moved or [unmoved]))
    return 0
