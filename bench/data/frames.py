"""The columns of a pickled pandas table, read without pandas and without running anything of the pickle.

A table is stored as blocks: arrays of one type each, with the numbers of the columns that they hold. What is recorded
of them (``bench.core.pickles``) is put together again here; columns of texts, numbers, dates and dicts of these become
lists, any other entry becomes None.
"""

from __future__ import annotations

import datetime
import itertools
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.pickles import MAX_STEPS, Inert
from bench.data.pickled import Arrays, array_of, is_array

_MAX_STEPS = 20_000_000  # a row of a series of thirty dates takes about 150
_LARGEST_DAY = 100_000  # so that numbers as keys, of which a table of series is full, cannot be chosen to collide


class _Tables(Arrays):
    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.dispatch.steps = MAX_STEPS - _MAX_STEPS  # type: ignore[attr-defined]

    def takes(self, module: str, name: str) -> bool:
        """As for arrays, and the paths that a row may hold."""
        return super().takes(module, name) or module in ("pathlib", "pathlib._local")

    def _look_at_key(self, key: Any) -> None:
        if type(key) is not int or abs(key) > _LARGEST_DAY:
            super()._look_at_key(key)


def load_frame(path: Path) -> dict[str, list[Any]]:
    """The columns of a pickled table by name, each a list of its rows.

    Raises
    ------
    RfbenchError
        If the file is no pickle of a table, or names anything but the parts of one. Nothing in it runs.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            document = _Tables(content).load()
        return _columns(document)
    except RfbenchError as error:
        raise RfbenchError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise RfbenchError(f"{path} is missing") from None
    except Exception as error:  # whatever an interpreter meets in a broken program
        raise RfbenchError(
            f"{path} is not a readable table ({type(error).__name__}: {one_line(error, 100)}); get it again"
        ) from None


def _columns(document: Any) -> dict[str, list[Any]]:
    if not isinstance(document, Inert) or document.name[1] != "DataFrame":
        raise RfbenchError("found no pandas table, expected one; get the file again")
    manager = document.state["_mgr"]  # type: ignore[attr-defined]
    blocks, axes = manager.args
    names = _values(axes[0].args[1]["data"])
    columns: dict[int, list[Any]] = {}
    for block in blocks:
        values, placement = block.args[:2]
        rows = _rows(values)
        for place, row in zip(_places(placement), rows, strict=True):
            columns[place] = [_entry(v) for v in row]
    return {str(name): columns[i] for i, name in enumerate(names) if i in columns}


def _rows(values: Any) -> list[list[Any]]:
    """A block's columns, each a list."""
    flat = _values(values)
    shape, is_fortran = _layout(values) if is_array(values) else ((1, len(flat)), False)
    if len(shape) != 2 or shape[0] * shape[1] != len(flat):
        raise ValueError(f"a block of {one_line(shape, 40)} with {len(flat)} entries")
    if is_fortran:  # as a table's columns often are
        return [flat[i :: shape[0]] for i in range(shape[0])]
    return [flat[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]


def _layout(recorded: Any) -> tuple[tuple[int, ...], bool]:
    """The shape of a recorded array, and whether its memory is in Fortran's order."""
    if recorded.state is None:
        return tuple(recorded.args[2]), recorded.args[3] == "F"
    return tuple(recorded.state[1]), bool(recorded.state[3])


def _values(recorded: Any) -> list[Any]:
    """The entries of a recorded array in the order of its memory."""
    if isinstance(recorded, Inert) and is_array(recorded):
        if recorded.state is not None and isinstance(recorded.state[4], list):  # type: ignore[attr-defined]
            return recorded.state[4]  # type: ignore[attr-defined]
        found = array_of(recorded)
        if found is None:
            raise ValueError("a column of a type that is not read")
        return found.ravel(order="K").tolist()
    text = _arrow_texts(recorded)
    if text is not None:
        return text
    raise ValueError(f"a column that is recorded as {one_line(getattr(recorded, 'name', type(recorded)), 60)}")


def _arrow_texts(recorded: Any) -> list[str] | None:
    """The texts that newer versions of pandas keep in Arrow's memory; None for anything else."""
    if not isinstance(recorded, Inert) or recorded.name[1] != "ArrowStringArray":
        return None
    inner = recorded.state["_pa_array"]  # type: ignore[attr-defined]
    kind, count, _, offset, buffers, _, _ = inner.args[0]
    width = {"large_string": "q", "string": "i"}[kind.args[0]]
    ends, content = (_bytes(b.args[0]) for b in buffers[1:3])
    at = struct.unpack_from(f"<{count + 1}{width}", ends, offset * struct.calcsize(width))
    return [content[a:b].decode() for a, b in itertools.pairwise(at)]


def _bytes(recorded: Any) -> bytes:
    """Bytes, which older pickles record as a text that was encoded."""
    if isinstance(recorded, Inert):
        first = recorded.args[0]  # type: ignore[attr-defined]
        return first.encode("latin1") if recorded.name == ("_codecs", "encode") else _bytes(first)
    return bytes(recorded)


def _places(placement: Any) -> list[int]:
    """The numbers of a block's columns."""
    if isinstance(placement, Inert) and placement.name[1] == "slice":
        return list(range(*placement.args))  # type: ignore[attr-defined]
    if isinstance(placement, slice):
        return list(range(placement.start, placement.stop, placement.step or 1))
    found = array_of(placement)
    if found is None:
        raise ValueError("a block whose columns are not numbered")
    return [int(n) for n in np.ravel(found)]


def _entry(value: Any) -> Any:
    """A text, number, ISO date, or a dict or list of them; None for anything else."""
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {k: _entry(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_entry(v) for v in value]
    if isinstance(value, Inert):
        module, name = value.name
        args = value.args  # type: ignore[attr-defined]
        if module.startswith("pathlib") and name.endswith("Path"):
            return "/".join(str(part) for part in args)
        if module == "datetime" and name in ("date", "datetime"):
            high, low, month, day = _bytes(args[0])[:4]
            return datetime.date(high * 256 + low, month, day).isoformat()
    return None
