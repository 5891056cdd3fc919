"""One tester for all registered models, ``bench.check``, and what only interpolation promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.check import Line
from bench.check import models as checks
from bench.check.models import check_model
from bench.core import registry
from bench.core.image import Image
from bench.data.dataset import Pair, Record, Side
from bench.models.call import Answer, Model
from bench.models.ready import lacking
from bench.protocols.base import Task
from bench.protocols.paired import Paired
from tests.conftest import picture

OURS = ["nearest", "bilinear", "bicubic", "lanczos"]
MODELS = [
    *OURS, "hr", "bicubic-affine", "rareflow:steps=1", "adcsr", "opensr", "seesr", "zoomldm", "sen2sr", "sen2sr-lite",
    "satlas-esrgan", "synapse-flash", "synapse-pro", "osediff", "noisy", "four",
]  # fmt: skip

GUESTS = {"samsr", "misr-s2"}  # tests/unit/test_guest_systems.py


def told(line: Line) -> None:
    print(line)


def test_every_model_of_this_package_is_checked() -> None:
    here = {n for n, point in registry.points("models").items() if point.dist and point.dist.name == "rfbench"}
    assert here == {m.partition(":")[0] for m in MODELS} - {"noisy", "four"} | {"files"} | GUESTS


@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_its_promises(name: str, plugin: Path) -> None:
    if absent := lacking(registry.load("models", name.partition(":")[0]).requires):
        pytest.skip(absent[0])
    report = check_model(name, tell=told)
    assert report.exit_code == 0, report.summary()
    lines = {line.check: line for line in report.lines}
    # Ours keep more than they must: no batch moves a bit.
    assert "bit for bit" in lines["batch"].found and "bit for bit" in lines["global seeds"].found
    skipped = {line.check for line in report.lines if line.status == "skip"}
    assert skipped <= {"captions", "licence"}
    assert ("captions" in skipped) == (not registry.load("models", name.partition(":")[0]).supports_prompt)


def test_files_keeps_them_too(tmp_path: Path) -> None:
    sizes = [checks.WHOLE, *checks.TINY, checks.ODD]
    for i, (lr_px, size) in enumerate(sizes):
        np.save(tmp_path / f"check_{lr_px[0]}x{lr_px[1]}.npy", picture(i, *size).astype(np.float32))
    for name in ("a", "b", "0", "1", "2"):
        np.save(tmp_path / f"check_{name}.npy", picture(9, *checks.SMALL[1]).astype(np.float32))
    report = check_model(f"files:folder={tmp_path}", tell=told)
    assert report.exit_code == 0
    (tiles,) = (line for line in report.lines if line.check == "tiles")
    assert tiles.status == "skip" and "found no image for 'check_tiles'" in tiles.found


def predict(model: Model, task: Task) -> Answer:
    (answer,) = model.predict([task], run_seed=0, draws=1)
    assert isinstance(answer, Answer), str(answer)
    return answer


def task_of(lr: Image, size: tuple[int, int]) -> Task:
    hr = Image(np.full((*size, 4), 0.1, np.float32), "reflectance", lr.bands, np.ones(size, bool))
    record = Record("x", "x", sides={"lr": Side(), "hr": Side()})
    return Paired().prepare(Pair(record, lr, hr))


@pytest.mark.parametrize("name", OURS)
def test_interpolation_keeps_a_flat_image_flat_and_the_mean(name: str) -> None:
    model = Model(name)
    t = checks.check_task("x", (20, 24), (100, 120))
    answer = predict(model, t)
    np.testing.assert_allclose(answer.arrays["mean"].mean((0, 1)), t.lr.values.mean((0, 1)), rtol=0.02)
    flat = Image(np.full((6, 7, 4), 0.123, np.float32), "reflectance", t.lr.bands, np.ones((6, 7), bool))
    answer = predict(model, task_of(flat, (30, 35)))
    np.testing.assert_allclose(answer.arrays["mean"], 0.123, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "mode"), [("bicubic", "bicubic"), ("bilinear", "bilinear"), ("nearest", "nearest-exact")]
)
def test_interpolation_is_torch_s(name: str, mode: str) -> None:
    torch = pytest.importorskip("torch")
    t = checks.check_task("x", (11, 13), (55, 65))
    answer = predict(Model(name), t)
    x = torch.from_numpy(t.lr.values).permute(2, 0, 1)[None]
    options = {} if mode.startswith("nearest") else {"antialias": True, "align_corners": False}
    expected = torch.nn.functional.interpolate(x, size=(55, 65), mode=mode, **options)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(answer.arrays["mean"], expected)
