"""Progress: how fast and how long still, and nothing of it while nothing is done."""

from __future__ import annotations

import pytest

from bench.core import progress
from bench.core.progress import Progress, duration, pace


@pytest.mark.parametrize(
    ("count", "seconds", "unit", "expected"),
    [
        (0, 5, "images", ""),
        (120, 10, "images", "12 images/s"),
        (15, 10, "images", "1.5 images/s"),
        (2, 500, "images", "250 s an image"),
        (4, 10, "tiles", "2.5 s a tile"),
        (1, 4, "MB", "0.25 MB/s"),
    ],
)
def test_pace(count: int, seconds: float, unit: str, expected: str) -> None:
    assert pace(count, seconds, unit) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.4, "0 s"), (89, "89 s"), (150, "2 min"), (11100, "3 h 5 min")])
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_a_plain_line_tells_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress(10, 2, "bicubic", ("predict",)) as bar:
        clock[0] = 20.0
        bar.advance("predict", 0)  # nothing is done yet
        clock[0] = 40.0
        bar.advance("predict", 4)
    assert capsys.readouterr().err.splitlines() == [
        "bicubic: 10 images, 2 done",
        "bicubic: predict 2 of 10",
        "bicubic: predict 6 of 10, 10 s an image, 40 s left",
    ]  # and not the last one twice


def test_one_image_is_singular(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1, 0, "bicubic", ("predict",)):
        pass
    assert capsys.readouterr().err.splitlines() == ["bicubic: 1 image", "bicubic: predict 0 of 1"]
