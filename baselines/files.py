"""``files``: predictions that some other program made, one image file a pair, named by the pair's id.

``rfbench run --model files:folder=DIR --protocol paired`` scores ``DIR/<id>.png`` (or tif, npy, npz) as if a model
had just made them. Pictures and float arrays in [0, 1] are display images; with ``unit=reflectance`` the files hold
reflectance (integers: x 10000).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from bench.models import (
    SUFFIXES,
    Adapter,
    Batch,
    ModelSpec,
    Prediction,
    RfbenchError,
    Side,
    digest,
    read_image,
    safe_name,
    sha256,
)

FILES = ModelSpec(
    name="files",
    adapter="baselines.files:Files",
    summary="predictions from a folder: files:folder=DIR",
    default_options={"folder": "", "unit": "display", "bands": "R G B", "scale": "", "label": ""},
    path_options=("folder",),
    needs_options=("folder",),
    dtypes=("float32",),
    licence="Apache-2.0",
    status="ready",
)


_ENDINGS = " ".join(SUFFIXES)


class Files(Adapter):
    """Reads the answer instead of computing it."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        if not options["folder"]:
            raise RfbenchError("needs the option folder; write --model files:folder=DIR")
        self.folder = Path(options["folder"])
        if not self.folder.is_dir():
            raise RfbenchError(f"folder {self.folder} is not a folder; give the folder that holds <id>.png")
        if options["unit"] not in ("display", "reflectance"):
            raise RfbenchError(f"option unit: found '{options['unit']}', expected display or reflectance")
        try:
            scale = float(options["scale"]) if options["scale"] else None
        except ValueError:
            raise RfbenchError(f"option scale: found '{options['scale']}', expected a number") from None
        unit: Any = options["unit"]
        self.side = Side(unit=unit, bands=options["bands"], scale=scale)

    def label(self) -> str:
        return self.options["label"] or self.folder.resolve().name

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        unit: Any = self.options["unit"]
        return dataclasses.replace(spec, output_unit=unit)

    def identity(self) -> dict[str, Any]:
        files = sorted(p for p in self.folder.iterdir() if p.suffix.lower() in SUFFIXES)
        return {"files_sha256": digest([[p.name, sha256(p)] for p in files])}

    def upscale(self, batch: Batch) -> Prediction:
        images = []
        for name in batch.ids:
            image = read_image(self._path(name), self.side)
            if image.size != batch.size:
                raise RfbenchError(
                    f"{self._path(name)}: found {image.size[0]}x{image.size[1]} px, expected "
                    f"{batch.size[0]}x{batch.size[1]} px; make it on the reference's grid"
                )
            if not image.valid.all():
                raise RfbenchError(f"{self._path(name)}: found pixels without data, expected none; fill them")
            images.append(image.values)
        return Prediction(mean=np.stack(images))

    def _path(self, name: str) -> Path:
        # The id itself, as another program would name its file, or what 'rfbench export' makes of it.
        stems = [n for n in dict.fromkeys((name, safe_name(name))) if "/" not in n and "\\" not in n]
        for stem in stems:
            for suffix in SUFFIXES:
                path = self.folder / (stem + suffix)
                if path.is_file():
                    return path
        wanted = " or ".join(f"'{stem}'" for stem in stems)
        raise RfbenchError(f"found no image for '{name}' in the folder, expected {wanted} with an ending of {_ENDINGS}")
