"""Dynamic mode decomposition: errors ahead over depth, and the spectra of the operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from brdyn.plots.beyond import mark_beyond, say_beyond
from brdyn.plots.dynamics import draw_bands
from brdyn.plots.null import bands_of, draw_twins, twins_handles
from brdyn.plots.style import (
    CURVE,
    INK,
    QUIET,
    draw_band,
    head,
    layer_axis,
    legend_below,
    look_of,
    new_panels,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from brdyn.measures.found_modes import Modes
    from brdyn.measures.null import Null
    from brdyn.phases import Phases

MOST_ERROR = 2.5  # the axis goes no further up: 1 is no better than the mean state
MOST_MODULUS = 3.0  # and here no further out: 1 neither grows nor shrinks
LOOKS: dict[str, dict[str, Any]] = {
    "mean": {"color": QUIET, "linestyle": "-.", "label": "mean state"},
    "identity": {"color": QUIET, "linestyle": ":", "marker": "s", "label": "identity"},
    "endpoint": {"color": CURVE, "linestyle": "--", "marker": "^", "label": "endpoint map"},
    "operator": {"color": INK, "linestyle": "-", "marker": "o", "label": "one operator"},
}


@paper_style()
def plot_mode_errors(modes: Modes, phases: Phases, *, title: str, null: Null | None = None) -> Figure:
    """Relative error at every layer of the prediction from the state that enters its phase, by token group.

    Beside it that of the mean state, which is 1 where states are centred. Underdetermined groups are marked, and what
    one operator does for untrained twins is hatched.

    >>> from brdyn.plots import plot_mode_errors
    >>> modes = brdyn.token_dynamics(model, images, phases, measures=["modes"]).modes
    >>> print(plot_mode_errors(modes, phases, title="a ViT").axes[0].get_title())
    cls
    underdetermined: 7 rows for 192 directions
    """
    rows = modes.errors[modes.errors["measure"] == "relative_error"]
    groups = list(dict.fromkeys(rows["group"]))
    marks = modes.underdetermined
    starts = [first - 1 for first, _ in phases.intervals]
    bands = bands_of(null, "modes", ["measure", "group", "predictor", "phase", "steps"])
    if bands is not None:
        bands = bands.assign(layer=bands["steps"] + [starts[phase - 1] for phase in bands["phase"]])
    figure, panels = new_panels(len(groups), 0.6 + 4.2 * len(groups), 3.6, sharey=True)
    for axes, group in zip(panels, groups, strict=True):
        draw_bands(axes, phases)
        beyond = []
        for predictor in [name for name in LOOKS if name in set(rows["predictor"])]:
            look = LOOKS[predictor]
            for phase, start in enumerate(starts, 1):
                part = rows[
                    (rows["group"] == group) & (rows["predictor"] == predictor) & (rows["phase"] == phase)
                ].sort_values("steps")
                layers = start + part["steps"]
                if predictor == "operator":
                    keys = {
                        "measure": "relative_error",
                        "group": group,
                        "predictor": predictor,
                        "phase": phase,
                    }
                    draw_twins(axes, bands, "layer", look["color"], **keys)
                label = look["label"] if phase == 1 else None
                draw_band(axes, layers, part, markersize=3.5, **{**look, "label": label})
                name = f"{look['label']}, phase {phase}"
                beyond += mark_beyond(axes, layers, part["mean"], MOST_ERROR, look["color"], name, above=True)
        axes.set_title(group + (f"\n{marks[group]}" if group in marks else ""))
        say_beyond(axes, beyond)
        layer_axis(axes, phases.layers, "layer, predicted from the start of its phase")
    figure.axes[0].set_ylim(0, min(figure.axes[0].get_ylim()[1], MOST_ERROR))
    figure.axes[0].set_ylabel(
        f"relative error of {'centred' if modes.centred else 'uncentred'} states,\nheld-out images"
    )
    handles = figure.axes[0].get_legend_handles_labels()[0]
    legend_below(figure, [*handles, *twins_handles(null)])
    head(figure, title)
    return figure


@paper_style()
def plot_spectra(modes: Modes, phases: Phases, *, title: str) -> Figure:
    """Eigenvalues of the operator of each phase in the complex plane, with the unit circle, all on the same axes.

    How many lie outside them, and how far, is written into the panel.

    >>> from brdyn.plots import plot_spectra
    >>> modes = brdyn.token_dynamics(model, images, phases, measures=["modes"]).modes
    >>> len(plot_spectra(modes, phases, title="a ViT").axes) == phases.k
    True
    """
    turn = np.linspace(0, 2 * np.pi, 200)
    figure, panels = new_panels(phases.k, 0.4 + 2.6 * phases.k, 3.7, sharex=True, sharey=True)
    size = min(MOST_MODULUS, 1.1 * max(1.0, float(modes.spectrum["modulus"].quantile(0.99))))
    for phase, (axes, (first, last)) in enumerate(zip(panels, phases.intervals, strict=True), 1):
        axes.plot(np.cos(turn), np.sin(turn), color=QUIET, linewidth=0.8)
        own = modes.spectrum[modes.spectrum["phase"] == phase]
        for group, part in own.groupby("group", sort=False):
            look = look_of(group, modes.errors["group"])
            axes.scatter(
                part["real"], part["imaginary"], s=7, alpha=0.5, linewidths=0, color=look["color"], label=group,
                marker=look["marker"],
            )  # fmt: skip
        outside = own[own[["real", "imaginary"]].abs().max(axis=1) > size]
        if len(outside):
            furthest = outside["modulus"].max()
            axes.text(
                0.02, 0.02, f"{len(outside)} outside, up to {furthest:.1f} from 0", transform=axes.transAxes,
                fontsize=7,
            )  # fmt: skip
        axes.set_title(f"layers {first}–{last}" if last > first else f"layer {first}")
        axes.set_xlabel("real part")
        axes.set_aspect("equal")
        axes.set_xlim(-size, size)
        axes.set_ylim(-size, size)
    panels[0].set_ylabel("imaginary part")
    legend_below(figure, panels[0].get_legend_handles_labels()[0], markerscale=2.5)
    head(figure, title)
    return figure
