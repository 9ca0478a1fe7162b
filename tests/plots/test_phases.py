"""What the pictures show, read back from the figures."""

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle

from brdyn.phases import phase_evidence, segment
from brdyn.plots import plot_gain_curve, plot_similarity, plot_stability, plot_steps, themed
from brdyn.plots.beyond import say_beyond
from brdyn.plots.style import layer_ticks, new_figure, ordered_colours, paper_style
from tests.phases.similarities import similarity_of


@pytest.fixture
def phases():
    labels = np.repeat([0, 1, 2], [3, 2, 1])
    matrix = np.where(labels[:, None] == labels[None], 1.0, 0.2)
    shifted = np.roll(np.roll(matrix, 1, 0), 1, 1)
    return segment(similarity_of(matrix, np.stack([matrix] * 3 + [shifted])), k=3), matrix


def test_heatmap_frames_each_phase(phases):
    found, matrix = phases
    figure = plot_similarity(matrix, found, kind="cosine", title="a model")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), matrix)
    frames = {(p.get_x(), p.get_y(), p.get_width()) for p in axes.patches if isinstance(p, Rectangle)}
    assert frames == {(0.5, 0.5, 3), (3.5, 3.5, 2), (5.5, 5.5, 1)}
    assert axes.get_title() == "a model"
    assert figure.axes[1].get_ylabel() == "cosine similarity"


def test_gain_curve_shows_what_is_cut_beyond_a_drift(phases):
    found, _ = phases
    axes = plot_gain_curve(found, title="t").axes[0]
    drift, cut, chosen = axes.lines
    assert set(drift.get_ydata()) == {0}
    excess = [100 * (one.cut_share - one.drift_share) for one in found.segmentations.values()]
    np.testing.assert_allclose(cut.get_ydata(), excess)
    assert max(excess) > 1
    assert chosen.get_xdata()[0] == 3


def test_steps_show_the_trend_and_mark_the_boundaries():
    depth = np.array([0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20])
    evidence = phase_evidence(1 - np.exp(-abs(depth[:, None] - depth) / 20))
    axes = plot_steps(evidence, title="t").axes[0]
    trend, step, boundary = axes.lines
    np.testing.assert_allclose(trend.get_ydata(), evidence.trend)
    np.testing.assert_allclose(step.get_ydata(), evidence.steps)
    np.testing.assert_allclose(boundary.get_xydata(), [[6, evidence.steps[5]]])
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(evidence.limit.max())
    assert axes.get_yscale() == "log"


def test_steps_of_few_layers_say_why_there_are_none():
    figure = plot_steps(phase_evidence(np.ones((4, 4))), title="t")
    assert "4 layers are too few" in figure.axes[0].texts[0].get_text()


def test_stability_prints_the_frequency_of_each_boundary(phases):
    found, _ = phases
    axes = plot_stability(found, unit="image", title="t").axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), found.frequency[1:])
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[3, 3] == f"{found.stability[0]:.2f}".lstrip("0")


def test_stability_says_how_far_it_goes(phases):
    assert plot_stability(phases[0], unit="image", title="t").axes[0].get_ylabel() == "number of phases k"
    matrix = np.where(np.equal.outer(labels := np.repeat([0, 1], 6), labels), 1.0, 0.2)
    axes = plot_stability(segment(similarity_of(matrix, np.stack([matrix] * 3)), k=2), unit="image", title="t").axes[0]
    assert axes.get_yticks()[-1] == 8
    assert axes.get_ylabel() == "number of phases k (of up to 12)"


def test_stability_is_legible_in_the_dark(phases):
    """Numbers and frames stand on the colours of the image, which no theme changes; none is wider than its cell."""
    with themed("dark"):
        figure = plot_stability(phases[0], unit="image", title="t")
    axes = figure.axes[0]
    for text in axes.texts:
        layer, k = (int(place) for place in text.get_position())
        share = phases[0].frequency[k - 1, layer - 1]
        assert abs(share - (text.get_color() != "white")) >= 0.5
    assert {to_hex(one.get_edgecolor()) for one in axes.patches} == {"#ffffff", "#000000"}
    for layers, numbers in ((20, True), (24, False)):
        labels = np.repeat([0, 1], layers // 2)
        matrix = np.where(labels[:, None] == labels[None], 1.0, 0.2)
        found = segment(similarity_of(matrix, np.stack([matrix] * 3)), k=2)
        assert bool(plot_stability(found, unit="image", title="t").axes[0].texts) == numbers


def test_what_lies_beyond_is_written_on_the_ground_of_the_theme():
    with themed("dark"), paper_style():
        axes = new_figure(4, 3).subplots()
        say_beyond(axes, ["▼ cls: -7 at layer 3"])
    (text,) = axes.texts  # above the panel, on the ground of the figure
    ink, ground = (sum(to_rgb(one)) for one in (text.get_color(), axes.figure.get_facecolor()))
    assert ink - ground > 2


def test_without_bootstrap_the_picture_says_so(phases):
    _, matrix = phases
    figure = plot_stability(segment(matrix), unit="none (procrustes has no bootstrap)", title="t")
    assert "has no bootstrap" in figure.axes[0].texts[0].get_text()


def test_with_one_possible_phase_the_picture_says_so(phases):
    _, matrix = phases
    similarity = similarity_of(matrix, np.stack([matrix] * 2))
    figure = plot_stability(segment(similarity, min_size=4), unit="image", title="t")
    assert "only one phase" in figure.axes[0].texts[0].get_text()


def test_ticks_stay_readable():
    assert layer_ticks(12) == list(range(1, 13))
    assert len(layer_ticks(40)) <= 12
    assert layer_ticks(40)[-1] <= 40


def test_curves_are_seen_in_the_dark(phases):
    """Those of no token group, and those that have an order."""
    with themed("dark"), paper_style():
        figure = plot_gain_curve(phases[0], title="t")
        ordered = [sum(colour) for colour in ordered_colours(8)]
    shown = [sum(to_rgb(line.get_color())) for line in figure.axes[0].lines if line.get_label() == "max-cut"]
    assert min(shown) > 1.5  # of 3
    assert min(ordered) > 1
    assert ordered == sorted(ordered, reverse=True)
    assert sum(ordered_colours(8)[-1]) < 1
