"""The second stage of a run folder: scores, one folder for each identity of a metric, added to at any time.

While images are scored, what was found of each is committed to ``scoring/`` under the identity that found it, so that
an interruption loses at most the image in hand, and a metric that was asked for later is added to what is there.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.core.claims import look_at_tensors, read_frame
from bench.core.errors import RfbenchError, one_line
from bench.core.files import atomic_path, digest, read_json, safe_name, sha256, write_bytes, write_json
from bench.core.reason import Reason
from bench.core.typed import decode, encode
from bench.records.parquet import write_table
from bench.records.predictions import hash_of
from bench.records.types import MetricScores, ScoreRecord

OF_THE_SET = "one number for all images; it is in summary.json"
"""The reason beside an image that has features for a metric and no number of its own."""
ROWS = ":rows"
"""Ends the name of the feature that says how many rows of another belong to each image."""

_COLUMNS = {
    "id": "text", "estimate": "text", "value": "number", "kind": "text", "reason": "text", "remedy": "text",
    "note": "text", "facts": "text", "prediction_sha256": "text",
}  # fmt: skip


class ImageScores(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of one image while a run is scored: ``scoring/ID.json``.

    Attributes
    ----------
    prediction_sha256 : the prediction that was scored; a record of another one counts as absent.
    scores : by identity of the metric and estimate. A metric of the set has an entry without value and reason where
        its features were kept.
    facts : what a metric found of an estimate beside its score, by identity, estimate and name.
    """

    id: str
    prediction_sha256: str
    scores: dict[str, dict[str, ScoreRecord]] = {}
    facts: dict[str, dict[str, dict[str, float]]] = {}


@dataclass(frozen=True)
class Parts:
    """An array that is never whole in memory: ``read`` gives it in parts, one after the other along its first axis."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Iterable[np.ndarray]]


class Scores:
    """Reads and writes ``scoring/`` and ``scores/`` of a run folder."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def image(self, image_id: str, prediction_sha256: str) -> ImageScores:
        """What was committed of an image's present prediction; empty where there is nothing, or it is broken."""
        path = self._image_path(image_id)
        empty = ImageScores(id=image_id, prediction_sha256=prediction_sha256)
        if not path.is_file():
            return empty
        try:
            found = decode(read_json(path), ImageScores, path)
        except RfbenchError:
            return empty
        return found if (found.id, found.prediction_sha256) == (image_id, prediction_sha256) else empty

    def commit(self, image: ImageScores, features: Mapping[str, np.ndarray]) -> None:
        """Add to what is known of an image: features first (``IDENTITY/KIND/KEY``), its record last."""
        if features:
            from safetensors.numpy import save

            kept = dict(features)
            if self._image_path(image.id).is_file():  # of metrics that were scored earlier
                kept = self.image_features(image.id) | kept
            contiguous = {k: np.ascontiguousarray(v) for k, v in sorted(kept.items())}
            write_bytes(self._image_path(image.id).with_suffix(".safetensors"), save(contiguous))
        write_json(self._image_path(image.id), encode(image))

    def image_features(self, image_id: str) -> dict[str, np.ndarray]:
        """The features that were kept of an image, by ``IDENTITY/KIND/KEY``."""
        from safetensors.numpy import load_file

        path = self._image_path(image_id).with_suffix(".safetensors")
        try:
            if not path.is_file():
                return {}
            look_at_tensors(path)
            return load_file(path)
        except Exception as error:  # safetensors has errors of its own
            raise RfbenchError(
                f"{path} cannot be read: {one_line(error, 100)}; remove {path.with_suffix('.json').name} beside it, "
                "then run the same command again"
            ) from None

    def metric(self, identity: str, name: str) -> MetricFolder:
        """The folder of a metric with this identity (as it is before anything was fitted)."""
        return MetricFolder(self.run / "scores" / f"{safe_name(name)}.{digest(unfitted(identity))[:8]}")

    def _image_path(self, image_id: str) -> Path:
        return self.run / "scoring" / f"{safe_name(image_id)}.json"


def unfitted(identity: str) -> str:
    """An identity without the hash of what was fitted on a set's references, which is known only at the end."""
    return "|".join(part for part in identity.split("|") if not part.startswith("fit:"))


