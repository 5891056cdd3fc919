"""Predictions reach the disk in lots, and none is forgotten where the disk gives an error."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from bench.records import predictions
from bench.records.predictions import Predictions


@pytest.mark.parametrize("wait", [True, False])
def test_a_lot_that_the_disk_refused_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    """What was written after a lot that failed stays to be had on the disk, and the failure is told at each call."""
    settled, is_full = list[str](), True

    def to_disk(paths: Iterable[Path]) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        settled.extend(path.stem for path in paths)

    monkeypatch.setattr(predictions, "to_disk", to_disk)
    found = Predictions(tmp_path)
    found.write_bytes("a", b"a")
    if not wait:
        found.settle(wait=False)  # in another thread, whose error comes with the next call
        assert found.unsettled == 0
        found.write_bytes("b", b"b")
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            found.settle(wait=wait)
        assert found.unsettled == 1
    is_full = False
    if wait:
        found.settle()
        assert settled == ["a"] and found.unsettled == 0
