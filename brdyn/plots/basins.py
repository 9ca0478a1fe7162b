"""Angular basins: how near the images of a class are, and the paths of their directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from brdyn.plots.dynamics import draw_curves
from brdyn.plots.null import twins_handles
from brdyn.plots.style import INK, MARKERS, QUIET, head, legend_below, new_figure, new_panels, paper_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.measures.basins import Basins
    from brdyn.measures.null import Null
    from brdyn.phases import Phases

CLASSES_SHOWN = 10
CLASS_COLOURS = (  # Tol's muted scheme: told apart by colour-blind readers, and from the colours of token groups
    "#332288", "#88CCEE", "#117733", "#DDCC77", "#882255", "#44AA99", "#CC6677", "#999933", "#AA4499", "#8C8C8C",
)  # fmt: skip


@paper_style()
def plot_basins(basins: Basins, phases: Phases, *, title: str, null: Null | None = None) -> Figure:
    """Angles within and between classes, their ratio, and the purity of neighbourhoods, over depth.

    Untrained twins are hatched behind the curves.

    >>> from brdyn.plots import plot_basins
    >>> basins = brdyn.token_dynamics(model, images, phases, measures=["basins"]).basins
    >>> [axes.get_title() for axes in plot_basins(basins, phases, title="a ViT").axes]
    ['spread', 'within over between', '3 nearest neighbours']
    """
    figure, (angles, ratio, purity) = new_panels(3, 13.2, 3.5)
    handles = draw_curves(angles, basins.table, ["within_class_angle", "between_class_angle"], phases, null)
    angles.set_ylabel("angle (radians)")
    draw_curves(ratio, basins.table, ["basin_ratio"], phases, null)
    ratio.axhline(1, color=QUIET, linewidth=0.8, linestyle=":")
    draw_curves(purity, basins.table, ["knn_purity"], phases, null)
    purity.axhline(basins.chance, color=QUIET, linewidth=0.8, linestyle=":")
    purity.annotate(
        "chance", (1.01, basins.chance), xycoords=("axes fraction", "data"), va="center", fontsize=7, color=QUIET,
    )  # fmt: skip
    for axes, heading in (
        (angles, "spread"),
        (ratio, "within over between"),
        (purity, f"{basins.neighbours} nearest neighbours"),
    ):
        axes.set_title(heading)
    head(figure, f"{title}: {basins.n_images} images of {basins.n_classes} classes compared")
    legend_below(figure, [*handles, *twins_handles(null)])
    return figure


@paper_style()
def plot_projection(basins: Basins, *, title: str) -> Figure:
    """Directions at the last layer by class, and the path of each class's mean from the embedding to there.

    Ten classes at most are shown; the legend says of how many.

    >>> from brdyn.plots import plot_projection
    >>> basins = brdyn.token_dynamics(model, images, phases, measures=["basins"]).basins
    >>> plot_projection(basins, title="a ViT").savefig("projection.png")
    """
    figure = new_figure(5.2, 4.4)
    draw_projection(figure.subplots(), basins)
    head(figure, f"{title}: directions of {basins.projected_group}")
    return figure


def draw_projection(axes: Axes, basins: Basins) -> None:
    """Draw into given axes."""
    places = basins.projection
    known = np.sort(places["label"].unique())
    labels = known[:CLASSES_SHOWN]
    last = places["layer"].max()
    for label, colour, marker in zip(labels, CLASS_COLOURS, MARKERS, strict=False):
        own = places[places["label"] == label]
        final = own[own["layer"] == last]
        axes.scatter(final["x"], final["y"], s=9, color=colour, marker=marker, alpha=0.35, linewidths=0)
        path = own.groupby("layer")[["x", "y"]].mean()
        axes.plot(path["x"], path["y"], color=colour, linewidth=1.2, marker=".", markersize=3)
        axes.plot(
            *path.iloc[-1], marker=marker, markersize=7, color=colour, markeredgecolor=INK, linestyle="none",
            label=basins.names.get(int(label), f"class {label}"),
        )  # fmt: skip
    start = places[places["layer"] == 0][["x", "y"]].mean()
    axes.plot(*start, marker="+", markersize=10, markeredgewidth=2.5, color=INK, linestyle="none", label="embedding")
    first, second = basins.explained
    axes.set_xlabel(f"component 1 ({first:.0%} of the variance at layer {last})")
    axes.set_ylabel(f"component 2 ({second:.0%})")
    axes.set_aspect("equal", adjustable="datalim")
    left_out = f"{len(labels)} of {len(known)} classes" if len(known) > len(labels) else None
    axes.legend(
        frameon=False,
        fontsize=7,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        title=left_out,
        title_fontsize=7,
    )
