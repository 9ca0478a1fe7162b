"""Training a classifier: it learns, resumes bit for bit, and comes back from disk as it was."""

import json
from dataclasses import asdict

import pytest
import torch

from brdyn.classifiers import Classifier, PixelSet, train_classifier
from brdyn.classifiers.saved import is_classifier
from brdyn.errors import BrdynError, UsageError
from brdyn.training import Checkpoints, Session
from tests.classifiers.small import NETWORKS, Killed, new, pictures, recipe


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns(name):
    classifier = new(name)
    plain = recipe(epochs=25, operations=0, mixup=0.0, cutmix=0.0)
    history = train_classifier(classifier, pictures(), plain, validation=pictures(30), n_sup=2)
    assert history.validation[-1]["accuracy"] > 0.9
    assert not classifier.network.training


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
        train_classifier(killed, pictures(), options, n_sup=3, session=Session(checkpoints=checkpoints, report=kill))
    resumed = new(name)
    saved = checkpoints.latest()
    assert saved.step == 6
    train_classifier(resumed, pictures(), options, n_sup=3, session=Session(resume=saved))
    for first, second in zip(expected.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_comes_back_from_disk(name, tmp_path):
    classifier = new(name)
    classifier.save_pretrained(tmp_path / "run", recipe=asdict(recipe()))
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
