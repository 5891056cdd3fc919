"""Fuzz by the thousand and print a table: ``python -m tests.fuzz --count 20000 --seed 0``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import ROOT
from tests.fuzz import trace
from tests.fuzz.case import Case
from tests.fuzz.guard import SECONDS

_EVERY = 500  # inputs after which a line says how far it is
_SILENCE_S = 12 * SECONDS  # without a new line: a library in C hangs, and its process is ended
_KEPT_OF_A_KIND = 40
_OURS = ("rfbench-fuzz-", "rfbench-", "pymp-")  # temporary folders: of inputs, of decoders' processes, of their sockets


def main() -> int:
    """Exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=20000, help="inputs over all targets (default 20000)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds are other inputs (default 0)")
    parser.add_argument("--only", action="append", help="one target; may be repeated")
    parser.add_argument(
        "--out", type=Path, default=Path("fuzz-findings"), help="where findings go (default fuzz-findings)"
    )
    parser.add_argument("--strace", action="store_true", help="watch files and connections by strace too")
    parser.add_argument("--replay", type=Path, nargs="+", help="run these kept inputs instead, and print what comes")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay:
        return _replay(options.replay)
    if options.worker is not None:
        return _work(options, options.worker)
    return _supervise(options)


def plan(count: int, only: list[str] | None) -> list[tuple[str, int]]:
    """The inputs in their order: (target, number), the targets in turn by their shares."""
    from tests.fuzz.targets import TARGETS

    shares = {name: target.share for name, target in TARGETS.items() if not only or name in only}
    if not shares:
        raise SystemExit(f"--only: known targets are {', '.join(TARGETS)}")
    total = sum(shares.values())
    numbered = [(i / share, name, i) for name, share in shares.items() for i in range(int(count * share / total) + 1)]
    return [(name, i) for _, name, i in sorted(numbered)][:count]


def _work(options: argparse.Namespace, first: int) -> int:
    """Run the plan from input ``first`` on; a JSON line for each: announced before, described after."""
    from tests.fuzz.observe import observe, prepare

    prepare()
    from tests.fuzz import guard, seeds, targets

    wanted = plan(options.count, options.only)
    for name in {n for n, _ in wanted}:
        targets.make(name, options.seed, 0)  # makes the seeds, which takes memory of its own
    for seed in ("dataset", "run", "pictures", "weights", "study", *seeds.layouts()):
        seeds.tree(seed)
    guard.limit_memory()
    trace.begin()
    for index in range(first, len(wanted)):
        target, number = wanted[index]
        print(json.dumps({"at": index}), flush=True)
        found = observe(targets.make(target, options.seed, number))
        print(
            json.dumps(
                {
                    "index": index,
                    "outcome": found.outcome,
                    "detail": found.detail if found.is_finding else "",
                    "seconds": found.seconds,
                    "peak": found.peak_bytes,
                }
            ),
            flush=True,
        )
        if found.outcome in ("memory", "hang"):
            return 0  # what it left behind must not count against the next input: another process goes on
    return 0


def _supervise(options: argparse.Namespace) -> int:
    """Keep a worker alive until all is done; an input at which it dies or falls silent is a finding."""
    wanted = plan(options.count, options.only)
    results: dict[int, dict[str, Any]] = {}
    started, at, calls = time.perf_counter(), 0, list[str]()
    kinds: Counter[str] = Counter()
    while at < len(wanted):
        current = at
        for line in _lines(options, at, calls):
            if "at" in line:
                current = line["at"]
                continue
            results[line["index"]] = line
            if line["outcome"] not in ("ok", "refused"):
                _keep(options, wanted[line["index"]], line, kinds)
            at = line["index"] + 1
            if at % _EVERY == 0:
                found = sum(r["outcome"] not in ("ok", "refused") for r in results.values())
                print(
                    f"{at} of {len(wanted)}, {found} findings, {time.perf_counter() - started:.0f} s", file=sys.stderr
                )
        if at < len(wanted) and current >= at:
            line = {
                "index": current,
                "outcome": "died",
                "detail": "the process died or fell silent",
                "seconds": 0,
                "peak": 0,
            }
            results[current] = line
            _keep(options, wanted[current], line, kinds)
            at = current + 1
    _report(wanted, results, time.perf_counter() - started)
    if options.strace:
        print(f"by strace: {len(calls)} changes of other files or connections")
        print("\n".join(calls[:_KEPT_OF_A_KIND]), file=sys.stderr)
    return int(bool(calls) or any(r["outcome"] not in ("ok", "refused") for r in results.values()))


