"""Figures of finished runs. They show what metrics looked at, rebuilt from the stored predictions."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError, one_line
from bench.core.files import write_bytes
from bench.core.image import Array
from bench.run.calibration import Calibration, calibration, expected_coverage
from bench.run.pictures import eight_bit
from bench.run.replay import replay
from bench.store import RunFolder
from bench.tables.build import build_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".pdf")
_CAPTION_METRIC = "psnr_rgb"
_ROWS_BY_DEFAULT = 4
# 10 inches at 100 dots are the 1000 px of a README column; twice the dots for screens that have them.
_WIDTH_IN, _DPI = 10.0, 200
_TEXT_PT = 9.0
_INK, _GREY, _PALE = "#1a1a1a", "#666666", "#e4e4e4"
# Okabe and Ito's colours that read on white; told apart also by those who see few, and by their markers in grey print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_PLOT_IN = 4.6  # the side of a plot, about a column of a paper


@dataclass(frozen=True)
class Tile:
    """One picture of a panel: bytes (H, W, 3) or None where the HR is missing, and the line below it."""

    pixels: npt.NDArray[np.uint8] | None
    caption: str


@dataclass(frozen=True)
class Panel:
    """A panel as data: column heads (``LR``, the models, ``HR``), and for each image a tile for every column."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Tile, ...], ...]


def panel(
    runs: Sequence[RunFolder], ids: Sequence[str] | None = None, *, data: str | None = None, crop_px: int | None = None,
    uncertainty: bool = False,
) -> Panel:  # fmt: skip
    """LR (its pixels enlarged as squares), draw 0 of each run, and HR, one row for each image.

    Parameters
    ----------
    ids : the images, in order; None for the first four that no run failed on.
    crop_px : show only the middle ``crop_px`` x ``crop_px`` pixels of the target grid.
    uncertainty : a further column, behind each run that predicts a distribution, with its standard deviation (root
        mean square over colours): black is 0, white the column's largest 99th percentile.

    Raises
    ------
    RfbenchError
        What ``replay`` raises, a crop below 1 px, or ``uncertainty`` where no run predicts a distribution.
    NotComparable
        Runs on different data or protocols.
    """
    if crop_px is not None and crop_px < 1:
        raise RfbenchError(f"--crop: found {crop_px}, expected 1 or more pixels")
    # The table's labels tell two runs of one model apart; making it also refuses runs that do not go together.
    labels = [row.label for row in build_table(runs, ()).rows if row.estimate == "sample"]
    chosen = list(dict.fromkeys(ids)) if ids is not None else _common(runs)[:_ROWS_BY_DEFAULT]
    if not chosen:
        raise RfbenchError("there is no image that none of these runs failed on; leave a run out")
    left: dict[str, Tile] = {}
    right: dict[str, Tile] = {}
    middle: dict[str, list[Tile]] = {i: [] for i in chosen}
    heads = []
    for run, label in zip(runs, labels, strict=True):
        psnr = _psnr(run)
        spreads: dict[str, Array] = {}
        for task, estimates in replay(run, data, chosen):
            border = (task.size[0] - estimates["sample"].display.shape[0]) // 2
            if task.id not in left:
                lr = _enlarged(task.lr_display, task.size)
                lr = lr[border : task.size[0] - border, border : task.size[1] - border]
                left[task.id] = Tile(eight_bit(_middle(lr, crop_px)), one_line(task.id, 60))
                hr = task.reference.display
                right[task.id] = Tile(None if hr is None else eight_bit(_middle(hr, crop_px)), "")
            value = psnr.get(task.id)
            text = f"{value:.2f} dB" if value is not None else ""
            middle[task.id].append(Tile(eight_bit(_middle(estimates["sample"].display, crop_px)), text))
            std = estimates["sample"].std
            if uncertainty and std is not None:
                spreads[task.id] = _middle(np.sqrt(np.square(std).mean(axis=2, keepdims=True)), crop_px)
        heads.append(label)
        if spreads:
            heads.append("deviation of draws")
            white = max(float(np.percentile(s, 99)) for s in spreads.values()) or 1.0
            for name in chosen:
                middle[name].append(_heat(spreads.get(name), white))
    if uncertainty and len(heads) == len(labels):
        raise RfbenchError("--uncertainty: none of these runs predicts a distribution; add a stochastic model's run")
    rows = tuple((left[i], *middle[i], right[i]) for i in chosen)
    return Panel(("LR", *heads, "HR"), rows)


