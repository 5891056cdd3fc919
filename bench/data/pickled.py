"""Arrays out of a pickle without running any of it.

A pickle is a program: loading one calls whatever functions it names. Here nothing that it names is ever called or even
imported. Names that array and table pickles are made of become inert records of what the pickle wanted; arrays are
then made anew from the bytes and the type they recorded. Any other name is refused.
"""

from __future__ import annotations

import math
import mmap
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.core.errors import RfbenchError, one_line

MAX_BYTES = 2**33
_ARRAYS = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    *((f"numpy.{core}.{module}", name) for core in ("core", "_core")
      for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"), ("multiarray", "scalar"))),
}  # fmt: skip
# What tables are made of: recorded like the rest, and never turned into anything.
_TABLES = ("pandas", "numpy", "pyarrow", "copyreg", "copy_reg", "datetime", "collections", "shapely", "geopandas")
_HARMLESS = {"builtins": {"slice", "list", "dict", "tuple", "set", "object", "bytearray", "bytes"}}


class _Inert:
    """What a pickle wanted to make: a name, its arguments and its state. Nothing is done with them."""

    name = ("", "")

    def __new__(cls, *args: Any, **named: Any) -> _Inert:
        made = object.__new__(cls)
        made.__dict__.update(args=args, state=None)
        return made

    def __init__(self, *args: Any, **named: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def append(self, item: Any) -> None:
        """Lists and tables of other libraries fill themselves; what they hold is not wanted."""

    def extend(self, items: Any) -> None:
        """As ``append``."""

    def __setitem__(self, key: Any, value: Any) -> None: ...


# The interpreter in Python keeps its memory in a dict: a pickle that names entry 4 billion costs it nothing.
class _Reader(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        """As the interpreter's own, which takes as much memory as the pickle claims before it looks for the bytes."""
        size = int.from_bytes(self.read(8), "little")  # type: ignore[attr-defined]
        content = self.read(min(size, MAX_BYTES))  # type: ignore[attr-defined]
        if len(content) < size:
            raise EOFError("it is cut inside of an array of bytes")
        self.append(bytearray(content))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        known = (
            (module, name) in _ARRAYS
            or module.partition(".")[0] in _TABLES
            or name in _HARMLESS.get(module.replace("__builtin__", "builtins"), ())
        )
        if not known:
            raise RfbenchError(
                f"asks for {one_line(module, 40)}.{one_line(name, 40)}, expected arrays alone; it may be hostile: do "
                "not open it, get the publisher's file again"
            )
        return type("Inert", (_Inert,), {"name": (module, name)})

    def persistent_load(self, pid: Any) -> Any:
        raise RfbenchError("refers to something outside itself, expected arrays alone; get the file again")


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
            document = _Reader(content).load()
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
        if isinstance(key, str) and isinstance(value, _Inert) and _is_array(value):
            try:
                if (array := _array(value)) is not None:
                    found[key] = array
            except Exception as error:  # what a pickle recorded may have any shape
                raise RfbenchError(
                    f"{path}: the array '{one_line(key, 40)}' is malformed ({one_line(error, 100)}); get the file again"
                ) from None
    return found


def _kind(value: Any) -> str:
    return ".".join(value.name) if isinstance(value, _Inert) else type(value).__name__


def _is_array(value: _Inert) -> bool:
    module, name = value.name
    return name in ("_reconstruct", "_frombuffer") and module.startswith("numpy")


def _array(value: _Inert) -> np.ndarray | None:
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
    if isinstance(buffer, _Inert) and buffer.name == ("_codecs", "encode"):
        text, encoding = buffer.args  # type: ignore[attr-defined]
        if encoding != "latin1":
            raise ValueError(f"bytes in the encoding {one_line(encoding, 20)}")
        buffer = text.encode("latin1")
    if isinstance(buffer, _Inert) and buffer.name[1] == "bytes" and not buffer.args:  # type: ignore[attr-defined]
        buffer = b""
    if not all(isinstance(n, int) and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(buffer):
        raise ValueError(f"the shape {one_line(shape, 60)} does not fit {len(buffer)} bytes")
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if fortran else "C")


def _dtype(kind: Any) -> np.dtype[Any] | None:
    """A number type from its recorded name and byte order; None for another type."""
    if not isinstance(kind, _Inert) or kind.name != ("numpy", "dtype"):
        raise ValueError("its type is not recorded")
    name = kind.args[0]  # type: ignore[attr-defined]
    state = kind.state  # type: ignore[attr-defined]
    order = state[1] if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">") else ""
    if not isinstance(name, str) or name[:1] not in "uifb" or not name[1:].isdigit():
        return None
    return np.dtype(order + name)
