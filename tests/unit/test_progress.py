"""Progress: how fast and how long still, and nothing of it while nothing is done."""

from __future__ import annotations

import io
import re
import sys

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


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_wanted", [True, False])
def test_bars_have_colours_unless_no_color_is_set(is_wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not is_wanted:
        monkeypatch.setenv("NO_COLOR", "1")
    with Progress(2, 0, "bicubic", ("predict",)) as bar:
        bar.advance("predict", 2)
    codes = {int(code) for codes in re.findall(r"\x1b\[([0-9;]+)m", terminal.getvalue()) for code in codes.split(";")}
    assert "bicubic: predict" in terminal.getvalue() and "2/2" in terminal.getvalue()
    assert any(code >= 30 for code in codes) == is_wanted
