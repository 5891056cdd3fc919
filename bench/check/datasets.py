"""What every dataset promises: rows with names, pixels that mean what the sides say, and a fingerprint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.check import Broken, Check, Line, Report, Skipped, described, examine, few
from bench.core import registry
from bench.core.errors import ItemError, RfbenchError, one_line, unknown
from bench.core.image import UNITS, Image
from bench.data.bands import canonical
from bench.data.dataset import SIDES, Dataset, FolderDataset, Pair, Record, Side
from bench.protocols.base import Protocol

_NO_SPLIT = "no such split"
_PLAUSIBLE = {"reflectance": (-0.5, 10.0), "display": (0.0, 1.0)}


def check_dataset(
    name: str, *, split: str = "test", limit: int | None = None, tell: Callable[[Line], None] | None = None
) -> Report:
    """Look at the registered dataset ``name``, or at the dataset folder of that path.

    ``limit`` looks at the pixels of the first images by id only. Raises RfbenchError for a name that is not known and
    for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise RfbenchError(f"--limit: found {limit}, expected 1 or more")
    if name not in registry.points("datasets") and not Path(name).exists():
        raise unknown("dataset", name, registry.points("datasets"), hint="or give the path of a dataset folder")
    return examine("dataset", name, _DatasetChecks(name, split, limit).all(), tell)


