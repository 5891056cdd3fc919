"""An experiment: models with their options, protocols, data, metrics, seeds, gates and tables, as TOML.

Every key has the command line's name. A key that is unknown, or a value of a wrong kind, is one line with the nearest
name. Several protocols, data or seeds are run one after the other, each with all models.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.files import read_text, safe_name
from bench.core.typed import decode

FOLDER = Path(__file__).parent
Value = str | int | float | bool
Options = dict[str, Value]
_Texts = str | list[str]


class Experiment(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True, rename="kebab"
):
    """A file of an experiment; what it does not say is as the command line has it.

    Attributes
    ----------
    model : each as ``--model`` takes it, or a table of its ``name`` and options.
    protocol, data, seed : one, or several.
    table, gate : options of ``rfbench table`` and ``rfbench gate`` without their dashes; they are run at the end, a
        gate on all runs.
    """

    format: Literal[1] = 1
    model: list[str | Options] = []
    protocol: _Texts = "paired"
    data: _Texts = "scenes"
    split: str | None = None
    metrics: list[str] | None = None
    exact_libraries: bool = False
    seed: int | list[int] = 0
    draws: int | None = None
    dtype: str | None = None
    batch_size: int | Literal["auto"] | None = None
    limit: int | None = None
    device: str | None = None
    workers: int | None = None
    strict: bool = False
    allow_train: bool = False
    weights_dir: str | None = None
    out: str | None = None
    table: list[Options] = []
    gate: list[Options] = []

    def models(self) -> tuple[str, ...]:
        """The models as ``--model`` takes them."""
        return tuple(one if isinstance(one, str) else _text(one, i) for i, one in enumerate(self.model))

    def commands(self) -> Iterator[Options]:
        """What differs between the commands that it stands for: ``protocol``, ``data``, ``seed`` and ``out``."""
        protocols = self.protocol if isinstance(self.protocol, list) else [self.protocol]
        data = self.data if isinstance(self.data, list) else [self.data]
        seeds = self.seed if isinstance(self.seed, list) else [self.seed]
        for protocol, of, seed in itertools.product(protocols, data, seeds):
            parts = [
                *([protocol] if len(protocols) > 1 else []),
                *([Path(of).name] if len(data) > 1 else []),
                *([f"seed{seed}"] if len(seeds) > 1 else []),
            ]
            found: Options = {"protocol": protocol, "data": of, "seed": seed}
            if self.out is not None:
                found["out"] = str(Path(self.out, *([safe_name("-".join(parts))] if parts else [])))
            yield found


def shipped() -> list[str]:
    """The names of the experiments that come with rfbench."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def load(name: str) -> Experiment:
    """The experiment of a file, or the one of this name that comes with rfbench; RfbenchError for any other."""
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        if name not in shipped():
            raise unknown("experiment", name, shipped(), hint="or give a file, FILE.toml")
        path = FOLDER / f"{name}.toml"
    try:
        found = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise RfbenchError(f"{one_line(path)} is no TOML: {one_line(error, 120)}; correct it") from None
    experiment = decode(found, Experiment, path)
    experiment.models()  # a table without a name is told now
    return experiment


def dump(experiment: Experiment) -> str:
    """The experiment as TOML."""
    found = msgspec.to_builtins(experiment)
    tables = {key: found.pop(key) for key in ("model", "table", "gate") if key in found}
    lines = [f"{key} = {_toml(value)}" for key, value in ({"format": 1} | found).items()]
    for key, entries in tables.items():
        if all(isinstance(entry, str) for entry in entries):
            lines.append(f"{key} = {_toml(entries)}")
    for key, entries in tables.items():
        if not all(isinstance(entry, str) for entry in entries):
            for entry in entries:
                lines += ["", f"[[{key}]]", *(f"{_key(k)} = {_toml(v)}" for k, v in _entry(entry).items())]
    return "\n".join(lines) + "\n"


def _entry(entry: str | Options) -> Options:
    """A model as a table; TOML has no list of texts and tables under one heading."""
    if not isinstance(entry, str):
        return entry
    from bench.core.options import split_spec

    name, options = split_spec(entry)
    return {"name": name, **options}


def _text(entry: Options, i: int) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise RfbenchError(f"model[{i}]: the field 'name' is missing; give one that 'rfbench ls models' has")
    options = ",".join(f"{key}={_option(value)}" for key, value in entry.items() if key != "name")
    return f"{name}:{options}" if options else name


def _option(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _toml(value: Any) -> str:
    """A text, a number, a truth value or a list of them; JSON's spelling of these is TOML's too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _toml(name)
