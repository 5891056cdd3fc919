"""The run folder: one model x protocol x dataset x seed, the only memory of a run.

=================  ====================================================================================================
``run.json``       first: the plan and all that identifies it, software and determinism flags
``host.json``      all that may differ between two equal runs: machine, paths, command line, times
``items/``         while running (and for as long as an image has failed): one JSON an image, features beside it
``predictions/``   one safetensors an image: float32 ``samples`` or ``mean`` (and ``std``), unit and bands as header,
                   ``native_...`` before a resize to the grid, ``map:NAME`` (H, W) what else a model says of each pixel
``scores.parquet`` at the end: one row an image and estimate, a column a metric, ``METRIC:reason`` where it is empty,
                   ``fact:NAME`` what else a model, or registration, says of each image
``features.safetensors``  at the end: what set metrics (FID, ECE) kept of each image, in the order of the ids
``summary.json``   last: the aggregates, with n, reasons and identities
=================  ====================================================================================================

Every file is written under another name and renamed, so it is whole or absent. An image is done when its JSON is there
and its prediction has the hash that the JSON says.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.core.errors import NotComparable, RfbenchError, one_line
from bench.core.files import (
    atomic_path,
    digest,
    is_temporary,
    read_json,
    safe_name,
    sha256,
    sweep_temporary,
    write_bytes,
    write_json,
)

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
OF_THE_SET = "one number for all images; it is in summary.json"
"""The reason beside an image in ``scores.parquet`` that has features for a metric and no number of its own."""
ROWS = ":rows"
"""Ends the name of the feature that says how many rows of another belong to each image."""
_MAX_CELLS = 2**26  # of scores.parquet: a million images of thirty metrics


@dataclass(frozen=True)
class Parts:
    """An array that is never whole in memory: ``read`` gives it in parts, one after the other along its first axis."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Iterable[np.ndarray]]


