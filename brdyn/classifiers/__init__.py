"""Classifiers trained from scratch on small images: ViTRM, and ViTs and ResNets beside it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brdyn.classifiers.config import ViTRMConfig
    from brdyn.classifiers.evaluation import Recursion, class_scores
    from brdyn.classifiers.evaluation_result import ClassifierEvaluation, evaluate_classifier
    from brdyn.classifiers.grid import Grid, parse_grid, train_grid
    from brdyn.classifiers.pixels import PixelSet, load_pixels
    from brdyn.classifiers.recipe import ClassifierRecipe
    from brdyn.classifiers.saved import Classifier
    from brdyn.classifiers.training import ClassifierRun, train_classifier
    from brdyn.classifiers.training_result import ClassifierTraining
    from brdyn.classifiers.unrolled import UnrolledViTRM
    from brdyn.classifiers.vitrm import ViTRM

# Imported on first use: the command line reads the recipe without torch.
_HOMES = {
    "Classifier": "brdyn.classifiers.saved",
    "ClassifierEvaluation": "brdyn.classifiers.evaluation_result",
    "ClassifierRecipe": "brdyn.classifiers.recipe",
    "ClassifierRun": "brdyn.classifiers.training",
    "ClassifierTraining": "brdyn.classifiers.training_result",
    "Grid": "brdyn.classifiers.grid",
    "PixelSet": "brdyn.classifiers.pixels",
    "Recursion": "brdyn.classifiers.evaluation",
    "UnrolledViTRM": "brdyn.classifiers.unrolled",
    "ViTRM": "brdyn.classifiers.vitrm",
    "ViTRMConfig": "brdyn.classifiers.config",
    "class_scores": "brdyn.classifiers.evaluation",
    "evaluate_classifier": "brdyn.classifiers.evaluation_result",
    "load_pixels": "brdyn.classifiers.pixels",
    "parse_grid": "brdyn.classifiers.grid",
    "train_classifier": "brdyn.classifiers.training",
    "train_grid": "brdyn.classifiers.grid",
}

__all__ = [
    "Classifier",
    "ClassifierEvaluation",
    "ClassifierRecipe",
    "ClassifierRun",
    "ClassifierTraining",
    "Grid",
    "PixelSet",
    "Recursion",
    "UnrolledViTRM",
    "ViTRM",
    "ViTRMConfig",
    "class_scores",
    "evaluate_classifier",
    "load_pixels",
    "parse_grid",
    "train_classifier",
    "train_grid",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
