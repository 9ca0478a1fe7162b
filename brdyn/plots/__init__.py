"""Figures: each function takes numbers and returns a matplotlib Figure; none computes."""

from brdyn.plots.dynamics import plot_curves, plot_panels
from brdyn.plots.phases import draw_similarity, plot_gain_curve, plot_similarity, plot_stability

__all__ = [
    "draw_similarity",
    "plot_curves",
    "plot_gain_curve",
    "plot_panels",
    "plot_similarity",
    "plot_stability",
]
