"""The look all figures share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from textwrap import wrap
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import numpy as np
import seaborn as sns

from brdyn.choices import THEMES as NAMES
from brdyn.choices import one_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

INK = "#222222"
CURVE = "#6A51A3"  # what is of no token group has no group's colour
ACCENT = INK  # what was chosen
QUIET = "#8C8C8C"
ON_IMAGE = "black"  # on the colours of an image, which no theme changes
MASKED = "#D9D9D9"  # pairs of layers of which there is nothing to say

# Okabe-Ito colours: told apart by colour-blind readers. In grey the markers tell groups apart.
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
# Of groups of other names: the colours of that list that are left, its black paler than the ink.
OWN_COLOURS = ("#E69F00", "#56B4E9", "#444444")
OWN_MARKERS = ("v", "P", "X", "<", ">", "*", "p")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "*")  # of things that are no token groups
LETTERS_PER_INCH = 13  # of a heading
LEGEND_COLUMN, LEGEND_MARK = 1.4, 0.5  # inches: a column at least, and of it the line and the space around it
LETTERS_OF_A_LEGEND = 19  # in an inch
MARKS = 12  # of a long curve
ON_LIGHT, ON_DARK = (0.0, 0.9), (0.35, 1.0)  # of viridis, for curves
LABELLED = {  # leading digits of a logarithmic axis: over how many powers of ten these are two labels at least
    (1, 2, 3, 4, 5, 6, 7, 8, 9): 0.0, (1, 2, 3, 5, 7): 0.48, (1, 2, 5): 0.7, (1,): 2.0,
}  # fmt: skip


_DARK, _LIGHT = "#14171C", "#E8E8E8"
THEMES: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), _DARK),
        **dict.fromkeys(
            (
                "text.color",
                "axes.labelcolor",
                "axes.edgecolor",
                "xtick.color",
                "ytick.color",
                "axes.titlecolor",
            ),
            _LIGHT,
        ),
    },
    "paper": {"font.family": "serif", "mathtext.fontset": "stix", "lines.linewidth": 1.0},
}
DARKENED = {
    INK: _LIGHT,
    CURVE: "#B3A2E3",
    "#444444": "#BBBBBB",
    "#EEEEEE": "#262B33",
    "#D9D9D9": "#3A404A",
}  # where drawn by name
COLOURED = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")
_theme: ContextVar[str] = ContextVar("theme", default="light")
_made: ContextVar[list[Figure]] = ContextVar("made")


@contextmanager
def themed(name: str) -> Iterator[None]:
    """Let pictures that are drawn inside have another look.

    Parameters
    ----------
    name : {"light", "dark", "paper"}
        `light` is how they are without this; `paper` has the letters of a paper's text.

    Raises
    ------
    UsageError
        If there is no such theme.

    Examples
    --------
    >>> from brdyn.plots import draw, themed
    >>> with themed("dark"):
    ...     pictures = draw(phases)
    >>> sum(pictures["similarity"].get_facecolor()[:3]) < 1
    True
    """
    made: list[Figure] = []
    theme, figures = _theme.set(one_of("theme", name, NAMES)), _made.set(made)
    try:
        yield
    finally:
        _theme.reset(theme)
        _made.reset(figures)
    if name == "dark":
        for figure in made:
            _darken(figure)


def _darken(figure: Figure) -> None:
    """Replace what was drawn in ink, or in the grey of bands, by what is seen on a dark ground."""
    for artist in figure.findobj():
        for what in COLOURED:
            get, put = (getattr(artist, f"{verb}_{what}", None) for verb in ("get", "set"))
            if get is None or put is None:
                continue
            colour = get()
            if isinstance(colour, np.ndarray) and colour.shape == (1, 4):  # of a collection
                colour = colour[0]
            if mpl.colors.is_color_like(colour) and (dark := DARKENED.get(mpl.colors.to_hex(colour).upper())):
                put(dark)


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
        mpl.rc_context(cast(Any, THEMES[_theme.get()])),
    ):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that no global state holds on to."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    _made.get([]).append(figure)
    return figure


def new_panels(count: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure in inches with panels in a row, one at least; `shared` is of matplotlib's `subplots`."""
    figure = new_figure(width, height)
    return figure, list(figure.subplots(1, max(1, count), squeeze=False, **shared)[0])


