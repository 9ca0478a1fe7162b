"""What recursion buys."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import pandas as pd
import seaborn as sns

from brdyn.plots.style import (
    ACCENT,
    CURVE,
    MARKERS,
    QUIET,
    fitted,
    head,
    new_figure,
    ordered_colours,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_recursion(steps: pd.DataFrame, adaptive: pd.DataFrame, *, title: str) -> Figure:
    """Accuracy against the number of recursion steps, fixed and (as marks) adaptive; and the latency of one image.

    Parameters
    ----------
    steps, adaptive : DataFrame
        As of :class:`brdyn.classifiers.evaluation.Recursion`.
    title : str

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.plots import plot_recursion
    >>> accuracy = {"accuracy": [0.7, 0.8], "low": [0.6, 0.7], "high": [0.8, 0.9]}
    >>> steps = pd.DataFrame({"steps": [1, 2], **accuracy, "latency_ms": [2.0, 4.0]})
    >>> adaptive = pd.DataFrame({"mean_steps": [1.3], "accuracy": [0.79]})
    >>> [axes.get_ylabel() for axes in plot_recursion(steps, adaptive, title="a ViTRM").axes]
    ['accuracy', 'latency of one image (ms)']
    """
    with paper_style():
        figure = new_figure(7.4, 3.0)
        accuracy, speed = figure.subplots(1, 2)
        accuracy.plot(steps["steps"], steps["accuracy"], color=CURVE, marker="o", markersize=3, label="fixed")
        accuracy.fill_between(steps["steps"], steps["low"], steps["high"], color=CURVE, alpha=0.2, lw=0)
        accuracy.scatter(
            adaptive["mean_steps"],
            adaptive["accuracy"],
            color=ACCENT,
            marker="D",
            s=20,
            zorder=3,
            label="adaptive",
        )
        accuracy.set_ylabel("accuracy")
        accuracy.legend(frameon=False, fontsize=7)
        speed.plot(steps["steps"], steps["latency_ms"], color=CURVE, marker="o", markersize=3)
        speed.set_ylabel("latency of one image (ms)")
        speed.set_ylim(bottom=0)
        for axes in (accuracy, speed):
            axes.set_xlabel("recursion steps")
            axes.set_xticks(steps["steps"])
        head(figure, title)
        return figure


def plot_halting(halting: pd.DataFrame, *, title: str) -> Figure:
    """Share of right answers by what the halting head said, a curve for each number of steps; below, of how many.

    Parameters
    ----------
    halting : DataFrame
        As of :class:`brdyn.classifiers.evaluation.Recursion`.
    title : str

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.plots import plot_halting
    >>> bins = {"probability": [0.2, 0.9], "right": [0.3, 0.95], "images": [40, 60]}
    >>> figure = plot_halting(pd.DataFrame({"steps": [1, 1], **bins}), title="a ViTRM")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['share of right answers', 'images']
    """
    numbers = sorted(halting["steps"].unique())
    with paper_style():
        figure = new_figure(4.8, 4.2)
        share, images = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        share.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
        for number, colour, marker in zip(
            numbers, ordered_colours(len(numbers)), cycle(MARKERS), strict=False
        ):
            table = halting[halting["steps"] == number]
            look = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1}
            counted = f"{number} ({table['images'].sum():,} images)"
            share.plot(table["probability"], table["right"], label=counted, **look)
            images.plot(table["probability"], table["images"], **look)
        images.set_yscale("log")
        images.set(xlabel="halting probability", ylabel="images", ylim=(0.8, None))
        share.set_ylabel("share of right answers")
        share.legend(
            frameon=False,
            fontsize=7,
            title="steps",
            title_fontsize=7,
            loc="upper left",
            bbox_to_anchor=(1, 1),
        )
        head(figure, title)
        return figure


def plot_grid(cells: pd.DataFrame, *, title: str = "accuracy (%)") -> Figure:
    """Accuracy of every trained cell of a grid: n down, N_sup across.

    Parameters
    ----------
    cells : DataFrame
        Columns `n`, `n_sup` and `accuracy`. Cells that are not there yet stay empty.
    title : str

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.plots import plot_grid
    >>> figure = plot_grid(pd.DataFrame({"n": [1, 3], "n_sup": [2, 2], "accuracy": [0.5, 0.75]}))
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['50.0', '75.0']
    """
    table = cells.pivot(index="n", columns="n_sup", values="accuracy")
    rows, columns = table.shape
    with paper_style():
        figure = new_figure(1.6 + 0.75 * columns, 1.2 + 0.45 * rows)
        axes = figure.subplots()
        sns.heatmap(100 * table, ax=axes, cmap="viridis", annot=True, fmt=".1f", cbar=False, linewidths=0.5)
        axes.set_xlabel("N_sup, supervised steps")
        axes.set_ylabel("n, updates of the latent")
        axes.set_title(fitted(title, figure.get_figwidth()))
        return figure
