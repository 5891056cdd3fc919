"""Attack whole commands and print a table: ``python -m tests.attack [--kills 100] [--renames 200] [--signals 30]``."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
from pathlib import Path

from tests.attack import environments, kills, signals
from tests.attack.commands import commands


def main() -> int:
    """Exit code 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="at random moments, over all commands (default 100)")
    parser.add_argument("--renames", type=int, default=200, help="at renames, over all commands (default 200)")
    parser.add_argument("--signals", type=int, default=30, help="scenarios of signals (default 30)")
    parser.add_argument("--environments", type=int, default=len(environments.MACHINES), help="broken machines (all)")
    parser.add_argument("--only", action="append", help="one command; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slack", type=float, default=1.0, help="stretches the five seconds on a busy machine")
    options = parser.parse_args()
    generator, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory(prefix="rfbench-attack-") as place:
        work = Path(place) / "work"
        known = commands(Path(place) / "material")
        chosen = [c for name, c in known.items() if not options.only or name in options.only]
        shares = [len(range(i, options.kills, len(chosen))) for i in range(len(chosen))]
        print("| attack | on | times | as if nothing had been | refused, and said | wrong |\n|---|---|---|---|---|---|")
        for command, count in zip(chosen, shares, strict=True):
            if count:
                wrong += _tell("kills", kills.at_random(command, count, work, generator))
        left = options.renames
        for i, command in enumerate(chosen):
            count = left // (len(chosen) - i)
            if count:
                outcome = kills.at_renames(command, count, work, Path(place) / "site")
                left -= outcome.kills
                wrong += _tell("kills at renames", outcome)
        turns = itertools.cycle((c, s) for s in signals.SCENARIOS for c in chosen)
        plan: dict[str, list[str]] = {}
        for command, scenario in itertools.islice(turns, options.signals):
            plan.setdefault(command.name, []).append(scenario)
        for name, scenarios in plan.items():
            found = signals.attack(known[name], scenarios, work, generator, options.slack)
            held = f"{found.scenarios - len(found.wrong)} (slowest {found.slowest_s:.1f} s)"
            wrong += _row("signals", name, found.scenarios, held, [], found.wrong)
        for name in list(environments.MACHINES)[: options.environments]:
            endured = environments.attack(name, work)
            if endured is not None:
                times = endured.worked + len(endured.refused) + len(endured.wrong)
                wrong += _row("a machine with", name, times, str(endured.worked), endured.refused, endured.wrong)
    return 1 if wrong else 0


def _tell(attack: str, outcome: kills.Outcome) -> int:
    return _row(attack, outcome.name, outcome.kills, f"{outcome.identical} ends", outcome.refused, outcome.wrong)


def _row(attack: str, on: str, times: int, held: str, refused: list[str], wrong: list[str]) -> int:
    print(f"| {attack} | {on} | {times} | {held} | {len(refused)} | {len(wrong)} |", flush=True)
    for line in dict.fromkeys(refused):
        print(f"refused: {line[:300]}", file=sys.stderr)
    for line in wrong:
        print(f"WRONG: {attack}, {on}: {line}", file=sys.stderr, flush=True)
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
