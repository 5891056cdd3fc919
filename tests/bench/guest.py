"""What a guest costs: the same model in this process and through the worker, answers of 512x512 px; and 1 GB at once.

The model copies a prepared image, so what is left is the worker: headers over pipes, arrays through files. The copy
that no worker can do without is measured apart: the same arrays written and read as ``.npy`` in the same folder. The
three take turns, and the fastest tenth of each is compared, since what is slower had to wait for another process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.check.models import check_task
from bench.models.guests.adapter import header
from bench.models.guests.worker import Launch, Worker
from bench.models.spec import Batch
from tests.bench.common import machine

REPEATS = 200
SHIM = """
import numpy as np
class Copier:
    def __init__(self, options, weights, checkout):
        self.image = np.random.default_rng(0).random((1, 512, 512, 3)).astype(np.float32)
        self.bytes = int(options["bytes"])
    def load(self, device, dtype): pass
    def upscale(self, batch):
        if self.bytes:
            return {"mean": np.ones((1, self.bytes // 4 // 1024, 1024, 1), np.float32)}
        return {"mean": self.image.copy()}
"""


def in_turns(*works: Callable[[], object]) -> np.ndarray:
    """Milliseconds of each call, (REPEATS, works)."""
    found = np.empty((REPEATS, len(works)))
    for row in found:
        for i, work in enumerate(works):
            started = time.perf_counter()
            work()
            row[i] = 1000 * (time.perf_counter() - started)
    return found


def main() -> None:
    """Measure and print."""
    print(machine())
    task = check_task("a", (128, 128), (512, 512))
    low = task.lr_display[None]
    batch = Batch(images=low, size=(512, 512), bands=("R", "G", "B"), ids=("a",), captions=("",), seeds=((1,),),
                  dates=("",), target_dates=("",))  # fmt: skip
    image = np.random.default_rng(0).random((1, 512, 512, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("RFBENCH_ENVS", name)
        shim = Path(name) / "shim.py"
        shim.write_text(SHIM)

        def copied() -> None:
            for array in (low, image):
                np.save(Path(name) / "copy.npy", array)
                np.load(Path(name) / "copy.npy")
                (Path(name) / "copy.npy").unlink()

        def started(size: int) -> Worker:
            return Worker(
                Launch("copier", Path(sys.executable), shim, "Copier", options={"bytes": str(size)}), "cpu", ""
            )

        begun = time.perf_counter()
        worker = started(0)
        start_ms = 1000 * (time.perf_counter() - begun)
        told = header(batch)
        times = in_turns(image.copy, lambda: worker.upscale(told, {"images": low}, 60), copied)
        worker.close()
        print(f"start of a guest without torch: {start_ms:.0f} ms")
        for what, (inside, through, copy) in (("fastest tenth", np.percentile(times, 10, axis=0)),
                                              ("median", np.median(times, axis=0))):  # fmt: skip
            print(f"an image of 512x512 px, {what}: {inside:.2f} ms in process, {through:.2f} ms through the worker, "
                  f"{copy:.2f} ms the copy alone; the worker adds {through - inside - copy:.2f} ms")  # fmt: skip
        inside, through, copy = np.percentile(times, 10, axis=0)
        worker, begun = started(2**30), time.perf_counter()
        _, arrays = worker.upscale(told, {"images": low}, 600)
        print(f"an array of {arrays['mean'].nbytes / 1e9:.2f} GB: {time.perf_counter() - begun:.1f} s")
        worker.close()
    if through - inside - copy > 5:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
