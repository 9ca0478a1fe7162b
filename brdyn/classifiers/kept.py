"""Classifiers kept on the way of a training run: at chosen epochs, and the best one so far."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from brdyn.classifiers.evaluation import accuracy
from brdyn.classifiers.pixels import PixelSet
from brdyn.classifiers.recipe import BEST, ClassifierRecipe
from brdyn.classifiers.saved import Classifier, is_classifier, read_config
from brdyn.store import OutputFolder
from brdyn.store.pretrained import CONFIG, WEIGHTS
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.training.optimization import all_finite

WATCHED = "accuracy"


def folder_name(part: str) -> str:
    """Of a kept classifier: `epoch10`, or `best`."""
    return part if part == BEST else f"epoch{part}"


def kept_folders(folder: str | Path) -> dict[str, Path]:
    """The classifiers kept in the folder of a run, by name: epochs in order, then the best."""
    found = {path.name: path for path in Path(folder).glob("*") if _is_kept(path)}
    return dict(sorted(found.items(), key=lambda item: float(item[0].removeprefix("epoch").replace(BEST, "inf"))))


def _is_kept(path: Path) -> bool:
    return re.fullmatch(rf"epoch\d+(\.\d+)?|{BEST}", path.name) is not None and is_classifier(path)


@dataclass
class Keeper:
    """Writes classifiers as training passes them; a visitor of :func:`brdyn.training.train`.

    Attributes
    ----------
    classifier : Classifier
        The one that is trained.
    folder : OutputFolder
        Of the run; each is kept in a folder in it.
    recipe : ClassifierRecipe
    images : int
        Training images.
    keep : sequence of str
        Epochs (0: untrained) and `best`: the highest accuracy on the images watched, the earliest of equals.
    options : mapping
        What the run was asked for; written with each.
    most : float
        The highest accuracy so far.
    """

    classifier: Classifier
    folder: OutputFolder
    recipe: ClassifierRecipe
    images: int
    keep: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    most: float = -1.0

    def __call__(self, step: int, found: Mapping[str, float]) -> None:
        """Keep the classifier at this step, if it is one of those asked for.

        Before the first step, those that another run left in the folder go, and before them its result.
        """
        if step == 0:
            self._clear()
        for part in self.keep:
            if part != BEST and step == self.recipe.step_of(float(part), self.images) and self._is_finite():
                self._save(part, step, found)
        if BEST in self.keep and found.get(WATCHED, -1.0) > self.most and self._is_finite():
            self.most = found[WATCHED]
            self._save(BEST, step, found)

    def _is_finite(self) -> bool:
        """Whether weights and running means are numbers; where they are not, training stops as soon as it looks."""
        return all_finite(self.classifier.network.state_dict().values())

    def _clear(self) -> None:
        """Take away what another run has left, where something of this one would lie beside it."""
        old = kept_folders(self.folder.path)
        if not old and not self.keep:
            return
        whole = (CONFIG, WEIGHTS) if is_classifier(self.folder.path) else ()
        self.folder.discard(TRAIN_RESULT, whole)
        for path in old.values():
            for name in (CONFIG, WEIGHTS):
                (path / name).unlink(missing_ok=True)
            with suppress(OSError):  # somebody else's files are in it
                path.rmdir()

    def _save(self, part: str, step: int, found: Mapping[str, float]) -> None:
        at = {
            "step": step,
            "epoch": step * self.recipe.batch_of(self.images) / self.images,
            "watched": found.get(WATCHED),
        }
        self.classifier.save_pretrained(self.folder.path / folder_name(part), trained=dict(self.options), at=at)


def describe_kept(
    folder: str | Path, test: PixelSet | None, device: torch.device | str = "cpu", steps: int = 1
) -> dict[str, dict[str, Any]]:
    """Where each kept classifier stood, and its accuracy on the test images, of a ViTRM in so many recursion steps."""
    rows = {}
    for name, path in kept_folders(folder).items():
        at = read_config(path)["at"]
        classifier = Classifier.from_pretrained(path)
        classifier.network.to(device)
        rows[name] = {**at, "accuracy": accuracy(classifier, test, steps) if test is not None else None}
    return rows
