"""Values that came from a file become typed records, and what is wrong with them becomes one line.

msgspec checks and converts; what it says of an error ("Expected `int`, got `str` - at `$.e[...][1]`") names neither the
key of a table nor the value that was found. So where a value is refused, it is gone through once more, down to the
innermost part that is refused, and the line is made from that part and its type: what was found, what was expected,
and the next step, with the nearest names for one that is misspelt.

What a record demands beyond types it says in ``__post_init__`` with a ValueError ("found 3 names, expected 2"), which
is told in the same way.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from bench.core.errors import RfbenchError, one_line
from bench.core.files import read_json

T = TypeVar("T")

_WORDS = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "null": "null",
    "array": "a list", "object": "a table of names and values", "date": "a date", "datetime": "a time",
}  # fmt: skip


def decode(value: Any, of: type[T], where: object, *, remedy: str = "correct it") -> T:
    """``value``, as JSON, TOML or YAML gave it, as the typed record ``of``.

    Parameters
    ----------
    value : dicts, lists, texts, numbers, truth values and None.
    of : a ``msgspec.Struct``, or any other type that msgspec converts to (``list[Entry]``, ``dict[str, Entry]``).
    where : what the line begins with: the file, or what else the value is.
    remedy : the next step, in words, where a misspelt name does not suggest one.

    Raises
    ------
    RfbenchError
        Naming the part, what was found there and what was expected.
    """
    try:
        return msgspec.convert(value, of)
    except (msgspec.ValidationError, RfbenchError) as error:
        path, found, kind, why = _innermost(value, of, error)
    except (RecursionError, OverflowError, UnicodeError) as error:
        raise RfbenchError(f"{one_line(where)}: {one_line(error, 80)}; {remedy}") from None
    raise RfbenchError(f"{one_line(where)}: {_said(path, found, kind, why, remedy)}")


def decode_file(path: Path, of: type[T], *, remedy: str = "correct it") -> T:
    """The JSON file ``path`` as the typed record ``of``; RfbenchError naming the file."""
    return decode(read_json(path), of, path, remedy=remedy)


def encode(record: Any) -> Any:
    """A typed record as what ``write_json`` takes: dicts, lists, texts and numbers."""
    return msgspec.to_builtins(record)


def _innermost(value: Any, kind: Any, error: Exception) -> tuple[str, Any, Any, str]:
    """The path, the value, the type and the complaint of the innermost part that is refused by itself."""
    path = ""
    while True:
        for step, part, of in _parts(value, kind):
            try:
                msgspec.convert(part, of)
            except (msgspec.ValidationError, RfbenchError) as inner:
                path, value, kind, error = path + step, part, of, inner
                break
            except (RecursionError, OverflowError, UnicodeError):
                continue
        else:
            return path.removeprefix("."), value, kind, str(error).partition(" - at `")[0]


def _parts(value: Any, kind: Any) -> list[tuple[str, Any, Any]]:
    """What lies within ``value``, each with its step and its type, as far as the type says so."""
    kind = _bare(kind)
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = [f for f in msgspec.structs.fields(kind) if f.encode_name in value]
        return [(f".{f.encode_name}", value[f.encode_name], f.type) for f in fields]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, dict) and origin is dict:
        return [(f".{one_line(key, 60)}", part, arguments[1]) for key, part in value.items()]
    if isinstance(value, list | tuple) and origin in (list, tuple, set, frozenset, Sequence) and arguments:
        each = len(arguments) if origin is tuple and Ellipsis not in arguments else 0
        of = arguments if each == len(value) else [arguments[0]] * len(value) if not each else []
        return [(f"[{i}]", part, part_kind) for i, (part, part_kind) in enumerate(zip(value, of, strict=False))]
    return []


def _bare(kind: Any) -> Any:
    """A type without its constraints, and without ``None`` beside it."""
    while True:
        if typing.get_origin(kind) is Annotated:
            kind = typing.get_args(kind)[0]
        elif typing.get_origin(kind) in (typing.Union, types.UnionType):
            others = [a for a in typing.get_args(kind) if a is not types.NoneType]
            if len(others) != 1:
                return kind
            kind = others[0]
        else:
            return kind


def _said(path: str, found: Any, kind: Any, why: str, remedy: str) -> str:
    """What is wrong with one part: found, expected, next."""
    at = f"{path}: " if path else ""
    bare = _bare(kind)
    named = _quoted(why)
    if why.startswith("Object contains unknown field"):
        known = [f.encode_name for f in msgspec.structs.fields(bare)]
        return f"{at}unknown field '{one_line(named, 60)}'; {_nearest(str(named), known)}"
    if why.startswith("Object missing required field"):
        return f"{at}the field '{named}' is missing; {remedy}"
    if why.startswith("Invalid enum value") and typing.get_origin(bare) is Literal:
        known = [str(a) for a in typing.get_args(bare)]
        near = difflib.get_close_matches(str(found)[:100], known, n=2, cutoff=0.5)
        expected = known[0] if len(known) == 1 else f"one of {', '.join(known)}"
        step = f"did you mean {' or '.join(near)}?" if near else remedy
        return f"{at}found {_shown(found)}, expected {expected}; {step}"
    if why.startswith("Expected `") and "matching regex" in why:
        return f"{at}found {_shown(found)}, expected a text like {why.partition('matching regex ')[2]}; {remedy}"
    if why.startswith("Expected `"):
        names, _, rest = why.removeprefix("Expected `").partition("`")
        kinds = names.split(" | ")
        words = " or ".join(_WORDS.get(name, name) for name in kinds if name != "int" or "float" not in kinds)
        return f"{at}found {_shown(found)}, expected {words}{rest.partition(', got')[0]}; {remedy}"
    if why.startswith("found ") or isinstance(found, dict | list):  # said by the record itself, of its parts together
        return f"{at}{why}; {remedy}"
    return f"{at}found {_shown(found)}: {why[:1].lower()}{why[1:]}; {remedy}"


def _quoted(why: str) -> str:
    return why.partition("`")[2].rpartition("`")[0]


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:100], known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:20]) or 'none'}"


def _shown(value: Any) -> str:
    """A found value for people, however large it is."""
    if isinstance(value, dict):
        return "a table" + (f" of {', '.join(one_line(k, 30) for k in list(value)[:3])}" if value else " of nothing")
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a number of very many digits"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(one_line(value, 60)) if isinstance(value, str) else one_line(value, 60)
