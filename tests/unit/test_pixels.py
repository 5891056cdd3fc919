"""Our own part of a prediction (readers, protocols, the model call) is in its key as one number: ``plan.REVISION``.

This test forces it up: it predicts a few small images in every way that our part has (units, bands, holes, tiles,
padding, other scales, draws) and holds pixels against recorded ones. Where one has moved on purpose, raise ``REVISION``
and record them again: ``python -m tests.unit.test_pixels``.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.predict.execute import predict
from bench.predict.plan import REVISION, Request, make_plan
from tests.conftest import install_plugin, installed, write_dataset

RECORDED = Path(__file__).with_name("pixels.json")
# Between machines and versions of torch, resampling differs in the last digits of a float32.
TOLERANCE = 2e-5
WAYS = {
    "native unit, paired": ("bicubic", "paired", {}),
    "bicubic-4x": ("bicubic", "bicubic-4x", {}),
    "display unit, draws": ("noisy", "paired", {"draws": 2}),
    "display unit, percentiles": ("noisy", "paired:normalisation=percentile[2,98]", {"draws": 1}),
    "another scale, answer resized, padded": ("four", "paired", {}),
    "another scale, input resized": ("four", "paired:policy=pre", {}),
    "another seed": ("noisy", "paired", {"draws": 1, "seed": 5}),
}


def pixels(folder: Path) -> dict[str, list[float]]:
    """For each way, of two images: mean and deviation of what was predicted, and eleven of its values."""
    data = write_dataset(folder / "data", count=2)
    values = np.load(data / "lr" / "im1.npy")
    values[3:5, 4:7] = 0  # holes are filled before a model sees them
    np.save(data / "lr" / "im1.npy", values)
    manifest = json.loads((data / "dataset.json").read_text())
    manifest["lr"]["nodata"] = 0
    (data / "dataset.json").write_text(json.dumps(manifest))
    found = {}
    with installed(install_plugin(folder / "site"), "rfbench_example"):
        for way, (model, protocol, options) in WAYS.items():
            request: dict[str, Any] = {"models": (model,), "protocol": protocol, "data": str(data), **options}
            outcome = predict(make_plan(Request(**request, device="cpu", out=folder / way)))
            (run,) = outcome.folders.values()
            found[way] = [value for i in ("im0", "im1") for value in _sample(run.predictions.read(i)[0])]
    return found


def _sample(arrays: dict[str, np.ndarray]) -> list[float]:
    whole = arrays.get("samples", arrays.get("mean"))
    assert whole is not None
    flat = whole.astype(np.float64).ravel()
    return [float(flat.mean()), float(flat.std()), *flat[:: max(1, flat.size // 10)][:11].tolist()]


def test_pixels_move_with_the_revision_alone(tmp_path: Path) -> None:
    recorded = json.loads(RECORDED.read_text())
    assert recorded["revision"] == REVISION, "record the pixels of this revision: python -m tests.unit.test_pixels"
    found = pixels(tmp_path)
    assert found.keys() == recorded["pixels"].keys()
    for way, values in found.items():
        moved = np.abs(np.array(values) - recorded["pixels"][way]).max()
        assert moved < TOLERANCE, (
            f"{way}: pixels moved by {moved:.2g}. If they should, raise REVISION in bench/predict/plan.py, so that "
            "runs of before are predicted anew, and record: python -m tests.unit.test_pixels"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        made = pixels(Path(place))
    RECORDED.write_text(json.dumps({"revision": REVISION, "pixels": made}, indent=1) + "\n")
