"""What once broke stays repaired, and some fresh damage of every kind; ``python -m tests.fuzz`` does it by thousands.

Each input of ``tests/fuzz/corpus`` was a traceback, a hang, a wild demand for memory or a message of several lines.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.core import provenance
from tests.fuzz import guard, targets
from tests.fuzz.__main__ import plan
from tests.fuzz.case import Case, Link
from tests.fuzz.observe import import_all, observe

CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").glob("*.json"))
FRESH = 120


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No weights of this machine, no network, and no other program asked while an input is looked at."""
    import_all()
    patch = pytest.MonkeyPatch()
    home = str(tmp_path_factory.mktemp("home"))
    for name in ("HOME", "RFBENCH_WEIGHTS"):
        patch.setenv(name, home)
    software, machine = provenance.software(), provenance.machine("cpu")
    patch.setattr(provenance, "software", lambda also=(): software)
    patch.setattr(provenance, "machine", lambda device: machine)
    yield
    patch.undo()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_once_broke_is_repaired(path: Path) -> None:
    found = observe(Case.from_json(path.read_text(encoding="ascii")))
    assert not found.is_finding, f"{found.outcome}: {found.detail}"


def test_fresh_inputs_of_every_kind_are_accepted_or_refused_in_one_line() -> None:
    outcomes: dict[str, Counter[str]] = {}
    for name, number in plan(FRESH, None):
        found = observe(targets.make(name, 7, number))
        assert not found.is_finding, f"{name} {number}: {found.outcome}: {found.detail}"
        outcomes.setdefault(name, Counter())[found.outcome] += 1
    assert outcomes.keys() == targets.TARGETS.keys()
    every = sum(outcomes.values(), Counter())
    assert every["ok"] > FRESH / 10 and every["refused"] > FRESH / 10  # damage, but not rubble


@pytest.mark.parametrize(
    ("target", "seed", "args"),
    [
        ("dataset", "dataset", {"protocol": "paired"}),
        ("validate", "dataset", {}),
        ("table", "run", {"metrics": None}),
        ("cite", "run", {"metrics": None}),
        ("score", "pictures", {}),
        ("weights", "weights", {}),
        ("plan", "dataset", {"models": ["bicubic"], "protocol": "paired", "metrics": None}),
        ("command", "dataset", {"words": ["validate", "IN"]}),
    ],
)
def test_seeds_are_accepted_before_they_are_damaged(target: str, seed: str, args: dict[str, object]) -> None:
    assert observe(Case(target, seed, {}, args)).outcome == "ok"


# --- the guard itself -------------------------------------------------------------------------------------------


def look(monkeypatch: pytest.MonkeyPatch, run: targets.Run, most_bytes: int = guard.RESIDENT_BYTES) -> str:
    """What is found of a target that misbehaves."""
    monkeypatch.setitem(targets.TARGETS, "bad", targets.Target(1, lambda rng: Case("bad"), run))
    return observe(Case("bad", files={"x": b"x"}), most_bytes).outcome


def test_the_guard_sees_what_must_not_happen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import subprocess
    import time

    import numpy as np

    from bench.core.errors import RfbenchError

    def swallowed(folder: Path, out: Path, args: object) -> list[str]:
        with contextlib.suppress(BaseException):
            (tmp_path / "elsewhere").write_text("x")
        return []

    def obedient(folder: Path, out: Path, args: object) -> list[str]:
        (out / "y").write_text("x")
        return []

    def refuse_for_memory(folder: Path, out: Path, args: object) -> list[str]:
        try:
            raise MemoryError
        except MemoryError as error:
            raise RfbenchError("too much") from error

    monkeypatch.setattr(guard, "SECONDS", 0.2)
    assert look(monkeypatch, obedient) == "ok"
    assert look(monkeypatch, swallowed) == "forbidden" and not (tmp_path / "elsewhere").exists()
    assert look(monkeypatch, lambda folder, out, args: (folder / "x").unlink() or []) == "forbidden"
    assert look(monkeypatch, lambda folder, out, args: [subprocess.run(["true"], check=True) and ""]) == "forbidden"
    assert look(monkeypatch, lambda folder, out, args: [time.sleep(5) or ""]) == "hang"
    assert look(monkeypatch, lambda folder, out, args: ["two\nlines"]) == "message"
    assert look(monkeypatch, lambda folder, out, args: [1 / 0]) == "traceback"
    assert look(monkeypatch, refuse_for_memory) == "memory"
    eats = look(monkeypatch, lambda folder, out, args: [str(np.ones(10**7).sum())], most_bytes=10**6)
    assert eats == "memory"


def test_inputs_are_the_same_every_time_and_come_back_from_their_files() -> None:
    for name in targets.TARGETS:
        for number in range(5):
            case = targets.make(name, 3, number)
            assert case == targets.make(name, 3, number)
            assert Case.from_json(case.to_json()) == case
    linked = Case("dataset", "dataset", {"a": Link("/x"), "b": None, "c": b"\xff", "d": b"text"})
    assert Case.from_json(linked.to_json()) == linked
