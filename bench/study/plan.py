"""What a study is: the plan, which the server reads, and the key, which it does not.

A study's folder:

==================  ===================================================================================================
``plan.json``       questions, margin, seed and every reviewer's trials in their order: images by opaque ids alone
``key.json``        what each opaque id is: image, scene, system, purpose of a trial; hashed in the plan, read by nobody
                    before ``rfbench study close``
``secret.json``     signs invitations and sessions, makes opaque ids
``pictures/``       what is served: PNG files by opaque ids
``answers.sqlite``  what reviewers said
``closed.json``     written by ``close``: from then on no answer is taken, and the key may be read
==================  ===================================================================================================

Plan, key and secret are written once, readable by their owner alone. The plan's hash is in the answers' file; a plan
that was changed afterwards is refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from bench.core.errors import RfbenchError
from bench.core.files import digest, write_bytes, write_json
from bench.core.typed import decode_file, encode

FORMAT = 1
Design = Literal["paper", "blind"]
Kind = Literal["caption", "paper", "clarity", "parity", "between"]
PURPOSES = ("own", "common", "repeat", "same", "worse")
PLAN, KEY, SECRET, CLOSED, PICTURES, ANSWERS = (
    "plan.json", "key.json", "secret.json", "closed.json", "pictures", "answers.sqlite",
)  # fmt: skip


class Option(msgspec.Struct, frozen=True):
    """One answer of a choice: what is stored, and what is read."""

    value: str
    label: str


class Question(msgspec.Struct, frozen=True):
    """A question: ``choice`` of one option, ``parts`` (any of the caption's clauses), ``flag``, ``text``."""

    key: str
    kind: Literal["choice", "parts", "flag", "text"]
    text: str
    options: tuple[Option, ...] = ()
    required: bool = False


class Panel(msgspec.Struct, frozen=True):
    """One picture of a trial: its opaque id, and the words above it (``A``, or its role where the design names it)."""

    id: str
    title: str


class Trial(msgspec.Struct, frozen=True):
    """One page. ``kind`` says which questions; ``panels`` from left to right; ``mask`` is an overlay's id or empty."""

    id: str
    kind: Kind
    panels: tuple[Panel, ...]
    caption: str
    parts: tuple[str, ...]
    mask: str = ""

    @property
    def stage(self) -> int:
        """1 judges the caption, 2 the images."""
        return 1 if self.kind == "caption" else 2


class Plan(msgspec.Struct, frozen=True):
    """A study as it is served. ``trials`` by reviewer's pseudonym, in the order they are shown; ``profile`` are the
    questions before the first trial, ``questions`` those of each kind."""

    format: int
    title: str
    design: Design
    seed: int
    margin: tuple[float, float]
    profile: tuple[Question, ...]
    questions: dict[str, tuple[Question, ...]]
    trials: dict[str, tuple[Trial, ...]]
    key_sha256: str
    contact: str = ""
    consent: str = ""

    @property
    def sha256(self) -> str:
        """The plan's hash."""
        return digest(encode(self))


class System(msgspec.Struct, frozen=True):
    """A row of the runs: its label, the run folder's name and plan's hash, and the hash of what was shown of it."""

    label: str
    run: str
    plan_sha256: str
    pictures_sha256: str


class Shown(msgspec.Struct, frozen=True):
    """What a trial was. ``panels``: of each, a system's label, or what ``bench.study.design`` calls the image's sides;
    ``of``: the trial that a repeat repeats; ``purpose``: one of ``PURPOSES``."""

    image: str
    scene: str
    panels: tuple[str, ...]
    purpose: str
    of: str = ""


class Key(msgspec.Struct, frozen=True):
    """What was hidden: systems, and what each trial showed."""

    format: int
    data: str
    protocol: str
    systems: tuple[System, ...]
    shown: dict[str, Shown]
    nonce: str

    @property
    def sha256(self) -> str:
        """The key's hash; the nonce keeps anybody from guessing the key by trying."""
        return digest(encode(self))


class Secret(msgspec.Struct, frozen=True):
    """What signs and what makes opaque ids."""

    format: int
    secret: str


class Closed(msgspec.Struct, frozen=True):
    """When a study was closed and with how many answers."""

    format: int
    at: str
    answers: int


def write_private(path: Path, value: object) -> None:
    """JSON that its owner alone can read."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
    os.chmod(path, 0o600)  # noqa: PTH101


def read_plan(study: Path) -> Plan:
    """The plan of a study's folder; RfbenchError if there is none, or of another format."""
    if not (study / PLAN).is_file():
        raise RfbenchError(f"{study} holds no study (no {PLAN}); make one with 'rfbench study create'")
    plan = decode_file(study / PLAN, Plan, remedy="restore it")
    if plan.format != FORMAT:
        raise RfbenchError(
            f"{study / PLAN}: found format {plan.format}, expected {FORMAT}; use the version that made it"
        )
    return plan


def read_key(study: Path) -> Key:
    """The key of a closed study; RfbenchError before it is closed, or where it is not the plan's."""
    plan = read_plan(study)
    if not (study / CLOSED).is_file():
        raise RfbenchError(
            f"{study} is open, and who looks at results while answers come in may bend them; end it with "
            f"'rfbench study close {study}'"
        )
    key = decode_file(study / KEY, Key, remedy="restore it")
    if key.sha256 != plan.key_sha256:
        raise RfbenchError(f"{study / KEY} is not the key that {PLAN} was made with; restore it")
    return key


def close(study: Path, at: str, answers: int) -> None:
    """Mark a study as closed."""
    write_json(study / CLOSED, encode(Closed(FORMAT, at, answers)))


def questions(design: Design, lower: str = "slump") -> dict[str, tuple[Question, ...]]:
    """The questions of each kind of trial.

    Parameters
    ----------
    lower : what reviewers map, in the parity question.
    """
    comment = Question("comment", "text", "Anything to add? (optional)")
    captions = (
        Question("validity", "choice", "Is the caption valid for this image and its outlined feature?",
                 (Option("valid", "valid"), Option("partly", "partly"), Option("not", "not valid")), True),
        Question("parts", "parts", "Which parts are wrong?"),
        Question("unsure", "flag", "I am unsure"),
        comment,
    )  # fmt: skip
    a, b = ("LR", "SR") if design == "paper" else ("A", "B")
    clarity = Question(
        "clarity", "choice", f"Which is clearer, {a} or {b}?",
        (Option("-2", f"{a} much"), Option("-1", f"{a} a little"), Option("0", "the same"),
         Option("1", f"{b} a little"), Option("2", f"{b} much")), True,
    )  # fmt: skip
    a, b = ("HR", "SR") if design == "paper" else ("A", "B")
    parity = Question(
        "parity", "choice", f"From which would you rather map the {lower}?",
        (Option("-1", a), Option("0", "equal: I would map the same"), Option("1", b)), True,
    )  # fmt: skip
    if design == "paper":
        return {"caption": captions, "paper": (clarity, parity, comment)}
    return {
        "caption": captions,
        "clarity": (clarity, comment),
        "parity": (parity, comment),
        "between": (clarity, comment),
    }


def profile() -> tuple[Question, ...]:
    """What is asked of a reviewer before the first trial: no name."""
    return (
        Question("role", "choice", "Your role", (
            Option("scientist", "research scientist"), Option("assistant", "research assistant"),
            Option("student", "student"), Option("practitioner", "practitioner"), Option("other", "other")), True),
        Question("degree", "choice", "Your highest degree", (
            Option("doctorate", "doctorate"), Option("master", "master's"), Option("bachelor", "bachelor's"),
            Option("other", "other or none")), True),
        Question("field", "text", "Your field, such as permafrost geomorphology", (), True),
        Question("years", "choice", "Years of experience with satellite images", (
            Option("0-1", "up to 1"), Option("2-5", "2 to 5"), Option("6-10", "6 to 10"), Option("11+", "more")), True),
    )  # fmt: skip
