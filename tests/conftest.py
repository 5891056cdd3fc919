"""Fixtures: small datasets of every kind, and a plugin package as an installer would leave it."""

from __future__ import annotations

import csv
import gc
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Before torch comes: the suite runs one process a core, where threads of several processes wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from bench.check.pictures import picture
from bench.core import registry

ROOT = Path(__file__).resolve().parents[1]
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Folders of tests lie in memory where it has room: the suite makes small files by the ten thousand, and a disk
    takes minutes to make and forget them."""
    if "PYTEST_XDIST_WORKER" in os.environ or not _in_memory():
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    place = tempfile.TemporaryDirectory(prefix="rfbench-tests-", dir=MEMORY)
    config.add_cleanup(place.cleanup)  # with what killed processes left
    Path(place.name).chmod(0o711)  # another user may look into a folder there that is open to all
    os.environ["TMPDIR"] = tempfile.tempdir = place.name


def _in_memory() -> bool:
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return False
    may_execute = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    return may_execute and shutil.disk_usage(MEMORY).free > ROOM_BYTES


# No test pulls the plug, so none waits for the disk; test_writes.py counts the calls.
os.fsync = lambda handle: None  # type: ignore[assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rooms of long files come first, so that no process is left alone with one of them at the end."""
    long = {"crash": 0, "contract": 1, "e2e": 2}
    items.sort(key=lambda item: long.get(item.path.parent.name, 3))


_file: Path | None = None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What torch and its company made at import, in the tests' files or in what they call, lives as long as the
    process: from the next file on no collection looks at it again. Many tests and commands collect, half a second each
    without this."""
    global _file
    if item.path != _file:
        _file = item.path
        gc.collect()
        gc.freeze()


@pytest.fixture
def shared() -> Path:
    """The folder ``shared`` beside the repository: real imagery, reference values, weights."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared (real imagery, reference values, weights) is not here")
    return folder


def write_dataset(
    folder: Path,
    *,
    count: int = 5,
    hr_px: tuple[int, int] = (60, 80),
    factor: int = 4,
    bands: str = "R G B NIR",
    info: dict[str, object] | None = None,
) -> Path:
    """A paired dataset of reflectance x 10000: LR is the area mean of HR, darker, with some noise."""
    (folder / "lr").mkdir(parents=True)
    (folder / "hr").mkdir()
    rows = []
    channels = len(bands.split())
    for i in range(count):
        hr = picture(i, *hr_px, channels) * 3000
        h, w = hr_px[0] // factor, hr_px[1] // factor
        lr = hr[: h * factor, : w * factor].reshape(h, factor, w, factor, channels).mean(axis=(1, 3)) * 0.9
        lr += np.random.default_rng(100 + i).normal(0, 20, lr.shape)
        np.save(folder / f"lr/im{i}.npy", np.clip(lr, 0, 65535).astype(np.uint16))
        np.save(folder / f"hr/im{i}.npy", np.clip(hr, 0, 65535).astype(np.uint16))
        rows.append({"id": f"im{i}", "scene_id": f"s{i // 2}", "split": "test", "lr": f"lr/im{i}.npy",
                     "hr": f"hr/im{i}.npy", "caption": f"a picture with the number {i}"})  # fmt: skip
    write_rows(folder, rows)
    side = {"unit": "reflectance", "scale": 10000, "bands": bands, "normalisation": "fixed[0,3000]"}
    (folder / "dataset.json").write_text(
        json.dumps({"format": 1, "name": "tiny", "licence": "CC0", "lr": side, "hr": side} | (info or {}))
    )
    return folder


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write ``pairs.csv``."""
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Five pairs of 15x20 to 60x80 px with NIR, two images a scene."""
    return write_dataset(tmp_path / "tiny")


