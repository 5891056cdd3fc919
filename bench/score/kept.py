"""What set metrics kept of each image, on disk: one image's is in memory at a time, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.files import write_bytes
from bench.metrics.base import Features
from bench.metrics.scorer import ItemScores
from bench.records.folder import ROWS, Parts


def named(found: ItemScores) -> dict[str, np.ndarray]:
    """The features of an image as one file holds them: ``KIND/METRIC/KEY``."""
    return {
        f"{kind}/{name}/{key}": array
        for kind, by_metric in found.features.items()
        for name, kept in by_metric.items()
        for key, array in kept.items()
    }


class Kept(Sequence[Features]):
    """The features of a set's images for one metric and estimate, each read from its file when it is asked for.

    Attributes
    ----------
    ids : the images that have some, in the order they were given.
    """

    def __init__(
        self, load: Callable[[str], Mapping[str, np.ndarray]], ids: Sequence[str], kind: str, metric: str
    ) -> None:
        """``load`` gives all features of an image by the names of ``named``, none of an image that has none."""
        self._load, self._prefix = load, f"{kind}/{metric}/"
        self.ids: list[str] = []
        self._shapes: dict[str, list[tuple[int, ...]]] = {}
        self._types: dict[str, np.dtype[Any]] = {}
        for image_id in ids:
            found = self._of(image_id)
            if found:
                self.ids.append(image_id)
            for key, array in found.items():
                self._shapes.setdefault(key, []).append(array.shape)
                self._types[key] = array.dtype

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: Any) -> Any:
        return self._of(self.ids[i])

    def _of(self, image_id: str) -> Features:
        found = self._load(image_id)
        return {k.removeprefix(self._prefix): v for k, v in found.items() if k.startswith(self._prefix)}

    def arrays(self) -> dict[str, np.ndarray | Parts]:
        """All images' together, as ``features.safetensors`` has them.

        Stacked; where sizes differ, one after the other and the number of rows of each beside them.
        """
        whole: dict[str, np.ndarray | Parts] = {}
        for key, shapes in self._shapes.items():
            name = self._prefix + key
            if all(s == shapes[0] for s in shapes):
                shape = (len(shapes), *shapes[0])
            else:
                rows = np.array([s[0] for s in shapes], np.int64)
                shape, whole[name + ROWS] = (int(rows.sum()), *shapes[0][1:]), rows
            whole[name] = Parts(shape, self._types[key], lambda key=key: (f[key] for f in self))  # type: ignore[misc]
        return whole


class Spill:
    """A folder that takes the features of images as they are scored, for programs that keep no run folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}

    def take(self, image_id: str, found: ItemScores) -> None:
        """Move an image's features from memory into the folder."""
        from safetensors.numpy import save

        features = {k: np.ascontiguousarray(v) for k, v in named(found).items()}
        found.features.clear()
        if features:
            self._files[image_id] = self._folder / f"{len(self._files)}.safetensors"
            write_bytes(self._files[image_id], save(features))

    def load(self, image_id: str) -> Mapping[str, np.ndarray]:
        """All features of an image."""
        from safetensors.numpy import load_file

        return load_file(self._files[image_id]) if image_id in self._files else {}
