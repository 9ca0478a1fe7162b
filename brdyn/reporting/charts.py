"""The charts of a report's page, as Vega-Lite specifications: they carry their data, and need no network.

Each has the parameters `models` and `groups`, the names of what is shown, which the page's boxes set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import altair as alt
import numpy as np

from brdyn.interventions import Splice
from brdyn.interventions.splice_cells import EXCHANGE
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.found_spectra import SIDES, Spectra
from brdyn.phases import Phases
from brdyn.reporting.apart import beside
from brdyn.reporting.found import Found
from brdyn.reporting.rows import Rows, number

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe-Ito
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
SIDE = 264  # pixels of a matrix
DASHES = [1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 3], [1, 5]
SIDE_BY_SIDE = 4  # names of curves
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif'
TALLEST = 8  # numbers beside twins
WRAPPED, LINE = 34, 34  # characters of a line, and pixels of a number
LABELS = 6  # of a matrix's axis
MOST_ERROR = 2  # over that of doing nothing, that has a colour of its own


def similarity_charts(found: Sequence[Found]) -> dict[str, dict[str, Any]]:
    """The similarity between the layers of each model with its phases framed, all on one scale; by model."""
    shown = {
        one.label: (phases, phases.similarity.matrix)
        for one in found
        if (phases := one.of("phases", Phases)) is not None and phases.similarity is not None
    }
    lowest = min((float(matrix.min()) for _, matrix in shown.values()), default=0.0)
    return {label: _similarity(label, one, matrix, lowest) for label, (one, matrix) in shown.items()}


def exchange_charts(found: Sequence[Found]) -> dict[str, dict[str, Any]]:
    """What every layer's block does in the place of every other that was tried, all on one scale; by model."""
    return {
        one.label: _exchange(one.label, splice)
        for one in found
        if (splice := one.of("splice", Splice)) is not None and len(splice.rows(EXCHANGE))
    }


def coupling_charts(found: Sequence[Found]) -> dict[str, dict[str, dict[str, Any]]]:
    """How far layers stretch the same directions, all on one scale; by side and model."""
    shown = {
        one.label: (dynamics.phases, dynamics.spectra)
        for one in found
        if (dynamics := one.of("spectra", Dynamics)) is not None
        and dynamics.spectra is not None
        and len(dynamics.spectra.pairs)
    }
    matrices = {
        side: {label: _without_diagonal(spectra, side) for label, (_, spectra) in shown.items()} for side in SIDES
    }
    most = max((np.nanmax(one) for drawn in matrices.values() for one in drawn.values()), default=1.0)
    return {
        side: {label: _coupling(label, side, shown[label][0], one, most) for label, one in drawn.items()}
        for side, drawn in matrices.items()
    }


def _without_diagonal(spectra: Spectra, side: str) -> np.ndarray:
    """The coupling of layers, without that of a layer with itself, which is 1."""
    matrix = spectra.coupling(side)
    np.fill_diagonal(matrix, np.nan)
    return matrix


def _similarity(label: str, phases: Phases, matrix: np.ndarray, lowest: float) -> dict[str, Any]:
    words = f"Similarity between the {len(matrix)} layers of {label}: {phases.sentence()}"
    scale = alt.Scale(scheme="viridis", domain=[lowest, 1])
    return _matrix(matrix, phases, words, ("layer", "and layer", "similarity"), scale)


def _exchange(label: str, splice: Splice) -> dict[str, Any]:
    words = f"Error of each layer's block in the place of another of {label}, over doing nothing: {splice.answer()}"
    scale = alt.Scale(scheme="redblue", reverse=True, domain=[0, MOST_ERROR], clamp=True)
    headings = ("replaced layer", "by the block of layer", "error over doing nothing")
    return _matrix(splice.exchanged(), splice.phases, words, headings, scale)


def _coupling(label: str, side: str, phases: Phases, matrix: np.ndarray, most: float) -> dict[str, Any]:
    words = f"Squared cosine between the leading directions {side} two layers, of the {len(matrix)} layers of {label}"
    scale = alt.Scale(scheme="viridis", domain=[0, float(most)])
    return _matrix(matrix, phases, words, ("layer", "and layer", "squared cosine"), scale)


