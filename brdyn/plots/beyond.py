"""What lies beyond the axes: an arrow where a curve leaves them, and in words how far it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from brdyn.plots.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def mark_beyond(
    axes: Axes,
    layers: Sequence[Any],
    values: Sequence[float],
    limit: float,
    colour: Any,
    name: str,
    *,
    above: bool = False,
) -> list[str]:
    """Put arrows on the edge where values of a curve lie beyond it.

    Parameters
    ----------
    axes : Axes
    layers, values : sequence
        The curve. NaN lies nowhere.
    limit : float
        The edge: below it is beyond, or above it where `above` says so.
    colour : colour
    name : str
        Of the curve.

    Returns
    -------
    list of str
        The furthest value with its layer, for :func:`say_beyond`; nothing where the whole curve is shown.

    Examples
    --------
    >>> from brdyn.plots.beyond import mark_beyond
    >>> from matplotlib.figure import Figure
    >>> mark_beyond(Figure().subplots(), [1, 2, 3], [0.5, -3.0, -7.25], -1, "black", "cls")
    ['▼ cls: -7.25 at layer 3, 2 layers in all']
    """
    places, heights = np.asarray(layers), np.asarray(values, dtype=float)
    out = heights > limit if above else heights < limit
    if not out.any():
        return []
    axes.plot(
        places[out], np.full(out.sum(), limit), linestyle="none", marker="^" if above else "v", markersize=6,
        color=colour, clip_on=False, zorder=5,
    )  # fmt: skip
    furthest = int(np.flatnonzero(out)[(heights[out].argmax() if above else heights[out].argmin())])
    more = f", {out.sum()} layers in all" if out.sum() > 1 else ""
    return [f"{'▲' if above else '▼'} {name}: {heights[furthest]:.3g} at layer {places[furthest]}{more}"]


def say_beyond(axes: Axes, lines: Sequence[str], *, above: bool = False) -> None:
    """Write what :func:`mark_beyond` said of the curves of a panel beside the edge they leave by."""
    if lines:
        axes.text(
            0.02, 0.9 if above else 0.1, "\n".join(lines), transform=axes.transAxes, fontsize=7, color=INK, zorder=6,
            va="top" if above else "bottom",
            bbox={"facecolor": axes.get_facecolor(), "alpha": 0.8, "linewidth": 0, "pad": 1},
        )  # fmt: skip
