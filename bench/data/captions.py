"""Whose captions a run reads: the dataset's own, a frozen file of them, or another scene's.

A caption file is two files in the dataset's folder, written once by ``rfbench caption``: ``captions/NAME.csv`` (``id``,
``caption``, ``reason``: one of the last two is empty) and its card ``captions/NAME.json``, which says how they were
made and has the SHA-256 of the CSV. A file that its card does not vouch for is refused.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.core.errors import ItemError, RfbenchError, one_line, unknown
from bench.core.files import digest, sha256
from bench.core.texts import read_text
from bench.core.typed import decode_file
from bench.data.dataset import FILES, Dataset, FolderDataset, Pair, Record

OWN, TEMPLATE, NONE, SHUFFLED = "dataset", "template", "none", "shuffled"
RESERVED = (OWN, TEMPLATE, NONE, SHUFFLED)
JOIN = "+captions:"
"""Ends the images' fingerprint and begins that of captions which are not the dataset's own."""


class Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"read": "in", "written": "out"}):
    """How many tokens all answers took; nobody counted those of an endpoint that does not tell."""

    read: int
    written: int


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One answer for one image, as it came; ``failures`` are the rules that it broke."""

    answer: str
    failures: list[str]
    tokens_in: int | None
    tokens_out: int | None
    model: str


class CaptionPrompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was asked: the texts, where they come from, and the hash of both."""

    name: str
    system: str
    ask: str
    sha256: str


class CaptionPictures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was shown: which side, how it was stretched, how the mask was drawn, and the longest side in pixels."""

    source: str
    stretch: str
    mask: str
    side_px: int


class CaptionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an answer had to keep: the clauses, and the reason of each that was left out."""

    revision: int
    clauses: list[str]
    left_out: dict[str, str]


class CaptionJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides captions, as far as it is known before the first answer.

    ``captioner`` is what a kind of model says of itself: its name, hashes of its files, its decoding.
    """

    format: Literal[1] = 1
    name: str
    dataset: str
    split: str
    captioner: dict[str, Any]
    prompt: CaptionPrompt
    pictures: CaptionPictures
    rules: CaptionRules
    attempts: int


class CaptionCard(CaptionJob, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``captions/NAME.json``: how the captions of the CSV with this hash were made, with every answer.

    ``without`` has the reasons of images that got none; ``images_sha256`` stands for all pictures that were shown.
    """

    csv_sha256: str
    images_sha256: str
    models_reported: list[str]
    captioned: int
    without: dict[str, str]
    tokens: Tokens
    software: dict[str, Any]
    answers: dict[str, list[Attempt]]


def check_name(name: str) -> str:
    """``name`` if it can name a caption file; RfbenchError otherwise."""
    if name in RESERVED or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", name):
        why = "it is one of the protocol's own words" if name in RESERVED else "use letters, digits, '-', '_' and '.'"
        raise RfbenchError(f"captions '{one_line(name, 60)}': {why}; choose another name")
    return name


def folder_of(dataset: Dataset) -> Path:
    """Where a dataset's caption files lie; RfbenchError for one that is no folder."""
    if not isinstance(dataset, FolderDataset):
        raise RfbenchError(
            f"the dataset {dataset.name} is no folder, so no captions lie in it; caption a dataset folder"
        )
    return dataset.folder / "captions"


@dataclass(frozen=True)
class Captions:
    """A frozen caption file. ``texts`` by image id; ``reasons`` of those that have none; ``card`` as it was written."""

    name: str
    texts: Mapping[str, str]
    reasons: Mapping[str, str]
    card: CaptionCard


def captions_of(dataset: Dataset, name: str) -> Captions:
    """The frozen captions ``name`` of a dataset.

    Raises RfbenchError where there are none, offering the nearest name, or where a file is not the one that was frozen.
    """
    folder = folder_of(dataset)
    path = folder / f"{check_name(name)}.csv"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.csv")) if folder.is_dir() else []
        hint = f"'rfbench caption' writes such a file into {folder}"
        raise unknown("captions", name, [*known, *RESERVED], hint=hint)
    card = decode_file(
        path.with_suffix(".json"), CaptionCard, remedy="restore it, or write captions under another name"
    )
    if card.csv_sha256 != sha256(path):
        raise RfbenchError(
            f"{path} is not the file that its card {path.with_suffix('.json').name} was written for; captions are "
            "frozen: restore both, or write others under another name"
        )
    texts: dict[str, str] = {}
    reasons: dict[str, str] = {}
    try:
        for row in csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True):
            image, caption, reason = (str(row[key]) for key in ("id", "caption", "reason"))
            (texts if caption else reasons)[image] = caption or reason
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise RfbenchError(
            f"{path} is no caption file: {one_line(error, 100)}; write it anew under another name"
        ) from None
    return Captions(name, texts, reasons, card)


