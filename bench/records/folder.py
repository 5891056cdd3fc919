"""The run folder: one model x protocol x dataset x seed, the only memory of a run.

=====================  ================================================================================================
``run.json``           first: the plan, which is the key of the predictions, and what it was begun with (``RunRecord``)
``host.json``          all that may differ between two equal runs: machine, paths, command lines, times, tracebacks
``predictions/``       one safetensors an image: float32 ``samples`` or ``mean`` (and ``std``), unit and bands as
                       header, ``native_...`` before a resize to the grid, ``map:NAME`` (H, W) what else a model says
``items/``             while predicting: one JSON an image (``ItemRecord``)
``images.parquet``     once all images were predicted: the same as one table
``scoring/``           while scoring: one JSON an image, with the features that metrics of the set keep
``scores/NAME.HASH/``  one folder a metric identity: ``metric.json`` (``MetricScores``, written last),
                       ``scores.parquet`` with a row for each image and estimate, ``features.safetensors`` of a metric
                       of the set
``summary.json``       last: all numbers, with n, reasons and identities (``Summary``)
=====================  ================================================================================================

Every file is written under another name and renamed, so it is whole or absent. Predicting and scoring are two stages
with a key each: a metric is added without touching a prediction, and ends in the same bytes as if it had been asked for
at once. Folders of format 1 (one stage, ``scores.parquet`` and ``features.safetensors`` in the folder itself) are read.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.core.claims import read_frame
from bench.core.errors import RfbenchError
from bench.core.files import is_temporary, read_json, sweep_temporary, write_json
from bench.core.lock import lock
from bench.core.typed import decode, encode
from bench.records import format1
from bench.records.predictions import Predictions
from bench.records.scores import OF_THE_SET, MetricFolder, Scores, read_features
from bench.records.types import FORMAT, ItemRecord, RunRecord, Summary

if TYPE_CHECKING:
    import pandas as pd

FACT = "fact:"
"""What the columns of facts begin with: what a model, or a metric, says of an image beside its scores."""
REASON = ":reason"
_AGAIN = "run it again"


class RunFolder:
    """Reads and writes one run folder.

    Attributes
    ----------
    predictions, scored : the two stages' files (``Predictions``, ``Scores``).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.predictions = Predictions(path)
        self.scored = Scores(path)

    # --- what it is -------------------------------------------------------------------------------------------

    @property
    def is_run(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "run.json").is_file()

    @property
    def is_half_made(self) -> bool:
        """Whether its ``run.json`` is no JSON, as a disk may leave it: which run this was, nobody can say."""
        return _is_cut(self.path / "run.json", lambda: read_json(self.path / "run.json"))

    def record(self) -> RunRecord:
        """``run.json``; RfbenchError if it is missing, broken or of an unknown format."""
        return decode(self._run_json(), RunRecord, self.path / "run.json", remedy=_AGAIN)

    def summary(self) -> Summary | None:
        """``summary.json``, or None while the run is not finished."""
        path = self.path / "summary.json"
        if not path.is_file():
            return None
        found = read_json(path)
        if _format_of(found) == format1.FORMAT:
            found = _converted(path, lambda: format1.summary_json(found, read_json(self.path / "run.json")))
        elif _format_of(found) != FORMAT:
            raise RfbenchError(f"{path}: found format {_format_of(found)!r:.40}, expected {FORMAT}; {_AGAIN}")
        return decode(found, Summary, path, remedy=_AGAIN)

    def _run_json(self) -> Any:
        path = self.path / "run.json"
        found = read_json(path)
        if _format_of(found) == format1.FORMAT:
            return _converted(path, lambda: format1.run_json(found))
        if _format_of(found) != FORMAT:
            raise RfbenchError(f"{path}: found format {_format_of(found)!r:.40}, expected {FORMAT}; {_AGAIN}")
        return found

    @property
    def is_format1(self) -> bool:
        """Whether an earlier version wrote it, with one key for predictions and scores."""
        return _format_of(read_json(self.path / "run.json")) == format1.FORMAT

    # --- its beginning ----------------------------------------------------------------------------------------

    def start(self, record: RunRecord) -> None:
        """Begin a run in an empty folder, or go on in one with the same plan; RfbenchError for any other folder."""
        if not self.is_run:
            if self.path.exists() and any(not is_temporary(p) for p in self.path.iterdir()):
                raise RfbenchError(f"{self.path} exists and holds no run; choose another --out or empty it")
            write_json(self.path / "run.json", encode(record))
        sweep_temporary(self.path)
        # What is derived and was cut is as if it were not there: it is made again.
        for path, look in (
            (self.path / "summary.json", self.summary),
            (self.predictions.table_path, self.predictions.table),
        ):
            if path.is_file() and _is_cut(path, look):
                path.unlink()

    def rewrite(self, record: RunRecord) -> None:
        """Write ``run.json`` again: with what was found on the way, never with another plan."""
        write_json(self.path / "run.json", encode(record))

    def begin_session(self, session: Mapping[str, Any]) -> None:
        """Add a session to ``host.json``."""
        write_json(self.path / "host.json", {"sessions": [*self.sessions(), dict(session)]})

    def end_session(self, facts: Mapping[str, Any]) -> None:
        """Add ``facts`` (times, counts) to the last session of ``host.json``."""
        *earlier, last = self.sessions() or [{}]
        write_json(self.path / "host.json", {"sessions": [*earlier, last | dict(facts)]})

    def sessions(self) -> list[dict[str, Any]]:
        """The sessions of ``host.json``; none if it is broken, for no number depends on it."""
        try:
            found = read_json(self.path / "host.json")
        except RfbenchError:
            return []
        sessions = found.get("sessions") if isinstance(found, dict) else None
        return [s for s in sessions if isinstance(s, dict)] if isinstance(sessions, list) else []

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the folder; RfbenchError at once if one is in it."""
        remedy = "wait for it, or choose another --out"
        with lock(self.path, "runs", remedy=remedy, elsewhere="choose another --out"):
            yield

    def set_aside(self) -> Path:
        """Move the folder to ``superseded/NAME-KEY`` beside it, where it is no run of its neighbours any more."""
        key = "unknown" if self.is_half_made else self.record().plan_sha256[:10]
        target = self.path.parent / SUPERSEDED / f"{self.path.name}-{key}"
        number = 2
        while target.exists():
            target, number = target.with_name(f"{self.path.name}-{key}-{number}"), number + 1
        with self.lock():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path.replace(target)
        return target

    # --- what it holds ----------------------------------------------------------------------------------------

    def images(self) -> dict[str, ItemRecord]:
        """All images of a finished run, in the order of its plan."""
        if self.is_format1:
            return _items_of_format1(self.scores())
        return self.predictions.table()

    def scores(self) -> pd.DataFrame:
        """All scores as one frame: a row for each image and estimate.

        Columns: ``id``, ``scene_id``, ``estimate``, ``height_px``, ``width_px``, ``error``, ``notes``,
        ``normalisation`` (JSON), ``prediction_sha256``; for each metric its name (float64, NaN without a number) and
        ``NAME:reason`` (why); ``fact:NAME`` for what else was said of an image.
        """
        if self.is_format1:
            return read_frame(self.path / "scores.parquet")
        import pandas as pd

        summary = self.summary()
        metrics = {} if summary is None else {name: self.metric(name) for name in summary.metrics}
        kinds = ["sample"] if summary is None else sorted(summary.rows, key=lambda kind: (kind != "sample", kind))
        tables = {name: folder.by_image() if folder else {} for name, folder in metrics.items()}
        facts = {name: folder.facts() if folder else {} for name, folder in metrics.items()}
        missing = {} if summary is None else {
            name: (summary.rows[kinds[0]].metrics[name].reason if kinds[0] in summary.rows else None)
            for name in metrics
        }  # fmt: skip
        rows = []
        for item in self.predictions.table().values():
            for kind in kinds if not item.error else kinds[:1]:
                height, width = item.size_px or (None, None)
                notes = list(item.notes)
                scores: dict[str, Any] = {}
                said = {FACT + k: v for k, v in item.facts.items()}
                for name, table in tables.items():
                    found = table.get((item.id, kind))
                    value = found.value if found is not None else None
                    why = "no score" if item.error else str(missing[name]) if found is None and missing[name] else None
                    why = why or (str(found.reason) if found is not None and found.reason else OF_THE_SET)
                    scores[name] = math.nan if value is None else value
                    scores[name + REASON] = why if value is None else None
                    # Notes are of draw 0: the mean of the draws is no image of its own.
                    noted = table.get((item.id, "sample"))
                    notes += [f"{name}: {noted.note}"] if noted is not None and noted.note else []
                    said |= {FACT + k: v for k, v in facts[name].get((item.id, kind), {}).items()}
                rows.append(
                    {
                        "id": item.id,
                        "scene_id": item.scene_id,
                        "estimate": kind,
                        "height_px": height,
                        "width_px": width,
                        "error": item.error,
                        "notes": "; ".join(notes) or None,
                        "normalisation": json.dumps(item.normalisation, sort_keys=True),
                        "prediction_sha256": item.prediction_sha256,
                    }
                    | scores
                    | said
                )
        frame = pd.DataFrame(rows)
        named = sorted(c for c in frame.columns if c.startswith(FACT))
        return frame[[c for c in frame.columns if not c.startswith(FACT)] + named]

    def metric(self, name: str) -> MetricFolder | None:
        """The files of the metric as ``summary.json`` shows it; None where it was not computed."""
        summary = self.summary()
        if summary is None or name not in summary.metrics:
            return None
        found = self.scored.metric(summary.metrics[name].identity, name)
        return found if found.is_complete else None

    def features(self, kind: str, metric: str) -> list[dict[str, np.ndarray]]:
        """What a metric of the set kept of each image that it has features of, in the order of the ids; empty without
        any.

        Parameters
        ----------
        kind : the estimate, ``sample`` or ``mean``.
        """
        if self.is_format1:
            return read_features(self.path / "features.safetensors", f"{kind}/{metric}/")
        found = self.metric(metric)
        return read_features(found.path / "features.safetensors", f"{kind}/") if found else []

    def is_intact(self) -> bool:
        """Whether a finished run still has the predictions and scores that its summary was made of."""
        summary = self.summary()
        if summary is None or self.predictions.digest(verify=True) != summary.predictions_sha256:
            return False
        return all(self.scored.metric(m.identity, m.name).is_intact(summary.scores.get(m.name))
                   for m in summary.metrics.values())  # fmt: skip

    # --- its end ----------------------------------------------------------------------------------------------

    def finish(self, summary: Summary) -> None:
        """Write ``summary.json``, then drop what was kept for going on."""
        write_json(self.path / "summary.json", encode(summary))
        self.tidy()

    def tidy(self) -> None:
        """Drop what a finished stage kept for going on, also where a kill came before it was dropped."""
        if self.predictions.is_complete:
            shutil.rmtree(self.path / "items", ignore_errors=True)
        if (self.path / "summary.json").is_file():
            shutil.rmtree(self.path / "scoring", ignore_errors=True)


SUPERSEDED = "superseded"
"""The folder beside run folders that takes those of another version of a model's code."""