PLUGIN = '''
"""A plugin with one of everything, as its author would write it."""
from dataclasses import dataclass, replace
from typing import ClassVar
import click
import numpy as np
from bench.data.dataset import Dataset, Pair, Record, Side
from bench.core.image import Image
from bench.metrics.base import Metric
from bench.models import Adapter, Batch, ModelSpec, Prediction, resize
from bench.protocols.paired import Paired

SPEC = ModelSpec(name="noisy", adapter="rfbench_example:Noisy", summary="bicubic and noise", stochastic=True,
                 supports_prompt=True, licence="CC0", default_options={"amount": "0.05", "fail_on": ""})
FOUR = ModelSpec(name="four", adapter="rfbench_example:Four", summary="bicubic as a x4 model", scale_factors=(4,),
                 multiple=16, min_side_px=16)

class Noisy(Adapter):
    def upscale(self, batch: Batch) -> Prediction:
        if self.options["fail_on"] and self.options["fail_on"] in batch.ids:
            raise ValueError("this image does not suit me")
        noise = batch.noise(3)
        draws = [[resize(np.clip(image + float(self.options["amount"]) * n, 0, 1), batch.size) for n in per_image]
                 for image, per_image in zip(batch.images, noise)]
        return Prediction(samples=np.array(draws, np.float32))

class Four(Adapter):
    def upscale(self, batch: Batch) -> Prediction:
        assert batch.size == tuple(4 * n for n in batch.images.shape[1:3])
        assert all(n % 16 == 0 for n in batch.images.shape[1:3])
        return Prediction(mean=np.stack([resize(i, batch.size) for i in batch.images]))

class MeanError(Metric):
    name = "mean_error"
    title = "mean error"
    direction = "down"
    group = "fidelity"
    summary = "mean absolute error of display values"
    def value(self, estimate, reference, state):
        return float(np.abs(estimate.display - reference.display).mean())

@dataclass(frozen=True)
class Darker(Paired):
    name: ClassVar[str] = "darker"
    summary: ClassVar[str] = "paired, with a darker LR"
    factor: float = 0.5
    def prepare(self, pair):
        lr = replace(pair.lr, values=(pair.lr.values * self.factor).astype(np.float32))
        return super().prepare(replace(pair, lr=lr))

def hello():
    """Say hello."""
    print("hello from a plugin")

COMMAND = click.Command("hello", callback=hello)

class Ramps(Dataset):
    name = "ramps"
    description = "grey ramps"
    licence = "CC0"
    def records(self, split):
        side = Side(unit="display")
        return [Record(f"ramp{i}", f"ramp{i}", split, sides={"lr": side, "hr": side, "pan": side}) for i in range(3)]
    def load(self, record, parts=()):
        i = int(record.id[-1]) + 1
        def image(n):
            x = np.linspace(0, 1 / i, n * n, dtype=np.float32).reshape(n, n, 1).repeat(3, 2)
            return Image(x, "display", ("R", "G", "B"), np.ones((n, n), bool))
        return Pair(record, image(12), image(48))
    def fingerprint(self, records):
        return "ramps-1-" + "-".join(r.id for r in records)
'''

PLUGIN_ENTRY_POINTS = """
[rfbench.models]
noisy = rfbench_example:SPEC
four = rfbench_example:FOUR
broken = rfbench_example_missing:SPEC

[rfbench.metrics]
mean_error = rfbench_example:MeanError

[rfbench.protocols]
darker = rfbench_example:Darker

[rfbench.datasets]
ramps = rfbench_example:Ramps

[rfbench.commands]
hello = rfbench_example:COMMAND
"""


def install_plugin(
    site: Path, code: str = PLUGIN, entry_points: str = PLUGIN_ENTRY_POINTS, module: str = "rfbench_example"
) -> Path:
    """Lay a plugin package into ``site`` as an installer would: a module and its metadata."""
    information = site / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    (site / f"{module}.py").write_text(code)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(entry_points)
    return site


@contextmanager
def installed(site: Path, *modules: str) -> Iterator[Path]:
    """With the plugin packages of ``site`` installed in this process, and their ``modules`` forgotten afterwards."""
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    registry.forget()
    try:
        yield site
    finally:
        sys.path.remove(str(site))
        for module in modules:
            sys.modules.pop(module, None)
        registry.forget()


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """The plugin package, installed for this test."""
    with installed(install_plugin(tmp_path / "site"), "rfbench_example") as site:
        yield site
