"""Read every file of a dataset folder and say what is wrong with it; one pair is in memory at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Image
from bench.data import checks, pairs, readers
from bench.data.checks import Found, Seen, Severity
from bench.data.dataset import SIDES, FolderDataset, Record, hashes_of, interpreted, read_raster

FORMAT = 1


@dataclass(frozen=True)
class Problem:
    """One line of the report; ``id`` is None where it concerns the dataset and not one image."""

    severity: Severity
    id: str | None
    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.id or 'dataset'}: {self.text} [{self.check}]"


@dataclass
class Report:
    """What ``validate`` found. A fingerprint covers every byte that can change a number; of a split, it is the one that
    runs record."""

    name: str
    images: int = 0
    files: int = 0
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    fingerprint: str = ""

    def count(self, severity: Severity) -> int:
        """How many errors or warnings there are."""
        return sum(p.severity == severity for p in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "format": FORMAT, "name": self.name, "images": self.images, "files": self.files,
            "errors": self.count("error"), "warnings": self.count("warning"),
            "fingerprint": self.fingerprint, "splits": self.splits,
            "problems": [{"severity": p.severity, "id": p.id, "check": p.check, "text": p.text} for p in self.problems],
        }  # fmt: skip


def validate(
    folder: Path,
    found: Callable[[Problem], None] = lambda problem: None,
    tick: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Report:
    """Check a dataset folder.

    ``found`` gets each problem as soon as it is known, ``tick`` the step's name, the
    number of images done and of all. Raises
    RfbenchError where there is no dataset at all: no folder, no readable ``dataset.json`` or ``pairs.csv``, no row.
    """
    broken: list[RfbenchError] = []
    dataset = FolderDataset(folder, broken)
    records = dataset.all_records
    if not records and not broken:
        raise RfbenchError(f"{folder / 'pairs.csv'} has no row; expected one an image")
    return _Validation(dataset, found).run(records, broken, tick)


class _Validation:
    """What must be remembered from image to image: facts, hashes and scenes, but no pixels."""

    def __init__(self, dataset: FolderDataset, found: Callable[[Problem], None]) -> None:
        self.dataset = dataset
        self.found = found
        self.report = Report(dataset.name)
        # 16 bytes of a hash -> the first (record, kind) that had it
        self.bytes_of: dict[bytes, tuple[Record, str]] = {}
        self.pixels_of: dict[bytes, tuple[Record, str]] = {}
        self.seen: dict[str, dict[str, Seen]] = {}

    def run(self, records: list[Record], broken: list[RfbenchError], tick: Callable[[str, int, int], None]) -> Report:
        hashes: dict[str, dict[str, str | None]] = {}
        for error in broken:
            self._say(None, ("error", "manifest", str(error)))
        for done, record in enumerate(records):
            tick("read", done, len(records))
            hashes[record.id] = self._image(record)
        tick("read", len(records), len(records))
        self._scenes(records)
        for text in self._mixtures(records):
            self._say(None, text)
        report = self.report
        report.images = len(records)
        report.fingerprint = self.dataset.fingerprint_of((r, hashes[r.id]) for r in records)
        for split in sorted({r.split for r in records}):
            members = [r for r in records if r.split == split]
            report.splits[split] = {
                "images": len(members),
                "scenes": len({r.scene_id for r in members}),
                "fingerprint": self.dataset.fingerprint_of((r, hashes[r.id]) for r in members),
            }
        return report

    def _say(self, record: Record | None, found: Found) -> None:
        severity, check, text = found
        problem = Problem(severity, record.id if record else None, check, one_line(text, 600))
        self.report.problems.append(problem)
        self.found(problem)

    def _image(self, record: Record) -> dict[str, str | None]:
        """Check the files of one row; returns their hashes."""
        hashes: dict[str, str | None] = dict.fromkeys(record.files)
        seen: dict[str, Seen] = {}
        for kind in record.files:
            path = None
            try:
                path = self.dataset.path(record, kind)
                if not path.is_file():
                    shown = one_line(record.files[kind], 100)
                    self._say(record, ("error", "missing", f"{kind}: {shown} is missing; add the file, or take it out"))
                    continue
                hashes |= hashes_of(kind, path)
                self.report.files += 1
                for text in self._file(record, kind, path, seen, bytes.fromhex(hashes[kind] or "")[:16]):
                    self._say(record, text)
            except OSError as error:
                reason = one_line(error.strerror or error, 100)
                self._say(record, ("error", "corrupt", f"{kind}: {path} cannot be read ({reason}); allow reading it"))
            except RfbenchError as error:
                self._say(record, ("error", "path" if path is None else "corrupt", f"{kind}: {self._short(error)}"))
        for text in pairs.check_pair({"lr_date": record.lr_date, "hr_date": record.hr_date}, seen):
            self._say(record, text)
        self.seen[record.id] = seen
        return hashes

    def _file(self, record: Record, kind: str, path: Path, seen: dict[str, Seen], digest: bytes) -> Iterator[Found]:
        if kind in SIDES:
            side = record.sides[kind]
            raster = read_raster(path, side)
            try:
                image, _, notes = interpreted(raster, path, side)
            except RfbenchError as error:
                text = self._short(error)
                yield "error", "unit" if "display values" in text else "bands", f"{kind}: {text}"
                return
            said = list(checks.check_image(kind, image, raster, side, notes=notes))
            yield from said
            is_filled = any(found[:2] == ("error", "nodata") for found in said)
            seen[kind] = checks.look(image, raster, readers.georeference(path), is_wrong=is_filled)
            yield from self._duplicates(record, kind, digest, image)
        elif kind == "mask":
            # Without its HR, which has a line of its own, a mask's size says nothing.
            unknown = "hr" in record.files and "hr" not in seen
            sizes = {} if unknown else {k: s.size for k, s in seen.items() if k in ("lr", "hr")}
            yield from checks.check_mask(readers.read(path), sizes)
            yield from pairs.check_place(kind, readers.georeference(path), seen.get("hr") or seen.get("lr"))
        else:
            yield from checks.check_series(readers.read_series(path), seen.get("lr"), record.sides["lr"])

    def _short(self, error: RfbenchError) -> str:
        """An error with paths as the manifest has them."""
        return str(error).replace(f"{self.dataset.folder.resolve()}/", "")

    def _duplicates(self, record: Record, kind: str, digest: bytes, image: Image) -> Iterator[Found]:
        order = sorted(range(len(image.bands)), key=lambda i: image.bands[i])
        content = hashlib.sha256(repr((image.size, image.unit, sorted(image.bands))).encode())
        for i in order:
            content.update(np.ascontiguousarray(image.values[:, :, i]).data)
        same_file = self.bytes_of.setdefault(digest, (record, kind))
        same_pixels = self.pixels_of.setdefault(content.digest()[:16], (record, kind))
        for (other, as_kind), what in ((same_file, "file"), (same_pixels, "pixels")):
            if (other.id, as_kind) == (record.id, kind):
                continue
            if other.id == record.id:
                yield (
                    "error",
                    "duplicate",
                    pairs.SAME.format(kind=kind, what=what, other=as_kind),
                )
            elif other.split != record.split:
                yield (
                    "error",
                    "duplicate",
                    f"{kind}: the same {what} as {as_kind} of '{other.id}' in split '{one_line(other.split, 40)}', "
                    f"while this is '{one_line(record.split, 40)}'; keep it in one split",
                )
            elif other.scene_id != record.scene_id:
                # One LR for several HR dates of a scene is usual; under two scenes it would count twice.
                yield (
                    "warning",
                    "duplicate",
                    f"{kind}: the same {what} as {as_kind} of '{other.id}', which has another scene_id; give both one "
                    "scene_id, or leave one out",
                )
            return  # the same file has the same pixels: one line is enough

    def _scenes(self, records: list[Record]) -> None:
        splits: dict[str, set[str]] = {}
        for record in records:
            splits.setdefault(record.scene_id, set()).add(record.split)
        for scene, names in sorted(splits.items()):
            if len(names) > 1:
                listed = ", ".join(one_line(n, 40) for n in sorted(names))
                text = (
                    f"the scene '{scene}' lies in the splits {listed}, expected one; images of one scene are not "
                    "independent: move them"
                )
                self._say(None, ("error", "scene", text))

    def _mixtures(self, records: list[Record]) -> Iterator[Found]:
        """What only all images together show: mixed units, types and levels, and what is missing throughout."""
        for kind in SIDES:
            images = {i: s[kind] for i, s in self.seen.items() if kind in s}
            for what, of in (("unit", lambda s: s.unit), ("data type", lambda s: s.dtype)):
                counts = Counter(of(s) for s in images.values())
                if len(counts) > 1:
                    listed = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
                    yield (
                        "warning",
                        "mixed",
                        f"{kind}: found more than one {what} ({listed}), expected one; check that each row says what "
                        "its numbers mean",
                    )
            yield from self._levels(kind, images)
        pairs = Counter((s["lr"].unit, s["hr"].unit) for s in self.seen.values() if {"lr", "hr"} <= s.keys())
        for (lr, hr), n in sorted(pairs.items()):
            if lr != hr or lr == "relative":
                yield (
                    "warning",
                    "mixed",
                    f"pairs of {lr} LR and {hr} HR: {n}; they are compared in display range, each side by its own "
                    "normalisation, and metrics of reflectance give a reason",
                )
        lonely = sum("lr" in r.files and not {"hr", "pan"} & set(r.files) for r in records)
        if lonely:
            yield (
                "warning",
                "reference",
                f"{lonely} of {len(records)} images have an LR without HR or PAN; metrics that need a reference give a "
                "reason (upscale them with --protocol paired:scale=5)",
            )

    def _levels(self, kind: str, images: dict[str, Seen]) -> Iterator[Found]:
        """Images a hundred times brighter or darker than the others: their scale is another."""
        for unit in sorted({s.unit for s in images.values()} - {"relative"}):
            levels = {i: s.level for i, s in images.items() if s.unit == unit and s.level > 0}
            if len(levels) < 3:
                continue
            middle = float(np.median(list(levels.values())))
            odd = sorted(i for i, level in levels.items() if not middle / 100 < level < middle * 100)
            if odd:
                yield (
                    "error",
                    "mixed",
                    f"{kind}: {len(odd)} images have a level a hundred times off the others' (such as '{odd[0]}': "
                    f"{levels[odd[0]]:.3g}, the median is {middle:.3g}); give their rows a '{kind}_scale'",
                )
