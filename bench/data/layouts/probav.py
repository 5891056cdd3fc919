"""PROBA-V, the set of ESA's Kelvin competition: many LR images of 128x128 px of a place, one HR of 384x384, one band.

``{train,test}/{RED,NIR}/imgset####/{LR###,QM###,HR,SM}.png``: 16-bit files of 14-bit numbers, with a quality map of
each LR and a status map of the HR (0: clouded or shadowed). ``test`` has no HR. The HR is not registered to any LR,
which is why the competition's score tries 7x7 shifts. The numbers have no absolute level here and are relative; several
loaders divide them by 65535, which leaves 12.04 dB of any PSNR to the empty range.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError
from bench.data import readers
from bench.data.layouts.build import Builder, Import

LARGEST = 2**14 - 1
_NODATA = 65535  # beyond 14 bits, so that no number is taken for it
_BANDS = {"RED": "R", "NIR": "NIR"}
_SIZES = {"LR": (128, 128), "HR": (384, 384)}
_CITATION = "Martens et al.: Super-Resolution of PROBA-V Images Using Convolutional Neural Networks, Astrodynamics 2019"


def import_probav(job: Import) -> int:
    """Make a dataset of the competition's folder; returns the number of images.

    The LR is the one with the most clear pixels (of two as clear the first); all of a set are its series, in the order
    of their numbers, since the set gives no dates. Unclear pixels of either side are no data.
    """
    sets = sorted(
        p for split in ("train", "test") for band in _BANDS for p in (job.source / split / band).glob("imgset*")
    )
    if not sets:
        raise RfbenchError(f"{job.source} holds no train/RED/imgset0000; give the folder that probav_data unpacks to")
    with job.building() as builder:
        builder.expect(len(sets))
        for folder in sets:
            builder.add(_row(builder, folder))
        without = sum("hr" not in row for row in builder.rows)
        if without:
            job.note(f"{without} sets have no HR (the competition kept it) and can be run, not scored")
        side = {"unit": "relative", "scale": LARGEST, "nodata": _NODATA, "normalisation": "percentile[2,98]"}
        info: dict[str, Any] = {
            "name": job.name, "licence": "no licence found; of ESA's Kelvin competition", "citation": _CITATION,
            "description": "PROBA-V super-resolution; HR not registered to the LR",
            "lr": side | {"gsd_m": 300, "sensor": "PROBA-V"}, "hr": side | {"gsd_m": 100, "sensor": "PROBA-V"},
        }  # fmt: skip
        return builder.finish(info, skip_broken=True)


def _row(builder: Builder, folder: Path) -> dict[str, Any]:
    split, band = folder.parent.parent.name, _BANDS[folder.parent.name]
    stem = f"{folder.parent.name}_{folder.name}"
    lows = sorted(folder.glob("LR*.png"))
    if not lows:
        raise RfbenchError(f"{folder} holds no LR000.png; get the archive again")
    read = [_masked(path, path.with_name(path.name.replace("LR", "QM")), "LR") for path in lows]
    clear = [int((values != _NODATA).sum()) for values in read]
    best = int(np.argmax(clear))
    row: dict[str, Any] = {
        "id": stem, "scene_id": stem, "split": split,
        "lr": builder.write(read[best], (band,), "lr", stem),
        "series": builder.series(np.stack(read), [""] * len(read), (band,), stem),
        "lr_bands": band, "hr_bands": band,
    }  # fmt: skip
    if (folder / "HR.png").is_file():
        row["hr"] = builder.write(_masked(folder / "HR.png", folder / "SM.png", "HR"), (band,), "hr", stem)
    return row


def _masked(path: Path, mask: Path, side: str) -> np.ndarray:
    """The numbers of an image, uint16 (h, w, 1), with those that its map calls unclear as no data."""
    values, clear = (readers.read(p).values for p in (path, mask))
    for found, where in ((values, path), (clear, mask)):
        if found.shape != (*_SIZES[side], 1):
            raise RfbenchError(f"{where}: found {found.shape}, expected one band of {_SIZES[side][0]} px a side")
    if values.dtype != np.uint16 or values.max() > LARGEST:
        raise RfbenchError(f"{path}: found {values.dtype} up to {values.max()}, expected 14-bit numbers of uint16")
    return np.where(clear > 0, values, np.uint16(_NODATA)).astype(np.uint16)
