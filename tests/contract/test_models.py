"""One tester for all registered models: what every adapter promises, ours and a plugin's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.core import registry
from bench.core.image import Image
from bench.data.dataset import Pair, Record, Side
from bench.models.call import Answer, Model
from bench.models.spec import ModelSpec
from bench.protocols.base import Task
from bench.protocols.paired import Paired
from tests.conftest import picture

OURS = ["nearest", "bilinear", "bicubic", "lanczos"]
SIZES = [((1, 1), (5, 5)), ((6, 6), (30, 30)), ((30, 40), (150, 200)), ((41, 28), (206, 141)), ((16, 16), (64, 64))]


def task(name: str, lr_px: tuple[int, int], size: tuple[int, int], seed: int = 0) -> Task:
    bands = ("R", "G", "B", "NIR")
    lr, hr = (
        Image((picture(seed, *n, 4) * 0.3).astype(np.float32), "reflectance", bands, np.ones(n, bool), gsd)
        for n, gsd in ((lr_px, 10.0), (size, 2.0))
    )
    record = Record(name, name, caption="a picture", sides={"lr": Side(), "hr": Side()})
    return Paired().prepare(Pair(record, lr, hr))


def predict(model: Model, *tasks: Task, seed: int = 0, draws: int = 2) -> list[Answer]:
    found = model.predict(tasks, run_seed=seed, draws=draws)
    for answer in found:
        assert isinstance(answer, Answer), str(answer)
    return [a for a in found if isinstance(a, Answer)]


@pytest.fixture(params=[*OURS, "bicubic-affine", "rareflow:steps=1", "files", "noisy", "four"])
def model(request: pytest.FixtureRequest, tmp_path: Path, plugin: Path) -> Model:
    text = request.param
    if text == "files":
        (tmp_path / "predictions").mkdir()
        for i, (_, size) in enumerate(SIZES):
            np.save(tmp_path / "predictions" / f"t{i}.npy", picture(i, *size).astype(np.float32))
        text = f"files:folder={tmp_path / 'predictions'}"
    found = Model(text)
    found.load()
    return found


def test_the_spec_is_data_and_light(model: Model) -> None:
    spec = registry.load("models", model.spec.name)
    assert isinstance(spec, ModelSpec) and spec.adapter.count(":") == 1


def test_every_size_comes_back_on_the_grid(model: Model) -> None:
    for i, (lr_px, size) in enumerate(SIZES):
        (answer,) = predict(model, task(f"t{i}", lr_px, size, i))
        for name, values in answer.arrays.items():
            assert values.dtype == np.float32 and np.isfinite(values).all()
            assert values.shape[-3:-1] == size
            assert (name == "samples") == model.spec.stochastic


def test_a_batch_equals_its_images_alone_and_in_another_order(model: Model) -> None:
    tasks = [task(f"t{i}", lr_px, size, i) for i, (lr_px, size) in enumerate(SIZES)]
    together = predict(model, *tasks)
    backwards = predict(model, *tasks[::-1])[::-1]
    for one, other, t in zip(together, backwards, tasks, strict=True):
        (alone,) = predict(model, t)
        for name in one.arrays:
            np.testing.assert_array_equal(one.arrays[name], other.arrays[name])
            np.testing.assert_array_equal(one.arrays[name], alone.arrays[name])


def test_draws_differ_only_where_the_spec_says_so(model: Model) -> None:
    t = task("t4", *SIZES[4], 4)
    first, again, other = (predict(model, t, seed=s)[0].arrays for s in (0, 0, 1))
    key = "samples" if model.spec.stochastic else "mean"
    np.testing.assert_array_equal(first[key], again[key])
    assert np.array_equal(first[key], other[key]) != model.spec.stochastic
    if model.spec.stochastic:
        assert not np.array_equal(first[key][0], first[key][1])


def test_the_input_is_not_changed(model: Model) -> None:
    t = task("t2", *SIZES[2], 2)
    before = t.lr.values.copy()
    predict(model, t)
    np.testing.assert_array_equal(t.lr.values, before)


@pytest.mark.parametrize("name", OURS)
def test_interpolation_keeps_a_flat_image_flat_and_the_mean(name: str) -> None:
    model = Model(name)
    t = task("x", (20, 24), (100, 120))
    (answer,) = predict(model, t)
    np.testing.assert_allclose(answer.arrays["mean"].mean((0, 1)), t.lr.values.mean((0, 1)), rtol=0.02)
    flat = Image(np.full((6, 7, 4), 0.123, np.float32), "reflectance", t.lr.bands, np.ones((6, 7), bool))
    (answer,) = predict(model, task_of(flat, (30, 35)))
    np.testing.assert_allclose(answer.arrays["mean"], 0.123, atol=1e-6)


def task_of(lr: Image, size: tuple[int, int]) -> Task:
    hr = Image(np.full((*size, 4), 0.1, np.float32), "reflectance", lr.bands, np.ones(size, bool))
    record = Record("x", "x", sides={"lr": Side(), "hr": Side()})
    return Paired().prepare(Pair(record, lr, hr))


@pytest.mark.parametrize(
    ("name", "mode"), [("bicubic", "bicubic"), ("bilinear", "bilinear"), ("nearest", "nearest-exact")]
)
def test_interpolation_is_torch_s(name: str, mode: str) -> None:
    torch = pytest.importorskip("torch")
    t = task("x", (11, 13), (55, 65))
    (answer,) = predict(Model(name), t)
    x = torch.from_numpy(t.lr.values).permute(2, 0, 1)[None]
    options = {} if mode.startswith("nearest") else {"antialias": True, "align_corners": False}
    expected = torch.nn.functional.interpolate(x, size=(55, 65), mode=mode, **options)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(answer.arrays["mean"], expected)
