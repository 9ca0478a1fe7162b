"""Pictures of phases: similarity with the phases framed, steps against their trend, cut against a drift, stability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from brdyn.plots.style import (
    ACCENT,
    CURVE,
    MASKED,
    ON_IMAGE,
    QUIET,
    fitted,
    layer_ticks,
    log_scale,
    new_figure,
    new_panels,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from brdyn.phases import Evidence, Phases

SHOWN_K = 8
MATRIX = 3.6  # inches
NUMBERED = 20  # layers, beyond which a cell of the picture of stability is narrower than its number
MAP = "viridis"


@paper_style()
def plot_similarity(matrix: np.ndarray, phases: Phases, *, kind: str, title: str) -> Figure:
    """Heatmap of the similarity between layers with the chosen phases framed.

    Parameters
    ----------
    matrix : ndarray, shape (L, L)
    phases : Phases
    kind : str
        Name of the measure, for the colour bar.
    title : str

    Examples
    --------
    >>> from brdyn.plots import plot_similarity
    >>> figure = plot_similarity(similarity.matrix, phases, kind="cosine", title="a ViT")
    >>> figure.savefig("similarity.png")
    """
    figure = new_figure(4.6, 4.0)
    axes = figure.subplots()
    image = draw_similarity(axes, matrix, phases)
    figure.colorbar(image, ax=axes, label=f"{kind} similarity", shrink=0.85)
    axes.set_title(fitted(title, 4.0))
    return figure


def draw_similarity(axes: Axes, matrix: np.ndarray, phases: Phases) -> AxesImage:
    """Draw the heatmap into given axes and return the image, for panels of several models.

    >>> from brdyn.plots import draw_similarity
    >>> from matplotlib.figure import Figure
    >>> panels = Figure().subplots(1, 2)
    >>> for axes in panels:
    ...     image = draw_similarity(axes, similarity.matrix, phases)
    >>> image.get_clim()[1]
    1.0
    """
    return draw_matrix(axes, matrix, phases, vmin=min(0.0, float(matrix.min())), vmax=1)


def draw_matrix(axes: Axes, matrix: np.ndarray, phases: Phases, **scale: Any) -> AxesImage:
    """Draw numbers for pairs of layers with the phases framed, NaN in grey; `scale` is that of matplotlib's `imshow`.

    >>> from brdyn.plots import draw_matrix
    >>> from matplotlib.figure import Figure
    >>> image = draw_matrix(Figure().subplots(), 1 - similarity.matrix, phases, cmap="viridis_r", vmin=0)
    >>> image.get_array().shape
    (12, 12)
    """
    from matplotlib.patches import Rectangle

    scale["cmap"] = mpl.colormaps.get_cmap(scale.get("cmap", MAP)).with_extremes(bad=MASKED)
    layers = len(matrix)
    edge = layers + 0.5
    image = axes.imshow(matrix, **scale, extent=(0.5, edge, edge, 0.5), interpolation="nearest")
    for first, last in phases.intervals:
        side = last - first + 1
        for colour, width in (("white", 3), (ON_IMAGE, 1.2)):
            corner = (first - 0.5, first - 0.5)
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=width))
    axes.set(xlabel="layer", ylabel="layer", xticks=layer_ticks(layers), yticks=layer_ticks(layers))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=2)
    return image


@paper_style()
def side_by_side(
    parts: Mapping[str, tuple[np.ndarray, Phases]], label: str, *, hollow: bool = False,
    row: str = "layer", column: str = "layer", **scale: Any,
) -> Figure:  # fmt: skip
    """Matrices side by side on one scale; a diagonal that is 0 by definition left hollow."""
    shown = {name: (_hollow(matrix) if hollow else matrix, phases) for name, (matrix, phases) in parts.items()}
    least = min(float(np.nanmin(matrix)) for matrix, _ in shown.values())
    most = max(float(np.nanmax(matrix)) for matrix, _ in shown.values())
    scale = {"vmin": min(0.0, least), "vmax": most, **scale}
    figure, panels = new_panels(len(shown), 0.8 + MATRIX * len(shown), 4.0)
    for axes, (name, (matrix, phases)) in zip(panels, shown.items(), strict=True):
        image = draw_matrix(axes, matrix, phases, **scale)
        axes.set_title(fitted(name, MATRIX))
        axes.set(xlabel=column, ylabel=row)
    beyond = "max" if most > scale["vmax"] else "neither"
    figure.colorbar(image, ax=panels, label=label, shrink=0.85, extend=beyond)
    return figure


def _hollow(matrix: np.ndarray) -> np.ndarray:
    found = matrix.astype(float).copy()
    np.fill_diagonal(found, np.nan)
    return found


@paper_style()
def plot_gain_curve(phases: Phases, *, title: str) -> Figure:
    """What the best k phases cut beyond a structureless drift, in points of the dissimilarity, against k.

    The drift has the same mean dissimilarity at every distance; zero is what it would be cut by.

    >>> from brdyn.plots import plot_gain_curve
    >>> plot_gain_curve(phases, title="a ViT").axes[0].get_xlabel()
    'number of phases k'
    """
    figure = new_figure(4.6, 3.2)
    axes = figure.subplots()
    numbers = sorted(phases.segmentations)
    excess = [100 * (one.cut_share - one.drift_share) for one in (phases.segmentations[k] for k in numbers)]
    axes.axhline(0, color=QUIET, linestyle=":", label="a drift with the same mean at every distance")
    axes.plot(numbers, excess, color=CURVE, marker="o", markersize=4, label="max-cut")
    axes.axvline(phases.k, color=ACCENT, linewidth=1, linestyle="--")
    axes.text(
        phases.k,
        0.02,
        f" k = {phases.k}",
        color=ACCENT,
        va="bottom",
        transform=axes.get_xaxis_transform(),
    )
    axes.set(xlabel="number of phases k", ylabel="cut beyond a drift (points)", title=fitted(title, 4.4))
    axes.set_xticks(layer_ticks(len(numbers)))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


@paper_style()
def plot_steps(evidence: Evidence, *, title: str) -> Figure:
    """Steps between layers, their trend with the band a boundary has to leave, and the boundaries accepted.

    Parameters
    ----------
    evidence : Evidence
    title : str

    Examples
    --------
    >>> from brdyn.phases import phase_evidence
    >>> from brdyn.plots import plot_steps
    >>> depth = np.array([0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20])
    >>> evidence = phase_evidence(1 - np.exp(-abs(depth[:, None] - depth) / 20))
    >>> plot_steps(evidence, title="a drift with a jump").axes[0].get_title()
    'a drift with a jump'
    """
    figure = new_figure(5.0, 3.2)
    axes = figure.subplots()
    axes.set_title(fitted(title, 4.6))
    draw_steps(axes, evidence)
    if not evidence.untested:
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def draw_steps(axes: Axes, evidence: Evidence) -> None:
    """Draw the steps into given axes, for panels of several models.

    >>> from brdyn.phases import phase_evidence
    >>> from brdyn.plots import draw_steps
    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> draw_steps(axes, phase_evidence(1 - similarity.matrix))
    >>> axes.get_yscale()
    'log'
    """
    if evidence.untested:
        axes.text(0.5, 0.5, f"not tested: {evidence.untested}", ha="center", va="center", color=QUIET)
        axes.set_axis_off()
        return
    places = np.arange(1, len(evidence.steps) + 1)
    lower = evidence.trend**2 / evidence.limit
    axes.fill_between(places, lower, evidence.limit, color=QUIET, alpha=0.2, linewidth=0, label="drift")
    axes.plot(places, evidence.trend, color=QUIET, linestyle="--", label="trend")
    axes.plot(places, evidence.steps, color=CURVE, marker="o", markersize=4, label="step")
    if evidence.boundaries:
        layers = np.array(evidence.layers)
        axes.plot(layers, evidence.steps[layers - 1], "D", color=ACCENT, markersize=7, label="boundary")
    assert evidence.largest is not None
    place = evidence.largest.layer
    axes.annotate(
        f"p = {evidence.largest.p:.2g}",
        (place, evidence.steps[place - 1]),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )
    log_scale(axes)
    axes.set(xlabel="step after layer", ylabel="step in dissimilarity")
    axes.set_xticks(layer_ticks(len(evidence.steps)))
    axes.margins(y=0.15)


@paper_style()
def plot_stability(phases: Phases, *, unit: str, title: str) -> Figure:
    """How often each layer ends a phase over bootstrap samples, for k = 2 upward; the axis says where it ends early.

    >>> from brdyn.plots import plot_stability
    >>> plot_stability(phases, unit=similarity.unit, title="a ViT").axes[0].get_xlabel()
    'phase ends after layer'
    """
    figure = new_figure(5.0, 3.2)
    axes = figure.subplots()
    if phases.frequency is None or len(phases.frequency) < 2:
        if phases.frequency is not None:
            why = "only one phase is possible"
        else:
            why = f"resampled: {unit}" if unit.startswith("none") else phases.k_rule
        axes.text(0.5, 0.5, why, ha="center", va="center", color=QUIET)
        axes.set_axis_off()
        axes.set_title(fitted(title, 4.6))
        return figure
    shown = phases.frequency[1 : max(SHOWN_K, phases.k)]
    count, width = shown.shape
    image = axes.imshow(shown, cmap="Greys", vmin=0, vmax=1, aspect="auto", extent=(0.5, width + 0.5, count + 1.5, 1.5))
    for k in range(2, count + 2 if width <= NUMBERED else 2):
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
                color="white" if share > 0.5 else ON_IMAGE,
            )
    for colour, width_of in (("white", 4), (ON_IMAGE, 1.5)):  # seen on black, and on white
        axes.axhspan(phases.k - 0.5, phases.k + 0.5, fill=False, edgecolor=colour, linewidth=width_of)
    largest = len(phases.frequency)
    more = f" (of up to {largest})" if count + 1 < largest else ""
    axes.set(xlabel="phase ends after layer", ylabel=f"number of phases k{more}", title=fitted(title, 4.4))
    axes.set_xticks(layer_ticks(width))
    axes.set_yticks(range(2, count + 2))
    figure.colorbar(image, ax=axes, label="bootstrap frequency")
    return figure
