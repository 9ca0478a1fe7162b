"""Classifiers trained from scratch on small images: ViTRM, and ViTs and ResNets beside it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brdyn.classifiers.config import ViTRMConfig
    from brdyn.classifiers.evaluation import Recursion, class_scores, evaluate_recursion
    from brdyn.classifiers.pixels import PixelSet, load_pixels
    from brdyn.classifiers.recipe import ClassifierRecipe
    from brdyn.classifiers.saved import Classifier
    from brdyn.classifiers.training import ClassifierRun, train_classifier
    from brdyn.classifiers.unrolled import UnrolledViTRM
    from brdyn.classifiers.vitrm import ViTRM

# Imported on first use: the command line reads the recipe without torch.
_HOMES = {
    "Classifier": "brdyn.classifiers.saved",
    "ClassifierRecipe": "brdyn.classifiers.recipe",
    "ClassifierRun": "brdyn.classifiers.training",
    "PixelSet": "brdyn.classifiers.pixels",
    "Recursion": "brdyn.classifiers.evaluation",
    "UnrolledViTRM": "brdyn.classifiers.unrolled",
    "ViTRM": "brdyn.classifiers.vitrm",
    "ViTRMConfig": "brdyn.classifiers.config",
    "class_scores": "brdyn.classifiers.evaluation",
    "evaluate_recursion": "brdyn.classifiers.evaluation",
    "load_pixels": "brdyn.classifiers.pixels",
    "train_classifier": "brdyn.classifiers.training",
}

__all__ = [
    "Classifier",
    "ClassifierRecipe",
    "ClassifierRun",
    "PixelSet",
    "Recursion",
    "UnrolledViTRM",
    "ViTRM",
    "ViTRMConfig",
    "class_scores",
    "evaluate_recursion",
    "load_pixels",
    "train_classifier",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
