"""Answers and key put together: what each reviewer said of which system, seen from the system's side."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line
from bench.core.files import write_bytes
from bench.study.design import HR, LR, PIXELS
from bench.study.plan import ANSWERS, CLOSED, Key, Plan, Shown, Trial, read_key, read_plan
from bench.study.store import Event, Store

VALIDITY = {"valid": 1.0, "partly": 0.5, "not": 0.0}
COUNTED = ("own", "common")
"""The purposes of trials that numbers are made of; repeats and catch trials are looked at apart."""


@dataclass(frozen=True)
class Vote:
    """One answer to one question.

    Attributes
    ----------
    question : ``validity``, ``clarity``, ``parity`` or ``between``.
    system : whom it is about; empty for ``validity``; ``other`` is what it was held against (a system, HR or LR).
    steps : as it was said: -2 to 2 for clarity and between, -1 to 1 for parity, positive where ``system`` is preferred;
        0, 0.5, 1 for validity.
    share : the same as a share that chose ``system``: 0, 0.5 for a tie, 1.
    right : whether the preferred panel stood on the right; None for a tie, and where roles were named.
    """

    reviewer: str
    trial: str
    question: str
    image: str
    scene: str
    system: str
    other: str
    steps: float
    share: float
    purpose: str
    of: str
    right: bool | None


@dataclass(frozen=True)
class Study:
    """A closed study: its plan and key, the votes of the answers that count, and the events behind them."""

    plan: Plan
    key: Key
    votes: tuple[Vote, ...]
    events: tuple[Event, ...]

    def counted(self, question: str) -> list[Vote]:
        """The votes that numbers are made of."""
        return [v for v in self.votes if v.question == question and v.purpose in COUNTED]

    @property
    def systems(self) -> list[str]:
        """The systems' labels, in the order of the runs."""
        return [s.label for s in self.key.systems]


def read_study(study: Path) -> Study:
    """A closed study; RfbenchError if it is open, or its files do not belong together."""
    plan, key = read_plan(study), read_key(study)
    store = Store(study / ANSWERS, plan.sha256)
    trials = {t.id: t for of in plan.trials.values() for t in of}
    votes: list[Vote] = []
    for (reviewer, trial), event in store.answers().items():
        if trial not in trials or trial not in key.shown:
            raise RfbenchError(f"{study / ANSWERS}: an answer to a trial that is not in the plan; restore both")
        try:
            votes += votes_of(reviewer, trials[trial], key.shown[trial], event.body["answers"])
        except (KeyError, TypeError, ValueError) as error:
            raise RfbenchError(
                f"{study / ANSWERS}: an answer to {one_line(trial, 40)} is none ({type(error).__name__}: "
                f"{one_line(error, 60)}); restore it from a backup"
            ) from None
    return Study(plan, key, tuple(votes), tuple(store.events()))


def votes_of(reviewer: str, trial: Trial, shown: Shown, answers: dict[str, Any]) -> Iterable[Vote]:
    """The votes in one answer."""

    def vote(question: str, system: str, other: str, steps: float, share: float, right: bool | None) -> Vote:
        return Vote(reviewer, trial.id, question, shown.image, shown.scene, system, other, steps, share, shown.purpose,
                    shown.of, right)  # fmt: skip

    if trial.kind == "caption":
        value = VALIDITY[answers["validity"]]
        yield vote("validity", "", "", value, value, None)
        return
    if trial.kind == "paper":
        # Roles were named, so answers are about SR whichever side it stood on.
        system = next((p for p, panel in zip(shown.panels, trial.panels, strict=True) if panel.title == "SR"), HR)
        for question, other in (("clarity", LR), ("parity", HR)):
            steps = float(answers[question])
            yield vote(question, system, other, steps, _share(steps), None)
        return
    question = "parity" if trial.kind == "parity" else "clarity"
    said = float(answers[question])
    left, right = shown.panels
    # The system is the one that is no side of the image; of two systems, the left one.
    system, other, steps = (left, right, -said) if left not in (HR, LR) else (right, left, said)
    yield vote(trial.kind, system, other, steps, _share(steps), said > 0 if said else None)


