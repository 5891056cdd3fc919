"""What training reads over and over: 8-bit HR images and the latents z0 = E(HR), x~ = E(up(LR)), in mapped files.

Chips are grouped into buckets of one padded size; a bucket is one array on disk for each kind, so that memory does not
grow with the data. A cache is for one data fingerprint and one VAE; its key says which.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rareflow.config import AugmentConfig
from rareflow.degrade import degrade_at_random
from rareflow.errors import RareflowError
from rareflow.images import next_multiple, pad_to, upsample
from rareflow.networks import Codec
from rareflow.train.chips import Array, Chip, checked, stream

Size = tuple[int, int]

_KINDS = {"pixels": ("hr", "up"), "latents": ("z0", "x")}
"""The files that an index vouches for."""


@dataclass(frozen=True)
class Item:
    """A copy of a chip in the cache: its bucket, its row there, and the part of the padded grid that is image."""

    chip: Chip
    bucket: Size
    row: int
    valid: Size
    copy: int = 0
    degraded: bool = False

    @property
    def name(self) -> str:
        """The chip's id; of a further copy, with its number."""
        return f"{self.chip.id}#{self.copy}" if self.copy else self.chip.id


class Cache:
    """Pixels and latents of chips, made once and mapped."""

    def __init__(
        self, folder: Path, chips: Sequence[Chip], factor: int, patch: int, key: str, work_scale: int = 1,
        augment: AugmentConfig | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.folder, self.factor, self.multiple, self.work_scale = folder, factor, factor * patch, work_scale
        self.augment, self.seed = augment or AugmentConfig(), seed
        self.key = f"{key} x{work_scale} {self.augment} {seed}"
        self.chips = tuple(chips)
        self.items: list[Item] = []

    @property
    def buckets(self) -> list[list[Item]]:
        """The items of each padded size, in the order of the chips."""
        sizes = sorted({item.bucket for item in self.items})
        return [[i for i in self.items if i.bucket == size] for size in sizes]

    def make_pixels(self, tick: Callable[[], None]) -> None:
        """Read every chip once: the HR and the enlarged LR as 8-bit images on the padded grid."""
        kept = self._read_index("pixels", self.key)
        if kept is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._forget("latents", "pixels")
            kept, rows = [], dict[Size, int]()
            for chip in self.chips:
                pair = checked(chip)
                for copy in range(self.augment.copies):
                    lr, hr, degraded = self._copy(*pair, chip.id, copy)
                    size = hr.shape[0] * self.work_scale, hr.shape[1] * self.work_scale
                    bucket = next_multiple(size, self.multiple)
                    row = rows.setdefault(bucket, 0)
                    target, source = (
                        torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1)))[None] for i in (hr, lr)
                    )
                    for kind, image in (("hr", upsample(target, size)), ("up", upsample(source, size))):
                        padded = pad_to(image, bucket)[0].permute(1, 2, 0)
                        self._append(bucket, kind, row, (padded * 255).round().to(torch.uint8).numpy())
                    kept.append([chip.id, *bucket, row, *size, copy, degraded])
                    rows[bucket] += 1
                tick()
            self._write_index("pixels", self.key, kept)
        by_id = {c.id: c for c in self.chips}
        self.items = [Item(by_id[i], (bh, bw), row, (vh, vw), *what) for i, bh, bw, row, vh, vw, *what in kept]

    def _copy(self, lr: Array, hr: Array, name: str, copy: int) -> tuple[Array, Array, bool]:
        """A copy of a pair, and whether its LR is degraded."""
        random = stream(self.seed, "copy", name, copy)
        turn, flip, share = int(random.integers(4)), bool(random.integers(2)), float(random.random())
        if self.augment.turns and copy:
            lr, hr = (np.rot90(image[:, ::-1] if flip else image, turn) for image in (lr, hr))
        degraded = share < self.augment.degraded
        return degrade_at_random(lr, random) if degraded else lr, hr, degraded

    def make_latents(self, codec: Codec, identity: str, device: torch.device, tick: Callable[[], None]) -> None:
        """Encode every copy of a chip once with the frozen VAE, float16."""
        key = f"{self.key}/{identity}"
        if self._read_index("latents", key) is not None:
            return
        self._forget("latents")
        for items in self.buckets:
            bucket = items[0].bucket
            for kind, source in (("z0", "hr"), ("x", "up")):
                for item in items:
                    image = self.images([item], source, 0, 0, bucket).to(device)
                    with torch.no_grad():
                        latents = codec.encode(image)[0].float().cpu().numpy().astype(np.float16)
                    self._append(bucket, kind, item.row, latents)
                    tick()
        self._write_index("latents", key, [])

    def images(self, items: Sequence[Item], kind: str, top: int, left: int, size: Size) -> Tensor:
        """A crop of the images ``hr`` or ``up`` of items of one bucket, float32 (B, 3, h, w) in [0, 1]."""
        mapped = self._open(items[0].bucket, kind)
        crops = np.stack([mapped[i.row, top : top + size[0], left : left + size[1]] for i in items])
        return torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2))).float() / 255

    def sample(self, kind: str, count: int) -> Tensor:
        """The images of the first ``count`` items of the largest bucket, whole, float32 (B, 3, h, w)."""
        items = max(self.buckets, key=len)[:count]
        return self.images(items, kind, 0, 0, items[0].bucket)

    def latents(self, items: Sequence[Item], kind: str, top: int, left: int, cells: Size) -> Tensor:
        """A crop of the latents ``z0`` or ``x`` of items of one bucket, float32 (B, C, h, w)."""
        mapped = self._open(items[0].bucket, kind)
        crops = np.stack([mapped[i.row, :, top : top + cells[0], left : left + cells[1]] for i in items])
        return torch.from_numpy(crops.astype(np.float32))

    def _path(self, bucket: Size, kind: str) -> Path:
        return self.folder / f"{bucket[0]}x{bucket[1]}.{kind}"

    def _append(self, bucket: Size, kind: str, row: int, values: np.ndarray) -> None:
        """Write a row; the first one begins the file anew."""
        try:
            with self._path(bucket, kind).open("ab" if row else "wb") as file:
                file.write(np.ascontiguousarray(values).tobytes())
        except OSError as error:
            raise RareflowError(
                f"the cache {self.folder} cannot be written: {error.strerror}; free some space"
            ) from None

    def _open(self, bucket: Size, kind: str) -> np.ndarray:
        """The rows of one kind, mapped: images (N, H, W, 3) uint8, latents (N, C, h, w) float16."""
        path = self._path(bucket, kind)
        count = sum(item.bucket == bucket for item in self.items)
        if kind in ("hr", "up"):
            return np.memmap(path, np.uint8, "r", shape=(count, *bucket, 3))
        cells = bucket[0] // self.factor, bucket[1] // self.factor
        return np.memmap(
            path, np.float16, "r", shape=(count, path.stat().st_size // (2 * count * cells[0] * cells[1]), *cells)
        )

    def _bytes(self, kind: str) -> dict[str, int]:
        """How long the files of one kind are, by the size of their images."""
        return {p.stem: p.stat().st_size for p in sorted(self.folder.glob(f"*.{kind}"))}

    def _forget(self, *names: str) -> None:
        """Before files are overwritten, the index that vouches for them goes."""
        for name in names:
            (self.folder / f"{name}.json").unlink(missing_ok=True)

    def _write_index(self, name: str, key: str, rows: list[list[object]]) -> None:
        path = self.folder / f"{name}.json"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        files = {kind: self._bytes(kind) for kind in _KINDS[name]}
        temporary.write_text(json.dumps({"key": key, "rows": rows, "bytes": files}), encoding="utf-8")
        temporary.replace(path)

    def _read_index(self, name: str, key: str) -> list | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            index = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            # What two trainings wrote into at once, or a disk cut short, has another length than it had.
            if index["key"] == key and index["bytes"] == {kind: self._bytes(kind) for kind in _KINDS[name]}:
                return list(index["rows"])
        return None
