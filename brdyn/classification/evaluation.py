"""How well a trained classifier does."""

from __future__ import annotations

import torch
from torch import Tensor

from brdyn.classification.augment import Augmentation, AugmentSettings
from brdyn.classification.pixels import PixelSet
from brdyn.classification.saved import VITRM, Classifier

AT_ONCE = 512


def class_scores(classifier: Classifier, images: PixelSet, steps: int = 1) -> Tensor:
    """Class scores `(n, classes)` of every image, on the CPU; a ViTRM takes `steps` recursion steps."""
    network = classifier.network
    device = next(network.parameters()).device
    normalise = Augmentation(AugmentSettings(), images.classes, classifier.mean, classifier.std).normalised
    found = []
    with torch.no_grad():
        for pixels in images.pixels.split(AT_ONCE):
            ready = normalise(pixels.to(device))
            scores = network(ready, steps).scores if classifier.name == VITRM else network(ready)
            found.append(scores.float().cpu())
    return torch.cat(found)


def accuracy(classifier: Classifier, images: PixelSet, steps: int = 1) -> float:
    """Share of the images that are classified right."""
    guesses = class_scores(classifier, images, steps).argmax(1)
    return float((guesses == images.labels.cpu()).double().mean())
