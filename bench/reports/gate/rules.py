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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.texts import read_toml
from bench.core.typed import decode
from bench.records.types import MetricRecord
from bench.reports.numbers import decimals_of, resolution

FILE = "rules.toml"
EVERY = "*"
BUILT_IN = "what tables show does not change"

Limit = Annotated[float, Meta(ge=0)]


class Statistical(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Significantly moved at level ``alpha`` (Holm over all statistical rules), and by ``effect`` or more, in the
    metric's unit."""

    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    effect: Limit = 0.0


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the metrics it names may move.

    Attributes
    ----------
    metrics : names, or ``*``.
    absolute : in the metric's unit; ``relative`` a share of the golden value.
    sides : ``one``: only worse is an alarm; ``two``: better is one too.
    why : for people.
    """

    metrics: Annotated[tuple[str, ...], Meta(min_length=1)]
    absolute: Limit | None = None
    relative: Limit | None = None
    statistical: Statistical | None = None
    sides: Literal["one", "two"] = "two"
    why: str = ""

    def __post_init__(self) -> None:
        if self.absolute is None and self.relative is None and self.statistical is None:
            raise ValueError("found no limit, expected absolute, relative or statistical")


class RulesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of rules."""

    format: Literal[1]
    rule: Annotated[tuple[Rule, ...], Meta(min_length=1)]


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
    found = decode(read_toml(path), RulesFile, path, remedy="docs/gate.md shows such a file")
    cleaned = (msgspec.structs.replace(rule, why=one_line(rule.why)) for rule in found.rule)
    return Rules(tuple(cleaned), str(path))
