"""The shares of a study with their intervals, a row a system."""

from __future__ import annotations

from pathlib import Path

from bench.reports.figures.style import COLOURS, GREY, INK, MARKERS, PALE, TEXT_PT, bare, save, short
from bench.study.report import Report


def draw(report: Report, path: Path) -> None:
    """Clarity and parity of each system; the margin of parity is shaded. PNG or PDF, by the name's ending."""
    systems = list(dict.fromkeys(j.system for j in report.judged))
    figure, axes = bare(6.0, 0.9 + 0.5 * len(systems), left=0.24)
    axes.axvspan(*report.margin, color=PALE, zorder=0)
    axes.axvline(0.5, color=GREY, linewidth=0.8, zorder=1)
    for n, question in enumerate(("clarity", "parity")):
        of = [j for j in report.judged if j.question == question]
        rows = [len(systems) - 1 - systems.index(j.system) + 0.14 - 0.28 * n for j in of]
        label = {"clarity": "clearer than LR (95 %)", "parity": "chosen over HR (90 %)"}[question]
        axes.plot([j.share.value for j in of], rows, MARKERS[n], color=COLOURS[n], markersize=5, label=label, zorder=3)
        for j, row in zip(of, rows, strict=True):
            if j.share.low is not None and j.share.high is not None:
                axes.plot([j.share.low, j.share.high], [row, row], color=COLOURS[n], linewidth=1.4, zorder=2)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(systems) - 0.4)
    axes.set_yticks(range(len(systems)))
    for text in axes.set_yticklabels([short(s) for s in systems[::-1]]):
        text.set_parse_math(False)  # names come from files: a dollar must not begin a formula
        text.set_color(INK)
    axes.set_xlabel("share of votes for SR, ties half (shaded: the margin of parity)", fontsize=TEXT_PT, color=INK)
    figure.legend(loc="upper right", ncol=2, fontsize=TEXT_PT - 1, frameon=False)
    save(figure, path)
