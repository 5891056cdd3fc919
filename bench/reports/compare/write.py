"""A comparison as plain text, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.core.errors import one_line
from bench.reports.compare.build import Comparison, Finding, Pair
from bench.reports.table.build import Column, shown
from bench.reports.table.write import about, columns_wide, markdown_text
from bench.stats.means import POWER, Inference

FORMAT = 1
_HEADS = ("metric", "a", "b", "a - b", "95 % interval", "p", "p (Holm)", "better", "d", "+/=/-", "detectable")


def p_text(p: float | None) -> str:
    """A p-value at two significant digits."""
    return "" if p is None else f"{p:.1e}" if p < 1e-3 else f"{p:.2g}" if p < 0.0995 else f"{p:.2f}"


def titled(column: Column) -> str:
    """``PSNR (dB) ↑``"""
    unit = "°" if column.unit == "degrees" else column.unit
    return f"{column.title}{f' ({unit})' if unit else ''} {'↑' if column.direction == 'up' else '↓'}"


def difference_text(metric: str, value: float) -> str:
    """A difference with its sign, at a decimal more than values."""
    text = shown(metric, value, more=1)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def interval_text(metric: str, inference: Inference) -> str:
    """``[-4.93, -3.10]``, or nothing."""
    if inference.low is None or inference.high is None:
        return ""
    return f"[{difference_text(metric, inference.low)}, {difference_text(metric, inference.high)}]"


def _cells(pair: Pair, finding: Finding) -> list[str] | None:
    """A line of a pair's table; None where there is no number."""
    name, found = finding.column.metric, finding.paired
    if found.inference is None or found.a is None or found.b is None:
        return None
    inference = found.inference
    better = {"a": pair.a, "b": pair.b, None: "tie" if inference.p is not None else "–"}[finding.better]
    counts = f"{finding.wins}/{finding.ties}/{finding.losses}" if found.differences else "–"
    return [
        titled(finding.column), shown(name, found.a), shown(name, found.b), difference_text(name, inference.value),
        interval_text(name, inference) or "–", p_text(inference.p) or "–", p_text(finding.p_holm) or "–", better,
        f"{finding.effect:+.2f}" if finding.effect is not None else "–", counts,
        shown(name, inference.smallest, more=1) if inference.smallest is not None else "–",
    ]  # fmt: skip


def _remarks(pair: Pair, images: int, everywhere: Sequence[str]) -> list[str]:
    """Below a pair: reasons, images left out, biases, and the images that differ most."""
    reasons: dict[str, list[str]] = {}
    for finding in pair.findings:
        for text in _said(finding, images):
            reasons.setdefault(text, []).append(finding.column.title)
    lines = [line for line in _grouped(reasons) if line not in everywhere]
    for finding in pair.findings:
        if finding.ahead or finding.behind:
            name = finding.column.metric
            ahead = f"most ahead on {_images(name, finding.ahead)}" if finding.ahead else "ahead on none"
            behind = f"most behind on {_images(name, finding.behind)}" if finding.behind else "behind on none"
            lines.append(f"{finding.column.title}: {pair.a} {ahead}; {behind}")
    return lines


def _said(finding: Finding, images: int) -> list[str]:
    found = finding.paired
    if found.inference is None:
        return [found.reason or "no reason was given"]
    said = [text for text in (found.inference.reason, found.inference.note) if text]
    if len(found.ids) < images:
        some = "; ".join(f"{n}: {one_line(why, 160)}" for why, n in (found.left_out or {}).items())
        said.append(f"over {len(found.ids)} of {images} images ({some})")
    if found.inference.bias is not None:
        bias = difference_text(finding.column.metric, found.inference.bias)
        said.append(
            f"one number of the set, at {len(found.ids)} images; by the jackknife {bias} of the difference is the bias "
            "of so few; interval from scenes left out in turn, p from scenes that change sides"
        )
    return said


