"""Accuracy, calibration and adaptive halting, against what the model says image by image."""

import numpy as np
import pytest
import torch

from brdyn.checked_json import parse
from brdyn.classifiers import evaluate_classifier
from brdyn.classifiers.adaptive import adaptive_speed
from brdyn.classifiers.architectures import called
from brdyn.classifiers.evaluation import (
    Recursion,
    _speed,
    accuracy,
    class_scores,
    evaluate_recursion,
    reliability,
)
from brdyn.classifiers.pixels import PixelSet
from brdyn.classifiers.saved import Classifier
from brdyn.errors import UsageError
from brdyn.plots import plot_recursion
from brdyn.store import to_json
from tests.conftest import scramble

NAMES = ("r", "g", "b")


@pytest.fixture
def images():
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (70, 3, 8, 8), dtype=torch.uint8, generator=rng)
    return PixelSet(pixels, torch.arange(70) % 3, NAMES, "noise")


@pytest.fixture
def classifier():
    options = {"patch": 4, "width": 12, "depth": 1, "heads": 2, "hidden": 16}
    found = Classifier.new("vitrm", NAMES, 8, [0.5] * 3, [0.1] * 3, **options)
    scramble(found.network, 3)
    found.network.eval()
    return found


def test_every_number_of_steps(classifier, images, monkeypatch):
    monkeypatch.setattr("brdyn.classifiers.evaluation.AT_ONCE", 32)
    found = evaluate_recursion(classifier, images, most=3, thresholds=(0.0, 0.45, 1.0))
    for steps in (1, 2, 3):
        row = found.steps.set_index("steps").loc[steps]
        assert row["accuracy"] == pytest.approx(accuracy(classifier, images, steps))
        assert row["low"] < row["accuracy"] < row["high"]
        assert row["gflop"] == classifier.flops(steps) / 1e9
        table = found.halting[found.halting["steps"] == steps]
        assert table["images"].sum() == 70
        assert (table["images"] * table["right"]).sum() / 70 == pytest.approx(row["accuracy"])
        assert (table["images"] * table["probability"]).sum() / 70 == pytest.approx(row["halting"])
    guesses = class_scores(classifier, images, 2).argmax(1).numpy()
    truth = images.labels.numpy()
    by_class = []
    for label in range(3):
        hits = ((guesses == label) & (truth == label)).sum()
        by_class.append(2 * hits / max(1, (guesses == label).sum() + (truth == label).sum()))
    assert found.steps.set_index("steps").loc[2, "macro_f1"] == pytest.approx(np.mean(by_class))


