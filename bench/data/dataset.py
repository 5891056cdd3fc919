"""Datasets: a folder with ``dataset.json`` and ``pairs.csv``, or whatever a plugin makes of the same interface.

``dataset.json`` says what the numbers of each side mean::

    {"format": 1, "name": "...", "description": "...", "licence": "...", "citation": "...",
     "lr":  {"unit": "reflectance", "scale": 10000, "offset": 0, "bands": "R G B NIR", "gsd_m": 10,
             "normalisation": "fixed[0,3000]", "gamma": 1, "nodata": null},
     "hr":  {...}, "pan": {...}}

``pairs.csv`` has one row an image: ``id``, ``scene_id``, ``split`` and the relative paths ``lr``, ``hr``, ``pan``,
``mask``, ``series`` (each may be empty, but one of ``lr`` and ``hr`` is there), ``caption``, ``lr_date``,
``hr_date``, ``licence``. A column such as ``hr_unit`` or ``lr_gsd_m`` overrides the side's field for its row.
Reflectance is (stored + offset) / scale; display is stored / scale; what is not declared is what the file's own tags
say.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.files import digest, read_text, sha256
from bench.core.image import Array, Image, Mask, row_blocks
from bench.core.typed import decode, decode_file, encode
from bench.data import checks, fills, pairs, readers
from bench.data.meaning import MANIFEST, Scaling, Side, Voice, most_plausible, names_of, scaling_of
from bench.data.readers import sidecars

FORMAT = 1
SIDES = ("lr", "hr", "pan")
FILES = ("lr", "hr", "pan", "mask", "series")
_CORRECT = "correct dataset.json"
TEXTS = ("id", "scene_id", "split", "region", "caption", "lr_date", "hr_date", "licence")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of the manifest: names and texts only, no pixels. ``region`` is what tables may be divided by."""

    id: str
    scene_id: str
    split: str = "test"
    caption: str = ""
    lr_date: str = ""
    hr_date: str = ""
    licence: str = ""
    region: str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sides: Mapping[str, Side] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A record with its pixels. ``mask`` is bool on the HR grid (LR grid where there is no HR); ``notes`` say what was
    done to the numbers that a reader of scores should know."""

    record: Record
    lr: Image | None
    hr: Image | None
    pan: Image | None = None
    mask: Mask | None = None
    series: readers.Series | None = None
    notes: tuple[str, ...] = ()


class Dataset(ABC):
    """What the runner needs of a dataset. Entry points of ``rfbench.datasets`` are functions that return one."""

    name: str
    description: str = ""
    licence: str = ""
    citation: str = ""

    @abstractmethod
    def records(self, split: str) -> list[Record]:
        """The rows of one split; RfbenchError naming the splits there are if it has none."""

    @abstractmethod
    def load(self, record: Record, parts: Collection[str] = FILES) -> Pair:
        """The pixels of a row; RfbenchError naming the file if one is broken.

        ``parts`` are the sides and extras that the protocol reads; others may be left out of the pair.
        """

    @abstractmethod
    def fingerprint(self, records: Sequence[Record]) -> str:
        """A SHA-256 that changes with any byte of these records that can change a number."""


Number = int | float


class SideFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A side as ``dataset.json`` writes it (``Side`` says what each field means).

    A whole number stays one: fingerprints tell 10000 from 10000.0.
    """

    unit: str | None = None
    bands: str | None = None
    scale: Number | None = None
    offset: Number | None = None
    gsd_m: Number | None = None
    normalisation: str | None = None
    gamma: Number | None = None
    nodata: Number | None = None
    sensor: str | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``dataset.json``."""

    format: Literal[1]
    name: str
    description: str = ""
    licence: str = ""
    citation: str = ""
    source: Any = None
    command: Any = None
    lr: SideFields | None = None
    hr: SideFields | None = None
    pan: SideFields | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("found no name, expected one")


class FolderDataset(Dataset):
    """A dataset folder. The manifest is read and checked at once; pixels are read when asked for."""

    def __init__(self, folder: Path, broken: list[RfbenchError] | None = None) -> None:
        """Read the manifest. Its first broken row is raised, or all are put into ``broken`` and left out."""
        if not folder.is_dir():
            raise RfbenchError(f"dataset {folder} is not a folder; give a folder with dataset.json and pairs.csv")
        self.folder = folder
        if not (folder / "dataset.json").is_file() and not (folder / "pairs.csv").is_file():
            raise RfbenchError(
                f"{folder} is no dataset: it has no dataset.json and no pairs.csv; 'rfbench data import folder "
                f"{one_line(folder, 80)} DST' makes one of a folder of images ('rfbench data import --help' has other "
                "layouts)"
            )
        path = folder / "dataset.json"
        info = decode_file(path, Manifest, remedy=_CORRECT)
        declared = {side: getattr(info, side) for side in SIDES}
        self._sides = {s: parse_side(said, f"{path}: {s}") for s, said in declared.items() if said is not None}
        self.name, self.description, self.licence, self.citation = (
            info.name, info.description, info.licence, info.citation
        )  # fmt: skip
        found: dict[str, Record] = {}
        for line, row in _read_table(folder / "pairs.csv"):
            try:
                record = self._record(row, line)
                if record.id in found:
                    raise RfbenchError(f"{folder / 'pairs.csv'}: the id '{record.id}' comes twice; ids must differ")
                found[record.id] = record
            except RfbenchError as error:
                if broken is None:
                    raise
                broken.append(error)
        self._records = list(found.values())

    @property
    def all_records(self) -> list[Record]:
        """The rows of every split, in the manifest's order."""
        return list(self._records)

    def _record(self, row: dict[str, str], line: int) -> Record:
        where = f"{self.folder / 'pairs.csv'} line {line}"
        for key in row:
            side, _, name = key.partition("_")
            is_override = side in SIDES and name in {f.name for f in dataclasses.fields(Side)}
            if key not in TEXTS and key not in FILES and not is_override:
                raise RfbenchError(f"{where}: {unknown('column', key, [*TEXTS, *FILES])}")
        if not row.get("id"):
            raise RfbenchError(f"{where}: found no id, expected one; every row needs its own")
        for key in ("id", "scene_id"):
            if row.get(key) and row[key] != one_line(row[key], 200):
                raise RfbenchError(
                    f"{where}: {key} {row[key]!r:.80} must be one printable line of up to 200 characters"
                )
        sides = {s: _override(self._sides.get(s, Side()), row, s, where) for s in SIDES}
        files = {k: row[k] for k in FILES if row.get(k)}
        if not {"lr", "hr"} & set(files):
            raise RfbenchError(f"{where}: found neither lr nor hr, expected at least one image file")
        texts = {k: row[k] for k in TEXTS if row.get(k) and k not in ("id", "scene_id")}
        return Record(row["id"], row.get("scene_id") or row["id"], files=files, sides=sides, **texts)

    def records(self, split: str) -> list[Record]:
        found = [r for r in self._records if r.split == split]
        if not found:
            known = sorted({r.split for r in self._records})
            raise RfbenchError(
                f"dataset {self.name} has no images in the split '{one_line(split, 40)}'; it has "
                f"{', '.join(known) or 'no image at all'}: choose with --split"
            )
        return found

    def path(self, record: Record, kind: str) -> Path:
        """The path of one of the record's files; RfbenchError if it lies outside the folder or cannot be one."""
        root = self.folder.resolve()
        try:
            path = (root / record.files[kind]).resolve()
            path.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # a zero byte, a name too long, links in a circle
            raise RfbenchError(
                f"{record.id}: the {kind} file '{one_line(record.files[kind], 80)}' cannot be reached "
                f"({one_line(error, 60)}); correct its name in pairs.csv"
            ) from None
        if not path.is_relative_to(root):
            raise RfbenchError(
                f"{record.id}: the {kind} file '{one_line(record.files[kind], 80)}' lies outside the dataset; keep "
                "every file inside its folder, without '..' and links that lead out"
            )
        return path

    def load(self, record: Record, parts: Collection[str] = FILES) -> Pair:
        wanted = {p for p in parts if p in record.files}
        images: dict[str, Image | None] = dict.fromkeys(SIDES)
        seen: dict[str, checks.Seen] = {}
        notes: list[str] = []
        for side in SIDES:
            if side not in wanted:
                continue
            path, meaning = self.path(record, side), record.sides[side]
            raster = read_raster(path, meaning)
            image, _, said = interpreted(raster, path, meaning)
            # What 'validate' calls an error would be a wrong number here: it is refused in the same words.
            for _, _, text in checks.refused(side, image, raster):
                raise RfbenchError(f"{path}: {text}")
            if {"lr"} < wanted & set(SIDES):
                seen[side] = checks.look(image, raster, readers.georeference(path))
            images[side] = image
            notes += [f"{side}: {note}" for note in said]
        for _, _, text in pairs.refused_pair(seen):
            raise RfbenchError(text)
        if _are_the_same(images["lr"], images["hr"]):
            raise RfbenchError(pairs.SAME.format(kind="hr", what="pixels", other="lr"))
        mask = None
        if "mask" in wanted:
            mask = np.any(readers.read(self.path(record, "mask")).values > 0, axis=2)
        series = readers.read_series(self.path(record, "series")) if "series" in wanted else None
        return Pair(record, images["lr"], images["hr"], images["pan"], mask, series, tuple(notes))

    def fingerprint(self, records: Sequence[Record]) -> str:
        return self.fingerprint_of((r, self.hashes(r)) for r in records)

    def hashes(self, record: Record) -> dict[str, str | None]:
        """The SHA-256 of each of the record's files (None for one that is missing) and of what lies beside them and is
        read with them, such as a mask in ``x.tif.msk``."""
        found: dict[str, str | None] = {}
        for kind in record.files:
            path = self.path(record, kind)
            try:
                found |= hashes_of(kind, path)
            except OSError as error:
                raise RfbenchError(f"{path} cannot be read ({error.strerror}); allow it, or replace the file") from None
        return found

    def fingerprint_of(self, hashed: Iterable[tuple[Record, Mapping[str, str | None]]]) -> str:
        """The fingerprint of records whose files' hashes are known. The region is not in it: it moves no number."""
        rows = [
            dataclasses.asdict(r) | {"files": dict(h), "sides": {k: side.hashed() for k, side in r.sides.items()}}
            for r, h in sorted(hashed, key=lambda pair: pair[0].id)
        ]
        for row in rows:
            del row["region"]
        return digest({"format": FORMAT, "name": self.name, "rows": rows})


