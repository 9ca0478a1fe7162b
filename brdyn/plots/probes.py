"""Pictures of probes: a score by layer, and what heads say of test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from brdyn.plots.style import (
    ACCENT,
    CURVE,
    INK,
    QUIET,
    distinct_colours,
    draw_interval,
    fitted,
    head,
    layer_ticks,
    legend_below,
    new_figure,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.probes import LayerProbe

COLOURS = (CURVE, ACCENT, "#009E73", "#CC79A7")
PANEL, AROUND, BAR, LEGEND_ROW = 1.9, 1.1, 0.8, 0.15
"""Inches: the width of an example, the height of heading and legend, the width of a bar of colours, a line more."""
TAB, GREYS = 20, (14, 15)
"""Colours of matplotlib's list of most, and its greys, which are of void; of more classes than the others they are
spread over the circle of hues."""
VOID, VOID_COLOUR = -1, "#9E9E9E"
STYLES = {"linear": "-", "ridge": "--", "knn": ":"}
BLIND = {  # in few words, of brdyn.probes.baselines.NAMES
    "classification": "most frequent class",
    "segmentation": "most frequent class",
    "depth": "mean training depth",
}
EXTEND = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
WORST_TO_BEST = ("worst", "median", "best")


@paper_style()
def plot_layer_scores(found: LayerProbe, *, title: str) -> Figure:
    """The main score by layer with its interval over test images; phases are marked where they were given.

    Sets of layers that were read together are drawn as lines across, and so is, dashed, what knowing nothing of an
    image gets.

    Parameters
    ----------
    found : LayerProbe
    title : str

    Examples
    --------
    >>> from brdyn.plots import plot_layer_scores
    >>> from brdyn.probes import probe_layers
    >>> probed = probe_layers(model, *images.split(2, seed=0), layers="3,12", seeds=1)
    >>> plot_layer_scores(probed, title="a ViT").axes[0].get_xlabel()
    'layer'
    """
    figure = new_figure(5.0, 3.4)
    axes = figure.subplots()
    draw_layer_scores(axes, found)
    axes.set_title(fitted(title, figure.get_figwidth()))
    legend_below(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_layer_scores(axes: Axes, found: LayerProbe) -> None:
    """Draw the scores into given axes, for panels of several models or tasks.

    >>> from brdyn.plots import draw_layer_scores
    >>> from brdyn.probes import probe_layers
    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> draw_layer_scores(axes, probe_layers(model, *images.split(2, seed=0), layers="3,12", seeds=1))
    >>> len(axes.get_lines())  # k-NN, linear, and the most frequent class
    3
    """
    rows = found.scores[found.scores["score"] == found.main]
    single = rows[~rows["place"].str.contains("+", regex=False)]
    layers = sorted({int(place) for place in single["place"]})
    colours = dict(zip(found.models, distinct_colours(COLOURS, len(found.models)), strict=True))
    for (model, probe), own in single.groupby(["model", "probe"], sort=False):
        colour = colours[str(model)]
        places = own["place"].astype(int)
        name = f"{model}, {probe}" if len(found.models) > 1 else str(probe)
        axes.plot(
            places,
            own["value"],
            STYLES.get(str(probe), "-"),
            color=colour,
            marker="o",
            markersize=3,
            label=name,
        )
        if probe == "linear":
            draw_interval(axes, places, own["low"], own["high"], color=colour, shade=0.2)
    joined = rows[rows["place"].str.contains("+", regex=False) & (rows["probe"] == "linear")]
    named = {
        place: ", ".join(label for label, own in found.sets.items() if own == place) for place in found.sets.values()
    }
    for number, row in enumerate(joined.to_dict(orient="records")):
        axes.axhline(
            row["value"], color=QUIET, linewidth=1, linestyle=(0, (2 + 2 * number, 2)),
            label=f"{named.get(row['place'], 'layers')}: {row['place']}",
        )  # fmt: skip
    for row in found.baseline[found.baseline["score"] == found.main].to_dict(orient="records"):
        axes.axhline(row["value"], color=INK, linewidth=1, linestyle="--", label=BLIND[found.task])
    for end in found.ends or ():
        axes.axvline(end + 0.5, color=INK, linewidth=0.8, alpha=0.5)
    shown = [layer for layer in layers if layer in {0, *layer_ticks(max(layers))}] or layers
    axes.set(xlabel="layer", ylabel=found.words[found.main], xticks=shown)


@paper_style()
def plot_examples(found: LayerProbe, *, title: str) -> Figure:
    """The worst, the middle and the best test image: image, truth, and what each model says. What is void is grey.

    Parameters
    ----------
    found : LayerProbe
        Of segmentation or depth.
    title : str

    Examples
    --------
    >>> from brdyn.data import load_dense
    >>> from brdyn.plots import plot_examples
    >>> from brdyn.probes import Recipe, probe_layers
    >>> pairs = load_dense("streets", model, "segmentation").split(1, seed=0)
    >>> probed = probe_layers(model, *pairs, layers="last", seeds=1, recipe=Recipe(epochs=1))
    >>> [axes.get_title() for axes in plot_examples(probed, title="a ViT").axes[:2]]
    ['image', 'truth']
    """
    examples = found.examples
    models = [model for model in found.models if f"said {model}" in examples]
    truth = examples["truth"]
    maps = [_known(found, examples[name]) for name in ("truth", *(f"said {model}" for model in models))]
    how = _colours(found, maps)
    tall = PANEL * truth.shape[1] / truth.shape[2]
    beside = BAR if found.task == "depth" else 0.0
    figure = new_figure(PANEL * (2 + len(models)) + beside, tall * len(truth) + AROUND)
    panels = figure.subplots(len(truth), 2 + len(models), squeeze=False)
    for row, score in enumerate(examples["score"]):
        name = WORST_TO_BEST[row] if len(truth) == len(WORST_TO_BEST) else ""
        panels[row, 0].imshow(examples["image"][row])
        panels[row, 0].set_ylabel(f"{name} {float(score):.2f}".strip())
        for column, one in enumerate(maps, start=1):
            image = panels[row, column].imshow(one[row], interpolation="nearest", **how)
    for column, heading in enumerate(["image", "truth", *models]):
        panels[0, column].set_title(fitted(heading, PANEL))
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
    if found.task == "depth":
        said = np.ma.stack(maps[1:])
        beyond = (bool((said < how["vmin"]).any()), bool((said > how["vmax"]).any()))
        figure.colorbar(image, ax=panels[:, -1].tolist(), label="depth (m)", shrink=0.6, extend=EXTEND[beyond])
    else:
        _name_classes(figure, found, how, maps)
    head(figure, title)
    return figure


def _known(found: LayerProbe, maps: np.ndarray) -> np.ma.MaskedArray:
    """Without pixels that have no truth, and those that heads give the number of void."""
    if found.task == "depth":
        return np.ma.masked_less_equal(maps, 0)
    ignored = found.images.get("train", {}).get("targets", {}).get("ignore")
    return np.ma.masked_where((maps == VOID) | (maps == (VOID if ignored is None else ignored)), maps)


def _colours(found: LayerProbe, maps: Sequence[np.ma.MaskedArray]) -> dict[str, Any]:
    """For the truth, which is the first, and what models say; every class that is to be seen has its own."""
    import matplotlib as mpl
    import seaborn as sns

    if found.task == "depth":
        return {"cmap": "viridis_r", "vmin": float(maps[0].min()), "vmax": float(maps[0].max())}
    classes = max(1, found.classes["class"].nunique())
    seen = _seen(maps)
    colours = np.ones((classes, 3))
    plain = np.delete(sns.color_palette("tab20", TAB), GREYS, axis=0)
    colours[seen] = plain[: len(seen)] if len(seen) <= len(plain) else sns.color_palette("husl", len(seen))
    cmap = mpl.colors.ListedColormap(colours).with_extremes(bad=VOID_COLOUR)
    return {"cmap": cmap, "vmin": -0.5, "vmax": classes - 0.5}


def _name_classes(figure: Figure, found: LayerProbe, how: dict[str, Any], maps: Sequence[np.ma.MaskedArray]) -> None:
    """A legend of the classes that are to be seen, and of void."""
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(found.classes["class"]))
    patches = [Patch(color=how["cmap"](int(number)), label=names[int(number)]) for number in _seen(maps)]
    if any(np.ma.is_masked(one) for one in maps):
        patches.append(Patch(color=VOID_COLOUR, label="void"))
    more = legend_below(figure, patches) - 1
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * more)


def _seen(maps: Sequence[np.ma.MaskedArray]) -> np.ndarray:
    """The classes in maps."""
    return np.unique(np.concatenate([one.compressed() for one in maps]))
