"""A comparison as plain text, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.core.errors import one_line
from bench.reports.compare.build import Comparison, Finding, Pair
from bench.reports.document import Cell, Column, Document, Grid, Row, Section, figures, grouped, words
from bench.reports.numbers import p_text, shown, signed
from bench.reports.render import data, markdown, terminal
from bench.reports.table.write import about, described, head_of
from bench.stats.means import POWER, Inference

NOT_SEPARATED = "not separated"
_BETTER = words("better")
_COLUMNS = (
    *map(figures, ("a", "b", "a - b", "95 % interval", "p", "p (Holm)")), _BETTER,
    *map(figures, ("d", "+/=/-", "detectable")),
)  # fmt: skip


def interval_text(column: Column, inference: Inference) -> str:
    """``[-4.93, -3.10]``, or nothing."""
    if inference.low is None or inference.high is None:
        return ""
    return f"[{signed(inference.low, column.decimals)}, {signed(inference.high, column.decimals)}]"


def _row(pair: Pair, finding: Finding) -> Row | None:
    """A line of a pair's grid; None where there is no number."""
    decimals, found = finding.column.decimals, finding.paired
    if found.inference is None or found.a is None or found.b is None:
        return None
    inference = found.inference
    neither = NOT_SEPARATED if finding.column.direction else "neither by itself"
    better = {"a": pair.a, "b": pair.b, None: neither if inference.p is not None else ""}[finding.better]
    texts = [
        shown(found.a, decimals), shown(found.b, decimals), signed(inference.value, decimals),
        interval_text(finding.column, inference), p_text(inference.p), p_text(finding.p_holm), better,
        f"{finding.effect:+.2f}" if finding.effect is not None else "",
        f"{finding.wins}/{finding.ties}/{finding.losses}" if found.differences else "",
        shown(inference.smallest, decimals, more=1) if inference.smallest is not None else "",
    ]  # fmt: skip
    cells = [Cell(text=text, is_strong=bool(finding.better) and c is _BETTER)
             for text, c in zip(texts, _COLUMNS, strict=True)]  # fmt: skip
    return Row(finding.column.heading, tuple(cells))


def _remarks(pair: Pair, comparison: Comparison, everywhere: Sequence[str]) -> list[str]:
    """Below a pair: why rows are not separated, reasons, images left out, biases, and the images that differ most."""
    reasons: dict[str, list[str]] = {}
    for finding in pair.findings:
        for text in (*_not_separated(finding, comparison), *_said(finding, comparison.table.images)):
            reasons.setdefault(text, []).append(finding.column.title)
    lines = [line for line in grouped(reasons) if line not in everywhere]
    for finding in pair.findings:
        if finding.ahead or finding.behind:
            ahead = f"most ahead on {_images(finding.column, finding.ahead)}" if finding.ahead else "ahead on none"
            behind = f"most behind on {_images(finding.column, finding.behind)}" if finding.behind else "behind on none"
            lines.append(f"{finding.column.title}: {pair.a} {ahead}; {behind}")
    return lines


def _not_separated(finding: Finding, comparison: Comparison) -> list[str]:
    """Why the data call neither better, where they were asked: too small a difference for them, or too many tests."""
    inference = finding.paired.inference
    if finding.better is not None or not finding.column.direction or inference is None or inference.p is None:
        return []
    if inference.p < comparison.alpha:
        return [
            f"{NOT_SEPARATED}: p is below {comparison.alpha:g}, but not among {comparison.tests} tests (Holm); fewer "
            "metrics (--metrics) or pairs (--against) ask less"
        ]
    return [
        f"{NOT_SEPARATED}: a difference this small is no more than {inference.scenes} scenes give by chance; they show "
        "what is detectable"
    ]


def _said(finding: Finding, images: int) -> list[str]:
    found = finding.paired
    if found.inference is None:
        return [found.reason or "no reason was given"]
    said = [text for text in (found.inference.reason, found.inference.note) if text]
    if len(found.ids) < images:
        some = "; ".join(f"{n}: {one_line(why, 160)}" for why, n in (found.left_out or {}).items())
        said.append(f"over {len(found.ids)} of {images} images ({some})")
    if found.inference.bias is not None:
        bias = signed(found.inference.bias, finding.column.decimals)
        said.append(
            f"one number of the set, at {len(found.ids)} images; by the jackknife {bias} of the difference is the bias "
            "of so few; interval from scenes left out in turn, p from scenes that change sides"
        )
    return said


