"""CSV and JSON: numbers at full precision, and no NaN anywhere."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any


def to_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated lines; None is an empty field, and a float has all its digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(["" if v is None else repr(v) if isinstance(v, float) else v for v in row])
    return buffer.getvalue().rstrip("\n")


def to_json(value: Any) -> str:
    """Indented JSON; infinity and NaN are refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
