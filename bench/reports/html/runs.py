"""The report of finished runs: their table, what separates them, and every image as metrics saw it.

Numbers are the table's, the comparison's and the stored scores'; only the pictures are made anew, from the stored
predictions, by the code that scored them. One image at a time is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.core.errors import ItemError, NotComparable, Unavailable, one_line
from bench.core.files import digest
from bench.core.image import Array
from bench.core.resample import resize
from bench.metrics import opensr
from bench.metrics.base import Estimate, Reference
from bench.protocols.base import Task, cut
from bench.records.folder import RunFolder
from bench.records.run import PICTURES, Run
from bench.records.scores import OF_THE_SET
from bench.records.types import ItemRecord
from bench.reports.compare.build import compare
from bench.reports.compare.write import document_of as compared
from bench.reports.compare.write import to_json as comparison_json
from bench.reports.document import Column, Section
from bench.reports.figures.scores import DISTORTION, PERCEPTION
from bench.reports.html.content import (
    Entry,
    Line,
    Map,
    Measure,
    Panel,
    Part,
    Pixels,
    Plane,
    Point,
    Report,
    Strip,
    View,
)
from bench.reports.numbers import meaning_of
from bench.reports.pictures import eight_bit
from bench.reports.table.build import Table
from bench.reports.table.shape import without_empty
from bench.reports.table.write import about, section_of, to_csv, to_json
from bench.score.replay import Tasks, estimates_of, stored_answer, tasks_of
from bench.stats.pairing import RowScores, alike, row_scores

MAX_IMAGES = 200
"""How many images can be looked at unless more are asked for: those of most benchmarks, and 100 MB at 200x200 px."""
_CLASS_MAPS: dict[str, Literal["sr", "hr"]] = {"opensr_improvement": "sr", "opensr_improvement_h": "hr"}
"""The metrics that divide pixels into classes, which are shown where a run has them."""
GREY_LEVELS = "grey levels of 255"

Votes = Mapping[tuple[int, str], Mapping[str, float]]
"""What people said of single images: the share of votes by (row, question) and image."""


@dataclass(frozen=True)
class Row:
    """A row of the table, with the scores of its images under the ids that the report uses."""

    label: str
    scores: RowScores
    pictured: RunFolder | None = None
    """The run whose predictions are its pictures: its own unless told."""
    without: str = ""
    """Why it has no pictures at all."""

    @property
    def source(self) -> RunFolder:
        return self.pictured or self.run.folder

    @property
    def run(self) -> Run:
        return self.scores.run

    @property
    def kind(self) -> str:
        return self.scores.kind

    def own_id(self, image_id: str) -> str:
        """What the run itself calls an image."""
        return self.scores.known_as.get(image_id, image_id)


def runs_report(
    runs: Sequence[RunFolder],
    table: Table,
    *,
    title: str | None = None,
    against: str | None = None,
    data: str | None = None,
    max_images: int = MAX_IMAGES,
    votes: Votes | None = None,
    command: str = "",
) -> Report:
    """The report of the runs of a table.

    Parameters
    ----------
    table : of these runs, with intervals or marks or votes as they are to be shown.
    against : the row that the others are compared with; None for bicubic interpolation, or else the first.
    data : the dataset's folder or name; None for where the runs found it.
    max_images : how many images can be looked at, spread evenly over the first metric.
    votes : of single images; the columns are the table's.
    command : what makes the report again.

    Raises
    ------
    RfbenchError
        A row that is not there, or what ``tasks_of`` raises.
    """
    rows = _rows(runs, table)
    measures = _measures(table, rows, votes or {})
    entries = _entries(rows, measures, votes or {})
    shown = spread(entries, max_images)
    pictures = Pictures(rows, data)
    whole = without_empty(table, [Path(run.path.resolve().name) for run in runs])
    parts = [Part("results", "Results", (section_of(whole),))]
    parts.append(Part("figures", "Figures"))
    base = against or _baseline(runs, table)
    differences, files = _differences(runs, table, base, is_asked=against is not None)
    parts += [differences] if differences is not None else []
    parts += [_metrics_part(table), *_made(table, command)]
    left = "" if len(shown) == len(entries) else f"; {len(shown)} of them can be looked at here"
    return Report(
        kind="runs",
        title=title or f"{table.dataset}: {_listed([row.label for row in rows if row.kind == 'sample'])}",
        about=about(table) + left,
        parts=tuple(parts),
        panels=tuple(panels_of(rows)),
        rows=tuple(row.label for row in rows),
        measures=tuple(measures),
        entries=tuple(entries),
        shown=tuple(shown),
        views=lambda: pictures.views(shown),
        start=_start(table, rows, measures, base),
        strips=_strips(table, rows, measures),
        plane=_plane(table),
        files={"table.csv": to_csv(table) + "\n", "table.json": to_json(table) + "\n", **files},
    )


def spread(entries: Sequence[Entry], limit: int) -> list[str]:
    """At most ``limit`` ids in their order: the worst, the best and what lies evenly between them by the first measure
    of the first row; images without a number count as the worst."""
    if len(entries) <= limit:
        return [entry.id for entry in entries]
    first = [entry.values[0][0] if entry.values and entry.values[0] else None for entry in entries]
    order = sorted(range(len(entries)), key=lambda i: (first[i] is not None, first[i] or 0.0, i))
    places = {order[round(p)] for p in np.linspace(0, len(order) - 1, limit)}
    return [entry.id for i, entry in enumerate(entries) if i in places]


# --- numbers --------------------------------------------------------------------------------------------------


def _rows(runs: Sequence[RunFolder], table: Table) -> list[Row]:
    """The rows of the table; pictures of other programs under the ids of a run that knows the dataset's."""
    scores = [one for run in runs for one in row_scores(run)]
    named = next((one for one in scores if not one.is_foreign), scores[0])
    return [Row(row.label, alike(named, one)[1]) for row, one in zip(table.rows, scores, strict=True)]


