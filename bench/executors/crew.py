"""A crew: processes that make a state once (a model, metrics) and then work on units, one after the other.

A unit is a function of a module with arguments that can be pickled; it is called with the process's state before them
and gives its result back to the caller, who alone writes anything. No number depends on which process did a unit, nor
on how many there are: seeds come from names, and every process computes in one thread.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bench.core.errors import RfbenchError, one_line

Key = TypeVar("Key")
Result = TypeVar("Result")


class Lost(RfbenchError):
    """A process of a crew ended while it worked; what it had in hand is not done."""


class CannotBegin(RfbenchError):
    """A process of a crew cannot make its state; what it had in hand is not done."""


@dataclass(frozen=True)
class Job:
    """How a process makes its state: ``build(*arguments)``, once; both can be pickled."""

    build: Callable[..., Any]
    arguments: tuple[Any, ...]

    def begin(self, *own: Any) -> Any:
        """The state, ``own`` being what this process has for itself alone; CannotBegin for whatever goes wrong."""
        try:
            return self.build(*self.arguments, *own)
        except Exception as error:
            said = str(error) if isinstance(error, RfbenchError) else f"{type(error).__name__}: {one_line(error)}"
            raise CannotBegin(said) from error


class Crew(ABC, Generic[Key, Result]):
    """Processes at work on a job. A context manager; leaving it ends them.

    Attributes
    ----------
    size : how many processes there are.
    """

    size: int

    @property
    @abstractmethod
    def waiting(self) -> list[Key]:
        """The keys of units that were given and have not come back."""

    @abstractmethod
    def give(self, key: Key, work: Callable[..., Result], *arguments: Any) -> None:
        """Hand a unit over. Raises Lost."""

    @abstractmethod
    def take(self) -> Iterator[tuple[Key, Result]]:
        """Wait for a unit, and yield all that are done. Raises Lost, or what the unit itself raised."""

    @abstractmethod
    def close(self, *, finish: bool) -> None:
        """End the processes: after what they have in hand, or at once."""

    def __enter__(self) -> Crew[Key, Result]:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(finish=kind is None)


class Units(Generic[Key]):
    """What is still to be done, for several takers: this process takes from the front, a crew from the end.

    So the front can be read ahead of, until the two meet.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._left = deque(keys)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._left)

    def front(self) -> Key | None:
        """The next of the front, which stays."""
        with self._lock:
            return self._left[0] if self._left else None

    def take_front(self) -> Key | None:
        """The next of the front; None when nothing is left."""
        with self._lock:
            return self._left.popleft() if self._left else None

    def take_end(self) -> Key | None:
        """The next of the end; None when nothing is left."""
        with self._lock:
            return self._left.pop() if self._left else None

    def put_back(self, keys: Iterable[Key]) -> None:
        """What was taken and is not done."""
        with self._lock:
            self._left.extend(keys)


class Feeder(Generic[Key, Result]):
    """Keeps a crew busy with units from the end of a list, and hands on what comes back.

    ``work()`` does so until nothing is left; ``start()`` does it in a thread, beside this process's own work on the
    front of the list. A process that is lost, or a unit that raises, ends it: what was not done is put back, ``error``
    says why, and this process goes on alone.
    """

    def __init__(
        self, crew: Crew[Key, Result], units: Units[Key], unit: Callable[..., Result],
        done: Callable[[Key, Result], None], *, ahead: int = 1,
    ) -> None:  # fmt: skip
        """``ahead`` is how many units each process has before it: more than one pays for short units alone, since at
        the end of the list the last ones wait behind each other."""
        self.error: BaseException | None = None
        self._crew, self._units, self._unit, self._done = crew, units, unit, done
        self._limit = crew.size * ahead
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin in a thread."""
        self._thread = threading.Thread(target=self.work, name="feed", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the crew has nothing in hand and nothing is left to give."""
        if self._thread is not None:
            self._thread.join()

    def work(self) -> None:
        """Give and take until nothing is left."""
        try:
            while True:
                while len(self._crew.waiting) < self._limit and (key := self._units.take_end()) is not None:
                    try:
                        self._crew.give(key, self._unit, key)
                    except BaseException:
                        self._units.put_back([key])
                        raise
                if not self._crew.waiting:
                    return
                for key, result in self._crew.take():
                    self._done(key, result)
        except BaseException as error:
            self.error = error
            self._units.put_back(self._crew.waiting)
