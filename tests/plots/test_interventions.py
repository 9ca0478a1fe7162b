"""Pictures of interventions, read back from the figures."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from brdyn.interventions import Repair, Surgery
from brdyn.phases import segment
from brdyn.plots import plot_final_angles, plot_growth, plot_layers, plot_matrices, plot_repair, themed
from brdyn.plots.style import GROUP_COLOURS, INK, QUIET, look_of

LAYERS = 4


@pytest.fixture
def phases():
    labels = np.array([0, 0, 1, 1])
    return segment((labels[:, None] == labels[None]).astype(float), k=2)


@pytest.fixture
def repair(phases):
    angles = pd.DataFrame(
        {"start": start, "eps": eps, "target": target, "group": group, "perturbed": target in (group, "all"),
         "layer": layer, "mean": eps * (1 + start) + layer, "low": 0.1, "high": 0.2, "sd": 0.1, "n_images": 3}
        for start in range(LAYERS + 1)
        for eps in (0.1, 0.5)
        for target in ("cls", "all")
        for group in ("cls", "patches")
        for layer in range(start, LAYERS + 1)
    )  # fmt: skip
    growth = angles[(angles["layer"] == LAYERS) & angles["perturbed"] & (angles["start"] < LAYERS)]
    return Repair(angles, growth.drop(columns=["layer", "perturbed"]).assign(half_repair=np.nan), phases)


def test_final_angles_by_start(repair, phases):
    figure = plot_final_angles(repair, phases, title="a model")
    assert [axes.get_title() for axes in figure.axes] == ["noise on cls", "noise on all"]
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == LAYERS + 1]
    assert len(curves) == 4
    np.testing.assert_allclose(curves[0].get_ydata(), repair.final("cls", "cls", 0.5))
    assert curves[0].get_linestyle() == "-"
    assert curves[1].get_color() == GROUP_COLOURS["patches"]
    assert curves[2].get_linestyle() == "--"
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert texts == ["cls", "patches", "eps 0.5", "eps 0.1"]


@pytest.mark.parametrize("plot", [plot_final_angles, plot_growth])
def test_no_size_of_noise_is_left_out(repair, phases, plot):
    """Past three line styles these come again, paler."""
    sizes = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    angles, growth = (
        pd.concat([table[table["eps"] == 0.5].assign(eps=eps, mean=eps) for eps in sizes])
        for table in (repair.angles, repair.growth)
    )
    figure = plot(Repair(angles, growth, phases), phases, title="a model")
    curves = [line for line in figure.axes[0].lines if line.get_color() == GROUP_COLOURS["cls"]]
    assert [line.get_ydata()[0] for line in curves] == list(sizes)
    assert len({(line.get_linestyle(), line.get_alpha()) for line in curves}) == len(sizes)
    legend = figure.axes[1].get_legend()
    named = [line for line in legend.get_lines() if line.get_label().startswith("eps")]
    assert [line.get_label() for line in named] == [f"eps {eps:g}" for eps in sizes]
    looks = [[(line.get_linestyle(), line.get_alpha()) for line in lines] for lines in (named, curves)]
    assert looks[0] == looks[1]


def test_growth_has_a_line_at_zero_and_only_perturbed_groups(repair, phases):
    figure = plot_growth(repair, phases, title="a model")
    colours = {line.get_color() for line in figure.axes[0].lines if len(line.get_xdata()) == LAYERS}
    assert colours == {GROUP_COLOURS["cls"]}
    assert figure.axes[0].lines[-1].get_ydata()[0] == 0


def test_repair_has_a_panel_for_each_group_and_target(repair, phases):
    figure = plot_repair(repair, phases, eps=0.5, title="a model")
    panels = [axes for axes in figure.axes if axes.lines]
    assert len(panels) == 4
    assert len(panels[0].lines) == LAYERS + 1
    np.testing.assert_array_equal(panels[0].lines[2].get_xdata(), [2, 3, 4])
    np.testing.assert_allclose(panels[0].lines[2].get_ydata(), [3.5, 4.5, 5.5])


@pytest.fixture
def surgery(phases):
    def row(kind, layers, phase, readout, measure, mean):
        return {"kind": kind, "layers": layers, "phase": phase, "order": (), "readout": readout, "measure": measure,
                "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "sd": 0.1, "n_images": 3}  # fmt: skip

    rows = [
        row("swap", (first, second), 0, readout, measure, 10 * first + second)
        for readout, measure in (
            ("cls", "relative_error"),
            ("patches", "relative_error"),
            ("head", "agreement"),
        )
        for first in range(1, LAYERS)
        for second in range(first + 1, LAYERS + 1)
    ]
    for readout in ("cls", "patches"):
        rows += [row("delete", (layer,), 0, readout, "relative_error", layer) for layer in range(1, LAYERS + 1)]
        for kind, mean in (("shuffle_within", 0.2), ("shuffle_across", 0.7)):
            rows += [row(kind, (1, 2), phase, readout, "relative_error", mean) for phase in (1, 2)]
    return Surgery(pd.DataFrame(rows), None, LAYERS, phases)


def test_matrices_show_every_readout_and_the_head(surgery):
    figure = plot_matrices(surgery, "swap", title="a model")
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["cls", "patches", "classification head"]
    shown = panels[0].images[0].get_array()
    assert shown[1, 3] == shown[3, 1] == 24
    assert shown.mask.tolist() == np.eye(LAYERS, dtype=bool).tolist()
    assert panels[0].images[0].get_clim() == (12, 34)  # of the pairs: no zero of the diagonal
    assert panels[2].images[0].get_array().mask.trace() == LAYERS
    assert len(panels[0].patches) == 2 * 2  # each phase framed twice, white under colour


def test_layers_show_deletions_and_shuffles(surgery):
    deleted, shuffled = plot_layers(surgery, title="a model").axes
    np.testing.assert_array_equal(deleted.lines[0].get_ydata(), [1, 2, 3, 4])
    assert [tick.get_text() for tick in shuffled.get_xticklabels()] == ["1–2", "3–4"]
    filled, hollow = shuffled.collections[:2]
    np.testing.assert_allclose(filled.get_offsets()[:, 1], 0.2)
    np.testing.assert_allclose(hollow.get_offsets()[:, 1], 0.7)
    assert len(filled.get_facecolor())
    assert not len(hollow.get_facecolor())
    bars = [line.get_color() for line in shuffled.lines if len(line.get_xdata()) == 2]
    assert set(bars) == {INK, QUIET}
    assert not {INK, QUIET} & set(GROUP_COLOURS.values()) - {GROUP_COLOURS["x"]}


def test_groups_of_any_name_are_drawn_and_told_apart(surgery):
    """Of a model of one's own; the same group looks the same in both panels."""
    named = {"cls": "summary", "patches": "memory"}
    own = replace(surgery, table=surgery.table.replace({"readout": named}))
    deleted, shuffled = plot_layers(own, title="a model").axes
    looks = [look_of(readout, own.readouts) for readout in own.readouts]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == 2
    assert [line.get_color() for line in deleted.lines[:2]] == [look["color"] for look in looks]
    filled = [points for points in shuffled.collections if len(points.get_facecolor())]
    assert [to_hex(points.get_facecolor()[0]).upper() for points in filled] == [look["color"] for look in looks]


def test_every_start_is_seen_in_the_dark(repair, phases):
    with themed("dark"):
        figure = plot_repair(repair, phases, eps=0.5, title="a model")
    ground, colours = luminance(figure.get_facecolor()), [line.get_color() for line in figure.axes[0].lines]
    ratios = [(max(one, ground) + 0.05) / (min(one, ground) + 0.05) for one in map(luminance, colours)]
    assert len(ratios) == LAYERS + 1
    assert min(ratios) > 2


def luminance(colour):
    """Relative, as WCAG has it."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