def _heat(deviation: Array | None, white: float) -> Tile:
    """A deviation (H, W, 1) as a picture, with its mean below."""
    if deviation is None:
        return Tile(None, "")
    from matplotlib import colormaps

    colours = colormaps["inferno"](np.clip(deviation[:, :, 0] / white, 0, 1))[:, :, :3]
    return Tile(eight_bit(colours.astype(np.float32)), f"mean {float(deviation.mean()):.3f}, white {white:.2f}")


def draw_panel(content: Panel) -> Figure:
    """Draw a panel. Every column is equally wide; a row is as high as its pictures' shape asks for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(content.heads)
    side, gap = 0.02, 0.06  # inches at the edges and between pictures
    width = (_WIDTH_IN - 2 * side - (count - 1) * gap) / count
    text = _TEXT_PT / 72
    # Few columns would make pictures of half a page: 2.6 inches are enough.
    width = min(width, 2.6)
    total_width = 2 * side + count * width + (count - 1) * gap
    heights = [width * _aspect(row) for row in content.rows]
    head, below = 2.0 * text, 2.1 * text
    total = head + sum(heights) + below * len(heights) + side
    figure = Figure(figsize=(total_width, total), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    letters = max(6, int(width / (_TEXT_PT * 0.52 / 72)))

    def put(x_in: float, y_in: float, words: str, colour: str) -> None:
        # Names come from files: a dollar must not begin a formula, a long one not run into its neighbour.
        figure.text(
            x_in / total_width, y_in / total, one_line(words, letters), fontsize=_TEXT_PT, color=colour,
            ha="center", va="center", parse_math=False,
        )  # fmt: skip

    columns = [side + j * (width + gap) for j in range(count)]
    for x, words in zip(columns, content.heads, strict=True):
        put(x + width / 2, total - head / 2, words, _INK)
    y = total - head
    for row, height in zip(content.rows, heights, strict=True):
        y -= height
        for x, tile in zip(columns, row, strict=True):
            axes = figure.add_axes((x / total_width, y / total, width / total_width, height / total))
            axes.set_axis_off()
            if tile.pixels is None:
                put(x + width / 2, y + height / 2, "no HR image", _GREY)
            else:
                axes.imshow(tile.pixels, interpolation="nearest", aspect="auto")
            put(x + width / 2, y - 0.45 * below, tile.caption, _GREY)
        y -= below
    return figure


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
    figure, axes = _plot("nominal coverage of central intervals", "observed coverage")
    _diagonal(axes, 0, 1, name_above=True)
    for (label, one), colour, marker in zip(
        found.items(), itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), strict=False
    ):
        if one.low is not None and one.high is not None:
            axes.fill_between(one.levels, one.low, one.high, color=colour, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(
            one.levels, one.coverage, color=colour, marker=marker, markersize=3.5, linewidth=1.4, zorder=3,
            label=f"{_short(label)}: ECE {one.ece:.3f}",
        )  # fmt: skip
    for draws in sorted({one.draws for one in found.values() if one.draws is not None}):
        levels = np.linspace(0, 0.99, 100)
        axes.plot(
            levels, expected_coverage(draws, levels), color=_INK, linestyle=(0, (1, 2)), linewidth=1.1, zorder=2,
            label=f"perfect, seen through {draws} draws",
        )  # fmt: skip
    if any(one.low is not None for one in found.values()):
        axes.fill_between([], [], [], color=_GREY, alpha=0.25, linewidth=0, label="95 % interval over scenes")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = np.arange(0, 1.01, 0.2)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    _legend(axes)
    return figure


def draw_error(found: Mapping[str, Calibration]) -> Figure:
    """Error of the mean against predicted deviation, root mean squares in bins of equally many values, in grey levels.

    The diagonal is calibrated; above it the model is more wrong than it says. A flat line says nothing about where.
    """
    figure, axes = _plot("predicted deviation (grey levels of 255)", "RMSE of the mean (grey levels of 255)")
    values = np.concatenate([255 * v for one in found.values() for v in (one.deviation, one.rmse)])
    low, high = float(values[values > 0].min()) / 1.25, float(values.max()) * 1.25
    _diagonal(axes, low, high, name_above=False)
    for (label, one), colour, marker in zip(
        found.items(), itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), strict=False
    ):
        axes.plot(
            255 * one.deviation, 255 * one.rmse, color=colour, marker=marker, markersize=4, linewidth=1.4, zorder=3,
            label=_short(label) + (f" ({one.draws} draws)" if one.draws is not None else ""),
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low <= t <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        axis.set_ticks([], minor=True)
    _legend(axes)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF, by the name's ending; the same figure gives the same bytes."""
    import matplotlib

    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise RfbenchError(f"--out: found the ending '{one_line(path.suffix, 20)}', expected .png or .pdf")
    dateless: dict[str, Any] = {"Software": None} if ending == ".png" else {"CreationDate": None, "Producer": None}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format=ending[1:], dpi=_DPI, metadata=dateless)
    write_bytes(path, buffer.getvalue())


