"""Which networks can learn from one image at once, by what torch itself refuses."""

from contextlib import nullcontext

import pytest
import torch

from brdyn.classifiers import Classifier, ClassifierRecipe, train_classifier
from brdyn.classifiers.pixels import PixelSet
from brdyn.errors import UsageError
from brdyn.training.shares import fewest_at_once


@pytest.mark.parametrize(
    ("network", "size", "fewest"), [("resnet18", 32, 2), ("resnet18", 64, 1), ("vit-tiny12", 8, 1)]
)
def test_one_image_is_refused_where_it_is_one_value_a_channel(network, size, fewest):
    classifier = Classifier.new(network, ("a", "b"), size, [0.5] * 3, [0.1] * 3)
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    assert fewest_at_once(classifier.network, classifier.blank()) == fewest
    assert all(bool((value == before[name]).all()) for name, value in classifier.network.state_dict().items())
    alone = pytest.raises(ValueError, match="more than 1 value per channel") if fewest == 2 else nullcontext()
    with alone:
        classifier.network.train()(classifier.blank())


@pytest.mark.parametrize(("size", "may"), [(32, False), (64, True)])
def test_a_resnet_learns_in_pieces_of_one_larger_image(size, may):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=rng)
    images = PixelSet(pixels, torch.arange(4) % 2, ("a", "b"), "noise")
    classifier = Classifier.new("resnet18", images.names, size, *images.statistics())
    recipe = ClassifierRecipe(epochs=1, batch_size=4, accumulate=4)
    with nullcontext() if may else pytest.raises(UsageError, match=r"batch of 4 in 4 pieces .* larger images one"):
        assert train_classifier(classifier, images, recipe).images == 4
