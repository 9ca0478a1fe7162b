"""Curves over depth: token groups in fixed colours, phases as bands, confidence bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from brdyn.errors import UsageError
from brdyn.plots.null import Style, bands_of, draw_twins, twins_handles
from brdyn.plots.style import (
    INK,
    draw_band,
    fitted,
    head,
    layer_ticks,
    legend_below,
    log_scale,
    look_of,
    new_panels,
    paper_style,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.measures.null import Null
    from brdyn.phases import Phases

BAND = "#EEEEEE"
BEGUN_ANEW = {"estimation_mean", "estimation_variance"}  # with each phase, to end with 0 by definition
STYLES: tuple[Style, ...] = ("-", "--", ":")


def plot_curves(
    table: pd.DataFrame,
    statistic: str,
    phases: Phases,
    *,
    title: str,
    log: bool = False,
    null: Null | None = None,
) -> Figure:
    """One statistic over depth, a curve for each token group.

    Parameters
    ----------
    table : DataFrame
        Of :class:`brdyn.measures.dynamics.Dynamics`.
    statistic : str
    phases : Phases
        Drawn as bands behind the curves.
    title : str
    log : bool
        Logarithmic vertical axis.
    null : Null, optional
        Untrained twins, hatched behind the curves.

    Examples
    --------
    >>> from brdyn.plots import plot_curves
    >>> dynamics = brdyn.token_dynamics(model, images, phases, measures=["speed"])
    >>> plot_curves(dynamics.table, "speed", phases, title="a ViT").axes[0].get_ylabel()
    'angular speed (radians per layer)'
    """
    return plot_panels(table, {"": [statistic]}, phases, title=title, log=log, null=null)


@paper_style()
def plot_panels(
    table: pd.DataFrame,
    panels: dict[str, list[str]],
    phases: Phases,
    *,
    title: str,
    log: bool = False,
    null: Null | None = None,
) -> Figure:
    """Panels side by side; several statistics in a panel are told apart by their line style.

    Parameters
    ----------
    panels : dict of str to list of str
        Heading of a panel to its statistics, three at most; where there are several it names the vertical axis too.

    Raises
    ------
    UsageError
        If a panel has more statistics than there are line styles.

    Examples
    --------
    >>> from brdyn.plots import plot_panels
    >>> dynamics = brdyn.token_dynamics(model, images, phases, measures=["norm", "speed"])
    >>> panels = {"size": ["norm"], "motion": ["speed"]}
    >>> [axes.get_title() for axes in plot_panels(dynamics.table, panels, phases, title="a ViT").axes]
    ['size', 'motion']
    """
    figure, places = new_panels(len(panels), 0.6 + 4.2 * len(panels), 3.4)
    handles: list[Artist] = []
    for axes, (heading, statistics) in zip(places, panels.items(), strict=True):
        handles += draw_curves(axes, table, statistics, phases, null)
        axes.set_title(heading or fitted(title, figure.get_figwidth()))
        if len(statistics) > 1:
            axes.set_ylabel(heading)
        if log:
            log_scale(axes)
    if any(panels):
        head(figure, title)
    legend_below(figure, [*handles, *twins_handles(null)])
    return figure


def draw_curves(
    axes: Axes, table: pd.DataFrame, statistics: list[str], phases: Phases, null: Null | None = None
) -> list[Line2D]:
    """Draw statistics into given axes; returns what stands for the token groups in a legend.

    One statistic alone names the vertical axis.
    """
    bands = bands_of(null, "dynamics", ["statistic", "group", "layer"])
    rows = table[table["statistic"].isin(statistics)]
    draw_bands(axes, phases)
    many, begun = len(statistics) > 1, BEGUN_ANEW.intersection(statistics)
    parts = [(first, last - 1) for first, last in phases.intervals] if begun else [(0, phases.layers)]
    handles = {}
    if len(statistics) > len(STYLES):
        raise UsageError(
            f"a panel tells {len(STYLES)} statistics apart, not {', '.join(statistics)}: give some another panel"
        )
    for statistic, style in zip(statistics, STYLES, strict=False):
        for group, curve in rows[rows["statistic"] == statistic].groupby("group", sort=False):
            look = look_of(group, table["group"])
            handles[group] = Line2D([], [], label=str(group), **look)
            for first, last in parts:
                ordered = curve[curve["layer"].between(first, last)].sort_values("layer")
                part = None if bands is None else bands[bands["layer"].between(first, last)]
                draw_twins(axes, part, "layer", look["color"], style, statistic=statistic, group=group)
                draw_band(axes, ordered["layer"], ordered, linestyle=style, **look)
    first, last = int(rows["layer"].min()), int(rows["layer"].max())
    axes.set_xlabel(
        "layer (the last of each phase is 0, and left out)" if begun
        else "layer (0 is the embedding)" if first == 0
        else "update (l is what block l does)"
    )  # fmt: skip
    axes.set_ylabel(rows["unit"].iloc[0])
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.set_xticks([tick for tick in (0, *layer_ticks(phases.layers)) if first <= tick <= last])
    if many:
        units = rows.drop_duplicates("statistic").set_index("statistic")["unit"]
        styles = [
            (
                *twins_handles(null if bands is not None else None, style),
                Line2D([], [], linestyle=style, color=INK),
            )
            for style in STYLES[: len(statistics)]
        ]
        axes.legend(styles, [units[name].split(" (")[0] for name in statistics], frameon=False, fontsize=7)
    return list(handles.values())


def draw_bands(axes: Axes, phases: Phases) -> None:
    """Every other phase as a grey band: block l makes state l by update l."""
    for first, last in phases.intervals[::2]:
        axes.axvspan(first - 0.5, last + 0.5, color=BAND, zorder=-2, linewidth=0)
