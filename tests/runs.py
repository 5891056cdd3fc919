"""Runs for tests: ``run(...)`` is ``rfbench run``, ``scored(...)`` is ``rfbench score --pred``, options as keywords."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from bench.predict.plan import Prepared, Request, make_plan
from bench.records.run import read_run
from bench.reports.scores import document
from bench.score import execute, foreign
from bench.score.run import Outcome
from bench.score.run import run as run_both

_SCORING = ("metrics", "workers", "strict")


def planned(**options: Any) -> Prepared:
    """The plan of a run."""
    return make_plan(Request(**{k: v for k, v in options.items() if k != "metrics"}))


def run(**options: Any) -> Outcome:
    """Predict and score; ``options`` are the fields of both requests."""
    request = Request(**{k: v for k, v in options.items() if k != "metrics"})
    shared = {k: options[k] for k in _SCORING if k in options}
    return run_both(request, execute.Request(device=request.device, weights_dir=request.weights_dir, **shared))


def scored(*, out: Path | None = None, **options: Any) -> dict[str, Any]:
    """The document of a folder of images; ``out`` keeps the run."""
    fields = {f.name for f in dataclasses.fields(foreign.Request)}
    scoring = execute.Request(**{k: v for k, v in options.items() if k not in fields or k == "strict"})
    request = foreign.Request(**{k: v for k, v in options.items() if k in fields})
    with tempfile.TemporaryDirectory() as place:
        folder = foreign.import_images(request, out or Path(place) / "run")
        outcome = execute.score([folder], dataclasses.replace(scoring, data=None))
        return document(read_run(folder), outcome.names)