class RunFolder:
    """Reads and writes one run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # --- identity ---------------------------------------------------------------------------------------------

    @property
    def is_run(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "run.json").is_file()

    def run(self) -> dict[str, Any]:
        """``run.json``; RfbenchError if it is missing, broken or of another format."""
        found = read_json(self.path / "run.json")
        version = found.get("format") if isinstance(found, dict) else None
        if version != FORMAT or not _has(found, {"plan": dict, "plan_sha256": str, "software": dict}):
            raise RfbenchError(
                f"{self.path / 'run.json'}: found format {version!r:.40}, expected {FORMAT}; run it again"
            )
        plan = found["plan"]
        if (
            not _has(plan, {"model": dict, "protocol": dict, "data": dict, "metrics": dict})
            or not _has(plan["protocol"], {"name": str})
            or not _has(plan["data"], {"name": str, "split": str, "fingerprint": str, "ids": list})
            or not all(isinstance(i, str) for i in plan["data"]["ids"])
            or not all(_has(described, _DESCRIBED) for described in plan["metrics"].values())
        ):
            raise RfbenchError(f"{self.path / 'run.json'}: its plan is not one of format {FORMAT}; run it again")
        return found

    def summary(self) -> dict[str, Any] | None:
        """``summary.json``, or None while the run is not complete."""
        if not (self.path / "summary.json").is_file():
            return None
        found = read_json(self.path / "summary.json")
        if (
            not _has(found, {"format": int, "rows": dict, "failed": list, "images": int, "plan_sha256": str})
            or found["format"] != FORMAT
            or not all(isinstance(i, str) for i in found["failed"])
            or not all(_has(row, {"label": str, "metrics": dict}) for row in found["rows"].values())
            or not all(_is_cell(cell) for row in found["rows"].values() for cell in row["metrics"].values())
        ):
            raise RfbenchError(f"{self.path / 'summary.json'} is not a summary of format {FORMAT}; run it again")
        return found

    def start(self, run: Mapping[str, Any], session: Mapping[str, Any]) -> None:
        """Begin, or go on with, a run. Refuses a folder that holds another plan, and says what differs."""
        if self.is_run:
            theirs = self.run()
            if theirs["plan_sha256"] != run["plan_sha256"]:
                what = "; ".join(differences(theirs["plan"], dict(run["plan"]), "it has", "asked for")[:3])
                raise RfbenchError(f"{self.path} holds a run with other options ({what}); choose another --out")
        elif self.path.exists() and any(not is_temporary(p) for p in self.path.iterdir()):
            raise RfbenchError(f"{self.path} exists and holds no run; choose another --out or empty it")
        else:
            write_json(self.path / "run.json", run)
        sweep_temporary(self.path)
        write_json(self.path / "host.json", {"sessions": [*self._sessions(), dict(session)]})

    def end_session(self, facts: Mapping[str, Any]) -> None:
        """Add ``facts`` (times, counts) to the last session of ``host.json``."""
        *earlier, last = self._sessions() or [{}]
        write_json(self.path / "host.json", {"sessions": [*earlier, last | dict(facts)]})

    def _sessions(self) -> list[dict[str, Any]]:
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
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RfbenchError(f"cannot make {self.path}: {error.strerror}; choose another --out") from None
        try:
            import fcntl
        except ImportError:  # no such locks on this system; atomic writes still keep files whole
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise RfbenchError(f"another process runs in {self.path}; wait for it, or choose another --out") from None
        try:
            yield
        finally:
            os.close(handle)

    def is_intact(self, image_ids: Sequence[str]) -> bool:
        """Whether a complete run still has the scores and predictions that its summary was made of."""
        summary = self.summary() or {}
        scores, paths = self.path / "scores.parquet", [(i, self._prediction(i)) for i in image_ids]
        if _hash(scores) is None or _hash(scores) != summary.get("scores_sha256"):
            return False
        found = [[i, _hash(path)] for i, path in paths]
        return digest(found) == summary.get("predictions_sha256")

    def reopen(self) -> None:
        """Make a complete run one that is still running."""
        (self.path / "summary.json").unlink(missing_ok=True)

    # --- while running ----------------------------------------------------------------------------------------

    def write_prediction(self, image_id: str, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> str:
        """Store an image's prediction; returns its SHA-256."""
        from safetensors.numpy import save

        contiguous = {k: np.ascontiguousarray(v) for k, v in sorted(arrays.items())}
        data = save(contiguous, {"rfbench": json.dumps(dict(header), sort_keys=True)})
        write_bytes(self._prediction(image_id), data)
        return hashlib.sha256(data).hexdigest()

    def read_prediction(self, image_id: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """An image's arrays and header (``unit``, ``bands``, ``normalised``)."""
        from safetensors import safe_open

        path = self._prediction(image_id)
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["rfbench"])
                return {k: file.get_tensor(k) for k in file.keys()}, header  # noqa: SIM118 (no iterator)
        except Exception as error:  # safetensors, JSON and numpy each have errors of their own
            raise RfbenchError(
                f"{path} is no readable prediction: {one_line(error, 100)}; run the same command"
            ) from None

    def write_item(self, item: Mapping[str, Any], features: Mapping[str, np.ndarray]) -> None:
        """Commit an image: its features first, its row last."""
        stem = safe_name(str(item["id"]))
        if features:
            from safetensors.numpy import save

            contiguous = {k: np.ascontiguousarray(v) for k, v in sorted(features.items())}
            write_bytes(self.path / "items" / f"{stem}.safetensors", save(contiguous))
        write_json(self.path / "items" / f"{stem}.json", item)

    def item(self, image_id: str) -> dict[str, Any] | None:
        """The committed row of an image, or None; a broken one counts as absent."""
        path = self.path / "items" / f"{safe_name(image_id)}.json"
        try:
            found = read_json(path)
        except RfbenchError:
            return None
        return found if _has(found, {"id": str, "scores": dict}) and found["id"] == image_id else None

    def committed(self, image_id: str) -> dict[str, Any]:
        """The committed row of an image; RfbenchError if it is gone."""
        found = self.item(image_id)
        if found is None:
            raise RfbenchError(f"{self.path}: the row of '{image_id}' is gone from items/; run the same command again")
        return found

    def is_done(self, image_id: str) -> bool:
        """Whether an image is committed without an error and its prediction is the one that was scored."""
        item = self.item(image_id)
        if item is None or item.get("error"):
            return False
        found = _hash(self._prediction(image_id))
        return found is not None and found == item.get("prediction_sha256")

    def item_features(self, image_id: str) -> dict[str, np.ndarray]:
        """The features that were kept of an image."""
        from safetensors.numpy import load_file

        path = self.path / "items" / f"{safe_name(image_id)}.safetensors"
        try:
            return load_file(path) if path.is_file() else {}
        except Exception as error:  # as in read_prediction
            raise RfbenchError(
                f"{path} cannot be read: {one_line(error, 100)}; remove {path.with_suffix('.json').name} beside it, "
                "then run the same command again"
            ) from None

    def _prediction(self, image_id: str) -> Path:
        return self.path / "predictions" / f"{safe_name(image_id)}.safetensors"

    # --- at the end -------------------------------------------------------------------------------------------

    def write_scores(self, rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> str:
        """Write ``scores.parquet``; returns its SHA-256."""
        import pandas as pd

        buffer = io.BytesIO()
        frame = pd.DataFrame(list(rows), columns=list(columns))
        frame.to_parquet(buffer, engine="pyarrow", index=False)
        write_bytes(self.path / "scores.parquet", buffer.getvalue())
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    def scores(self) -> pd.DataFrame:
        """``scores.parquet`` as a frame."""
        import pandas as pd
        import pyarrow.parquet as pq

        path = self.path / "scores.parquet"
        try:
            if not path.is_file():  # of a folder, all that is in it would be read
                raise ValueError("it is no file")
            with path.open("rb") as file:
                claims = pq.read_metadata(file)
                if claims.num_rows * claims.num_columns > _MAX_CELLS:
                    raise ValueError(f"it claims {claims.num_rows} rows")
                file.seek(0)
                return pd.read_parquet(file, engine="pyarrow")
        except Exception as error:  # pyarrow and pandas have errors of their own
            raise RfbenchError(f"{path} cannot be read: {one_line(error, 100)}; run the same command again") from None

    def features(self, kind: str, metric: str) -> list[dict[str, np.ndarray]]:
        """What a set metric kept of each image that it has features of, in the order of the ids; empty without any.

        Parameters
        ----------
        kind : the estimate, ``sample`` or ``mean``.
        """
        from safetensors import safe_open

        path, prefix = self.path / "features.safetensors", f"{kind}/{metric}/"
        if not path.is_file():
            return []
        try:
            with safe_open(path, framework="numpy") as file:
                found = {k.removeprefix(prefix): file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}  # noqa: SIM118
            # Blocks of images of several sizes lie one after the other, with how many rows each has.
            rows = {k.removesuffix(ROWS): np.cumsum(v)[:-1] for k, v in found.items() if k.endswith(ROWS)}
            parts = {
                k: np.split(v, rows[k]) if k in rows else list(v) for k, v in found.items() if not k.endswith(ROWS)
            }
            return [dict(zip(parts, images, strict=True)) for images in zip(*parts.values(), strict=True)]
        except Exception as error:  # as in read_prediction
            raise RfbenchError(f"{path} cannot be read: {one_line(error, 100)}; run the same command again") from None

    def finish(self, summary: Mapping[str, Any], features: Mapping[str, np.ndarray | Parts]) -> None:
        """Write features and summary, then drop the items (kept while an image has failed, to be tried again)."""
        path = self.path / "features.safetensors"
        if features:
            _write_tensors(path, features)
        else:
            path.unlink(missing_ok=True)
        write_json(self.path / "summary.json", summary)
        self.tidy()

    def tidy(self) -> None:
        """Drop the items of a complete run, also where a kill came between its summary and their removal."""
        summary = self.summary()
        if summary is not None and not summary["failed"]:
            shutil.rmtree(self.path / "items", ignore_errors=True)


def _write_tensors(path: Path, arrays: Mapping[str, np.ndarray | Parts]) -> None:
    """Write a safetensors file atomically, a part at a time.

    The format: eight bytes with the length of the header, the header in JSON (type, shape and place of each array), the
    arrays one after the other. Wider types come first, so that each array lies at a multiple of its item's size.
    """
    order = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header, end = {}, 0
    for name, array in order:
        start, end = end, end + math.prod(array.shape) * array.dtype.itemsize
        kind = f"{array.dtype.kind.upper()}{8 * array.dtype.itemsize}" if array.dtype.kind != "b" else "BOOL"
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in order:
            for part in array.read() if isinstance(array, Parts) else (array,):
                file.write(np.ascontiguousarray(part, array.dtype.newbyteorder("<")).tobytes())


def _hash(path: Path) -> str | None:
    """The SHA-256 of a file; None for one that is not there or cannot be read, which has to be made again."""
    try:
        return sha256(path) if path.is_file() else None
    except OSError:
        return None


_DESCRIBED = dict.fromkeys(("identity", "title", "unit", "direction", "group"), str)


def _is_cell(value: Any) -> bool:
    """Whether a JSON value is what a summary says of a metric: a number of images and a score, or a reason."""
    number = value.get("value") if isinstance(value, dict) else None
    return _has(value, {"n": int, "identity": str}) and (number is None or isinstance(number, int | float))


def _has(value: Any, keys: Mapping[str, type]) -> bool:
    """Whether a JSON value is an object with these keys of these types."""
    return isinstance(value, dict) and all(isinstance(value.get(k), t) for k, t in keys.items())


@dataclass(frozen=True)
class FinishedRun:
    """What tables and citations read of a run: the documents ``run.json`` and ``summary.json``."""

    folder: RunFolder
    record: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan in ``run.json``."""
        plan: Mapping[str, Any] = self.record["plan"]
        return plan


def read_finished(folder: RunFolder) -> FinishedRun:
    """The documents of a run; RfbenchError if it is not finished."""
    record, summary = folder.run(), folder.summary()
    if summary is None or not summary["rows"]:
        raise RfbenchError(
            f"{folder.path}: found no summary.json, expected a finished run; run the same command again to finish it "
            f"({one_line(record.get('command', 'rfbench run ...'), 160)}), or leave the run out"
        )
    return FinishedRun(folder, record, summary)


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """The run folders among ``paths`` and one level below each; RfbenchError for a path that holds none."""
    found: list[RunFolder] = []
    for path in paths:
        inside = [path] if RunFolder(path).is_run else sorted(p.parent for p in path.glob("*/run.json"))
        if not inside:
            raise RfbenchError(f"{path} holds no run (no run.json in it or one level below); give a folder made by run")
        found += [RunFolder(p) for p in inside if p.resolve() not in {f.path.resolve() for f in found}]
    return found


def differences(a: Any, b: Any, name_a: str, name_b: str, where: str = "") -> list[str]:
    """What differs between two plans, one short line each, for messages."""
    if isinstance(a, dict) and isinstance(b, dict):
        lines = []
        for key in sorted({*a, *b}):
            inner = f"{where}.{key}" if where else str(key)
            lines += differences(a.get(key), b.get(key), name_a, name_b, inner)
        return lines
    if a == b:
        return []
    return [f"{where}: {name_a} {one_line(json.dumps(a), 60)}, {name_b} {one_line(json.dumps(b), 60)}"]


def plan_digest(plan: Mapping[str, Any]) -> str:
    """The hash that names a plan."""
    return digest(plan)


def refuse_to_mix(
    a: Mapping[str, Any], b: Mapping[str, Any], name_a: str, name_b: str,
    verdict: str = "these runs cannot stand in one table", advice: str = "make a table of each",
    same_policy: bool = True,
) -> None:  # fmt: skip
    """Raise NotComparable unless two plans may stand in one table: same data, protocol, seed-independent settings and
    identities of the metrics they share.

    Without ``same_policy`` protocols may differ in ``policy`` alone: how the answer of a model of another scale comes
    to the grid belongs to the row, as the model's own options do; what is asked and compared is the same.
    """
    a, b = ({**plan, "protocol": {**plan["protocol"], "policy": None}} if not same_policy else plan for plan in (a, b))
    parts = []
    for key in ("protocol", "data"):
        parts += differences(a[key], b[key], name_a, name_b, key)
    for metric in sorted(a["metrics"].keys() & b["metrics"].keys()):
        first, second = a["metrics"][metric]["identity"], b["metrics"][metric]["identity"]
        parts += differences(first, second, name_a, name_b, f"metric {metric}")
    if parts:
        raise NotComparable(f"{verdict}: {'; '.join(parts[:3])}; {advice}")
