"""Figures: each function takes numbers and returns a matplotlib Figure; none computes."""

from brdyn.plots.basins import plot_basins, plot_projection
from brdyn.plots.branches import plot_branches
from brdyn.plots.compare import draw_comparison
from brdyn.plots.draw import draw
from brdyn.plots.dynamics import plot_curves, plot_panels
from brdyn.plots.fixed_points import plot_fixed_points
from brdyn.plots.interventions import (
    plot_final_angles,
    plot_growth,
    plot_layers,
    plot_matrices,
    plot_repair,
)
from brdyn.plots.modes import plot_mode_errors, plot_spectra
from brdyn.plots.phases import (
    draw_matrix,
    draw_similarity,
    draw_steps,
    plot_gain_curve,
    plot_similarity,
    plot_stability,
    plot_steps,
)
from brdyn.plots.probes import draw_layer_scores, plot_examples, plot_layer_scores
from brdyn.plots.ranks import plot_ranks
from brdyn.plots.raptor import (
    plot_fidelity,
    plot_fit,
    plot_ladder,
    plot_layer_fidelity,
    plot_partitions,
    plot_skill,
)
from brdyn.plots.readout import plot_readout
from brdyn.plots.spectra import plot_coupling, plot_exponents
from brdyn.plots.splice import plot_calibration, plot_exchange, plot_spans
from brdyn.plots.style import themed
from brdyn.plots.vitrm import plot_grid, plot_halting, plot_recursion

__all__ = [
    "draw",
    "draw_comparison",
    "draw_layer_scores",
    "draw_matrix",
    "draw_similarity",
    "draw_steps",
    "plot_basins",
    "plot_branches",
    "plot_calibration",
    "plot_coupling",
    "plot_curves",
    "plot_examples",
    "plot_exchange",
    "plot_exponents",
    "plot_fidelity",
    "plot_final_angles",
    "plot_fit",
    "plot_fixed_points",
    "plot_gain_curve",
    "plot_grid",
    "plot_growth",
    "plot_halting",
    "plot_ladder",
    "plot_layer_fidelity",
    "plot_layer_scores",
    "plot_layers",
    "plot_matrices",
    "plot_mode_errors",
    "plot_panels",
    "plot_partitions",
    "plot_projection",
    "plot_ranks",
    "plot_readout",
    "plot_recursion",
    "plot_repair",
    "plot_similarity",
    "plot_skill",
    "plot_spans",
    "plot_spectra",
    "plot_stability",
    "plot_steps",
    "themed",
]