def _measures(table: Table, rows: Sequence[Row], votes: Votes) -> list[Measure]:
    """The table's columns of which some image has a number of its own."""
    found = []
    for column in table.columns:
        by_people = any(question == column.metric for _, question in votes)
        if by_people or any(row.scores.values.get(column.metric) for row in rows):
            found.append(measure_of(column))
    return found


def measure_of(column: Column) -> Measure:
    """A column of a table as a measure of images."""
    decimals = 2 if column.group == "people" else column.decimals
    return Measure(
        column.metric, column.title, column.shown_unit, column.direction, decimals, meaning_of(column.metric)
    )  # fmt: skip


def _entries(rows: Sequence[Row], measures: Sequence[Measure], votes: Votes) -> list[Entry]:
    named = next((row for row in rows if not row.scores.is_foreign), rows[0])
    items: dict[str, Mapping[str, ItemRecord]] = {}
    for row in rows:
        items.setdefault(str(row.run.folder.path), row.run.folder.images())
    found = []
    for image_id in named.run.plan.data.ids:
        values, why = [], {}
        for i, row in enumerate(rows):
            of_row = []
            for j, measure in enumerate(measures):
                if (i, measure.name) in votes:
                    value, reason = votes[i, measure.name].get(image_id), "nobody was asked"
                else:
                    value = row.scores.values.get(measure.name, {}).get(image_id)
                    reason = row.scores.reasons.get(measure.name, {}).get(image_id, "not part of this run")
                of_row.append(value)
                if value is None and reason != OF_THE_SET:
                    why[i, j] = one_line(reason, 200)
            values.append(tuple(of_row))
        lines = []
        for row in rows:
            item = items[str(row.run.folder.path)].get(row.own_id(image_id))
            if item is not None and row.kind == "sample":
                said = [("error", item.error)] if item.error else [("note", note) for note in item.notes]
                lines += [Line(severity, one_line(f"{row.label}: {text}", 300)) for severity, text in said]  # type: ignore[arg-type]
        scene = named.scores.scenes.get(image_id, "")
        found.append(Entry(image_id, scene, named.run.plan.data.split, tuple(values), why, tuple(lines)))
    return found


