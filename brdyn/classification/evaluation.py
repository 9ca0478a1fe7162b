"""How well a trained classifier does."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from brdyn.classification.pixels import PixelSet
from brdyn.classification.recipe import VITRM_NAME
from brdyn.classification.saved import Classifier
from brdyn.measures import intervals

AT_ONCE = 512


def class_scores(classifier: Classifier, images: PixelSet, steps: int = 1) -> Tensor:
    """Class scores `(n, classes)` of every image, on the CPU; a ViTRM takes `steps` recursion steps."""
    network = classifier.network
    device = next(network.parameters()).device
    found = []
    with torch.no_grad():
        for pixels in images.pixels.split(AT_ONCE):
            ready = classifier.normalised(pixels.to(device))
            scores = network(ready, steps).scores if classifier.name == VITRM_NAME else network(ready)
            found.append(scores.float().cpu())
    return torch.cat(found)


def share_right(right: np.ndarray) -> dict[str, float]:
    """Accuracy with its 95 % interval (normal approximation)."""
    value = float(right.mean())
    low, high = intervals.of_share(value, len(right))
    return {"accuracy": value, "low": low, "high": high}


def accuracy_and_f1(guesses: Tensor, truth: Tensor) -> dict[str, float]:
    """Accuracy with its 95 % interval, and the mean F1 of the classes."""
    ours, theirs = guesses.cpu().numpy(), truth.cpu().numpy()
    return {**share_right(ours == theirs), "macro_f1": float(f1_score(theirs, ours, average="macro"))}


def accuracy(classifier: Classifier, images: PixelSet, steps: int = 1) -> float:
    """Share of the images that are classified right."""
    guesses = class_scores(classifier, images, steps).argmax(1)
    return float((guesses == images.labels.cpu()).double().mean())
