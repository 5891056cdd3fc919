"""What binary files claim to hold, held against how large they are, before a library believes it.

A safetensors file of 96 bytes may say that it holds 60 million rows of nothing, and a Parquet file of 33 kB four
gigabytes of one repeated text. Libraries check that what is claimed fits the file; here it is checked that somebody who
reads it does not run out of memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import RfbenchError, one_line

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_MAX_HEADER_BYTES = 2**24
_MAX_TENSORS = 100_000
_MAX_AXES = 8
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4,
          "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8}  # fmt: skip
_MAX_CELLS = 2**26  # of a table: a million images of sixty columns
_MAX_COLUMNS = 20_000
_MAX_TEXT_BYTES = 2**28  # of the texts of a table, each counted as often as it stands there


def look_at_tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Kind and shape of each tensor of a safetensors file by name, from its header alone.

    Raises
    ------
    RfbenchError
        If the header is none, if a tensor does not fill the bytes that are its own, or if an axis is longer than the
        file has bytes (which only an empty tensor can claim).
    OSError
        If the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise _unreadable(path, f"its header is of {length} bytes")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, one_line(error, 80)) from None
    if not isinstance(header, dict) or len(header) > _MAX_TENSORS:
        raise _unreadable(path, "its header is no list of tensors, or a very long one")
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, entry, size) for name, entry in header.items()}


def _tensor(path: Path, name: str, entry: Any, size: int) -> tuple[str, tuple[int, ...]]:
    what = f"the tensor '{one_line(name, 60)}'"
    try:
        kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, start, end)):
            raise ValueError
        each = _BYTES[kind]
    except (KeyError, TypeError, ValueError):
        raise _unreadable(path, f"{what} is described as {one_line(entry, 60)}") from None
    if len(shape) > _MAX_AXES or max(shape, default=0) > size:
        raise _unreadable(path, f"{what} claims the shape {one_line(shape, 60)} in a file of {size} bytes")
    if math.prod(shape) * each != end - start or end > size:
        raise _unreadable(path, f"{what} of the shape {one_line(shape, 60)} has {end - start} bytes")
    return kind, tuple(shape)


def read_frame(path: Path) -> pd.DataFrame:
    """A Parquet file of flat columns (numbers, texts, truth values) as a frame; a text that is repeated is kept once.

    Raises
    ------
    RfbenchError
        If it cannot be read, has nested columns, or claims more cells or longer texts than a table of ours has.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not path.is_file():  # of a folder, all that is in it would be read
            raise ValueError("it is no file")
        with path.open("rb") as file:
            opened = pq.ParquetFile(file, thrift_string_size_limit=2**24, thrift_container_size_limit=2**20)
            claims = opened.metadata
            if claims.num_columns > _MAX_COLUMNS or claims.num_rows * max(1, claims.num_columns) > _MAX_CELLS:
                raise ValueError(f"it claims {claims.num_rows} rows of {claims.num_columns} columns")
            texts = {f.name for f in opened.schema_arrow if _is_flat(f.type)}
            table = pq.ParquetFile(file, read_dictionary=[*texts]).read()
        columns = dict[str, pd.Series]()
        for name in table.column_names:
            column = table.column(name)
            if name not in texts or not pa.types.is_dictionary(column.type):
                columns[name] = column.to_pandas()
                continue
            if _text_bytes(column) > _MAX_TEXT_BYTES:
                raise ValueError(f"the texts of '{one_line(name, 40)}' are very long")
            columns[name] = pd.Series(_objects(column), dtype=object)
        return pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows))
    except Exception as error:  # pyarrow and pandas have errors of their own
        raise RfbenchError(f"{path} cannot be read: {one_line(error, 100)}; run the same command again") from None


def _is_flat(kind: Any) -> bool:
    """Whether a column holds texts; ValueError where it holds lists, tables or bytes."""
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return True
    if not (pa.types.is_primitive(kind) or pa.types.is_null(kind)):
        raise ValueError(f"found a column of {kind}, expected numbers and texts")
    return False


def _text_bytes(column: Any) -> int:
    """How many bytes the texts of a dictionary column are, each counted as often as it stands there."""
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary)
        total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return total


def _objects(column: Any) -> np.ndarray:
    """The texts of a dictionary column, each one object however often it stands there; None where there is none.

    By way of pandas' categories, reading a small table takes twice as long.
    """
    import numpy as np

    whole = column.unify_dictionaries().combine_chunks()
    kept = np.array([*whole.dictionary.to_pylist(), None], dtype=object)
    return kept[whole.indices.fill_null(len(whole.dictionary)).to_numpy(zero_copy_only=False)]


def _unreadable(path: Path, why: str) -> RfbenchError:
    return RfbenchError(f"{path} is no readable safetensors file: {why}; get or make it again")
