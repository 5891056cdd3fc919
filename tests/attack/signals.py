"""Signals to whole commands, as a terminal and a scheduler send them, and what the command said of going on."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.attack.commands import Command, fresh, orphans, tree

SCENARIOS = {
    "Ctrl-C": ((signal.SIGINT, 0.0),),
    "Ctrl-C twice": ((signal.SIGINT, 0.0), (signal.SIGINT, 0.3)),
    "Ctrl-C thrice": ((signal.SIGINT, 0.0), (signal.SIGINT, 0.1), (signal.SIGINT, 0.1)),
    "SIGTERM": ((signal.SIGTERM, 0.0),),
    "SIGHUP": ((signal.SIGHUP, 0.0),),
}
_TO_ALL = (signal.SIGINT, signal.SIGHUP)  # a terminal sends these to every process of the group
ENDS_S = 5.0


@dataclass
class Signalled:
    """What came of the signals to one command."""

    name: str
    scenarios: int = 0
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def attack(
    command: Command, scenarios: list[str], work: Path, generator: random.Random, slack: float = 1.0
) -> Signalled:
    """Send the signals of each scenario at a random moment; ``slack`` stretches the five seconds on busy machines."""
    fresh(command, work)
    began = time.monotonic()
    code, said = command.finish(work)
    if code != 0:
        raise RuntimeError(f"{command.name} does not work here: {said[-500:]}")
    whole, whole_s = tree(work), time.monotonic() - began
    result = Signalled(command.name)
    for name in scenarios:
        fresh(command, work)
        process = command.start(work)
        time.sleep(generator.uniform(0.25, 0.95) * whole_s)
        sent = time.monotonic()
        for number, pause in SCENARIOS[name]:
            time.sleep(pause)
            if process.poll() is None:
                (os.killpg if number in _TO_ALL else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
        took = time.monotonic() - sent
        result.scenarios += 1
        if process.returncode == 0 or (process.returncode < 0 and tree(work) == whole):
            continue  # it was done by then, and perhaps about to leave the interpreter
        result.slowest_s = max(result.slowest_s, took)
        lines = [line for line in said.splitlines() if "interrupted" in line or "ended by" in line]
        if took > ENDS_S * slack:
            result.wrong.append(f"{name}: took {took:.1f} s")
        if "Traceback" in said or "leaked" in said or len(lines) != 1:
            result.wrong.append(f"{name}: said {said[-300:]!r}")
        if found := orphans(work):
            result.wrong.append(f"{name}: {len(found)} orphans")
        if lines and any(word in lines[0] for word in ("goes on from here", "begins anew", "may be repeated")):
            code, again = command.finish(work)
            if code != 0 or tree(work) != whole:
                result.wrong.append(f"{name}: said {lines[0]!r}, and the repeat: {code} {again[-200:]!r}")
    return result
