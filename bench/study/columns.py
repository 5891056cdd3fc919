"""Votes become scores: two columns of ``rfbench table``, beside the metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from bench.core.errors import NotComparable
from bench.records.folder import RunFolder
from bench.reports.document import Cell, Column, Footnote, Row
from bench.reports.table.build import Table, ranks
from bench.study.crossed import share_of
from bench.study.votes import Study, read_study

_TITLES = {"clarity": "Clarity", "parity": "Parity"}
_MEANS = {
    "clarity": "votes that SR is clearer than LR, ties half",
    "parity": "votes for SR over HR, ties half: 0.5 is on a par",
}


def with_votes(table: Table, runs: Sequence[RunFolder], folder: Path) -> Table:
    """The table with the shares of a closed study. Rows that were not shown to anybody have a reason.

    Raises RfbenchError for an open study, NotComparable for one of other runs.
    """
    study = read_study(folder)
    plans = {s.plan_sha256: s.label for s in study.key.systems}
    systems = {r.path.resolve().name: plans.get(r.record().plan_sha256) for r in runs}
    if not any(systems.values()):
        raise NotComparable(f"{folder} was made of other runs ({', '.join(plans.values())}); make a table of those")
    identity = f"votes|{study.plan.design}|plan{study.plan.sha256[:12]}|tieshalf|r1"
    columns, cells = [], []
    for question, title in _TITLES.items():
        column = Column(question, title, "", "up", "people", f"{question}|{identity}")
        columns.append(column)
        made = [_cell(study, systems.get(row.facts["folder"]), row, column) for row in table.rows]
        ranked = ranks([c.text for c in made], "up") if question == "clarity" else [None] * len(made)
        cells.append([dataclasses.replace(c, rank=r) for c, r in zip(made, ranked, strict=True)])
    rows = tuple(
        dataclasses.replace(row, cells=(*row.cells, *(of[i] for of in cells))) for i, row in enumerate(table.rows)
    )
    reviewers = len({v.reviewer for v in study.votes})
    note = f"votes of {reviewers} reviewers ({study.plan.design} design, plan {study.plan.sha256[:12]}): " + "; ".join(
        f"{_TITLES[q]}, {text}" for q, text in _MEANS.items()
    )
    return _annotated(dataclasses.replace(
        table, columns=(*table.columns, *columns), rows=rows, notes=(*table.notes, note)
    ))  # fmt: skip


def _cell(study: Study, system: str | None, row: Row, column: Column) -> Cell:
    if system is None or row.estimate != "sample":
        return Cell(None, 0, "not among what reviewers were shown", column.identity, "")
    votes = [v for v in study.counted(column.metric) if v.system == system]
    if not votes:
        return Cell(None, 0, "nobody was asked", column.identity, "")
    share = share_of([v.share for v in votes], [v.reviewer for v in votes], [v.scene for v in votes])
    interval = "" if share.low is None or share.high is None else f"{share.low:.2f} to {share.high:.2f}"
    return Cell(share.value, share.votes, None, column.identity, f"{share.value:.2f}", low=share.low, high=share.high,
                interval=interval)  # fmt: skip


def _annotated(table: Table) -> Table:
    """Empty cells of the votes point to footnotes, as those of metrics do."""
    notes = list(table.footnotes)
    texts: dict[str, int] = {}
    rows = []
    for row in table.rows:
        cells = []
        for cell, column in zip(row.cells, table.columns, strict=True):
            if column.group == "people" and cell.reason:
                if cell.reason not in texts:
                    texts[cell.reason] = len(notes)
                    notes.append(Footnote(cell.reason, tuple(_TITLES.values())))
                cell = dataclasses.replace(cell, note=texts[cell.reason])
            cells.append(cell)
        rows.append(dataclasses.replace(row, cells=tuple(cells)))
    return dataclasses.replace(table, rows=tuple(rows), footnotes=tuple(notes))


def votes_of_images(table: Table, runs: Sequence[RunFolder], folder: Path) -> dict[tuple[int, str], dict[str, float]]:
    """What people said of single images: the share of votes of each, by (row of the table, question) and image.

    Raises as ``with_votes``.
    """
    study = read_study(folder)
    plans = {s.plan_sha256: s.label for s in study.key.systems}
    systems = {r.path.resolve().name: plans.get(r.record().plan_sha256) for r in runs}
    found: dict[tuple[int, str], dict[str, float]] = {}
    for question in _TITLES:
        for i, row in enumerate(table.rows):
            of_image: dict[str, list[float]] = {}
            for vote in study.counted(question) if row.estimate == "sample" else ():
                if vote.system == systems.get(row.facts["folder"]):
                    of_image.setdefault(vote.image, []).append(vote.share)
            found[i, question] = {image: sum(shares) / len(shares) for image, shares in of_image.items()}
    return found
