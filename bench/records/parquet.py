"""Small tables on disk: written as a whole, read only up to a size that a table of ours can have."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import RfbenchError, one_line
from bench.core.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd

_MAX_CELLS = 2**26  # a million images of sixty columns


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write rows as Parquet; returns the file's SHA-256. Equal rows give equal bytes."""
    import pandas as pd

    buffer = io.BytesIO()
    pd.DataFrame(list(rows), columns=list(columns)).to_parquet(buffer, engine="pyarrow", index=False)
    write_bytes(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def read_table(path: Path) -> pd.DataFrame:
    """A table of a run folder; RfbenchError for one that cannot be read, or claims to be larger than any of ours."""
    import pandas as pd
    import pyarrow.parquet as pq

    try:
        if not path.is_file():  # of a folder, all that is in it would be read
            raise ValueError("it is no file")
        with path.open("rb") as file:
            claims = pq.read_metadata(file)
            if claims.num_rows * claims.num_columns > _MAX_CELLS:
                raise ValueError(f"it claims {claims.num_rows} rows")
            file.seek(0)
            return pd.read_parquet(file, engine="pyarrow")
    except Exception as error:  # pyarrow and pandas have errors of their own
        raise RfbenchError(f"{path} cannot be read: {one_line(error, 100)}; run the same command again") from None
