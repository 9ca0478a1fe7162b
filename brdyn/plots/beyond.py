"""What lies beyond the axes: an arrow where a curve leaves them, and in words how far it goes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.transforms import ScaledTranslation

from brdyn.plots.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARROW, SMALL = 6, 7  # points
LOWEST = -1.0  # of R² and skill that axes go down to, or that has a colour of its own


def mark_beyond(
    axes: Axes,
    layers: Sequence[Any],
    values: Sequence[float] | np.ndarray,
    limit: float,
    colour: Any,
    name: str,
    *,
    above: bool = False,
) -> list[str]:
    """Put arrows on the edge where values of a curve lie beyond it, further in where another curve has arrows.

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
    taken = {line.get_gid() for line in axes.lines if np.isin(line.get_xdata(), places[out]).any()}
    row = next(row for row in count() if f"beyond {row}" not in taken)
    figure, inches = axes.get_figure(), (-row if above else row) * ARROW / 72
    assert figure is not None
    axes.plot(
        places[out], np.full(out.sum(), limit), linestyle="none", marker="^" if above else "v", markersize=ARROW,
        color=colour, clip_on=False, zorder=5, gid=f"beyond {row}",
        transform=axes.transData + ScaledTranslation(0, inches, figure.dpi_scale_trans),
    )  # fmt: skip
    furthest = int(np.flatnonzero(out)[(heights[out].argmax() if above else heights[out].argmin())])
    more = f", {out.sum()} layers in all" if out.sum() > 1 else ""
    return [f"{'▲' if above else '▼'} {name}: {heights[furthest]:.3g} at layer {places[furthest]}{more}"]


def say_beyond(axes: Axes, lines: Sequence[str]) -> None:
    """Write what :func:`mark_beyond` said of the curves of a panel between it and its title, where it hides none."""
    if lines:
        axes.annotate(
            "\n".join(lines), (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=SMALL,
            color=INK, va="bottom",
        )  # fmt: skip
        axes.set_title(axes.get_title(), pad=10 + 1.25 * SMALL * len(lines))
