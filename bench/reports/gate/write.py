"""The gate's findings as text for a terminal, Markdown for the summary of a CI job, and JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from bench.core.errors import one_line
from bench.reports.compare.write import interval_text
from bench.reports.document import Cell, Document, Grid, Row, Section, figures, words
from bench.reports.gate.check import Gate, Verdict
from bench.reports.gate.golden import label_of
from bench.reports.numbers import shown, signed
from bench.reports.render import markdown, terminal

_COLUMNS = (*map(figures, ("golden", "run", "run - golden", "allowed")), words("verdict"))
_CODES = {0: "held", 1: "regressed", 2: "something is missing"}
_LEFT_OUT = 6  # metrics without a number that are named


def exit_code(gates: Sequence[Gate]) -> int:
    """The gravest of all: 1 before 2 before 0."""
    codes = {gate.exit_code for gate in gates}
    return 1 if 1 in codes else max(codes, default=0)


def headline(gate: Gate) -> str:
    """What was held against what, and how it ended."""
    counts = {s: sum(v.status == s for v in gate.verdicts) for s in ("held", "moved", "missing", "undecided")}
    words = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    failed = f", {len(gate.failed)} images failed" if gate.failed else ""
    ended = f"{_CODES[gate.exit_code]} ({words or 'nothing judged'}{failed})"
    # By the run's own label: one run and one golden run belong together whatever they are called.
    return f"{label_of(gate.run)} against {one_line(gate.golden.path, 300)}: {ended}"


def _judged(gate: Gate) -> list[Verdict]:
    return [v for v in gate.verdicts if v.status != "not judged"]


def _name(verdict: Verdict, gate: Gate) -> str:
    row = "" if verdict.row == gate.label else f" of {verdict.row}"
    return f"{verdict.column.heading}{row}"


def _row(verdict: Verdict, gate: Gate) -> Row:
    decimals = verdict.column.decimals
    numbers = ["" if v is None else shown(v, decimals, more=1) for v in (verdict.golden, verdict.run)]
    moved = "" if verdict.difference is None else "0" if verdict.difference == 0 else f"{verdict.difference:+.2g}"
    cells = [Cell(text=text) for text in (*numbers, moved, ", ".join(verdict.limits))]
    return Row(_name(verdict, gate), (*cells, Cell(text=verdict.status, is_strong=verdict.status != "held")))


def _remarks(gate: Gate) -> list[str]:
    """Why something did not hold, the images that moved it, what else differs, what was not judged."""
    lines = []
    for verdict in _judged(gate):
        if verdict.status == "held":
            continue
        images = f"; {_images(verdict)}" if verdict.status == "moved" and verdict.images else ""
        lines.append(f"{_name(verdict, gate)}: {verdict.said}{images}")
    if gate.failed:
        some = ", ".join(one_line(i, 40) for i in gate.failed[:4]) + (", ..." if len(gate.failed) > 4 else "")
        lines.append(f"images that failed: {some}")
    if gate.differs:
        lines.append(f"also differs, not judged: {'; '.join(one_line(d, 200) for d in gate.differs)}")
    left = [v for v in gate.verdicts if v.status == "not judged"]
    if left:
        some = ", ".join(v.column.title for v in left[:_LEFT_OUT]) + (", ..." if len(left) > _LEFT_OUT else "")
        lines.append(f"not judged: {some} ({left[0].said}{', ...' if len({v.said for v in left}) > 1 else ''})")
    lines.append(f"rules: {one_line(gate.rules, 300)}")
    return lines


def _images(verdict: Verdict) -> str:
    """``22 images moved; most to the worse scene_0003 (-0.31), ...``"""
    column, parts = verdict.column, [f"{verdict.images} image{'s' * (verdict.images != 1)} moved"]
    for word, images in (("worse", verdict.behind), ("better", verdict.ahead)):
        if images:
            named = ", ".join(f"{one_line(i, 40)} ({signed(d, column.decimals)})" for i, d in images)
            parts.append(f"most to the {word} {named}")
    if verdict.inference is not None and interval_text(column, verdict.inference):
        parts.append(f"95 % interval of the mean {interval_text(column, verdict.inference)}")
    return "; ".join(parts)


def _section(gate: Gate, sign: str = "") -> Section:
    grid = Grid("metric", _COLUMNS, tuple(_row(verdict, gate) for verdict in _judged(gate)))
    return Section(f"{sign}{headline(gate)}", grid, notes=tuple(_remarks(gate)))


def document_of(gates: Sequence[Gate]) -> Document:
    """A section for each run."""
    return Document(tuple(map(_section, gates)))


def to_text(gates: Sequence[Gate]) -> str:
    """Aligned columns for a terminal."""
    return terminal.to_text(document_of(gates))


def to_markdown(gates: Sequence[Gate]) -> str:
    """A heading, a table and remarks for each run."""
    return markdown.to_markdown(
        Document(tuple(_section(gate, "✅ " if gate.exit_code == 0 else "❌ ") for gate in gates))
    )


def to_junit(gates: Sequence[Gate]) -> str:
    """One suite a run, one case a metric, in the elements that CI systems read. No times: the same bytes each time."""
    root = ET.Element("testsuites", name="rfbench gate")
    for gate in gates:
        suite = ET.SubElement(root, "testsuite", name=_xml(f"rfbench gate {gate.label}"))
        properties = ET.SubElement(suite, "properties")
        facts = [("golden", str(gate.golden.path)), ("rules", gate.rules), *(("differs", d) for d in gate.differs)]
        for name, value in facts:
            ET.SubElement(properties, "property", name=name, value=_xml(value))
        counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        for verdict in gate.verdicts:
            case = _case(suite, counts, verdict.row, verdict.column.metric)
            said = _xml(verdict.said)
            if verdict.status == "moved":
                counts["failures"] += 1
                failure = ET.SubElement(case, "failure", message=said)
                numbers = f"golden {verdict.golden!r}, run {verdict.run!r}, allowed {', '.join(verdict.limits)}"
                failure.text = _xml(f"{numbers}. {_images(verdict) if verdict.images else ''}")
            elif verdict.status in ("missing", "undecided"):
                counts["errors"] += 1
                ET.SubElement(case, "error", message=said or verdict.status)
            elif verdict.status == "not judged":
                counts["skipped"] += 1
                ET.SubElement(case, "skipped", message=said)
        for image in gate.failed:
            case = _case(suite, counts, gate.label, f"image {image}")
            counts["failures"] += 1
            ET.SubElement(case, "failure", message="the image failed in the run and not in the golden run")
        for name, count in counts.items():
            suite.set(name, str(count))
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")


def _case(suite: ET.Element, counts: dict[str, int], row: str, name: str) -> ET.Element:
    counts["tests"] += 1
    return ET.SubElement(suite, "testcase", classname=_xml(f"rfbench.gate.{row}"), name=_xml(name))


def _xml(text: str) -> str:
    """Text of which XML has every character: printable, and no half of a pair."""
    return one_line(text, 1000).encode("utf-8", "replace").decode()