def _is_cut(path: Path, look: Callable[[], object]) -> bool:
    """Whether a file can be read, but what it holds cannot. One that this user may not open, or that a disk does not
    give just now, may be whole: it is never given up, and the complaint about it is for whoever needs it."""
    try:
        look()
    except RfbenchError:
        try:
            path.read_bytes()
        except OSError:
            return False
        return True
    return False


def _format_of(found: Any) -> Any:
    return found.get("format") if isinstance(found, dict) else None


def _converted(path: Path, convert: Any) -> Any:
    """A file of format 1 as today's; one line for one that only says that it is of format 1."""
    try:
        return convert()
    except (LookupError, TypeError, AttributeError, ValueError):
        raise RfbenchError(f"{path}: it is not a file of format {format1.FORMAT} as it claims; {_AGAIN}") from None


def _items_of_format1(frame: pd.DataFrame) -> dict[str, ItemRecord]:
    """The images of a run of format 1, as far as its table has them."""
    columns = ("id", "scene_id", "error", "prediction_sha256")
    first = frame.drop_duplicates("id")
    named = {c: first[c] if c in first else [None] * len(first) for c in columns}
    return {
        str(i): ItemRecord(
            id=str(i),
            scene_id=str(scene),
            error=error if isinstance(error, str) else None,
            prediction_sha256=hashed if isinstance(hashed, str) else None,
        )
        for i, scene, error, hashed in zip(*named.values(), strict=True)
    }
