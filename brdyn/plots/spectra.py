"""Pictures of how blocks stretch what enters them: exponents, growth by block, singular values, coupling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from brdyn.measures.found_spectra import EXPONENT, GROWTH, NORM, SIDES, SINGULAR
from brdyn.plots.dynamics import draw_bands
from brdyn.plots.null import bands_of, draw_twins, twins_handles
from brdyn.plots.phases import draw_matrix
from brdyn.plots.style import (
    CURVE,
    INK,
    draw_band,
    head,
    layer_axis,
    layer_ticks,
    legend_below,
    log_scale,
    new_panels,
    ordered_colours,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.measures.found_spectra import Spectra
    from brdyn.measures.null import Null
    from brdyn.phases import Phases

OF_SIDES = {
    "entering": "right singular vectors (entering)",
    "leaving": "left singular vectors (leaving)",
}


@paper_style()
def plot_exponents(spectra: Spectra, phases: Phases, *, title: str, null: Null | None = None) -> Figure:
    """Lyapunov exponents by index, and the growth they are the mean of by block, beside that of the tokens' norm.

    A direction that grows less than the norm turns towards the others.

    Parameters
    ----------
    spectra : Spectra
    phases : Phases
        Drawn as bands.
    title : str
    null : Null, optional
        Untrained twins, hatched behind the exponents and behind the growth of the leading direction.

    Examples
    --------
    >>> from brdyn.plots import plot_exponents
    >>> spectra = brdyn.token_dynamics(model, images, phases, measures=["spectra"], tangents=2).spectra
    >>> [axes.get_xlabel() for axes in plot_exponents(spectra, phases, title="a ViT").axes]
    ['index of the exponent', 'block']
    """
    figure, (by_index, by_block) = new_panels(2, 8.4, 3.5)
    colours = ordered_colours(spectra.tangents)[::-1]  # the leading one is the dark one
    norm = spectra.by_block(NORM)[0]
    rows = spectra.totals[spectra.totals["quantity"] == EXPONENT]
    twins = bands_of(null, "spectra", ["quantity", "index", "phase"])
    draw_twins(by_index, twins, "index", CURVE, quantity=EXPONENT)
    draw_band(by_index, rows["index"], rows, marker="o", color=CURVE, markersize=4)
    by_index.axhline(norm.mean(), color=INK, linestyle="--", linewidth=1)
    by_index.set(xlabel="index of the exponent", ylabel="Lyapunov exponent (nats per block)")
    by_index.set_xticks(layer_ticks(spectra.tangents))

    draw_bands(by_block, phases)
    _draw_by_block(by_block, spectra, GROWTH, colours)
    leading = bands_of(null, "dynamics", ["statistic", "group", "layer"])
    draw_twins(by_block, leading, "layer", colours[0], statistic="leading_growth")
    by_block.plot(np.arange(1, spectra.depth + 1), norm, "--", color=INK, linewidth=1)
    by_block.set_ylabel("log growth (nats)")
    handles = [
        Line2D([], [], color=CURVE, marker="o", markersize=4, label="exponents"),
        *_index_handles(colours),
        Line2D([], [], color=INK, linestyle="--", label="the tokens' norm"),
        *twins_handles(null),
    ]
    legend_below(figure, handles)
    head(figure, title)
    return figure


@paper_style()
def plot_coupling(spectra: Spectra, phases: Phases, *, title: str) -> Figure:
    """Leading singular values by block, and how far blocks share the directions of these, with the phases framed.

    Parameters
    ----------
    spectra : Spectra
        With Krylov steps.
    phases : Phases
    title : str

    Examples
    --------
    >>> from brdyn.plots import plot_coupling
    >>> options = {"measures": ["spectra"], "tangents": 2, "krylov_steps": 1}
    >>> spectra = brdyn.token_dynamics(model, images, phases, **options).spectra
    >>> figure = plot_coupling(spectra, phases, title="a ViT")
    >>> figure.axes[1].get_title()
    'right singular vectors (entering)'
    """
    figure, (values, *panels) = new_panels(1 + len(SIDES), 11.0, 3.7)
    colours = ordered_colours(spectra.tangents)[::-1]
    draw_bands(values, phases)
    _draw_by_block(values, spectra, SINGULAR, colours)
    values.set_ylabel("singular value of the Jacobian")
    log_scale(values)
    values.legend(handles=_index_handles(colours), frameon=False, fontsize=7)
    matrices = {side: spectra.coupling(side) for side in SIDES}
    for matrix in matrices.values():
        np.fill_diagonal(matrix, np.nan)  # 1, which would leave the others no colours
    label = f"mean squared cosine\n({spectra.chance:.1g} by chance)"
    for axes, (side, matrix) in zip(panels, matrices.items(), strict=True):
        image = draw_matrix(axes, matrix, phases, vmin=0)  # each on its own scale: one side couples far less
        figure.colorbar(image, ax=axes, shrink=0.85, label=label)
        axes.set_title(OF_SIDES[side])
        axes.set(xlabel="block", ylabel="block")
    head(figure, title)
    return figure


def _draw_by_block(axes: Axes, spectra: Spectra, quantity: str, colours: list[tuple[float, float, float]]) -> None:
    """A curve for each index, the leading one on top."""
    rows = spectra.blocks[spectra.blocks["quantity"] == quantity]
    for index, colour in reversed(list(enumerate(colours, 1))):
        part = rows[rows["index"] == index].sort_values("block")
        draw_band(axes, part["block"], part, shade=0.2, marker="o", color=colour, markersize=3, linewidth=1)
    layer_axis(axes, spectra.depth, "block")


def _index_handles(colours: list[tuple[float, float, float]]) -> list[Line2D]:
    ends = {1: "index 1"} | ({len(colours): f"index {len(colours)}"} if len(colours) > 1 else {})
    return [
        Line2D([], [], color=colours[index - 1], marker="o", markersize=3, label=label) for index, label in ends.items()
    ]
