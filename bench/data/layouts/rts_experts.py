"""Thaw slumps drawn by a dozen experts (RTSInTrain): Sentinel-2 and, where one has it, PlanetScope of whole sites.

LR is Sentinel-2 at 10 m without band names (the set's README.txt has their order), HR is PlanetScope at 3.125 m in the
order B, G, R, NIR. The two grids are not aligned and their ratio is 3.2, so HR is cut to the nearest pixels of what LR
covers. The mask is what at least half of a site's experts drew.
"""

from __future__ import annotations

import dataclasses
import glob
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError
from bench.core.image import Mask
from bench.data import readers
from bench.data.bands import canonical
from bench.data.layouts.build import Builder, Import, date_in, gsd_field
from bench.data.readers import Georeference, Part, Raster
from bench.data.shapefile import read_polygons

# Two numbers of bands are published, in the order of README.txt.
_LR_BANDS = {7: "B02 B03 B04 B05 B06 B07 B08", 10: "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"}
_HR_BANDS = ("B", "G", "R", "NIR")
_LICENCE = "MIT (repository); Sentinel-2: Copernicus; PlanetScope: Planet's terms, ask before redistribution"
_CITATION = (
    "Nitze et al.: A labeling intercomparison of retrogressive thaw slumps by a diverse group of domain experts, "
    "2024, doi:10.31223/X55M4P"
)


def import_experts(job: Import, *, offset: float | None = None) -> int:
    """Make a dataset of ``01_Setup/SITE/data`` and ``02_UserResults/#NN/SITE_digitized.shp``; number of images.

    A site is one image. Without its PlanetScope file, which is a large file that a plain copy of the repository lacks,
    it has an LR alone. ``offset`` is added to the LR's stored numbers.
    """
    setup = job.source / "01_Setup"
    sites = sorted({p.parent.parent for p in setup.glob("*/data/S2_*.tif")})
    if not sites:
        raise RfbenchError(f"{setup} holds no SITE/data/S2_*.tif; give the folder with 01_Setup/ and 02_UserResults/")
    job.note("Landsat 8 and ArcticDEM are not imported: they are neither LR nor HR here")
    with job.building() as builder:
        builder.expect(len(sites))
        for folder in sites:
            try:
                lr = _Side.of(folder, "S2_*.tif", "Sentinel-2")
                bands = _band_order(lr)
            except RfbenchError as error:
                builder.note(f"{folder.name} is left out: {error}")
                continue
            lr, hr = _cut(builder, folder, lr)
            row = _pair(builder, folder.name, lr, bands, hr)
            mask = _votes(builder, job.source / "02_UserResults", folder.name, hr or lr)
            if mask is not None:
                row["mask"] = builder.mask(mask, folder.name)
            builder.add(row | {"split": job.split} | ({"lr_offset": offset} if offset is not None else {}))
        side = {"unit": "reflectance", "scale": 10000, "normalisation": "fixed[0,3000]"}
        info: dict[str, Any] = {
            "name": job.name, "description": "thaw slumps drawn by experts (RTSInTrain)",
            "licence": _LICENCE, "citation": _CITATION,
            "lr": side | {"gsd_m": 10, "sensor": "Sentinel-2, top of atmosphere"},
            "hr": side | {"bands": " ".join(_HR_BANDS), "sensor": "PlanetScope, surface reflectance"},
        }  # fmt: skip
        return builder.finish(info, skip_broken=True)


@dataclasses.dataclass(frozen=True)
class _Side:
    """A file, where it lies, and the part of it that is taken."""

    path: Path
    place: Georeference
    part: Part

    @classmethod
    def of(cls, folder: Path, pattern: str, what: str) -> _Side:
        """The one file of a site that fits; RfbenchError for none, for several, and for one without a place."""
        paths = sorted((folder / "data").glob(pattern))
        if len(paths) != 1:
            raise RfbenchError(f"{folder / 'data'} holds {len(paths)} {what} files ({pattern}), expected one")
        readers.read(paths[0], part=(slice(0, 1), slice(0, 1)))  # a file that is no image says so more plainly here
        place = readers.georeference(paths[0])
        if place is None or place.crs is None:
            raise RfbenchError(f"{paths[0]} does not say where it lies, expected a GeoTIFF with a CRS; get it again")
        return cls(paths[0], place, (slice(0, place.size[0]), slice(0, place.size[1])))

    @property
    def is_whole(self) -> bool:
        """Whether all of the file is taken."""
        return self.size == self.place.size

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the part in pixels."""
        return self.part[0].stop - self.part[0].start, self.part[1].stop - self.part[1].start

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the part."""
        rows, columns = self.part
        left, _, _, top = self.place.bounds
        height, width = self._pixel
        return (
            left + columns.start * width, top - rows.stop * height,
            left + columns.stop * width, top - rows.start * height,
        )  # fmt: skip

    @property
    def _pixel(self) -> tuple[float, float]:
        left, bottom, right, top = self.place.bounds
        return (top - bottom) / self.place.size[0], (right - left) / self.place.size[1]

    def within(self, bounds: tuple[float, float, float, float], *, nearest: bool) -> _Side:
        """The part within ``bounds``: to the nearest pixels, or only pixels that lie in them whole."""
        left, bottom, right, top = bounds
        height, width = self._pixel
        edges = [
            ((self.place.bounds[3] - top) / height, (self.place.bounds[3] - bottom) / height, self.place.size[0]),
            ((left - self.place.bounds[0]) / width, (right - self.place.bounds[0]) / width, self.place.size[1]),
        ]
        slices = []
        for first, last, count in edges:
            # A thousandth of a pixel is rounding of coordinates and no part of the next one.
            low, high = (round(first), round(last)) if nearest else (math.ceil(first - 1e-3), math.floor(last + 1e-3))
            slices.append(slice(max(low, 0), min(high, count)))
        return dataclasses.replace(self, part=(slices[0], slices[1]))

    def read(self, bands: int) -> Raster:
        """The pixels of the part, 0 where there is no data."""
        raster = readers.read(self.path, bands=bands, part=self.part)
        return dataclasses.replace(raster, values=np.where(raster.valid[:, :, None], raster.values, 0))

    def write(self, builder: Builder, bands: Sequence[str], kind: str, stem: str) -> str:
        """Write the part as an image of its own that lies where it lay; its path in the dataset."""
        place = Georeference.north_up(self.place.crs, self.bounds, self.size, self.place.pixel_m)
        return builder.write(self.read(len(bands)).values, bands, kind, stem, place=place)


