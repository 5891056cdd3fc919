"""The shipped tables, each in one command, with random weights: ``python -m tests.bench.tables [--full]``, minutes.

Two small images, two steps, one draw. SAMSR and MISR-S2 run as guests on stand-ins for their authors' code. What is
shown is whether every system answers, and that memory is that of the largest of them: it is given back when a model is
closed. ``--full`` takes the published sizes (SeeSR alone needs 8 GB then, and a processor an hour).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.cli import cli
from bench.core import memory
from bench.records.folder import RunFolder
from bench.records.run import find_runs
from tests import fake_upstreams
from tests.bench.common import machine
from tests.conftest import write_dataset, write_rows

REDUCED = (
    "weights=random,size=tiny,steps=2,draws=1", "seesr:process_px=64",
    "zoomldm:stride=500,inner=1,invert_steps=1,finish=100,difference=0.1", "misr-s2:weights=random",
)  # fmt: skip


def data(folder: Path) -> Path:
    """Two pairs of 24x24 to 96x96 px in reflectance with NIR, and eight dates of each."""
    import csv

    write_dataset(folder, count=2, hr_px=(96, 96))
    with (folder / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        lr = np.moveaxis(np.load(folder / row["lr"]), 2, 0)
        dates, bands = [f"2024-06-{day:02d}" for day in range(1, 9)], ["R", "G", "B", "NIR"]
        np.savez(folder / f"series{i}.npz", data=np.stack([lr] * 8), dates=np.array(dates), bands=np.array(bands))
        row |= {"series": f"series{i}.npz", "hr_date": "2024-06-04", "lr_date": "2024-06-04"}
    write_rows(folder, rows)
    return folder


def run(table: str, of: Path, out: Path, *, full: bool) -> int:
    """One command; its exit code."""
    changes = [change.replace("size=tiny,", "") if full else change for change in REDUCED]
    named = [word for change in changes if table == "table1" or "misr" not in change for word in ("--set", change)]
    words = ["run", "--config", table, *named, "--data", str(of), "--limit", "2", "--workers", "0", "--no-report"]
    return int(cli.main([*words, "--metrics", "psnr_rgb,ssim_rgb", "--out", str(out)], standalone_mode=False) or 0)


def main() -> None:
    """Run both tables, and print what each system held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="networks of the published sizes")
    parser.add_argument("tables", nargs="*", default=["table1", "table2"])
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(machine())
    with tempfile.TemporaryDirectory() as name, fake_upstreams.installed(Path(name)):
        place = Path(name)
        of = data(place / "data")
        for table in given.tables:
            code = run(table, of, place / table, full=given.full)
            folders = find_runs([place / table])
            peaks = {folder.record().plan.model.label: _held(folder) for folder in folders}
            for label, (peak, closed) in peaks.items():
                print(f"{table}: {label}: at its peak {memory.shown(peak)}, closed {memory.shown(closed)}")
            least = min(closed for _, closed in peaks.values())
            together = least + sum(peak - least for peak, _ in peaks.values())
            most = max(peak for peak, _ in peaks.values())
            print(f"{table}: {len(peaks)} systems, exit code {code}; the most was {memory.shown(most)}, where all "
                  f"together would take {memory.shown(together)}")  # fmt: skip
            if code:
                sys.exit(code)


def _held(folder: RunFolder) -> tuple[int, int]:
    """The peak with the model, and what was left once it was closed."""
    session = next(s for s in folder.sessions() if s.get("stage") == "predict")
    return int(session["peak_host_bytes"]), int(session["closed_host_bytes"])


if __name__ == "__main__":
    main()
