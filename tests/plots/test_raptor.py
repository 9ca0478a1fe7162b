"""The picture of a fit, read back."""

import numpy as np

from brdyn.plots import plot_fit
from brdyn.training import History


def test_losses_and_validation_of_each_stage():
    first = History(
        [{"step": step, "lr": 0.1, "block 1": 1 / step, "block 2": 2 / step} for step in (5, 10)],
        [{"step": 10, "r2 block 1": 0.5, "r2 block 2": 0.25}],
    )
    second = History([{"step": 5, "lr": 0.1, "raptor": -0.2}])
    figure = plot_fit({1: first, 2: second}, title="a model")
    losses, other, validation, empty = figure.axes
    np.testing.assert_allclose(losses.lines[1].get_ydata(), [0.4, 0.2])
    assert losses.get_yscale() == "log"
    assert losses.lines[0].get_marker() == "o"  # two points would be hard to see without
    assert other.get_yscale() == "linear"  # a loss with a cosine can be negative
    assert [line.get_ydata()[0] for line in validation.lines] == [0.5, 0.25]
    assert not empty.lines
    assert [axes.get_title() for axes in (losses, other)] == ["stage 1", "stage 2"]
