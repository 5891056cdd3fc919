"""Small text formats, read with limits: a received file may be of any size and shape, and parsers are generous.

Each parser has inputs of a few kilobytes that take it minutes or gigabytes (a TOML key of 100,000 parts, YAML's aliases
and its numbers to the base of 60), so a text is looked at before it is parsed.
"""

from __future__ import annotations

import json
import math
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line

MAX_TEXT_BYTES = 2**26  # a million rows or ids; parsed, the worst of such texts takes about 1.5 GB
MAX_SETTINGS_BYTES = 2**18
"""Of a file that people write by hand: rules, configurations, lists of names."""
_MAX_DIGITS = 300  # of a whole number in JSON: more is no number for a float
_MAX_PARTS = 32  # of a dotted name, and of brackets within each other


def read_text(path: Path, limit: int | None = None) -> str:
    """The UTF-8 text of a manifest or another small file, without a byte-order mark.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    RfbenchError
        If it is no regular file (a device never ends) or of more than ``limit`` bytes (``MAX_TEXT_BYTES``).
    OSError, ValueError
        If it cannot be read, or is no UTF-8.
    """
    limit = MAX_TEXT_BYTES if limit is None else limit
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise RfbenchError(f"{path} is no regular file, expected a text file; replace it")
    if status.st_size > limit:
        raise RfbenchError(f"{path} holds {status.st_size} bytes, expected at most {limit}; split it")
    return path.read_bytes().decode("utf-8-sig")


def read_json(path: Path, limit: int | None = None) -> Any:
    """The JSON in ``path``; RfbenchError naming the file where it is missing or broken."""
    try:
        return parse_json(read_text(path, limit))
    except FileNotFoundError:
        raise RfbenchError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RfbenchError(f"{path} is not readable JSON: {one_line(error, 120)}") from None


def parse_json(text: str) -> Any:
    """The value of a JSON text, all of whose numbers are finite and all of whose characters are whole.

    Raises ValueError or RecursionError.
    """
    value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    if "\\ud" in text or "\\uD" in text:  # escapes of half characters, which no file and no terminal takes
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML in ``path``; RfbenchError naming the file where it is missing, broken or beyond all measure."""
    try:
        text = read_text(path, MAX_SETTINGS_BYTES)
        _look_at(text)
        found = tomllib.loads(text, parse_float=_finite)
        _bounded(found)
        return found
    except FileNotFoundError:
        raise RfbenchError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RfbenchError(f"{path} is not readable TOML: {one_line(error, 160)}") from None


def read_yaml(path: Path) -> Any:
    """The YAML in ``path``: texts, numbers, lists and tables; no aliases. RfbenchError naming the file otherwise."""
    import yaml

    try:
        text = read_text(path, MAX_SETTINGS_BYTES // 4)  # its parser is ten times slower than others
        _look_at(text)
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"found the alias *{one_line(event.anchor, 40)}, expected what it stands for")
        if re.search(r"[0-9]:[0-9]{1,2}(:[0-9]{1,2}){3}", text):
            raise ValueError("found a number to the base of 60, expected one to the base of 10, or quotes about it")
        found = yaml.safe_load(text)
        _bounded(found)
        return found
    except FileNotFoundError:
        raise RfbenchError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError, OverflowError, yaml.YAMLError) as error:
        raise RfbenchError(f"{path} is not readable YAML: {one_line(error, 160)}") from None


def _look_at(text: str) -> None:
    """ValueError for what would keep a parser busy: deep brackets, names of very many parts."""
    depth = 0
    for found in re.finditer(r"[\[\]{}]", text):
        depth = max(0, depth + (1 if found[0] in "[{" else -1))
        if depth > _MAX_PARTS:
            raise ValueError(f"found more than {_MAX_PARTS} brackets within each other")
    # A name's parts, bare or quoted: "a.b.'c'". It begins only where a part does, and never goes back: linear time.
    if re.search(rf"(?<![^\s.=\[\]#])(?:[^\s.=\[\]#]++[ \t]*+\.[ \t]*+){{{_MAX_PARTS}}}", text):
        raise ValueError(f"found a name of more than {_MAX_PARTS} parts")


def _bounded(value: Any, depth: int = 0) -> None:
    """ValueError for a number that no float takes, and for what lies too deep."""
    if depth > 2 * _MAX_PARTS:
        raise ValueError("found values too deep within each other")
    if isinstance(value, dict):
        for key, part in value.items():
            _bounded(key, depth + 1)
            _bounded(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _bounded(part, depth + 1)
    elif isinstance(value, int) and value.bit_length() > 1000:
        raise ValueError("found a number of very many digits")
    elif isinstance(value, float) and not math.isfinite(value):
        _refuse(str(value))


def _refuse(name: str) -> Any:
    raise ValueError(f"found {one_line(name, 40)}, expected a finite number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _whole(text: str) -> int:
    return int(text) if len(text) <= _MAX_DIGITS else _refuse(text)
