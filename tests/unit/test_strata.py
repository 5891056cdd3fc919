"""Tables by stratum: which images belong together, and what is counted in each part."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench.cli.table import command
from bench.core.errors import RfbenchError
from bench.metrics.uncertainty import LEVELS, Ece
from bench.records.folder import RunFolder
from bench.reports.table.strata import by_stratum
from tests.runs import run as run_models
from tests.scored_runs import images, numbers, scored_run

COUNT = 12
SCENES = {i: f"s{k % 3}" for k, i in enumerate(images(COUNT))}


@pytest.fixture
def two(tmp_path: Path) -> list[RunFolder]:
    """Twelve images of three scenes; b has no number for one, and both have a metric of the set."""
    rng = np.random.default_rng(0)
    ece = {
        i: {"coverage": np.clip(LEVELS + rng.normal(0, 0.1, len(LEVELS)), 0, 1), "pixels": np.array([9.0])}
        for i in images(COUNT)
    }
    values = {n: numbers(COUNT, k, 25.0) for k, n in enumerate("ab")}
    values["b"]["scene_0000"] = None
    return [scored_run(tmp_path, n, {"psnr_rgb": v}, scenes=SCENES, ece=ece) for n, v in values.items()]


def test_means_are_those_of_the_images_of_each_scene(two: list[RunFolder]) -> None:
    whole, parts = by_stratum(two, "scene")
    assert whole.images == COUNT and list(parts) == ["s0", "s1", "s2"]
    frame = two[0].scores().set_index("id")["psnr_rgb"]
    for scene, table in parts.items():
        ids = [i for i, s in SCENES.items() if s == scene]
        cell = table.rows[0].cells[0]
        assert (cell.n, table.images) == (4, 4) and cell.value == pytest.approx(frame[ids].mean())
        assert [r.cells[0].rank for r in table.rows].count("best") <= 1
    lacking = parts["s0"].rows[1].cells[0]
    assert lacking.n == 3 and lacking.note is not None and lacking.rank is None
    assert "over 3 of 4 images (1: too small)" in parts["s0"].footnotes[lacking.note].text


def test_a_metric_of_the_set_is_that_of_the_part_s_features(two: list[RunFolder]) -> None:
    _, parts = by_stratum(two, "scene", ["ece"])
    kept = dict(zip(images(COUNT), two[0].features("sample", "ece"), strict=True))
    for scene, table in parts.items():
        expected = Ece().combine([kept[i] for i, s in SCENES.items() if s == scene])
        assert table.rows[0].cells[0].value == pytest.approx(expected.value)  # type: ignore[union-attr]


def test_a_column_of_the_user_s_file(two: list[RunFolder], tmp_path: Path) -> None:
    lines = ["id,region", *(f"{i},{'north' if k < 5 else 'south'}" for k, i in enumerate(images(COUNT)[:10])), "else,x"]
    path = tmp_path / "regions.csv"
    path.write_text("\n".join(lines) + "\n")
    _, parts = by_stratum(two, f"{path}:region", ["psnr_rgb"])
    assert {label: t.images for label, t in parts.items()} == {"north": 5, "south": 5, "not known": 2}
    done = CliRunner().invoke(command, [*(str(r.path) for r in two), "--by", f"{path}:region", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {r["part"] for r in rows} == set(parts) and len(rows) == 3 * 2 * 2
    with pytest.raises(RfbenchError, match="did you mean region"):
        by_stratum(two, f"{path}:regions")
    path.write_text("id,region\nelse,x\n")
    with pytest.raises(RfbenchError, match="found none of the 12 images' ids"):
        by_stratum(two, f"{path}:region")


@pytest.mark.parametrize(
    ("by", "said"),
    [("scenes", "did you mean scene"), ("fact:u", "found no u, facts of these runs: none"),
     ("shift", "--metrics registered"), ("no.csv:x", "cannot be read")],
)  # fmt: skip
def test_what_there_is_none_of_is_one_line(two: list[RunFolder], by: str, said: str) -> None:
    with pytest.raises(RfbenchError, match=said):
        by_stratum(two, by)


def test_masks_and_dates_of_the_embedded_scenes(tmp_path: Path) -> None:
    runs = run_models(
        models=("nearest", "bicubic"), metrics=("psnr_rgb",), device="cpu", workers=0, limit=6, out=tmp_path
    ).folders
    _, parts = by_stratum(runs, "cover")
    assert sum(t.images for t in parts.values()) == 6 and all(label.startswith("mask covers ") for label in parts)
    _, parts = by_stratum(runs, "date-gap")
    assert sum(t.images for t in parts.values()) == 6 and all(label.startswith("LR and HR apart: ") for label in parts)


def test_regions_are_a_column_of_the_manifest_and_move_no_number(tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(1), tmp_path / "data"
    folder.mkdir()
    side = {"unit": "display", "bands": "R G B"}
    (folder / "dataset.json").write_text(json.dumps({"format": 1, "name": "places", "lr": side, "hr": side}))
    for i in range(4):
        hr = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(hr).save(folder / f"hr{i}.png")
        Image.fromarray(hr[::2, ::2]).save(folder / f"lr{i}.png")

    def write(*regions: str) -> None:
        rows = [f"i{i},{region},lr{i}.png,hr{i}.png" for i, region in enumerate(regions)]
        (folder / "pairs.csv").write_text("\n".join(["id,region,lr,hr", *rows]) + "\n")

    write("Peel", "Banks", "", "Peel")
    runs = run_models(
        models=("nearest",), data=str(folder), metrics=("psnr_rgb",), device="cpu", workers=0, out=tmp_path / "out"
    ).folders
    _, parts = by_stratum(runs, "region")
    assert {label: t.images for label, t in parts.items()} == {"Banks": 1, "Peel": 2, "not known": 1}
    write("Peel", "Banks", "Banks", "Peel")
    _, parts = by_stratum(runs, "region")
    assert {label: t.images for label, t in parts.items()} == {"Banks": 2, "Peel": 2}
    write("", "", "", "")
    with pytest.raises(RfbenchError, match="places names no regions, expected a column 'region'"):
        by_stratum(runs, "region")
