"""What all layouts share: a folder that appears whole or not at all, copies, masks, tables, and notes to the user."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import shutil
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.files import TEMPORARY, atomic_path, read_text, safe_name, write_bytes, write_json
from bench.core.image import Mask
from bench.core.process import is_left, mark
from bench.data import checks, readers
from bench.data.dataset import FORMAT, SIDES, FolderDataset, Record, interpret, read_raster
from bench.data.make import write_table
from bench.data.meaning import MANIFEST, Voice
from bench.data.readers import sidecars

Note = Callable[[str], None]
Tick = Callable[[str, int, int], None]

# The order of Sentinel-2 stacks as Earth Engine gives them.
L2A_BANDS = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"
L1C_BANDS = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"

_SIDE_COLUMNS = tuple(
    f"{side}_{field}"
    for side in ("lr", "hr", "pan")
    for field in ("unit", "bands", "scale", "offset", "normalisation", "gamma", "gsd_m", "nodata", "sensor")
)
_COLUMNS = (
    "id", "scene_id", "split", "region", "lr", "hr", "pan", "mask", "series", "caption", "lr_date", "hr_date",
    "licence",
    *_SIDE_COLUMNS,
)  # fmt: skip


def silent(text: str) -> None:
    """The note of a caller who does not want any."""


def no_tick(step: str, done: int, total: int) -> None:
    """The tick of a caller who shows no progress."""


class Builder:
    """A dataset folder in the making: files and rows are added, ``finish`` writes the manifest and reads all again.

    ``sides`` holds what the user said of a side, whatever the layout believes; ``voice`` how he can say more.
    """

    def __init__(
        self,
        work: Path,
        note: Note = silent,
        tick: Tick = no_tick,
        sides: Mapping[str, Mapping[str, Any]] | None = None,
        voice: Voice = MANIFEST,
    ) -> None:
        self.work = work
        self.note = note
        self.tick = tick
        self.sides = sides or {}
        self.voice = voice
        self.rows: list[dict[str, Any]] = []
        self.total = 0
        self._ids: set[str] = set()

    def expect(self, total: int) -> None:
        """How many images will be added, for the progress."""
        self.total = total

    def copy(self, path: Path, kind: str, stem: str | None = None) -> str:
        """Copy a file into the dataset, with its mask, notes and world file beside it; returns its path there.

        RfbenchError for what is no file: a device never ends.
        """
        if not path.is_file():
            raise RfbenchError(f"{path} is no regular file, expected an image; replace it")
        relative = f"{kind}/{safe_name(stem or path.stem)}{path.suffix.lower()}"
        with atomic_path(self.work / relative) as temporary:
            shutil.copyfile(path, temporary)
        for beside, target in sidecars.copies(path, self.work / relative):
            with atomic_path(target) as temporary:
                shutil.copyfile(beside, temporary)
        return relative

    def write(
        self,
        values: np.ndarray,
        bands: Sequence[str],
        kind: str,
        stem: str,
        *,
        place: readers.Georeference | None = None,
    ) -> str:
        """Write (H, W, C) as a GeoTIFF with band names, in the bounds of ``place``; returns its path."""
        import rasterio

        relative = f"{kind}/{safe_name(stem)}.tif"
        height, width, count = values.shape
        profile: dict[str, Any] = {"driver": "GTiff", "height": height, "width": width, "count": count,
                                   "dtype": values.dtype.name, "compress": "deflate", "interleave": "band"}  # fmt: skip
        if place is not None:
            left, bottom, right, top = place.bounds
            profile |= {
                "crs": place.crs,
                "transform": rasterio.transform.from_bounds(left, bottom, right, top, width, height),
            }
        # In memory first: GDAL may not notice that a disk is full, and a file cut short would look like a broken one.
        with warnings.catch_warnings(), rasterio.io.MemoryFile() as memory:
            warnings.simplefilter("ignore")  # a file without georeference is no fault
            with memory.open(**profile) as file:
                file.write(np.moveaxis(values, 2, 0))
                for i, band in enumerate(bands, 1):
                    file.set_band_description(i, band)
            write_bytes(self.work / relative, bytes(memory.getbuffer()))
        return relative

    def series(self, stacks: np.ndarray, dates: Sequence[str], bands: Sequence[str], stem: str) -> str:
        """Write images (T, H, W, C) of several dates as one npz; returns its path in the dataset."""
        relative = f"series/{safe_name(stem)}.npz"
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, data=np.moveaxis(stacks, 3, 1), dates=np.array(list(dates), "U10"), bands=np.array(list(bands))
        )
        write_bytes(self.work / relative, buffer.getvalue())
        return relative

    def mask(self, mask: Mask, stem: str) -> str:
        """Write a mask as a PNG of 0 and 255; returns its path in the dataset."""
        from PIL import Image as Pillow

        relative = f"mask/{safe_name(stem)}.png"
        buffer = io.BytesIO()
        Pillow.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
        write_bytes(self.work / relative, buffer.getvalue())
        return relative

    def add(self, row: dict[str, Any]) -> None:
        """Add a row of the manifest, its id and scene_id made printable; RfbenchError if the id is there already."""
        row["id"] = one_line(row["id"], 200)
        if row["id"] in self._ids:
            raise RfbenchError(f"the id '{row['id']}' comes twice; ids must differ")
        self._ids.add(row["id"])
        for side, said in self.sides.items():
            if side in row:
                row |= {f"{side}_{field}": value for field, value in said.items()}
                if "unit" in said and "normalisation" not in said:
                    row[f"{side}_normalisation"] = ""  # that of the unit which the layout believed
        row["scene_id"] = one_line(row.get("scene_id") or row["id"], 200)
        self.rows.append(row)
        if self.total:
            self.tick("copy", len(self.rows), self.total)

    def finish(self, info: dict[str, Any], *, skip_broken: bool = False) -> int:
        """Write the manifest, then read every image once; returns the number of images.

        An image that cannot be read ends the import, or with ``skip_broken`` is left out with a note: one broken file
        of a public dataset must not cost the others.
        """
        for side in self.sides:
            if not any(side in row for row in self.rows):
                raise RfbenchError(f"--{side}: no image has the side {side.upper()}, so it cannot act; leave it out")
        if not self.rows:
            raise RfbenchError("no image was found to import; compare the folder with the layout in --help")
        self._manifest(info)
        try:
            dataset = FolderDataset(self.work)
        except RfbenchError as error:
            raise RfbenchError(self._short(error)) from None
        broken, suspected, measured, wrong = [], [], 0, []
        for done, record in enumerate(dataset.all_records):
            self.tick("check", done, len(dataset.all_records))
            try:
                for kind in record.files:
                    found = self._look(dataset, record, kind)
                    wrong += [f"{record.id}: {text}" for text in found.wrong[:1]]
                    measured += found.measured
                    suspected += [record.id] * found.suspected
            except RfbenchError as error:
                if not skip_broken:
                    raise RfbenchError(f"{record.id}: {self._short(error)}") from None
                broken.append(record)
                self.note(f"{record.id} is left out: {self._short(error)}")
        self.tick("check", len(dataset.all_records), len(dataset.all_records))
        if broken:
            lost = {r.id for r in broken}
            for record in broken:
                for kind in record.files:
                    dataset.path(record, kind).unlink(missing_ok=True)
            self.rows = [r for r in self.rows if r["id"] not in lost]
            if not self.rows:
                raise RfbenchError(f"none of the {len(lost)} images could be read; the notes above say why")
            self._manifest(info)
        if wrong:
            self.note(
                f"{len(wrong)} files are not what they are said to be, such as {wrong[0]} ('rfbench validate' names "
                "all)"
            )
        if suspected:
            self.note(
                f"{len(suspected)} of {measured} LR images (such as '{suspected[0]}') have nothing dark in any band, "
                "as products of baseline 04.00 with +1000 in every number; import again with --offset -1000 (-0.1 for "
                "reflectance 0 to 1) if they are not harmonised"
            )
        return len(self.rows)

    def _look(self, dataset: FolderDataset, record: Record, kind: str) -> _Look:
        """Read a file as runs will. What validation calls an error of its numbers is no reason to end an import."""
        path = dataset.path(record, kind)
        if kind == "series":
            readers.read_series(path)
        elif kind == "mask":
            readers.read(path)
        if kind not in SIDES:
            return _Look()
        side = record.sides[kind]
        raster = read_raster(path, side)
        image = interpret(raster, path, side, self.voice)
        is_measured = kind == "lr" and side.unit == "reflectance" and not side.offset and raster.offsets is None
        return _Look(
            tuple(text for _, _, text in checks.refused(kind, image, raster)),
            is_measured,
            is_measured and checks.offset_suspected(image, raster.values),
        )

    def _short(self, error: RfbenchError) -> str:
        """An error without the path of a folder that vanishes."""
        return str(error).replace(f"{self.work.resolve()}/", "").replace(f"{self.work}/", "")

    def _manifest(self, info: dict[str, Any]) -> None:
        used = tuple(c for c in _COLUMNS if any(row.get(c) not in (None, "") for row in self.rows))
        write_table(self.work / "pairs.csv", [{c: row.get(c, "") for c in used} for row in self.rows], used)
        write_json(self.work / "dataset.json", {"format": FORMAT} | info)


@dataclass(frozen=True)
class _Look:
    """What is kept of a file that was read: what is wrong with its numbers, and whether an offset was looked for."""

    wrong: tuple[str, ...] = ()
    measured: bool = False
    suspected: bool = False


@dataclass(frozen=True)
class Import:
    """What every importer is given: the folder to read, the dataset to make, and the split of images without one.

    ``note`` gets what the user should know, a printable line each; ``tick`` a step's name, the images done and all.
    ``sides`` holds what the user said of LR, HR or PAN: fields of ``Side`` by side.
    """

    source: Path
    target: Path
    name: str
    split: str = "test"
    note: Note = silent
    tick: Tick = no_tick
    sides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def check_folders(self) -> None:
        """RfbenchError unless the source is a folder and the target is new (or empty) and outside it."""
        if not self.source.is_dir():
            how = (
                "unpack it, and give its folder"
                if self.source.suffix.lower() == ".zip"
                else "give the folder to import"
            )
            raise RfbenchError(f"{self.source} is not a folder; {how}")
        if self.target.exists() and (not self.target.is_dir() or any(self.target.iterdir())):
            raise RfbenchError(f"{self.target} is not empty; choose a new folder")
        if Path(os.path.realpath(self.target)).is_relative_to(self.source.resolve()):  # of links in a circle too
            raise RfbenchError(f"{self.target} lies inside {self.source}; choose a folder outside it")

    def note_names(self, what: str, names: Collection[str], text: str) -> None:
        """Say ``text`` of all ``names``, which are ``what`` (areas, tiles), if there are any."""
        if names:
            self.note(f"{len(names)} {what} ({first_of(names)}) {text}")

    @contextmanager
    def building(self, voice: Voice = MANIFEST) -> Iterator[Builder]:
        """A builder whose folder becomes the target when all went well, and vanishes otherwise.

        What imports of the same target left that were killed is removed first.
        """
        work = self.target.with_name(f".{self.target.name}.{mark()}{TEMPORARY}")
        try:
            _remove_leavings(self.target)
            shutil.rmtree(work, ignore_errors=True)  # of a killed process that had our number
            work.mkdir(parents=True)
            with _marked(work):
                yield Builder(work, self.note, self.tick, self.sides, voice)
                if self.target.exists():
                    self.target.rmdir()
                work.rename(self.target)
        except OSError as error:
            raise RfbenchError(
                f"cannot make {self.target}: {error.strerror or one_line(error)}; choose another folder"
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _marked(folder: Path) -> Iterator[bool]:
    """Mark a folder as in use for as long as this process lives; False where another has marked it. On a file system
    without locks nobody marks anything, and the name alone says whose a folder is."""
    try:
        import fcntl
    except ImportError:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except OSError as error:
        is_ours = error.errno not in (errno.EAGAIN, errno.EACCES)
    try:
        yield is_ours
    finally:
        os.close(handle)


def _remove_leavings(target: Path) -> None:
    """Remove what killed imports of ``target`` left beside it, and nothing of an import that still runs."""
    name = re.compile(rf"\.{re.escape(target.name)}\.([0-9]+-[0-9a-f]+){re.escape(TEMPORARY)}")
    for path in sorted(target.parent.iterdir()) if target.parent.is_dir() else ():
        found = name.fullmatch(path.name)
        if found and path.is_dir() and not path.is_symlink():
            # The lock tells of processes of this machine and others, the name of those that had no time to take it.
            with _marked(path) as is_ours:
                if is_ours and is_left(found[1]):
                    shutil.rmtree(path, ignore_errors=True)


def read_rows(path: Path, needed: Sequence[str], layout: str) -> list[dict[str, str]]:
    """The rows of a CSV with at least the columns ``needed``; byte-order marks, semicolons and tabs are understood.

    A column without a name is called ``""``; cells are stripped; rows without any content are left out.
    """
    if not path.is_file():
        raise RfbenchError(f"{path} is missing; the layout '{layout}' needs it")
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise RfbenchError(f"{path} is not a readable CSV: {one_line(error, 120)}; save it as UTF-8 CSV") from None
    try:
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [(n or "").strip() for n in reader.fieldnames or []]
        missing = [n for n in needed if n not in columns]
        if missing:
            raise RfbenchError(f"{path} has no column '{missing[0]}'; expected at least {', '.join(needed)}")
        rows = [{(k or "").strip(): (v or "").strip() for k, v in row.items() if k is not None} for row in reader]
    except csv.Error as error:
        raise RfbenchError(f"{path} is not a readable CSV: {one_line(error, 120)}; save it as UTF-8 CSV") from None
    return [row for row in rows if any(row.values())]


def inside(root: Path, relative: str, where: str = "the manifest") -> Path:
    """The file ``relative`` below ``root``; RfbenchError if it is none, or lies elsewhere.

    A name that is written with other characters of the same look (as systems compose accents differently) is found; one
    that differs in upper and lower case is named.
    """
    try:
        path = (root / relative).resolve()
        if not path.is_file():
            path = (root / _as_on_disk(root, relative)).resolve()
        found = path.is_relative_to(root.resolve()) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # a zero byte, a name too long, links in a circle
        found = False
    if not found:
        raise RfbenchError(
            f"{where} names '{one_line(relative, 100)}', which is no file below {root}; correct it"
            + _near(root, relative)
        )
    return path


def composed(name: str) -> str:
    """A name in the one form of Unicode by which names are compared."""
    return unicodedata.normalize("NFC", name)


def _as_on_disk(root: Path, relative: str) -> str:
    """``relative`` with each part as the folder spells it, where only the form of Unicode differs."""
    here, found = root, []
    for part in Path(relative).parts:
        names = [p.name for p in here.iterdir()] if here.is_dir() and part not in ("..", "/") else []
        found.append(part if part in names else next((n for n in names if composed(n) == composed(part)), part))
        here /= found[-1]
    return str(Path(*found))


def _near(root: Path, relative: str) -> str:
    """A hint at a file whose name differs in upper and lower case alone."""
    with suppress(OSError, ValueError):
        folder = (root / relative).parent
        wanted = composed(Path(relative).name).casefold()
        near = [p.name for p in folder.iterdir() if composed(p.name).casefold() == wanted] if folder.is_dir() else []
        if near:
            return f" (there is '{one_line(near[0], 80)}': upper and lower case differ)"
    return ""


def gsd_field(side: str, place: readers.Georeference | None) -> dict[str, float]:
    """The ``gsd_m`` of a side as its file's grid has it; nothing where the grid is in no known unit."""
    if place is None or place.crs is None or place.pixel_m is None:
        return {}
    return {f"{side}_gsd_m": round(place.pixel_m[0], 3)}


def date_in(text: str) -> str:
    """The date in a product id or a file name (``20210821T210019``, ``2021-08-04``) as ISO; empty without one."""
    match = re.search(r"(?<!\d)(20\d\d)(-?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?=T\d{6}|\D|$)", text)
    return f"{match[1]}-{match[3]}-{match[4]}" if match else ""


def first_of(names: Collection[str], limit: int = 3) -> str:
    """The first names of many, for a note."""
    shown = ", ".join(f"'{one_line(n, 60)}'" for n in sorted(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