def _are_the_same(lr: Image | None, hr: Image | None) -> bool:
    """Whether the two sides of a pair are one image, in one order of bands or another."""
    if lr is None or hr is None or lr.size != hr.size or sorted(lr.bands) != sorted(hr.bands):
        return False
    return np.array_equal(lr.values, hr.select(lr.bands).values)


def hashes_of(kind: str, path: Path) -> dict[str, str | None]:
    """The SHA-256 of a file under its ``kind``, and of the files that belong to it under ``kind`` and their ending."""
    found: dict[str, str | None] = {kind: sha256(path) if path.is_file() else None}
    return found | {f"{kind}{ending}": sha256(file) for ending, file in sorted(sidecars.beside(path).items())}


def read_image(path: Path, side: Side) -> Image:
    """Read a file and give its numbers their meaning: float32 in the side's unit, canonical band names."""
    return interpret(read_raster(path, side), path, side)


def read_raster(path: Path, side: Side) -> readers.Raster:
    """Read a file's stored numbers as ``side`` needs them: what has no data is invalid, its bands are the last axis."""
    return readers.read(path, nodata=side.nodata, bands=side.band_names)


def interpret(raster: readers.Raster, path: Path, side: Side, voice: Voice = MANIFEST) -> Image:
    """Give stored numbers their meaning; RfbenchError naming ``path`` where bands, unit or scale do not fit them."""
    return interpreted(raster, path, side, voice)[0]


