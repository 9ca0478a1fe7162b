"""Perturbation repair, and surgery on depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from brdyn.plots.dynamics import STYLES, draw_bands
from brdyn.plots.null import HATCH, bands_of, draw_twins, twins_handles
from brdyn.plots.phases import draw_matrix
from brdyn.plots.style import (
    INK,
    QUIET,
    depth_colours,
    draw_band,
    head,
    layer_axis,
    layer_ticks,
    legend_below,
    log_scale,
    look_of,
    new_figure,
    new_panels,
    paper_style,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.interventions import Repair, Surgery
    from brdyn.phases import Phases

CURVE_OF = ("target", "eps", "group")


def plot_final_angles(repair: Repair, phases: Phases, *, title: str) -> Figure:
    """What is left of the noise at the last layer, by the layer it was added at: a panel for each target.

    >>> from brdyn.plots import plot_final_angles
    >>> repair = brdyn.perturbation_repair(model, images, eps=[0.2], starts=[0, 6], targets=["cls"])
    >>> plot_final_angles(repair, phases, title="a ViT").axes[0].get_title()
    'noise on cls'
    """
    last = repair.angles["layer"].max()
    rows = repair.angles[(repair.angles["layer"] == last) & (repair.angles["mean"] > 0)]
    bands = bands_of(repair.null, "perturb", [*CURVE_OF, "layer", "start"])
    if bands is not None:
        bands = bands[(bands["layer"] == last) & (bands["low"] > 0)]
    return _by_start(repair, rows, bands, phases, "angle at the last layer (radians)", title, log=True)


def plot_growth(repair: Repair, phases: Phases, *, title: str) -> Figure:
    """Finite-time growth rate of the perturbed groups, by the layer the noise was added at.

    >>> from brdyn.plots import plot_growth
    >>> repair = brdyn.perturbation_repair(model, images, eps=[0.2], starts=[0, 6], targets=["cls"])
    >>> plot_growth(repair, phases, title="a ViT").axes[0].get_ylabel()
    'growth rate (per layer)'
    """
    bands = bands_of(repair.null, "growth", [*CURVE_OF, "start"])
    figure = _by_start(repair, repair.growth, bands, phases, "growth rate (per layer)", title, log=False)
    for axes in figure.axes:
        axes.axhline(0, color=QUIET, linewidth=0.8, linestyle=":")
    return figure


@paper_style()
def _by_start(
    repair: Repair,
    rows: pd.DataFrame,
    bands: pd.DataFrame | None,
    phases: Phases,
    label: str,
    title: str,
    *,
    log: bool,
) -> Figure:
    targets, groups = list(dict.fromkeys(rows["target"])), list(dict.fromkeys(repair.angles["group"]))
    sizes = sorted(rows["eps"].unique(), reverse=True)
    lines: list[dict[str, Any]] = [  # all styles, and again in paler colours
        {"linestyle": STYLES[place % len(STYLES)], "alpha": 1 / (1 + place // len(STYLES))}
        for place in range(len(sizes))
    ]
    figure, panels = new_panels(len(targets), 0.6 + 3.7 * max(1, len(targets)), 3.2, sharey=True)
    for axes, target in zip(panels, targets, strict=False):
        draw_bands(axes, phases)
        chosen = rows[rows["target"] == target]
        for eps, line in zip(sizes, lines, strict=True):
            for group, curve in chosen[chosen["eps"] == eps].groupby("group", sort=False):
                ordered = curve.sort_values("start")
                look = look_of(group, groups)
                if eps == sizes[0]:  # one band a curve is enough to see by
                    draw_twins(axes, bands, "start", look["color"], target=target, eps=eps, group=group)
                shade = 0.25 * line["alpha"]
                draw_band(axes, ordered["start"], ordered, shade=shade, **look, **line)
        axes.set_title(f"noise on {target}")
        layer_axis(axes, phases.layers, "noise added at layer (0: embedding)", first=0)
        if log:
            log_scale(axes)
    panels[0].set_ylabel(label)
    handles: list[Artist] = [
        Line2D([], [], label=group, **look_of(group, groups)) for group in dict.fromkeys(rows["group"])
    ]
    handles += [Line2D([], [], color=INK, label=f"eps {eps:g}", **line) for eps, line in zip(sizes, lines, strict=True)]
    for twins in twins_handles(repair.null):
        if len(sizes) > 1:
            twins.set_label(f"{twins.get_label()}, eps {sizes[0]:g}")
        handles.append(twins)
    panels[-1].legend(handles=handles, frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    head(figure, title)
    return figure


@paper_style()
def plot_repair(repair: Repair, phases: Phases, *, eps: float, title: str) -> Figure:
    """Angle to the clean state through depth, a curve for every start: rows are groups, columns what got the noise.

    >>> from brdyn.plots import plot_repair
    >>> repair = brdyn.perturbation_repair(model, images, eps=[0.2], starts=[0, 6], targets=["cls"])
    >>> plot_repair(repair, phases, eps=0.2, title="a ViT").axes[0].get_ylabel()
    'angle of cls (radians)'
    """
    rows = repair.angles[(repair.angles["eps"] == eps) & (repair.angles["mean"] > 0)]
    bands = bands_of(repair.null, "perturb", [*CURVE_OF, "start", "layer"])
    if bands is not None:
        bands = bands[bands["low"] > 0]
    targets, groups = list(dict.fromkeys(rows["target"])), list(dict.fromkeys(rows["group"]))
    colours = depth_colours()
    scale = mpl.colors.Normalize(0, phases.layers)
    figure = new_figure(0.9 + 3.3 * len(targets), 0.6 + 2.3 * len(groups))
    panels = figure.subplots(len(groups), len(targets), squeeze=False, sharex=True, sharey="row")
    for line, group in enumerate(groups):
        for column, target in enumerate(targets):
            axes = panels[line, column]
            draw_bands(axes, phases)
            chosen = rows[(rows["target"] == target) & (rows["group"] == group)]
            for start, curve in chosen.groupby("start"):
                colour, keys = (
                    colours(scale(float(start))),
                    {"target": target, "group": group, "start": start},
                )
                draw_twins(axes, bands, "layer", colour, eps=eps, **keys)
                axes.plot(
                    curve["layer"],
                    curve["mean"],
                    color=colour,
                    marker=".",
                    markersize=3,
                )
            log_scale(axes)
            axes.set_xticks([0, *layer_ticks(phases.layers)])
            if line == 0:
                axes.set_title(f"noise on {target}")
            if line == len(groups) - 1:
                axes.set_xlabel("layer (0 is the embedding)")
        panels[line, 0].set_ylabel(f"angle of {group} (radians)")
    mappable = mpl.cm.ScalarMappable(scale, colours)
    figure.colorbar(mappable, ax=panels.ravel().tolist(), label="noise added at layer", shrink=0.8)
    legend_below(figure, twins_handles(repair.null))
    head(figure, f"{title}, eps {eps:g}")
    return figure


@paper_style()
def plot_matrices(surgery: Surgery, kind: str, *, title: str) -> Figure:
    """Harm of swaps or replacements for all pairs of layers, a panel for each readout, phases framed.

    A layer in its own place does no harm: the diagonal is left out, so that colours are there for the pairs.

    Where the model has a classification head a further panel shows accuracy, or agreement without labels. Below, where
    there are untrained twins, the mean of theirs.

    >>> from brdyn.plots import plot_matrices
    >>> surgery = brdyn.layer_surgery(model, images, phases, kinds=["swap"])
    >>> [axes.get_title() for axes in plot_matrices(surgery, "swap", title="a ViT").axes[:2]]
    ['cls', 'patches']
    """
    shown = [(readout, "relative_error") for readout in surgery.readouts]
    if surgery.intact_accuracy is not None:
        shown.append(("head", "accuracy"))
    elif len(surgery.rows(kind, "head", "agreement")):
        shown.append(("head", "agreement"))
    twins = surgery.of_twins(kind)
    figure = new_figure(4.3 * len(shown), 3.9 * (1 if twins is None else 2))
    panels = figure.subplots(1 if twins is None else 2, len(shown), squeeze=False)
    below = [] if twins is None else [(axes, twins, *what) for axes, what in zip(panels[1], shown, strict=True)]
    for axes, source, readout, measure in [
        *((axes, surgery, *what) for axes, what in zip(panels[0], shown, strict=True)), *below
    ]:  # fmt: skip
        if source is twins and readout == "head":
            axes.axis("off")  # a twin's head has learnt nothing
            continue
        matrix = source.matrix(kind, readout, measure).astype(float)
        np.fill_diagonal(matrix, np.nan)
        good = measure != "relative_error"
        image = draw_matrix(axes, matrix, surgery.phases, cmap="viridis" if good else "viridis_r")
        label = measure.replace("_", " ")
        figure.colorbar(image, ax=axes, label=label, shrink=0.85)
        of_twins = f", {surgery.null.label}: mean" if source is twins and surgery.null is not None else ""
        intact = f" ({surgery.intact_accuracy:.2f} intact)" if measure == "accuracy" else ""
        axes.set_title((readout if not good else f"classification head{intact}") + of_twins)
        if kind == "replace":
            axes.set(xlabel="replaced by layer", ylabel="layer")
    head(figure, title)
    return figure


@paper_style()
def plot_layers(surgery: Surgery, *, title: str) -> Figure:
    """Harm of deleting each layer, and of shuffling phases against windows of their size across a boundary.

    >>> from brdyn.plots import plot_layers
    >>> surgery = brdyn.layer_surgery(model, images, phases, kinds=["delete"])
    >>> plot_layers(surgery, title="a ViT").axes[0].get_xlabel()
    'deleted layer'
    """
    kinds = set(surgery.table["kind"])
    headings = [name for name in ("delete", "shuffle") if any(kind.startswith(name) for kind in kinds)]
    width = 0.6 + 4.4 * max(1, len(headings)) + 2.2 * ("shuffle" in headings)
    figure, panels = new_panels(len(headings), width, 3.2)
    for axes, heading in zip(panels, headings, strict=False):
        (_draw_deletions if heading == "delete" else _draw_shuffles)(axes, surgery)
        axes.set_ylabel("relative error at the end")
        axes.set_ylim(bottom=0)
        beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if heading == "shuffle" else {}
        handles = [*axes.get_legend_handles_labels()[0], *twins_handles(surgery.null)]
        if heading == "shuffle":
            handles += [
                Line2D([], [], color=INK, linewidth=2, label="mean within"),
                Line2D([], [], color=QUIET, linewidth=2, label="mean across"),
            ]
        axes.legend(handles=handles, frameon=False, fontsize=7, **beside)
    head(figure, title)
    return figure


def _draw_deletions(axes: Axes, surgery: Surgery) -> None:
    draw_bands(axes, surgery.phases)
    bands = bands_of(surgery.null, "interventions", ["kind", "readout", "measure", "layers"])
    if bands is not None:
        bands = bands[bands["kind"] == "delete"]
        bands = bands.assign(layer=bands["layers"].astype(int))
    for readout in surgery.readouts:
        rows = surgery.rows("delete", readout)
        layers = [layers[0] for layers in rows["layers"]]
        look = look_of(readout, surgery.readouts)
        draw_twins(axes, bands, "layer", look["color"], readout=readout, measure="relative_error")
        draw_band(axes, layers, rows, label=readout, **look)
    axes.set_title("one layer deleted")
    layer_axis(axes, surgery.layers, "deleted layer")


def _draw_shuffles(axes: Axes, surgery: Surgery) -> None:
    shuffles = surgery.table[surgery.table["kind"].str.startswith("shuffle")]
    phases = sorted(shuffles["phase"].unique())
    for shift, readout in zip((-0.12, 0.12), surgery.readouts, strict=False):
        for kind, fill, offset in (("shuffle_within", True, -0.05), ("shuffle_across", False, 0.05)):
            rows = surgery.rows(kind, readout)
            places = np.array([phases.index(phase) for phase in rows["phase"]]) + shift + offset
            look = look_of(readout, surgery.readouts)
            colour = look["color"]
            label = f"{readout}, {'within the phase' if fill else 'as many layers across a boundary'}"
            axes.scatter(
                places, rows["mean"], s=16, marker=look["marker"], edgecolors=colour, label=label,
                facecolors=colour if fill else "none", linewidths=0.9, alpha=0.8,
            )  # fmt: skip
            for phase, low, high in _shuffled_twins(surgery, kind, readout):
                axes.add_patch(
                    Rectangle((phases.index(phase) + shift + offset - 0.05, low), 0.1, high - low, facecolor="none",
                              edgecolor=colour, hatch=HATCH, alpha=0.35, zorder=-1)
                )  # fmt: skip
            for phase, mean in rows.groupby("phase")["mean"].mean().items():
                middle = phases.index(phase) + shift + offset
                axes.plot([middle - 0.05, middle + 0.05], [mean, mean], color=INK if fill else QUIET, linewidth=2)
    intervals = surgery.phases.intervals
    axes.set_xticks(range(len(phases)), [f"{intervals[p - 1][0]}–{intervals[p - 1][1]}" for p in phases])
    axes.set_xlim(-0.5, max(len(phases), 1) - 0.5)
    axes.set_title("layers shuffled")
    axes.set_xlabel("phase (layers)")


def _shuffled_twins(surgery: Surgery, kind: str, readout: str) -> Iterator[tuple[int, float, float]]:
    """Of each phase, the least and the largest over twins of their mean error."""
    if not surgery.null:
        return
    rows = surgery.null.tables["interventions"].query(
        "kind == @kind and readout == @readout and measure == 'relative_error'"
    )
    means = rows.groupby(["phase", "twin"])["mean"].mean()
    for phase, of_phase in means.groupby(level="phase"):
        yield phase, float(of_phase.min()), float(of_phase.max())
