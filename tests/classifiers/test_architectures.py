"""Networks by name: as published, refused where they cannot be, and nothing elsewhere asks for a name."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from brdyn.classifiers import Classifier, class_scores, train_classifier
from brdyn.classifiers.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
    build,
)
from brdyn.errors import UsageError
from brdyn.models import load_model
from tests.classifiers.small import new, pictures, recipe


@pytest.mark.parametrize(("name", "millions"), [("vit-small", 16.9), ("vit-base", 85.1), ("vit-large", 302.4)])
def test_published_sizes(name, millions):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build(name, 10, 32).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vit-smal", {}, "unknown network"),
        ("resnet18", {"drop_path": 0.1}, "neither drop-path"),
        ("vit-small", {"heads": 7}, "split among 7 heads"),
        ("vit-small", {"drop_path": 1.0}, "drop-path 1.0"),
        (
            "vit-small",
            {"patch": 5},
            "5-pixel patch of 'vit-small'; use for instance 30 or 35",
        ),
    ],
)
def test_networks_that_cannot_be_built(name, options, words):
    with pytest.raises(UsageError, match=words):
        build(name, 10, 32, **options)


@pytest.mark.parametrize(("width", "hidden"), [(448, 1951), (704, 480)])
def test_the_mlp_has_the_units_asked_for(width, hidden):
    with torch.device("meta"):
        network = build("vit-small", 10, 8, width=width, heads=4, depth=1, hidden=hidden)
    assert network.blocks[0].mlp.fc1.out_features == hidden


@dataclass(frozen=True, kw_only=True)
class Linear(Architecture):
    is_transformer = False

    def options(self):
        return {"bias": bool}

    def build(self, classes, image_size, *, bias=True):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, classes, bias))


def test_one_from_outside_is_trained_kept_and_measured(monkeypatch, tmp_path):
    monkeypatch.setitem(ARCHITECTURES, "linear", Linear(name="linear"))
    made = Classifier.new("linear", ("r", "g", "b"), 8, [0.3] * 3, [0.3] * 3, bias=False)
    train_classifier(made, pictures(), recipe(epochs=25, operations=0, mixup=0.0, cutmix=0.0))
    made.save_pretrained(tmp_path)
    again = Classifier.from_pretrained(tmp_path)
    assert again.options == {"bias": False}
    assert torch.equal(class_scores(again, pictures()), class_scores(made, pictures()))
    assert (class_scores(again, pictures()).argmax(1) == pictures().labels).float().mean() > 0.9
    with pytest.raises(UsageError, match="is a linear: it has no tokens to follow"):
        load_model(str(tmp_path))


def test_a_vitrm_is_supervised_and_read_at_the_steps_asked_for():
    network, images = new("vitrm").network.eval(), torch.randn(2, 3, 8, 8)
    task = architecture_of("vitrm").task(network, None, pictures(), n_sup=3, steps=2)
    assert (task.n_sup, task.steps, len(task.validation)) == (3, 2, 90)
    for steps in (1, 2):
        read = architecture_of("vitrm").scores(network, images, steps)
        assert torch.equal(read, network(images, steps).scores)
    assert not torch.equal(read, network(images, 1).scores)
