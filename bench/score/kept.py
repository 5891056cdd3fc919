"""What metrics of the set kept of each image, on disk: one image's is in memory at a time, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.metrics.base import Features
from bench.records.scores import ROWS, Parts


class Kept(Sequence[Features]):
    """The features of a set's images for one metric and estimate, each read from its file when it is asked for.

    Attributes
    ----------
    ids : the images that have some, in the order they were given.
    """

    def __init__(self, load: Callable[[str], Mapping[str, np.ndarray]], ids: Sequence[str], prefix: str) -> None:
        """``load`` gives all features of an image by name, none of an image that has none; ``prefix`` is what the names
        of this metric's and estimate's begin with."""
        self._load, self._prefix = load, prefix
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

    def arrays(self, prefix: str) -> dict[str, np.ndarray | Parts]:
        """All images' together under names that begin with ``prefix``, as ``features.safetensors`` has them.

        Stacked; where sizes differ, one after the other and the number of rows of each beside them.
        """
        whole: dict[str, np.ndarray | Parts] = {}
        for key, shapes in self._shapes.items():
            name = prefix + key
            if all(s == shapes[0] for s in shapes):
                shape = (len(shapes), *shapes[0])
            else:
                rows = np.array([s[0] for s in shapes], np.int64)
                shape, whole[name + ROWS] = (int(rows.sum()), *shapes[0][1:]), rows
            whole[name] = Parts(shape, self._types[key], lambda key=key: (f[key] for f in self))  # type: ignore[misc]
        return whole
