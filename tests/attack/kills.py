"""Kills at random moments, and at renames: a repeated command ends in the same bytes, or says why it does not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.attack.commands import Command, fresh, leftovers, orphans, tree

AT_RENAME = """
import os, signal
_left = int(os.environ["ATTACK_AT"])
def _counted(inner):
    def step(*words, **named):
        global _left
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*words, **named)
    return step
os.replace, os.rename, os.rmdir = map(_counted, (os.replace, os.rename, os.rmdir))
"""
"""A ``sitecustomize`` that ends its process at the n-th rename."""
_ENDS_S = 30.0  # for what runs below a killed process to end, on a busy machine
_CHAIN = 3  # kills before a command is let to its end


@dataclass
class Outcome:
    """What came of the kills of one command."""

    name: str
    kills: int = 0
    identical: int = 0
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def at_random(command: Command, count: int, work: Path, generator: random.Random) -> Outcome:
    """``count`` kills of the process alone, at moments spread over its time; after every third it is let to its end."""
    outcome, (whole, whole_s) = Outcome(command.name), _whole(command, work)
    while outcome.kills < count:
        fresh(command, work)
        for _ in range(min(_CHAIN, count - outcome.kills)):
            process = command.start(work)
            time.sleep(generator.uniform(0.1, 1.0) * whole_s)
            if process.poll() is None:
                process.kill()
            outcome.kills += 1
            try:
                process.communicate(timeout=_ENDS_S)
            except subprocess.TimeoutExpired:
                outcome.wrong.append("a process that was started below the killed one lives on")
                for orphan in orphans(work):
                    orphan.kill()
                process.communicate()
        _end(command, work, whole, outcome)
    return outcome


def at_renames(command: Command, count: int, work: Path, site: Path) -> Outcome:
    """At most ``count`` kills, the n-th at the n-th rename of a process, each in a folder of its own."""
    (site / "sitecustomize.py").parent.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text(AT_RENAME)
    outcome, (whole, _) = Outcome(command.name), _whole(command, work)
    for n in range(1, count + 1):
        fresh(command, work)
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        process = command.start(work, {"ATTACK_AT": str(n), "PYTHONPATH": f"{path}{os.pathsep}{_root()}"})
        _, said = process.communicate(timeout=300)
        if process.returncode == 0:  # it has no n-th rename, nor one of its children
            break
        if process.returncode != -signal.SIGKILL and "Traceback" in said:
            outcome.wrong.append(f"a child killed at rename {n}: {said[-200:]}")
        outcome.kills += 1
        _end(command, work, whole, outcome)
    return outcome


def _root() -> str:
    from tests.conftest import ROOT

    return str(ROOT)


def _whole(command: Command, work: Path) -> tuple[dict[str, bytes], float]:
    """What the command leaves where nobody interrupts it, and how long it takes."""
    fresh(command, work)
    began = time.monotonic()
    code, said = command.finish(work)
    if code != 0:
        raise RuntimeError(f"{command.name} does not work here: {said[-500:]}")
    return tree(work), time.monotonic() - began


def _end(command: Command, work: Path, whole: dict[str, bytes], outcome: Outcome) -> None:
    """Let the command come to its end and look at what is there."""
    code, said = command.finish(work)
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    if "Traceback" in said:
        outcome.wrong.append(f"a traceback: {said[-300:]}")
    elif code != 0 and command.may_refuse and len(lines) == 1:
        outcome.refused.append(lines[0])
    elif code != 0:
        outcome.wrong.append(f"exit code {code}: {said[-300:]}")
    elif (now := tree(work)) != whole:
        differing = sorted(k for k in now.keys() | whole.keys() if now.get(k) != whole.get(k))
        outcome.wrong.append(f"other bytes in {', '.join(differing[:5])}")
    elif left := leftovers(work):
        outcome.wrong.append(f"left behind: {', '.join(left[:5])}")
    else:
        outcome.identical += 1
    deadline = time.monotonic() + 10
    while (found := orphans(work)) and time.monotonic() < deadline:
        time.sleep(0.1)
    outcome.wrong += [f"an orphan: {process.pid}" for process in found]
