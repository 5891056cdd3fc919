"""Images side by side. They show what metrics looked at, rebuilt from the stored predictions."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Array
from bench.records.folder import RunFolder
from bench.records.run import read_run
from bench.reports.figures.style import DPI, GREY, INK, TEXT_PT
from bench.reports.pictures import eight_bit
from bench.reports.table.build import Column, build_table
from bench.score.replay import replay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION_METRIC = "psnr_rgb"
_ROWS_BY_DEFAULT = 4
_LONGEST = 200  # letters of a name
_MAP = "inferno"
_FRAME = "#ffe14d"  # seen on ground, snow and water alike, between two dark lines
_INSET = 0.45  # of a picture's shorter side
_WIDTH_IN = 10.0  # at 100 dots an inch the 1000 px of a README column; twice the dots for screens that have them


@dataclass(frozen=True)
class Inset:
    """A square of a picture that is shown enlarged in its corner: left, top and side in the picture's pixels."""

    x: int
    y: int
    side: int


@dataclass(frozen=True)
class Tile:
    """One picture of a panel: bytes (H, W, 3) or None where the HR is missing, and the line below it."""

    pixels: npt.NDArray[np.uint8] | None
    caption: str
    inset: Inset | None = None


@dataclass(frozen=True)
class Panel:
    """A panel as data: column heads (``LR``, the models, ``HR``), and for each image a tile for every column.

    ``scales`` has, by column, what the lightest colour of its maps stands for; ``explained`` is a line below it all.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[Tile, ...], ...]
    scales: Mapping[int, float] = field(default_factory=dict)
    explained: str = ""


def panel(
    runs: Sequence[RunFolder], ids: Sequence[str] | None = None, *, data: str | None = None, crop_px: int | None = None,
    uncertainty: bool = False, metric: str = CAPTION_METRIC, inset: tuple[int, int, int] | None = None,
) -> Panel:  # fmt: skip
    """LR (its pixels enlarged as squares), draw 0 of each run, and HR, one row for each image.

    Parameters
    ----------
    ids : the images, in order; None for the first four that no run failed on.
    crop_px : show only the middle ``crop_px`` x ``crop_px`` pixels of the target grid.
    uncertainty : a further column, behind each run that predicts a distribution, with its standard deviation (root
        mean square over colours), from 0 to the column's largest 99th percentile.
    metric : whose value of the whole image stands below each model's picture; the default one is left out where no run
        has it.
    inset : left, top and side, in pixels of the pictures as they are shown: the square that a corner shows enlarged.

    Raises
    ------
    RfbenchError
        What ``replay`` raises, a crop below 1 px, an inset that does not lie within every picture, a metric that some
        run does not have, or ``uncertainty`` where no run predicts a distribution.
    NotComparable
        Runs on different data or protocols.
    """
    if crop_px is not None and crop_px < 1:
        raise RfbenchError(f"--crop: found {crop_px}, expected 1 or more pixels")
    # The table's labels tell two runs of one model apart; making it also refuses runs that do not go together.
    known = all(metric in read_run(run).metrics for run in runs)
    table = build_table(runs, (metric,) if known or metric != CAPTION_METRIC else ())
    labels = [row.label for row in table.rows if row.estimate == "sample"]
    column = table.columns[0] if table.columns else None
    shown = Inset(*inset) if inset is not None else None
    chosen = list(dict.fromkeys(ids)) if ids is not None else _common(runs)[:_ROWS_BY_DEFAULT]
    if not chosen:
        raise RfbenchError("there is no image that none of these runs failed on; leave a run out")
    left: dict[str, Tile] = {}
    right: dict[str, Tile] = {}
    middle: dict[str, list[Tile]] = {i: [] for i in chosen}
    heads = []
    scales: dict[int, float] = {}
    for run, label in zip(runs, labels, strict=True):
        values = _values(run, column.metric) if column is not None else {}
        spreads: dict[str, Array] = {}
        for task, estimates in replay(run, data, chosen):
            border = (task.size[0] - estimates["sample"].display.shape[0]) // 2
            if task.id not in left:
                lr = _enlarged(task.lr_display, task.size)
                lr = lr[border : task.size[0] - border, border : task.size[1] - border]
                left[task.id] = Tile(eight_bit(_middle(lr, crop_px)), one_line(task.id, _LONGEST), shown)
                hr = task.reference.display
                right[task.id] = Tile(None if hr is None else eight_bit(_middle(hr, crop_px)), "", shown)
            picture = eight_bit(_middle(estimates["sample"].display, crop_px))
            middle[task.id].append(Tile(picture, _valued(column, values.get(task.id)), shown))
            _check_inset(shown, task.id, picture)
            std = estimates["sample"].std
            if uncertainty and std is not None:
                spreads[task.id] = _middle(np.sqrt(np.square(std).mean(axis=2, keepdims=True)), crop_px)
        heads.append(label)
        if spreads:
            heads.append("deviation of draws")
            scales[len(heads)] = white = max(float(np.percentile(s, 99)) for s in spreads.values()) or 1.0
            for name in chosen:
                middle[name].append(_heat(spreads.get(name), white, shown))
    if uncertainty and len(heads) == len(labels):
        raise RfbenchError("--uncertainty: none of these runs predicts a distribution; add a stochastic model's run")
    rows = tuple((left[i], *middle[i], right[i]) for i in chosen)
    return Panel(("LR", *heads, "HR"), rows, scales, _explained(column, crop_px, shown, bool(scales)))


def _explained(column: Column | None, crop_px: int | None, shown: Inset | None, maps: bool) -> str:
    """The line below a panel: what its pictures, numbers and frames are."""
    parts = ["LR: its pixels as squares"]
    if column is not None:
        unit = f" ({column.unit})" if column.unit else ""
        better = {"up": ", more is better", "down": ", less is better"}.get(column.direction, "")
        parts.append(f"below the models: {column.title}{unit} of the whole image{better}")
    if maps:
        parts.append("deviation: root mean square over colours, in units where a black image is 0 and a white one 1")
    if crop_px is not None:
        parts.append(f"the middle {crop_px} px")
    if shown is not None:
        parts.append("in the corner: what the frame holds, enlarged")
    return "; ".join(parts)


def _check_inset(shown: Inset | None, name: str, picture: npt.NDArray[np.uint8]) -> None:
    height, width = picture.shape[:2]
    inside = shown is None or (
        shown.side >= 1 and 0 <= shown.x <= width - shown.side and 0 <= shown.y <= height - shown.side
    )
    if not inside:
        assert shown is not None
        raise RfbenchError(
            f"--inset: found {shown.x},{shown.y},{shown.side}, expected left, top and side of a square within the "
            f"{width}x{height} px of {one_line(name, 60)}"
        )


def _heat(deviation: Array | None, white: float, shown: Inset | None) -> Tile:
    """A deviation (H, W, 1) as a picture, with its mean below."""
    if deviation is None:
        return Tile(None, "")
    from matplotlib import colormaps

    colours = colormaps[_MAP](np.clip(deviation[:, :, 0] / white, 0, 1))[:, :, :3]
    return Tile(eight_bit(colours.astype(np.float32)), f"mean {float(deviation.mean()):.3f}", shown)


def draw_panel(content: Panel) -> Figure:
    """Draw a panel. Every column is equally wide; a row is as high as its pictures and its names need."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(content.heads)
    side, gap = 0.02, 0.06  # inches at the edges and between pictures
    width = (_WIDTH_IN - 2 * side - (count - 1) * gap) / count
    # Few columns would make pictures of half a page: 2.6 inches are enough.
    width = min(width, 2.6)
    total_width = 2 * side + count * width + (count - 1) * gap
    line = 1.35 * TEXT_PT / 72
    letters = max(6, int(width / (TEXT_PT * 0.55 / 72)))
    heads = [_wrapped(words, letters) for words in content.heads]
    names = [[_wrapped(tile.caption, letters) for tile in row] for row in content.rows]
    words = textwrap.wrap(content.explained, max(20, int(total_width / (TEXT_PT * 0.5 / 72))))

    head = _lines_high(heads, line)
    below = [_lines_high(row, line) for row in names]
    heights = [width * _aspect(row) for row in content.rows]
    bar = 2.3 * line if content.scales else 0.0
    total = head + sum(heights) + sum(below) + bar + line * len(words) + side
    figure = Figure(figsize=(total_width, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def place(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / total_width, y / total, w / total_width, h / total))

    def put(x: float, top: float, lines: Sequence[str], colour: str, ha: str = "center") -> None:
        for i, text in enumerate(lines):  # a dollar in a name must not begin a formula
            figure.text(
                x / total_width, (top - (i + 0.55) * line) / total, text, fontsize=TEXT_PT, color=colour, ha=ha,
                va="center", parse_math=False,
            )  # fmt: skip

    columns = [side + j * (width + gap) for j in range(count)]
    y = total
    for x, lines in zip(columns, heads, strict=True):
        put(x + width / 2, y - (head - line * len(lines)) + 0.2 * line, lines, INK)
    y -= head
    for row, height, under, lines_of in zip(content.rows, heights, below, names, strict=True):
        y -= height
        for x, tile, lines in zip(columns, row, lines_of, strict=True):
            axes = place(x, y, width, height)
            axes.set_axis_off()
            if tile.pixels is None:
                put(x + width / 2, y + height / 2 + line / 2, ["no HR image"], GREY)
            else:
                axes.imshow(tile.pixels, interpolation="nearest", aspect="auto")
                if tile.inset is not None:
                    enlarged = _INSET * min(width, height)
                    _draw_inset(axes, place(x + width - enlarged, y, enlarged, enlarged), tile.pixels, tile.inset)
            put(x + width / 2, y, lines, GREY)
        y -= under
    for j, white in content.scales.items():
        _draw_bar(place(columns[j], y - 0.75 * line, width, 0.5 * line), white)
    put(side, y - bar, words, GREY, "left")
    return figure


def _wrapped(words: str, letters: int) -> list[str]:
    """A name or a number in as many lines as it needs: an id that is cut may be another image's."""
    return textwrap.wrap(one_line(words, _LONGEST), letters)


def _lines_high(texts: Sequence[Sequence[str]], line: float) -> float:
    return line * (max((len(lines) for lines in texts), default=0) + 0.4)


def _draw_inset(axes: Axes, corner: Axes, pixels: npt.NDArray[np.uint8], shown: Inset) -> None:
    """Frame a square of a picture, and show it in ``corner``."""
    from matplotlib.patches import Rectangle

    part = pixels[shown.y : shown.y + shown.side, shown.x : shown.x + shown.side]
    corner.imshow(part, interpolation="nearest", aspect="auto")
    corner.set(xticks=[], yticks=[])
    for spine in corner.spines.values():
        spine.set(color=_FRAME, linewidth=1.2)
    frame = (shown.x - 0.5, shown.y - 0.5), shown.side, shown.side
    axes.add_patch(Rectangle(*frame, fill=False, edgecolor="black", linewidth=2.2))
    axes.add_patch(Rectangle(*frame, fill=False, edgecolor=_FRAME, linewidth=1.2))


def _draw_bar(axes: Axes, white: float) -> None:
    """The colours of the maps above, from 0 to ``white``."""
    from matplotlib import colormaps

    axes.imshow(np.linspace(0, 1, 256)[None], cmap=colormaps[_MAP], aspect="auto", extent=(0, white, 0, 1))
    axes.set(yticks=[], xticks=[0, white])
    axes.set_xticklabels(["0", f"{white:.2g} or more"], fontsize=TEXT_PT - 1, color=GREY)
    axes.tick_params(axis="x", length=2, width=0.6, pad=1.5, color=GREY)
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    for spine in axes.spines.values():
        spine.set_visible(False)


# --- content --------------------------------------------------------------------------------------------------


def _common(runs: Sequence[RunFolder]) -> list[str]:
    found = [read_run(run) for run in runs]
    failed = {i for run in found for i in run.summary.failed}
    return [i for i in found[0].plan.data.ids if i not in failed]


def _values(run: RunFolder, metric: str) -> dict[str, float]:
    """A metric of each image's draw 0 as it was scored."""
    frame = run.scores()
    frame = frame[frame["estimate"] == "sample"]
    if metric not in frame:
        raise RfbenchError(f"--metric: {metric} is one number for all images; choose one that every image has")
    pairs = zip(frame["id"], frame[metric], strict=True)
    return {i: float(v) for i, v in pairs if v is not None and math.isfinite(v)}


def _valued(column: Column | None, value: float | None) -> str:
    if column is None or value is None:
        return ""
    text = f"{value:.4g}" if column.decimals is None else f"{value:.{column.decimals}f}"
    return f"{text} {column.unit}".rstrip() if column.metric == CAPTION_METRIC else f"{column.title} {text}"


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
