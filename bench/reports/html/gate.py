"""The report of a gate, to be kept as an artifact of CI: what moved, which images, old and new side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.core.errors import NotComparable, RfbenchError, one_line
from bench.records.folder import RunFolder
from bench.records.run import find_runs, read_run, refuse_to_mix
from bench.reports.document import Column
from bench.reports.gate.check import Gate
from bench.reports.gate.golden import label_of
from bench.reports.gate.write import document_of
from bench.reports.html.content import Entry, Line, Measure, Part, Report
from bench.reports.html.runs import MAX_IMAGES, Pictures, Row, measure_of, panels_of
from bench.reports.numbers import signed
from bench.reports.table.build import build_table
from bench.stats.pairing import row_scores

_NO_PICTURES = "a golden run keeps no pictures; 'rfbench gate ... --before RUN' shows those of the run it was made of"


def gate_report(
    gates: Sequence[Gate],
    *,
    before: Path | None = None,
    title: str | None = None,
    data: str | None = None,
    max_images: int = MAX_IMAGES,
) -> Report:
    """The report of runs that were held against golden ones.

    Parameters
    ----------
    before : the runs, or a folder of them, that the golden runs were made of: they have the old pictures.
    max_images : how many images can be looked at, those that moved most first.

    Raises
    ------
    NotComparable
        Gates of several datasets or protocols: each needs a report of its own.
    RfbenchError
        Runs in ``before`` that are not those of the golden runs, or what ``tasks_of`` raises.
    """
    for gate in gates[1:]:
        refuse_to_mix(read_run(gates[0].run), read_run(gate.run), (), verdict="one report has one dataset",
                      advice="gate the runs of each dataset apart")  # fmt: skip
    earlier = {label_of(run): run for run in find_runs([before])} if before is not None else {}
    rows: list[Row] = []
    columns: dict[str, Column] = {}
    for gate in gates:
        columns |= {column.metric: column for column in build_table([gate.golden]).columns}
        rows += _rows(gate, earlier)
    measures = [
        measure_of(column) for name, column in columns.items() if any(row.scores.values.get(name) for row in rows)
    ]
    entries = _entries(gates, rows, measures)
    moved = sorted(range(len(entries)), key=lambda i: (-len(entries[i].lines), i))[:max_images]
    shown = [entries[i].id for i in sorted(moved)]
    pictures = Pictures(rows, data)
    start = {"order": "apart", "row": "0", "other": "1", "a": "r0", "b": "r1"}
    return Report(
        kind="gate",
        title=title or f"Gate: {', '.join(gate.label for gate in gates[:4])}{', ...' * (len(gates) > 4)}",
        about=f"{sum(bool(entry.lines) for entry in entries)} of {len(entries)} images moved or failed",
        parts=(Part("gates", "Verdicts", document_of(gates).sections),),
        panels=tuple(panels_of(rows)),
        rows=tuple(row.label for row in rows),
        measures=tuple(measures),
        entries=tuple(entries),
        shown=tuple(shown),
        views=lambda: pictures.views(shown),
        start=start | ({"metric": measures[0].name} if measures else {}),
    )


def _rows(gate: Gate, earlier: Mapping[str, RunFolder]) -> list[Row]:
    """Of each estimate that both have, the run's row behind the golden one's."""
    golden, run = ({one.kind: one for one in row_scores(folder)} for folder in (gate.golden, gate.run))
    pictured, without = _pictured(gate, earlier)
    labels = {kind: one_line(one.run.summary.rows[kind].label, 80) for kind, one in golden.items()}
    found = []
    for kind, label in labels.items():
        found.append(Row(f"{label}, golden", golden[kind], pictured, without))
        if kind in run:
            found.append(Row(f"{label}, run", run[kind]))
    return found


def _pictured(gate: Gate, earlier: Mapping[str, RunFolder]) -> tuple[RunFolder | None, str]:
    """Where the golden run's pictures are, or why there are none."""
    ids = gate.golden.record().plan.data.ids
    if any(gate.golden.predictions.path(i).is_file() for i in ids):
        return None, ""
    label = label_of(gate.run)
    if label not in earlier:
        return None, _NO_PICTURES
    found = earlier[label]
    if read_run(found).summary.predictions_sha256 != read_run(gate.golden).summary.predictions_sha256:
        raise RfbenchError(
            f"--before: {found.path} has other predictions than {gate.golden.path} was made of; give the run that the "
            "golden run was renewed from, or leave --before out"
        )
    return found, ""


def _entries(gates: Sequence[Gate], rows: Sequence[Row], measures: Sequence[Measure]) -> list[Entry]:
    named = rows[0].scores.run
    pairs = [(i, i + 1) for i, row in enumerate(rows) if row.label.endswith(", golden") and i + 1 < len(rows)]
    failed = {i: gate.label for gate in gates for i in gate.failed}
    found = []
    for image_id in named.plan.data.ids:
        values = tuple(tuple(row.scores.values.get(m.name, {}).get(image_id) for m in measures) for row in rows)
        why = {
            (i, j): one_line(row.scores.reasons.get(m.name, {}).get(image_id, "no number"), 200)
            for i, row in enumerate(rows)
            for j, m in enumerate(measures)
            if values[i][j] is None
        }
        lines = [Line("error", f"{failed[image_id]}: it failed in the run alone")] if image_id in failed else []
        for old, new in pairs:
            if rows[old].scores.kind != rows[new].scores.kind:
                continue
            moved = [
                f"{m.title} {signed(b - a, m.decimals)}"
                for m, a, b in zip(measures, values[old], values[new], strict=True)
                if a is not None and b is not None and a != b
            ]
            if moved:
                label = rows[new].label.removesuffix(", run")
                lines.append(Line("warning", one_line(f"{label} moved: {', '.join(moved)}", 300)))
        found.append(Entry(image_id, rows[0].scores.scenes.get(image_id, ""), named.plan.data.split, values, why,
                           tuple(lines)))  # fmt: skip
    return found


def write_gate_report(gates: Sequence[Gate], out: Path, before: Path | None) -> Path:
    """Write the report of gates into ``out`` and return its page. Raises as ``gate_report``."""
    from bench.reports.html.write import write_folder

    try:
        return write_folder(gate_report(gates, before=before), out)
    except NotComparable as error:  # a gate that was decided is not undone by its report
        raise RfbenchError(f"--report: {error}") from None
