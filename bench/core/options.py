"""``NAME[:key=value,...]``, the one way in which models and protocols take options."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

from bench.core.errors import RfbenchError, one_line, unknown

T = TypeVar("T")


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """``"paired:normalisation=percentile[2,98],border_px=4"`` -> the name and its options.

    Commas inside brackets belong to the value. Raises RfbenchError for a part without ``=`` or a key given twice.
    """
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in _split_outside_brackets(rest) if rest else []:
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise RfbenchError(
                f"'{one_line(text, 120)}': found '{one_line(part, 60)}' where key=value was expected; "
                "write NAME:key=value,key=value"
            )
        if key.strip() in options:
            raise RfbenchError(f"'{one_line(text, 120)}': the option '{key.strip()}' is given twice; keep one")
        options[key.strip()] = value.strip()
    return name.strip(), options


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "[") - (c == "]")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def build(cls: type[T], options: dict[str, str], *, what: str) -> T:
    """An instance of the dataclass ``cls`` with ``options`` turned into its fields' types.

    Raises RfbenchError for unknown options (the nearest name is offered) and for values of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in fields:
            raise unknown(f"option of {what}", key, fields)
        values[key] = _convert(text, hints[key], f"{what}: option {key}")
    missing = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in values
    ]
    if missing:
        raise RfbenchError(f"{what} needs the option {missing[0]}; write NAME:{missing[0]}=VALUE")
    return cls(**values)


def _convert(text: str, hint: Any, where: str) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        choices = [str(c) for c in typing.get_args(hint)]
        if text not in choices:
            raise RfbenchError(f"{where}: found '{one_line(text, 60)}', expected one of {', '.join(choices)}")
        return text
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if text in ("none", "None", ""):
            return None
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        return _convert(text, inner[0], where)
    if hint is bool:
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise RfbenchError(f"{where}: found '{one_line(text, 60)}', expected true or false")
        return text.lower() in ("true", "yes", "1")
    if hint in (int, float):
        try:
            number = hint(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        except ValueError:
            expected = "a whole number" if hint is int else "a number"
            raise RfbenchError(f"{where}: found '{one_line(text, 60)}', expected {expected}") from None
    return text
