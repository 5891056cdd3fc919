"""Runs for reports: a stochastic model, a deterministic one, hostile names everywhere, an image that failed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.records.folder import RunFolder
from bench.records.run import find_runs
from tests.conftest import PLUGIN, PLUGIN_ENTRY_POINTS, install_plugin, installed, write_dataset, write_rows
from tests.runs import run

HOSTILE = "</script><script>pwned=1</script><img src=x onerror=pwned=1>\u2028'\"&{{7*7}}"
"""What ends a script, an attribute, a line of an old script, and begins a template."""
METRIC = "mean_error<b>{{7*7}}</b>"
"""A metric's name, which a plugin may choose and a received folder may hold."""
MAPPED = """
class Noisy(Noisy):
    def upscale(self, batch):
        found = super().upscale(batch)
        spread = found.samples.std(axis=1).mean(axis=-1).astype(np.float32)
        return Prediction(samples=found.samples, maps={"guess": spread})
"""


@contextmanager
def hostile_plugin(site: Path) -> Iterator[None]:
    """The plugin of ``tests.conftest`` with a map, and a metric with a hostile name and title."""
    code = PLUGIN.replace('title = "mean error"', f"title = {HOSTILE[:40]!r}").replace('"mean_error"', repr(METRIC))
    points = PLUGIN_ENTRY_POINTS.replace("mean_error =", f"{METRIC} =")
    with installed(install_plugin(site, code + MAPPED, points), "rfbench_example"):
        yield


def report_runs(root: Path, count: int = 8) -> list[RunFolder]:
    """Runs of ``noisy`` and ``bicubic`` in ``root/runs`` on images of 60x80 px, with masks, whose ids, captions and
    labels are hostile, the last two of one scene; image 2 failed in ``noisy``. ``hostile_plugin`` is installed."""
    data = write_dataset(root / "data", count=count)
    (data / "mask").mkdir()
    with (data / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        mask = np.zeros((60, 80), np.uint8)
        mask[10 + i : 30 + i, 20:50] = 255
        np.save(data / f"mask/im{i}.npy", mask)
        row |= {"mask": f"mask/im{i}.npy", "scene_id": f"s{min(i, 6)}", "caption": f"A slump {HOSTILE} {i}."}
        row["id"] = f"im{i}" if i else f"im0 {HOSTILE}".replace("\u2028", " ")
    write_rows(data, rows)
    models = ("noisy:fail_on=im2,label=noisy <b>bold</b> {{7*7}}", "bicubic")
    metrics = ("psnr_rgb", METRIC, "nll", "opensr_improvement")
    made = run(models=models, data=str(data), metrics=metrics, workers=0, out=root / "runs")
    assert sum(made.failed.values()) == 1
    return find_runs([root / "runs"])
