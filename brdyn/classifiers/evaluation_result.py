"""How well a trained classifier does, as a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from brdyn.arguments import checked
from brdyn.checked_json import take
from brdyn.choices import RECURSION_STEPS, check_beyond, check_least
from brdyn.classifiers.architectures import called
from brdyn.classifiers.evaluation import (
    RECURSION,
    SCORES,
    THRESHOLDS,
    Recursion,
    accuracy_and_f1,
    class_scores,
    evaluate_recursion,
)
from brdyn.classifiers.fixed_points import recursion_past_training
from brdyn.classifiers.pixels import PixelSet, check_classes
from brdyn.classifiers.saved import Classifier
from brdyn.errors import UsageError
from brdyn.measures.found_fixed_points import SHAPE as FIXED_POINTS
from brdyn.measures.found_fixed_points import FixedPoints
from brdyn.provenance import RunProvenance, images_of, one_set, run_provenance
from brdyn.result import Result
from brdyn.words import counted, size_in_words


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierEvaluation(Result):
    """How well a trained classifier does on test images.

    Attributes
    ----------
    network : str
        Its name, with what it has of other sizes than the usual ones.
    parameters : int
        Those that layers share count once.
    digest : str
        SHA-256 of its weights file; empty where it was not read from one.
    test : mapping
        Which images.
    scores : mapping or None
        `accuracy` with a 95 % interval `low` to `high`, and `macro_f1`; None of a ViTRM.
    recursion : Recursion or None
        The same, and more, by the number of recursion steps: of a ViTRM alone.
    skipped : sequence of (str, str)
        Images that could not be read, and why.
    unlabelled : mapping
        Those that have no label: their `count`, and the `first`.
    beyond : FixedPoints or None
        What a ViTRM's recursion step does past its training, where that was asked for.
    flops : int or None
        Floating-point operations of an image's answer, counted (:meth:`brdyn.classifiers.Classifier.flops`), of a ViTRM
        in one step; None in results of versions that did not count.

    Examples
    --------
    >>> from brdyn.classifiers import ClassifierEvaluation
    >>> scores = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "macro_f1": 0.45}
    >>> print(ClassifierEvaluation("resnet18", 11_181_642, "", {"images": 96}, scores).summary())
    accuracy 50.00%, macro F1 0.450: resnet18 (11.18 M parameters) on 96 images
    <BLANKLINE>
    accuracy  low  high  macro_f1
         0.5  0.4   0.6      0.45
    """

    FILE: ClassVar[str] = "vitrm_eval.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "network": str,
        "parameters": int,
        "digest?": str,
        "test": {"images": int, "image_size?": [int]},
        "skipped?": [[str]],
        "unlabelled?": dict,
        "beyond?": (FIXED_POINTS, None),
        "flops?": (int, None),
    }
    ORIGIN: ClassVar[type[RunProvenance]] = RunProvenance
    ROW_OF: ClassVar[tuple[str, ...]] = ("steps",)

    network: str
    parameters: int
    digest: str
    test: Mapping[str, Any]
    scores: Mapping[str, float] | None = None
    recursion: Recursion | None = None
    skipped: Sequence[Sequence[str]] = ()
    unlabelled: Mapping[str, Any] = field(default_factory=dict)
    beyond: FixedPoints | None = None
    flops: int | None = None

    @property
    def title(self) -> str:
        """Heading of pictures."""
        return self.network

    @property
    def caption(self) -> str:
        """How many test images of which size."""
        return images_of(self.test["images"], self.test.get("image_size"))

    def content(self) -> dict[str, Any]:
        """The classifier, the images, and what was found."""
        return {
            "network": self.network,
            "parameters": self.parameters,
            "digest": self.digest,
            "flops": self.flops,
            "test": self.test,
            "skipped": [list(one) for one in self.skipped],
            "unlabelled": self.unlabelled,
            **(self.scores or {}),
            **(self.recursion.to_dict() if self.recursion is not None else {}),
            **({} if self.beyond is None else {"beyond": self.beyond.to_dict()}),
        }

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """The recursion step past its training."""
        return {} if self.beyond is None else {"beyond.parquet": self.beyond.table}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a vitrm_eval.json."""
        del folder
        recursive = "steps" in content
        take(content, RECURSION if recursive else SCORES)
        return cls(
            content["network"],
            content["parameters"],
            content.get("digest", ""),
            content["test"],
            None if recursive else {name: content[name] for name in SCORES},
            Recursion.from_dict(content) if recursive else None,
            content.get("skipped", ()),
            content.get("unlabelled", {}),
            FixedPoints.from_dict(content["beyond"]) if content.get("beyond") else None,
            content.get("flops"),
        )

    def answer(self) -> str:
        """The accuracy; of a ViTRM the best one, and in how many steps."""
        flops = None if self.recursion is not None else self.flops  # which stand in its table, by steps
        on = f"{self.network} ({size_in_words(self.parameters, flops)}) on {self.test['images']} images"
        if self.recursion is not None and len(self.recursion.steps):
            best = self.recursion.steps.loc[self.recursion.steps["accuracy"].idxmax()]
            tried = len(self.recursion.steps)
            chosen = f" (the best of {tried} on these images, so optimistic)" if tried > 1 else ""
            return f"accuracy {best['accuracy']:.2%} in {counted(int(best['steps']), 'step')}{chosen}: {on}"
        if self.scores is None:
            return on
        return f"accuracy {self.scores['accuracy']:.2%}, macro F1 {self.scores['macro_f1']:.3f}: {on}"

    def alike(self) -> dict[str, Any]:
        """The images that were tested on."""
        return {"test images": one_set(self.test)}

    def overview(self) -> list[dict[str, Any]]:
        """The scores, by the number of steps of a ViTRM."""
        if self.recursion is not None:
            return self.recursion.overview()
        return [] if self.scores is None else [dict(self.scores)]

    def remarks(self) -> list[str]:
        """Halting, and the recursion step past its training."""
        parts = [part for part in (self.recursion, self.beyond) if part is not None]
        return [line for part in parts for line in part.remarks()]

    def brief(self) -> str:
        """Network and images."""
        return f"{self.network} on {self.test['images']} images"


