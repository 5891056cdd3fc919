"""Images side by side. They show what metrics looked at, rebuilt from the stored predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Array
from bench.records.folder import RunFolder
from bench.records.run import read_run
from bench.reports.figures.style import DPI, GREY, INK, TEXT_PT
from bench.reports.pictures import eight_bit
from bench.reports.table.build import build_table
from bench.score.replay import replay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CAPTION_METRIC = "psnr_rgb"
_ROWS_BY_DEFAULT = 4
_WIDTH_IN = 10.0  # at 100 dots an inch the 1000 px of a README column; twice the dots for screens that have them


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
    text = TEXT_PT / 72
    # Few columns would make pictures of half a page: 2.6 inches are enough.
    width = min(width, 2.6)
    total_width = 2 * side + count * width + (count - 1) * gap
    heights = [width * _aspect(row) for row in content.rows]
    head, below = 2.0 * text, 2.1 * text
    total = head + sum(heights) + below * len(heights) + side
    figure = Figure(figsize=(total_width, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    letters = max(6, int(width / (TEXT_PT * 0.52 / 72)))

    def put(x_in: float, y_in: float, words: str, colour: str) -> None:
        # Names come from files: a dollar must not begin a formula, a long one not run into its neighbour.
        figure.text(
            x_in / total_width, y_in / total, one_line(words, letters), fontsize=TEXT_PT, color=colour,
            ha="center", va="center", parse_math=False,
        )  # fmt: skip

    columns = [side + j * (width + gap) for j in range(count)]
    for x, words in zip(columns, content.heads, strict=True):
        put(x + width / 2, total - head / 2, words, INK)
    y = total - head
    for row, height in zip(content.rows, heights, strict=True):
        y -= height
        for x, tile in zip(columns, row, strict=True):
            axes = figure.add_axes((x / total_width, y / total, width / total_width, height / total))
            axes.set_axis_off()
            if tile.pixels is None:
                put(x + width / 2, y + height / 2, "no HR image", GREY)
            else:
                axes.imshow(tile.pixels, interpolation="nearest", aspect="auto")
            put(x + width / 2, y - 0.45 * below, tile.caption, GREY)
        y -= below
    return figure


# --- content --------------------------------------------------------------------------------------------------


def _common(runs: Sequence[RunFolder]) -> list[str]:
    found = [read_run(run) for run in runs]
    failed = {i for run in found for i in run.summary.failed}
    return [i for i in found[0].plan.data.ids if i not in failed]


def _psnr(run: RunFolder) -> dict[str, float]:
    """The PSNR of each image's draw 0 as it was scored; empty where the run did not ask for it."""
    if _CAPTION_METRIC not in read_run(run).metrics:
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
