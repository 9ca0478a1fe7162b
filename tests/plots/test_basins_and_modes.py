"""Pictures of basins and modes, read back from the figures."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from brdyn.measures.basins import UNITS, Basins
from brdyn.measures.found_modes import PREDICTORS, Modes
from brdyn.measures.null import TWIN, Null
from brdyn.phases import segment
from brdyn.plots import plot_basins, plot_mode_errors, plot_projection, plot_spectra
from brdyn.plots.modes import MOST_ERROR, MOST_MODULUS
from brdyn.plots.null import HATCHES
from brdyn.plots.style import GROUP_COLOURS, INK

LAYERS = 4


@pytest.fixture
def phases():
    labels = np.array([0, 0, 0, 1])
    return segment((labels[:, None] == labels[None]).astype(float), k=2)


@pytest.fixture
def basins():
    rows = [
        {"statistic": name, "unit": unit, "group": group, "layer": layer, "mean": layer + shift, "low": layer,
         "high": layer + 1, "sd": 1.0, "n_images": 6}
        for name, unit in UNITS.items()
        for group, shift in (("cls", 0.0), ("patches", 0.5))
        for layer in range(LAYERS + 1)
    ]  # fmt: skip
    projection = pd.DataFrame(
        {"position": np.repeat(range(6), LAYERS + 1), "label": np.repeat([3, 3, 3, 8, 8, 8], LAYERS + 1),
         "layer": np.tile(range(LAYERS + 1), 6), "x": np.arange(30.0), "y": np.arange(30.0) ** 2}
    )  # fmt: skip
    return Basins(pd.DataFrame(rows), projection, (0.6, 0.2), "cls", 2, 0.4, 6, 2, {3: "cat"})


def twins_of(basins, count):
    tables = [
        basins.table.assign(mean=basins.table["mean"] + number, **{TWIN: number}) for number in range(1, count + 1)
    ]
    return Null(("random",) * count, {"dynamics": pd.concat(tables, ignore_index=True)}, ())


def test_twins_within_and_between_classes_are_told_apart(basins, phases):
    spread = plot_basins(basins, phases, title="a model", null=twins_of(basins, 2)).axes[0]
    assert len(set(HATCHES.values())) == len(HATCHES)
    bands = [(one.get_hatch(), one.get_linestyle()[0][1]) for one in spread.collections if one.get_hatch()]
    assert [hatch for hatch, _ in bands] == [HATCHES["-"]] * 2 + [HATCHES["--"]] * 2
    assert [dashes is None for _, dashes in bands] == [True, True, False, False]
    keys = [one.get_hatch() for one in spread.get_legend().get_patches()]
    assert keys == [HATCHES["-"], HATCHES["--"]]


def test_one_twin_is_a_thin_line_as_its_legend_says(basins, phases):
    figure = plot_basins(basins, phases, title="a model", null=twins_of(basins, 1))
    spread, key = figure.axes[0], figure.legends[0].legend_handles[-1]
    assert not [one for axes in figure.axes for one in axes.collections if one.get_hatch()]
    thin = [line for line in spread.lines if line.get_marker() == "None"]
    assert [line.get_linestyle() for line in thin] == ["-", "-", "--", "--"]
    np.testing.assert_array_equal(thin[0].get_ydata(), np.arange(5) + 1)
    assert isinstance(key, Line2D)
    assert key.get_label() == "untrained twins (1)"
    assert key.get_linewidth() == thin[0].get_linewidth()


def test_chance_is_written_beside_the_curves(basins, phases):
    figure = plot_basins(basins, phases, title="a model")
    figure.draw_without_rendering()
    (chance,) = figure.axes[2].texts
    assert chance.get_window_extent().x0 >= figure.axes[2].get_window_extent().x1


def test_basins_show_both_angles_their_ratio_and_chance(basins, phases):
    spread, ratio, purity = plot_basins(basins, phases, title="a model").axes
    assert [line.get_linestyle() for line in spread.lines[:4]] == ["-", "-", "--", "--"]
    np.testing.assert_array_equal(spread.lines[1].get_ydata(), np.arange(5) + 0.5)
    assert spread.get_ylabel() == "angle (radians)"
    assert ratio.lines[-1].get_ydata()[0] == 1
    assert purity.lines[-1].get_ydata()[0] == basins.chance
    assert "2 nearest" in purity.get_title()


def test_projection_ends_at_the_class_means(basins):
    axes = plot_projection(basins, title="a model").axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["cat", "class 8", "embedding"]  # by name where the images have one
    ends = [line for line in axes.lines if line.get_label() in names]
    assert len({line.get_marker() for line in ends}) == 3  # told apart in grey
    assert not {to_hex(line.get_color()) for line in axes.lines} & {to_hex(one) for one in GROUP_COLOURS.values()}
    paths = [line for line in axes.lines if len(line.get_xdata()) == LAYERS + 1]
    own = basins.projection.query("label == 8").groupby("layer")["x"].mean()
    np.testing.assert_allclose(paths[1].get_xdata(), own)
    assert "60%" in axes.get_xlabel()
    assert "layer 4" in axes.get_xlabel()


@pytest.fixture
def modes():
    rows = [
        {"phase": phase, "group": group, "steps": steps, "predictor": predictor, "measure": measure,
         "mean": number + steps, "low": 0.0, "high": 1.0, "sd": 0.1, "n_images": 3}
        for phase, length in ((1, 3), (2, 1))
        for group in ("cls", "patches")
        for steps in range(1, length + 1)
        for number, predictor in enumerate(PREDICTORS)
        for measure in ("relative_error", "cosine")
    ]  # fmt: skip
    spectrum = pd.DataFrame(
        {"phase": [1, 1, 2, 2], "group": ["cls", "patches"] * 2, "index": 0, "real": [0.5, 0.6, 3.0, 0.8],
         "imaginary": [0.1, 0.2, 0.3, 0.4], "modulus": [0.51, 0.63, 3.02, 0.89]}
    )  # fmt: skip
    rows_fitted = {"cls": 12, "patches": 384}
    return Modes(pd.DataFrame(rows), spectrum, {}, 1e-3, None, 12, 3, True, rows_fitted, 192)


def test_mode_errors_are_at_the_layers_they_predict(modes, phases):
    figure = plot_mode_errors(modes, phases, title="a model")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cls\nunderdetermined: 12 rows for 192 directions", "patches"]
    assert "centred" in figure.axes[0].get_ylabel()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["mean state", "identity", "endpoint map", "one operator"]
    arrows = [line for line in figure.axes[1].lines if line.get_linestyle() == "None"]
    lines = [line for line in figure.axes[1].lines if line not in arrows]
    places = {tuple(line.get_xdata()): tuple(line.get_ydata()) for line in lines}
    assert set(places) == {(1, 2, 3), (4,)}
    operator = [line for line in lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
    np.testing.assert_array_equal(operator[0].get_ydata(), [1, 2, 3])
    assert figure.axes[0].get_ylim() == (0, MOST_ERROR)
    said = figure.axes[1].texts[0].get_text().splitlines()
    assert "▲ one operator, phase 1: 3 at layer 3" in said  # of 1, 2, 3
    operators = [line for line in arrows if line.get_color() == INK]
    assert [line.get_xydata().tolist() for line in operators] == [[[3, MOST_ERROR]]]


def test_spectra_have_a_panel_for_each_phase(modes, phases):
    first, second = plot_spectra(modes, phases, title="a model").axes
    assert (first.get_title(), second.get_title()) == ("layers 1–3", "layer 4")
    points = first.collections[1]
    np.testing.assert_allclose(points.get_offsets(), [[0.6, 0.2]])
    assert to_hex(points.get_facecolor()[0]).upper() == GROUP_COLOURS["patches"]
    assert first.get_xlim() == second.get_xlim() == first.get_ylim() == (-MOST_MODULUS, MOST_MODULUS)
    assert not first.texts


def test_spectra_are_shown_as_large_as_they_are(modes, phases):
    spectrum = modes.spectrum.assign(real=0.5, imaginary=0.0, modulus=[2.0, 0.5, 0.5, 0.5])
    first, second = plot_spectra(replace(modes, spectrum=spectrum), phases, title="a model").axes
    assert first.get_xlim() == second.get_xlim() == pytest.approx((-2.15, 2.15), abs=0.01)  # 1.1 times the 99th of 100


def test_spectra_say_what_lies_outside(modes, phases):
    spectrum = modes.spectrum.assign(real=[0.5, -4.5, 3.0, 0.8], modulus=[0.51, 4.51, 3.02, 0.89])
    first, second = plot_spectra(replace(modes, spectrum=spectrum), phases, title="a model").axes
    assert [text.get_text() for text in first.texts] == ["1 outside, up to 4.5 from 0"]
    assert not second.texts


def test_classes_that_are_left_out_are_counted(basins):
    def said(count):
        labels = basins.projection["position"] % count
        figure = plot_projection(replace(basins, projection=basins.projection.assign(label=labels)), title="a model")
        return figure.axes[0].get_legend().get_title().get_text()

    places = basins.projection
    more = places.assign(position=places["position"] + places["position"].nunique())
    basins = replace(basins, projection=pd.concat([places, more]))
    assert (said(10), said(12)) == ("", "10 of 12 classes")