def interpreted(
    raster: readers.Raster, path: Path, side: Side, voice: Voice = MANIFEST
) -> tuple[Image, Scaling, tuple[str, ...]]:
    """The same with what was done to the numbers, and what a reader of them should know."""
    count = raster.values.shape[2]
    names = names_of(path, raster.bands, count, side, voice, raster.is_picture)
    scaling = scaling_of(path, raster.values, raster.scales, raster.offsets, side, voice)
    notes = (*raster.notes, *scaling.notes)
    stored = raster.values
    if raster.empty:
        kept = [i for i in range(count) if i not in raster.empty]
        lost = " ".join(names[i] for i in raster.empty)
        notes += (f"band {lost} has no data at all and is left out",)
        stored, scaling, names = stored[:, :, kept], scaling.pick(kept), tuple(names[i] for i in kept)
    values, low, high = _scaled(stored, raster.valid, scaling)
    least, most = most_plausible(side.unit)
    if side.unit == "display" and (low < least or high > most):
        fill = fills.extreme(stored, values, raster.valid, names, least, most)
        raise RfbenchError(
            f"{path}: display values run from {low:.4g} to {high:.4g} after {scaling.text()}, expected [0, 1]; "
            + (f"{fill}: {voice.nodata}, or {voice.unit}" if fill else voice.unit)
        )
    if side.unit == "display":
        np.clip(values, 0.0, 1.0, out=values)
    largest = float(np.finfo(np.float32).max)
    if not max(-low, high) <= largest:
        fill = fills.extreme(stored, values, raster.valid, names, -largest, largest)
        raise RfbenchError(
            f"{path}: values run from {low:.4g} to {high:.4g} after {scaling.text()}, more than a number of 4 bytes "
            "holds; " + (f"{fill}: {voice.nodata}, or {voice.scale}" if fill else voice.scale)
        )
    return Image(values, side.unit, names, raster.valid, side.gsd_m), scaling, notes


