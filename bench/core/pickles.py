"""Pickles read without running any of them, and without more time or memory than their bytes are worth.

A pickle is a program: loading one calls whatever functions it names, hashes whatever it makes a key of, and reserves
what it claims to need. Here a name is looked up in a list and becomes an inert record of what was wanted; a key is a
short text or number (a tuple nested 200,000 deep ends the interpreter while it is hashed, and integers can be chosen to
collide); operations and open brackets are counted.

Why this class and not the standard library's in C: that one keeps its memory in an array, of four billion places if a
pickle names entry four billion, and has no place to count at. This one is the standard library's too, in Python.
"""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

from bench.core.errors import RfbenchError, one_line

MAX_BYTES = 2**33
MAX_STEPS = 1_000_000
"""Operations of one pickle; arrays are one each, so only tables of very many names come near it."""
_MAX_OPEN = 500  # brackets
_MAX_NUMBERS = 10_000  # that are keys: so many that collide take seconds
_LONGEST_KEY = 10_000
_LARGEST_KEY = 2**53  # no two whole numbers below have the same hash


class Inert:
    """What a pickle wanted to make: a name, its arguments and its state. Nothing is done with them."""

    name = ("", "")

    def __new__(cls, *args: Any, **named: Any) -> Inert:
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

    def add(self, item: Any) -> None:
        """As ``append``."""

    def __setitem__(self, key: Any, value: Any) -> None: ...


class _Counted(dict[int, Any]):
    """The operations by their code; each look-up is a step."""

    def __init__(self, operations: dict[int, Any]) -> None:
        super().__init__(operations)
        self.steps = 0

    def __getitem__(self, code: int) -> Any:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise RfbenchError(f"has more than {MAX_STEPS} operations, expected arrays and their names")
        return super().__getitem__(code)


class Reader(pickle._Unpickler):
    """Reads a pickle from ``file``; a subclass says which names it takes (``takes``).

    Raises
    ------
    RfbenchError
        For a name that is not taken, a key that is none, and too much of anything; ``load`` raises whatever an
        interpreter meets in a broken program besides.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.dispatch = _Counted(type(self).dispatch)  # type: ignore[misc]
        self._numbers = 0

    def takes(self, module: str, name: str) -> bool:
        """Whether a name becomes an inert record; others are refused."""
        return False

    def find_class(self, module: str, name: str) -> Any:
        """A class of inert records for a name that is taken; RfbenchError for another."""
        if not self.takes(module, name):
            raise RfbenchError(
                f"asks for {one_line(module, 40)}.{one_line(name, 40)}, expected arrays alone; it may be hostile: do "
                "not open it, get the publisher's file again"
            )
        return type("Inert", (Inert,), {"name": (module, name)})

    def persistent_load(self, pid: Any) -> Any:
        """RfbenchError: nothing outside is looked for."""
        raise RfbenchError("refers to something outside itself, expected arrays alone; get the file again")

    def _look_at_key(self, key: Any) -> None:
        if isinstance(key, str | bytes):
            if len(key) > _LONGEST_KEY:
                raise RfbenchError(f"has a key of {len(key)} characters, expected a name")
        elif isinstance(key, bool) or key is None:
            pass
        elif isinstance(key, int | float) and abs(key) < _LARGEST_KEY:
            self._numbers += 1
            if self._numbers > _MAX_NUMBERS:
                raise RfbenchError(f"has more than {_MAX_NUMBERS} numbers as keys, expected names")
        elif isinstance(key, tuple) and len(key) < 10 and not any(isinstance(k, tuple) for k in key):
            for part in key:
                self._look_at_key(part)
        elif not isinstance(key, Inert) and not (isinstance(key, type) and issubclass(key, Inert)):
            raise RfbenchError(f"has a key of the kind {type(key).__name__}, expected names")

    # --- operations that the standard class is too generous in ------------------------------------------------

    def load_mark(self) -> None:
        """An open bracket."""
        if len(self.metastack) > _MAX_OPEN:  # type: ignore[attr-defined]
            raise RfbenchError(f"has more than {_MAX_OPEN} open brackets, expected arrays and their names")
        super().load_mark()  # type: ignore[misc]

    def load_setitem(self) -> None:
        """One key and its value."""
        self._look_at_key(self.stack[-2])  # type: ignore[attr-defined]
        super().load_setitem()  # type: ignore[misc]

    def load_setitems(self) -> None:
        """Keys and values since the last bracket."""
        for key in self.stack[::2]:  # type: ignore[attr-defined]
            self._look_at_key(key)
        super().load_setitems()  # type: ignore[misc]

    def load_dict(self) -> None:
        """A dict of the keys and values since the last bracket."""
        for key in self.stack[::2]:  # type: ignore[attr-defined]
            self._look_at_key(key)
        super().load_dict()  # type: ignore[misc]

    def load_additems(self) -> None:
        """Members of a set."""
        for key in self.stack:  # type: ignore[attr-defined]
            self._look_at_key(key)
        super().load_additems()  # type: ignore[misc]

    def load_frozenset(self) -> None:
        """A set of what came since the last bracket."""
        for key in self.stack:  # type: ignore[attr-defined]
            self._look_at_key(key)
        super().load_frozenset()  # type: ignore[misc]

    def load_bytearray8(self) -> None:
        """As the standard one, which takes as much memory as the pickle claims before it looks for the bytes."""
        size = int.from_bytes(self.read(8), "little")  # type: ignore[attr-defined]
        content = self.read(min(size, MAX_BYTES))  # type: ignore[attr-defined]
        if len(content) < size:
            raise EOFError("it is cut inside of an array of bytes")
        self.append(bytearray(content))  # type: ignore[attr-defined]

    dispatch[pickle.MARK[0]] = load_mark
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


class DryRun(Reader):
    """Takes every name and every reference, to see whether a pickle stays within the limits before another reads it."""

    def takes(self, module: str, name: str) -> bool:
        """Everything, as an inert record."""
        return True

    def persistent_load(self, pid: Any) -> Any:
        """An inert record: where a checkpoint keeps its tensors."""
        return Inert()
