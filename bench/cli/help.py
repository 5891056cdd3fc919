"""Help that fits a terminal: groups whose commands stand in sections, and the examples behind every command."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

_HEADING = "Examples:"


class Group(click.Group):
    """A group of commands: alone it prints its help, and its list cuts no line short."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # To click a missing command is an error; to who types it, the question what there is.
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(0)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        write_section(formatter, "Commands", [(name, summary(c)) for name, c in found if c is not None])


def write_section(formatter: click.HelpFormatter, title: str, rows: Iterable[tuple[str, str]], width: int = 0) -> None:
    """A section of commands: a name and a line each, the lines below each other in columns of ``width`` and more."""
    with formatter.section(title):
        formatter.write_dl([(name.ljust(width), line) for name, line in rows])


def summary(command: click.Command) -> str:
    """The first sentence of a command's help, whole."""
    if command.short_help:
        return command.short_help
    text = " ".join((command.help or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z])", text)[0]


def examples(command: click.Command) -> list[str]:
    """The examples of a command's help, a line of the shell each: what was broken by a backslash is put together."""
    _, _, behind = (command.epilog or "").partition(f"{_HEADING}\n")
    lines = behind.partition("\n\n")[0].replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]
