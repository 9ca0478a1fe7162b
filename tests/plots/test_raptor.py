"""Pictures of fits, read back."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from brdyn.plots import (
    plot_fidelity,
    plot_fit,
    plot_ladder,
    plot_layer_fidelity,
    plot_partitions,
    plot_skill,
)
from brdyn.plots.beyond import mark_beyond
from brdyn.plots.raptor import SKILLS
from brdyn.plots.style import GROUP_COLOURS
from brdyn.raptor import Span
from brdyn.training import History


def test_losses_and_validation_of_each_stage():
    first = History(
        [{"step": step, "lr": 0.1, "block 1": 1 / step, "block 2": 2 / step} for step in (5, 10)],
        [{"step": 10, "r2 block 1": 0.5, "skill block 1": 0.25}],
    )
    second = History([{"step": 5, "lr": 0.1, "raptor": -0.2}])
    figure = plot_fit({1: first, 2: second}, title="a model")
    losses, other, validation, empty = figure.axes
    np.testing.assert_allclose(losses.lines[1].get_ydata(), [0.4, 0.2])
    assert losses.get_yscale() == "log"
    assert losses.lines[0].get_marker() == "o"  # two points would be hard to see without
    assert other.get_xscale() == other.get_yscale() == "linear"  # a loss with a cosine can be negative
    assert [bar.get_width() for bar in validation.patches] == [0.5, 0.25]  # one point would be no curve
    assert [label.get_text() for label in validation.get_yticklabels()] == [
        "R² block 1",
        "skill block 1",
    ]
    assert [text.get_text() for text in validation.texts] == ["0.5", "0.25"]
    assert "step 10" in validation.get_xlabel()
    assert "no R²" in empty.texts[0].get_text()
    assert [axes.get_title() for axes in (losses, other)] == ["stage 1", "stage 2"]


def test_a_fit_over_the_images_that_it_saw():
    rows = [{"step": step, "r2 block 1": 0.1 * step, "skill block 1": 0.2} for step in (2, 4)]
    history = History([{"step": step, "lr": 0.1, "block 1": 1 / step} for step in (2, 4)], rows)
    losses, validation = plot_fit({1: history}, title="a model", batch_size=50).axes
    assert losses.lines[0].get_xdata().tolist() == [100, 200]
    assert [line.get_xdata().tolist() for line in validation.lines] == [[100, 200]] * 2
    assert [line.get_label() for line in validation.lines] == [
        "R² block 1",
        "skill block 1",
    ]
    assert validation.get_ylabel() == "R² and skill over doing nothing,\nvalidation images"
    assert validation.get_xlabel() == "images seen (published: 20,000,000)"
    assert validation.get_xlim()[1] == 206


def test_a_long_fit_has_a_dozen_marks_and_its_legend_beside_the_curves():
    rows = [{"step": step, "r2 block 1": 0.5, "skill block 1": 0.2} for step in range(1, 201)]
    history = History([{"step": step, "lr": 0.1, "block 1": 1 / step} for step in range(1, 201)], rows)
    figure = plot_fit({1: history}, title="a model")
    for line in (line for axes in figure.axes for line in axes.lines):
        assert line.get_marker() == "o"
        assert len(line.get_xdata()[:: line.get_markevery()]) == 12
    figure.draw_without_rendering()
    assert figure.axes[0].get_legend() is None  # of one curve
    assert figure.axes[1].get_legend().get_window_extent().x0 >= figure.axes[1].get_window_extent().x1
    label = figure.axes[1].yaxis.label.get_window_extent()
    assert 0 <= label.y0 < label.y1 <= figure.bbox.y1
    assert figure.axes[1].get_legend().get_texts()[0].get_text() == "R² block 1"


def fidelity_table(scale=1.0):
    rows = [
        {"mode": mode, "statistic": statistic, "group": group, "layer": layer, "mean": scale * 0.1 * layer,
         "low": 0.0, "high": 1.0}
        for mode in ("autoregressive", "one-step")
        for statistic in ("r2", "relative_error", "cosine", "epsilon", *SKILLS)
        for group in ("cls", "patches", "all")
        for layer in range(1, 7)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_fidelity_by_layer_group_and_mode():
    figure = plot_fidelity(fidelity_table(), [Span(0, 0, 4), Span(1, 4, 6)], title="k=2")
    assert len(figure.axes) == 6
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["autoregressive", "one-step"]
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 6]
    assert [line.get_label() for line in curves] == ["cls", "patches"]
    np.testing.assert_allclose(curves[0].get_ydata(), np.arange(1, 7) / 10)
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2] == [4.5]


def test_skill_over_each_baseline_with_a_line_at_none():
    figure = plot_skill(fidelity_table(), [Span(0, 0, 4), Span(1, 4, 6)], title="k=2")
    assert [axes.get_title() for axes in figure.axes[:3]] == list(SKILLS.values())
    curves = [line for line in figure.axes[2].lines if len(line.get_xdata()) == 6]
    assert [line.get_label() for line in curves] == ["cls", "patches"]
    np.testing.assert_allclose(curves[1].get_ydata(), np.arange(1, 7) / 10)
    assert any(list(line.get_ydata()) == [0, 0] for line in figure.axes[2].lines)
    assert plot_skill(fidelity_table(-1000), [Span(0, 0, 6)], title="k=1").axes[0].get_ylim()[0] == -1


def test_bad_fits_do_not_flatten_the_others():
    figure = plot_fidelity(fidelity_table(-1000), [Span(0, 0, 6)], title="k=1")
    assert figure.axes[0].get_ylim()[0] == -1
    arrows = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert [line.get_color() for line in arrows] == [GROUP_COLOURS["cls"], GROUP_COLOURS["patches"]]
    np.testing.assert_array_equal(arrows[0].get_xydata(), [[layer, -1] for layer in range(1, 7)])
    assert figure.axes[0].texts[0].get_text().splitlines() == [
        "▼ cls: -600 at layer 6, 6 layers in all", "▼ patches: -600 at layer 6, 6 layers in all",
    ]  # fmt: skip
    assert not figure.axes[1].texts  # a relative error is not cut off
    figure = plot_layer_fidelity({"k=1": fidelity_table(-1000), "k=2": fidelity_table()}, title="k")
    assert [axes.get_title() for axes in figure.axes] == ["cls", "patches"]
    assert figure.axes[0].get_ylim()[0] == -1
    assert figure.axes[0].texts[0].get_text() == "▼ k=1: -600 at layer 6, 6 layers in all"
    curves = [line for line in figure.axes[1].lines if line.get_label() in ("k=1", "k=2")]
    np.testing.assert_allclose(curves[1].get_ydata(), np.arange(1, 7) / 10)


def test_arrows_of_curves_stand_beside_each_other_and_words_above_the_panel():
    figure = plot_fidelity(fidelity_table(-1000), [Span(0, 0, 6)], title="k=1")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    first, second = (line for line in axes.lines if line.get_marker() == "v")
    at = [line.get_transform().transform(line.get_xydata())[:, 1] for line in (first, second)]
    np.testing.assert_allclose(at[1] - at[0], 6 / 72 * figure.dpi, rtol=1e-5)
    words = axes.texts[0].get_window_extent()
    assert axes.get_window_extent().y1 < words.y0 < words.y1 <= axes.title.get_window_extent().y0
    alone = Figure().subplots()
    mark_beyond(alone, [1, 2], [-2, 0], -1, "red", "one")
    mark_beyond(alone, [1, 2], [0, -2], -1, "blue", "another")  # elsewhere: none is hidden
    assert {line.get_gid() for line in alone.lines} == {"beyond 0"}


def test_partitions_show_every_fit_and_their_means():
    fits = pd.DataFrame(
        {
            "k": [2, 2, 3, 2],
            "partition": ["a", "b", "b", "b"],
            "kept": [0.9, 0.5, 0.6, 0.7],
            "r2": [1, 2, 3, 4],
        }
    )
    figure = plot_partitions(fits, {"kept": "share", "r2": "R²"}, title="x")
    first = figure.axes[0]
    assert [len(marks.get_offsets()) for marks in first.collections] == [1, 3]
    np.testing.assert_allclose(first.lines[1].get_ydata(), [0.6, 0.6])
    assert [axes.get_ylabel() for axes in figure.axes] == ["share", "R²"]


def test_no_partition_is_left_out_and_none_looks_like_another():
    fits = pd.DataFrame({"k": 2, "partition": list("abcdefghijkl"), "r2": np.arange(12)})
    axes = plot_partitions(fits, {"r2": "R²"}, title="x").axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == list(range(12))
    assert len({str(line.get_color()) for line in axes.lines}) == 12


def test_a_group_that_one_raptor_alone_has_gets_its_panel():
    fidelity = fidelity_table()
    tables = {"k=1": fidelity[fidelity["group"] != "patches"], "k=2": fidelity[fidelity["group"] != "cls"]}
    for order in (tables, dict(reversed(tables.items()))):
        panels = plot_layer_fidelity(order, title="k").axes
        assert {axes.get_title() for axes in panels} == {"cls", "patches"}
        assert all(axes.get_xticks()[-1] == 6 for axes in panels)


def test_ladder_keeps_the_order():
    fits = pd.DataFrame(
        {"kept": [0.1, 0.9], "kept_low": [0.0, 0.8], "kept_high": [0.2, 1.0], "r2": [-50.0, 0.5]},
        index=["first", "second"],
    )
    figure = plot_ladder(fits, {"kept": "share", "r2": "R²"}, title="x")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert axes.get_yticks().tolist() == [1, 0]  # the first at the top
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.9]
    left, right = figure.axes[1].get_xlim()
    assert left == -1
    assert 0.5 < right < 1  # as far as the values go, however far one is below the left end
    assert [text.get_text() for text in figure.axes[1].texts] == [" ◀ -50"]
