"""How a Raptor was fitted, and how faithful it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, cycle
from typing import TYPE_CHECKING

from brdyn.plots.beyond import LOWEST, mark_beyond, say_beyond
from brdyn.plots.style import (
    ACCENT,
    CURVE,
    INK,
    MARKERS,
    QUIET,
    distinct_colours,
    draw_band,
    head,
    layer_ticks,
    legend_below,
    log_scale,
    look_of,
    marks_every,
    new_figure,
    new_panels,
    ordered_colours,
    paper_style,
)
from brdyn.raptor.recipe import BATCH, PUBLISHED_STEPS, SKILL, watched_as

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brdyn.raptor.model import Span
    from brdyn.training import History


MARGIN = 0.05
SHOWN = {"r2": "R²", "relative_error": "relative error", "cosine": "cosine"}
SKILLS = {
    "skill_identity": "skill over the identity",
    "skill_mean_update": "skill over the mean update",
    "skill_affine": "skill over one affine map",
}


@paper_style()
def plot_fit(
    histories: Mapping[int, History],
    *,
    title: str,
    watched: str = "R² and skill over doing nothing, validation images",
    batch_size: int | None = None,
) -> Figure:
    """Loss of every part, and what was watched in validation (skill dashed), over the steps of each stage, or with a
    `batch_size` over the images that a stage saw.

    What was written down once is no curve: it is a row of bars with their values.

    >>> from brdyn.plots import plot_fit
    >>> from brdyn.training import History
    >>> losses = [{"step": step, "lr": 1e-3, "block 1": 1 / step} for step in (20.0, 40.0)]
    >>> figure = plot_fit({1: History(losses)}, title="a Raptor")
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.05, 0.025]
    """
    figure = new_figure(0.8 + 5.2 * len(histories), 5.2)
    panels = figure.subplots(2, len(histories), squeeze=False)
    for column, (stage, history) in enumerate(histories.items()):
        for axes, rows, what in (
            (panels[0, column], history.losses, "loss"),
            (panels[1, column], history.validation, watched),
        ):
            if len(rows) == 1:
                _draw_bars(axes, rows, what)
            else:
                _draw_course(axes, rows, what, batch_size)
            if len(rows) > 1:
                last = max(row["step"] for row in history.losses + history.validation)
                axes.set_xlim(0, 1.03 * last * (batch_size or 1))
                if column == 0:
                    axes.set_ylabel(what.replace(", ", ",\n"))
        if len(histories) > 1:
            panels[0, column].set_title(f"stage {stage}")
        if len(history.losses) > 1 and all(value > 0 for row in history.losses for value in row.values()):
            log_scale(panels[0, column])
    head(figure, title)
    return figure


def _names(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """What rows hold besides their step and its learning rate."""
    return [name for name in (rows[0] if rows else {}) if name not in ("step", "lr")]


def _draw_course(axes: Axes, rows: Sequence[Mapping[str, float]], what: str, batch_size: int | None = None) -> None:
    """A curve for each name, that of its skill dashed."""
    there = _names(rows)
    names = [name for name in there if not name.startswith(SKILL)]
    steps = [row["step"] * (batch_size or 1) for row in rows]
    for name, colour, sign in zip(names, ordered_colours(len(names)), cycle(MARKERS), strict=False):
        skill = SKILL + name.removeprefix("r2 ")
        for shown, style in ((name, "-"), (skill, "--")) if skill in there else ((name, "-"),):
            axes.plot(
                steps, [row[shown] for row in rows], style, color=colour, label=_short(shown), linewidth=1,
                marker=sign, markevery=marks_every(len(rows)), markersize=3.5,
                markerfacecolor="none" if shown == skill else colour,
            )  # fmt: skip
    axes.locator_params(axis="x", nbins=5)
    if len(there) > 1:
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    if names:
        axes.set_xlabel("step" if batch_size is None else f"images seen (published: {PUBLISHED_STEPS * BATCH:,})")
    else:
        axes.text(0.5, 0.5, f"no {what}", ha="center", va="center", color=QUIET, transform=axes.transAxes)
        axes.set_axis_off()


def _short(name: str) -> str:
    """What is watched, as the axis says what skill is over."""
    return name if name.startswith(SKILL) else watched_as(name)


def _draw_bars(axes: Axes, rows: Sequence[Mapping[str, float]], what: str) -> None:
    """A bar with its value for each name."""
    (row,), names = rows, _names(rows)
    bars = axes.barh(range(len(names)), [row[name] for name in names], height=0.6, color=CURVE)
    axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_xlabel(f"{what}, at step {row['step']:g}")


def plot_fidelity(table: pd.DataFrame, spans: Sequence[Span], *, title: str) -> Figure:
    """R^2, relative error and cosine of every token group by layer, autoregressive and one-step.

    Parameters
    ----------
    table : DataFrame
        As of :class:`brdyn.raptor.fidelity.Fidelity`.
    spans : sequence of Span
        The layers of each block; where one ends a line is drawn.
    title : str

    Examples
    --------
    >>> from brdyn.plots import plot_fidelity
    >>> from brdyn.raptor import BlockConfig, Raptor
    >>> from brdyn.raptor.fidelity import fidelity
    >>> raptor = Raptor(model, [0] * 12, BlockConfig(width=192, heads=3, mlp_ratio=1.0))
    >>> figure = plot_fidelity(fidelity(raptor, images).table, raptor.spans, title="a Raptor")
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['R²', 'relative error', 'cosine']
    """
    return _by_layer(table, spans, SHOWN, title)


def plot_skill(table: pd.DataFrame, spans: Sequence[Span], *, title: str) -> Figure:
    """Skill over each baseline of every token group by layer: 1 is perfect, at 0 the baseline does as well.

    Parameters
    ----------
    table : DataFrame
        As of :class:`brdyn.raptor.fidelity.Fidelity`.
    spans : sequence of Span
        The layers of each block; where one ends a line is drawn.
    title : str

    Examples
    --------
    >>> from brdyn.plots import plot_skill
    >>> from brdyn.raptor import BlockConfig, Raptor
    >>> from brdyn.raptor.fidelity import fidelity
    >>> raptor = Raptor(model, [0] * 12, BlockConfig(width=192, heads=3, mlp_ratio=1.0))
    >>> figure = plot_skill(fidelity(raptor, images).table, raptor.spans, title="a Raptor")
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['skill over the identity', 'skill over the mean update', 'skill over one affine map']
    """
    return _by_layer(table, spans, SKILLS, title)


@paper_style()
def _by_layer(table: pd.DataFrame, spans: Sequence[Span], shown: Mapping[str, str], title: str) -> Figure:
    """A row of panels for each mode, a column for each statistic, a curve for each token group."""
    modes = list(dict.fromkeys(table["mode"]))
    layers = int(table["layer"].max())
    figure = new_figure(3.1 * len(shown), 0.6 + 2.3 * len(modes))
    panels = figure.subplots(len(modes), len(shown), sharex=True, squeeze=False)
    for row, mode in enumerate(modes):
        for column, (statistic, label) in enumerate(shown.items()):
            axes = panels[row, column]
            rows = table[(table["mode"] == mode) & (table["statistic"] == statistic)]
            beyond = _draw_groups(axes, rows, clipped=statistic in ("r2", *SKILLS))
            for span in spans[:-1]:
                axes.axvline(span.end + 0.5, color=QUIET, linewidth=0.7, linestyle=":")
            if row == 0:
                axes.set_title(label)
            if statistic in SKILLS:
                axes.axhline(0, color=QUIET, linewidth=0.7)
            if statistic in ("r2", *SKILLS):
                axes.set_ylim(max(axes.get_ylim()[0], LOWEST), 1.02)
                say_beyond(axes, beyond)
            if row == len(modes) - 1:
                axes.set_xlabel("layer")
            axes.set_xticks(layer_ticks(layers))
        panels[row, 0].set_ylabel(mode)
    legend_below(figure, panels[0, 0].get_legend_handles_labels()[0])
    head(figure, title)
    return figure


def _draw_groups(axes: Axes, rows: pd.DataFrame, *, clipped: bool) -> list[str]:
    """A curve for each token group, with its interval where it has one; where clipped, what lies beyond is marked.

    Returns what is to be said of that.
    """
    beyond = []
    rows = rows[rows["group"] != "all"]
    for group, curve in rows.groupby("group", sort=False):
        look = look_of(group, rows["group"]) | {"markersize": 3, "linewidth": 1, "label": str(group)}
        draw_band(axes, curve["layer"], curve, shade=0.2, **look)
        if clipped:
            beyond += mark_beyond(axes, curve["layer"], curve["mean"], LOWEST, look["color"], str(group))
    return beyond


@paper_style()
def plot_layer_fidelity(
    tables: Mapping[str, pd.DataFrame], *, title: str, statistic: str = "r2", mode: str = "autoregressive"
) -> Figure:
    """One statistic by layer for several Raptors: a panel for each token group, a curve for each Raptor.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Name of each Raptor, and the table of its :class:`brdyn.raptor.fidelity.Fidelity`.
    title : str
    statistic : {"r2", "relative_error", "cosine", "skill_identity", "skill_mean_update", "skill_affine"}
    mode : {"autoregressive", "one-step"}

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.plots import plot_layer_fidelity
    >>> place = {"mode": "autoregressive", "statistic": "r2", "group": "cls", "layer": [1, 2]}
    >>> tables = {name: pd.DataFrame({**place, "mean": [0.9, least]}) for name, least in (("k=1", 0.5), ("k=2", 0.8))}
    >>> figure = plot_layer_fidelity(tables, title="two Raptors")
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['k=1', 'k=2']
    """
    chosen = {
        name: table[(table["statistic"] == statistic) & (table["mode"] == mode)] for name, table in tables.items()
    }
    groups = [group for group in dict.fromkeys(chain(*(table["group"] for table in chosen.values()))) if group != "all"]
    layers = max(int(table["layer"].max()) for table in chosen.values() if len(table))
    colours = ordered_colours(len(chosen))
    figure, panels = new_panels(len(groups), 0.9 + 3.4 * len(groups), 3.4, sharey=True)
    for axes, group in zip(panels, groups, strict=True):
        beyond = []
        for (name, table), colour, marker in zip(chosen.items(), colours, cycle(MARKERS), strict=False):
            curve = table[table["group"] == group]
            axes.plot(
                curve["layer"],
                curve["mean"],
                color=colour,
                marker=marker,
                markersize=3.5,
                linewidth=1,
                label=name,
            )
            if statistic in ("r2", *SKILLS):
                beyond += mark_beyond(axes, curve["layer"], curve["mean"], LOWEST, colour, name)
        axes.set_title(group)
        say_beyond(axes, beyond)
        axes.set_xlabel("layer")
        axes.set_xticks(layer_ticks(layers))
        if statistic in ("r2", *SKILLS):
            axes.set_ylim(LOWEST, 1.02)
            axes.axhline(0, color=QUIET, linewidth=0.7, linestyle=":")
    panels[0].set_ylabel(f"{(SHOWN | SKILLS)[statistic]}, {mode}")
    legend_below(figure, panels[-1].get_legend_handles_labels()[0])
    head(figure, title)
    return figure


@paper_style()
def plot_partitions(fits: pd.DataFrame, values: Mapping[str, str], *, title: str) -> Figure:
    """How well Raptors do by number of blocks and by how layers share them: every fit a mark, means joined.

    Parameters
    ----------
    fits : DataFrame
        A row per fit with columns `k`, `partition` and those named in `values`.
    values : mapping of str to str
        Columns to draw, each in a panel of its own, and how to label them.
    title : str

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.plots import plot_partitions
    >>> partitions = ["maxcut", "random-shuffle", "maxcut"]
    >>> fits = pd.DataFrame({"k": [2, 2, 3], "partition": partitions, "r2": [0.8, 0.5, 0.9]})
    >>> plot_partitions(fits, {"r2": "R² of cls"}, title="Raptors").axes[0].get_ylabel()
    'R² of cls'
    """
    partitions = list(dict.fromkeys(fits["partition"]))
    colours = distinct_colours((CURVE, ACCENT, QUIET), len(partitions))
    figure, panels = new_panels(len(values), 0.6 + 3.6 * len(values), 3.1)
    for axes, (column, label) in zip(panels, values.items(), strict=True):
        for number, (partition, colour, style, marker) in enumerate(
            zip(partitions, colours, cycle(("-", "--", ":")), cycle(MARKERS), strict=False)
        ):
            rows = fits[fits["partition"] == partition]
            shift = min(0.12, 0.72 / len(partitions)) * (number - (len(partitions) - 1) / 2)
            axes.scatter(
                rows["k"] + shift,
                rows[column],
                color=colour,
                marker=marker,
                s=16,
                alpha=0.7,
                linewidths=0,
            )
            mean = rows.groupby("k")[column].mean()
            axes.plot(
                mean.index + shift, mean, style, color=colour, marker=marker, markersize=2, linewidth=1,
                label=partition,
            )  # fmt: skip
        axes.set_xticks(sorted(fits["k"].unique()))
        axes.set_xlabel("number of blocks k")
        axes.set_ylabel(label)
    legend_below(figure, figure.axes[0].get_legend_handles_labels()[0])
    head(figure, title)
    return figure


@paper_style()
def plot_ladder(fits: pd.DataFrame, values: Mapping[str, str], *, title: str) -> Figure:
    """Bars for variants of a recipe, in the order of the rows.

    Parameters
    ----------
    fits : DataFrame
        Indexed by the name to write; columns as in `values`, with `NAME_low` and `NAME_high` for an interval.
    values : mapping of str to str
        Columns to draw, each in a panel of its own, and how to label them.
    title : str

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.plots import plot_ladder
    >>> fits = pd.DataFrame({"r2": [0.5, 0.8]}, index=["stage 1 alone", "both stages"])
    >>> [bar.get_width().item() for bar in plot_ladder(fits, {"r2": "R²"}, title="Raptors").axes[0].patches]
    [0.5, 0.8]
    """
    figure, panels = new_panels(len(values), 1.9 + 2.8 * len(values), 0.9 + 0.27 * len(fits), sharey=True)
    places = range(len(fits))[::-1]
    for axes, (column, label) in zip(panels, values.items(), strict=True):
        axes.barh(places, fits[column], color=CURVE, height=0.6)
        if f"{column}_low" in fits:
            for place, low, high in zip(places, fits[f"{column}_low"], fits[f"{column}_high"], strict=True):
                axes.plot([low, high], [place, place], color=INK, linewidth=1)
        if fits[column].min() < LOWEST:
            axes.set_xlim(LOWEST, _right_end(fits, column))
            for place, value in zip(places, fits[column], strict=True):
                if value < LOWEST:
                    axes.text(
                        LOWEST, place, f" ◀ {value:.3g}", va="center", fontsize=7, color="white",
                        fontweight="bold",
                    )  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.set_xlabel(label)
    panels[0].set_yticks(places, fits.index)
    head(figure, title)
    return figure


def _right_end(fits: pd.DataFrame, column: str) -> float:
    """Of an axis that is cut on the left: a little beyond the largest value and its interval, and 0 at least."""
    most = fits[[name for name in (column, f"{column}_high") if name in fits]].max().max()
    return max(0.0, float(most)) + MARGIN
