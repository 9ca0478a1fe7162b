"""Every picture says whose it is: the model, how many images, and their size."""

from itertools import pairwise

import pandas as pd
import pytest

import brdyn
from brdyn.classifiers import ClassifierEvaluation, Grid
from brdyn.classifiers.evaluation import Recursion
from brdyn.plots import draw
from brdyn.plots.style import fitted, log_scale, new_figure
from tests.cli.commands import ROOT

RECORDED = {
    "phases/imgfocus_vits14": ("imgfocus_vits14", "800 images of 224 × 224 pixels"),
    "phases/imgfocus_vits14_random0": ("imgfocus_vits14 (random weights)", "800 images of 224 × 224 pixels"),
    "dynamics/cifar_vit12": ("cifar_vit12", "1,000 images of 32 × 32 pixels"),
    "perturb/cifar_vit12": ("cifar_vit12", "256 images of 32 × 32 pixels"),
    "interventions/cifar_vit12": ("cifar_vit12", "400 images of 32 × 32 pixels"),
    "raptor/cifar_vit12": ("Raptor of cifar_vit12", "20,000 images of 32 × 32 pixels"),
    "raptor/cifar_vit12_eval": (
        "3 blocks for the 12 layers of cifar_vit12",
        "2,000 images of 32 × 32 pixels",
    ),
}


def heading_of(figure):
    return figure.get_suptitle() or figure.axes[0].get_title()


@pytest.mark.parametrize("folder", RECORDED)
def test_a_picture_names_the_model_the_images_and_their_size(folder):
    model, images = RECORDED[folder]
    pictures = draw(brdyn.read(ROOT / "analyses" / "results" / folder))
    assert pictures
    for name, figure in pictures.items():
        first, second = heading_of(figure).split("\n")
        assert first.removesuffix(f": {name}") == model
        assert second.startswith(images)


def test_a_picture_of_a_classifier_names_it_and_its_images():
    accuracy = {"accuracy": [0.5], "low": [0.4], "high": [0.6], "latency_ms": [2.0], "steps": [1]}
    bins = pd.DataFrame({"steps": [1], "probability": [0.5], "right": [0.5], "images": [96]})
    adaptive = pd.DataFrame({"mean_steps": [1.0], "accuracy": [0.5]})
    recursion = Recursion(pd.DataFrame(accuracy), bins, adaptive, 96)
    test = {"images": 96, "image_size": [32, 48]}
    for figure in draw(ClassifierEvaluation("vitrm", 1, "", test, recursion=recursion)).values():
        assert heading_of(figure) == "vitrm\n96 images of 32 × 48 pixels"
    cells = pd.DataFrame({"n": [1], "n_sup": [2], "accuracy": [0.5]})
    assert heading_of(draw(Grid(cells, ("n1_n_sup2",), test={"images": 10}))["grid"]).endswith("tested on 10 images")


def test_a_long_heading_is_broken_where_the_figure_ends():
    path = "runs/" + "a-long-name/" * 9
    lines = fitted(f"Raptor of {path}", 4.0).splitlines()
    assert "".join(lines).replace(" ", "") == f"Raptorof{path}"
    assert max(map(len, lines)) <= 52


@pytest.mark.parametrize("decimals", [0.35, 0.75, 1.2, 3.0, 7.0])
@pytest.mark.parametrize("start", [1.0, 1.9, 2.1, 3.3, 5.1, 9.5])
@pytest.mark.parametrize("height", [1.5, 3.0])
def test_a_logarithmic_axis_can_be_read(decimals, start, height):
    """Two numbers at least are in view, as they are written out, and none on top of another."""
    figure = new_figure(4, height)
    axes = figure.subplots()
    log_scale(axes)
    low, high = 0.01 * start, 0.01 * start * 10**decimals
    axes.set_ylim(low, high)
    figure.draw_without_rendering()
    labels = [label for label in axes.get_yticklabels(which="both") if label.get_text()]
    seen = [label for label in labels if low <= float(label.get_text()) <= high]
    assert len(seen) >= 2
    for label in seen:
        assert label.get_position()[1] == pytest.approx(float(label.get_text()), rel=1e-3)
    boxes = sorted((label.get_window_extent() for label in seen), key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
