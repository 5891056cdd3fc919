"""Figures of predictive distributions: do their intervals and deviations keep their word?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.core.errors import RfbenchError
from bench.records.folder import RunFolder
from bench.reports.calibration import Calibration, calibration, expected_coverage
from bench.reports.figures.style import COLOURS, GREY, INK, MARKERS, diagonal, legend, plot, short
from bench.reports.table.build import build_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def calibrations(runs: Sequence[RunFolder], data: str | None = None) -> tuple[dict[str, Calibration], dict[str, str]]:
    """The calibration of each run by label, and for runs without a predictive distribution the reason.

    Raises RfbenchError if no run has one, NotComparable for runs on different data or protocols, and what ``replay``
    raises.
    """
    labels = [row.label for row in build_table(runs, ()).rows if row.estimate == "sample"]
    found = {label: calibration(run, data) for label, run in zip(labels, runs, strict=True)}
    skipped = {label: c for label, c in found.items() if isinstance(c, str)}
    kept = {label: c for label, c in found.items() if isinstance(c, Calibration)}
    if not kept:
        label, reason = next(iter(skipped.items()))
        raise RfbenchError(
            f"none of these runs has a distribution to hold against references ({label}: {reason}); run a stochastic "
            "model with --draws 2 or more"
        )
    return kept, skipped


def draw_reliability(found: Mapping[str, Calibration]) -> Figure:
    """Nominal against observed coverage of central intervals, with the 95 % interval over scenes.

    The diagonal is calibrated; below it intervals are too narrow. Where models drew K images, a dotted line shows what
    a perfect one reaches with K: few draws widen the tails.
    """
    figure, axes = plot("nominal coverage of central intervals", "observed coverage")
    diagonal(axes, 0, 1, name_above=True)
    for (label, one), colour, marker in zip(
        found.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False
    ):
        if one.low is not None and one.high is not None:
            axes.fill_between(one.levels, one.low, one.high, color=colour, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(
            one.levels, one.coverage, color=colour, marker=marker, markersize=3.5, linewidth=1.4, zorder=3,
            label=f"{short(label)}: ECE {one.ece:.3f}",
        )  # fmt: skip
    for draws in sorted({one.draws for one in found.values() if one.draws is not None}):
        levels = np.linspace(0, 0.99, 100)
        axes.plot(
            levels, expected_coverage(draws, levels), color=INK, linestyle=(0, (1, 2)), linewidth=1.1, zorder=2,
            label=f"perfect, seen through {draws} draws",
        )  # fmt: skip
    if any(one.low is not None for one in found.values()):
        axes.fill_between([], [], [], color=GREY, alpha=0.25, linewidth=0, label="95 % interval over scenes")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = np.arange(0, 1.01, 0.2)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    legend(axes)
    return figure


def draw_error(found: Mapping[str, Calibration]) -> Figure:
    """Error of the mean against predicted deviation, root mean squares in bins of equally many values, in grey levels.

    The diagonal is calibrated; above it the model is more wrong than it says. A flat line says nothing about where.
    """
    figure, axes = plot("predicted deviation (grey levels of 255)", "RMSE of the mean (grey levels of 255)")
    values = np.concatenate([255 * v for one in found.values() for v in (one.deviation, one.rmse)])
    low, high = float(values[values > 0].min()) / 1.25, float(values.max()) * 1.25
    diagonal(axes, low, high, name_above=False)
    for (label, one), colour, marker in zip(
        found.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False
    ):
        axes.plot(
            255 * one.deviation, 255 * one.rmse, color=colour, marker=marker, markersize=4, linewidth=1.4, zorder=3,
            label=short(label) + (f" ({one.draws} draws)" if one.draws is not None else ""),
        )  # fmt: skip
    axes.plot(
        [], [], color=GREY, marker="o", markersize=4, linestyle="none", label="a mark: as many values as any other"
    )
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low <= t <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        axis.set_ticks([], minor=True)
    legend(axes)
    return figure