@checked
def evaluate_classifier(
    classifier: Classifier,
    images: PixelSet,
    *,
    most: int = RECURSION_STEPS,
    thresholds: Sequence[float] = THRESHOLDS,
    beyond: int | None = None,
    trained: int = 1,
) -> ClassifierEvaluation:
    """How well a classifier does: a ViTRM against its recursion steps, another as it is.

    Parameters
    ----------
    classifier : Classifier
    images : PixelSet
        To test on.
    most : int
        Largest number of recursion steps.
    thresholds : sequence of float
        Halting probabilities of a ViTRM beyond which an image stops.
    beyond : int, optional
        Also take so many times as many recursion steps as a ViTRM was trained for, and see what it comes to.
    trained : int
        Steps that it was trained for.

    Returns
    -------
    ClassifierEvaluation

    Raises
    ------
    UsageError
        If the images are of other classes, `beyond` is below 2, or there are no recursion steps to go beyond.

    Examples
    --------
    >>> from brdyn.classifiers import Classifier, evaluate_classifier, load_pixels
    >>> images = load_pixels("photos", image_size=8)
    >>> classifier = Classifier.new("vitrm", images.names, 8, *images.statistics(), width=12, heads=2, hidden=16)
    >>> evaluate_classifier(classifier, images, most=2).recursion.steps["steps"].tolist()
    [1, 2]
    """
    check_least(1, most=most, trained=trained)
    check_classes(images, classifier.names, "the classifier")
    check_beyond(beyond)
    if beyond is not None and not classifier.architecture.is_recursive:
        raise UsageError(f"`beyond={beyond}` is of recursion steps, and {classifier.name} has none; drop it")
    if most != RECURSION_STEPS and not classifier.architecture.is_recursive:
        raise UsageError(f"`most={most}` is of recursion steps, and {classifier.name} has none; drop it")
    scores = recursion = past = None
    if classifier.architecture.is_recursive:
        recursion = evaluate_recursion(classifier, images, most=most, thresholds=thresholds)
        past = None if beyond is None else recursion_past_training(classifier, images, beyond, trained)
    else:
        scores = accuracy_and_f1(class_scores(classifier, images).argmax(1), images.labels)
    device = next(classifier.network.parameters()).device
    return ClassifierEvaluation(
        called(classifier.name, classifier.options),
        classifier.parameters,
        classifier.digest,
        {**images.identity(), "image_size": list(images.pixels.shape[-2:])},
        scores,
        recursion,
        images.skipped,
        images.unlabelled.to_dict(),
        past,
        classifier.flops(),
        provenance=RunProvenance(details=run_provenance(device.type)),
    )
