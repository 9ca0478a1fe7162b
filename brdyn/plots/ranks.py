"""How far from recurrent a ViT is: fidelity against the rank of each layer's corrections, and against parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import seaborn as sns

from brdyn.plots.beyond import LOWEST
from brdyn.plots.style import MARKERS, QUIET, draw_interval, head, new_panels, paper_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@paper_style()
def plot_ranks(table: pd.DataFrame, *, title: str) -> Figure:
    """Skill at the last layer against rank, and against the share of the blocks' parameters, a curve per partition.

    Parameters
    ----------
    table : DataFrame
        As of :class:`brdyn.raptor.RankCurve`. Partitions of one name but for a number share a colour; what was fitted
        is drawn full, what was not dashed. Values below -1 lie on the lower edge, as hollow triangles.
    title : str

    Examples
    --------
    >>> from brdyn.plots import plot_ranks
    >>> curve = brdyn.raptor_ranks(model, images, {"one block": [0] * 12}, ranks=[0, 192])
    >>> [axes.get_xlabel() for axes in plot_ranks(curve.table, title="a ViT").axes]
    ['rank of the corrections', "share of the teacher's block parameters"]
    """
    figure, (by_rank, by_share) = new_panels(2, 8.4, 3.4, sharey=True)
    families = list(dict.fromkeys(name.rstrip("0123456789 ") for name in table["partition"]))
    colours = dict(zip(families, sns.color_palette("colorblind", len(families)), strict=True))
    named: set[tuple[str, bool]] = set()
    for (partition, fitted), rows in table.groupby(["partition", "fitted"], sort=False):
        family = str(partition).rstrip("0123456789 ")
        label = None if (family, fitted) in named else family + (", fitted" if fitted else "")
        named.add((family, bool(fitted)))
        marker = MARKERS[families.index(family) % len(MARKERS)]
        for axes, column in ((by_rank, "rank"), (by_share, "share")):
            _draw(axes, rows, column, colours[family], marker, bool(fitted), label)
    by_rank.set_xscale("symlog", base=2, linthresh=1)
    by_rank.set_xlim(left=-0.3)
    ranks = sorted(set(table["rank"]))
    by_rank.set_xticks(ranks, [str(rank) for rank in ranks])
    by_rank.set_xlabel("rank of the corrections")
    by_rank.set_ylabel("skill at the last layer")
    by_share.set_xlabel("share of the teacher's block parameters")
    for axes in (by_rank, by_share):
        axes.axhline(0, color=QUIET, linewidth=0.7)
        axes.axhline(1, color=QUIET, linewidth=0.7, linestyle=":")
        axes.set_ylim(LOWEST - 0.05, 1.05)
    by_share.legend(frameon=False, fontsize=7)
    head(figure, title)
    return figure


def _draw(
    axes: Axes, rows: pd.DataFrame, column: str, colour: object, marker: str, fitted: bool, label: str | None
) -> None:
    rows = rows.sort_values(column)
    inside = rows["skill"] >= LOWEST
    kept = rows["skill"].clip(lower=LOWEST)
    axes.plot(
        rows[column], kept, "-" if fitted else "--", color=colour, linewidth=1, label=label,
        marker=marker, markersize=4, markevery=inside.to_numpy().nonzero()[0].tolist(),
    )  # fmt: skip
    axes.plot(rows[column][~inside], kept[~inside], "v", color=colour, markersize=5, markerfacecolor="none")
    low, high = (rows[end].clip(lower=LOWEST) for end in ("low", "high"))
    draw_interval(axes, rows[column], low, high, color=colour, shade=0.15)
