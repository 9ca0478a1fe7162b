"""What the model's own head reads from every state, against its final answer and against labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from brdyn.plots.dynamics import draw_bands
from brdyn.plots.null import bands_of, draw_twins, twins_handles
from brdyn.plots.style import CURVE, INK, draw_band, head, layer_axis, legend_below, new_panels, paper_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.measures.null import Null
    from brdyn.phases import Phases

AGREEMENT, DECIDED, DIVERGENCE, ACCURACY = (f"readout_{name}" for name in ("agreement", "decided", "kl", "accuracy"))
PANELS = {
    "the final class": (AGREEMENT, DECIDED),
    "distance to the final answer": (DIVERGENCE,),
    "accuracy": (ACCURACY,),
}
AXES = {AGREEMENT: "share of images", DIVERGENCE: "KL(final || state) (nats)", ACCURACY: "accuracy"}
STYLES: dict[str, dict[str, Any]] = {DECIDED: {"linestyle": "--"}}


@paper_style()
def plot_readout(
    table: pd.DataFrame,
    phases: Phases,
    *,
    title: str,
    decided: tuple[float, float, float] | None = None,
    null: Null | None = None,
) -> Figure:
    """Agreement with the final class, divergence from the final answer and, where images have labels, accuracy.

    Parameters
    ----------
    table : DataFrame
        Of :class:`brdyn.measures.dynamics.Dynamics`, with the measure `readout`.
    phases : Phases
        Drawn as bands behind the curves.
    title : str
    decided : (float, float, float), optional
        Mean state from which on the class is the final one, and its interval: marked in the first panel. Of
        :func:`brdyn.measures.readout.deciding_state`.
    null : Null, optional
        Untrained twins, hatched behind the curves.

    Examples
    --------
    >>> from brdyn.plots import plot_readout
    >>> dynamics = brdyn.token_dynamics(model, images, phases, measures=["readout"])
    >>> [axes.get_title() for axes in plot_readout(dynamics.table, phases, title="a ViT").axes]
    ['the final class', 'distance to the final answer']
    """
    there = {heading: names for heading, names in PANELS.items() if table["statistic"].isin(names).any()}
    bands = bands_of(null, "dynamics", ["statistic", "group", "layer"])
    figure, panels = new_panels(len(there), 0.6 + 4.2 * len(there), 3.4)
    for axes, (heading, names) in zip(panels, there.items(), strict=True):
        draw_bands(axes, phases)
        for name in names:
            rows = table[table["statistic"] == name].sort_values("layer")
            look = STYLES.get(name, {"marker": "o", "markersize": 3.5})
            draw_band(axes, rows["layer"], rows, shade=0.2, color=CURVE, **look)
        draw_twins(axes, bands, "layer", CURVE, statistic=names[0])
        axes.set_title(heading)
        axes.set_ylabel(AXES[names[0]])
        layer_axis(axes, phases.layers, "state (0 is the embedding)", first=0)
        axes.set_ylim(bottom=0)
    handles = [
        Line2D([], [], color=CURVE, marker="o", markersize=3.5, label="class read from the state"),
        Line2D([], [], color=CURVE, linestyle="--", label="and the same from there on"),
        *_mark(figure.axes[0], decided),
        *twins_handles(null),
    ]
    head(figure, title)
    legend_below(figure, handles)
    return figure


def _mark(axes: Axes, decided: tuple[float, float, float] | None) -> list[Line2D | Patch]:
    """Mark the mean state that decides, with its interval; what stands for it in a legend."""
    if decided is None:
        return []
    mean, low, high = decided
    axes.axvspan(low, high, color=INK, alpha=0.15, linewidth=0, zorder=-1)
    axes.axvline(mean, color=INK, linestyle=":", linewidth=1.2)
    return [Line2D([], [], color=INK, linestyle=":", label=f"decided at state {mean:.1f} in the mean")]