def _share(steps: float) -> float:
    return 0.5 if steps == 0 else float(steps > 0)


def export(study: Path, out: Path) -> list[Path]:
    """Every answer, also corrected ones, as a row an answered question: ``answers.csv`` and ``answers.parquet``.

    While the study is open, images and systems are opaque ids alone.
    """
    import pandas as pd

    plan = read_plan(study)
    key = read_key(study) if (study / CLOSED).is_file() else None
    store = Store(study / ANSWERS, plan.sha256)
    trials = {t.id: t for of in plan.trials.values() for t in of}
    number = {t.id: n + 1 for of in plan.trials.values() for n, t in enumerate(of)}
    last = {e.id for e in store.answers().values()}
    profiles = {e.reviewer: e.body["answers"] for e in store.events(kind="profile")}
    about = ("role", "degree", "field", "years")
    rows = []
    for event in store.events(kind="answer"):
        trial, shown = trials[event.trial], key.shown[event.trial] if key else None
        for question, answer in event.body["answers"].items():
            rows.append({
                "study_sha256": plan.sha256, "design": plan.design, "reviewer": event.reviewer,
                **{f"reviewer_{k}": profiles.get(event.reviewer, {}).get(k) for k in about},
                "stage": trial.stage, "kind": trial.kind, "page": number[event.trial], "trial": event.trial,
                "shown": " ".join(event.body["shown"]), "question": question,
                "answer": answer if isinstance(answer, str) else json.dumps(answer), "counts": event.id in last,
                "at": event.at, **{f"view_{k}": event.body["view"].get(k) for k in
                                   ("zoom", "width", "height", "ratio", "elapsed_ms", "mask_ms")},
                "image": shown.image if shown else None, "scene": shown.scene if shown else None,
                "panels": " | ".join(shown.panels) if shown else None, "purpose": shown.purpose if shown else None,
                "repeat_of": shown.of if shown else None,
                "predictions_sha256": " ".join(s.pictures_sha256 for s in key.systems) if key else None,
            })  # fmt: skip
    if not rows:
        raise RfbenchError(f"{study} has no answer yet, so there is nothing to export")
    frame = pd.DataFrame(rows)
    csv, parquet = out / "answers.csv", out / "answers.parquet"
    write_bytes(csv, frame.to_csv(index=False).encode())
    write_bytes(parquet, frame.to_parquet(engine="pyarrow", index=False))
    return [csv, parquet]


def catches(study: Study) -> dict[str, tuple[int, int]]:
    """By reviewer, how many catch trials were answered as anybody would who looked, and how many there were: HR against
    itself is equal, the LR's pixels are not chosen over HR."""
    found: dict[str, tuple[int, int]] = {}
    for v in study.votes:
        if v.question == "parity" and v.purpose in ("same", "worse"):
            right = v.share == 0.5 if v.purpose == "same" else v.share == 0.0
            passed, total = found.get(v.reviewer, (0, 0))
            found[v.reviewer] = (passed + right, total + 1)
    assert all(v.other != PIXELS for v in study.votes)
    return found


def repeats(study: Study) -> dict[str, tuple[int, int]]:
    """By reviewer, how many repeats got the same preference as the first time, and how many there were."""
    first = {(v.reviewer, v.trial, v.question): v for v in study.votes}
    found: dict[str, tuple[int, int]] = {}
    for v in study.votes:
        earlier = first.get((v.reviewer, v.of, v.question)) if v.purpose == "repeat" else None
        if earlier is not None:
            mine = v.share if v.system == earlier.system else 1.0 - v.share  # of two systems, sides were swapped
            same, total = found.get(v.reviewer, (0, 0))
            found[v.reviewer] = (same + (mine == earlier.share), total + 1)
    return found