def _start(table: Table, rows: Sequence[Row], measures: Sequence[Measure], base: str) -> dict[str, str]:
    """The gallery begins where the row that is best most often and the baseline disagree most, or with the worst images
    of the only row."""
    draws = [i for i, row in enumerate(rows) if row.kind == "sample"]
    others = [i for i in draws if rows[i].label != base] or draws
    chosen = max(others, key=lambda i: (sum(c.rank == "best" for c in table.rows[i].cells), -i))
    start = {"row": str(chosen), "a": f"r{chosen}", "b": "hr"}
    if not measures:
        return start | {"order": "dataset"}
    start |= {"metric": measures[0].name}
    held = next((i for i in draws if rows[i].label == base and i != chosen), None)
    return start | ({"order": "worst"} if held is None else {"order": "apart", "other": str(held)})


def _strips(table: Table, rows: Sequence[Row], measures: Sequence[Measure]) -> dict[str, tuple[Strip, ...]]:
    """The distributions, of metrics of which images have numbers; means and intervals are the table's."""
    found = {}
    places = {column.metric: j for j, column in enumerate(table.columns)}
    for measure in measures:
        strips = []
        for i, (row, line) in enumerate(zip(rows, table.rows, strict=True)):
            cell, values = line.cells[places[measure.name]], row.scores.values.get(measure.name)
            if cell.value is None or not values:
                continue
            low, middle, high = (float(q) for q in np.quantile(list(values.values()), (0.25, 0.5, 0.75)))
            strips.append(Strip(i, cell.value, cell.low, cell.high, (low, middle, high)))
        if strips:
            found[measure.name] = tuple(strips)
    return found


def _plane(table: Table) -> Plane | None:
    """PSNR against the first metric of perception that rows have, as ``rfbench plot plane`` has it."""
    places = {column.metric: j for j, column in enumerate(table.columns)}
    for name in PERCEPTION:
        if DISTORTION not in places or name not in places:
            continue
        points = []
        for i, row in enumerate(table.rows):
            x, y = row.cells[places[DISTORTION]], row.cells[places[name]]
            if x.value is not None and y.value is not None:
                points.append(Point(i, (x.value, x.low, x.high), (y.value, y.low, y.high)))
        if points:
            across, up = (table.columns[places[metric]] for metric in (DISTORTION, name))
            return Plane(across.metric, up.metric, across.heading, up.heading, across.direction == "up",
                         up.direction == "up", tuple(points))  # fmt: skip
    return None


# --- parts of the first page ----------------------------------------------------------------------------------


def _baseline(runs: Sequence[RunFolder], table: Table) -> str:
    """The row that others are compared with unless told: bicubic interpolation, else the first."""
    names = {run.path.resolve().name: run.record().plan.model.spec.get("name") for run in runs}
    bicubic = (row.label for row in table.rows if names.get(row.facts["folder"]) == "bicubic")
    return next(bicubic, table.rows[0].label)


def _differences(
    runs: Sequence[RunFolder], table: Table, base: str, *, is_asked: bool
) -> tuple[Part | None, dict[str, str]]:
    """Every row against one, as ``rfbench compare --against`` has it."""
    if len(table.rows) < 2 and not is_asked:
        return None, {}
    title = f"Differences from {base}"
    try:
        found = compare(runs, [c.metric for c in table.columns if c.group != "people"], against=base)
    except NotComparable as error:
        return Part("differences", title, lead=str(error)), {}
    document = compared(found)
    sections = (*document.sections, Section(notes=document.notes))
    return Part("differences", title, sections), {"differences.json": comparison_json(found) + "\n"}


def _metrics_part(table: Table) -> Part:
    facts = []
    for column in table.columns:
        said = meaning_of(column.metric)
        facts.append((column.heading, f"{said}; {column.identity}" if said else column.identity))
    return Part("metrics", "What the metrics are", facts=tuple(facts))


