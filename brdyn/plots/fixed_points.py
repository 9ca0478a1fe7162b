"""What a map does past its phase."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from brdyn.measures.fixed_points import MOVES
from brdyn.plots.style import (
    MARKERS,
    QUIET,
    draw_band,
    head,
    legend_below,
    log_scale,
    marks_every,
    new_figure,
    ordered_colours,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.measures.found_fixed_points import FixedPoints

READ_FIRST = ("accuracy", "agreement", "cosine")
LEAST = 1e-7  # of what is drawn on a logarithmic axis: float32 tells no less apart


@paper_style()
def plot_fixed_points(found: FixedPoints, *, title: str) -> Figure:
    """How far each application moves a state, how far it is from its end, and what is read, phase by phase.

    Parameters
    ----------
    found : FixedPoints
    title : str

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.measures.found_fixed_points import FixedPoints
    >>> from brdyn.plots import plot_fixed_points
    >>> place = {"phase": "block 1", "statistic": "step", "unit": "", "group": "all", "application": range(1, 5)}
    >>> steps = pd.DataFrame({**place, "mean": [0.4, 0.2, 0.1, 0.05], "low": 0.04, "high": 0.5})
    >>> figure = plot_fixed_points(FixedPoints(2, {"block 1": 2}, steps), title="a Raptor")
    >>> figure.axes[0].lines[0].get_xdata().tolist()
    [0.5, 1.0, 1.5, 2.0]
    """
    units = dict(zip(found.table["statistic"], found.table["unit"], strict=True))
    shown = [*MOVES, *[name for name in READ_FIRST if name in found.readings][:1]]
    colours = ordered_colours(len(found.lengths))
    figure = new_figure(7.2, 5.4)
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes, statistic in zip(panels, shown, strict=False):
        for name, colour, marker in zip(found.lengths, colours, cycle(MARKERS), strict=False):
            _draw(axes, found, name, statistic, colour, marker)
        axes.axvline(1, color=QUIET, linewidth=0.7, linestyle=":")
        axes.set_title(units.get(statistic, statistic))
        axes.set_xlim(0, found.factor * 1.03)
        if statistic in MOVES and (found.table.loc[found.table["statistic"] == statistic, "mean"] > LEAST).any():
            log_scale(axes)
    for axes in panels[2:]:
        axes.set_xlabel("applications, of the phase's own")
    legend_below(figure, panels[0].get_legend_handles_labels()[0])
    head(figure, title)
    return figure


def _draw(
    axes: Axes,
    found: FixedPoints,
    name: str,
    statistic: str,
    colour: tuple[float, float, float],
    marker: str,
) -> None:
    """The curve of a phase with its interval; on a logarithmic axis without what is 0."""
    curve = found.curve(name, statistic)
    if statistic in MOVES:
        curve = curve[curve["mean"] > LEAST]
        curve = curve.assign(low=curve["low"].clip(lower=curve["mean"] / 10))
    times = curve.index.to_numpy() / found.lengths[name]
    radius = found.curve(name, "radius")["mean"]
    label = f"{name}: spectral radius {radius.iloc[0]:.3f}" if len(radius) else name
    draw_band(
        axes, times, curve, shade=0.2, color=colour, marker=marker, markersize=3.5, linewidth=1, label=label,
        markevery=marks_every(len(curve)),
    )  # fmt: skip
