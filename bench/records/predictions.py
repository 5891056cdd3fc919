"""The first stage of a run folder: predictions, and what is to be said of each image before any metric saw it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.core.claims import look_at_tensors, read_frame
from bench.core.errors import RfbenchError, one_line
from bench.core.files import digest, read_json, safe_name, sha256, stem_of, to_disk, write_bytes
from bench.core.typed import decode, encode
from bench.records.parquet import write_table
from bench.records.types import ItemRecord

_JSON = ("normalisation", "notes", "facts", "files")
"""The columns of ``images.parquet`` that hold JSON."""
_COLUMNS = {name: "text" for name in ItemRecord.__struct_fields__ if name != "size_px"} | dict.fromkeys(
    ("height_px", "width_px"), "whole"
)


class Predictions:
    """Reads and writes ``predictions/``, ``items/`` and ``images.parquet`` of a run folder."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.table_path = run / "images.parquet"
        self._unsettled: list[Path] = []
        self._settling: Future[None] | None = None

    def path(self, image_id: str) -> Path:
        """Where an image's prediction lies."""
        return self.run / "predictions" / f"{safe_name(image_id)}.safetensors"

    def write(self, image_id: str, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> str:
        """Store an image's prediction; returns its SHA-256."""
        data = serialised(arrays, header)
        self.write_bytes(image_id, data)
        return hashlib.sha256(data).hexdigest()

    def write_bytes(self, image_id: str, data: bytes) -> None:
        """Store an image's prediction as ``serialised`` made it; see ``settle``."""
        path = self.path(image_id)
        write_bytes(path, data, durable=False)
        self._unsettled.append(path)

    def read(self, image_id: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """An image's arrays and header (``unit``, ``bands``, ``normalised``)."""
        from safetensors import safe_open

        path = self.path(image_id)
        try:
            look_at_tensors(path)
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["rfbench"])
                return {k: file.get_tensor(k) for k in file.keys()}, header  # noqa: SIM118 (no iterator)
        except Exception as error:  # safetensors, JSON and numpy each have errors of their own
            raise RfbenchError(
                f"{path} is no readable prediction: {one_line(error, 100)}; run the same command"
            ) from None

    def commit(self, item: ItemRecord) -> None:
        """Say that an image is done, or why it failed; its prediction is written before."""
        path = self._item_path(item.id)
        write_bytes(path, msgspec.json.encode(item), durable=False)
        self._unsettled.append(path)

    @property
    def unsettled(self) -> int:
        """How many files were written since ``settle``."""
        return len(self._unsettled)

    def settle(self, *, wait: bool = True) -> None:
        """Have what was written on the disk; without ``wait`` while others go on, though never more than one such lot.

        Until then a power cut may leave files empty: a record that cannot be read counts as absent, and a prediction
        is used only where it has the hash of its record, so such images are predicted again.
        """
        if self._settling is not None:
            self._settling.result()  # raises at each call where that lot is not on the disk
            self._settling = None
        found = [*self._unsettled]
        if wait:
            to_disk(found)
        elif found:
            thread = ThreadPoolExecutor(1, thread_name_prefix="settle")
            self._settling = thread.submit(to_disk, found)
            thread.shutdown(wait=False)
        del self._unsettled[: len(found)]  # what could not be had on the disk stays to be

    def item(self, image_id: str) -> ItemRecord | None:
        """What was committed of an image, or None; a broken record counts as absent."""
        path = self._item_path(image_id)
        if path.is_file():
            try:
                found = decode(read_json(path), ItemRecord, path)
            except RfbenchError:
                return None
            return found if found.id == image_id else None
        return self._finished.get(image_id)

    def is_done(self, image_id: str) -> bool:
        """Whether an image is committed without an error, and its prediction has the bytes that were committed."""
        item = self.item(image_id)
        if item is None or item.error:
            return False
        found = hash_of(self.path(image_id))
        return found is not None and found == item.prediction_sha256

    @property
    def is_complete(self) -> bool:
        """Whether all images were predicted, or have failed."""
        return self.table_path.is_file()

    def finish(self, image_ids: Iterable[str]) -> None:
        """Write ``images.parquet`` from what was committed of these images, in their order.

        Raises
        ------
        RfbenchError
            If one of them was not committed.
        """
        self.settle()
        write_table(self.table_path, (_row(self._committed(image_id)) for image_id in image_ids), _COLUMNS)
        self.__dict__.pop("_finished", None)

    def _committed(self, image_id: str) -> ItemRecord:
        item = self.item(image_id)
        if item is None:
            raise RfbenchError(
                f"{self.run}: the record of '{one_line(image_id, 80)}' is gone from items/; run the same command again"
            )
        return item

    def table(self) -> dict[str, ItemRecord]:
        """All images, in the order of the plan; RfbenchError if they were not all predicted."""
        if not self.is_complete:
            raise RfbenchError(f"{self.run}: found no images.parquet, expected one; run the same command again")
        return self._finished

    def committed(self, image_ids: Iterable[str]) -> dict[str, ItemRecord]:
        """Those of these images that are done or have failed, of a run that may have others."""
        found = ((i, self.item(i)) for i in image_ids)
        return {i: item for i, item in found if item is not None}

    def digest(self, *, verify: bool = False) -> str:
        """The hash of all ids and their predictions; of the files themselves where ``verify``."""
        if not self.is_complete:
            return ""
        items = self._finished.values()
        return digest([[i.id, hash_of(self.path(i.id)) if verify and not i.error else i.prediction_sha256]
                       for i in items])  # fmt: skip

    @functools.cached_property
    def _finished(self) -> dict[str, ItemRecord]:
        if not self.is_complete:
            return {}
        frame = read_frame(self.table_path)
        try:
            items = [_item(row, self.table_path) for row in frame.to_dict("records")]
        except (KeyError, TypeError, ValueError) as error:
            raise RfbenchError(
                f"{self.table_path} is no table of images: {one_line(error, 100)}; run the same command again"
            ) from None
        return {item.id: item for item in items}

    def _item_path(self, image_id: str) -> Path:
        return self.run / "items" / f"{safe_name(image_id)}.json"


def serialised(arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> bytes:
    """The bytes of a prediction's file: the same for the same arrays and header, whoever makes them."""
    from safetensors.numpy import save

    contiguous = {k: np.ascontiguousarray(v) for k, v in sorted(arrays.items())}
    return save(contiguous, {"rfbench": json.dumps(dict(header), sort_keys=True)})


def references_digest(items: Iterable[ItemRecord]) -> str:
    """The hash of what images were held against, by safe name: a program that knows no ids has only files' names."""
    return digest(sorted([stem_of(i.id), i.reference_sha256] for i in items))


def hash_of(path: Path) -> str | None:
    """The SHA-256 of a file; None for one that is not there or cannot be read, which has to be made again."""
    try:
        return sha256(path) if path.is_file() else None
    except OSError:
        return None


def _row(item: ItemRecord) -> dict[str, Any]:
    found = encode(item)
    height, width = item.size_px or (None, None)
    found.pop("size_px")
    for key in _JSON:
        found[key] = json.dumps(found[key], sort_keys=True, ensure_ascii=False)
    return found | {"height_px": height, "width_px": width}


def _item(row: dict[str, Any], path: Path) -> ItemRecord:
    fields: dict[str, Any] = {k: None if _is_nan(v) else v for k, v in row.items()}
    height, width = fields.pop("height_px"), fields.pop("width_px")
    for key in _JSON:
        fields[key] = json.loads(fields[key])
    fields["size_px"] = None if height is None else (int(height), int(width))
    return decode(fields, ItemRecord, path, remedy="run the same command again")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value
