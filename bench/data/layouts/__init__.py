"""The layouts that ``rfbench data import`` reads: what each expects, and which options it takes."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line, unknown
from bench.data.dataset import parse_side
from bench.data.layouts.build import Import, Note, Tick, no_tick, silent


@dataclass(frozen=True)
class Layout:
    """A layout: the function that reads it, what a folder of it holds, and the options that it understands."""

    target: str
    expects: str
    options: tuple[str, ...] = ()

    def load(self) -> Callable[..., int]:
        """The importer."""
        module, _, name = self.target.partition(":")
        function: Callable[..., int] = getattr(importlib.import_module(module), name)
        return function


_HR_GSD = ("hr_gsd_m",)
_NUMBERS = ("scale", "offset", "gsd_m", "gamma", "nodata")
LAYOUTS: dict[str, Layout] = {
    "folder": Layout(
        "bench.data.importers:import_folder",
        "a plain folder of HR images, one with lr/ and hr/ (and pan/, mask/) inside, or x_lr.tif and x_hr.tif in one",
        ("unit", "scale", "bands", "sensor", "nodata", "offset"),
    ),
    "catalogue": Layout(
        "bench.data.importers:import_catalogue",
        "manifest.csv (id, role, kind, file, bands, value_meaning, dtype, ...), captions.csv",
        ("roles", "offset"),
    ),
    "csv": Layout(
        "bench.data.layouts.table:import_table",
        "one .csv: id, lr, hr (paths), perhaps mask, caption, scene_id, split, dates, gsd_lr_m, bands_lr, unit_hr, ...",
        ("offset", "lr_gsd_m", "hr_gsd_m"),
    ),
    "worldstrat": Layout(
        "bench.data.layouts.worldstrat:import_worldstrat",
        "hr_dataset/AOI/AOI_ps.tiff, lr_dataset/AOI/L2A/AOI-N-L2A_data.tiff, metadata.csv, stratified_..._split.csv",
        ("offset", "unit", "scale", "dates"),
    ),
    "opensr-test": Layout(
        "bench.data.layouts.opensr:import_opensr",
        "NAME/NAME.pkl (read without running it) or NAME/{L2A,L1C,hr,hr_harmonized}/*.tif, for one version",
        ("offset", "level", "reference"),
    ),
    "sen2naip": Layout(
        "bench.data.layouts.sen2naip:import_sen2naip",
        "version 1's real pairs: cross-sensor/ROI_####/{lr,hr}.tif, or the zip of it",
        ("offset",),
    ),
    "sen2venus": Layout(
        "bench.data.layouts.sen2venus:import_sen2venus",
        "version 1: SITE/index.csv, SITE/*_{10m,05m,20m}_*.pt, SITE/LICENCE; one site or a folder of sites",
        ("level",),
    ),
    "breizhsr": Layout(
        "bench.data.layouts.breizhsr:import_breizhsr",
        "dataset_train.pkl, dataset_test.pkl (tables, read without running them) and the images that they name",
        ("offset", "reference"),
    ),
    "proba-v": Layout(
        "bench.data.layouts.probav:import_probav",
        "{train,test}/{RED,NIR}/imgset####/{LR###,QM###,HR,SM}.png (one band, several LR images, HR of train alone)",
    ),
    "rts-cyber2a": Layout(
        "bench.data.layouts.rts:import_cyber2a",
        "images/*.jpg, data_split.json, coco_rts_*.json or masks/*.jpg (thaw slumps, HR only)",
        _HR_GSD,
    ),
    "rts-challenge": Layout(
        "bench.data.layouts.rts:import_challenge",
        "metadata/band_names.json, train/images/*.npz, train/annotations/*.json, test/images/*.npz (HR only)",
        _HR_GSD,
    ),
    "rts-mapping": Layout(
        "bench.data.layouts.rts_tiles:import_mapping",
        "PLANET-RGB/*.tif, labels/*.tif, metadata.csv, splits.yaml (thaw slumps, HR only, splits by region)",
        _HR_GSD,
    ),
    "rts-experts": Layout(
        "bench.data.layouts.rts_experts:import_experts",
        "01_Setup/SITE/data/{S2,PlanetScope}_*.tif, 02_UserResults/#NN/SITE_digitized.shp (thaw slumps)",
        ("offset",),
    ),
    "rts-labels": Layout(
        "bench.data.layouts.rts_tiles:import_labels",
        "data/raw/Level N/GROUP/UID.tif: R, G, B and slump mask in one float file (thaw slumps, HR only)",
        _HR_GSD,
    ),
}


def import_layout(
    layout: str,
    source: Path,
    target: Path,
    *,
    name: str,
    split: str = "test",
    note: Note = silent,
    tick: Tick = no_tick,
    sides: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> int:
    """Make the dataset folder ``target`` of ``source``; returns the number of images.

    ``options`` are those of the layout (``LAYOUTS[layout].options``); None stands for an option that was not given.
    ``sides`` says what numbers of a side mean whatever the layout believes: fields of ``Side`` by ``lr``, ``hr`` and
    ``pan``.
    ``note`` gets a line for everything that the user should know, ``tick`` a step's name, the images done and all of
    them. Raises RfbenchError for an unknown layout, an option of another layout, and whatever is wrong with the folder.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    given = {key: value for key, value in options.items() if value not in (None, ())}
    for key in given:
        if key not in LAYOUTS[layout].options:
            owners = [n for n, found in LAYOUTS.items() if key in found.options]
            flag = {"roles": "role"}.get(key, key.replace("_", "-"))
            raise RfbenchError(f"--{flag} belongs to {' and '.join(owners)}, not to {layout}; leave it out")
    # Names from a command line or a file may hold bytes that are no text.
    job = Import(
        source, target, one_line(name, 200) or "dataset", one_line(split, 200), lambda text: note(one_line(text, 600)),
        tick, sides or {},
    )  # fmt: skip
    if given.get("offset", 0) > 0:
        job.note(f"--offset {given['offset']:g} is added to the stored numbers; products with +1000 need -1000")
    for side, said in job.sides.items():
        parse_side(dict(said), f"--{side}")
    job.check_folders()
    return LAYOUTS[layout].load()(job, **given)


def parse_sides(options: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """``{"hr": ["unit=reflectance bands='B G R NIR'"]}`` as fields of ``Side`` by side.

    Raises RfbenchError for what is no KEY=VALUE, an unknown key and a value of another type.
    """
    found: dict[str, dict[str, Any]] = {}
    for side, texts in options.items():
        for text in texts:
            try:
                words = shlex.split(text)
            except ValueError as error:
                raise RfbenchError(f"--{side} '{one_line(text, 80)}': {error}; close the quotation") from None
            for word in words:
                key, is_pair, value = word.partition("=")
                if not is_pair:
                    raise RfbenchError(
                        f"--{side}: found '{one_line(word, 60)}', expected KEY=VALUE such as unit=reflectance "
                        "scale=10000 bands='B G R NIR'"
                    )
                found.setdefault(side, {})[key] = _number(value) if key in _NUMBERS else value
        if side in found:
            parse_side(found[side], f"--{side}")
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # parse_side says what it should be
