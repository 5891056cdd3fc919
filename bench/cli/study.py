"""``rfbench study``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import complete
from bench.cli.help import Group

if TYPE_CHECKING:
    from bench.study.plan import Plan
    from bench.study.store import Store

_Study = click.Path(path_type=Path)


_EPILOG = """\b
Examples:
  rfbench study create my-study runs --reviewers 5 --feature slump
  rfbench study serve my-study --public https://study.example.org
  rfbench study status my-study --links https://study.example.org
  rfbench study forget my-study reviewer-2
  rfbench study close my-study
  rfbench study export my-study --out answers
  rfbench study report my-study runs --figure shares.pdf
"""


@click.group("study", cls=Group, epilog=_EPILOG)
def command() -> None:
    """Ask people: is the caption valid, is the answer clearer than the LR, on a par with the HR? docs/study.md."""


def _pair(context: click.Context, option: click.Parameter, text: str) -> tuple[float, float]:
    from bench.core.errors import RfbenchError, one_line

    try:
        low, high = (float(part) for part in text.split(","))
        return low, high
    except ValueError:
        raise RfbenchError(
            f"--{option.name}: found '{one_line(text, 40)}', expected two numbers, such as 0.4,0.6"
        ) from None


@command.command("create", epilog=_EPILOG)
@click.argument("study", metavar="STUDY", type=_Study)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--design", default="blind", show_default=True, type=click.Choice(["blind", "paper"]),
              help="Two anonymous panels, or the paper's four images with their roles named.")  # fmt: skip
@click.option("--reviewers", default=5, show_default=True, metavar="N")
@click.option("--each", default=30, show_default=True, metavar="N", help="Samples (image and system) of a reviewer.")
@click.option("--common", default=10, show_default=True, metavar="N", help="Of these, those that all share.")
@click.option("--repeats", default=3, show_default=True, metavar="N", help="Trials shown again with sides swapped.")
@click.option("--catches", default=2, show_default=True, metavar="N", help="Trials whose answer is known.")
@click.option("--between", default=10, show_default=True, metavar="N",
              help="Blind, several systems: comparisons of two systems, of a reviewer.")  # fmt: skip
@click.option("--ratings", default=1, show_default=True, metavar="R",
              help="Least ratings of each sample; refused if the sizes do not give them.")  # fmt: skip
@click.option("--images", type=click.IntRange(min=1), metavar="N", help="Use only N images, drawn by the seed.")
@click.option("--margin", default="0.4,0.6", show_default=True, callback=_pair, metavar="LO,HI",
              help="On a par: the 90 % interval of the share that chose SR over HR lies within.")  # fmt: skip
@click.option("--seed", default=2026, show_default=True, metavar="S")
@click.option("--title", default="Image study", show_default=True, help="On every page; it should name no model.")
@click.option("--feature", default="slump", show_default=True, help="What reviewers map, in the parity question.")
@click.option("--contact", default="", help="Whom to ask, and to ask for deletion: a line on the first page.")
@click.option("--consent", type=click.Path(path_type=Path), metavar="FILE", help="The text of the first page.")
@click.option(
    "--data",
    metavar="DIR|NAME",
    shell_complete=complete.dataset,
    help="Where the dataset lies now.  [default: where the runs found it]",
)
def create(
    study: Path, runs: tuple[Path, ...], design: str, reviewers: int, each: int, common: int, repeats: int,
    catches: int, between: int, ratings: int, images: int | None, margin: tuple[float, float], seed: int, title: str,
    feature: str, contact: str, consent: Path | None, data: str | None,
) -> int:  # fmt: skip
    """Make the folder STUDY from finished runs of one dataset and protocol: plan, key, pictures.

    RUN is a run folder, or a folder of them; draw 0 of each is shown. The plan is fixed and hashed before the first
    answer; what hides behind its opaque ids lies in key.json, which the server does not read.
    """
    from collections import Counter

    from bench.core.errors import RfbenchError
    from bench.core.texts import read_text
    from bench.records.run import find_runs
    from bench.study.create import CONSENT, Wanted
    from bench.study.create import create as make
    from bench.study.design import Sizes

    text = CONSENT
    if consent is not None:
        try:
            text = read_text(consent).strip()
        except (OSError, ValueError) as error:
            raise RfbenchError(f"--consent {consent}: not a readable UTF-8 file ({error})") from None
    sizes = Sizes(reviewers, each, common, repeats, catches, between, ratings)
    wanted = Wanted(find_runs(runs), design, sizes, seed, margin, title, feature, contact, text, data, images)  # type: ignore[arg-type]
    plan = make(study, wanted)
    kinds = Counter(t.kind for trials in plan.trials.values() for t in trials)
    pages = [len(t) for t in plan.trials.values()]
    print(f"{len(plan.trials)} reviewers, {min(pages)} to {max(pages)} pages each", file=sys.stderr)
    print(", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items())), file=sys.stderr)
    click.echo(f"{study}: plan {plan.sha256[:12]}")
    print(f"next: rfbench study serve {study}, and rfbench study status {study} --links URL", file=sys.stderr)
    return 0


@command.command("serve", epilog=_EPILOG)
@click.argument("study", metavar="STUDY", type=_Study)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8019, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--public", metavar="URL", help="The address that reviewers use, behind a proxy with https.")
def serve(study: Path, host: str, port: int, public: str | None) -> int:
    """Serve the pages, on this machine alone unless told otherwise.

    A kill loses nothing that a page was told is stored; the same command goes on.
    """
    _need_packages()
    from bench.study.server import serve as run

    run(study, host, port, public)
    return 0


@command.command("status", epilog=_EPILOG)
@click.argument("study", metavar="STUDY", type=_Study)
@click.option("--links", metavar="URL", help="Also print each reviewer's invitation under this address.")
@click.option(
    "--backup", type=click.Path(path_type=Path), metavar="FILE", help="Also copy the answers, while it is served."
)
def status(study: Path, links: str | None, backup: Path | None) -> int:
    """Say how far each reviewer is. Nothing of what was answered is shown while the study is open."""
    from bench.study.plan import CLOSED

    plan, store = _opened(study)
    done = store.answers()
    invited = {}
    if links is not None:
        _need_packages()
        from bench.study.server import invitations

        invited = invitations(study)
    forgotten = {e.reviewer for e in store.events(kind="forgotten")}
    for reviewer, trials in plan.trials.items():
        count = sum((reviewer, t.id) in done for t in trials)
        began = " (profile given)" if store.events(reviewer, "profile") else ""
        words = f"{reviewer}: {count} of {len(trials)}{began}{', forgotten' * (reviewer in forgotten)}"
        click.echo(words + (f"  {links.rstrip('/')}{invited[reviewer]}" if links is not None else ""))
    incidents = store.events(kind="incident")
    for event in incidents[-5:]:
        print(f"incident: {event.at} {event.reviewer}: {event.body['what']}", file=sys.stderr)
    state = "closed" if (study / CLOSED).is_file() else "open"
    print(f"{state}, {len(done)} answers, {len(incidents)} incidents, plan {plan.sha256[:12]}", file=sys.stderr)
    if backup is not None:
        store.backup(backup)
        print(f"backup: {backup}", file=sys.stderr)
    return 0


@command.command("close", epilog=_EPILOG)
@click.argument("study", metavar="STUDY", type=_Study)
def close(study: Path) -> int:
    """End a study: no answer is taken any more, and its key may be read. There is no way back."""
    from bench.core.errors import RfbenchError
    from bench.study.create import now
    from bench.study.plan import CLOSED
    from bench.study.plan import close as end

    _, store = _opened(study)
    if (study / CLOSED).is_file():
        raise RfbenchError(f"{study} is closed already")
    count = len(store.answers())
    end(study, now(), count)
    click.echo(f"{study}: closed with {count} answers")
    print(f"next: rfbench study report {study} RUN...", file=sys.stderr)
    return 0


@command.command("forget", epilog=_EPILOG)
@click.argument("study", metavar="STUDY", type=_Study)
@click.argument("reviewer", metavar="REVIEWER")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def forget(study: Path, reviewer: str, yes: bool) -> int:
    """Delete all that REVIEWER (a pseudonym of 'status') said; that it was deleted, and when, is kept.

    Backups and exports are files of their own: delete them too.
    """
    from bench.core.errors import unknown
    from bench.study.create import now

    plan, store = _opened(study)
    if reviewer not in plan.trials:
        raise unknown("reviewer", reviewer, plan.trials)
    count = len([e for e in store.events(reviewer) if e.kind != "forgotten"])
    if not yes:
        click.confirm(f"Delete {count} entries of {reviewer} for good?", abort=True)
    click.echo(f"{reviewer}: {store.forget(now(), reviewer)} entries deleted")
    return 0


@command.command("export", epilog=_EPILOG)
@click.argument("study", metavar="STUDY", type=_Study)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Gets answers.csv and .parquet."
)
def export(study: Path, out: Path) -> int:
    """Write every answer as a row, CSV and Parquet; with systems and images once the study is closed."""
    from bench.study.votes import export as write

    for path in write(study, out):
        click.echo(str(path))
    return 0


@command.command("report", epilog=_EPILOG)
@click.argument("study", metavar="STUDY", type=_Study)
@click.argument("runs", nargs=-1, metavar="[RUN...]", type=click.Path(path_type=Path))
@click.option("--format", "form", default="markdown", show_default=True,
              type=click.Choice(["markdown", "latex", "json", "methods"]),
              help="'methods' is the paragraph that 'rfbench cite --study' adds.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Also draw shares with intervals "
              "(.pdf, .png).")  # fmt: skip
def report(study: Path, runs: tuple[Path, ...], form: str, out: Path | None, figure: Path | None) -> int:
    """Say what reviewers found. With the RUNs that the study was made of, also which metric agrees with them.

    The study must be closed. docs/study.md says how each number is computed, and how well its interval keeps its word.
    """
    from bench.core.files import write_bytes
    from bench.records.run import find_runs
    from bench.study.report import WRITERS, build

    found = build(study, find_runs(runs) if runs else ())
    text = WRITERS[form](found)
    if out is None:
        click.echo(text)
    else:
        write_bytes(out, f"{text}\n".encode())
        print(f"report: {out}", file=sys.stderr)
    if figure is not None:
        from bench.study.figure import draw

        draw(found, figure)
        print(f"figure: {figure}", file=sys.stderr)
    return 0


def _opened(study: Path) -> tuple[Plan, Store]:
    from bench.study.plan import ANSWERS, read_plan
    from bench.study.store import Store

    plan = read_plan(study)
    return plan, Store(study / ANSWERS, plan.sha256)


def _need_packages() -> None:
    from bench.core.extras import need

    need("serving a study", "study", "flask", "waitress", "itsdangerous")
