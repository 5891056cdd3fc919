"""The study's figure: an image and its counterparts, their maps v, and where two scores put all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rareflow.experiments.run import KNOWN, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# As the figures of the harness: 10 inches are the 1000 px of a README column, twice the dots for sharp screens.
_WIDTH_IN, _DPI, _TEXT_PT = 10.0, 200, 9.0
_INK, _GREY, _PALE, _BLUE, _RED = "#1a1a1a", "#666666", "#e4e4e4", "#0072b2", "#d55e00"
_SIDE, _GAP, _LEFT, _STRIP = 0.04, 0.06, 0.3, 2.0  # inches: edge, between pictures, room for words, height of a strip
_PANELS = {"mean_v": "mean v / τ", "three": "distance (three)"}


def draw_study(found: Study) -> Figure:
    """Pictures above, scores of all images below; the maps share one logarithmic scale, from dark (low) to light."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = list(found.examples)
    text = _TEXT_PT / 72
    width = (_WIDTH_IN - _LEFT - _SIDE - (len(kinds) - 1) * _GAP) / len(kinds)
    height = max(width * lr.shape[0] / lr.shape[1] for lr, _ in found.examples.values())
    total = 2 * text + 2 * height + _GAP + 2 * text + len(_PANELS) * (_STRIP + 0.1) + 0.35
    figure = Figure(figsize=(_WIDTH_IN, total), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def put(x: float, y: float, words: str, colour: str = _INK, turn: float = 0) -> None:
        figure.text(x / _WIDTH_IN, y / total, words, fontsize=_TEXT_PT, color=colour, ha="center", va="center",
                    rotation=turn, parse_math=False)  # fmt: skip

    logs = {kind: np.log(np.maximum(v, 1e-12)) for kind, (_, v) in found.examples.items()}
    low, high = np.quantile(np.concatenate([v.ravel() for v in logs.values()]), (0.01, 0.99))
    top = total - 2 * text
    for i, kind in enumerate(kinds):
        x = _LEFT + i * (width + _GAP)
        put(x + width / 2, total - text, kind)
        for row, picture in enumerate((found.examples[kind][0], logs[kind])):
            y = top - (row + 1) * height - row * _GAP
            axes = figure.add_axes((x / _WIDTH_IN, y / total, width / _WIDTH_IN, height / total))
            axes.set_axis_off()
            span = {} if row == 0 else {"cmap": "magma", "vmin": low, "vmax": max(high, low + 1e-6)}
            axes.imshow(np.clip(picture, 0, 1) if row == 0 else picture, interpolation="nearest", aspect="auto", **span)
        put(x + width / 2, top - 2 * height - _GAP - text, f"u {found.scores[kind]['u'][0]:.2f}", _GREY)
    put(_LEFT / 2, top - height / 2, "LR", turn=90)
    put(_LEFT / 2, top - 1.5 * height - _GAP, "v", turn=90)
    for i, (name, title) in enumerate(_PANELS.items()):
        y = 0.35 + (len(_PANELS) - 1 - i) * (_STRIP + 0.1)
        inner = (0.62 / _WIDTH_IN, y / total, 1 - 0.7 / _WIDTH_IN, (_STRIP - 0.15) / total)
        _strip(figure.add_axes(inner), found, name, title, last=i == len(_PANELS) - 1)
    return figure


def _strip(axes: Axes, found: Study, name: str, title: str, *, last: bool) -> None:
    """The score of every image, by kind; bars mark medians."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    # Eq. 5 is the first score, cut off at 1.
    unit = found.document["scale"]["tau"] if name == "mean_v" else 1.0
    for i, (kind, scores) in enumerate(found.scores.items()):
        values = np.asarray(scores[name]) / unit
        # Spread sideways by a fixed pattern, so that the figure does not depend on chance.
        aside = 0.28 * (np.modf(np.arange(1, len(values) + 1) * 0.618034)[0] * 2 - 1)
        colour = _BLUE if kind == KNOWN else _RED
        axes.plot(i + aside, values, "o", color=colour, markersize=3.2, alpha=0.6, markeredgewidth=0)
        axes.plot([i - 0.32, i + 0.32], [np.median(values)] * 2, color=_INK, linewidth=1.2)
    if name == "mean_v":
        axes.axhline(1, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    if min(min(s[name]) for s in found.scores.values()) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(title, fontsize=_TEXT_PT, color=_INK)
    axes.set_xlim(-0.5, len(found.scores) - 0.5)
    axes.set_xticks(range(len(found.scores)), list(found.scores) if last else [""] * len(found.scores))
    axes.tick_params(labelsize=_TEXT_PT - 1, colors=_INK, width=0.6, length=3, which="both")
    axes.grid(axis="y", color=_PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=_INK, linewidth=0.6)
