"""Pictures of a segmentation: similarity with phases drawn on it, cut-gain curve, boundary stability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from brdyn.plots.style import ACCENT, CURVE, INK, QUIET, layer_ticks, new_figure, paper_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from brdyn.phases import Phases

SHOWN_K = 8


def plot_similarity(matrix: np.ndarray, phases: Phases, *, kind: str, title: str) -> Figure:
    """Heatmap of the similarity between layers with the chosen phases framed.

    Parameters
    ----------
    matrix : ndarray, shape (L, L)
    phases : Phases
    kind : str
        Name of the measure, for the colour bar.
    title : str
    """
    with paper_style():
        figure = new_figure(4.6, 4.0)
        axes = figure.subplots()
        image = draw_similarity(axes, matrix, phases)
        figure.colorbar(image, ax=axes, label=f"{kind} similarity", shrink=0.85)
        axes.set_title(title)
        return figure


def draw_similarity(axes: Axes, matrix: np.ndarray, phases: Phases) -> AxesImage:
    """Draw the heatmap into given axes and return the image, for panels of several models."""
    return draw_matrix(axes, matrix, phases, vmin=min(0.0, float(matrix.min())), vmax=1)


def draw_matrix(axes: Axes, matrix: np.ndarray, phases: Phases, **scale: Any) -> AxesImage:
    """Draw numbers for pairs of layers with the phases framed; `scale` is that of matplotlib's `imshow`."""
    from matplotlib.patches import Rectangle

    layers = len(matrix)
    edge = layers + 0.5
    image = axes.imshow(
        matrix, **{"cmap": "viridis", **scale}, extent=(0.5, edge, edge, 0.5), interpolation="nearest"
    )
    for first, last in phases.intervals:
        side = last - first + 1
        frame = Rectangle(
            (first - 0.5, first - 0.5), side, side, fill=False, edgecolor="white", linewidth=2.2
        )
        axes.add_patch(frame)
        axes.add_patch(
            Rectangle((first - 0.5, first - 0.5), side, side, fill=False, edgecolor=ACCENT, linewidth=1.2)
        )
    axes.set(xlabel="layer", ylabel="layer", xticks=layer_ticks(layers), yticks=layer_ticks(layers))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=2)
    return image


def plot_gain_curve(phases: Phases, *, title: str) -> Figure:
    """Share of the dissimilarity that the best k phases cut, against a structureless drift, with z-scores."""
    with paper_style():
        figure = new_figure(4.6, 3.2)
        axes = figure.subplots()
        numbers = sorted(phases.segmentations)
        found = [phases.segmentations[k] for k in numbers]
        axes.plot(
            numbers,
            [s.drift_share for s in found],
            color=QUIET,
            linestyle="--",
            label="drift with the same mean at every distance",
        )
        axes.plot(
            numbers, [s.cut_share for s in found], color=CURVE, marker="o", markersize=4, label="max-cut"
        )
        axes.axvline(phases.k, color=ACCENT, linewidth=1)
        axes.text(
            phases.k,
            0.02,
            f" k = {phases.k}",
            color=ACCENT,
            va="bottom",
            transform=axes.get_xaxis_transform(),
        )
        axes.set(xlabel="number of phases k", ylabel="share of dissimilarity cut", title=title)
        axes.set_xticks(layer_ticks(len(numbers)))
        axes.set_ylim(-0.02, 1.05)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.12), edgecolor="none", framealpha=1)
        return figure


def plot_stability(phases: Phases, *, unit: str, title: str) -> Figure:
    """How often each layer ends a phase over bootstrap samples, for k = 2 upward."""
    with paper_style():
        figure = new_figure(5.0, 3.2)
        axes = figure.subplots()
        if phases.frequency is None or len(phases.frequency) < 2:
            if phases.frequency is not None:
                why = "only one phase is possible"
            else:
                why = f"resampled: {unit}" if unit.startswith("none") else phases.k_rule
            axes.text(0.5, 0.5, why, ha="center", va="center", color=QUIET)
            axes.set_axis_off()
            axes.set_title(title)
            return figure
        shown = phases.frequency[1 : max(SHOWN_K, phases.k)]
        count, width = shown.shape
        image = axes.imshow(
            shown, cmap="Greys", vmin=0, vmax=1, aspect="auto", extent=(0.5, width + 0.5, count + 1.5, 1.5)
        )
        for k in range(2, count + 2):
            for layer in phases.segmentations[k].boundaries:
                share = phases.frequency[k - 1, layer - 1]
                chosen = k == phases.k
                axes.text(
                    layer,
                    k,
                    f"{share:.2f}".lstrip("0") if share < 1 else "1",
                    ha="center",
                    va="center",
                    fontsize=7,
                    fontweight="bold" if chosen else "normal",
                    color="white" if share > 0.5 else INK,
                )
        axes.axhspan(phases.k - 0.5, phases.k + 0.5, fill=False, edgecolor=ACCENT, linewidth=1.5)
        axes.set(xlabel="phase ends after layer", ylabel="number of phases k", title=title)
        axes.set_xticks(layer_ticks(width))
        axes.set_yticks(range(2, count + 2))
        figure.colorbar(image, ax=axes, label="bootstrap frequency")
        return figure