def _band_order(lr: _Side) -> tuple[str, ...]:
    """The bands of a Sentinel-2 file: its own names, or the published order of as many."""
    raster = lr.read(10)
    count = raster.values.shape[2]
    if raster.bands is None and count not in _LR_BANDS:
        raise RfbenchError(f"{lr.path}: found {count} bands without names, expected 7 or 10")
    if raster.values.dtype.kind not in "ui":
        raise RfbenchError(f"{lr.path}: found {raster.values.dtype} numbers, expected integers, reflectance x 10000")
    return tuple(map(canonical, raster.bands or _LR_BANDS[count].split()))


def _cut(builder: Builder, folder: Path, lr: _Side) -> tuple[_Side, _Side | None]:
    """Both sides, cut to what both cover: whole pixels of the LR. No HR (with a note) where there is none to use."""
    try:
        hr = _Side.of(folder, "PlanetScope_*.tif", "PlanetScope")
        if hr.place.crs != lr.place.crs:
            raise RfbenchError(f"{hr.path} is in {hr.place.crs}, the Sentinel-2 file in {lr.place.crs}")
        common = lr.within(hr.place.bounds, nearest=False)
        hr = hr.within(common.bounds, nearest=True)
        if min(*common.size, *hr.size) < 1:
            raise RfbenchError(f"{hr.path} does not lie where the Sentinel-2 file does")
        found = hr.read(4).values.shape[2]
        if found != 4:
            raise RfbenchError(f"{hr.path}: found {found} bands, expected blue, green, red and near infrared")
    except RfbenchError as error:
        builder.note(f"{folder.name} has an LR alone: {error}")
        return lr, None
    if not common.is_whole:
        height, width = common.size
        builder.note(f"{folder.name}: {height}x{width} px of the LR are taken, which the PlanetScope file covers")
    pixel = (hr.bounds[2] - hr.bounds[0]) / hr.size[1]
    shift_px = max(abs(a - b) for a, b in zip(common.bounds, hr.bounds, strict=True)) / pixel
    if shift_px > 0.01:
        builder.note(f"{folder.name}: the grids do not meet; HR lies up to {shift_px:.2g} of its pixels off")
    return common, hr


def _pair(builder: Builder, site: str, lr: _Side, bands: tuple[str, ...], hr: _Side | None) -> dict[str, Any]:
    """Write the images of a site; its row of the manifest."""
    row: dict[str, Any] = {"id": site, "lr_bands": " ".join(bands), "lr_nodata": 0, "lr_date": date_in(lr.path.stem)}
    row |= gsd_field("lr", lr.place)
    row["lr"] = builder.copy(lr.path, "lr", site) if lr.is_whole else lr.write(builder, bands, "lr", site)
    if hr is None:
        return row
    row |= {"hr": hr.write(builder, _HR_BANDS, "hr", site), "hr_nodata": 0, "hr_date": date_in(hr.path.stem)}
    row |= gsd_field("hr", hr.place)
    # That HR is reflectance x 10000 is believed and not known; then its median is neither black nor white.
    raster = hr.read(4)
    valid = raster.values[raster.valid]
    if valid.dtype.kind not in "ui" or not valid.size or not 50 < float(np.median(valid)) < 10000:
        builder.note(f"{site}: HR is {valid.dtype} and no reflectance x 10000 as believed; taken as relative numbers")
        row |= {"hr_unit": "relative", "hr_scale": 1, "hr_normalisation": "percentile[2,98]"}
    return row


def _votes(builder: Builder, results: Path, site: str, side: _Side) -> Mask | None:
    """Where at least half of the experts drew a slump; None (with a note) where nobody's file can be read."""
    votes, experts = np.zeros(side.size, np.uint16), 0
    assert side.place.crs is not None
    for path in sorted(results.glob(f"*/{glob.escape(site)}_digitized.shp")):
        try:
            votes += read_polygons(path).mask(side.size, side.place.crs, side.bounds)
            experts += 1
        except RfbenchError as error:
            builder.note(f"{site}: one expert less, {path.parent.name}: {error}")
    if not experts:
        builder.note(f"{site} has no mask: no {results.name}/#NN/{site}_digitized.shp could be read")
        return None
    mask: Mask = 2 * votes >= experts
    builder.note(
        f"{site}: the mask ({mask.mean():.2%} of the pixels) is what at least {-(-experts // 2)} of {experts} experts "
        f"drew; {(votes > 0).mean():.2%} were drawn by one or more"
    )
    return mask
