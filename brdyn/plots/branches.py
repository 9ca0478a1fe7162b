"""Attention and MLP apart: how the norm of the updates is shared between them, over depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from brdyn.plots.null import bands_of, draw_twins, twins_handles
from brdyn.plots.style import INK, MASKED, head, layer_axis, legend_below, new_panels, paper_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.measures.null import Null
    from brdyn.phases import Phases

SHARE, RESCALING = "attention_share", "rescaling_share"
WIDTH = 0.86  # of a bar
ATTENTION, MLP = "#A79BCB", MASKED  # of no token group, and light enough for what is drawn over them


@paper_style()
def plot_branches(table: pd.DataFrame, phases: Phases, *, title: str, null: Null | None = None) -> Figure:
    """Share of attention and of the MLP in the norms of both updates, stacked, a panel for each token group.

    Whiskers are the 95 % interval over images. Dotted lines end phases. Untrained twins are hatched where their shares
    meet. A dashed curve is the share of rescaling, where blocks scale their input.

    Parameters
    ----------
    table : DataFrame
        Of :class:`brdyn.measures.dynamics.Dynamics`, with the measure `branches`.
    phases : Phases
    title : str
    null : Null, optional

    Examples
    --------
    >>> from brdyn.plots import plot_branches
    >>> dynamics = brdyn.token_dynamics(model, images, phases, measures=["branches"])
    >>> [axes.get_title() for axes in plot_branches(dynamics.table, phases, title="a ViT").axes]
    ['cls', 'patches']
    """
    rows = table[table["statistic"].isin((SHARE, RESCALING))]
    bands = bands_of(null, "dynamics", ["statistic", "group", "layer"])
    groups = list(dict.fromkeys(rows["group"]))
    figure, panels = new_panels(len(groups), 0.6 + 4.2 * len(groups), 3.4, sharey=True)
    for axes, group in zip(panels, groups, strict=True):
        own = rows[rows["group"] == group].sort_values("layer")
        _draw_shares(axes, own[own["statistic"] == SHARE])
        draw_twins(axes, bands, "layer", INK, statistic=SHARE, group=group)
        scaled = own[own["statistic"] == RESCALING]
        axes.plot(scaled["layer"], scaled["mean"], "--", color=INK, linewidth=1)
        for boundary in phases.boundaries:
            axes.axvline(boundary + 0.5, color=INK, linestyle=":", linewidth=1)
        axes.set_title(str(group))
        layer_axis(axes, phases.layers, "update (l is what block l does)")
        axes.set_ylim(0, 1)
    figure.axes[0].set_ylabel("share of the norm of both updates")
    handles = [Patch(facecolor=MLP, label="MLP"), Patch(facecolor=ATTENTION, label="attention")]
    if rows["statistic"].eq(RESCALING).any():
        handles.append(Line2D([], [], linestyle="--", color=INK, label="rescaling of the input"))  # type: ignore[arg-type]
    head(figure, title)
    legend_below(figure, [*handles, *twins_handles(null)])
    return figure


def _draw_shares(axes: Axes, share: pd.DataFrame) -> None:
    """Bars of attention, and of the MLP on top of them to 1; none where a block leaves the tokens as they are."""
    share = share.dropna(subset="mean")
    axes.bar(share["layer"], share["mean"], WIDTH, color=ATTENTION, zorder=-3)
    axes.bar(share["layer"], 1 - share["mean"], WIDTH, bottom=share["mean"], color=MLP, zorder=-3)
    spread = [share["mean"] - share["low"], share["high"] - share["mean"]]
    axes.errorbar(share["layer"], share["mean"], spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
