"""The one kind of error that a user of the method can cause."""

from __future__ import annotations


class RareflowError(ValueError):
    """Bad input, in one printable line: what was found, what was expected, what to do next."""

    def __init__(self, message: object) -> None:
        printable = "".join(c if c.isprintable() else " " for c in str(message)[:20_000])
        flat = " ".join(printable.split())
        super().__init__(flat if len(flat) <= 1000 else f"{flat[:997]}...")
