"""What the harness adds on top of a model that takes 50 ms an image and the default metrics; pairs of 200x200 px.

The peer is a plain loop over the same pairs, already in memory: the same model call, the same metrics, one after the
other in one process. The run reads files, checks, stores predictions and rows, and scores in another process while it
predicts; it writes no page, which 'tests.bench.report' measures. Start-up (imports, first calls) is taken out on both
sides by the difference of a long and a short run. Wall time is what a user waits. Since overlap hides work, the
processor time of all processes is printed as well; it counts too much where two cores are two threads of one, since
each then does less in a second.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.common import install_sleeper, machine, repeat_scenes, run_and_watch

SHORT, LONG = 40, 240
WORKERS = 1


def loop(data: Path, count: int, site: Path) -> tuple[float, float]:
    """The peer: seconds of wall and of processor for ``count`` pairs."""
    sys.path.insert(0, str(site))
    import torch

    from bench.metrics.base import Setting
    from bench.metrics.scorer import Scorer
    from bench.models.call import Model
    from bench.predict.plan import Request, make_plan
    from bench.score.choice import choose_metrics
    from bench.score.estimates import estimates

    torch.set_num_threads(1)
    plan = make_plan(Request(models=("sleeper",), data=str(data), limit=count))
    tasks = [plan.protocol.prepare(plan.dataset.load(r)) for r in plan.records]
    scorer, model = Scorer(tuple(choose_metrics(None, Setting()).computed), Setting()), Model("sleeper")
    wall, processor = time.perf_counter(), time.process_time()
    for task in tasks:
        (answer,) = model.predict([task], run_seed=0, draws=1)
        scorer.score(task.reference, estimates(answer, task, plan.protocol))  # type: ignore[arg-type]
    return time.perf_counter() - wall, time.process_time() - processor


def run(data: Path, count: int, site: Path, out: Path) -> tuple[float, float]:
    """The harness: seconds of wall and of processor (all processes) for ``count`` pairs, start-up included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["run", "--model", "sleeper", "--data", str(data), "--limit", str(count), "--out", str(out), "--no-report"]
    wall, _ = run_and_watch([*words, "--workers", str(WORKERS)], {"PYTHONPATH": str(site)}, every_s=1.0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site, data = install_sleeper(folder / "site"), repeat_scenes(folder / "data", LONG)
        count = LONG - SHORT
        runs = [run(data, n, site, folder / f"out{n}") for n in (SHORT, LONG)]
        loops = [loop(data, n, site) for n in (SHORT, LONG)]
    for name, what in (("plain loop", loops), ("rfbench run", runs)):
        wall, processor = (1000 * (b - a) / count for a, b in zip(*what, strict=True))
        print(f"{name}: {wall:.1f} ms wall, {processor:.1f} ms processor an image ({count} images of 200x200 px)")
    (lw, lp), (rw, rp) = ([b - a for a, b in zip(*what, strict=True)] for what in (loops, runs))
    print(f"wall: the run takes {100 * (rw / lw - 1):+.1f} % of the loop's time ({WORKERS} scoring process)")
    print(
        f"work: {1000 * (rp - lp) / count:.1f} ms of processor time an image added, "
        f"{100 * (rp - lp) / lw:+.1f} % of the loop"
    )


if __name__ == "__main__":
    main()
