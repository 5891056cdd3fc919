"""How much the process that writes can take, and whether its memory is flat: ``python -m tests.bench.driver``.

A cluster of 64 workers is simulated: each sleeps 50 ms and gives a prediction of 8x8 px. So what is measured is the
driver alone: handing out, checking, writing and having commits on the disk, then the table of all images. Beside the
rate stands the processor's time, which others on the machine do not move.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from bench.core import memory
from bench.executors.crew import Crew, Job
from bench.predict.unit import Answered, Made
from bench.records.predictions import serialised
from bench.records.types import ItemRecord
from tests.bench.common import machine

WORKERS, SLEEP_S = 64, 0.05
SITE = """
import numpy as np
from bench.data.dataset import Dataset, Pair, Record, Side
from bench.core.image import Image
class Tiny(Dataset):
    name = "tiny"
    count = 1000
    def records(self, split):
        sides = dict.fromkeys(("lr", "hr"), Side(unit="display"))
        return [Record(f"i{i:06d}", f"i{i:06d}", split, sides=sides) for i in range(self.count)]
    def load(self, record, parts=()):
        def image(n):
            return Image(np.full((n, n, 3), 0.5, np.float32), "display", ("R", "G", "B"), np.ones((n, n), bool))
        return Pair(record, image(2), image(8))
    def fingerprint(self, records):
        return f"tiny-{len(records)}"
"""


class Sleepers(Crew[Any, Any]):
    """Threads that sleep, and answer as a model would."""

    size = WORKERS

    def __init__(self) -> None:
        import numpy as np

        self._pool, self._waiting = ThreadPoolExecutor(WORKERS), dict[Future[Any], Any]()
        self._data = serialised({"mean": np.zeros((8, 8, 3), np.float32)}, {"unit": "display"})

    @property
    def waiting(self) -> list[Any]:
        return list(self._waiting.values())

    def give(self, key: Any, work: Callable[..., Any], *arguments: Any) -> None:
        self._waiting[self._pool.submit(self._answer, key)] = key

    def _answer(self, ids: tuple[str, ...]) -> Answered:
        import hashlib

        time.sleep(SLEEP_S)
        hashed = hashlib.sha256(self._data).hexdigest()
        records = [ItemRecord(id=i, scene_id=i, size_px=(8, 8), prediction_sha256=hashed) for i in ids]
        return Answered(tuple(Made(record, self._data) for record in records), SLEEP_S)

    def take(self) -> Iterator[tuple[Any, Any]]:
        done, _ = wait(self._waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield self._waiting.pop(future), future.result()

    def close(self, *, finish: bool) -> None:
        self._pool.shutdown(wait=finish)


class Simulated:
    """In place of ``bench.executors.cluster.Cluster``."""

    device = "cpu"
    nodes: dict[str, int] = {}
    events: list[str] = []

    def crew(self, job: Job, what: str) -> Sleepers:
        return Sleepers()


def measure(count: int) -> None:
    """Predict ``count`` images, and print the rate and the peak of memory."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        information = place / "rfbench_tiny-1.0.dist-info"
        information.mkdir()
        (place / "rfbench_tiny.py").write_text(SITE.replace("count = 1000", f"count = {count}"))
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: rfbench-tiny\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("[rfbench.datasets]\ntiny = rfbench_tiny:Tiny\n")
        sys.path.insert(0, name)
        from bench.predict.execute import predict
        from bench.predict.plan import Request, make_plan

        prepared = make_plan(
            Request(("nearest",), data="tiny", device="cpu", is_remote=True, draws=1, out=place / "out")
        )  # fmt: skip
        _import_all()
        peak, began, busy = memory.Peak(), time.perf_counter(), time.process_time()
        predict(prepared, cluster=Simulated())  # type: ignore[arg-type]
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
    print(
        f"{count} images: {count / seconds:.0f} a second, {1000 * busy / count:.2f} ms of processor an image, "
        f"{memory.shown(peak.seen())} at the peak",
        flush=True,
    )


def _import_all() -> None:
    """What a first run imports, which is start-up and no work on an image."""
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    from bench.core import provenance

    provenance.deterministic()
    pd.DataFrame({"a": [1]}).to_parquet(io.BytesIO(), engine="pyarrow")


def main() -> None:
    """Each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        measure(given.counts[0])
        return
    print(machine())
    for count in given.counts:
        words = [sys.executable, "-m", "tests.bench.driver", "--here", str(count)]
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
