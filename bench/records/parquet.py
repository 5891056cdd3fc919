"""Small tables on disk, written as a whole; ``bench.core.claims.read_frame`` reads them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.files import write_bytes

if TYPE_CHECKING:
    pass


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write rows as Parquet; returns the file's SHA-256. Equal rows give equal bytes."""
    import pandas as pd

    buffer = io.BytesIO()
    pd.DataFrame(list(rows), columns=list(columns)).to_parquet(buffer, engine="pyarrow", index=False)
    write_bytes(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()
