"""The one kind of error that a user of the method can cause."""

from __future__ import annotations


class RareflowError(ValueError):
    """Bad input, in one line: what was found, what was expected, what to do next."""