class _DatasetChecks:
    """One dataset on its way through the checks; pixels are read once, image by image."""

    dataset: Dataset
    records: list[Record]

    def __init__(self, name: str, split: str, limit: int | None) -> None:
        self.name, self.split, self.limit = name, split, limit
        self.problems: dict[str, list[str]] = {k: [] for k in ("images", "units", "bands", "values", "scale")}
        self.seen: dict[str, Counter[str]] = {k: Counter() for k in self.problems}
        self.last: Pair | None = None

    def all(self) -> list[Check]:
        """The checks in their order."""
        return [
            Check("registered", self.registered, vital=True),
            Check("description", self.description),
            Check("licence", self.licence),
            Check("rows", self.rows, vital=True),
            Check("ids", self.ids),
            Check("scenes", self.scenes),
            Check("splits", self.splits),
            Check("sides", self.sides),
            Check("fingerprint", self.fingerprint),
            Check("images", self.images),
            *(Check(k, lambda k=k: self.property_of_images(k)) for k in ("units", "bands", "values", "scale")),  # type: ignore[misc]
            Check("repeatable", self.repeatable),
            Check("protocols", self.protocols),
        ]

    def _make(self) -> Any:
        if self.name in registry.points("datasets"):
            return registry.load("datasets", self.name)()
        return FolderDataset(Path(self.name))

    # --- what it says it is -----------------------------------------------------------------------------------

    def registered(self) -> str:
        point = registry.points("datasets").get(self.name)
        where = point.value if point else "the folder"
        try:
            found = self._make()
        except RfbenchError as error:
            raise Broken(
                described(error) if point else str(error), f"{where} to give a dataset", "repair it as the text says"
            ) from None
        if not isinstance(found, Dataset):
            raise Broken(
                f"{where} gives a {type(found).__name__}",
                "a bench.data.dataset.Dataset",
                "register a function (or the class) that returns one",
            )
        self.dataset = found
        return where + (f" of {point.dist.name} {point.dist.version}" if point and point.dist else "")

    def description(self) -> str:
        name, text = getattr(self.dataset, "name", None), self.dataset.description
        if not isinstance(name, str) or not name or name != one_line(name, 80):
            raise Broken(f"name={name!r:.60}", "a printable name of up to 80 characters", "set name")
        if not isinstance(text, str) or text != one_line(text, 1000):
            raise Broken(f"description={text!r:.60}", "one line of text", "set description")
        return f"{name}: {text or '(no description)'}"

    def licence(self) -> str:
        if not self.dataset.licence:
            raise Skipped("none is stated; state it (licence), since reports name what restricts use")
        if self.dataset.licence != one_line(self.dataset.licence, 300):
            raise Broken(f"licence={self.dataset.licence!r:.60}", "one line of text", "shorten it")
        return self.dataset.licence

    def rows(self) -> str:
        found = self.dataset.records(self.split)
        if not found or any(not isinstance(r, Record) for r in found):
            raise Broken(
                f"records('{self.split}') gives {len(found)} rows",
                "at least one bench.data.dataset.Record",
                "return the rows, or choose another --split",
            )
        self.records = sorted(found, key=lambda r: r.id)
        again = self._make().records(self.split)
        if sorted(again, key=lambda r: r.id) != self.records:
            raise Broken(
                "two datasets of one name have different rows", "the same rows each time", "sort, draw nothing"
            )
        return f"{len(found)} in the split {self.split}"

    def ids(self) -> str:
        counts = Counter(r.id for r in self.records)
        twice = [i for i, n in counts.items() if n > 1]
        if twice:
            raise Broken(f"{few(twice)} more than once", "ids that differ", "give each image an id of its own")
        odd = [i for i in counts if not isinstance(i, str) or not i or i != one_line(i, 200)]
        if odd:
            raise Broken(f"{few(odd)}", "ids of one printable line of up to 200 characters", "rename these images")
        return f"{len(counts)} different ones, such as {few(list(counts), 2)}"

    def scenes(self) -> str:
        """Images of one scene are not independent; statistics go by scene."""
        odd = [r.id for r in self.records if not r.scene_id or r.scene_id != one_line(r.scene_id, 200)]
        if odd:
            raise Broken(f"no usable scene_id for {few(odd)}", "a printable scene_id for every image", "set scene_id")
        return f"{len({r.scene_id for r in self.records})} scenes for {len(self.records)} images"

    def splits(self) -> str:
        wrong = [r.id for r in self.records if r.split != self.split]
        if wrong:
            raise Broken(f"rows of another split: {few(wrong)}", f"those of '{self.split}'", "filter by record.split")
        try:
            found = self.dataset.records(_NO_SPLIT)
        except RfbenchError as error:
            return f"an unknown one: {error}"
        if not found:
            raise Broken(
                "no rows and no error for an unknown split", "RfbenchError naming the splits", "raise it in records()"
            )
        raise Skipped(f"records() gives {len(found)} rows whatever the split")

    def sides(self) -> str:
        # A folder's rows name their files; a plugin's rows may have none, and then mean the sides that they state.
        used = [(r.id, s, r.sides.get(s)) for r in self.records for s in SIDES if s in (r.files or r.sides)]
        without = sorted({i for i, _, side in used if not isinstance(side, Side)})
        without += sorted({r.id for r in self.records if not r.sides})
        if without:
            raise Broken(
                f"no Side for {few(without)}",
                "a bench.data.dataset.Side for lr and hr (and pan) of each record",
                "set Record.sides: it says unit, bands and normalisation of each side",
            )
        declared = dict.fromkeys(f"{s} {side.unit} {side.declared}" for _, s, side in used if isinstance(side, Side))
        return few(list(declared), 4)

    def fingerprint(self) -> str:
        records, do = self.records, "hash the records and the bytes of their files, nothing else"
        first, again = self.dataset.fingerprint(records), self.dataset.fingerprint(records)
        other = self._make().fingerprint(records)
        if not isinstance(first, str) or not first or first != one_line(first, 300):
            raise Broken(f"{first!r:.60}", "one printable line, such as a SHA-256", do)
        if not first == again == other:
            raise Broken(f"{few([first, again, other])} for the same images", "one fingerprint", do)
        if len(records) > 1 and self.dataset.fingerprint(records[1:]) == first:
            raise Broken("the same fingerprint with an image less", "another one", do)
        return first

    # --- what its pixels are ----------------------------------------------------------------------------------

    def images(self) -> str:
        chosen = self.records[: self.limit]
        for record in chosen:
            try:
                pair = self.dataset.load(record)
            except Exception as error:  # what a plugin raises is a line of the report
                text = str(error) if isinstance(error, RfbenchError) else described(error)
                self.problems["images"].append(f"{one_line(record.id, 60)}: {one_line(text, 200)}")
                continue
            self._look(record, pair)
        return self._told("images", f"all {len(chosen)} of {len(self.records)} load")

    def _look(self, record: Record, pair: Pair) -> None:
        name = one_line(record.id, 60)
        found = {s: getattr(pair, s) for s in SIDES if getattr(pair, s) is not None}
        if not isinstance(pair, Pair) or not {"lr", "hr"} & found.keys():
            self.problems["images"].append(f"{name}: neither lr nor hr")
            return
        self.last = self.last or pair
        for side, image in found.items():
            for kind, why in _image_problems(image, record.sides.get(side)):
                self.problems[kind].append(f"{name} {side}: {why}")
            if isinstance(image, Image):
                gsd = f" {image.gsd_m:g} m" if image.gsd_m else ""
                self.seen["units"][f"{side} {image.unit}"] += 1
                self.seen["bands"][f"{side} {' '.join(image.bands)}{gsd}"] += 1
        if "lr" in found and "hr" in found:
            (h, w), (height, width) = found["lr"].size, found["hr"].size
            scales = height / h, width / w
            self.seen["scale"][f"x{scales[0]:.3g}"] += 1
            if min(scales) < 1 or max(scales) > 1.25 * min(scales):
                self.problems["scale"].append(f"{name}: LR {h}x{w} px and HR {height}x{width} px")
        if pair.mask is not None and (pair.mask.dtype != bool or pair.mask.ndim != 2):
            self.problems["values"].append(f"{name} mask: {pair.mask.dtype} {pair.mask.shape}, expected bool (H, W)")

    def property_of_images(self, kind: str) -> str:
        """Units, bands, values or scale, as found while the images were read."""
        if self.last is None:
            raise Skipped("no image could be read")
        if kind == "scale" and not self.seen["scale"]:
            raise Skipped("no image has both LR and HR")
        fine = {"values": "float32, finite, in the range of their unit"}.get(kind)
        return self._told(kind, fine or ", ".join(f"{text} ({n})" for text, n in self.seen[kind].most_common(4)))

    def _told(self, kind: str, fine: str) -> str:
        wrong = self.problems[kind]
        if not wrong:
            return fine
        expected, do = _EXPECTED[kind]
        raise Broken(f"{len(wrong)} problem{'s' * (len(wrong) > 1)}: {'; '.join(wrong[:3])}", expected, do)

    def repeatable(self) -> str:
        if self.last is None:
            raise Skipped("no image could be read")
        record, again = self.last.record, self._make().load(self.last.record)
        for side in SIDES:
            a, b = getattr(self.last, side), getattr(again, side)
            if (a is None) != (b is None) or (a is not None and not np.array_equal(a.values, b.values)):
                raise Broken(f"{record.id} {side} differs when read again", "the same pixels", "draw nothing in load()")
        if again.record != record:
            raise Broken(f"load() gives the record {again.record!r:.80}", "the one it was asked for", "pass it on")
        for parts in (("lr",), ("hr",)):  # may give more, must not fail
            self.dataset.load(record, parts)
        return f"{record.id} read twice: the same pixels"

    def protocols(self) -> str:
        """Which protocols can make a task of the images; at least one should."""
        if self.last is None:
            raise Skipped("no image could be read")
        able, reasons = [], []
        for name in registry.names("protocols"):
            try:
                protocol = registry.load("protocols", name)()
                assert isinstance(protocol, Protocol)
                protocol.prepare(self.dataset.load(self.last.record, protocol.reads))
                able.append(name)
            except (ItemError, RfbenchError) as error:
                reasons.append(f"{name}: {error}")
            except Exception as error:  # a plugin's protocol may ask for an option
                reasons.append(f"{name}: {described(error)}")
        if not able:
            raise Broken("; ".join(reasons), "a protocol that can use the images", "correct sides, sizes or bands")
        return f"{', '.join(able)} can use {self.last.record.id}" + (f" ({'; '.join(reasons)})" if reasons else "")


