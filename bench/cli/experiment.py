"""``--config`` and ``--save-config``: a command's options from a file, and into one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from bench.configs.experiment import Experiment, Options

_FIELDS = {"models": "model"}
"""What an option's value is called in a file, where that is not the option's name."""
_ONCE = (
    "fresh", "report", "form", "shard", "executor", "address", "actors", "gpus_per_model", "allow_mixed", "config",
    "save_config", "changes",
)  # fmt: skip
"""Options of one call, which no experiment has."""
_PATHS = ("out", "weights_dir")


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config``, ``--save-config`` and ``--set``."""
    for option in (
        click.option(
            "--save-config", type=click.Path(path_type=Path), metavar="FILE",
            help="Write what this command stands for, as TOML for --config.",
        ),
        click.option(
            "--config", metavar="FILE|NAME",
            help="Options from a file (docs/scale.md), or of embedded, table1 or table2, which come with rfbench; "
            "those that are given beside it stand before it.",
        ),
        click.option(
            "--set", "changes", multiple=True, metavar="[NAME:]KEY=VALUE,...",
            help="Options of the models of --model or --config: of all that have them, or of NAME alone; repeat for "
            "more.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def experiment_of(context: click.Context) -> Experiment:
    """The experiment that a command stands for: its file, and over it what was given on the command line."""
    import msgspec

    from bench.configs.experiment import Experiment, load

    base = load(context.params["config"]) if context.params["config"] else Experiment()
    given: dict[str, Any] = {}
    for name, value in context.params.items():
        if name in _ONCE or context.get_parameter_source(name) is ParameterSource.DEFAULT:
            continue
        plain = str(value) if name in _PATHS else list(value) if isinstance(value, tuple) else value
        given[_FIELDS.get(name, name)] = plain
    found = msgspec.structs.replace(base, **given)
    if context.params["changes"]:
        found = msgspec.structs.replace(found, model=[*changed(found.models(), context.params["changes"])])
    for verb, entries in (("table", found.table), ("gate", found.gate)):
        for options in entries:
            _words(verb, options)  # what is misspelt is told before anything is computed
    save = context.params["save_config"]
    if save is not None:
        from bench.configs.experiment import dump
        from bench.core.files import write_bytes

        write_bytes(save, dump(found).encode())
        print(f"experiment: {save}", file=sys.stderr)
    return found


def changed(models: tuple[str, ...], changes: tuple[str, ...]) -> tuple[str, ...]:
    """The models with the options of ``--set``; RfbenchError without models, for a name that none has, or for an option
    that none takes."""
    from bench.core.errors import RfbenchError, unknown
    from bench.core.options import split_spec
    from bench.models.call import name_of, options_of, with_options

    if not models:
        raise RfbenchError("--set: no model was named; give --model NAME")
    for text in changes:
        named, colon, _ = text.partition("=")[0].rpartition(":")
        _, options = split_spec(f"set:{text.removeprefix(named + colon)}")
        meant = [model for model in models if not colon or name_of(model) == named]
        if not meant:
            raise unknown("model of --set", named, [name_of(model) for model in models])
        known = dict.fromkeys(key for model in meant for key in options_of(model))
        for key in options:
            if key not in known:
                raise unknown(f"option of --set for {named or 'all models'}", key, known)
        models = tuple(with_options(model, options) if model in meant else model for model in models)
    return models


def commands_of(context: click.Context, experiment: Experiment) -> Iterator[dict[str, Any]]:
    """The options of each command that an experiment stands for, by the names of the command's parameters."""
    usual = {name: value for name, value in context.params.items() if name not in ("config", "save_config", "changes")}
    said = {
        name: value
        for name in usual
        if name not in ("models", "protocol", "data", "seed", "out", *_ONCE)
        and (value := getattr(experiment, name, None)) is not None
    }
    if experiment.metrics is not None:
        said["metrics"] = tuple(experiment.metrics)
    for one in experiment.commands():
        found = usual | said | {"models": experiment.models(), "out": None} | one
        yield found | {name: Path(found[name]) for name in _PATHS if found.get(name) is not None}


def run_further(experiment: Experiment, folders: list[Path]) -> int:
    """The tables and gates of an experiment, on its runs; the worst exit code of its gates."""
    code = 0
    for options in experiment.table:
        _invoke("table", [*map(str, folders)], options)
    for options in experiment.gate:
        for folder in folders:
            code = max(code, _invoke("gate", [str(folder)], options))
    return code


def _invoke(verb: str, words: list[str], options: Options) -> int:
    return int(_command(verb).main([*words, *_words(verb, options)], standalone_mode=False) or 0)


def _command(verb: str) -> click.Command:
    import importlib

    command: click.Command = importlib.import_module(f"bench.cli.{verb}").command
    return command


def _words(verb: str, options: Options) -> list[str]:
    """A table of options as the command's words."""
    from bench.core.errors import RfbenchError, unknown

    words: list[str] = []
    command = _command(verb)
    known = {p.opts[0].removeprefix("--"): p for p in command.params if isinstance(p, click.Option)}
    for name, value in options.items():
        if name not in known:
            raise unknown(f"option of [[{verb}]]", name, known)
        if known[name].is_flag and not isinstance(value, bool):
            raise RfbenchError(f"[[{verb}]]: {name}: found {value!r:.40}, expected true or false")
        if known[name].is_flag:
            words += [f"--{name}"] if value else []
        else:
            words += [f"--{name}", str(value)]
    return words
