"""Reliability and error by deviation, against numpy and scipy on the stored predictions; extras of models in runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from bench.cli.plot import command as plot_command
from bench.core import registry
from bench.core.errors import NotComparable, RfbenchError
from bench.core.files import sha256
from bench.data.dataset import FolderDataset
from bench.metrics.uncertainty import LEVELS, interval_coverage
from bench.models import Adapter, Batch, ModelSpec, Prediction, resize
from bench.records.folder import RunFolder
from bench.reports import figures
from bench.reports.calibration import BINS, Calibration, _binned, calibration, expected_coverage
from bench.score.replay import replay
from bench.stats.percentiles import ratio_interval
from tests.conftest import write_dataset
from tests.runs import run as run_models


class Draws(Adapter):
    """Bicubic with noise that grows from left to right; a map of it, and a fact."""

    def upscale(self, batch: Batch) -> Prediction:
        mean = np.stack([resize(i, batch.size) for i in batch.images])[:, None]
        width = np.linspace(0.0, 0.15, batch.size[1], dtype=np.float32)[:, None]
        noise = batch.noise(3, size=batch.size)
        maps = {"width": np.broadcast_to(width[:, 0], (len(mean), *batch.size)).astype(np.float32)}
        facts = tuple({"u": float(i.mean()), "count": 3} for i in batch.images)
        return Prediction(samples=mean + noise * width, maps=maps, facts=facts)


class Spread(Adapter):
    """Bicubic that says how wrong it is."""

    def upscale(self, batch: Batch) -> Prediction:
        mean = np.stack([resize(i, batch.size) for i in batch.images])
        return Prediction(mean=mean, std=np.full_like(mean, 0.08))


SPECS = {
    "draws": ModelSpec(name="draws", adapter=f"{__name__}:Draws", stochastic=True),
    "spread": ModelSpec(name="spread", adapter=f"{__name__}:Spread"),
}


@pytest.fixture(scope="module", autouse=True)
def models() -> Iterator[None]:
    """The models of this file, as if they were registered."""
    load = registry.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda kind, name: SPECS.get(name) or load(kind, name))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny")


def make_runs(data: Path, out: Path, *models: str, **options: Any) -> list[RunFolder]:
    outcome = run_models(models=models, data=str(data), metrics=("nll", "ece"), workers=0, out=out, **options)
    assert not outcome.failed
    return list(outcome.folders)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    return make_runs(data, tmp_path_factory.mktemp("runs"), "draws", "spread", "bicubic")


def stored(run: RunFolder, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All values of a run: reference, mean, deviation, from the stored draws and the dataset's numbers alone."""
    y, mu, sigma = [], [], []
    dataset = FolderDataset(data)
    for record in dataset.records("test"):
        arrays, _ = run.predictions.read(record.id)
        pair = dataset.load(record)
        assert pair.hr is not None
        y.append(np.clip(pair.hr.values[:, :, :3].astype(float) / 0.3, 0, 1).ravel())
        draws = np.clip(arrays["samples"].astype(float), 0, 1)
        mu.append(draws.mean(0).ravel())
        sigma.append(np.maximum(draws.std(0, ddof=1), 1 / 255).ravel())
    return np.concatenate(y), np.concatenate(mu), np.concatenate(sigma)


def test_coverage_is_that_of_the_stored_draws(runs: list[RunFolder], data: Path) -> None:
    found = calibration(runs[0])
    assert isinstance(found, Calibration) and found.draws == 4 and found.images == 5 and found.left_out == 0
    y, mu, sigma = stored(runs[0], data)
    for level, coverage in zip(found.levels, found.coverage, strict=True):
        low, high = stats.norm.interval(level, mu, sigma)
        assert coverage == pytest.approx(((low <= y) & (y <= high)).mean(), abs=1e-4)
    assert found.low is not None and found.high is not None
    assert (found.low < found.coverage).all() and (found.coverage < found.high).all()


def test_the_ece_is_the_table_s(runs: list[RunFolder]) -> None:
    for run in runs[:2]:
        found, summary = calibration(run), run.summary()
        assert isinstance(found, Calibration) and summary is not None
        assert found.ece == summary.rows["sample"].metrics["ece"].value


def test_bins_are_those_of_sorted_values(runs: list[RunFolder], data: Path) -> None:
    found = calibration(runs[0])
    assert isinstance(found, Calibration)
    y, mu, sigma = stored(runs[0], data)
    order = np.argsort(sigma, kind="stable")
    # Values at the floor are equal: they are one bin, however many; the bins above it can be compared.
    parts = [p for p in np.array_split(order, BINS) if sigma[p].min() > 1.01 / 255]
    assert len(parts) >= BINS - 3
    for part, deviation, rmse in zip(parts[::-1], found.deviation[::-1], found.rmse[::-1], strict=False):
        assert deviation == pytest.approx(np.sqrt(np.mean(sigma[part] ** 2)), rel=0.003)
        assert rmse == pytest.approx(np.sqrt(np.mean((y - mu)[part] ** 2)), rel=0.02)


def test_every_value_is_in_one_bin() -> None:
    rng = np.random.default_rng(0)
    steps = rng.uniform(1, 2, (3, 4096)) * rng.integers(0, 3, 4096)
    deviation, _ = _binned(steps)
    assert len(deviation) == BINS
    one = np.zeros((3, 4096))
    one[:, 0] = 10, 10 * 0.25, 10 * 0.09  # all values at the floor
    np.testing.assert_allclose(_binned(one), [[0.5], [0.3]])


