"""The band of untrained twins behind curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Patch

from brdyn.plots.style import QUIET

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brdyn.measures.null import Null

HATCH = "/////"


def bands_of(null: Null | None, table: str, by: Sequence[str]) -> pd.DataFrame | None:
    """The bands of a table of twins; None where there are no twins, or none have it."""
    return None if null is None or table not in null.tables else null.band(table, by)


def draw_twins(axes: Axes, bands: pd.DataFrame | None, over: str, colour: Any, **values: Any) -> None:
    """Hatch from the least to the largest twin, behind a curve and in its colour.

    Parameters
    ----------
    axes : Axes
    bands : DataFrame or None
        Of :func:`bands_of`.
    over : str
        The column of the horizontal axis.
    colour : colour
    **values
        Which rows are the curve's, by column.
    """
    if bands is None:
        return
    for name, value in values.items():
        bands = bands[bands[name] == value]
    rows = bands.sort_values(over)
    axes.fill_between(
        rows[over].to_numpy(), rows["low"].to_numpy(), rows["high"].to_numpy(), facecolor="none", edgecolor=colour,
        hatch=HATCH, alpha=0.35, linewidth=0.8, zorder=-1,
    )  # fmt: skip


def twins_handles(null: Null | None) -> list[Patch]:
    """What stands for the bands in a legend; nothing without twins."""
    return [] if not null else [Patch(facecolor="none", edgecolor=QUIET, hatch=HATCH, label=null.label)]
