"""Pictures of several results of one kind: curves over relative depth in one panel, matrices on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from brdyn.interventions import Repair, Splice, Surgery
from brdyn.interventions.splice_cells import EXCHANGE
from brdyn.measures.dynamics import SILENT, Dynamics
from brdyn.phases import LayerSimilarity, Phases, segment
from brdyn.plots.dynamics import BEGUN_ANEW
from brdyn.plots.phases import side_by_side
from brdyn.plots.splice import exchanges
from brdyn.plots.style import GROUP_COLOURS, MARKERS, draw_band, new_figure, paper_style
from brdyn.probes import LayerProbe
from brdyn.raptor import Evaluation
from brdyn.result import Result

if TYPE_CHECKING:
    import pandas as pd

    from brdyn.comparison import Comparison

FIDELITY = {"r2": "R²", "relative_error": "relative error", "cosine": "cosine"}
LEGEND_ROW = 0.17  # inches
DEPTH = "relative depth (0: embedding, 1: last block)"
Panel = tuple[str, str, dict[str, "pd.DataFrame"]]  # heading, vertical axis, and for each run depth, mean, low, high


def draw_comparison(comparison: Comparison) -> dict[str, Figure]:
    """Every picture that there is of several results of one kind; none of some kinds.

    Parameters
    ----------
    comparison : Comparison

    Returns
    -------
    dict of str to Figure
        By the name that its file would have.

    Examples
    --------
    >>> comparison = brdyn.compare(phases, brdyn.segment(similarity, 3))
    >>> sorted(brdyn.plots.draw_comparison(comparison))
    ['similarity', 'steps']
    """
    named = {_named(name, result): result for name, result in comparison.results.items()}
    return _drawn(next(iter(named.values())), named)


def _named(name: str, result: Result) -> str:
    """With its model, where the name is a folder's, and how many images of which size it was measured on."""
    model = "" if result.title in name else f": {result.title}"
    return "\n".join(filter(None, (name + model, result.caption)))


@singledispatch
def _drawn(first: Result, results: Mapping[str, Result]) -> dict[str, Figure]:
    """By the kind of the first."""
    del first, results
    return {}


@_drawn.register
def _(first: LayerSimilarity, results: Mapping[str, LayerSimilarity]) -> dict[str, Figure]:
    del first
    parts = {name: (one.matrix, segment(one, 1)) for name, one in results.items()}
    kinds = dict.fromkeys(one.kind for one in results.values())
    return {"similarity": side_by_side(parts, f"{', '.join(kinds)} similarity", vmax=1)}


@_drawn.register
def _(first: Phases, results: Mapping[str, Phases]) -> dict[str, Figure]:
    del first
    known = {name: one for name, one in results.items() if one.similarity is not None}
    pictures = {}
    if known:
        matrices = {name: one.similarity.matrix for name, one in known.items() if one.similarity is not None}
        kinds = dict.fromkeys(one.similarity.kind for one in known.values() if one.similarity is not None)
        parts = {name: (matrix, known[name]) for name, matrix in matrices.items()}
        pictures["similarity"] = side_by_side(parts, f"{', '.join(kinds)} similarity", vmax=1)
        curves = {
            name: _curve(np.arange(1, len(one)), 1 - np.diagonal(one, 1), len(one)) for name, one in matrices.items()
        }
        pictures["steps"] = _panels([("", "step to the next layer (1 - similarity)", curves)], 1)
    return pictures


@_drawn.register
def _(first: Dynamics, results: Mapping[str, Dynamics]) -> dict[str, Figure]:
    del first
    pictures = {}
    for statistic in _of_any(one.statistics for one in results.values()):
        if statistic in SILENT:
            continue
        panels = []
        for group in _of_any(one.groups(statistic) for one in results.values()):
            curves = {}
            for name, one in results.items():
                rows = one.table[(one.table["statistic"] == statistic) & (one.table["group"] == group)]
                if len(rows):
                    shown = _without_ends(rows, one.phases) if statistic in BEGUN_ANEW else rows
                    curves[name], unit = _of_table(shown, one.phases.layers), str(rows["unit"].iloc[0])
            panels.append((group, unit, curves))
        pictures[statistic] = _panels(panels, len(panels))
    return pictures


@_drawn.register
def _(first: Repair, results: Mapping[str, Repair]) -> dict[str, Figure]:
    del first
    shared = set.intersection(*(set(one.growth["eps"]) for one in results.values())) - {0.0}
    if not shared:
        return {}
    eps = max(shared)
    panels = []
    targets, groups = (_of_any(one.growth[column] for one in results.values()) for column in ("target", "group"))
    for target in targets:
        for group in groups:
            curves = {}
            for name, one in results.items():
                rows = one.growth.query("eps == @eps and target == @target and group == @group").sort_values("start")
                if len(rows):
                    curves[name] = rows.assign(depth=rows["start"] / one.phases.layers)
            if curves:
                panels.append((f"noise of {eps:g} on {target}, {group}", "growth rate (per block)", curves))
    return {"growth": _panels(panels, min(3, len(panels)))} if panels else {}


