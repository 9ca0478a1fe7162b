"""The band of untrained twins behind curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from brdyn.plots.style import QUIET, alone

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from brdyn.measures.null import Null

Style = Literal["-", "--", ":"]
HATCH = "/////"
LONE = 5  # points: the width of a band that has one place, wider than the line of a curve's own interval
HATCHES = {"-": HATCH, "--": HATCH.replace("/", "\\"), ":": "....."}  # by the line style of the curve


def bands_of(null: Null | None, table: str, by: Sequence[str]) -> pd.DataFrame | None:
    """The bands of a table of twins; None where there are no twins, or none have it."""
    return None if null is None or table not in null.tables else null.band(table, by)


def draw_twins(
    axes: Axes, bands: pd.DataFrame | None, over: str, colour: Any, style: Style = "-", **values: Any
) -> None:
    """Hatch from the least to the largest twin, behind a curve, in its colour and line style; of one twin, a thin line.

    Parameters
    ----------
    axes : Axes
    bands : DataFrame or None
        Of :func:`bands_of`.
    over : str
        The column of the horizontal axis.
    colour : colour
    style : {"-", "--", ":"}
        Of the curve's line.
    **values
        Which rows are the curve's, by column.
    """
    if bands is None:
        return
    for name, value in values.items():
        bands = bands[bands[name] == value]
    rows = bands.sort_values(over)
    places, low, high = (rows[name].to_numpy() for name in (over, "low", "high"))
    lone = alone(low + high)
    if np.array_equal(low, high, equal_nan=True):
        axes.plot(places, low, style, color=colour, alpha=0.7, linewidth=0.8, zorder=-1)
        axes.plot(places[lone], low[lone], "_", color=colour, alpha=0.7, zorder=-1)
        return
    axes.fill_between(
        places, low, high, facecolor="none", edgecolor=colour, hatch=HATCHES[style], alpha=0.35, linewidth=0.8,
        linestyle=style, zorder=-1,
    )  # fmt: skip
    axes.vlines(places[lone], low[lone], high[lone], color=colour, alpha=0.35, linewidth=LONE, zorder=-1)


def twins_handles(null: Null | None, style: Style = "-") -> list[Artist]:
    """What stands for the bands in a legend, or for the line of one twin; nothing without twins."""
    if not null:
        return []
    if null.twins == 1:
        return [Line2D([], [], linestyle=style, color=QUIET, linewidth=0.8, label=null.label)]
    return [Patch(facecolor="none", edgecolor=QUIET, hatch=HATCHES[style], linestyle=style, label=null.label)]
