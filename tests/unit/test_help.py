"""The command line's help: sections, examples that parse, defaults, and lines that fit a terminal of 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from bench.cli import cli
from bench.cli.help import examples

Words = tuple[str, ...]


def _walk(
    command: click.Command, words: Words, parent: click.Context | None = None
) -> Iterator[tuple[Words, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _walk(found, (*words, name), context)


COMMANDS = dict(_walk(cli, ()))
every_command = pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(("rfbench", *words)))


@every_command
def test_help_fits_80_columns(words: Words) -> None:
    done = CliRunner().invoke(cli, [*words, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


@every_command
def test_examples_parse(words: Words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = examples(COMMANDS[words])
    ours = [line for line in found if line.startswith("rfbench ")]
    assert any(shlex.split(line)[1 : 1 + len(words)] == list(words) for line in ours), found
    for line in ours:
        _parse(shlex.split(line.partition(" > ")[0], comments=True)[1:])


def _parse(words: list[str]) -> None:
    """Parse a line to its command's own arguments, and run nothing."""
    command: click.Command = cli
    context = click.Context(cli, info_name="rfbench")
    while isinstance(command, click.Group) and words[0] != "--help":
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
        context = click.Context(command, info_name=name, parent=context)
    if words != ["--help"]:
        command.make_context(context.info_name, words, parent=context.parent)


def test_an_example_that_is_wrong_is_seen() -> None:
    with pytest.raises(click.UsageError):
        _parse(["run", "--modle", "bicubic"])


@every_command
def test_defaults_are_shown(words: Words) -> None:
    context = click.Context(COMMANDS[words])
    hidden = [
        option.name
        for option in COMMANDS[words].params
        if isinstance(option, click.Option) and not option.is_flag and not option.show_default
        and isinstance(option.get_default(context), int | float | str)  # not click's own mark of none
        and option.get_default(context) != ""
        and "[default:" not in (option.help or "")
    ]  # fmt: skip
    assert hidden == []


def test_alone_it_greets_with_five_commands() -> None:
    done = CliRunner().invoke(cli, [])
    assert done.exit_code == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    five = [line.strip().partition("   ")[0] for line in lines if line.startswith("  rfbench ")]
    assert len(five) == 5
    for line in five:
        _parse(shlex.split(line)[1:])


@pytest.mark.parametrize("words", [w for w, c in COMMANDS.items() if w and isinstance(c, click.Group)], ids=" ".join)
def test_a_group_alone_prints_its_help(words: Words) -> None:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0 and not done.stderr
    assert done.stdout == CliRunner().invoke(cli, [*words, "--help"]).stdout
    listed = done.stdout.partition("\nCommands:\n")[2]
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


def test_commands_stand_in_sections() -> None:
    text = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "80"}).stdout
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "Options:", "Start here:", "Run and score:", "Compare and report:", "Data:", "Models and metrics:",
        "Studies and captions:", "RareFlow:",
    ]  # fmt: skip
    body = text.partition("Start here:")[2].partition("Examples:")[0]
    rows = [
        line.split()[0]
        for line in body.splitlines()
        if line.startswith("  ") and not line.startswith("   ") and line.strip()
    ]
    assert sorted(rows) == sorted(" ".join(words) for words in COMMANDS if len(words) == 1)
