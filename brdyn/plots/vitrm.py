"""What recursion buys."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pandas as pd
import seaborn as sns

from brdyn.plots.style import (
    ACCENT,
    CURVE,
    MARKERS,
    QUIET,
    draw_interval,
    fitted,
    head,
    log_scale,
    new_figure,
    ordered_colours,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@paper_style()
def plot_recursion(steps: pd.DataFrame, adaptive: pd.DataFrame, *, title: str) -> Figure:
    """Accuracy against the number of recursion steps, fixed and (as marks) adaptive; calibration, how far a step moves
    the streams, what stopping gains over as many fixed steps, and the latency of one image.

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
    drawers = {"accuracy": partial(_accuracies, steps, adaptive)}
    if "nll" in steps:  # unknown to the first versions
        drawers |= {
            "negative log-likelihood (nats)": partial(_curve, steps, "nll"),
            "calibration error": partial(_calibrations, steps),
            "step over the norm of y and z": partial(_curve, steps, "step_norm"),
            "adaptive over fixed (points)": partial(_gains, adaptive),
        }
    drawers["latency of one image (ms)"] = partial(_latency, steps)
    columns = min(3, len(drawers))
    figure = new_figure(7.4 if columns == 2 else 9.0, 3.0 * (len(drawers) // columns))
    for axes, (label, draw) in zip(
        figure.subplots(len(drawers) // columns, columns).ravel(), drawers.items(), strict=True
    ):
        draw(axes)
        axes.set_ylabel(label)
        axes.set_xlabel("recursion steps")
        axes.set_xticks(steps["steps"])
    head(figure, title)
    return figure


def _accuracies(steps: pd.DataFrame, adaptive: pd.DataFrame, axes: Axes) -> None:
    _curve(steps, "accuracy", axes, label="fixed")
    axes.scatter(
        adaptive["mean_steps"],
        adaptive["accuracy"],
        color=ACCENT,
        marker="D",
        s=20,
        zorder=3,
        label="adaptive",
    )
    axes.legend(frameon=False, fontsize=7)


def _curve(steps: pd.DataFrame, name: str, axes: Axes, label: str | None = None) -> None:
    """A curve with its interval."""
    low, high = ("low", "high") if name == "accuracy" else (f"{name}_low", f"{name}_high")
    axes.plot(steps["steps"], steps[name], color=CURVE, marker="o", markersize=3, label=label)
    draw_interval(axes, steps["steps"], steps[low], steps[high], color=CURVE, shade=0.2)


def _calibrations(steps: pd.DataFrame, axes: Axes) -> None:
    look: dict[str, Any] = {"markersize": 3, "linewidth": 1}
    axes.plot(
        steps["steps"],
        steps["class_calibration_error"],
        color=CURVE,
        marker="o",
        label="of the class",
        **look,
    )
    axes.plot(steps["steps"], steps["calibration_error"], "--", color=ACCENT, marker="s", label="of halting", **look)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=7)


def _gains(adaptive: pd.DataFrame, axes: Axes) -> None:
    """What stopping gains over as many fixed steps, by the mean number of steps; each mark says its threshold."""
    below, above = (adaptive["gain"] - adaptive["gain_low"], adaptive["gain_high"] - adaptive["gain"])
    axes.axhline(0, color=QUIET, linewidth=0.7)
    axes.errorbar(
        adaptive["mean_steps"], 100 * adaptive["gain"], yerr=(100 * below, 100 * above), fmt="D", color=ACCENT,
        markersize=4, linewidth=0.8, capsize=2,
    )  # fmt: skip
    for row in adaptive.itertuples():
        axes.annotate(
            f"{row.threshold:g}",
            (row.mean_steps, 100 * row.gain),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=6,
        )


def _latency(steps: pd.DataFrame, axes: Axes) -> None:
    axes.plot(steps["steps"], steps["latency_ms"], color=CURVE, marker="o", markersize=3)
    axes.set_ylim(bottom=0)


@paper_style()
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
    figure = new_figure(4.8, 4.2)
    share, images = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    share.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    for number, colour, marker in zip(numbers, ordered_colours(len(numbers)), cycle(MARKERS), strict=False):
        table = halting[halting["steps"] == number]
        look = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1}
        counted = f"{number} ({table['images'].sum():,} images)"
        share.plot(table["probability"], table["right"], label=counted, **look)
        images.plot(table["probability"], table["images"], **look)
    log_scale(images)
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


@paper_style()
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
    figure = new_figure(1.6 + 0.75 * columns, 1.2 + 0.45 * rows)
    axes = figure.subplots()
    sns.heatmap(100 * table, ax=axes, cmap="viridis", annot=True, fmt=".1f", cbar=False, linewidths=0.5)
    axes.set_xlabel("N_sup, supervised steps")
    axes.set_ylabel("n, updates of the latent")
    axes.set_title(fitted(title, figure.get_figwidth()))
    return figure