def _grouped(reasons: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{', '.join(titles)}: {text}" for text, titles in reasons.items()]


def _everywhere(comparison: Comparison) -> list[str]:
    """Why metrics have no number in any pair, where that is the same for all pairs: said once."""
    reasons: dict[str, list[str]] = {}
    for findings in zip(*(pair.findings for pair in comparison.pairs), strict=True):
        texts = {tuple(_said(f, comparison.table.images)) for f in findings if f.paired.inference is None}
        if len(texts) == 1 and all(f.paired.inference is None for f in findings):
            reasons.setdefault(next(iter(texts))[0], []).append(findings[0].column.title)
    return _grouped(reasons)


def _images(metric: str, images: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{one_line(i, 40)} ({difference_text(metric, d)})" for i, d in images)


def _legend(comparison: Comparison) -> list[str]:
    return [
        f"a - b, paired by image, scenes as clusters ({comparison.scenes}); intervals 95 %; p two-sided, the larger of "
        "the interval's and of sign flips of scenes; Holm over "
        f"{comparison.tests} test{'s' * (comparison.tests != 1)}; 'better' where p (Holm) < {comparison.alpha:g}",
        "d: mean over standard deviation of the images' differences; +/=/-: images on which a is better, equal as "
        f"shown, worse; detectable: the smallest true difference that one such test shows in {100 * POWER:.0f} % of "
        "cases",
    ]


def to_text(comparison: Comparison) -> str:
    """Aligned columns for a terminal."""
    lines, everywhere = [about(comparison.table)], _everywhere(comparison)
    for pair in comparison.pairs:
        lines += ["", f"a = {pair.a}, b = {pair.b}"]
        rows = [list(_HEADS), *filter(None, (_cells(pair, f) for f in pair.findings))]
        widths = [max(columns_wide(row[j]) for row in rows) for j in range(len(_HEADS))]
        for row in rows:
            padded = [
                c + " " * (w - columns_wide(c)) if j in (0, 7) else " " * (w - columns_wide(c)) + c
                for j, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  " + "  ".join(padded).rstrip())
        lines += [f"  - {text}" for text in _remarks(pair, comparison.table.images, everywhere)]
    return "\n".join([*lines, "", *everywhere, *_legend(comparison), *comparison.notes])


def to_markdown(comparison: Comparison) -> str:
    """A heading and a pipe table for each pair."""
    lines, everywhere = [markdown_text(about(comparison.table)), ""], _everywhere(comparison)
    for pair in comparison.pairs:
        lines += [f"### {markdown_text(pair.a)} (a) and {markdown_text(pair.b)} (b)", ""]
        lines += ["| " + " | ".join(_HEADS) + " |"]
        lines += ["|:--|" + "--:|" * 6 + ":--|" + "--:|" * 3]
        for finding in pair.findings:
            cells = [markdown_text(c) for c in _cells(pair, finding) or ()]
            if not cells:
                continue
            if finding.better:
                cells[7] = f"**{cells[7]}**"
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *(f"- {markdown_text(text)}" for text in _remarks(pair, comparison.table.images, everywhere)), ""]
    return "\n".join(
        [*lines, *(f"- {markdown_text(t)}" for t in (*everywhere, *_legend(comparison), *comparison.notes))]
    )


def to_json(comparison: Comparison) -> str:
    """All at full precision; ``format`` counts the versions of this document. There is no NaN in it."""
    table = comparison.table
    document = {
        "format": FORMAT,
        "protocol": {"label": table.protocol, **table.protocol_options},
        "dataset": {"name": table.dataset, "split": table.split, "fingerprint": table.fingerprint,
                    "images": table.images, "scenes": comparison.scenes},
        "alpha": comparison.alpha,
        "tests": comparison.tests,
        "columns": [vars(column) for column in table.columns],
        "pairs": [
            {"a": pair.a, "b": pair.b, "metrics": {f.column.metric: _document(f) for f in pair.findings}}
            for pair in comparison.pairs
        ],
        "notes": list(comparison.notes),
    }  # fmt: skip
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


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
