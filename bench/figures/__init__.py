"""Figures of finished runs: pictures, the quality of uncertainty, and scores."""

from bench.figures.calibration import calibrations, draw_error, draw_reliability
from bench.figures.panel import Panel, Tile, draw_panel, panel
from bench.figures.scores import draw_distributions, draw_plane, draw_scenes, plane, scenes, series
from bench.figures.style import ENDINGS, save

__all__ = [
    "ENDINGS", "Panel", "Tile", "calibrations", "draw_distributions", "draw_error", "draw_panel", "draw_plane",
    "draw_reliability", "draw_scenes", "panel", "plane", "save", "scenes", "series",
]  # fmt: skip