def _made(table: Table, command: str) -> list[Part]:
    """Which runs they are, under which licences, and the commands that make them and this page again."""
    grid = _runs_grid(table)
    licences: dict[str, None] = {}
    for row in table.rows:
        for part, text in row.facts["licences"].items():
            folder = row.facts["folder"]
            of = {"model": f"of {folder}", "weights": f"of the weights of {folder}"}.get(part, f"of the {part}")
            licences[one_line(f"{of}: {text or 'not stated'}", 300)] = None
    commands = list(dict.fromkeys(one_line(row.facts["command"], 1000) for row in table.rows if row.facts["command"]))
    return [
        Part("runs", "Runs and licences", (Section(grid=grid, notes=tuple(f"licence {text}" for text in licences)),)),
        Part("again", "How to make it again", lead="These commands make the runs and this report again, with the same "
             "bytes on a machine that computes alike.", code=(*commands, *([command] if command else []))),
    ]  # fmt: skip


def _runs_grid(table: Table) -> Any:
    from bench.reports.document import Cell, Grid, words
    from bench.reports.document import Row as GridRow

    titles = ("folder", "key", "seed", "draws", "dtype", "device", "batch")
    names = ("folder", "plan_sha256", "seed", "draws", "dtype", "device", "batch_size")
    rows = []
    for row in table.rows:
        if row.estimate == "sample":
            texts = [one_line(row.facts[name], 60) for name in names]
            texts[1] = texts[1][:12]
            rows.append(GridRow(row.label, tuple(Cell(text=t, is_code=i == 1) for i, t in enumerate(texts))))
    return Grid("run", tuple(words(title) for title in titles), tuple(rows))


def _listed(labels: Sequence[str]) -> str:
    shown = [one_line(label, 40) for label in labels[:4]]
    return ", ".join(shown) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")


# --- pictures -------------------------------------------------------------------------------------------------


def panels_of(rows: Sequence[Row]) -> Iterator[Panel]:
    yield Panel("lr", "LR", "lr")
    if not any(row.run.plan.model.spec.get("name") == "bicubic" for row in rows):
        yield Panel("up", "LR, bicubic", "up")
    for i, row in enumerate(rows):
        yield Panel(f"r{i}", row.label, "model", i)
    yield Panel("hr", "HR", "hr")