_EXPECTED = {
    "images": ("a Pair with its pixels for every record", "repair or remove these files"),
    "units": (f"the unit that the record's Side declares, one of {', '.join(UNITS)}", "correct unit and scale"),
    "bands": ("different canonical names, those that the Side declares", "correct bands"),
    "values": ("finite float32 in the range of its unit, with a pixel that is valid", "correct unit, scale and nodata"),
    "scale": ("an HR that is larger than its LR by one factor", "crop both to the same ground"),
}


def _image_problems(image: Any, side: Side | None) -> Iterator[tuple[str, str]]:
    """What is wrong with one side of a pair: the property, and a short text."""
    if not isinstance(image, Image):
        yield "values", f"a {type(image).__name__} instead of a bench.core.image.Image"
        return
    if image.unit not in UNITS or (side is not None and image.unit != side.unit):
        yield "units", f"{one_line(image.unit, 20)}, declared {side.unit if side else 'nothing'}"
    if len(set(image.bands)) < len(image.bands) or any(canonical(b) != b for b in image.bands):
        yield "bands", few(image.bands, 6)
    declared = tuple(canonical(b) for b in side.bands.replace(",", " ").split()) if side and side.bands else None
    if declared is not None and set(declared) != set(image.bands):
        yield "bands", f"{few(image.bands, 6)}, declared {few(declared, 6)}"
    if 0 in image.values.shape:
        yield "values", f"an empty image of {image.values.shape}"
        return
    if not np.isfinite(image.values).all():
        yield "values", f"{int((~np.isfinite(image.values)).sum())} values that are not finite"
        return
    if not image.valid.any():
        yield "values", "no valid pixel"
        return
    if image.valid.dtype != bool:
        yield "values", f"a valid mask of {image.valid.dtype}"
    valid = image.values[image.valid.astype(bool)]
    low, high = _PLAUSIBLE.get(image.unit, (-np.inf, np.inf))
    if valid.min() < low - 1e-6 or valid.max() > high + 1e-6:
        yield "values", f"{image.unit} from {valid.min():.4g} to {valid.max():.4g}, not from {low:g} to {high:g}"
