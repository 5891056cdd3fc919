"""BreizhSR: a year of Sentinel-2 over Brittany with SPOT-6 at 2.5 m, of MISR-S2's authors.

``dataset_train.pkl`` and ``dataset_test.pkl`` are pickled tables with a row a place: ``spot6_image`` (a path),
``sen2_acquisitions`` (paths by their days from the SPOT-6 date), ``dates_spot6``. They are read without running them.
The published numbers are against an HR whose histogram was matched to each item's LR; here that is a variant of its own
(``--reference histogram``), and the HR as it is the default.
"""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.data import readers
from bench.data.frames import load_frame
from bench.data.layouts.build import Builder, Import

_BANDS = ("R", "G", "B")
_COLUMNS = ("spot6_image", "sen2_acquisitions")
REFERENCES = ("raw", "histogram")
_CITATION = (
    "Okabayashi et al.: Cross-sensor super-resolution of irregularly sampled Sentinel-2 time series, CVPRW 2024 "
    "(Zenodo 11551220)"
)


def import_breizhsr(job: Import, *, offset: float | None = None, reference: str = "raw") -> int:
    """Make a dataset of BreizhSR's folder; returns the number of images.

    The LR is the date nearest to the SPOT-6 image, all dates are its series. ``reference`` is ``raw`` (8-bit SPOT-6),
    or ``histogram``: each band of the HR brought to the distribution of the LR's, as reflectance.
    """
    if reference not in REFERENCES:
        raise RfbenchError(f"--reference: found '{one_line(reference, 40)}', expected {' or '.join(REFERENCES)}")
    tables = {split: job.source / f"dataset_{split}.pkl" for split in ("train", "test")}
    tables = {split: path for split, path in tables.items() if path.is_file()}
    if not tables:
        raise RfbenchError(f"{job.source} holds no dataset_train.pkl and no dataset_test.pkl; give BreizhSR's folder")
    with job.building() as builder:
        facts: Counter[str] = Counter()
        for split, path in tables.items():
            columns = load_frame(path)
            missing = [c for c in _COLUMNS if c not in columns]
            if missing:
                raise RfbenchError(f"{path} has no column '{missing[0]}'; its columns are {', '.join(columns)}")
            dates = columns.get("dates_spot6", [None] * len(columns[_COLUMNS[0]]))
            rows = zip(*(columns[c] for c in _COLUMNS), dates, strict=True)
            for i, (spot, acquisitions, date) in enumerate(rows):
                row = _row(builder, job.source, f"{split}_{i:05d}", spot, acquisitions, date, reference, facts)
                if row is not None:
                    builder.add(row | {"split": split})
        for fact, n in sorted(facts.items()):
            job.note(f"{n} {fact}")
        if reference == "histogram":
            job.note(
                "HR images are matched to their LR band by band; MISR-S2's own preparation also stretches them, so its "
                "published numbers are near, not the same"
            )
        lr: dict[str, Any] = {"unit": "reflectance", "scale": 10000, "normalisation": "fixed[0,3000]", "gsd_m": 10}
        hr = {"unit": "display", "scale": 255} if reference == "raw" else {
            "unit": "reflectance", "normalisation": "fixed[0,3000]"}  # fmt: skip
        return builder.finish(
            {"name": job.name, "licence": "not stated in the files; see the Zenodo record", "citation": _CITATION,
             "description": f"BreizhSR, HR {reference}",
             "lr": lr | {"bands": " ".join(_BANDS), "sensor": "Sentinel-2 L2A"}
             | ({"offset": offset} if offset is not None else {}),
             "hr": hr | {"bands": " ".join(_BANDS), "gsd_m": 2.5, "sensor": "SPOT-6"}},
            skip_broken=True,
        )  # fmt: skip


def _row(
    builder: Builder, source: Path, stem: str, spot: Any, acquisitions: Any, date: Any, reference: str,
    facts: Counter[str],
) -> dict[str, Any] | None:  # fmt: skip
    """Copy an item; None where its files are not there or not as they should be, which is counted."""
    if not isinstance(spot, str) or not isinstance(acquisitions, dict) or not acquisitions:
        facts["rows name no SPOT-6 image or no Sentinel-2 date and are left out"] += 1
        return None
    days = sorted((k for k in acquisitions if isinstance(k, int)), key=lambda n: (abs(n), n))
    try:
        frames = {n: readers.read(_found(source, acquisitions[n])) for n in sorted(days)}
        high = readers.read(_found(source, spot))
    except RfbenchError as error:
        facts["items lack a file or have a broken one and are left out"] += 1
        builder.note(f"{stem}: left out: {error}")
        return None
    stacks = [raster.values for raster in frames.values()]
    if {s.shape for s in stacks} != {stacks[0].shape} or any(s.shape[2] != len(_BANDS) for s in (*stacks, high.values)):
        facts["items whose dates differ in size, or that are not R G B, are left out"] += 1
        return None
    nearest = frames[days[0]].values
    if nearest.shape[0] != nearest.shape[1]:
        facts["items are not square, which the published protocol leaves out; they are kept"] += 1
    target = date[:10] if isinstance(date, str) else ""
    row: dict[str, Any] = {
        "id": stem, "scene_id": stem, "lr": builder.write(nearest, _BANDS, "lr", stem),
        "series": builder.series(np.stack(stacks), [_date(target, n) for n in frames], _BANDS, stem),
        "hr_date": target, "lr_date": _date(target, days[0]),
    }  # fmt: skip
    hr = high.values
    if reference == "histogram":
        from skimage.exposure import match_histograms

        hr = match_histograms(hr.astype(np.float32), nearest.astype(np.float32) / 10000, channel_axis=2)
        hr = hr.astype(np.float32)
    return row | {"hr": builder.write(hr, _BANDS, "hr", stem)}


def _found(source: Path, text: Any) -> Path:
    """The file that a table names, which was written on another machine: the longest end of its path that is here."""
    parts = Path(str(text)).parts
    for start in range(len(parts)):
        path = source.joinpath(*(p for p in parts[start:] if p not in ("/", "..")))
        if path.is_file() and path.resolve().is_relative_to(source.resolve()):
            return path
    raise RfbenchError(f"'{one_line(text, 100)}' is no file below {source}")


def _date(target: str, days: int) -> str:
    """The date so many days from the target; empty where that is not known."""
    try:
        return (datetime.date.fromisoformat(target) + datetime.timedelta(days)).isoformat()
    except (ValueError, OverflowError):
        return ""