def look_of(group: object, among: Iterable[object] = ()) -> dict[str, Any]:
    """Colour and marker of the curve of a token group.

    `among` are all groups of the result, repeated as they may be: a group of a name of the user's own has the look of
    its place among such, the same in every picture of the result.

    >>> from brdyn.plots.style import look_of
    >>> look_of("cls")
    {'color': '#D55E00', 'marker': 'o', 'markersize': 3.5}
    >>> look_of("prompt", ["summary", "prompt", "patches"])
    {'color': '#56B4E9', 'marker': 'P', 'markersize': 3.5}
    """
    name = str(group)
    own = list(dict.fromkeys(str(one) for one in among if str(one) not in GROUP_COLOURS))
    place = own.index(name) if name in own else 0
    colour = GROUP_COLOURS.get(name, OWN_COLOURS[place % len(OWN_COLOURS)])
    marker = GROUP_MARKERS.get(name, OWN_MARKERS[place % len(OWN_MARKERS)])
    return {"color": colour, "marker": marker, "markersize": 3.5}


def draw_interval(axes: Axes, x: Any, low: Any, high: Any, *, color: Any, shade: float) -> None:
    """Shade what lies between; where a point has no neighbour a shade has no width, and it is a line.

    >>> import numpy as np
    >>> from brdyn.plots.style import draw_interval, new_figure
    >>> axes = new_figure(5, 3).subplots()
    >>> draw_interval(axes, [1, 2, 3, 4], [0, 0, np.nan, 1], [1, 1, np.nan, 2], color="black", shade=0.2)
    >>> [line.tolist() for line in axes.collections[1].get_segments()]
    [[[4.0, 1.0], [4.0, 2.0]]]
    """
    places, low, high = (np.asarray(part, dtype=float) for part in (x, low, high))
    lone = alone(low + high)
    if not lone.all():
        axes.fill_between(places, low, high, color=color, alpha=shade, linewidth=0)
    if lone.any():
        axes.vlines(places[lone], low[lone], high[lone], color=color, linewidth=1.2, alpha=min(1.0, 3 * shade))


def alone(values: np.ndarray) -> np.ndarray:
    """Which finite values have no finite one beside them.

    >>> import numpy as np
    >>> from brdyn.plots.style import alone
    >>> alone(np.array([1.0, np.nan, 2.0, 3.0])).tolist()
    [True, False, False, False]
    """
    known = np.isfinite(values)
    beside = np.pad(known, 1)
    return known & ~beside[:-2] & ~beside[2:]


def draw_band(
    axes: Axes, x: Any, rows: Mapping[str, Any] | pd.DataFrame, *, shade: float = 0.25, **look: Any
) -> Line2D:
    """Draw a curve with its interval behind it.

    Parameters
    ----------
    axes : Axes
    x : array_like
    rows : DataFrame or mapping
        With `mean`, `low` and `high`.
    shade : float
        How dense the interval is.
    **look
        Of the line; the interval has its `color`.
    """
    draw_interval(axes, x, rows["low"], rows["high"], color=look["color"], shade=shade)
    return axes.plot(x, rows["mean"], **look)[0]


def fitted(title: str, inches: float) -> str:
    """A heading broken into lines that fit a width; a long path is broken too.

    >>> from brdyn.plots.style import fitted
    >>> fitted("vit_small_patch14_dinov2.lvd142m (random weights)", 3.0).splitlines()
    ['vit_small_patch14_dinov2.lvd142m', '(random weights)']
    """
    letters = int(inches * LETTERS_PER_INCH)
    return "\n".join(part for line in title.splitlines() for part in wrap(line, letters) or [""])


def head(figure: Figure, title: str) -> None:
    """Write the heading over all panels."""
    figure.suptitle(fitted(title, figure.get_figwidth()), fontsize=10)


