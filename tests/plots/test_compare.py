"""Pictures of several results, by what they draw."""

import numpy as np

from brdyn.plots.compare import _curve, _panels


def test_a_panel_keeps_its_height_beside_many_runs():
    def height(runs):
        curves = {f"run {number}": _curve(np.arange(1, 4), np.zeros(3), 3) for number in range(runs)}
        figure = _panels([("speed", "rad", curves)], 1)
        figure.draw_without_rendering()
        return figure.axes[0].get_position().height * figure.get_figheight()

    assert abs(height(12) - height(2)) < 0.1