class MetricFolder:
    """One metric of a run: ``scores/NAME.HASH/``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_complete(self) -> bool:
        """Whether it was written to its end."""
        return (self.path / "metric.json").is_file()

    def read(self) -> MetricScores | None:
        """``metric.json``, or None where there is none or it is broken: such a metric is scored again."""
        path = self.path / "metric.json"
        try:
            return decode(read_json(path), MetricScores, path) if path.is_file() else None
        except RfbenchError:
            return None

    def is_intact(self, metric_sha256: str | None = None) -> bool:
        """Whether all files are those that ``metric.json`` was written for, and itself the one with this hash."""
        found = self.read()
        if found is None or (metric_sha256 is not None and hash_of(self.path / "metric.json") != metric_sha256):
            return False
        files = (("scores.parquet", found.scores_sha256), ("features.safetensors", found.features_sha256))
        return all(not expected or hash_of(self.path / name) == expected for name, expected in files)

    def write(
        self,
        found: MetricScores,
        scores: Mapping[tuple[str, str], ScoreRecord],
        facts: Mapping[tuple[str, str], Mapping[str, float]],
        features: Mapping[str, np.ndarray | Parts],
        predictions: Mapping[str, str | None],
    ) -> str:
        """Write the tables, then ``metric.json``, whose SHA-256 is returned; scores and facts are by (id, estimate),
        ``predictions`` are the hashes of what was scored by id."""
        (self.path / "metric.json").unlink(missing_ok=True)  # what it described is about to go
        hashes = {"scores_sha256": "", "features_sha256": ""}
        rows = (
            _row(key, score, facts.get(key, {})) | {"prediction_sha256": predictions.get(key[0])}
            for key, score in scores.items()
        )
        hashes["scores_sha256"] = write_table(self.path / "scores.parquet", rows, _COLUMNS)
        path = self.path / "features.safetensors"
        if features:
            write_tensors(path, features)
            hashes["features_sha256"] = sha256(path)
        else:
            path.unlink(missing_ok=True)
        write_json(self.path / "metric.json", encode(found) | hashes)
        self.__dict__.pop("_rows", None)
        return sha256(self.path / "metric.json")

    def by_image(self) -> dict[tuple[str, str], ScoreRecord]:
        """The score of each image and estimate."""
        return {key: score for key, (score, _) in self._rows.items()}

    def facts(self) -> dict[tuple[str, str], dict[str, float]]:
        """What the metric found of each image and estimate beside its score."""
        return {key: facts for key, (_, facts) in self._rows.items() if facts}

    def prediction_hashes(self) -> dict[str, str | None]:
        """The prediction of each image that was scored."""
        frame = read_frame(self.path / "scores.parquet")
        return dict(zip(frame["id"], frame["prediction_sha256"], strict=True))

    @functools.cached_property
    def _rows(self) -> dict[tuple[str, str], tuple[ScoreRecord, dict[str, float]]]:
        path = self.path / "scores.parquet"
        frame = read_frame(path)
        try:
            return {(str(r["id"]), str(r["estimate"])): _score(r) for r in frame.to_dict("records")}
        except (KeyError, TypeError, ValueError) as error:
            raise RfbenchError(
                f"{path} is no table of scores: {one_line(error, 100)}; run the same command again"
            ) from None


def _row(key: tuple[str, str], score: ScoreRecord, facts: Mapping[str, float]) -> dict[str, Any]:
    why = score.reason
    return {
        "id": key[0],
        "estimate": key[1],
        "value": math.nan if score.value is None else float(score.value),
        "kind": why.kind if why else None,
        "reason": why.text if why else None,
        "remedy": (why.remedy or None) if why else None,
        "note": score.note,
        "facts": json.dumps(dict(facts), sort_keys=True) if facts else None,
    }


def _score(row: Mapping[Any, Any]) -> tuple[ScoreRecord, dict[str, float]]:
    kind, remedy, note, facts = (
        row[k] if isinstance(row[k], str) else None for k in ("kind", "remedy", "note", "facts")
    )
    value = float(row["value"])
    why = Reason(kind, str(row["reason"]), remedy or "") if kind else None
    return ScoreRecord(value=None if math.isnan(value) else value, reason=why, note=note), json.loads(facts or "{}")


def read_features(path: Path, prefix: str) -> list[dict[str, np.ndarray]]:
    """The features of each image in a file of a whole set, in the order of the ids; empty where there is no file."""
    from safetensors import safe_open

    if not path.is_file():
        return []
    try:
        look_at_tensors(path)
        with safe_open(path, framework="numpy") as file:
            found = {k.removeprefix(prefix): file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}  # noqa: SIM118
        found = {k: v for k, v in found.items() if not k.startswith("fitted:")}
        # Blocks of images of several sizes lie one after the other, with how many rows each has.
        rows = {k.removesuffix(ROWS): np.cumsum(v)[:-1] for k, v in found.items() if k.endswith(ROWS)}
        parts = {k: np.split(v, rows[k]) if k in rows else list(v) for k, v in found.items() if not k.endswith(ROWS)}
        return [dict(zip(parts, images, strict=True)) for images in zip(*parts.values(), strict=True)]
    except Exception as error:  # safetensors has errors of its own
        raise RfbenchError(f"{path} cannot be read: {one_line(error, 100)}; run the same command again") from None


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray | Parts]) -> None:
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