def test_a_model_that_states_its_deviation(runs: list[RunFolder]) -> None:
    found = calibration(runs[1])
    assert isinstance(found, Calibration) and found.draws is None
    np.testing.assert_allclose(found.deviation, 0.08, rtol=1e-4)  # one value of the deviation: one bin
    assert len(found.rmse) == 1


def test_intervals_of_a_gaussian() -> None:
    rng = np.random.default_rng(1)
    mu, sigma = rng.uniform(0, 1, 200_000), rng.uniform(0.01, 0.3, 200_000)
    y = mu + sigma * rng.standard_normal(200_000)
    np.testing.assert_allclose(interval_coverage(y, mu, sigma), LEVELS, atol=0.005)
    np.testing.assert_allclose(
        interval_coverage(y, mu, sigma / 2, np.array([0.9])), stats.chi(1).cdf(0.8224), atol=0.005
    )


@pytest.mark.parametrize("draws", [2, 4, 16])
def test_what_a_perfect_model_shows_through_few_draws(draws: int) -> None:
    values = np.random.default_rng(2).standard_normal((draws + 1, 200_000))
    seen = interval_coverage(values[0], values[1:].mean(0), values[1:].std(0, ddof=1))
    np.testing.assert_allclose(expected_coverage(draws), seen, atol=0.005)
    assert expected_coverage(4, np.array([0.9]))[0] == pytest.approx(0.76, abs=0.005)  # as its docstring says


def test_the_band_is_over_scenes_not_images() -> None:
    values = np.full(6, 100.0)
    within = np.array([[10.0], [90.0]] * 3)  # images of a scene differ, scenes do not
    low, high = ratio_interval(within, values, ["a", "a", "b", "b", "c", "c"])
    np.testing.assert_allclose([low, high], 0.5)
    low, high = ratio_interval(within, values, ["a", "b", "a", "b", "a", "b"])
    assert high[0] - low[0] > 0.5


def test_runs_without_a_distribution(runs: list[RunFolder], data: Path, tmp_path: Path) -> None:
    kept, skipped = figures.calibrations(runs)
    assert list(kept) == ["draws", "spread"] and "a single deterministic image" in skipped["bicubic"]
    with pytest.raises(RfbenchError, match=r"none of these runs has a distribution .*--draws 2 or more"):
        figures.calibrations(runs[2:])
    (one,) = make_runs(data, tmp_path / "one", "draws", draws=1)
    assert "one draw has no spread" in str(calibration(one))
    (other,) = make_runs(data, tmp_path / "other", "draws", protocol="paired:border_px=2")
    with pytest.raises(NotComparable, match="border_px"):
        figures.calibrations([*runs, other])


@pytest.mark.parametrize("kind", ["reliability", "error"])
def test_figures_are_written_the_same_each_time(runs: list[RunFolder], tmp_path: Path, kind: str) -> None:
    for ending in ("png", "pdf"):
        files = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
        for file in files:
            words = [kind, *(str(r.path) for r in runs), "--out", str(file)]
            done = CliRunner().invoke(plot_command, words, catch_exceptions=False)
            assert done.exit_code == 0 and "note: bicubic is left out: no predictive distribution" in done.stderr
        assert sha256(files[0]) == sha256(files[1])
    with pytest.raises(RfbenchError, match=r"ends in \.png or \.pdf"):
        CliRunner().invoke(plot_command, [kind, str(runs[0].path), "--out", "x.gif"], catch_exceptions=False)


def test_figures_draw_hostile_names_many_models_and_perfect_ones(tmp_path: Path) -> None:
    line = np.linspace(0.05, 0.95, 19)
    values = np.array([1 / 255, 0.5])
    bad = Calibration(2, 0.0, LEVELS, line, None, None, values, np.zeros(2), images=1, left_out=0)
    found = {"$\\frac{ \u202e" + "long " * 40: bad} | {f"m{i}": bad for i in range(8)}
    for draw in (figures.draw_reliability, figures.draw_error):
        figures.save(draw(found), tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 1000


# --- extras of models in a run --------------------------------------------------------------------------------


def test_maps_and_facts_are_kept_with_the_run(runs: list[RunFolder]) -> None:
    frame = runs[0].scores()
    assert list(frame.columns[-2:]) == ["fact:count", "fact:u"]
    assert (frame["fact:count"] == 3).all() and len(frame) == 10  # draw 0 and the mean of each image
    assert not any(c.startswith("fact:") for c in runs[1].scores().columns)
    arrays, _ = runs[0].predictions.read("im0")
    np.testing.assert_allclose(arrays["map:width"], np.linspace(0, 0.15, 80)[None].repeat(60, 0), atol=1e-7)
    with_facts = dict(zip(frame["id"], frame["fact:u"], strict=True))
    for task, estimates in replay(runs[0]):
        assert with_facts[task.id] == pytest.approx(float(task.lr_display.mean()), abs=1e-6)
        assert set(estimates) == {"sample", "mean"}


def test_facts_are_the_same_in_any_batch(runs: list[RunFolder], data: Path, tmp_path: Path) -> None:
    (again,) = make_runs(data, tmp_path, "draws", batch_size=3)
    assert sha256(again.predictions.table_path) == sha256(runs[0].predictions.table_path)
