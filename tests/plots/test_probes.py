"""Pictures of probes, by what they draw."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from brdyn.plots import plot_examples, plot_layer_scores
from brdyn.probes import LayerProbe
from brdyn.probes.baselines import BASELINE
from brdyn.probes.counts import PAIRS, SCORES
from brdyn.probes.layer_result import CLASSES, RUNS


def test_models_stand_in_their_order_also_where_they_were_read_from_a_file():
    """A file of tensors has them by name."""
    rows = [(model, "12", "linear", "miou", 0.5, 0.4, 0.7, 0.0, 1.0) for model in ("teacher", "raptor")]
    empty = {"pairs": PAIRS, "runs": RUNS}
    said = {f"said {model}": np.zeros((1, 2, 2), np.int16) for model in ("raptor", "teacher")}
    found = LayerProbe(
        task="segmentation",
        scores=pd.DataFrame(rows, columns=SCORES),
        classes=pd.DataFrame([("teacher", "12", "linear", "sky", 1.0, 4.0)], columns=CLASSES),
        **{name: pd.DataFrame(columns=columns) for name, columns in empty.items()},
        sets={},
        words={"miou": "mean IoU"},
        notes=(),
        sizes={"fit": 1, "test": 1},
        counted=pd.DataFrame(),
        examples={"image": np.zeros((1, 2, 2, 3), np.uint8), "score": np.array([1.0]),
                  "truth": np.zeros((1, 2, 2), np.int16), **said},
    )  # fmt: skip
    panels = plot_examples(found, title="a ViT").axes
    assert [axes.get_title() for axes in panels] == ["image", "truth", "teacher", "raptor"]


def test_many_classes_and_long_names_are_told_apart():
    """No colour twice in a legend, and no heading over another."""
    models = ["vit_small_patch14_dinov2.lvd142m", "raptor of vit_small_patch14_dinov2.lvd142m"]
    classes = [(models[0], "12", "linear", f"class {number}", 1.0, 4.0) for number in range(40)]
    truth = np.arange(25, dtype=np.int16).reshape(1, 5, 5)
    found = LayerProbe(
        task="segmentation",
        scores=pd.DataFrame([(model, "12", "linear", "miou", *[0.5] * 5) for model in models], columns=SCORES),
        classes=pd.DataFrame(classes, columns=CLASSES),
        **{name: pd.DataFrame(columns=columns) for name, columns in {"pairs": PAIRS, "runs": RUNS}.items()},
        sets={},
        words={"miou": "mean IoU"},
        notes=(),
        sizes={"fit": 1, "test": 1},
        counted=pd.DataFrame(),
        examples={"image": np.zeros((1, 5, 5, 3), np.uint8), "score": np.array([1.0]), "truth": truth,
                  **{f"said {model}": truth for model in models}},
    )  # fmt: skip
    figure = plot_examples(found, title="a ViT")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len({patch.get_facecolor() for patch in legend.get_patches()}) == len(legend.get_patches()) == 25
    headings = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(left.x1 <= right.x0 for left, right in pairwise(headings))


def test_every_model_has_a_colour_of_its_own():
    models = [f"model {number}" for number in range(6)]
    found = LayerProbe(
        task="segmentation",
        scores=pd.DataFrame([(model, "12", "linear", "miou", *[0.5] * 5) for model in models], columns=SCORES),
        **{name: pd.DataFrame(columns=columns) for name, columns in {"pairs": PAIRS, "runs": RUNS}.items()},
        classes=pd.DataFrame(columns=CLASSES), sets={}, words={"miou": "mean IoU"}, notes=(),
        sizes={"fit": 1, "test": 1}, counted=pd.DataFrame(),
    )  # fmt: skip
    figure = plot_layer_scores(found, title="a heading far too long for the width of a picture of scores, " * 2)
    figure.draw_without_rendering()
    assert figure.axes[0].title.get_window_extent().x1 <= figure.bbox.x1
    lines = figure.axes[0].lines
    assert len({str(line.get_color()) for line in lines if line.get_label().startswith("model")}) == 6


def test_void_is_grey_and_no_class():
    """In the truth, and where a head says the number of void."""
    truth = np.array([[[0, 1], [-1, 1]]], np.int16)
    names = ["sky", "road", "unlabelled"]
    found = LayerProbe(
        task="segmentation",
        scores=pd.DataFrame([("a ViT", "12", "linear", "miou", *[0.5] * 5)], columns=SCORES),
        classes=pd.DataFrame([("a ViT", "12", "linear", name, 1.0, 4.0) for name in names], columns=CLASSES),
        **{name: pd.DataFrame(columns=columns) for name, columns in {"pairs": PAIRS, "runs": RUNS}.items()},
        sets={}, words={"miou": "mean IoU"}, notes=(), sizes={"fit": 1, "test": 1}, counted=pd.DataFrame(),
        images={"train": {"targets": {"ignore": 2}}},
        examples={"image": np.zeros((1, 2, 2, 3), np.uint8), "score": np.array([1.0]), "truth": truth,
                  "said a ViT": np.array([[[0, 2], [1, 1]]], np.int16)},
    )  # fmt: skip
    figure = plot_examples(found, title="a ViT")
    said = [patch.get_label() for patch in figure.legends[0].get_patches()]
    assert said == ["sky", "road", "void"]
    *_, grey = (patch.get_facecolor() for patch in figure.legends[0].get_patches())
    assert grey[0] == grey[1] == grey[2] < 1
    for axes, void in zip(figure.axes[1:], ([[0, 0], [1, 0]], [[0, 1], [0, 0]]), strict=True):
        image = axes.images[0]
        colours = image.cmap(image.norm(image.get_array()))
        np.testing.assert_array_equal((colours == grey).all(-1), np.array(void, bool))


@pytest.mark.parametrize(
    ("said", "extend"),
    [((1.5, 2.5), "neither"), ((0.5, 2.0), "min"), ((2.0, 5.0), "max"), ((0.5, 5.0), "both")],
)
def test_depths_beyond_those_that_are_true_are_marked(said, extend):
    empty = {"pairs": PAIRS, "runs": RUNS, "classes": CLASSES}
    found = LayerProbe(
        task="depth",
        **{name: pd.DataFrame(columns=columns) for name, columns in empty.items()},
        scores=pd.DataFrame([("a ViT", "12", "linear", "rmse", *[0.1] * 4, 1.0)], columns=SCORES),
        sets={},
        words={"rmse": "RMSE (m)"},
        notes=(),
        sizes={"fit": 1, "test": 1},
        counted=pd.DataFrame(),
        examples={
            "image": np.zeros((1, 1, 2, 3), np.uint8),
            "truth": np.array([[[1.0, 3.0]]]),
            "score": np.array([0.1]),
            "said a ViT": np.array([[said]]),
        },
    )
    *panels, bar = plot_examples(found, title="a ViT").axes
    assert (bar.get_ylabel(), len(panels)) == ("depth (m)", 3)
    assert panels[-1].images[0].colorbar.extend == extend


def test_the_legend_of_sets_of_layers_is_inside_the_picture():
    places = ["6", "12", "1+2+3+4", "9+10+11+12", "3+6+9+12", "2+6+10+12"]
    rows = [("a ViT", place, "linear", "accuracy", 0.5, 0.4, 0.7, 0.0, 1.0) for place in places]
    empty = {"pairs": PAIRS, "runs": RUNS, "classes": CLASSES}
    found = LayerProbe(
        task="classification",
        scores=pd.DataFrame(rows, columns=SCORES),
        **{name: pd.DataFrame(columns=columns) for name, columns in empty.items()},
        sets=dict(zip(("chosen", "last 4", "regular", "phase ends"), places[2:], strict=True)),
        words={"accuracy": "accuracy"},
        notes=(),
        sizes={"fit": 1, "test": 1},
        counted=pd.DataFrame(),
        baseline=pd.DataFrame([("accuracy", 0.1, 0.0, 0.2)], columns=BASELINE),
    )
    figure = plot_layer_scores(found, title="a ViT")
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


@pytest.mark.parametrize("layers", [("12",), ("6", "12")])
def test_the_interval_of_one_layer_is_drawn_too(layers):
    rows = [("a ViT", layer, "linear", "accuracy", 0.5, 0.4, 0.7, 0.0, 1.0) for layer in layers]
    empty = {"pairs": PAIRS, "runs": RUNS, "classes": CLASSES}
    found = LayerProbe(
        task="classification",
        scores=pd.DataFrame(rows, columns=SCORES),
        **{name: pd.DataFrame(columns=columns) for name, columns in empty.items()},
        sets={},
        words={"accuracy": "accuracy"},
        notes=(),
        sizes={"fit": 1, "test": 1},
        counted=pd.DataFrame(),
    )
    (drawn,) = plot_layer_scores(found, title="a ViT").axes[0].collections
    extents = drawn.get_paths()[0].get_extents()
    assert (extents.ymin, extents.ymax) == pytest.approx((0.4, 0.7))
