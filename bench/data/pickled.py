"""Arrays out of a pickle without running any of it: ``bench.core.pickles`` with the names that arrays are made of."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.pickles import MAX_BYTES, Inert, Reader

_ARRAYS = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    *((f"numpy.{core}.{module}", name) for core in ("core", "_core")
      for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"), ("multiarray", "scalar"))),
}  # fmt: skip
# What tables are made of: recorded like the rest, and never turned into anything.
_TABLES = ("pandas", "numpy", "pyarrow", "copyreg", "copy_reg", "datetime", "collections", "shapely", "geopandas")
_HARMLESS = {"builtins": {"slice", "list", "dict", "tuple", "set", "frozenset", "object", "bytearray", "bytes"}}


class Arrays(Reader):
    def takes(self, module: str, name: str) -> bool:
        """The parts of arrays and tables."""
        return (
            (module, name) in _ARRAYS
            or module.partition(".")[0] in _TABLES
            or name in _HARMLESS.get(module.replace("__builtin__", "builtins"), ())
        )


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers in a pickled dict by their text keys; entries of other kinds are left out.

    Raises
    ------
    RfbenchError
        If the pickle names anything but the parts of arrays and tables, is cut, or holds no dict. Nothing in it runs.
    """
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise RfbenchError(f"holds {size} bytes, expected 1 to {MAX_BYTES}")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            document = Arrays(content).load()
    except RfbenchError as error:
        raise RfbenchError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise RfbenchError(f"{path} is missing") from None
    except Exception as error:  # whatever an interpreter meets in a broken program
        raise RfbenchError(
            f"{path} is not a readable pickle ({type(error).__name__}: {one_line(error, 100)}); get it again"
        ) from error
    if not isinstance(document, dict):
        raise RfbenchError(f"{path}: found {_kind(document)}, expected a dict of arrays")
    found = {}
    for key, value in document.items():
        if isinstance(key, str) and isinstance(value, Inert) and is_array(value):
            try:
                if (array := array_of(value)) is not None:
                    found[key] = array
            except Exception as error:  # what a pickle recorded may have any shape
                raise RfbenchError(
                    f"{path}: the array '{one_line(key, 40)}' is malformed ({one_line(error, 100)}); get the file again"
                ) from None
    return found


def _kind(value: Any) -> str:
    return ".".join(value.name) if isinstance(value, Inert) else type(value).__name__


def is_array(value: Inert) -> bool:
    module, name = value.name
    return name in ("_reconstruct", "_frombuffer") and module.startswith("numpy")


def array_of(value: Inert) -> np.ndarray | None:
    """The recorded array; None if it holds no numbers."""
    if value.name[1] == "_frombuffer":
        buffer, kind, shape, order = value.args  # type: ignore[attr-defined]
        fortran = order == "F"
    else:
        _, shape, kind, fortran, buffer = value.state  # type: ignore[attr-defined]
    dtype = _dtype(kind)
    if dtype is None:
        return None
    shape = tuple(shape)
    if isinstance(buffer, Inert) and buffer.name == ("_codecs", "encode"):
        text, encoding = buffer.args  # type: ignore[attr-defined]
        if encoding != "latin1":
            raise ValueError(f"bytes in the encoding {one_line(encoding, 20)}")
        buffer = text.encode("latin1")
    if isinstance(buffer, Inert) and buffer.name[1] == "bytes" and not buffer.args:  # type: ignore[attr-defined]
        buffer = b""
    if not all(isinstance(n, int) and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(buffer):
        raise ValueError(f"the shape {one_line(shape, 60)} does not fit {len(buffer)} bytes")
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if fortran else "C")


def _dtype(kind: Any) -> np.dtype[Any] | None:
    """A number type from its recorded name and byte order; None for another type."""
    if not isinstance(kind, Inert) or kind.name != ("numpy", "dtype"):
        raise ValueError("its type is not recorded")
    name = kind.args[0]  # type: ignore[attr-defined]
    state = kind.state  # type: ignore[attr-defined]
    order = state[1] if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">") else ""
    if not isinstance(name, str) or name[:1] not in "uifb" or not name[1:].isdigit():
        return None
    return np.dtype(order + name)
