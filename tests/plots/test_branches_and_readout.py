"""Pictures of branches and of the read-out, read back from the figures."""

import numpy as np
import pandas as pd
import pytest

from brdyn.measures.null import Null
from brdyn.phases import segment
from brdyn.plots import plot_branches, plot_readout
from brdyn.plots.style import INK

LAYERS = 4


def rows(statistic, group, values):
    values = np.asarray(values, dtype=float)
    layers = np.arange(len(values)) + statistic.endswith("share")  # updates count from 1
    return pd.DataFrame(
        {"statistic": statistic, "unit": "a unit", "group": group, "layer": layers, "mean": values,
         "low": values - 0.05, "high": values + 0.1, "sd": 1.0, "n_images": 4}
    )  # fmt: skip


@pytest.fixture
def phases():
    labels = np.array([0, 0, 0, 1])
    return segment((labels[:, None] == labels[None]).astype(float), k=2)


def heights(axes, which):
    return [bar.get_height() for bar in axes.containers[which]]


def test_shares_are_stacked_to_one_where_there_is_an_update(phases):
    share = {"cls": [0.2, 0.4, np.nan, 0.8], "patches": [0.5, 0.5, 0.6, 0.7]}
    table = pd.concat([rows("attention_share", group, values) for group, values in share.items()])
    figure = plot_branches(table, phases, title="a model")
    cls, patches = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["cls", "patches"]
    assert heights(cls, 0) == pytest.approx([0.2, 0.4, 0.8])
    assert heights(cls, 1) == pytest.approx([0.8, 0.6, 0.2])  # the MLP, on top
    assert [bar.get_y() for bar in cls.containers[1]] == pytest.approx([0.2, 0.4, 0.8])
    assert [bar.get_x() + bar.get_width() / 2 for bar in cls.containers[0]] == pytest.approx([1, 2, 4])
    whisker = patches.containers[2].lines[2][0].get_segments()[0][:, 1]
    assert whisker.tolist() == pytest.approx([0.45, 0.6])
    ends = [line for line in patches.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in ends] == [3.5]  # the phase of blocks 1 to 3 ends
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MLP", "attention"]


def test_rescaling_and_twins_are_drawn_over_the_bars(phases):
    table = pd.concat([rows("attention_share", "cls", [0.2] * 4), rows("rescaling_share", "cls", [0.1, 0.2, 0.3, 0.4])])
    twins = rows("attention_share", "cls", [0.6] * 4).assign(twin=1)
    null = Null(("random", "random"), {"dynamics": pd.concat([twins, twins.assign(twin=2, mean=0.7)])})
    figure = plot_branches(table, phases, title="a model", null=null)
    axes = figure.axes[0]
    curve = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert (curve.get_xdata().tolist(), curve.get_ydata().tolist()) == ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])
    band = next(one for one in axes.collections if one.get_hatch())
    assert band.get_zorder() > max(bar.get_zorder() for bar in axes.patches)
    heights = band.get_paths()[0].vertices
    assert (heights[:, 0].min(), heights[:, 1].min(), heights[:, 1].max()) == pytest.approx((1, 0.6, 0.7))
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["MLP", "attention", "rescaling of the input", "untrained twins (2)"]


def test_the_read_out_marks_the_state_that_decides(phases):
    values = {"agreement": [0, 0.4, 0.5, 0.9, 1], "decided": [0, 0.2, 0.5, 0.9, 1], "kl": [2, 1, 0.5, 0.1, 0]}
    table = pd.concat([rows(f"readout_{name}", "head", one) for name, one in values.items()])
    figure = plot_readout(table, phases, title="a model", decided=(2.4, 2.0, 2.8))
    left, right = figure.axes  # no labels, no accuracy
    agreement, decided, mark = left.lines
    assert agreement.get_ydata().tolist() == values["agreement"]
    assert (decided.get_linestyle(), decided.get_ydata().tolist()) == ("--", values["decided"])
    assert (mark.get_color(), mark.get_xdata()[0]) == (INK, 2.4)
    assert right.lines[0].get_ydata().tolist() == values["kl"]
    assert right.get_ylabel() == "KL(final || state) (nats)"
    assert "decided at state 2.4 in the mean" in [text.get_text() for text in figure.legends[0].get_texts()]
    labelled = pd.concat([table, rows("readout_accuracy", "head", [0.1, 0.2, 0.3, 0.4, 0.5])])
    assert plot_readout(labelled, phases, title="a model").axes[2].lines[0].get_ydata()[-1] == 0.5