def test_adaptive_halting_is_that_of_the_model(classifier, images):
    mean = [0.5] * 3
    ready = (images.pixels / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / 0.1
    threshold = classifier.network(ready).halting.sigmoid().median().item()
    found = evaluate_recursion(classifier, images, most=4, thresholds=(0.0, threshold, 1.0)).adaptive
    outcome, taken = classifier.network.adaptive(ready, threshold, most=4)
    middle = found.iloc[1]
    assert middle["mean_steps"] == pytest.approx(taken.double().mean().item())
    assert middle["accuracy"] == pytest.approx((outcome.scores.argmax(1) == images.labels).double().mean().item())
    assert [middle[f"took_{step}"] for step in range(1, 5)] == pytest.approx(
        [(taken == step).double().mean().item() for step in range(1, 5)]
    )
    assert found["mean_steps"].tolist()[::2] == [1, 4]


def test_speed_by_hand(classifier, monkeypatch):
    """A clock of what a pass does, in milliseconds an image: the same for T steps as of a forward pass of T."""
    network, clock, taken, sizes = classifier.network, [0.0], [], set()

    def costing(name, milliseconds):
        does = getattr(network, name)

        def called(given):
            images = given if name == "begin" else given.x
            clock[0] += 1e-3 * milliseconds * len(images)
            taken.append(name)
            sizes.add(len(images))
            return does(given)

        monkeypatch.setattr(network, name, called)

    def timed(call, device):
        started = clock[0]
        call()
        return clock[0] - started

    for name, milliseconds in (("begin", 5), ("step", 1), ("read", 2)):
        costing(name, milliseconds)
    monkeypatch.setattr("brdyn.classifiers.evaluation.timed", timed)
    rows = _speed(network, 8, most=6)
    assert [row["steps"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert sizes == {1, 32}
    assert taken.count("step") == 6 * taken.count("read")  # not 1 + 2 + … + 6
    for row in rows:
        with torch.no_grad():
            alone = timed(lambda steps=row["steps"]: network(torch.zeros(1, 3, 8, 8), steps), None)
        assert row["latency_ms"] == pytest.approx(1e3 * alone)
        assert row["images_per_second"] == pytest.approx(1 / alone)


@pytest.mark.parametrize("count", [3, 70])
def test_speeds_are_of_as_many_images_at_once(classifier, images, monkeypatch, count):
    """Fixed and adaptive steps in one batch size, also where there are fewer images to test on."""
    network, taken, sizes = classifier.network, [], set()
    adaptive, begin = network.adaptive, network.begin
    monkeypatch.setattr(network, "adaptive", lambda batch, *given: taken.append(batch) or adaptive(batch, *given))
    monkeypatch.setattr(network, "begin", lambda batch: sizes.add(len(batch)) or begin(batch))
    monkeypatch.setattr(
        "brdyn.classifiers.adaptive.timed", lambda call, device: len(call.args[0]) / 1000 if call() else 0
    )
    few = PixelSet(images.pixels[:count], images.labels[:count], NAMES, "noise")
    assert adaptive_speed(classifier, network, few, (0.5, 1.0), most=2) == [1000, 1000]
    repeated = classifier.normalised(images.pixels[:count].repeat(11, 1, 1, 1)[:32])
    assert all(torch.equal(batch, repeated) for batch in taken)
    assert sizes == {32}
    _speed(network, 8, most=2)
    assert sizes == {1, 32}


def test_of_one_image_there_are_no_intervals_of_means(classifier, images):
    one = PixelSet(images.pixels[:1], images.labels[:1], NAMES, "noise")
    found = evaluate_classifier(classifier, one, most=2).recursion
    ends = [f"{name}_{end}" for name in ("nll", "step_norm") for end in ("low", "high")]
    assert found.steps[ends].isna().all(axis=None)
    assert found.steps[["nll", "step_norm"]].notna().all(axis=None)
    assert found.adaptive[["gain_low", "gain_high"]].isna().all(axis=None)
    again = Recursion.from_dict(parse(to_json(found.to_dict())))
    assert again.steps[ends].dtypes.eq(float).all()
    assert again == found
    assert all("points over as many fixed steps" in line for line in again.remarks())  # no interval
    assert plot_recursion(again.steps, again.adaptive, title="").axes


@pytest.mark.parametrize(
    ("name", "built", "said"),
    [
        ("vit-tiny12", {"drop_path": 0.1}, "vit-tiny12"),
        ("vit-tiny12", {"depth": 6, "width": 192}, "vit-tiny12 with depth 6"),
        ("vit-tiny12", {"depth": 12, "shared_blocks": 3}, "vit-tiny12 with shared blocks 3"),
        ("vitrm", {"width": 384, "latent_steps": 2}, "vitrm with latent steps 2"),
        ("resnet18", {"shared_stages": True}, "resnet18 with shared stages"),
        ("a net", {"depth": 2}, "a net"),
    ],
)
def test_a_network_is_called_by_what_was_built(name, built, said):
    assert called(name, built) == said


def test_an_evaluation_names_what_was_built(classifier, images):
    said = evaluate_classifier(classifier, images, most=1).answer()
    assert "vitrm with width 12, depth 1, heads 2, hidden 16 (" in said
    assert " in 1 step: vitrm" in said
    several = evaluate_classifier(classifier, images, most=3).answer()
    assert " (the best of 3 on these images, so optimistic): vitrm" in several


def test_calibration_by_hand():
    table = reliability(np.array([0.05, 0.95, 0.92, 1.0]), np.array([False, True, False, True]))
    assert table["bin"].tolist() == [0, 9]
    assert table["images"].tolist() == [1, 3]
    assert table["right"].tolist() == pytest.approx([0, 2 / 3])
    assert table["probability"].tolist() == pytest.approx([0.05, 2.87 / 3])


def test_what_cannot_be_evaluated(classifier, images):
    other = PixelSet(images.pixels, images.labels, ("x", "y", "z"), "others")
    with pytest.raises(UsageError, match="and the classifier 3"):
        evaluate_recursion(classifier, other)
    resnet = Classifier.new("resnet18", NAMES, 8, [0.5] * 3, [0.1] * 3)
    with pytest.raises(UsageError, match="resnet18 has no recursion steps"):
        evaluate_recursion(resnet, images)


def test_a_classifier_without_recursion_is_evaluated_as_it_is(images):
    """Accuracy with its interval by Wilson's score, written out."""
    resnet = Classifier.new("resnet18", NAMES, 8, [0.5] * 3, [0.1] * 3)
    resnet.network.eval()
    found = evaluate_classifier(resnet, images)
    share = accuracy(resnet, images)
    middle = (70 * share + 1.96**2 / 2) / (70 + 1.96**2)
    half = 1.96 * (70 * share * (1 - share) + 1.96**2 / 4) ** 0.5 / (70 + 1.96**2)
    assert found.recursion is None
    assert found.scores["accuracy"] == share
    assert [found.scores["low"], found.scores["high"]] == pytest.approx([middle - half, middle + half], abs=1e-4)
    assert found.test["images"] == 70
    assert found.flops == resnet.flops()
    assert f"{found.flops / 1e9:.3g} GFLOP an image" in found.answer()
    with pytest.raises(UsageError, match="`most=3` is of recursion steps, and resnet18 has none"):
        evaluate_classifier(resnet, images, most=3)
    with pytest.raises(UsageError, match="and the classifier 3"):
        evaluate_classifier(resnet, PixelSet(images.pixels, images.labels, ("x", "y", "z"), "others"))


def test_a_vitrm_is_evaluated_by_its_steps(classifier, images):
    found = evaluate_classifier(classifier, images, most=2, thresholds=(0.5,))
    assert found.scores is None
    expected = evaluate_recursion(classifier, images, most=2, thresholds=(0.5,))
    timeless = ["steps", "accuracy", "macro_f1", "halting", "calibration_error"]
    assert found.recursion.steps[timeless].equals(expected.steps[timeless])
    assert found.recursion.adaptive.drop(columns="images_per_second").equals(
        expected.adaptive.drop(columns="images_per_second")
    )