def _scaled(stored: np.ndarray, valid: Mask, scaling: Scaling) -> tuple[Array, float, float]:
    """Values in double precision, rounded once to float32, 0 where there is no data; the least and greatest value.

    Some rows at a time: the doubles of a whole image would take more memory than all else together.
    """
    values = np.empty(stored.shape, np.float32)
    low, high = math.inf, -math.inf
    for rows in row_blocks(values.shape):
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.where(valid[rows, :, None], scaling.apply(stored[rows]), 0.0)
            values[rows] = block
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    return values, low, high


def parse_side(value: Any, where: str) -> Side:
    """A side from JSON; RfbenchError naming ``where`` for unknown fields and wrong types."""
    said = encode(decode(value, SideFields, where, remedy=_CORRECT))
    try:
        side = Side(**{k: v for k, v in said.items() if v is not None})
        _ = side.declared
        _ = side.band_names
    except RfbenchError as error:
        raise RfbenchError(f"{where}: {error}") from None
    return side


def _override(side: Side, row: dict[str, str], prefix: str, where: str) -> Side:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(Side):
        text = row.get(f"{prefix}_{field.name}", "")
        if text:
            is_number = field.name in {"scale", "offset", "gsd_m", "gamma", "nodata"}
            try:
                changes[field.name] = _finite(text) if is_number else text
            except ValueError:
                raise RfbenchError(
                    f"{where}: {prefix}_{field.name}: found '{one_line(text, 40)}', expected a number"
                ) from None
    if not changes:
        return side
    present = {k: v for k, v in dataclasses.asdict(side).items() if v is not None}
    return parse_side(present | changes, f"{where}: {prefix}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV with their line numbers; a byte-order mark and semicolons are understood."""
    try:
        text = read_text(path)
        first = text.partition("\n")[0]
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ","
        )
        columns = [c.strip() for c in reader.fieldnames or []]
        twice = [c for c in columns if columns.count(c) > 1]
        if twice:
            raise RfbenchError(f"{path}: the column '{one_line(twice[0], 40)}' comes twice; keep one")
        rows = []
        for row in reader:
            if None in row or any(v is None for v in row.values()):
                raise RfbenchError(f"{path} line {reader.line_num}: found another number of cells than columns")
            rows.append((reader.line_num, {k.strip(): v.strip() for k, v in row.items()}))
        return rows
    except FileNotFoundError:
        raise RfbenchError(f"{path} is missing; a dataset folder holds dataset.json and pairs.csv") from None
    except (OSError, ValueError, csv.Error) as error:
        raise RfbenchError(f"{path} is not a readable CSV: {one_line(error, 120)}; save it as UTF-8 CSV") from None