def legend_below(figure: Figure, handles: Sequence[Artist], *, markerscale: float = 1) -> int:
    """One legend for all panels, below them where it hides nothing; what comes twice is named once.

    Returns how many lines it has.
    """
    once = {str(handle.get_label()): handle for handle in handles}
    columns = 1
    if once:
        longest = LEGEND_MARK + max(map(len, once)) / LETTERS_OF_A_LEGEND
        columns = max(1, int(figure.get_figwidth() / max(LEGEND_COLUMN, longest)))
        figure.legend(
            handles=list(once.values()), loc="outside lower center", ncols=min(columns, len(once)), frameon=False,
            fontsize=7, markerscale=markerscale,
        )  # fmt: skip
    return -(-len(once) // columns)


def ordered_colours(count: int) -> list[tuple[float, float, float]]:
    """Colours of things that have an order, from light to dark: those of no token group, and legible in grey.

    >>> from brdyn.plots.style import ordered_colours
    >>> light, dark = ordered_colours(2)
    >>> sum(light) > sum(dark)
    True
    """
    if _theme.get() == "dark":
        return [depth_colours()(place)[:3] for place in np.linspace(1, 0, count)]
    return list(sns.color_palette("viridis_r", count + 1)[1:])


def depth_colours() -> mpl.colors.ListedColormap:
    """From dark to light for curves: what the ground would hide is left out.

    >>> from brdyn.plots import themed
    >>> from brdyn.plots.style import depth_colours
    >>> with themed("dark"):
    ...     bright = depth_colours()
    >>> bool(sum(bright(0.0)) > sum(depth_colours()(0.0)))
    True
    """
    ends = ON_DARK if _theme.get() == "dark" else ON_LIGHT
    return mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(*ends, 256)))


def distinct_colours(named: Sequence[str], count: int) -> list[Any]:
    """The first of named colours, and where there are more things than these, ordered ones after them.

    >>> from brdyn.plots.style import distinct_colours
    >>> distinct_colours(["red", "blue"], 1), len(set(distinct_colours(["red", "blue"], 5)))
    (['red'], 5)
    """
    return [*named[:count], *ordered_colours(max(0, count - len(named)))]


def layer_ticks(layers: int) -> list[int]:
    """Layer numbers to label: all up to 16, else about ten of them."""
    step = 1 if layers <= 16 else -(-layers // 10)
    return [1, *range(step, layers + 1, step)] if step > 1 else list(range(1, layers + 1))


def layer_axis(axes: Axes, layers: int, label: str, first: int = 1) -> None:
    """Make the horizontal axis that of layers, from `first` (0 where the embedding is one) to the last."""
    axes.set_xlabel(label)
    axes.set_xticks([*range(first, 1), *layer_ticks(layers)])
    axes.set_xlim(first - 0.5, layers + 0.5)


def marks_every(points: int) -> int:
    """Every which point of a curve gets its marker, so that a dozen do at most.

    >>> from brdyn.plots.style import marks_every
    >>> marks_every(5), marks_every(100)
    (1, 9)
    """
    return max(1, -(-points // MARKS))


def log_scale(axes: Axes) -> None:
    """Make the vertical axis logarithmic, its numbers written out: as many as there is room for, and at least two.

    >>> from brdyn.plots.style import log_scale, new_figure
    >>> axes = new_figure(5, 3).subplots()
    >>> log_scale(axes)
    >>> axes.set_ylim(0.03, 0.4)
    (0.03, 0.4)
    >>> [axes.yaxis.get_minor_formatter()(value) for value in (0.05, 0.2)]
    ['0.05', '0.2']
    """

    def written(value: float, place: float = 0) -> str:
        del place
        low, high = axes.get_ylim()
        powers = abs(np.log10(high / low))
        allowed = [digits for digits, least in LABELLED.items() if powers >= least]
        room = axes.yaxis.get_tick_space()
        shown = next((digits for digits in allowed if powers * len(digits) <= room), allowed[-1])
        leading = float(f"{value:.6e}".partition("e")[0])
        return "" if leading.is_integer() and leading not in shown else f"{value:g}"

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(written)
    axes.yaxis.set_minor_formatter(written)