@_drawn.register
def _(first: Surgery, results: Mapping[str, Surgery]) -> dict[str, Figure]:
    """Deletions for every readout, and swaps for that which most results have."""
    del first
    pictures = {}
    readouts = _of_any(one.readouts for one in results.values())
    in_order = [*GROUP_COLOURS, *sorted(readouts)]
    readout = max(in_order, key=lambda name: sum(name in one.readouts for one in results.values()))
    swapped = {
        name: (one.matrix("swap", readout), one.phases)
        for name, one in results.items()
        if readout in one.readouts and len(one.rows("swap", readout))
    }
    if swapped:
        pictures["swap"] = side_by_side(swapped, f"relative error of {readout}", cmap="magma", vmin=0, hollow=True)
    panels = []
    for readout in readouts:
        curves = {}
        for name, one in results.items():
            if readout in one.readouts and len(rows := one.rows("delete", readout)):
                depth = np.array([layers[0] for layers in rows["layers"]]) / one.layers
                curves[name] = rows.assign(depth=depth).sort_values("depth")
        if curves:
            panels.append((f"a block deleted, {readout}", "relative error", curves))
    if panels:
        pictures["delete"] = _panels(panels, len(panels))
    return pictures


@_drawn.register
def _(first: Splice, results: Mapping[str, Splice]) -> dict[str, Figure]:
    """What blocks do in the place of others, on one scale."""
    del first
    parts = {name: (one.exchanged(), one.phases) for name, one in results.items() if len(one.rows(EXCHANGE))}
    return {"exchange": exchanges(parts)} if parts else {}


@_drawn.register
def _(first: LayerProbe, results: Mapping[str, LayerProbe]) -> dict[str, Figure]:
    """Linear probes of each layer alone; a panel for each task, a curve for each model of a run."""
    del first
    panels: dict[str, Panel] = {}
    for name, one in results.items():
        rows = one.scores[(one.scores["score"] == one.main) & (one.scores["probe"] == "linear")]
        rows = rows[rows["place"].str.isdecimal()]
        for model, own in rows.groupby("model", sort=False):
            heading = f"{one.task}, linear probe of each layer"
            _, _, curves = panels.setdefault(one.task, (heading, one.words[one.main], {}))
            curve = own.assign(depth=own["place"].astype(int) / one.depth, mean=own["value"])
            curves[f"{name}\n{model}" if len(one.models) > 1 else name] = curve.sort_values("depth")
    return {"probe": _panels(list(panels.values()), len(panels))} if panels else {}


@_drawn.register
def _(first: Evaluation, results: Mapping[str, Evaluation]) -> dict[str, Figure]:
    del first
    panels = []
    for group in _of_any(one.fidelity.table["group"] for one in results.values()):
        for statistic, words in FIDELITY.items():
            curves = {}
            for name, one in results.items():
                table = one.fidelity.table
                rows = table[
                    (table["mode"] == "autoregressive") & (table["statistic"] == statistic) & (table["group"] == group)
                ]
                if len(rows):
                    rows = rows.sort_values("layer")
                    curves[name] = rows.assign(depth=rows["layer"] / rows["layer"].max())
            panels.append((f"{words}, {group}", f"{words}, autoregressive", curves))
    return {"fidelity": _panels(panels, len(FIDELITY))}


def _of_any(named: Iterable[Iterable[str]]) -> list[str]:
    """What any of several results has, each once, in the order of first appearance."""
    return list(dict.fromkeys(chain.from_iterable(named)))


def _without_ends(rows: pd.DataFrame, phases: Phases) -> pd.DataFrame:
    """A curve that breaks at the last layer of each phase, where it is 0 by definition."""
    ends = rows["layer"].isin([last for _, last in phases.intervals])
    return rows.assign(**{name: rows[name].mask(ends) for name in ("mean", "low", "high")})


def _of_table(rows: pd.DataFrame, layers: int) -> pd.DataFrame:
    """A curve with its relative depth: state l and update l lie at l / L, what is between two updates between them."""
    ordered = rows.sort_values("layer")
    shift = 0.0 if ordered["layer"].max() == layers else 0.5
    return ordered.assign(depth=(ordered["layer"] + shift) / layers)


def _curve(layers: np.ndarray, values: np.ndarray, depth: int) -> pd.DataFrame:
    """A curve without intervals."""
    import pandas as pd

    return pd.DataFrame({"depth": layers / depth, "mean": values, "low": values, "high": values})


@paper_style()
def _panels(panels: Sequence[Panel], columns: int) -> Figure:
    """Curves of all runs, a colour and a marker for each."""
    rows = -(-len(panels) // columns)
    names = list(dict.fromkeys(name for _, _, curves in panels for name in curves))
    colours = dict(zip(names, sns.color_palette("colorblind", max(1, len(names))), strict=False))
    markers = dict(zip(names, cycle(MARKERS), strict=False))
    figure = new_figure(0.6 + 3.8 * columns, 0.3 + 2.9 * rows + LEGEND_ROW * len(names))
    handles: dict[str, Any] = {}
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, (heading, label, curves) in zip(places, panels, strict=False):
        for name, curve in curves.items():
            handles[name] = draw_band(
                axes, curve["depth"], curve, shade=0.2, color=colours[name], marker=markers[name], markersize=3.5,
                label=name.replace("\n", ", "),
            )  # fmt: skip
        axes.set(title=heading, ylabel=label, xlabel=DEPTH, xlim=(-0.03, 1.03))
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=1, frameon=False, fontsize=8)
    return figure
