"""Progress on stderr: bars with rates and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_PLAIN_EVERY_S = 10.0


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 5 min``."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def pace(count: int, seconds: float, unit: str) -> str:
    """``12 images/s``, or of what takes longer ``8.4 s an image``; empty where nothing is done yet.

    Parameters
    ----------
    unit : of what is counted; a plural ends in s, and what does not (MB) is counted by the second however slow.
    """
    if count <= 0:
        return ""
    rate = count / max(seconds, 1e-9)
    if rate < 1 and unit.endswith("s"):
        return f"{_digits(1 / rate)} s {'an' if unit[0] in 'aeiou' else 'a'} {unit[:-1]}"
    return f"{_digits(rate)} {unit}/s"


def _digits(value: float) -> str:
    """Two digits of what is small, all before the point of what is large."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


class Progress:
    """A counter of images for each step (predict, score); the last step tells the rate. A context manager."""

    def __init__(
        self,
        total: int,
        done: int,
        label: str,
        steps: tuple[str, ...] = ("predict", "score"),
        unit: str = "images",
    ) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.counts = dict.fromkeys(steps, done)
        self._start_done, self._started, self._last = done, time.monotonic(), time.monotonic()
        self._told: dict[str, int] = {}
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=False,
            )
            for name in self.counts:
                self._tasks[name] = self._bars.add_task(f"{label}: {name}", total=total, completed=done, rate="")

    def __enter__(self) -> Progress:
        if self._bars:
            self._bars.start()
        else:
            self.line(f"{self.label}: {self._counted}" + (f", {self._start_done} done" if self._start_done else ""))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()
        elif kind is None and self._told != self.counts:
            self._plain()

    def advance(self, name: str, count: int = 1) -> None:
        """``count`` more images are predicted or scored."""
        self.counts[name] += count
        if self._bars:
            self._bars.update(self._tasks[name], advance=count, rate=self._pace(name))
        elif time.monotonic() - self._last >= _PLAIN_EVERY_S:
            self._last = time.monotonic()
            self._plain()

    def line(self, text: str) -> None:
        """A line of text that does not disturb the bars."""
        if self._bars:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @property
    def _counted(self) -> str:
        unit = self.unit[:-1] if self.total == 1 and self.unit.endswith("s") else self.unit
        return f"{self.total} {unit}"

    def _pace(self, name: str) -> str:
        return pace(self.counts[name] - self._start_done, time.monotonic() - self._started, self.unit)

    def _plain(self) -> None:
        self._told = dict(self.counts)
        last = next(reversed(self.counts))
        texts = [f"{name} {count} of {self.total}" for name, count in self.counts.items()]
        if rate := self._pace(last):
            texts.append(rate)
            seconds = (time.monotonic() - self._started) / (self.counts[last] - self._start_done)
            left = self.total - self.counts[last]
            texts += [f"{duration(left * seconds)} left"] if left else []
        print(f"{self.label}: {', '.join(texts)}", file=sys.stderr, flush=True)


class Ticker:
    """A counter for callers that learn their totals late: ``tick(step, done, total)`` as often as they like."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._progress: Progress | None = None

    def __enter__(self) -> Ticker:
        return self

    def tick(self, step: str, done: int, total: int) -> None:
        """``done`` of ``total`` images are through ``step``; another step ends the last one."""
        if self._progress is None or step not in self._progress.counts:
            self.__exit__(None, None, None)
            self._progress = Progress(total, 0, self.label, steps=(step,)).__enter__()
        if done > self._progress.counts[step]:
            self._progress.advance(step, done - self._progress.counts[step])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)
