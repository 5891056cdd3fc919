"""Figures of scores: two metrics against each other, one metric image by image, and two models scene by scene."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.core.errors import RfbenchError, one_line, unknown
from bench.records.folder import RunFolder
from bench.records.run import read_run
from bench.reports.figures.style import COLOURS, GREY, INK, MARKERS, TEXT_PT, bare, legend, plot, short
from bench.reports.table.build import Column, build_table
from bench.stats.means import Inference
from bench.stats.pairing import Paired, RowScores, one_of, pair, row_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISTORTION = "psnr_rgb"
PERCEPTION = ("lpips_alex", "dists", "fid_tf", "niqe", "niqe_ref")
"""What ``plane`` shows by default: the first of these that a row has and that does not rank nearest neighbour best.
Differences of spectra (``logspec_l1``) are none of them: the edges of repeated pixels have the power of true detail."""
_WIDTH_IN = 6.4


@dataclass(frozen=True)
class Series:
    """A metric of one row: its label, the number of each image by id (none for a metric of the set), the row's number
    and its interval over scenes."""

    label: str
    values: dict[str, float]
    number: float
    inference: Inference | None


@dataclass(frozen=True)
class Chosen:
    """A metric of several rows; ``left_out`` has the rows without it and why."""

    column: Column
    series: tuple[Series, ...]
    left_out: dict[str, str]


def series(runs: Sequence[RunFolder], metric: str) -> Chosen:
    """A metric of every row of finished runs.

    Raises
    ------
    RfbenchError
        A metric that no run has, or none of whose rows has a number.
    NotComparable
        Runs on different data, under different protocols or with different definitions of the metric.
    """
    rows, (column,) = _rows(runs, (metric,))
    found, left_out = [], {}
    for label, one in rows:
        number = one.numbers.get(metric)
        if number is None:
            left_out[label] = next(iter(one.reasons.get(metric, {}).values()), "no number")
        else:
            values = {} if one.is_of_the_set(metric) else dict(one.values[metric])
            found.append(Series(label, values, number, one_of(one, metric)))
    if not found:
        label, reason = next(iter(left_out.items()))
        raise RfbenchError(f"no row has a number of {metric} ({label}: {reason}); choose another --metric")
    return Chosen(column, tuple(found), left_out)


@dataclass(frozen=True)
class Plane:
    """Two metrics of the rows that have both."""

    distortion: Column
    perception: Column
    points: tuple[tuple[Series, Series], ...]
    left_out: dict[str, str]


def plane(runs: Sequence[RunFolder], distortion: str = DISTORTION, perception: str | None = None) -> Plane:
    """The perception-distortion plane (Y. Blau, T. Michaeli, CVPR 2018, doi:10.1109/CVPR.2018.00652).

    Raises as ``series``; also where no row has both metrics.
    """
    if perception is None:
        perception = _first(runs, PERCEPTION)
    x, y = series(runs, distortion), series(runs, perception)
    of_y = {s.label: s for s in y.series}
    points = tuple((s, of_y[s.label]) for s in x.series if s.label in of_y)
    if not points:
        raise RfbenchError(f"no row has a number of both {distortion} and {perception}; choose other metrics")
    return Plane(x.column, y.column, points, {**y.left_out, **x.left_out})


def scenes(
    runs: Sequence[RunFolder], metric: str, rows: tuple[str, str] | None = None
) -> tuple[Column, str, str, Paired]:
    """A metric of one row minus that of another: the column, both labels, and the differences.

    Parameters
    ----------
    rows : the two labels; None where the runs have two models only, of which draw 0 is taken.

    Raises
    ------
    RfbenchError
        A row that is not there, more than two to choose from, or no image that both have the metric for.
    """
    known, (column,) = _rows(runs, (metric,))
    by_label = dict(known)
    if rows is None:
        draws = [label for label, one in known if one.kind == "sample"]
        if len(draws) != 2:
            raise RfbenchError(
                f"these runs have {len(draws)} models, a difference needs two; choose them with --rows A,B "
                f"({', '.join(one_line(label, 40) for label in by_label)})"
            )
        rows = (draws[0], draws[1])
    for label in rows:
        if label not in by_label:
            raise unknown("row of these runs", label, by_label)
    found = pair(by_label[rows[0]], by_label[rows[1]], metric)
    if not found.differences:
        raise RfbenchError(
            f"{metric} of {one_line(rows[0], 60)} and {one_line(rows[1], 60)} has no differences to show: "
            f"{found.reason or 'it is one number for all images'}"
        )
    return column, rows[0], rows[1], found


# --- drawing --------------------------------------------------------------------------------------------------


def draw_plane(found: Plane) -> Figure:
    """Distortion to the right and perception upwards both grow worse, so the best corner is the lower left."""
    figure, axes = plot(_named(found.distortion), _named(found.perception))
    for (x, y), colour, marker in _styled(found.points):
        for value, low, high, across in (
            (y.number, *_ends(x), True),
            (x.number, *_ends(y), False),
        ):
            if low is not None and high is not None:
                ends = ([low, high], [value, value])
                axes.plot(
                    *(ends if across else ends[::-1]), color=colour, linewidth=1.1, zorder=2, solid_capstyle="butt"
                )
        axes.plot(
            [x.number], [y.number], color=colour, marker=marker, markersize=6.5, linestyle="none", zorder=3,
            markeredgecolor="white", markeredgewidth=0.6, label=short(x.label),
        )  # fmt: skip
    axes.margins(0.12)
    for column, axis in ((found.distortion, axes.xaxis), (found.perception, axes.yaxis)):
        axis.set_inverted(column.direction == "up")
    axes.annotate(
        "better", xy=(0.03, 0.03), xytext=(0.13, 0.13), xycoords="axes fraction", color=GREY, fontsize=TEXT_PT - 1,
        arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 0.8}, ha="left", va="bottom",
    )  # fmt: skip
    if any(_ends(s)[0] is not None for point in found.points for s in point):
        axes.plot([], [], color=GREY, linewidth=1.1, label="95 % interval over scenes")
    legend(axes)
    return figure


def draw_distributions(found: Chosen) -> Figure:
    """One strip a row: every image, quartiles as a box, the median as a line and the mean as a diamond."""
    shown = [s for s in found.series if s.values]
    if not shown:
        raise RfbenchError(
            f"{found.column.metric} is one number for all images, it has no distribution; choose another"
        )
    figure, axes = bare(_WIDTH_IN, 0.9 + 0.55 * len(shown), left=_left([s.label for s in shown]), top_in=0.4)
    axes.set_title(
        "dot: an image; box: the middle half of them; line: median; diamond: mean",
        fontsize=TEXT_PT - 1, color=GREY, loc="left",
    )  # fmt: skip
    axes.use_sticky_edges = False  # a box without width, of one image, would be cut in half
    for place, ((one,), colour, _) in enumerate(_styled([(s,) for s in shown])):
        values = np.array([one.values[i] for i in sorted(one.values)])
        # Spread by rank of the id, the same in every strip, so that an image is found again in the next one.
        spread = 0.26 * (2 * ((np.arange(len(values)) * 0.618034) % 1) - 1)
        axes.scatter(values, place + spread, s=9, color=colour, alpha=0.55, linewidth=0, zorder=2)
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        axes.barh(place, high - low, left=low, height=0.62, facecolor="none", edgecolor=INK, linewidth=0.8, zorder=3)
        axes.plot([middle, middle], [place - 0.31, place + 0.31], color=INK, linewidth=1.6, zorder=3)
        axes.plot([values.mean()], [place], marker="D", color=INK, markersize=4.5, markerfacecolor="white", zorder=4)
    axes.set_yticks(range(len(shown)), [short(s.label) for s in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(f"{_named(found.column)}, each image", fontsize=TEXT_PT, color=INK)
    _plain(axes)
    return figure


def draw_scenes(column: Column, a: str, b: str, found: Paired) -> Figure:
    """The difference of each scene, sorted: its images as small points, their mean as a large one; the band is the 95 %
    interval of the mean over images. Points right of zero favour ``a`` where more is better."""
    by_scene: dict[str, list[float]] = {}
    for scene, difference in zip(found.scenes, found.differences, strict=True):
        by_scene.setdefault(scene, []).append(difference)
    ordered = sorted(by_scene, key=lambda s: (math.fsum(by_scene[s]) / len(by_scene[s]), s))
    named = len(ordered) <= 40
    height = max(2.2, 1.1 + min(7.5, 0.16 * len(ordered)))
    figure, axes = bare(_WIDTH_IN, height, left=_left(ordered) if named else 0.06, top_in=0.42)
    inference = found.inference
    if inference is not None and inference.low is not None and inference.high is not None:
        axes.axvspan(inference.low, inference.high, color=COLOURS[0], alpha=0.14, linewidth=0, zorder=1)
    if inference is not None:
        axes.axvline(inference.value, color=COLOURS[0], linewidth=1.2, zorder=2)
    axes.axvline(0, color=INK, linewidth=0.9, zorder=2)
    worse = -1 if column.direction == "up" else 1
    for place, scene in enumerate(ordered):
        values = by_scene[scene]
        mean = math.fsum(values) / len(values)
        behind = mean * worse > 0
        if len(values) > 1:
            axes.scatter(values, [place] * len(values), s=8, color=GREY, alpha=0.6, linewidth=0, zorder=3)
        axes.plot(
            [mean], [place], marker="o", markersize=4.5, color=COLOURS[1 if behind else 0], zorder=4, linestyle="none",
            markerfacecolor="white" if behind else COLOURS[0],
        )  # fmt: skip
    axes.set_yticks(range(len(ordered)) if named else [], [short(s) for s in ordered] if named else [])
    axes.set_ylim(-1, len(ordered))
    wins = sum(math.fsum(v) * worse < 0 for v in by_scene.values())
    unit = f" ({column.unit})" if column.unit else ""
    axes.set_xlabel(f"{column.title}{unit}: {short(a)} minus {short(b)}", fontsize=TEXT_PT, color=INK, parse_math=False)
    axes.set_title(
        f"{short(a)} is better in {wins} of {len(ordered)} scenes (filled)\nline: the mean over images"
        + ("; band: its 95 % interval" if inference is not None and inference.low is not None else ""),
        fontsize=TEXT_PT - 1, color=GREY, loc="left", parse_math=False,
    )  # fmt: skip
    if not named:
        axes.set_ylabel(f"{len(ordered)} scenes", fontsize=TEXT_PT, color=INK)
    _plain(axes)
    return figure


# --- parts ----------------------------------------------------------------------------------------------------


def _rows(runs: Sequence[RunFolder], metrics: Sequence[str]) -> tuple[list[tuple[str, RowScores]], tuple[Column, ...]]:
    """Every row of the runs' table, by label, and the columns; refuses what a table refuses."""
    table = build_table(runs, metrics)
    found = [one for run in runs for one in row_scores(run)]
    return [(row.label, one) for row, one in zip(table.rows, found, strict=True)], table.columns


