"""Pictures of splicing: skill of each surrogate for each span, whose work a block does, and what calibration buys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from brdyn.interventions.span_maps import FITTED
from brdyn.interventions.splice_cells import IDENTITY
from brdyn.interventions.splice_result import WORDS
from brdyn.interventions.splice_sums import R2, SKILL
from brdyn.plots.beyond import LOWEST, mark_beyond
from brdyn.plots.phases import draw_matrix, side_by_side
from brdyn.plots.style import (
    MARKERS,
    QUIET,
    draw_band,
    head,
    legend_below,
    new_figure,
    ordered_colours,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from brdyn.interventions import Splice
    from brdyn.phases import Phases

COLUMNS = 3
LABELS = {SKILL: "skill over doing nothing", R2: "R² at the last layer"}
AROUND_ZERO = "RdBu"


@paper_style()
def plot_spans(splice: Splice, measure: str, *, title: str) -> Figure:
    """Skill or R² of every span, a panel for each surrogate, phases framed: row s + 1, column e.

    Skill of the identity, which is 0, has no panel.

    >>> from brdyn.plots import plot_spans
    >>> found = brdyn.splice_skill(model, images, phases, surrogates=["mean"], spans=[(0, 2), (4, 8)])
    >>> [axes.get_title() for axes in plot_spans(found, "r2", title="a ViT").axes[:2]]
    ['doing nothing', 'the mean update']
    """
    shown = [name for name in splice.spanning if not (measure == SKILL and name == IDENTITY)]
    lines = max(1, -(-len(shown) // COLUMNS))
    figure = new_figure(3.3 * min(COLUMNS, max(1, len(shown))) + 0.9, 3.2 * lines)
    panels = figure.subplots(lines, min(COLUMNS, max(1, len(shown))), squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.axis("off")
    image, below = None, False
    for axes, name in zip(panels, shown, strict=False):
        matrix = splice.matrix(name, measure)
        below |= bool((matrix < LOWEST).any())
        image = draw_matrix(axes, matrix, splice.phases, cmap=AROUND_ZERO, vmin=LOWEST, vmax=1)
        axes.set_title(WORDS[name])
        axes.set(xlabel="last block replaced, e", ylabel="first block replaced, s + 1")
    if image is not None:
        figure.colorbar(
            image, ax=list(panels), label=LABELS[measure], shrink=0.85 / lines + 0.1,
            extend="min" if below else "neither",
        )  # fmt: skip
    head(figure, title)
    return figure


@paper_style()
def plot_exchange(splice: Splice, *, title: str) -> Figure:
    """Error of layer m's block in the place of layer l's over that of doing nothing, phases framed.

    Below 1 it does some of the work, and above more harm than leaving the layer out. Where there are untrained twins
    the mean of theirs stands beside it.

    >>> from brdyn.plots import plot_exchange
    >>> found = brdyn.splice_skill(model, images, phases, surrogates=["exchange"], spans=[(0, 12)])
    >>> plot_exchange(found, title="a ViT").axes[0].get_xlabel()
    'by the block of layer'
    """
    matrices = {"": (splice.exchanged(), splice.phases)}
    if (twins := splice.of_twins()) is not None and splice.null is not None:
        matrices[f"{splice.null.label}: mean"] = twins.exchanged(), splice.phases
    figure = exchanges(matrices)
    head(figure, title)
    return figure


def exchanges(matrices: Mapping[str, tuple[np.ndarray, Phases]]) -> Figure:
    """What blocks do in the place of others, in several models, on one scale about 1."""
    return side_by_side(
        matrices, "error over that of doing nothing", row="replaced layer", column="by the block of layer",
        cmap=f"{AROUND_ZERO}_r", vmin=0, vmax=2,
    )  # fmt: skip


@paper_style()
def plot_calibration(splice: Splice, *, title: str) -> Figure:
    """R² of whole phases by the number of images that maps were fitted to, a panel for each phase.

    What is not fitted is a dashed line across. Where values lie below -1 there are arrows on the lower edge.

    >>> from brdyn.plots import plot_calibration
    >>> found = brdyn.splice_skill(model, images, phases, surrogates=["mean"], spans=[(0, 12)])
    >>> plot_calibration(found, title="a ViT").axes[0].get_xlabel()
    'images fitted to'
    """
    rows = splice.whole_phases(R2)
    intervals = splice.phases.intervals
    names = [name for name in splice.spanning if (rows["surrogate"] == name).any()]
    looks = {
        name: (colour, marker)
        for name, colour, marker in zip(names, ordered_colours(len(names)), MARKERS, strict=False)
    }
    fitted = sorted(set(rows["calibration"]) - {0})
    bottom = LOWEST if (rows["low"] < 0).any() else 0
    columns = min(4, len(intervals))
    lines = -(-len(intervals) // columns)
    figure = new_figure(0.9 + 2.6 * columns, 0.8 + 2.4 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for axes in panels[len(intervals) :]:
        axes.axis("off")
    for number, (axes, (first, last)) in enumerate(zip(panels, intervals, strict=False), 1):
        for name, (colour, marker) in looks.items():
            curve = rows[(rows["surrogate"] == name) & (rows["phase"] == number)].sort_values("calibration")
            if not len(curve):
                continue
            flat = not curve["calibration"].any()
            x = fitted if flat else curve["calibration"]
            ends = {end: np.broadcast_to(curve[end].to_numpy(), len(x)) for end in ("low", "mean", "high")}
            draw_band(
                axes, x, ends, shade=0.2, color=colour, markersize=4, marker="none" if flat else marker,
                linestyle="--" if flat else "-",
            )  # fmt: skip
            mark_beyond(axes, x, ends["mean"], LOWEST, colour, name)
        axes.axhline(0, color=QUIET, linewidth=0.8, linestyle=":")
        axes.set_ylim(bottom, 1.05)
        axes.set_xscale("log")
        axes.set_xticks(fitted, [str(count) for count in fitted])
        axes.minorticks_off()
        axes.set_title(f"blocks {first}–{last}" if last > first else f"block {first}")
        axes.set_xlabel("images fitted to")
    for axes in panels[::columns]:
        axes.set_ylabel(LABELS[R2])
    legend_below(figure, [
        Line2D(
            [], [], color=colour, markersize=4, label=WORDS[name], marker=marker if name in FITTED else "none",
            linestyle="-" if name in FITTED else "--",
        )
        for name, (colour, marker) in looks.items()
    ])  # fmt: skip
    head(figure, title)
    return figure
