"""What all figures share: size, type, colours that read on white, in grey print and by those who see few of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import RfbenchError, one_line
from bench.core.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".pdf")
DPI = 200
TEXT_PT = 9.0
INK, GREY, PALE = "#1a1a1a", "#666666", "#e4e4e4"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's that read on white; told apart also by those who see few, and in grey print by their markers."""
MARKERS = ("o", "s", "^", "D", "v", "P")
_PLOT_IN = 4.6  # the side of a plot, about a column of a paper


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF, by the name's ending; the same figure gives the same bytes."""
    import matplotlib

    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise RfbenchError(f"--out: found the ending '{one_line(path.suffix, 20)}', expected .png or .pdf")
    dateless: dict[str, Any] = {"Software": None} if ending == ".png" else {"CreationDate": None, "Producer": None}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format=ending[1:], dpi=DPI, metadata=dateless)
    write_bytes(path, buffer.getvalue())


def plot(x: str, y: str) -> tuple[Figure, Axes]:
    """A square plot with named axes and a pale grid."""
    figure, axes = bare(_PLOT_IN, _PLOT_IN, left=0.125, bottom_in=0.115 * _PLOT_IN, top_in=0.02 * _PLOT_IN)
    axes.set_xlabel(x, fontsize=TEXT_PT, color=INK)
    axes.set_ylabel(y, fontsize=TEXT_PT, color=INK)
    return figure, axes


def bare(
    width_in: float, height_in: float, *, left: float, bottom_in: float = 0.48, top_in: float = 0.25
) -> tuple[Figure, Axes]:
    """Axes without a box and with a pale grid; ``left`` is the share of the width before them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left, bottom_in / height_in, 0.98 - left, 1 - (bottom_in + top_in) / height_in))
    axes.tick_params(labelsize=TEXT_PT - 1, colors=INK, width=0.6, length=3)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=INK, linewidth=0.6)
    return figure, axes


def diagonal(axes: Axes, low: float, high: float, *, name_above: bool) -> None:
    """The line of calibrated models, with its name on the side where curves are rare."""
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, zorder=1)
    axes.text(
        0.94, 0.95 if name_above else 0.925, "calibrated", transform=axes.transAxes, rotation=45,
        rotation_mode="anchor", color=GREY, fontsize=TEXT_PT - 1, ha="right", va="bottom" if name_above else "top",
    )  # fmt: skip


def legend(axes: Axes) -> None:
    made = axes.legend(loc="best", fontsize=TEXT_PT - 1, frameon=False, labelcolor=INK, handlelength=1.8)
    for text in made.get_texts():
        text.set_parse_math(False)  # names come from files: a dollar must not begin a formula


def short(label: str) -> str:
    text = one_line(label, 40)
    return f"\N{THIN SPACE}{text}" if text.startswith("_") else text  # legends leave such names out
