"""Training a classifier: it learns, resumes bit for bit, and comes back from disk as it was."""

import json

import pytest
import torch

from brdyn.classification.architectures import build
from brdyn.classification.fit import train_classifier
from brdyn.classification.pixels import PixelSet
from brdyn.classification.recipe import ClassifierRecipe
from brdyn.classification.saved import Classifier, is_classifier
from brdyn.errors import BrdynError, UsageError
from brdyn.training import Checkpoints

NETWORKS = {
    "vitrm": {"patch": 4, "width": 12, "depth": 1, "heads": 2, "hidden": 16},
    "vit-tiny12": {"patch": 4, "width": 12, "depth": 1, "heads": 2, "hidden": 16},
}


def pictures(count=90):
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    pixels = torch.randint(0, 60, (count, 3, 8, 8), generator=rng)
    pixels[torch.arange(count), labels] += 120
    return PixelSet(pixels.to(torch.uint8), labels, ("r", "g", "b"), "made up")


def recipe(**changes):
    quick = {"epochs": 4, "warmup_epochs": 0, "batch_size": 30, "lr": 5e-3, "checkpoint_every": 3, "padding": 1,
             "log_every": 3}  # fmt: skip
    return ClassifierRecipe(**{**quick, **changes})


def new(name, **options):
    return Classifier.new(name, ("r", "g", "b"), 8, [0.3] * 3, [0.3] * 3, **{**NETWORKS[name], **options})


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns(name):
    classifier = new(name)
    plain = recipe(epochs=25, operations=0, mixup=0.0, cutmix=0.0)
    history = train_classifier(classifier, pictures(), plain, validation=pictures(30), n_sup=2)
    assert history.validation[-1]["accuracy"] > 0.9
    assert not classifier.network.training


class Killed(BaseException):
    """A stop that nothing inside catches."""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_killed_run_resumes_bit_for_bit(name, tmp_path):
    """With every augmentation, dropout, supervision and an average of the weights."""
    options = recipe(ema=0.9)
    expected = new(name)
    train_classifier(expected, pictures(), options, n_sup=3)
    checkpoints, killed = Checkpoints(tmp_path, {}), new(name)

    def kill(_, step, __):
        if step == 9:
            raise Killed

    with pytest.raises(Killed):
        train_classifier(killed, pictures(), options, n_sup=3, checkpoints=checkpoints, report=kill)
    resumed = new(name)
    saved = checkpoints.latest()
    assert saved.step == 6
    train_classifier(resumed, pictures(), options, n_sup=3, resume=saved)
    for first, second in zip(expected.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_comes_back_from_disk(name, tmp_path):
    classifier = new(name)
    classifier.save_pretrained(tmp_path / "run", recipe=recipe().to_dict())
    again = Classifier.from_pretrained(tmp_path / "run")
    images = torch.randn(2, 3, 8, 8)
    classifier.network.eval()
    ours, theirs = (one.network(images) for one in (again, classifier))
    assert torch.equal(ours[0], theirs[0])
    assert (again.names, again.image_size, again.mean) == (("r", "g", "b"), 8, (0.3, 0.3, 0.3))
    assert is_classifier(tmp_path / "run")
    assert not is_classifier(tmp_path)
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BrdynError, match="is the copy complete"):
        Classifier.from_pretrained(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "format": "other"}))
    with pytest.raises(UsageError, match="holds no classifier"):
        Classifier.from_pretrained(tmp_path / "run")


def test_other_classes_are_refused():
    wrong = PixelSet(pictures().pixels, pictures().labels, ("a", "b", "c"), "others")
    with pytest.raises(UsageError, match=r"'others' has 3 classes \(a, …\), and the classifier 3 \(r, …\)"):
        train_classifier(new("vitrm"), wrong, recipe())


def test_the_seed_draws_the_network():
    first, second, other = (new("vitrm", seed=seed).network.answer for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("width", "hidden"), [(448, 1951), (704, 480)])
def test_the_mlp_has_the_units_asked_for(width, hidden):
    with torch.device("meta"):
        network = build("vit-small", 10, 8, width=width, heads=4, depth=1, hidden=hidden)
    assert network.blocks[0].mlp.fc1.out_features == hidden
