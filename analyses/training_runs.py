"""Training classifiers in pieces: a run stops at a checkpoint when its time is over, and goes on when asked again."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from analyses.recording import Choice
from analyses.study import OutOfTime, Study, chosen, is_recorded
from brdyn.classifiers import ClassifierRun, PixelSet, load_pixels
from brdyn.classifiers.kept import kept_folders
from brdyn.classifiers.pixels import check_classes
from brdyn.classifiers.saved import halve
from brdyn.classifiers.training import finished
from brdyn.store import OutputFolder, read_json
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.store.unfinished import CHECKPOINTS
from brdyn.training import Checkpoints, Session
from brdyn.training.session import make_accelerator
from brdyn.training.settings import check_same

IMAGE_SIZE = 32


class TimedCheckpoints(Checkpoints):
    """Checkpoints of a run that stops, by :class:`OutOfTime`, at its first checkpoint after a moment (`until`, by
    `time.monotonic`) but that of its last step."""

    def __init__(self, folder: str | Path, options: Mapping[str, Any], until: float, last: int) -> None:
        super().__init__(folder, options)
        self.until, self.last = until, last

    def save(self, stage: int, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, and stop where it is time."""
        path = super().save(stage, step, tensors, state)
        if step < self.last and time.monotonic() > self.until:
            raise OutOfTime(f"out of time; {str(path)!r} goes on from there")
        return path


def load_split(
    train: str, test: str, image_size: int, counts: tuple[int | None, int | None], workers: int | None = None
) -> tuple[PixelSet, PixelSet]:
    """Training and test images of the same classes, so many of each; None for all. Raises UsageError if their classes
    differ."""
    images = load_pixels(train, image_size, n=counts[0], workers=workers)
    tested = load_pixels(test, image_size, train=False, n=counts[1], workers=workers)
    check_classes(tested, images.names, "the training images")
    return images, tested


def train_or_go_on(
    run: ClassifierRun, place: Path, train: PixelSet, test: PixelSet, *, until: float, device: torch.device,
    float16: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """What `train.json` of a run says: there already, or after training, from its newest whole checkpoint.

    With `float16` its classifiers, once trained and their accuracy measured, are kept at half the size. Raises
    UsageError if the folder is of a run with other options: nothing of it is touched. Raises OutOfTime if a
    checkpoint has the rest.
    """
    last = run.recipe.steps(len(train) - run.held_out)
    checkpoints = TimedCheckpoints(place / CHECKPOINTS, run.options(train, test), until, last)
    training = finished(place, checkpoints)
    if training is None:
        with OutputFolder(place, overwrite=True, result=TRAIN_RESULT) as folder:
            training = run.train(
                train,
                test,
                folder=folder,
                session=Session(
                    checkpoints=checkpoints,
                    resume=checkpoints.latest(previous=True),
                    accelerator=make_accelerator(device),
                    progress=True,
                ),
            )
            assert training is not None  # this process writes
            training.write(folder)
            checkpoints.remove()
    if float16:
        for home in (place, *kept_folders(place).values()):
            halve(home)
    assert training.provenance is not None
    return {**training.content(), "provenance": training.provenance.details}


class TrainingStudy(Study[str]):
    """Networks trained from scratch on the same images, each a cell by its name."""

    sizes: ClassVar[Mapping[str, SimpleNamespace]]
    every: ClassVar[staticmethod[[str], list[str]]]  # names of all cells of a size
    asked_as = "options"

    def __init__(self, choice: Choice) -> None:
        super().__init__(choice)
        self.size = self.sizes[choice.size]
        self.folder = choice.out / choice.size
        self.names = chosen(choice.only, self.every(choice.size))
        counts = self.size.train_images, self.size.test_images
        self.train, self.test = load_split(choice.train, choice.test, IMAGE_SIZE, counts)

    def cells(self) -> Iterable[str]:
        return self.names

    @abstractmethod
    def run_of(self, name: str) -> ClassifierRun:
        """How the network of this name is trained."""

    def place(self, name: str) -> Path:
        return self.folder / "runs" / name

    def asked(self, cell: str) -> Mapping[str, Any]:
        return self.run_of(cell).options(self.train, self.test)

    def known(self, cell: str, asked: Mapping[str, Any]) -> bool:
        """Whether it is recorded. Raises UsageError if it is recorded with other options."""
        there, path = is_recorded(self.path(cell)), self.path(cell)
        if there and self.recorded(cell, asked) is None:
            check_same(read_json(path, "a record")[self.asked_as], asked, path)
        return there

    def trained(self, cell: str, float16: bool = False) -> dict[str, Any]:
        """What its training says: it is trained now, or goes on."""
        return train_or_go_on(
            self.run_of(cell), self.place(cell), self.train, self.test, until=self.until, device=self.device,
            float16=float16,
        )  # fmt: skip