# --- plots ----------------------------------------------------------------------------------------------------


def _plot(x: str, y: str) -> tuple[Figure, Axes]:
    """A square plot with named axes and a pale grid."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_PLOT_IN, _PLOT_IN), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.125, 0.115, 0.855, 0.865))
    axes.set_xlabel(x, fontsize=_TEXT_PT, color=_INK)
    axes.set_ylabel(y, fontsize=_TEXT_PT, color=_INK)
    axes.tick_params(labelsize=_TEXT_PT - 1, colors=_INK, width=0.6, length=3)
    axes.grid(color=_PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=_INK, linewidth=0.6)
    return figure, axes


def _diagonal(axes: Axes, low: float, high: float, *, name_above: bool) -> None:
    """The line of calibrated models, with its name on the side where curves are rare."""
    axes.plot([low, high], [low, high], color=_GREY, linewidth=1, zorder=1)
    axes.text(
        0.94, 0.95 if name_above else 0.925, "calibrated", transform=axes.transAxes, rotation=45,
        rotation_mode="anchor", color=_GREY, fontsize=_TEXT_PT - 1, ha="right", va="bottom" if name_above else "top",
    )  # fmt: skip


def _legend(axes: Axes) -> None:
    legend = axes.legend(loc="best", fontsize=_TEXT_PT - 1, frameon=False, labelcolor=_INK, handlelength=1.8)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names come from files: a dollar must not begin a formula


def _short(label: str) -> str:
    return one_line(label, 40)


# --- content --------------------------------------------------------------------------------------------------


def _common(runs: Sequence[RunFolder]) -> list[str]:
    failed = {i for run in runs for i in (run.summary() or {"failed": []})["failed"]}
    return [i for i in runs[0].run()["plan"]["data"]["ids"] if i not in failed]


def _psnr(run: RunFolder) -> dict[str, float]:
    """The PSNR of each image's draw 0 as it was scored; empty where the run did not ask for it."""
    if _CAPTION_METRIC not in run.run()["plan"]["metrics"]:
        return {}
    frame = run.scores()
    frame = frame[frame["estimate"] == "sample"]
    pairs = zip(frame["id"], frame[_CAPTION_METRIC], strict=True)
    return {i: float(v) for i, v in pairs if v is not None and math.isfinite(v)}


def _enlarged(lr: Array, size: tuple[int, int]) -> Array:
    """Each pixel of ``size`` takes the LR pixel that it lies in."""
    rows, columns = ((np.arange(n) * m // n) for n, m in zip(size, lr.shape[:2], strict=True))
    return lr[np.ix_(rows, columns)]


def _middle(image: Array, crop_px: int | None) -> Array:
    if crop_px is None:
        return image
    (top, h), (left, w) = (((n - min(n, crop_px)) // 2, min(n, crop_px)) for n in image.shape[:2])
    return image[top : top + h, left : left + w]


def _aspect(row: Sequence[Tile]) -> float:
    """Height over width of a row's pictures."""
    shape = next(tile.pixels.shape for tile in row if tile.pixels is not None)
    return shape[0] / shape[1]
