"""Numbers that publications print, beside those of our runs: never in one column, never with a difference.

A model's spec holds what its authors and others printed for it (``ModelSpec.published``), by the name of the
publication. The RareFlow paper has a table of its own (``bench.reports.paper``), which looks closer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.core import registry
from bench.core.errors import one_line, unknown
from bench.models.spec import Claim
from bench.records.folder import RunFolder
from bench.records.run import read_run


@dataclass(frozen=True)
class Beside:
    """One system: what is printed of it, and what our runs of it found, by label and metric."""

    model: str
    claim: Claim
    ours: Mapping[str, Mapping[str, float | None]]


def sources() -> dict[str, dict[str, Claim]]:
    """Every publication that a spec has numbers of: its claims by the name of the model."""
    found: dict[str, dict[str, Claim]] = {}
    for name in registry.names("models"):
        for claim in getattr(registry.load("models", name), "published", ()):
            found.setdefault(claim.source, {})[name] = claim
    return found


def beside(folders: Sequence[RunFolder], source: str) -> list[Beside]:
    """The systems of a publication by name, each with our runs of it; RfbenchError for an unknown one."""
    known = sources()
    if source not in known:
        raise unknown("publication", source, ["paper", *known])
    return [Beside(name, claim, _ours(folders, name, claim)) for name, claim in sorted(known[source].items())]


def to_markdown(rows: Sequence[Beside]) -> str:
    """A table of what is printed, our runs below each system, and what the numbers are of."""
    metrics = list(dict.fromkeys(m for row in rows for m in row.claim.numbers))
    lines = [f"| system | {' | '.join(metrics)} |", f"|:--|{'--:|' * len(metrics)}"]
    for row in rows:
        lines.append(_line(f"{row.model}, printed", row.claim.numbers, metrics))
        lines += [_line(f"{label}, ours", numbers, metrics) for label, numbers in row.ours.items()]
    lines.append("")
    for citation, setting in dict.fromkeys((row.claim.citation, row.claim.setting) for row in rows):
        lines.append(f"- printed in {citation}: {setting}")
    lines.append("- numbers of other data or another code do not compare with ours; no difference is shown")
    return "\n".join(lines)


def to_json(rows: Sequence[Beside]) -> str:
    """The same as a document."""
    document = [
        {"model": row.model, "citation": row.claim.citation, "setting": row.claim.setting,
         "printed": dict(row.claim.numbers), "ours": {label: dict(found) for label, found in row.ours.items()}}
        for row in rows
    ]  # fmt: skip
    return json.dumps(document, indent=1)


def _line(label: str, numbers: Mapping[str, float | None], metrics: Sequence[str]) -> str:
    cells = ("–" if numbers.get(m) is None else f"{numbers[m]:.4g}" for m in metrics)
    return f"| {one_line(label, 80)} | {' | '.join(cells)} |"


def _ours(folders: Sequence[RunFolder], name: str, claim: Claim) -> dict[str, dict[str, float | None]]:
    """The metrics of a claim as our runs of the model have them, by label; None where a run has no such number."""
    found: dict[str, dict[str, float | None]] = {}
    for folder in folders:
        run = read_run(folder)
        if run.plan.model.spec.get("name") == name:
            cells = run.summary.rows["sample"].metrics
            found[run.plan.model.label] = {m: cells[m].value if m in cells else None for m in claim.numbers}
    return found
