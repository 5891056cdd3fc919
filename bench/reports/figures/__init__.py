"""Figures of finished runs: pictures, the quality of uncertainty, and scores."""

from bench.reports.figures.calibration import calibrations, draw_error, draw_reliability
from bench.reports.figures.panel import Inset, Panel, Tile, draw_panel, panel
from bench.reports.figures.scores import draw_distributions, draw_plane, draw_scenes, plane, scenes, series
from bench.reports.figures.style import ENDINGS, save

__all__ = [
    "ENDINGS", "Inset", "Panel", "Tile", "calibrations", "draw_distributions", "draw_error", "draw_panel", "draw_plane",
    "draw_reliability", "draw_scenes", "panel", "plane", "save", "scenes", "series",
]  # fmt: skip
