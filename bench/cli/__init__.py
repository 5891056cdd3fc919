"""The command line: one file a verb, imported when the verb is called, so that ``--help`` needs no torch."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from pathlib import Path

import click

from bench import __version__
from bench.cli import interruption
from bench.cli.help import Group, summary, write_section
from bench.core.errors import RfbenchError, RfbenchWarning, one_line

_OURS = Path(__file__).resolve().parents[1]

# Section -> verb -> (module, help line): what --help shows must cost no import. Each line fits 80 columns.
_SECTIONS = {
    "Start here": {
        "run": ("bench.cli.run", "Run models on a dataset, score them, print the table."),
        "ls": ("bench.cli.ls", "List models, metrics, protocols or datasets."),
        "report": ("bench.cli.report", "Make a page to look at runs or a dataset, also offline."),
        "doctor": ("bench.cli.doctor", "Say what works here, what is missing, and the next step."),
    },
    "Run and score": {
        "plan": ("bench.cli.plan", "Say what a run would do, take and lack, without running it."),
        "predict": ("bench.cli.predict", "Let models answer a dataset's images; keep the answers."),
        "score": ("bench.cli.score", "Score runs again, or images that another program made."),
        "merge": ("bench.cli.merge", "Put the parts of runs together that --shard made."),
        "runs": ("bench.cli.runs", "List run folders; remove those that were set aside."),
        "export": ("bench.cli.export", "Write a run's predictions as PNG images."),
        "upscale": ("bench.cli.upscale", "Upscale one georeferenced image of any size."),
    },
    "Compare and report": {
        "table": ("bench.cli.table", "Make a table of runs: text, Markdown, LaTeX, CSV, JSON."),
        "compare": ("bench.cli.compare", "Say whether one model is better, and how sure that is."),
        "gate": ("bench.cli.gate", "Hold a run against a golden one: a regression gate for CI."),
        "plot": ("bench.cli.plot", "Draw figures of finished runs."),
        "cite": ("bench.cli.cite", "Say what a methods section needs: identities, BibTeX."),
    },
    "Data": {
        "data": ("bench.cli.data", "Turn folders of images into datasets; make synthetic ones."),
        "validate": ("bench.cli.validate", "Read every file of a dataset and say what is wrong."),
    },
    "Models and metrics": {
        "metrics": ("bench.cli.metrics", "Say what a metric is: definition, range, needs, traps."),
        "check": ("bench.cli.check", "Hold a model, metric or dataset of yours against the rules."),
        "weights": ("bench.cli.weights", "List, fetch and verify pretrained files."),
        "envs": ("bench.cli.envs", "List, build, remove environments that some models need."),
    },
    "Studies and captions": {
        "caption": ("bench.cli.caption", "Let a vision-language model caption images, once."),
        "captions": ("bench.cli.captions", "Check captions; say what they are worth to a model."),
        "study": ("bench.cli.study", "Ask experts: plan, serve, close and report a study."),
    },
}
_VERBS = {verb: found for verbs in _SECTIONS.values() for verb, found in verbs.items()}
_GREETING = """\
rfbench runs super-resolution models on satellite images, scores them, and says
which one is better.

Five commands to begin with:

  rfbench run --model bicubic --model lanczos   a first run, on scenes included
  rfbench report runs --out page                look at its images in a browser
  rfbench data import folder IMAGES my-data     a dataset of your own images
  rfbench score --pred OUTPUTS --ref HR-IMAGES  score what another program made
  rfbench compare runs                          is one better, and how surely?

'rfbench --help' lists all commands; 'rfbench COMMAND --help' has examples.
"""


class _Verbs(Group):
    """Our verbs and those of plugins (entry points ``rfbench.commands``), loaded on demand."""

    def list_commands(self, context: click.Context) -> list[str]:
        from bench.core import registry

        return [*_VERBS, *(n for n in registry.names("commands") if n not in _VERBS)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        from bench.core import registry

        if name in _VERBS:
            command: click.Command = importlib.import_module(_VERBS[name][0]).command
            return command
        if name in registry.points("commands"):
            loaded: click.Command = registry.load("commands", name)
            return loaded
        return None

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from bench.core.errors import unknown

        if args and not args[0].startswith("-") and self.get_command(context, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(context))
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from bench.core import registry

        sections = {title: [(n, line) for n, (_, line) in verbs.items()] for title, verbs in _SECTIONS.items()}
        for name, point in registry.points("commands").items():
            if name not in _VERBS:
                package = point.value.partition(".")[0]
                title = "RareFlow" if package == "rareflow" else f"From the package {one_line(package, 40)}"
                sections.setdefault(title, []).append((name, self._help(context, name)))
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        for title, rows in sections.items():
            write_section(formatter, title, rows, width)

    def _help(self, context: click.Context, name: str) -> str:
        """A plugin command's own line; one that is broken must not take the others' help with it."""
        try:
            command = self.get_command(context, name)
            return summary(command) if command else "(plugin)"
        except Exception as error:  # importing a plugin runs its code
            return f"(plugin, cannot be loaded: {one_line(error, 60)})"


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  rfbench run --model bicubic --model lanczos
  rfbench run --help

\b
The shell completes names of models, metrics, protocols and datasets after
  eval "$(_RFBENCH_COMPLETE=bash_source rfbench)"    # zsh_source in zsh
""",
)
@click.version_option(__version__, prog_name="rfbench")
@click.pass_context
def cli(context: click.Context) -> None:
    """rfbench: a reproducible benchmark of satellite-image super-resolution.

    Exit codes: 0 done; 1 some images failed, or a gate did not hold; 2 the input is wrong or something is missing;
    3 not comparable.
    """
    if context.invoked_subcommand is None:
        click.echo(_GREETING, nl=False)


def main() -> None:
    """The ``rfbench`` command: user errors are one line without a traceback, bugs come with one."""
    interruption.prepare()
    _settle_streams()
    warnings.showwarning = _one_line_warning  # type: ignore[assignment]
    try:
        _settle_home()
        code = cli.main(standalone_mode=False)
    except RfbenchError as error:
        code = _complain(str(error), error.exit_code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "rfbench"
        code = _complain(f"{one_line(error.format_message(), 1000)} (see '{where} --help')", 2)
    except click.ClickException as error:
        code = _complain(one_line(error.format_message(), 1000), 2)
    except (KeyboardInterrupt, click.Abort):
        interruption.leave()
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:  # a name too long, a disk that fails: where no part has a better word for it
        where = f"{one_line(error.filename, 200)}: " if error.filename is not None else ""
        code = _complain(f"{where}{error.strerror or one_line(error)}; check the path, its permissions and the disk", 2)
    code = code if isinstance(code, int) else 0
    interruption.finish(code)
    sys.exit(code)


def _settle_streams() -> None:
    """A stream that cannot write ``ΔE00`` or a name writes what it can, and the rest as escapes, instead of nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _settle_home() -> None:
    """Give a user without a home one, for the libraries that look for theirs."""
    from bench.core.places import home

    found = str(home())
    if os.environ.get("HOME") != found:
        os.environ["HOME"] = found


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _one_line_warning(message: Warning | str, category: type[Warning], filename: str, *rest: object) -> None:
    # Other packages' notices of what they will change one day are for us, not for the user.
    if issubclass(category, RfbenchWarning) or Path(filename).resolve().is_relative_to(_OURS):
        print(f"warning: {one_line(message)}", file=sys.stderr)