def _everywhere(comparison: Comparison) -> list[str]:
    """Why metrics have no number in any pair, where that is the same for all pairs: said once."""
    reasons: dict[str, list[str]] = {}
    for findings in zip(*(pair.findings for pair in comparison.pairs), strict=True):
        texts = {tuple(_said(f, comparison.table.images)) for f in findings if f.paired.inference is None}
        if len(texts) == 1 and all(f.paired.inference is None for f in findings):
            reasons.setdefault(next(iter(texts))[0], []).append(findings[0].column.title)
    return grouped(reasons)


def _images(column: Column, images: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{one_line(i, 40)} ({signed(d, column.decimals)})" for i, d in images)


def _legend(comparison: Comparison) -> list[str]:
    return [
        f"a - b, paired by image, scenes as clusters ({comparison.scenes}); intervals 95 %; p two-sided, the larger of "
        "the interval's and of sign flips of scenes; Holm over "
        f"{comparison.tests} test{'s' * (comparison.tests != 1)}; 'better' where p (Holm) < {comparison.alpha:g}",
        "d: mean over standard deviation of the images' differences; +/=/-: images on which a is better, equal as "
        f"shown, worse; detectable: the smallest true difference that one such test shows in {100 * POWER:.0f} % of "
        "cases",
    ]


def document_of(comparison: Comparison) -> Document:
    """A comparison as a document: a section for each pair."""
    everywhere = _everywhere(comparison)
    sections = []
    for pair in comparison.pairs:
        rows = [row for finding in pair.findings if (row := _row(pair, finding)) is not None]
        notes = _remarks(pair, comparison, everywhere)
        grid = Grid("metric", _COLUMNS, tuple(rows))
        sections.append(Section(f"a = {pair.a}, b = {pair.b}", grid, notes=tuple(notes)))
    said = (*everywhere, *_legend(comparison), *comparison.notes)
    return Document(tuple(sections), about(comparison.table), said)


def to_text(comparison: Comparison) -> str:
    """Aligned columns for a terminal."""
    return terminal.to_text(document_of(comparison))


def to_markdown(comparison: Comparison) -> str:
    """A heading and a pipe table for each pair."""
    return markdown.to_markdown(document_of(comparison))


def to_json(comparison: Comparison) -> str:
    """All at full precision; ``format`` counts the versions of this document. There is no NaN in it."""
    table = comparison.table
    head = head_of(table)
    head["dataset"]["scenes"] = comparison.scenes
    document = head | {
        "alpha": comparison.alpha,
        "tests": comparison.tests,
        "columns": [described(column) for column in table.columns],
        "pairs": [
            {"a": pair.a, "b": pair.b, "metrics": {f.column.metric: _document(f) for f in pair.findings}}
            for pair in comparison.pairs
        ],
        "notes": list(comparison.notes),
    }
    return data.to_json(document)


def _document(finding: Finding) -> dict[str, Any]:
    found, inference = finding.paired, finding.paired.inference
    document: dict[str, Any] = {
        "identity": finding.column.identity, "n": len(found.ids), "a": found.a, "b": found.b, "difference": None,
        "reason": found.reason, "left_out": dict(found.left_out or {}),
    }  # fmt: skip
    if inference is None:
        return document
    return document | {
        "difference": inference.value, "scenes": inference.scenes, "low": inference.low, "high": inference.high,
        "p": inference.p, "p_interval": inference.p_interval, "p_flip": inference.p_flip, "p_holm": finding.p_holm,
        "better": finding.better, "detectable": inference.smallest, "std": inference.std, "effect": finding.effect,
        "bias": inference.bias, "wins": finding.wins if found.differences else None,
        "ties": finding.ties if found.differences else None, "losses": finding.losses if found.differences else None,
        "ahead": [list(p) for p in finding.ahead], "behind": [list(p) for p in finding.behind],
        "reason": found.reason or inference.reason, "note": inference.note,
    }  # fmt: skip


WRITERS: Mapping[str, Callable[[Comparison], str]] = {"text": to_text, "markdown": to_markdown, "json": to_json}
