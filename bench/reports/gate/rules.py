"""How far each metric may move: rules from a TOML file, or the built-in ones.

::

    format = 1

    [[rule]]
    metrics = ["psnr_rgb"]      # names, or ["*"] for every metric that no other rule names
    absolute = 0.01             # in the metric's unit
    sides = "two"               # "one": only worse is an alarm; "two" (the default): far better is one too
    why = "what tables show"

    [[rule]]
    metrics = ["de00"]
    relative = 0.02             # of the golden value
    statistical = { alpha = 0.05, effect = 0.1 }    # p below alpha and the mean moved by 0.1 or more

Of several limits, in one rule or in several that name a metric, every one has to hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.texts import read_toml
from bench.records.types import MetricRecord
from bench.reports.numbers import decimals_of, resolution

FILE = "rules.toml"
FORMAT = 1
EVERY = "*"
BUILT_IN = "what tables show does not change"


@dataclass(frozen=True)
class Statistical:
    """Significantly moved at level ``alpha`` (Holm over all statistical rules), and by ``effect`` or more, in the
    metric's unit."""

    alpha: float = 0.05
    effect: float = 0.0


@dataclass(frozen=True)
class Rule:
    """How far the metrics it names may move.

    Attributes
    ----------
    metrics : names, or ``*``.
    absolute : in the metric's unit; ``relative`` a share of the golden value.
    sides : ``one``: only worse is an alarm; ``two``: better is one too.
    why : for people.
    """

    metrics: tuple[str, ...]
    absolute: float | None = None
    relative: float | None = None
    statistical: Statistical | None = None
    sides: Literal["one", "two"] = "two"
    why: str = ""


@dataclass(frozen=True)
class Rules:
    """All rules, and where they come from."""

    rules: tuple[Rule, ...]
    source: str

    def of(self, metric: str) -> tuple[Rule, ...]:
        """The rules of a metric: those that name it, else those of ``*``."""
        named = tuple(r for r in self.rules if metric in r.metrics)
        return named or tuple(r for r in self.rules if EVERY in r.metrics)

    def check(self, known: Iterable[str]) -> None:
        """RfbenchError for a rule that names a metric which is not among ``known``."""
        names = set(known)
        for name in (n for rule in self.rules for n in rule.metrics if n != EVERY):
            if name not in names:
                raise unknown("metric", name, names, hint=f"{self.source} names it, no golden run has it")


def built_in(metrics: Mapping[str, MetricRecord]) -> Rules:
    """One unit of the last decimal that tables show, on both sides; a thousandth where decimals are not fixed."""
    steps = {name: resolution(decimals_of(metric)) for name, metric in sorted(metrics.items())}
    fixed = tuple(Rule((name,), absolute=step, why=BUILT_IN) for name, step in steps.items() if step)
    return Rules((*fixed, Rule((EVERY,), relative=0.001, why=BUILT_IN)), "the built-in rules")


def read_rules(path: Path) -> Rules:
    """The rules of a TOML file; RfbenchError saying where it is wrong."""
    if not path.exists():
        raise RfbenchError(f"--rules: {path} does not exist; give a file such as docs/gate.md shows")
    found = read_toml(path)
    _only(found, ("format", "rule"), str(path))
    if found.get("format") != FORMAT:
        raise RfbenchError(f"{path}: found format {one_line(found.get('format'), 40)}, expected format = {FORMAT}")
    rules = found.get("rule")
    if not isinstance(rules, list) or not rules or not all(isinstance(r, dict) for r in rules):
        raise RfbenchError(f"{path}: found no [[rule]], expected at least one")
    return Rules(tuple(_rule(r, f"{path}, rule {i}") for i, r in enumerate(rules, 1)), str(path))


def _rule(found: Mapping[str, Any], where: str) -> Rule:
    _only(found, ("metrics", "absolute", "relative", "statistical", "sides", "why"), where)
    metrics = found.get("metrics")
    if not isinstance(metrics, list) or not metrics or not all(isinstance(m, str) for m in metrics):
        raise RfbenchError(f'{where}: expected metrics = ["NAME", ...] or ["*"]')
    sides = found.get("sides", "two")
    if sides not in ("one", "two"):
        raise RfbenchError(f'{where}: found sides = {one_line(sides, 40)}, expected "one" or "two"')
    limits = {key: _number(found[key], f"{where}: {key}") for key in ("absolute", "relative") if key in found}
    statistical = None
    if "statistical" in found:
        if not isinstance(found["statistical"], dict):
            raise RfbenchError(f"{where}: expected statistical = {{ alpha = 0.05, effect = 0.1 }}")
        _only(found["statistical"], ("alpha", "effect"), f"{where}: statistical")
        statistical = Statistical(**{k: _number(v, f"{where}: {k}") for k, v in found["statistical"].items()})
        if not 0.0 < statistical.alpha < 1.0:
            raise RfbenchError(f"{where}: found alpha = {statistical.alpha:g}, expected a number between 0 and 1")
    if not limits and statistical is None:
        raise RfbenchError(f"{where}: found no limit, expected absolute, relative or statistical")
    return Rule(tuple(metrics), **limits, statistical=statistical, sides=sides, why=one_line(found.get("why", "")))


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise RfbenchError(f"{where}: found {one_line(value, 40)}, expected a number of 0 or more")
    return float(value)


def _only(found: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in found:
        if key not in known:
            raise unknown(f"key of {where},", key, known)
