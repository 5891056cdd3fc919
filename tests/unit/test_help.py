"""The command line's help: sections, examples that parse, defaults, and lines that fit a terminal of 80 columns."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from bench.cli import cli
from bench.cli.help import examples
from bench.cli.listing import show
from bench.core.registry import names

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


@pytest.mark.parametrize("words", [
    ["ls", "models"], ["ls", "metrics"], ["ls", "protocols"], ["ls", "datasets"], ["weights", "ls"], ["envs", "ls"],
], ids=" ".join)  # fmt: skip
def test_lists_fit_80_columns(words: list[str]) -> None:
    brief = CliRunner().invoke(cli, words, env={"COLUMNS": "80"})
    assert brief.exit_code == 0, brief.output
    lines = brief.stdout.splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 80
    wide = CliRunner().invoke(cli, [*words, "--wide"], env={"COLUMNS": "80"}).stdout.splitlines()
    assert [line.split()[0] for line in wide] == [line.split()[0] for line in lines]
    named = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert len(named) == len(lines) - 1


def test_the_list_of_runs_fits_80_columns(tmp_path: Path) -> None:
    run = Path(__file__).resolve().parents[2] / "results" / "golden" / "bicubic"
    folder = tmp_path / ("a-long-name-" * 8)
    shutil.copytree(run, folder / "bicubic")
    done = CliRunner().invoke(cli, ["runs", "ls", str(folder)], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    heading, line = done.stdout.splitlines()
    assert len(heading) <= 80 and len(line) <= 80 and line.split()[-3] == "24" and line.endswith("finished")
    (found,) = json.loads(CliRunner().invoke(cli, ["runs", "ls", str(folder), "--json"]).stdout)
    assert found["run"] == str(folder / "bicubic") and found["model"] == "bicubic" and found["images"] == 24
    assert str(folder / "bicubic") in CliRunner().invoke(cli, ["runs", "ls", str(folder), "--wide"]).stdout


def test_the_last_column_gives_way_first(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    show(("name", "a", "b"), [("first", "x" * 12, "y" * 50)], ("name", "a", "b"), wide=False)
    assert capsys.readouterr().out.splitlines() == ["name   a             b", "first  xxxxxxxxxxxx  yyyyyy..."]


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        (["run", "--model"], "bi", ["bicubic", "bicubic-affine", "bilinear"]),
        (["run", "--metrics"], "ssim_rgb,psnr_", ["ssim_rgb,psnr_rgb", "ssim_rgb,psnr_y"]),
        (["run", "--metrics"], "modern,re", ["modern,registered", "modern,recall_dinov2"]),
        (["run", "--metrics"], "opensr", ["opensr", *(n for n in names("metrics") if n.startswith("opensr_"))]),
        (["run", "--metrics"], "task:", ["task:slumps-tiny"]),
        (["run", "--protocol"], "p", ["paired"]),
        (["run", "--data"], "sc", ["scenes"]),
        (["predict", "--model"], "lan", ["lanczos"]),
        (["metrics", "show"], "sam_", ["sam_refl", "sam_rgb"]),
        (["weights", "fetch"], "lpips_a", ["lpips_alex"]),
        (["check", "model"], "near", ["nearest"]),
        (["upscale", "--model"], "rare", ["rareflow"]),
        (["ls"], "mo", ["models"]),
        ([], "gat", ["gate"]),
    ],
)
def test_names_are_completed(words: list[str], incomplete: str, expected: list[str]) -> None:
    shell = ShellComplete(cli, {}, "rfbench", "_RFBENCH_COMPLETE")
    assert [item.value for item in shell.get_completions(words, incomplete)] == expected


def test_metrics_are_completed_without_torch() -> None:
    """A shell asks at every press of the key, in a new process."""
    code = """
import sys
from click.shell_completion import ShellComplete
from bench.cli import cli
found = ShellComplete(cli, {}, "rfbench", "").get_completions(["run", "--metrics"], "")
print({item.value for item in found} >= {"all", "opensr", "psnr_rgb"}, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_where_no_name_begins_so_a_path_is_completed() -> None:
    shell = ShellComplete(cli, {}, "rfbench", "_RFBENCH_COMPLETE")
    assert [item.type for item in shell.get_completions(["run", "--data"], "./my")] == ["dir"]
    assert [item.type for item in shell.get_completions(["run", "--model"], "my/mo")] == ["file"]


@pytest.mark.parametrize("words", [["--help"], ["ls", "protocols"], ["table", "results/golden/bicubic"]], ids=" ".join)
def test_what_is_piped_has_no_escapes(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    done = CliRunner().invoke(cli, words, env={"FORCE_COLOR": "1", "TERM": "xterm-256color"}, color=True)
    assert done.exit_code == 0 and "\x1b" not in done.stdout
