"""Recursion past its training, and stopping on the way, against what the model says step by step."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from brdyn.classifiers import Classifier, evaluate_classifier
from brdyn.classifiers.adaptive import adaptive_speed, stopped_at
from brdyn.classifiers.evaluation import evaluate_recursion
from brdyn.classifiers.fixed_points import StepPastTraining, recursion_past_training
from brdyn.errors import UsageError
from brdyn.measures.fixed_points import spectral_radius
from tests.classifiers.small import new, pictures
from tests.conftest import scramble

STEPS = 3


@pytest.fixture(autouse=True)
def few_products(monkeypatch):
    """Known Jacobians are in tests/measures."""
    quick = partial(spectral_radius, products=2)
    monkeypatch.setattr("brdyn.measures.fixed_points.spectral_radius", quick)
    monkeypatch.setattr("brdyn.classifiers.fixed_points.AT_ONCE", 20)


@pytest.fixture(scope="module")
def classifier():
    found = new("vitrm", latent_steps=2)
    scramble(found.network.requires_grad_(False), 3)
    with torch.no_grad():  # so that steps move what they pass on
        for parameter in found.network.network.parameters():
            parameter.mul_(3)
    return found


@pytest.fixture(scope="module")
def images():
    return pictures(30)


@pytest.fixture(scope="module")
def after(classifier, images):
    """The streams after each step, and what the heads say of them."""
    network = classifier.network.eval()
    with torch.no_grad():
        streams = [network.begin(classifier.normalised(images.pixels))]
        for _ in range(2 * STEPS):
            streams.append(network.step(streams[-1]))
        return streams, [network.read(one) for one in streams[1:]]


def moved(before, after):
    old, new = (torch.cat((one.y, one.z), 1).flatten(1) for one in (before, after))
    return (new - old).norm(dim=1) / old.norm(dim=1)


def test_steps_past_training_are_those_of_the_model(classifier, images, after):
    streams, read = after
    found = recursion_past_training(classifier, images, factor=2, trained=STEPS)
    assert found.lengths == {"recursion step": STEPS}
    for number in range(1, 2 * STEPS + 1):
        right = (read[number - 1].scores.argmax(1) == images.labels).double().mean()
        said = {name: found.curve("recursion step", name)["mean"][number] for name in ("step", "accuracy", "halting")}
        assert said["accuracy"] == pytest.approx(float(right))
        assert said["halting"] == pytest.approx(float(read[number - 1].halting.sigmoid().mean()), rel=1e-4)
        expected = moved(streams[number - 1], streams[number])
        assert said["step"] == pytest.approx(float(expected.mean()), rel=1e-3)
    of_y = (streams[1].y - streams[0].y).flatten(1).norm(dim=1) / streams[0].y.flatten(1).norm(dim=1)
    assert found.curve("recursion step", "step", "y")["mean"][1] == pytest.approx(float(of_y.mean()), rel=1e-3)


def test_the_image_is_no_part_of_the_state(classifier, images):
    """It stays as it is, and a Jacobian of all streams would have the eigenvalue 1."""
    quiet = Classifier.new("vitrm", classifier.names, 8, *images.statistics(), **classifier.options)
    with torch.no_grad():
        for layer in quiet.network.network:
            for linear in (layer.attn.proj, layer.mlp.fc2):
                linear.weight.zero_()
                linear.bias.zero_()
    found = recursion_past_training(quiet, images, factor=4)
    assert found.shares("recursion step") == {"come to a limit": 1.0}  # a layer that adds nothing is the identity
    metric = StepPastTraining(quiet.network, 4)
    assert metric.layout.sizes() == {"y": 1, "z": 4}


def test_what_each_step_is_worth(classifier, images, after):
    """Likelihood, calibration of the likeliest class and step norm, written out."""
    streams, read = after
    rows = evaluate_recursion(classifier, images, most=STEPS, thresholds=(0.5,)).steps.set_index("steps")
    for step in range(1, STEPS + 1):
        scores = read[step - 1].scores
        losses = functional.cross_entropy(scores, images.labels, reduction="none").double()
        row = rows.loc[step]
        assert row["nll"] == pytest.approx(float(losses.mean()), rel=1e-4)
        half = stats.t.ppf(0.975, len(losses) - 1) * float(losses.std()) / len(losses) ** 0.5
        assert [row["nll_low"], row["nll_high"]] == pytest.approx([row["nll"] - half, row["nll"] + half], abs=1e-4)
        assert row["step_norm"] == pytest.approx(float(moved(streams[step - 1], streams[step]).mean()), rel=1e-3)
        sure, right = scores.softmax(1).amax(1).numpy(), (scores.argmax(1) == images.labels).numpy()
        error = 0.0
        for low in np.arange(10) / 10:
            inside = (sure >= low) & (sure < low + 0.1)
            if inside.any():
                error += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
        assert row["class_calibration_error"] == pytest.approx(error, abs=1e-5)


def test_stopping_is_held_against_as_many_fixed_steps():
    """Three steps, four images, by hand: they stop after 1, 1, 2 and 3 steps, 1.75 on average."""
    right = np.array([[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]], dtype=bool)
    sure = np.array([[0.9, 0.8, 0.1, 0.2], [0.9, 0.9, 0.7, 0.3], [0.9, 0.9, 0.9, 0.4]])
    row = stopped_at(right, sure, 0.5)
    assert (row["mean_steps"], row["accuracy"]) == (1.75, 0.5)
    assert row["fixed"] == pytest.approx(0.25 * 0.25 + 0.75 * 0.75)  # a quarter takes one step, the rest two
    gains = np.array([1 - 1, 0 - 0.75, 0 - 0, 1 - 0.75])
    half = 3.182446 * gains.std(ddof=1) / 2
    assert [row["gain"], row["gain_low"], row["gain_high"]] == pytest.approx(
        [gains.mean(), gains.mean() - half, gains.mean() + half]
    )
    last = stopped_at(right, sure, 1.0)
    assert (last["mean_steps"], last["fixed"], last["gain"]) == (3, 1, 0)


def test_the_speed_of_stopping_is_that_of_the_model_that_stops(classifier, images, monkeypatch):
    """A clock that gives a millisecond for each step that an image takes."""

    def timed(run, device):
        return 1e-3 * float(run()[1].sum())

    monkeypatch.setattr("brdyn.classifiers.adaptive.timed", timed)
    rates = adaptive_speed(classifier, classifier.network, images, (0.0, 1.0), most=4)
    assert rates == pytest.approx([1000, 250])


def test_what_has_no_recursion_is_not_taken_beyond_it(classifier, images):
    found = evaluate_classifier(classifier, images, most=1, thresholds=(0.5,), beyond=2, trained=2)
    assert found.beyond.lengths == {"recursion step": 2}
    assert any("recursion step, applied 4 times" in line for line in found.remarks())
    with pytest.raises(UsageError, match="`beyond=8` is of recursion steps, and vit-tiny12 has none; drop it"):
        evaluate_classifier(new("vit-tiny12"), images, beyond=8)
    with pytest.raises(UsageError, match="`beyond=1` times its length is not past a phase; use 2 to"):
        evaluate_classifier(classifier, images, beyond=1)