def _lines(options: argparse.Namespace, first: int, calls: list[str]) -> Any:
    """The lines of a worker that begins at input ``first``, until it ends, dies or falls silent.

    What it and its children asked the system for and must not goes into ``calls``.
    """
    import select

    words = ["--count", str(options.count), "--seed", str(options.seed), "--worker", str(first)]
    for name in options.only or ():
        words += ["--only", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    # -P keeps the working directory out of the path, where an input could put a module; the tests are found by name.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
    with tempfile.TemporaryDirectory(prefix="rfbench-strace-") as place, tempfile.TemporaryFile() as noise:
        log = Path(place, "calls")
        worker = subprocess.Popen(
            [*(trace.words(log) if options.strace else ()), sys.executable, "-P", "-m", "tests.fuzz", *words],
            stdout=subprocess.PIPE,
            stderr=noise,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        assert worker.stdout is not None
        pending, patience = b"", 300.0  # the first line waits for the imports
        while select.select([worker.stdout], [], [], patience)[0]:
            block = os.read(worker.stdout.fileno(), 1 << 16)
            if not block:
                break
            patience = _SILENCE_S
            *whole, pending = (pending + block).split(b"\n")
            for text in whole:
                if text.startswith(b"{"):
                    yield json.loads(text)
        for process in (*psutil.Process(worker.pid).children(recursive=True), worker):
            with contextlib.suppress(psutil.Error):
                process.kill()
        worker.wait()
        if options.strace:
            calls += trace.forbidden(log, tuple(f"{tempfile.gettempdir()}/{name}" for name in _OURS))
        noise.seek(0)
        said = noise.read().decode(errors="replace").strip()
        if said and worker.returncode:
            print(said[-2000:], file=sys.stderr)


def _keep(options: argparse.Namespace, which: tuple[str, int], line: dict[str, Any], kinds: Counter[str]) -> None:
    from tests.fuzz.targets import make

    target, number = which
    last = line["detail"].strip().splitlines()[-1:] or [""]
    kinds[f"{target}/{line['outcome']}"] += 1
    print(f"found: {target} {number}: {line['outcome']}: {last[0][:200]}", file=sys.stderr)
    if kinds[f"{target}/{line['outcome']}"] <= _KEPT_OF_A_KIND:
        options.out.mkdir(parents=True, exist_ok=True)
        stem = f"{target}-{line['outcome'].replace(' ', '_')}-{options.seed}-{number}"
        (options.out / f"{stem}.json").write_text(make(target, options.seed, number).to_json())
        (options.out / f"{stem}.txt").write_text(line["detail"], errors="backslashreplace")


def _report(wanted: list[tuple[str, int]], results: dict[int, dict[str, Any]], seconds: float) -> None:
    rows: dict[str, Counter[str]] = {}
    slowest: dict[str, float] = {}
    peak: dict[str, int] = {}
    for index, line in results.items():
        name = wanted[index][0]
        kind = line["outcome"] if line["outcome"] in ("ok", "refused") else "findings"
        rows.setdefault(name, Counter())[kind] += 1
        slowest[name] = max(slowest.get(name, 0), line["seconds"])
        peak[name] = max(peak.get(name, 0), line["peak"])
    titles = ("target", "inputs", "accepted", "refused", "findings", "slowest (computing)", "most memory taken")
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    every: Counter[str] = sum(rows.values(), Counter())
    for name, of in [*sorted(rows.items()), ("all", every)]:
        slow = max(slowest.values()) if name == "all" else slowest[name]
        most = max(peak.values()) if name == "all" else peak[name]
        counts = f"{of.total()} | {of['ok']} | {of['refused']} | {of['findings']}"
        print(f"| {name} | {counts} | {slow:.2f} s | {most / 1e6:.0f} MB |")
    print(f"\n{len(results)} inputs in {seconds:.0f} s")


def _replay(paths: list[Path]) -> int:
    from tests.fuzz.observe import observe, prepare

    prepare()
    worst = 0
    for path in paths:
        found = observe(Case.from_json(path.read_text()))
        print(f"{path}: {found.outcome} in {found.seconds:.2f} s, {found.peak_bytes / 1e6:.0f} MB: {found.detail}")
        worst |= found.is_finding
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
