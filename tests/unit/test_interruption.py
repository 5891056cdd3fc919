"""Signals at whatever moment: an end within five seconds, one line, no process left, whatever the command is doing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.commands import hears

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

AROUND = """
import os, sys, time
import bench.cli as command_line
def work():
{work}
command_line.cli.main = lambda **named: work()
command_line.main()
"""
WORKS = {
    "waits": """
        print("ready", flush=True)
        time.sleep(60)
    """,
    "computes in C without giving way": """
        print("ready", flush=True)
        while True:
            sum(range(3_000_000))
    """,
    "hangs in its cleaning up": """
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            time.sleep(60)
    """,
    "swallows what is raised": """
        print("ready", flush=True)
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
    """,
    "has processes of a pool": """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from bench.core.process import context, shielded
        with shielded():
            pool = ProcessPoolExecutor(2, context("time"))
            jobs = [pool.submit(time.sleep, 60) for _ in range(4)]
            lock = context("time").Lock()
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.05)
        print("ready", flush=True)
        try:
            time.sleep(60)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    """,
    "has children that ignore signals": """
        import subprocess
        code = "import time, signal as s; [s.signal(n, 1) for n in (1, 2, 15)]; print(flush=True); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        print("ready", flush=True)
        child.wait()
    """,
    "is done and waits for a thread": """
        import threading
        print("ready", flush=True)
        threading.Thread(target=time.sleep, args=(60,)).start()
        return 0
    """,
}


@pytest.fixture(params=WORKS)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "command.py"
    work = textwrap.indent(textwrap.dedent(WORKS[request.param]), "    ")
    body = AROUND.format(work=work).replace(
        "command_line.main()", 'if __name__ == "__main__":\n    command_line.main()'
    )
    script.write_text(body)
    started = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hears,
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    time.sleep(0.2)
    yield started
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)  # with what a failed test left below it, which holds its streams
    started.communicate(timeout=30)


@pytest.mark.parametrize(
    "signals",
    [[(signal.SIGINT, 0.0)], [(signal.SIGINT, 0.0), (signal.SIGINT, 0.3)], [(signal.SIGINT, 0.05)] * 3,
     [(signal.SIGTERM, 0.0)], [(signal.SIGHUP, 0.0)]],
    ids=["once", "twice", "thrice", "term", "hup"],
)  # fmt: skip
def test_every_command_ends_soon_in_one_line_without_orphans(
    command: subprocess.Popen[str], signals: list[tuple[int, float]], request: pytest.FixtureRequest
) -> None:
    below = psutil.Process(command.pid).children(recursive=True)
    began = time.monotonic()
    for number, pause in signals:
        time.sleep(pause)
        if command.poll() is None:
            os.killpg(command.pid, number)  # as a terminal does: all processes of the group get it
    _, said = command.communicate(timeout=30)
    assert time.monotonic() - began < 6.5  # five, and a machine that is busy
    lines = [line for line in said.splitlines() if line.strip()]
    assert "Traceback" not in said and "leaked" not in said, said
    if "is done" in request.node.name:
        assert command.returncode == 0 and not lines
    else:
        assert command.returncode == 128 + signals[0][0]
        what = "interrupted" if signals[0][0] == signal.SIGINT else f"ended by {signal.Signals(signals[0][0]).name}"
        assert lines == [f"error: {what}; no file was left half-written"], said
    _, alive = psutil.wait_procs(below, timeout=5)
    assert not alive


def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored(tmp_path: Path) -> None:
    body = textwrap.indent('print("ready", flush=True)\ntime.sleep(1)\nprint("done", flush=True)', "    ")
    words = ["nohup", sys.executable, "-c", AROUND.format(work=body)]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    started.send_signal(signal.SIGHUP)
    out, _ = started.communicate(timeout=30)
    assert out == "done\n" and started.returncode == 0
