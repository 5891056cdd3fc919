"""Small tables on disk, written as a whole; ``bench.core.claims.read_frame`` reads them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.files import atomic_path, sha256

_BLOCK = 4096  # rows that are in memory together
_KINDS = {"text": "string", "whole": "int64", "number": "float64"}
"""The kinds of a column, and what Arrow calls them."""


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Write rows as Parquet; returns the file's SHA-256. Equal rows give equal bytes.

    Rows are taken one after the other, and a long table is written in blocks: its memory does not grow with it.

    Parameters
    ----------
    columns : their kinds by name: ``text``, ``whole`` (numbers) or ``number``; any value may be None. A short table's
        columns are of the kind that its values have, which is none for a column without any.
    """
    import pandas as pd

    blocks = _blocks(rows)
    first = next(blocks, [])
    with atomic_path(path) as temporary:
        following = next(blocks, None)
        if following is None:
            frame = pd.DataFrame(first, columns=list(columns))
            frame.to_parquet(temporary, engine="pyarrow", index=False)
        else:
            _write_blocks(temporary, itertools.chain((first, following), blocks), columns)
    return sha256(path)


def _blocks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    left = iter(rows)
    while block := list(itertools.islice(left, _BLOCK)):
        yield block


def _write_blocks(path: Path, blocks: Iterable[Sequence[Mapping[str, Any]]], columns: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(_KINDS[kind])) for name, kind in columns.items()])
    with pq.ParquetWriter(path, schema) as writer:
        for block in blocks:
            writer.write_table(pa.Table.from_pylist(block, schema))
