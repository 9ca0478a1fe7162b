"""Angular basins: how near the images of a class are, and the paths of their directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns

from brdyn.plots.dynamics import draw_curves
from brdyn.plots.style import INK, QUIET, new_figure, paper_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.measures.basins import Basins
    from brdyn.measures.null import Null
    from brdyn.phases import Phases

CLASSES_SHOWN = 10


def plot_basins(basins: Basins, phases: Phases, *, title: str, null: Null | None = None) -> Figure:
    """Angles within and between classes, their ratio, and the purity of neighbourhoods, over depth.

    Untrained twins are hatched behind the curves.

    >>> from brdyn.plots import plot_basins
    >>> basins = brdyn.token_dynamics(model, images, phases, measures=["basins"]).basins
    >>> [axes.get_title() for axes in plot_basins(basins, phases, title="a ViT").axes]
    ['spread', 'within over between', '3 nearest neighbours']
    """
    with paper_style():
        figure = new_figure(13.2, 3.2)
        angles, ratio, purity = figure.subplots(1, 3)
        draw_curves(angles, basins.table, ["within_class_angle", "between_class_angle"], phases, null)
        angles.set_ylabel("angle (radians)")
        draw_curves(ratio, basins.table, ["basin_ratio"], phases, null)
        ratio.axhline(1, color=QUIET, linewidth=0.8, linestyle=":")
        draw_curves(purity, basins.table, ["knn_purity"], phases, null)
        purity.axhline(basins.chance, color=QUIET, linewidth=0.8, linestyle=":")
        purity.annotate(
            "chance", (0.99, basins.chance), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            fontsize=7, color=QUIET,
        )  # fmt: skip
        for axes, heading in (
            (angles, "spread"),
            (ratio, "within over between"),
            (purity, f"{basins.neighbours} nearest neighbours"),
        ):
            axes.set_title(heading)
        figure.suptitle(f"{title}: {basins.n_images} images of {basins.n_classes} classes", fontsize=10)
        return figure


def plot_projection(basins: Basins, *, title: str) -> Figure:
    """Directions at the last layer by class, and the path of each class's mean from the embedding to there.

    Ten classes at most are shown.

    >>> from brdyn.plots import plot_projection
    >>> basins = brdyn.token_dynamics(model, images, phases, measures=["basins"]).basins
    >>> plot_projection(basins, title="a ViT").savefig("projection.png")
    """
    with paper_style():
        figure = new_figure(5.2, 4.4)
        draw_projection(figure.subplots(), basins)
        figure.suptitle(f"{title}: directions of {basins.projected_group}", fontsize=10)
        return figure


def draw_projection(axes: Axes, basins: Basins) -> None:
    """Draw into given axes."""
    places = basins.projection
    labels = np.sort(places["label"].unique())[:CLASSES_SHOWN]
    last = places["layer"].max()
    for label, colour in zip(labels, sns.color_palette("colorblind", len(labels)), strict=True):
        own = places[places["label"] == label]
        final = own[own["layer"] == last]
        axes.scatter(final["x"], final["y"], s=6, color=colour, alpha=0.35, linewidths=0)
        path = own.groupby("layer")[["x", "y"]].mean()
        axes.plot(path["x"], path["y"], color=colour, linewidth=1.2, marker=".", markersize=3)
        axes.plot(
            *path.iloc[-1], marker="o", markersize=6, color=colour, markeredgecolor=INK, label=str(label)
        )
    start = places[places["layer"] == 0][["x", "y"]].mean()
    axes.plot(*start, marker="X", markersize=7, color=INK, linestyle="none", label="embedding")
    first, second = basins.explained
    axes.set_xlabel(f"component 1 ({first:.0%} of the variance at layer {last})")
    axes.set_ylabel(f"component 2 ({second:.0%})")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(
        title="class", frameon=False, fontsize=7, title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5)
    )
