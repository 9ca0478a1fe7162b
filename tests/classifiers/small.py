"""Small networks, made-up pictures and a quick recipe to train them by."""

import torch

from brdyn.classifiers import Classifier, ClassifierRecipe, PixelSet

NETWORKS = {
    "vitrm": {"patch": 4, "width": 12, "depth": 1, "heads": 2, "hidden": 16},
    "vit-tiny12": {"patch": 4, "width": 12, "depth": 1, "heads": 2, "hidden": 16},
}


def pictures(count=90):
    """Three classes told apart by their brightest channel."""
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


class Killed(BaseException):
    """A stop that nothing inside catches."""
