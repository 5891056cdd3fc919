"""Typed records from what files hold: each way to be wrong is one line with place, finding and next step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from bench.core.errors import RfbenchError
from bench.core.typed import decode, decode_file, encode


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8,64}$")] = "0" * 8
    kind: Literal["model", "metric"] = "model"

    def __post_init__(self) -> None:
        if self.bytes == 13:
            raise ValueError("found 13 bytes, expected another number")


class Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    parts: dict[str, Part] = {}
    sides: tuple[int, int] | None = None
    share: float = 0.5
    numbers: list[float] = []


def test_a_right_value_becomes_a_record_and_comes_back() -> None:
    value = {"name": "a", "parts": {"x.pth": {"bytes": 3}}, "sides": [1, 2], "share": 1}
    record = decode(value, Whole, "a.json")
    assert record == Whole("a", {"x.pth": Part(3)}, (1, 2), 1.0)
    assert decode(encode(record), Whole, "a.json") == record


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "the field 'name' is missing; write it anew"),
        ({"nam": "a"}, "unknown field 'nam'; did you mean name?"),
        ({"name": "a", "part": {}}, "unknown field 'part'; did you mean parts"),
        ({"name": "a", "zzzzz": {}}, "unknown field 'zzzzz'; known: name, parts"),
        ({"name": 3}, "name: found 3, expected a text"),
        ({"name": None}, "name: found null, expected a text"),
        ([1], "found a list of 1, expected a table of names and values"),
        ({"name": "a", "share": True}, "share: found true, expected a number"),
        ({"name": "a", "share": 10**400}, "share: found a number of very many digits: number out of range"),
        ({"name": "a", "sides": [1, 2, 3]}, "sides: found a list of 3, expected a list of length 2"),
        ({"name": "a", "sides": [1, "2"]}, "sides[1]: found '2', expected a whole number"),
        ({"name": "a", "numbers": [1, 2, {}]}, "numbers[2]: found a table of nothing, expected a number"),
        ({"name": "a", "parts": {"x.pth": {"bytes": 0}}}, "parts.x.pth.bytes: found 0, expected a whole number >= 1"),
        ({"name": "a", "parts": {"y": {"bites": 1}}}, "parts.y: unknown field 'bites'; did you mean bytes?"),
        ({"name": "a", "parts": {"x": {"bytes": 13}}}, "parts.x: found 13 bytes, expected another number"),
        ({"name": "a", "parts": {"x": {"bytes": 1, "kind": "metrics"}}}, "kind: found 'metrics', expected one of mo"),
        ({"name": "a", "parts": {"x": {"bytes": 1, "sha256": "zz"}}}, "sha256: found 'zz', expected a text like"),
        ({"name": "a", "parts": {"x\n\x1b[31m": 3}}, "parts.x [31m: found 3, expected a table"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(value: Any, says: str) -> None:
    with pytest.raises(RfbenchError) as told:
        decode(value, Whole, "a.json", remedy="write it anew")
    assert str(told.value).startswith("a.json: ")
    assert says in str(told.value)
    assert str(told.value).isprintable()


class Chain(msgspec.Struct):
    next: Chain | None = None


def test_a_deep_value_is_refused() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"next": deep}
    with pytest.raises(RfbenchError, match=r"^a\.json: "):
        decode(deep, Chain, "a.json")


def test_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text('{"name": []}')
    with pytest.raises(RfbenchError, match=r"w\.json: name: found a list of 0, expected a text; correct it"):
        decode_file(tmp_path / "w.json", Whole)
