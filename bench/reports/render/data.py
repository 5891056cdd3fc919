"""CSV and JSON: numbers at full precision, and no NaN anywhere.

A text of somebody else's, such as a model's label, that a spreadsheet would take for a formula (``=cmd|...``) has an
apostrophe before it in CSV, which spreadsheets do not show.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?")


def to_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated lines; None is an empty field, and a float has all its digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([_field(value) for value in row])
    return buffer.getvalue().rstrip("\n")


def _field(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str) and value[:1] in _FORMULA and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def to_json(value: Any) -> str:
    """Indented JSON; infinity and NaN are refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
