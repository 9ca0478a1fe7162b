"""The look all figures share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import matplotlib as mpl
import seaborn as sns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#222222"
CURVE = "#0072B2"  # Okabe-Ito colours: told apart by colour-blind readers
ACCENT = "#D55E00"
QUIET = "#8C8C8C"

GROUP_COLOURS = {
    "cls": "#D55E00",
    "distillation": "#CC79A7",
    "registers": "#009E73",
    "patches": "#0072B2",
    "x": "#8C8C8C",
    "y": "#D55E00",
    "z": "#0072B2",
}
GROUP_MARKERS = {
    "cls": "o",
    "distillation": "D",
    "registers": "s",
    "patches": "^",
    "x": "s",
    "y": "o",
    "z": "^",
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Fonts and lines for a figure that a paper could print; the caller's settings are left as they were."""
    with (
        sns.axes_style("ticks"),
        sns.plotting_context("paper"),
        mpl.rc_context(
            {
                "font.size": 9,
                "axes.titlesize": 10,
                "svg.fonttype": "none",
                "pdf.fonttype": 42,
                "axes.spines.top": False,
                "axes.spines.right": False,
            }
        ),
    ):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that no global state holds on to."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def layer_ticks(layers: int) -> list[int]:
    """Layer numbers to label: all up to 16, else about ten of them."""
    step = 1 if layers <= 16 else -(-layers // 10)
    return [1, *range(step, layers + 1, step)] if step > 1 else list(range(1, layers + 1))
