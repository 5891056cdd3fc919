"""Small studies for tests: two scored runs of small pictures, a served study, answers as a browser would send them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.typed import decode_file
from bench.records.folder import RunFolder
from bench.records.run import find_runs
from bench.study.create import Wanted, create
from bench.study.design import HR, LR, PIXELS, Sizes
from bench.study.plan import Design, Key
from tests.commands import Started, start
from tests.conftest import write_dataset, write_rows
from tests.runs import run

SMALL = Sizes(reviewers=3, each=4, common=2, repeats=1, catches=2, between=2, ratings=0)
WAIT_S = 60
PROFILE = {"role": "scientist", "degree": "doctorate", "field": "permafrost", "years": "6-10"}


def two_runs(root: Path, count: int = 8) -> list[RunFolder]:
    """Runs of ``nearest`` and ``bicubic`` on ``count`` scenes of 60x80 px with masks and captions."""
    import csv

    data = write_dataset(root / "data", count=count)
    (data / "mask").mkdir()
    with (data / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        mask = np.zeros((60, 80), np.uint8)
        mask[10 + i : 30 + i, 20:50] = 255
        np.save(data / f"mask/im{i}.npy", mask)
        row |= {"mask": f"mask/im{i}.npy", "scene_id": f"s{i}", "caption": f"A pale slump, above the <b>lake</b> {i}."}
    write_rows(data, rows)
    models, metrics = ("nearest", "bicubic"), ("psnr_rgb", "de00")
    assert not run(models=models, data=str(data), metrics=metrics, workers=0, out=root / "runs").failed
    return find_runs([root / "runs"])


def small_study(root: Path, runs: list[RunFolder], design: Design = "blind", sizes: Sizes = SMALL, **more: Any) -> Path:
    """A study of these runs in ``root/design``."""
    create(root / design, Wanted(runs, design, sizes, 7, **more))
    return root / design


@contextmanager
def served(study: Path, port: int = 0) -> Iterator[tuple[Started, str]]:
    """``rfbench study serve`` as a process, and its address; it is killed at the end."""
    process = start("study", "serve", str(study), "--port", str(port), env={"OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + WAIT_S
        while not (address := re.search(r"http://[0-9.:]+[0-9]", process.stderr)):
            assert process.poll() is None and time.monotonic() < deadline, process.stderr
            time.sleep(0.02)
        yield process, address[0]
    finally:
        process.kill()
        process.wait()


class Reviewer:
    """Answers through the application's test client as the page does, without a browser."""

    def __init__(self, app: Any, invitation: str) -> None:
        self.client = app.test_client()
        self.client.get(invitation)
        self.sent = 0

    def state(self, number: int | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/api/state" + (f"?n={number}" if number else "")).json
        return found

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.client.post(path, json=body, headers={"X-CSRF-Token": self.state()["csrf"]} | headers)

    def begin(self, profile: dict[str, str] = PROFILE) -> None:
        assert self.post("/api/profile", {"submission": self._next(), "answers": profile}).status_code == 200

    def body(self, state: dict[str, Any], answers: dict[str, Any], **other: Any) -> dict[str, Any]:
        return {
            "submission": self._next(), "trial": state["trial"], "known": state["known"], "answers": answers,
            "shown": [p["id"] for p in state["panels"]], "view": {"zoom": 2, "elapsed_ms": 1500},
        } | other  # fmt: skip

    def sit(self, answer: Callable[[dict[str, Any]], dict[str, Any]], pages: int | None = None) -> int:
        """Answer pages until the end, or so many; returns how many."""
        done = 0
        while (state := self.state())["step"] == "trial" and (pages is None or done < pages):
            response = self.post("/api/answer", self.body(state, answer(state)))
            assert response.status_code == 200, response.json
            done += 1
        return done

    def _next(self) -> str:
        self.sent += 1
        return f"submission-{id(self)}-{self.sent}"


def any_answer(state: dict[str, Any]) -> dict[str, Any]:
    """Answers that fit the questions, the first of each choice."""
    return {q["key"]: q["options"][0]["value"] for q in state["questions"] if q["kind"] == "choice"}


def keyed_answer(study: Path, opinion: Callable[[str, str, str], float]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Answers of somebody who knows the key (tests alone do).

    Parameters
    ----------
    opinion : of (question, left, right), the preference for the right one in [-2, 2]; both as the key names them.
    """
    key = decode_file(study / "key.json", Key)

    def answer(state: dict[str, Any]) -> dict[str, Any]:
        shown = key.shown[state["trial"]]
        if state["kind"] == "caption":
            return {"validity": "valid"}
        if state["kind"] == "paper":
            titles = [p["title"] for p in state["panels"]]
            system = shown.panels[titles.index("SR")]
            clarity, parity = opinion("clarity", LR, system), opinion("parity", HR, system)
            return {"clarity": str(round(clarity)), "parity": str(int(np.sign(parity)))}
        question = "parity" if state["kind"] == "parity" else "clarity"
        said = opinion(question, *shown.panels)
        return {question: str(int(np.sign(said)) if question == "parity" else round(said))}

    return answer


def quality(values: dict[str, float]) -> Callable[[str, str, str], float]:
    """An opinion by one number a system; HR has 2, LR and its pixels 0."""
    known = {HR: 2.0, LR: 0.0, PIXELS: 0.0} | values
    return lambda question, left, right: float(np.clip(known[right] - known[left], -2, 2))
