"""How a Raptor was fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import seaborn as sns

from brdyn.plots.style import new_figure, paper_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from brdyn.training import History


FEW = 30  # rows that get a mark each


def plot_fit(histories: Mapping[int, History], *, title: str) -> Figure:
    """Loss and validation R^2 of every part over the steps of each stage."""
    with paper_style():
        figure = new_figure(0.8 + 4.2 * len(histories), 5.2)
        panels = figure.subplots(2, len(histories), squeeze=False, sharex="col")
        for column, (stage, history) in enumerate(histories.items()):
            for axes, rows, what in (
                (panels[0, column], history.losses, "loss"),
                (panels[1, column], history.validation, "R² on validation images"),
            ):
                names = [name for name in (rows[0] if rows else {}) if name not in ("step", "lr")]
                for name, colour in zip(names, sns.color_palette("colorblind", len(names)), strict=True):
                    marker = "o" if what != "loss" or len(rows) <= FEW else None
                    axes.plot(
                        [row["step"] for row in rows], [row[name] for row in rows], color=colour, label=name,
                        linewidth=1, marker=marker, markersize=3,
                    )  # fmt: skip
                if names:
                    axes.legend(frameon=False, fontsize=7)
                if column == 0:
                    axes.set_ylabel(what)
            panels[0, column].set_title(f"stage {stage}")
            if all(value > 0 for row in history.losses for value in row.values()):
                panels[0, column].set_yscale("log")
            panels[1, column].set_xlabel("step")
        figure.suptitle(title, fontsize=10)
        return figure
