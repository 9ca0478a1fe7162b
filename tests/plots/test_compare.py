"""Pictures of several results, by what they draw."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from brdyn import compare
from brdyn.measures.dynamics import Dynamics
from brdyn.plots import draw_comparison
from brdyn.plots.compare import _curve, _panels
from tests.reporting.built import evaluation
from tests.reporting.test_verdict import probed
from tests.test_summaries import PHASES, curve, grown, repair, surgery


def test_a_panel_keeps_its_height_beside_many_runs():
    def height(runs):
        curves = {f"run {number}": _curve(np.arange(1, 4), np.zeros(3), 3) for number in range(runs)}
        figure = _panels([("speed", "rad", curves)], 1)
        figure.draw_without_rendering()
        return figure.axes[0].get_position().height * figure.get_figheight()

    assert abs(height(12) - height(2)) < 0.1


def dynamics(*curves):
    return Dynamics(pd.DataFrame([one for rows in curves for one in rows]), PHASES, {})


def operated(readout, *kinds):
    found = surgery(*((kind, (1, 2)[: 1 + (kind == "swap")], 0.5) for kind in kinds))
    return replace(found, table=found.table.assign(readout=readout))


def of_groups(*groups):
    found = evaluation(0.5, 0.1)
    rows = pd.concat([found.fidelity.table.assign(group=group) for group in groups])
    return replace(found, fidelity=replace(found.fidelity, table=rows))


ALIKE = {
    "dynamics": (
        dynamics(curve("norm", "cls", [1, 2, 3, 4, 5])),
        dynamics(
            curve("norm", "patches", [1, 2, 3, 4, 6]),
            curve("norm", "cls", [5] * 5),
            curve("speed", "x", [0] * 4, 1),
        ),
        {"norm": 2, "speed": 1},
    ),
    "noise": (
        repair(grown(0.2, "cls", [-1, -2])),
        repair(grown(0.2, "patches", [-3]) + grown(0.2, "cls", [-5])),
        {"growth": 2},
    ),
    "surgery": (
        operated("cls", "delete", "swap"),
        operated("patches", "delete", "swap"),
        {"delete": 2, "swap": 1},
    ),
    "Raptors": (of_groups("cls"), of_groups("all", "patches"), {"fidelity": 3}),
}  # two results, and the panels of each picture


@pytest.mark.parametrize("kind", ALIKE)
def test_pictures_are_the_same_in_either_order(kind):
    """What one alone has is drawn as well."""
    first, second, panels = ALIKE[kind]
    drawn = []
    for results in ((first, second), (second, first)):
        pictures = draw_comparison(compare(*results))
        drawn.append({name: sorted(shown(axes) for axes in figure.axes if axes.lines or axes.images)
                      for name, figure in pictures.items()})  # fmt: skip
    assert drawn[0] == drawn[1]
    assert {name: len(axes) for name, axes in drawn[0].items()} == panels


def shown(axes):
    curves = sorted(str(line.get_xydata().tolist()) for line in axes.lines)
    image = [str(image.get_array()) for image in axes.images]
    return axes.get_title() if curves else "", axes.get_ylabel(), curves, image


def test_every_model_of_a_run_has_a_curve():
    one = probed()
    both = replace(one, scores=pd.concat([one.scores, one.scores.assign(model="raptor", value=0.1)]))
    (axes,) = draw_comparison(compare(one, both))["probe"].axes
    assert [line.get_ydata()[0] for line in axes.lines] == [0.4, 0.4, 0.1]
    assert [line.get_label().rpartition(", ")[2] for line in axes.lines[1:]] == ["vit", "raptor"]


def test_a_raptor_is_said_to_run_by_itself():
    axes = draw_comparison(compare(*[evaluation(0.5, 0.1)] * 2))["fidelity"].axes[0]
    assert (axes.get_title(), axes.get_ylabel()) == ("R², all", "R², autoregressive")


def test_curves_break_where_they_are_0_by_definition():
    """As in the picture of one result: at the last layer of each phase."""
    ends = [last for _, last in PHASES.intervals]
    values = [0 if layer in ends else 5 for layer in range(1, PHASES.layers + 1)]
    one = dynamics(curve("estimation_mean", "cls", values, 1), curve("norm", "cls", [0, *values]))
    pictures = draw_comparison(compare(one, one))
    shown = pictures["estimation_mean"].axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(shown, [value or np.nan for value in values])
    np.testing.assert_array_equal(pictures["norm"].axes[0].lines[0].get_ydata(), [0, *values])


def test_swaps_are_compared_of_groups_of_any_name():
    one = operated("summary", "swap")
    assert set(draw_comparison(compare(one, one))) == {"swap"}