class Pictures:
    """The pictures of some rows, from their stored predictions and the data that they answer."""

    def __init__(self, rows: Sequence[Row], data: str | None) -> None:
        """Find the data and see that they are those of the runs; RfbenchError where they are not."""
        self.rows = rows
        self.panels = list(panels_of(rows))
        known: dict[str, Tasks] = {}
        for row in rows:
            if row.without:
                continue
            if self._key(row) not in known:
                foreign = row.run.plan.protocol_name == PICTURES
                known[self._key(row)] = tasks_of(row.source, None if foreign else data)
        self.tasks = {i: known[self._key(row)] for i, row in enumerate(rows) if not row.without}
        self.items = {str(row.source.path): row.source.images() for row in rows if not row.without}

    @staticmethod
    def _key(row: Row) -> str:
        """What rows have in common whose tasks are the same: of a policy tasks know nothing."""
        plan = row.run.plan
        foreign = str(row.source.path) if plan.protocol_name == PICTURES else ""
        return digest([foreign, {**plan.protocol, "policy": None}])

    def views(self, ids: Sequence[str]) -> Iterator[View]:
        """The pixels of these images, one at a time."""
        for image_id in ids:
            yield self._view(image_id)

    def _view(self, image_id: str) -> View:
        """What rows share is read once: the task of rows with one protocol, the answer behind several estimates."""
        asked: dict[tuple[int, str], Task | ItemError] = {}
        answered: dict[str, dict[str, Estimate] | ItemError] = {}
        pictures: dict[str, Pixels] = {}
        absent: dict[str, str] = {}
        maps: list[Map] = []
        deviation: dict[int, float] = {}
        base: Task | None = None
        for i, row in enumerate(self.rows):
            if row.without:
                absent[f"r{i}"] = row.without
                continue
            tasks, own, folder = self.tasks[i], row.own_id(image_id), str(row.source.path)
            if (id(tasks), own) not in asked:
                asked[id(tasks), own] = tasks.task(own)
            task, item = asked[id(tasks), own], self.items[folder].get(own)
            if isinstance(task, Task) and (base is None or (base.lr is None and task.lr is not None)):
                base = task
            why = task if isinstance(task, ItemError) else "not in this run" if item is None else item.error
            if isinstance(task, ItemError) or item is None or item.error:
                absent[f"r{i}"] = one_line(why, 200)
                continue
            if folder not in answered:
                answered[folder] = estimates_of(row.source, item, task, tasks.protocol)
            estimates = answered[folder]
            estimate = estimates if isinstance(estimates, ItemError) else estimates[row.kind]
            if isinstance(estimate, ItemError) or not estimate.display.size:
                said = estimate if isinstance(estimate, ItemError) else "its answer has no R, G, B"
                absent[f"r{i}"] = one_line(said, 200)
                continue
            pictures[f"r{i}"] = eight_bit(estimate.display)
            if row.kind == "sample":
                maps += self._maps(f"r{i}", row, item, task, estimate)
                if estimate.std is not None:
                    deviation[i] = 255.0 * math.sqrt(float(np.square(estimate.std, dtype=np.float64).mean()))
        if base is None:
            nothing = "no run has this image"
            return View(image_id, (1, 1), {}, absent | dict.fromkeys(("lr", "up", "hr"), nothing))
        return self._with_references(image_id, base, pictures, absent, maps, deviation)

    def _maps(self, key: str, row: Row, item: ItemRecord, task: Task, estimate: Estimate) -> Iterator[Map]:
        if estimate.std is not None:
            rms = np.sqrt(np.square(estimate.std, dtype=np.float64).mean(axis=2))
            yield Map(key, "predicted deviation", 255.0 * rms, GREY_LEVELS)
        for name, values in stored_answer(row.source, item).maps.items():
            border = (task.size[0] - estimate.display.shape[0]) // 2
            whole = values if values.shape != task.size else cut(values, border)
            if np.isfinite(whole).all():
                yield Map(key, one_line(name, 40), whole.astype(np.float64))
        for metric, family in _CLASS_MAPS.items():
            if metric in row.run.metrics:
                with suppress(Unavailable):  # its reason stands with the metric
                    classes = opensr.class_map(estimate, task.reference, family)
                    yield Map(key, f"classes of {metric}", classes, classes=opensr.CLASSES)

    def _with_references(
        self, image_id: str, task: Task, pictures: dict[str, Pixels], absent: dict[str, str], maps: list[Map],
        deviation: dict[int, float],
    ) -> View:  # fmt: skip
        reference = task.reference
        size = reference.valid.shape
        border = (task.size[0] - size[0]) // 2
        if reference.display is None:
            absent["hr"] = "no HR image"
        else:
            pictures["hr"] = eight_bit(reference.display)
        lr = _lr(task)
        if isinstance(lr, str):
            absent |= {"lr": lr, "up": lr}
        else:
            pictures["lr"] = eight_bit(lr)
            if any(panel.key == "up" for panel in self.panels):
                pictures["up"] = eight_bit(cut(np.clip(resize(lr, task.size), 0, 1), border))
        return View(
            image_id, (size[0], size[1]), pictures, absent, tuple(maps), reference.mask, valid_of(reference),
            deviation, border, one_line(task.caption, 600), tuple(stretch(task)),
        )  # fmt: skip


def _lr(task: Task) -> Array | str:
    """The LR in display range, or why there is none."""
    if task.lr is None:
        return "pictures that were held against pictures have no LR"
    try:
        return task.lr_display
    except ItemError as error:
        return one_line(error, 200)


def valid_of(reference: Reference) -> Any:
    """Where there are data, or None for everywhere."""
    return None if reference.valid.all() else reference.valid


def stretch(task: Task) -> Iterator[tuple[str, str]]:
    """How each side was brought to what is shown: one stretch for all panels of a side."""
    for side, fitted in task.normalisation.items():
        if isinstance(fitted, dict):
            ends = "; ".join(
                f"{band} {low:.5g} to {high:.5g}"
                for band, low, high in zip(fitted["bands"], fitted["low"], fitted["high"], strict=True)
            )
            gamma = f", gamma {fitted['gamma']:g}" if fitted.get("gamma", 1) != 1 else ""
            yield f"stretch of {side.upper()}", one_line(f"{fitted['form']} ({ends}){gamma}", 300)
    for note in task.notes:
        yield "note", one_line(note, 300)
