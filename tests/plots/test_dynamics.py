"""Curves over depth, read back from the figures."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from brdyn.errors import UsageError
from brdyn.phases import segment
from brdyn.plots import plot_curves, plot_panels
from brdyn.plots.style import GROUP_COLOURS


def rows(statistic, group, first, values):
    values = np.asarray(values, dtype=float)
    layers = np.arange(first, first + len(values))
    return pd.DataFrame(
        {"statistic": statistic, "unit": f"{statistic} unit", "group": group, "layer": layers, "mean": values,
         "low": values - 0.1, "high": values + 0.1, "sd": 1.0, "n_images": 4}
    )  # fmt: skip


@pytest.fixture
def phases():
    labels = np.repeat([0, 1, 2], 2)
    return segment((labels[:, None] == labels[None]).astype(float), k=3)


@pytest.fixture
def table():
    return pd.concat(
        [
            rows("norm", "cls", 0, range(7)),
            rows("norm", "patches", 0, range(7, 0, -1)),
            rows("speed", "cls", 1, range(6)),
            rows("turning", "cls", 1, range(5)),
        ]
    )


def bands(axes):
    return sorted((p.get_x(), p.get_x() + p.get_width()) for p in axes.patches if isinstance(p, Rectangle))


def test_groups_have_their_colours_and_bands_their_layers(table, phases):
    axes = plot_curves(table, "norm", phases, title="a model").axes[0]
    assert [line.get_color() for line in axes.lines] == [GROUP_COLOURS["cls"], GROUP_COLOURS["patches"]]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), range(7, 0, -1))
    assert bands(axes) == [(0.5, 2.5), (4.5, 6.5)]  # states made by blocks 1-2 and 5-6
    assert axes.get_ylabel() == "norm unit"
    assert axes.get_title() == "a model"
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(-0.1)


def test_update_l_is_what_block_l_does(table, phases):
    figure = plot_panels(table, {"left": ["speed"], "right": ["turning"]}, phases, title="a model")
    left, right = figure.axes
    assert bands(left) == bands(right) == [(0.5, 2.5), (4.5, 6.5)]
    assert left.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert right.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert "block l" in left.get_xlabel()
    assert [axes.get_title() for axes in figure.axes] == ["left", "right"]


def test_what_is_0_by_definition_is_left_out_and_joins_nothing(phases):
    table = rows("estimation_variance", "cls", 1, [5, 0, 7, 0, 9, 0])
    axes = plot_curves(table, "estimation_variance", phases, title="a model").axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 5]], [[3, 7]], [[5, 9]]]
    assert axes.get_ylim()[0] > 1
    assert "left out" in axes.get_xlabel()


def test_more_statistics_than_line_styles_are_refused(table, phases):
    panels = {"too many": ["norm", "speed", "turning", "convergence"]}
    with pytest.raises(UsageError, match="give some another panel"):
        plot_panels(table, panels, phases, title="a model")


def test_one_legend_below_names_every_group_once(table, phases):
    figure = plot_panels(table, {"size": ["norm"], "motion": ["speed"]}, phases, title="a model")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cls", "patches"]
    assert not any(axes.get_legend() for axes in figure.axes)


def test_groups_of_other_names_look_the_same_in_every_picture(phases):
    """Though a statistic may be of some of them."""
    table = pd.concat(
        [*(rows("norm", group, 0, range(7)) for group in ("summary", "memory", "prompt")),
         *(rows("speed", group, 1, range(6)) for group in ("memory", "prompt"))]
    )  # fmt: skip
    norm, speed = (
        [(line.get_color(), line.get_marker()) for line in plot_curves(table, name, phases, title="").axes[0].lines]
        for name in ("norm", "speed")
    )
    assert len({colour for colour, _ in norm}) == len({marker for _, marker in norm}) == 3
    assert not {colour for colour, _ in norm} & set(GROUP_COLOURS.values())
    assert speed == norm[1:]


def test_the_interval_of_a_value_that_stands_alone_is_a_line(phases):
    table = rows("estimation_variance", "cls", 1, [5, 0, 7, 0, 9, 0])
    axes = plot_curves(table, "estimation_variance", phases, title="a model").axes[0]
    lines = [line for one in axes.collections if isinstance(one, LineCollection) for line in one.get_segments()]
    np.testing.assert_allclose(lines, [[[1, 4.9], [1, 5.1]], [[3, 6.9], [3, 7.1]], [[5, 8.9], [5, 9.1]]])