def _first(runs: Sequence[RunFolder], metrics: Sequence[str]) -> str:
    """The first of these metrics that some row has and that is an axis of perception here."""
    of_runs = [{m for e in row_scores(run) for m in e.numbers} for run in runs]
    for metric in metrics:
        is_there = any(metric in one for one in of_runs) and all(metric in read_run(run).metrics for run in runs)
        if is_there and not _prefers_nearest(series(runs, metric)):
            return metric
    raise RfbenchError(
        f"no run has a number of {', '.join(metrics)} that does not rank nearest neighbour best; give --perception "
        "METRIC, or score the runs with --metrics niqe,niqe_ref, which need no weights"
    )


def _prefers_nearest(found: Chosen) -> bool:
    """Whether repeated pixels have the best number of several rows: what does that measures edges, not perception."""
    sign = 1 if found.column.direction == "up" else -1
    best = max(found.series, key=lambda one: sign * one.number)
    return len(found.series) > 1 and best.label == "nearest"


def _styled(items: Sequence[tuple[Series, ...]]) -> Iterator[tuple[tuple[Series, ...], str, str]]:
    return zip(items, itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)


def _ends(one: Series) -> tuple[float | None, float | None]:
    return (one.inference.low, one.inference.high) if one.inference is not None else (None, None)


def _named(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    better = {"up": ", more is better", "down": ", less is better"}.get(column.direction, "")
    return f"{column.title}{unit}{better}"


def _left(labels: Sequence[str]) -> float:
    """The share of the width that names at the left need."""
    longest = max((len(short(label)) for label in labels), default=0)
    return min(0.42, 0.03 + longest * TEXT_PT * 0.52 / 72 / _WIDTH_IN)


def _plain(axes: Axes) -> None:
    for text in axes.get_yticklabels():
        text.set_parse_math(False)  # names come from files: a dollar must not begin a formula
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