def _matrix(
    matrix: np.ndarray, phases: Phases, words: str, headings: tuple[str, str, str], colours: alt.Scale
) -> dict[str, Any]:
    """Cells of rows and columns that are layers, with phases framed; none where there is no number."""
    layers = len(matrix)
    cells = [
        {"a": row + 1, "b": column + 1, "s": round(float(matrix[row, column]), 6)}
        for row in range(layers)
        for column in range(layers)
        if np.isfinite(matrix[row, column])
    ]
    of_row, of_column, of_colour = headings
    ends = [0.5, layers + 0.5]
    ticks = sorted({1, *range(-(-layers // LABELS), layers + 1, -(-layers // LABELS))})
    axis = alt.Axis(values=ticks, format="d", grid=False, domain=False)
    scale = alt.Scale(domain=ends, nice=False, zero=False)
    picture = (
        alt.Chart(alt.NamedData(name="cells"))
        .transform_calculate(left="datum.b-.5", right="datum.b+.5", top="datum.a-.5", bottom="datum.a+.5")
        .mark_rect(aria=False)
        .encode(
            x=alt.X("left:Q", scale=scale, axis=axis, title=_heading(of_column)),
            x2="right:Q",
            y=alt.Y(
                "top:Q", scale=alt.Scale(domain=ends, nice=False, zero=False, reverse=True), axis=axis,
                title=of_row,
            ),
            y2="bottom:Q",
            color=alt.Color(
                "s:Q",
                scale=colours,
                legend=alt.Legend(title=of_colour, orient="bottom", gradientLength=SIDE, gradientThickness=8),
            ),
            tooltip=[
                alt.Tooltip("a:Q", title=of_row),
                alt.Tooltip("b:Q", title=of_column),
                alt.Tooltip("s:Q", title=of_colour, format=".3f"),
            ],
        )
    )  # fmt: skip
    frames = [{"from": first - 0.5, "to": last + 0.5} for first, last in phases.intervals]
    framed = (
        alt.Chart(alt.NamedData(name="frames"))
        .mark_rect(fill=None, stroke="#D55E00", strokeWidth=2, aria=False, tooltip=None)
        .encode(x="from:Q", x2="to:Q", y="from:Q", y2="to:Q")
    )
    tried = alt.layer(*([] if len(cells) == layers**2 else [_untried(ends)]), picture, framed)
    return _spec(tried.properties(width=SIDE, height=SIDE), words, cells=cells, frames=frames)


def _untried(ends: list[float]) -> alt.Chart:
    """What lies behind cells, to be seen where there is none."""
    behind = alt.Chart(alt.Data(values=[{"low": ends[0], "high": ends[1]}]))
    return behind.mark_rect(color="gray", opacity=0.25, aria=False, tooltip=None).encode(
        x="low:Q", x2="high:Q", y="low:Q", y2="high:Q"
    )


def _heading(words: str) -> str:
    """Of an axis across, whose heading needs no second `and`."""
    return words.removeprefix("and ")


def curve_chart(
    rows: Rows, *, words: str, y: str, x: str, zero: bool = False, log: bool = False
) -> dict[str, Any] | None:
    """Curves over depth with their intervals, by model and token group; None where there are none.

    Parameters
    ----------
    rows : list of dict
        `model`, `group`, `layer` (what is hovered over says it), `depth` (where it is drawn), `mean`, `low`, `high`.
    words : str
        What it shows, for who does not see it.
    y, x : str
        Headings of the axes.
    zero : bool
        Draw a line at 0.
    log : bool
        Logarithmic axis.
    """
    if not rows:
        return None
    labels = list(dict.fromkeys(row["model"] for row in rows))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    by_model = _by_model(labels)
    shared = {
        "x": alt.X(
            "depth:Q",
            title=x,
            scale=alt.Scale(nice=False, zero=False),
            axis=alt.Axis(grid=False, tickMinStep=1),
        ),
        "color": by_model["color"],
        "detail": "group:N",
    }
    scale = alt.Scale(type="log", nice=False, padding=8) if log else alt.Scale(zero=False)
    height = alt.Y("mean:Q", title=y, scale=scale, axis=alt.Axis(tickCount=5))
    base = (
        alt.Chart(alt.NamedData(name="rows"))
        .transform_filter("indexof(models, datum.model) >= 0")
        .transform_filter("indexof(groups, datum.group) >= 0")
    )
    band = base.mark_area(opacity=0.18, aria=False).encode(
        y=alt.Y("low:Q", title=y, scale=scale), y2="high:Q", **shared
    )
    line = base.mark_line(strokeWidth=2, aria=False).encode(
        y=height,
        strokeDash=alt.StrokeDash(
            "group:N",
            scale=alt.Scale(domain=groups, range=[*DASHES[: max(1, len(groups))]]),
            legend=alt.Legend(title=None, orient="top", columns=SIDE_BY_SIDE, symbolStrokeColor="gray"),
        ),
        **shared,
    )  # fmt: skip
    near = base.mark_point(size=55, filled=True, opacity=0.9, aria=False).encode(
        y=height,
        shape=by_model["shape"],
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("group:N", title="tokens"),
            alt.Tooltip("layer:N", title=x),
            alt.Tooltip("mean:Q", title="mean", format=".3g"),
            alt.Tooltip("low:Q", title="from", format=".3g"),
            alt.Tooltip("high:Q", title="to", format=".3g"),
        ],
        **shared,
    )
    parts = [band, line, near]
    if zero:
        parts.insert(0, alt.Chart(alt.Data(values=[{"z": 0}])).mark_rule(opacity=0.5).encode(y="z:Q"))
    chart = alt.layer(*parts).properties(width="container", height=230)
    chart = chart.add_params(alt.param(name="models", value=labels), alt.param(name="groups", value=groups))
    return _spec(chart, words, rows=rows)


def twins_chart(found: Sequence[Found]) -> dict[str, Any] | None:
    """The numbers of each model that lie farthest from its untrained twins, over their mean."""
    rows: Rows = []
    for one in found:
        told = [
            (name, value, twins) for name, value, twins in beside(one.beside_twins) if value > 0 and twins.min() > 0
        ]
        told.sort(key=lambda row: -abs(np.log(row[1] / row[2].mean())))
        rows += [
            {
                "model": one.label,
                "number": "|".join(wrap(name, WRAPPED)),
                "name": name,
                "ratio": number(value / twins.mean()),
                "value": number(value),
                "least": number(twins.min() / twins.mean()),
                "most": number(twins.max() / twins.mean()),
                "untrained": number(twins.mean()),
            }
            for name, value, twins in told[:TALLEST]
        ]
    if not rows:
        return None
    labels = list(dict.fromkeys(row["model"] for row in rows))
    base = alt.Chart(alt.NamedData(name="rows")).transform_filter("indexof(models, datum.model) >= 0")
    lines = alt.Axis(labelExpr="split(datum.label, '|')", labelLimit=210, labelFontSize=10, grid=True)
    y = alt.Y("number:N", title=None, sort=None, axis=lines)
    scale, ticks = alt.Scale(type="log", nice=False, padding=8), alt.Axis(tickCount=4, grid=False)
    span = base.mark_bar(opacity=0.35, color="gray", size=7, aria=False).encode(
        y=y,
        x=alt.X("least:Q", scale=scale, axis=ticks, title="over the mean of untrained twins (log)"),
        x2="most:Q",
    )
    dots = base.mark_point(filled=True, size=80, aria=False).encode(
        y=y,
        x=alt.X("ratio:Q", scale=scale, axis=ticks),
        **_by_model(labels),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("name:N", title="number"),
            alt.Tooltip("value:Q", format=".3g"),
            alt.Tooltip("untrained:Q", title="untrained twins", format=".3g"),
        ],
    )
    one = alt.Chart(alt.Data(values=[{"z": 1}])).mark_rule(opacity=0.5).encode(x="z:Q")
    chart = (one + span + dots).properties(width="container", height=LINE * len({row["number"] for row in rows}))
    words = "Numbers of trained models over the mean of their untrained twins; the bar is the range of the twins"
    return _spec(
        chart.add_params(alt.param(name="models", value=labels), alt.param(name="groups", value=[])), words,
        rows=rows,
    )  # fmt: skip


def _by_model(labels: Sequence[str]) -> dict[str, Any]:
    """Colours of models, and other marks where colours come again."""
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=320, symbolOpacity=1)
    places = range(len(labels))
    colours = [COLOURS[place % len(COLOURS)] for place in places]
    shapes = [SHAPES[place // len(COLOURS) % len(SHAPES)] for place in places]
    return {
        "color": alt.Color("model:N", scale=alt.Scale(domain=labels, range=colours), legend=legend),
        "shape": alt.Shape("model:N", scale=alt.Scale(domain=labels, range=shapes), legend=legend),
    }


def _spec(chart: Any, words: str, **data: Rows) -> dict[str, Any]:
    """A specification with its description and data, without colours of its own for text and lines: the page has those.

    Data are named in a chart and put into its specification at last, as every step of making a chart copies it.
    """
    config: Mapping[str, Any] = {
        "background": None,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelFlush": False},
        "legend": {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"},
    }
    spec = chart.to_dict(validate=False)  # of every value, which takes seconds
    spec.update(description=words, config=config, datasets=data, autosize={"type": "fit-x", "contains": "padding"})
    if spec.get("width") != "container":
        spec["autosize"] = {"type": "pad"}
    return spec
