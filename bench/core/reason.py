"""Why a number is missing, as data: what kind of reason it is decides what happens next, its words are for people."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["missing", "slow", "unfit", "failed", "set"]


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why there is no number.

    Attributes
    ----------
    kind : ``missing`` (a package or a weights file is not here: the number comes once it is), ``slow`` (left out unless
        it is asked for by name), ``unfit`` (these images or this model cannot have the number: too small, no
        distribution, no reference), ``failed`` (something raised: the same command tries again), ``set`` (one number
        for all images, none for each).
    text : what was found, in words.
    remedy : what the user can do, in words; empty where there is nothing.
    """

    kind: Kind
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text

    @property
    def may_pass(self) -> bool:
        """Whether the same question may have an answer another time."""
        return self.kind in ("missing", "slow", "failed")
