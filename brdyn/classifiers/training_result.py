"""What training a classifier gives: the classifier, how it got there, how well it does, those kept on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from brdyn.classifiers.architectures import called
from brdyn.classifiers.kept import WATCHED
from brdyn.classifiers.saved import Classifier
from brdyn.provenance import RunProvenance, images_of, one_set
from brdyn.result import Result
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.training import History
from brdyn.words import size_in_words

SHARE = (float, None)


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierTraining(Result):
    """A trained classifier and how it got there.

    Attributes
    ----------
    trained : Classifier or None
        None where it was read from a folder: :attr:`classifier` loads it from there when asked for.
    history : History
        Losses, and the accuracy that was watched.
    options : mapping
        What was asked for: see :meth:`brdyn.classifiers.ClassifierRun.options`.
    parameters : int
        Of the network; those that layers share count once.
    accuracy : float or None
        Share of the test images that are classified right; None without test images.
    kept : mapping
        The classifiers kept on the way, by the name of their folder: `step`, `epoch`, the accuracy `watched` there,
        and `accuracy` on the test images.
    skipped : sequence of (str, str)
        Images that could not be read, and why.
    unlabelled : mapping
        Those of `train` and `test` that have no label: their `count`, and the `first`.
    flops : int or None
        Floating-point operations of an image's answer, counted (:meth:`brdyn.classifiers.Classifier.flops`), of a ViTRM
        in T steps; None in results of versions that did not count.
    folder : Path or None
        That it was read from.

    Examples
    --------
    >>> from brdyn.classifiers import ClassifierRecipe, ClassifierRun, load_pixels
    >>> images = load_pixels("photos", image_size=8)
    >>> built = {"width": 12, "heads": 2, "hidden": 16}
    >>> run = ClassifierRun(network="vitrm", recipe=ClassifierRecipe(epochs=2), image_size=8, built=built)
    >>> run.train(images, images).save("runs/vitrm")
    >>> training = brdyn.read("runs/vitrm")
    >>> [row["step"] for row in training.history.losses], training.classifier.names
    ([1.0, 2.0], ('cat', 'dog'))
    """

    FILE: ClassVar[str] = TRAIN_RESULT
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "options": {
            "network": str,
            "recipe": {"epochs": float},
            "data": {"images": int},
            "test": ({"images": int}, None),
            "image_size?": int,
            "held_out?": int,
        },
        "parameters": int,
        "flops?": (int, None),
        "accuracy": SHARE,
        "kept?": {str: {"epoch": float, "watched": SHARE, "accuracy": SHARE}},
        "skipped?": [[str]],
        "unlabelled?": {str: dict},
        "history": History,
    }
    ORIGIN: ClassVar[type[RunProvenance]] = RunProvenance

    trained: Classifier | None
    history: History
    options: Mapping[str, Any]
    parameters: int
    accuracy: float | None = None
    kept: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skipped: Sequence[Sequence[str]] = ()
    unlabelled: Mapping[str, Any] = field(default_factory=dict)
    flops: int | None = None
    folder: Path | None = None

    @cached_property
    def classifier(self) -> Classifier:
        """The classifier, loaded where it was read from a folder."""
        return self.trained or Classifier.from_pretrained(str(self.folder))

    @property
    def network(self) -> str:
        """The network, with what it has of other sizes than the usual ones."""
        return called(self.options["network"], self.options.get("built", {}))

    @property
    def watched(self) -> str:
        """Which images the accuracy was watched on."""
        return "held-out" if self.options.get("held_out") else "test"

    @property
    def title(self) -> str:
        """Heading of pictures."""
        return self.network

    @property
    def caption(self) -> str:
        """How many images it was trained on, and their size."""
        size = self.options.get("image_size")
        return "trained on " + images_of(self.options["data"]["images"], size and (size, size))

    def content(self) -> dict[str, Any]:
        """What was asked for, the accuracy, those kept, and losses and what was watched."""
        return {
            "network": self.options["network"],
            "parameters": self.parameters,
            "flops": self.flops,
            "test": self.options["test"],
            "accuracy": self.accuracy,
            "kept": self.kept,
            "skipped": [list(one) for one in self.skipped],
            "unlabelled": self.unlabelled,
            "options": self.options,
            "history": asdict(self.history),
            "seconds": round(self.history.seconds, 1),
        }

    def others(self) -> Mapping[str, bytes]:
        """The classifier: its config and weights."""
        return self.classifier.to_files(trained=self.options, parameters=self.parameters, flops=self.flops)

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a train.json; the classifier beside it is loaded when it is asked for."""
        return cls(
            None,
            content["history"],
            content["options"],
            content["parameters"],
            content["accuracy"],
            content.get("kept", {}),
            content.get("skipped", ()),
            content.get("unlabelled", {}),
            content.get("flops"),
            folder,
        )

    def answer(self) -> str:
        """The accuracy on the test images, and after how much training."""
        options = self.options
        done = f"{self.network}, {options['recipe']['epochs']:g} epochs of {options['data']['images']} images"
        if self.accuracy is None:
            return f"{done}: {self._on_held_out()}; there are no test images to judge it by"
        return f"{done}: accuracy {self.accuracy:.2%} on {options['test']['images']} test images"

    def _on_held_out(self) -> str:
        """The last accuracy that was watched on held-out images, where there are any."""
        held_out, rows = self.options.get("held_out"), self.history.validation
        if not held_out or not rows or WATCHED not in rows[-1]:
            return "trained"
        return f"accuracy {rows[-1][WATCHED]:.2%} on {held_out} held-out images"

    def alike(self) -> dict[str, Any]:
        """The images that were learnt from, and tested on."""
        return {"images": one_set(self.options["data"]), "test images": one_set(self.options["test"])}

    def overview(self) -> list[dict[str, Any]]:
        """The classifiers kept on the way."""
        return [
            {
                "kept": name,
                "epoch": float(one["epoch"]),
                f"{self.watched} accuracy": one["watched"],
                "test accuracy": one["accuracy"],
            }
            for name, one in self.kept.items()
        ]

    def remarks(self) -> list[str]:
        """Size and speed."""
        return [
            f"{size_in_words(self.parameters, self.flops)}; {self.history.seconds:.0f} s "
            f"({self.history.images_per_second:.0f} images/s)"
        ]

    def brief(self) -> str:
        """Network, images, accuracy."""
        known = "" if self.accuracy is None else f", accuracy {self.accuracy:.2%}"
        return f"{self.network} of {self.options['data']['images']} images{known}"
