"""Retrogressive thaw slumps of Yang et al. 2023 in their two public forms: HR images with COCO masks, no LR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.files import read_json
from bench.data import readers
from bench.data.bands import canonical
from bench.data.coco import CocoImage, read_coco
from bench.data.layouts.build import Builder, Import, Note

RGB = ("R", "G", "B")
LICENCE = "no licence given; ask the authors before redistribution"
CITATION = (
    "Yang et al.: Mapping retrogressive thaw slumps using deep neural networks, Remote Sensing of Environment 2023"
)
_PICTURES = (".jpg", ".jpeg", ".png")
_JPEG_THRESHOLD = 127  # masks are JPEGs of 9 to 17 grey levels
_GSD_NOTE = (
    "the files do not say their ground sampling distance, and publications differ (Maxar at 2 m, at 4 m): give "
    "--hr-gsd-m if you know it"
)


def hr_info(job: Import, description: str, hr_gsd_m: float | None) -> dict[str, Any]:
    """The dataset.json of an HR-only dataset of thaw slumps in display numbers."""
    hr = {"unit": "display", "scale": 255, "bands": "R G B", "normalisation": "display"}
    return {"name": job.name, "description": description, "licence": LICENCE, "citation": CITATION,
            "hr": hr | ({"gsd_m": hr_gsd_m} if hr_gsd_m else {})}  # fmt: skip


def import_cyber2a(job: Import, *, hr_gsd_m: float | None = None) -> int:
    """Make an HR-only dataset of the teaching copy (``images``, ``data_split.json``, COCO files); number of images.

    Masks come from the COCO polygons, or where an image has none from the thresholded mask JPEG. The list ``train``
    becomes the split train, ``valtest`` (which the publisher does not divide) and images in no list the split
    ``split``.
    """
    images = {p.name: p for p in sorted((job.source / "images").glob("*")) if p.suffix.lower() in _PICTURES}
    if not images:
        raise RfbenchError(
            f"{job.source / 'images'} holds no picture; give the folder with images/ and data_split.json"
        )
    split_of = _split_lists(job)
    coco: dict[str, CocoImage] = {}
    for path in sorted(job.source.glob("coco*.json")):
        coco |= read_coco(path)
    for missing, text in (
        (split_of.keys() - images.keys(), "named in data_split.json are no file in images/"),
        (images.keys() - split_of.keys(), f"are in no list of data_split.json and go to '{job.split}'"),
        (coco.keys() - images.keys(), "of the COCO files are no file in images/"),
    ):
        if split_of:
            job.note_names("images", missing, text)
    if not coco:
        job.note("no coco*.json was found: masks come from masks/ alone")
    if not hr_gsd_m:
        job.note(_GSD_NOTE)
    differing = []
    with job.building() as builder:
        builder.expect(len(images))
        for file_name, path in images.items():
            try:
                mask, agrees = _slump_mask(job.source, path, coco.get(file_name), builder.note)
            except RfbenchError as error:
                builder.note(f"{file_name} is left out: {error}")
                continue
            row = {"id": path.stem, "split": split_of.get(file_name, job.split), "hr": builder.copy(path, "hr")}
            if mask is not None:
                row["mask"] = builder.mask(mask, path.stem)
            differing += [] if agrees else [path.stem]
            builder.add(row)
        job.note_names(
            "images", differing, "have COCO polygons and a mask JPEG that share less than 70 % of their area; the "
            "polygons were taken",
        )  # fmt: skip
        return builder.finish(hr_info(job, "thaw slumps, teaching copy (HR only)", hr_gsd_m), skip_broken=True)


def _split_lists(job: Import) -> dict[str, str]:
    path = job.source / "data_split.json"
    if not path.is_file():
        job.note(f"data_split.json is missing: every image goes to '{job.split}'")
        return {}
    lists = read_json(path)
    if not isinstance(lists, dict) or not all(
        isinstance(v, list) and all(isinstance(n, str) for n in v) for v in lists.values()
    ):
        raise RfbenchError(f"{path}: expected an object of lists of file names, such as 'train' and 'valtest'")
    found: dict[str, str] = {}
    for key, names in lists.items():
        for file_name in names:
            file_name = file_name if Path(file_name).suffix.lower() in _PICTURES else f"{file_name}.jpg"
            if file_name in found:
                raise RfbenchError(f"{path}: '{one_line(file_name, 80)}' comes twice; an image belongs to one split")
            found[file_name] = job.split if key == "valtest" else one_line(key, 40)
    return found


def _slump_mask(source: Path, path: Path, image: CocoImage | None, note: Note) -> tuple[np.ndarray | None, bool]:
    """The mask of an image, and whether its two sources agree (True where there is one)."""
    drawn = None
    jpeg = source / "masks" / path.name
    if jpeg.is_file():
        drawn = readers.read(jpeg).values.max(axis=2) > _JPEG_THRESHOLD
    if image is None:
        return drawn, True
    size = readers.read(path).values.shape[:2]
    if image.size != size:
        note(f"{path.name}: COCO says {image.size[0]}x{image.size[1]} px, the file has {size[0]}x{size[1]}; left out")
        return (drawn, True) if drawn is not None and drawn.shape == size else (None, True)
    mask = image.mask()
    if drawn is None or drawn.shape != mask.shape:
        return mask, True
    return mask, bool((mask & drawn).sum() >= 0.7 * max((mask | drawn).sum(), 1) or not (mask | drawn).any())


def import_challenge(job: Import, *, hr_gsd_m: float | None = None) -> int:
    """Make an HR-only dataset of the challenge package (``train/images/*.npz`` of 8 channels); number of images.

    Red, green and blue are found by their names in ``metadata/band_names.json`` and written as GeoTIFF; the other
    channels are of other units (indices, elevation, NIR of another sensor) and are left out.
    """
    names = _band_names(job.source / "metadata" / "band_names.json")
    files = {s: sorted((job.source / s / "images").glob("*.npz")) for s in ("train", "test")}
    if not any(files.values()):
        raise RfbenchError(
            f"{job.source} holds no train/images/*.npz and no test/images/*.npz; give the unpacked package"
        )
    types: dict[str, int] = {}
    if not hr_gsd_m:
        job.note(_GSD_NOTE)
    job.note(f"of the bands {' '.join(names)} only red, green, blue are taken; the others are of other units")
    with job.building() as builder:
        builder.expect(sum(map(len, files.values())))
        for part, paths in files.items():
            coco: dict[str, CocoImage] = {}
            for path in sorted((job.source / part / "annotations").glob("*.json")):
                coco |= {Path(n).stem: i for n, i in read_coco(path).items()}
            bare = [p.stem for p in paths if p.stem not in coco]
            if coco:
                job.note_names(f"images of '{part}'", bare, "have no entry in its COCO file, so no mask")
            for path in paths:
                row = _challenge_row(builder, path, names, coco.get(path.stem), types)
                if row:
                    builder.add(row | {"split": "train" if part == "train" else job.split})
        if types:
            job.note(f"images are stored as {', '.join(f'{t} ({n})' for t, n in sorted(types.items()))}")
        return builder.finish(hr_info(job, "thaw slumps, challenge package (HR only)", hr_gsd_m), skip_broken=True)


def _band_names(path: Path) -> list[str]:
    names = read_json(path)
    if isinstance(names, dict):
        # Either {"bands": [...]} or {"0": "red", ...}.
        lists = [v for v in names.values() if isinstance(v, list)]
        names = lists[0] if lists else [v for _, v in sorted(names.items(), key=lambda item: str(item[0]).zfill(4))]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise RfbenchError(f"{path}: expected a list of band names, such as red, green, blue, ndvi, ...")
    known = [canonical(n) for n in names]
    missing = [b for b in RGB if known.count(b) != 1]
    if missing:
        raise RfbenchError(
            f"{path}: found the bands {one_line(' '.join(names), 120)}, expected red, green and blue once"
        )
    return [one_line(n, 40) for n in names]


def _challenge_row(
    builder: Builder, path: Path, names: list[str], image: CocoImage | None, types: dict[str, int]
) -> dict[str, Any] | None:
    try:
        raster = readers.read(path, bands=len(names))
        if raster.values.shape[2] != len(names):
            raise RfbenchError(f"{path}: found the shape {raster.values.shape}, expected {len(names)} channels")
        order = [canonical(n) for n in names]
        rgb = raster.values[:, :, [order.index(b) for b in RGB]]
        finite = rgb[np.isfinite(rgb)] if rgb.dtype.kind == "f" else rgb
        if finite.size == 0 or finite.min() < 0 or finite.max() > 255:
            raise RfbenchError(f"{path}: red, green, blue are expected as 0 to 255 and are not; look at the file")
        mask = image.mask() if image else None
    except RfbenchError as error:
        builder.note(f"{path.name} is left out: {error}")
        return None
    types[raster.values.dtype.name] = types.get(raster.values.dtype.name, 0) + 1
    whole = rgb.dtype.kind in "ui" or bool(np.isfinite(rgb).all() and (rgb == np.rint(rgb)).all())
    stored = rgb.astype(np.uint8 if whole else np.float32)
    row: dict[str, Any] = {"id": path.stem, "hr": builder.write(stored, RGB, "hr", path.stem)}
    if mask is not None and mask.shape == rgb.shape[:2]:
        row["mask"] = builder.mask(mask, path.stem)
    elif mask is not None:
        builder.note(f"{path.name}: its COCO size is not that of its image; the mask is left out")
    return row
