"""Pictures of recursion, read back."""

import numpy as np
import pandas as pd

from brdyn.plots import plot_halting, plot_recursion


def test_accuracy_and_latency_against_steps():
    steps = pd.DataFrame(
        {
            "steps": [1, 2],
            "accuracy": [0.5, 0.6],
            "low": [0.4, 0.5],
            "high": [0.6, 0.7],
            "latency_ms": [3.0, 6.0],
        }
    )
    adaptive = pd.DataFrame({"mean_steps": [1.2], "accuracy": [0.58]})
    figure = plot_recursion(steps, adaptive, title="a run")
    accuracy, speed = figure.axes
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [0.5, 0.6])
    np.testing.assert_allclose(accuracy.collections[-1].get_offsets(), [[1.2, 0.58]])
    np.testing.assert_allclose(speed.lines[0].get_ydata(), [3, 6])
    assert speed.get_ylim()[0] == 0


def test_halting_has_a_curve_for_each_number_of_steps():
    bins = {"probability": [0.1, 0.9, 0.8], "right": [0.2, 0.7, 0.9], "images": [1200, 30, 1230]}
    share, images = plot_halting(pd.DataFrame({"steps": [1, 1, 2], **bins}), title="a run").axes
    assert [line.get_xdata()[0] for line in share.lines[1:]] == [0.1, 0.8]
    texts = [text.get_text() for text in share.get_legend().get_texts()]
    assert texts == ["1 (1,230 images)", "2 (1,230 images)"]
    assert [line.get_ydata().tolist() for line in images.lines] == [[1200, 30], [1230]]
