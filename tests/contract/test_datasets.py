"""One tester for all registered datasets, ``bench.check``, and the embedded scenes against their generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.check.datasets import check_dataset
from bench.data import embedded, scenes
from bench.data.dataset import FolderDataset


@pytest.mark.parametrize("name", ["scenes", "ramps"])
def test_a_dataset_keeps_its_promises(name: str, plugin: Path) -> None:
    report = check_dataset(name, tell=print)
    assert report.exit_code == 0, report.summary()
    skipped = {line.check for line in report.lines if line.status == "skip"}
    assert skipped == (set() if name == "scenes" else {"splits"})  # the ramps are the same in every split


def test_a_folder_is_checked_by_its_path(dataset: Path) -> None:
    report = check_dataset(str(dataset), limit=3, tell=print)
    assert report.exit_code == 0
    (images,) = (line for line in report.lines if line.check == "images")
    assert images.found == "all 3 of 5 load"


def test_the_embedded_scenes_are_as_announced() -> None:
    dataset = embedded.EmbeddedScenes()
    records = dataset.records("test")
    assert len(records) == embedded.COUNT == 24
    assert len({r.scene_id for r in records}) == 24
    with_slump = 0
    for record in records:
        pair = dataset.load(record)
        assert pair.lr is not None and pair.hr is not None and pair.mask is not None
        assert pair.lr.size == (40, 40) and pair.hr.size == (200, 200) == pair.mask.shape
        assert pair.lr.bands == pair.hr.bands == ("R", "G", "B", "NIR")
        assert (pair.lr.gsd_m, pair.hr.gsd_m) == (10.0, 2.0)
        assert record.caption and record.lr_date != record.hr_date
        with_slump += bool(pair.mask.any())
    assert with_slump >= 16
    size = sum(p.stat().st_size for p in embedded.FOLDER.rglob("*") if p.is_file())
    assert size < 8e6


@pytest.mark.parametrize("index", [0, 7, 23])
def test_making_the_embedded_scenes_again_agrees_within_one_count(index: int) -> None:
    from bench.data import readers

    dataset = FolderDataset(embedded.FOLDER)
    record = next(r for r in dataset.records("test") if r.id == f"scene_{index:04d}")
    scene = scenes.make_scene(embedded.SEED, record.id)
    assert scene.caption == record.caption and (scene.lr_date, scene.hr_date) == (record.lr_date, record.hr_date)
    for kind, made in (("lr", scene.lr), ("hr", scene.hr)):
        stored = readers.read(dataset.path(record, kind)).values
        assert np.abs(stored.astype(int) - made.astype(int)).max() <= 1