def csv_of(texts: Mapping[str, str], reasons: Mapping[str, str]) -> bytes:
    """The bytes of a caption file, sorted by id."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "caption", "reason"])
    for image in sorted({*texts, *reasons}):
        writer.writerow([image, texts.get(image, ""), "" if image in texts else reasons[image]])
    return out.getvalue().encode()


@dataclass(frozen=True)
class Captioned(Record):
    """A record whose caption comes from elsewhere: ``source`` names the protocol's variant that it was made for, and
    ``reason`` says why it has none."""

    source: str = OWN
    reason: str = ""


def with_captions(dataset: Dataset, variant: str) -> Dataset:
    """The dataset as the protocol's ``captions`` variant shows it.

    ``dataset``, ``template`` and ``none`` give it back as it is (the protocol itself keeps the last two from reading a
    record's caption), others one whose records carry other captions and whose fingerprint says so.
    """
    return dataset if variant in (OWN, TEMPLATE, NONE) else _WithCaptions(dataset, variant)


class _WithCaptions(Dataset):
    """Another dataset's images with other captions. Its fingerprint is that dataset's, ``JOIN`` and the captions'."""

    def __init__(self, inner: Dataset, variant: str) -> None:
        self._inner, self._variant = inner, variant
        self._frozen = None if variant == SHUFFLED else captions_of(inner, variant)
        self.name, self.description = inner.name, inner.description
        self.licence, self.citation = inner.licence, inner.citation

    def records(self, split: str) -> list[Record]:
        records = self._inner.records(split)
        if self._frozen is None:
            texts, reasons = (
                shuffled(records),
                dict.fromkeys((r.id for r in records), "the dataset has no caption for it"),
            )
        else:
            texts, reasons = dict(self._frozen.texts), dict(self._frozen.reasons)
        if not any(r.id in texts for r in records):
            raise RfbenchError(
                f"captions '{self._variant}' have no caption for any image of the split '{one_line(split, 40)}' of "
                f"{self.name}; caption that split under another name"
            )
        return [
            Captioned(
                **{f.name: getattr(r, f.name) for f in dataclasses.fields(Record)} | {"caption": texts.get(r.id, "")},
                source=self._variant,
                reason="" if r.id in texts else reasons.get(r.id, "it was not among the images that were captioned"),
            )
            for r in records
        ]

    def load(self, record: Record, parts: Collection[str] = FILES) -> Pair:
        if isinstance(record, Captioned) and record.reason:
            raise ItemError(f"captions '{self._variant}' have none for this image: {one_line(record.reason, 160)}")
        return self._inner.load(record, parts)

    def fingerprint(self, records: Sequence[Record]) -> str:
        own = {r.id: r for split in {r.split for r in records} for r in self._inner.records(split)}
        captions = digest([[r.id, r.caption] for r in sorted(records, key=lambda r: r.id)])
        return f"{self._inner.fingerprint([own[r.id] for r in records])}{JOIN}{captions[:16]}"


def images_fingerprint(fingerprint: str) -> str:
    """The part of a dataset's fingerprint that stands for its images and its manifest, whatever captions were read."""
    return fingerprint.partition(JOIN)[0]


def shuffled(records: Sequence[Record]) -> dict[str, str]:
    """Another scene's caption for each image that has one: one permutation, fixed by the ids and scenes of the split.

    Scenes are ordered by a hash of their names, and captions move on by as many images as the largest scene has, so
    none stays in its scene and each is read once. RfbenchError where no such permutation exists: a scene with more than
    half of the captions.
    """
    told = [r for r in records if r.caption]
    order = sorted(told, key=lambda r: (hashlib.sha256(r.scene_id.encode("utf-8", "surrogatepass")).digest(), r.id))
    scenes = [r.scene_id for r in order]
    step = max(map(scenes.count, set(scenes)), default=0)
    if not told or 2 * step > len(told):
        what = f"one scene has {step} of the {len(told)} captions" if told else "the dataset has no caption"
        raise RfbenchError(f"captions=shuffled: {what}, so not every image can get another scene's; use other data")
    return {r.id: order[(i + step) % len(order)].caption for i, r in enumerate(order)}
