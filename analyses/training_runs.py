"""Networks trained from scratch, and Raptors of them: a training stops at a checkpoint when its time is over, and goes
on when asked again; what is recorded is left alone."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from analyses.recording import Choice
from analyses.study import C, OutOfTime, Study, is_recorded
from brdyn import Stream, fit_raptor, load_images, load_model
from brdyn.classifiers import ClassifierRun, PixelSet, load_pixels
from brdyn.classifiers.kept import kept_folders
from brdyn.classifiers.pixels import check_classes
from brdyn.classifiers.saved import halve, is_classifier, read_config
from brdyn.classifiers.training import finished
from brdyn.models import VisionTransformer
from brdyn.raptor import FitSettings, Raptor
from brdyn.raptor.fidelity import Fidelity, fidelity
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


class TrainedNetworks(Study[C]):
    """Networks trained from scratch on the same images, and Raptors of them, each a cell.

    A network that is recorded as trained otherwise is refused; one whose weights are gone before a Raptor of it is
    recorded is trained again for it. `weights_as` is the entry of a network's record with the digest of its weights,
    where something is measured on them later. `size` says how large the study is; it is recorded in a folder of its
    name, where `runs` has the networks. Raises UsageError if training and test images are not of the same classes.
    """

    weights_as: ClassVar[str] = ""
    train: PixelSet
    test: PixelSet

    def __init__(
        self, choice: Choice, name: str, size: Any, image_size: int = IMAGE_SIZE, workers: int | None = None
    ) -> None:  # fmt: skip
        super().__init__(choice)
        self.size, self.folder = size, choice.out / name
        self.train = load_pixels(choice.train, image_size, n=size.train_images, workers=workers)
        self.test = load_pixels(choice.test, image_size, train=False, n=size.test_images, workers=workers)
        check_classes(self.test, self.train.names, "the training images")

    @abstractmethod
    def run_of(self, cell: C) -> ClassifierRun:
        """How a network is trained."""

    def run_folder(self, cell: C) -> Path:
        return self.folder / "runs" / self.run_name(cell)

    def place(self, cell: C) -> Path:
        """Where a network is."""
        return self.run_folder(cell)

    def raptors_of(self, network: C) -> Iterable[C]:
        planned = self.planned(self.choice.size)
        return (cell for cell in planned if self.network_of(cell) == network)

    def asked(self, cell: C) -> Mapping[str, Any]:
        return self.run_of(cell).options(self.train, self.test)

    def record_of(self, cell: C) -> dict[str, Any] | None:
        """Its record, where it was asked for alike."""
        return self.recorded(cell, self.asked(cell))

    def weights(self, network: C) -> str | None:
        """Digest of the weights that a network has here; None where it is not."""
        place = self.place(network)
        return read_config(place)["digest"] if is_classifier(place) else None

    def known(self, cell: C, asked: Mapping[str, Any]) -> bool:
        """Whether it is recorded and its weights are those recorded, or gone and needed no more. Raises UsageError if
        it is recorded with another training."""
        before, path = self.recorded(cell, asked), self.path(cell)
        if before is None and is_recorded(path) and self.network_of(cell) is None:
            there = read_json(path, "a record", (self.asked_as,))[self.asked_as]
            check_same(there.get("run", there), asked.get("run", asked), path)
        if before is None or self.network_of(cell) is not None or not before.get(self.weights_as):
            return before is not None
        weights = self.weights(cell)
        of_it = (self.record_of(raptor) for raptor in self.raptors_of(cell))
        return weights == before[self.weights_as] or (weights is None and None not in of_it)

    def unfit(self, cell: C) -> str:
        """Why a Raptor cannot be fitted: its network is not recorded, or its weights are elsewhere."""
        if (network := self.network_of(cell)) is None:
            return ""
        record = self.record_of(network)
        if record is None:
            return f"its network, {network}, is not recorded; run that first"
        if self.weights(network) == record[self.weights_as] or self.record_of(cell) is not None:
            return ""
        return f"the weights of its network, {network}, are not here; run that too, and it is trained again"

    def trained(self, cell: C, float16: bool = False) -> dict[str, Any]:
        """What `train.json` of its run says: there already, or after training, from its newest whole checkpoint.

        With `float16` its classifiers, once trained and their accuracy measured, are kept at half the size. Raises
        UsageError if the folder is of a run with other options: nothing of it is touched. Raises OutOfTime if a
        checkpoint has the rest.
        """
        run, place, images = self.run_of(cell), self.run_folder(cell), (self.train, self.test)
        last = run.recipe.steps(len(self.train) - run.held_out)
        checkpoints = TimedCheckpoints(place / CHECKPOINTS, run.options(*images), self.until, last)
        training = finished(place, checkpoints)
        if training is None:
            with OutputFolder(place, overwrite=True, result=TRAIN_RESULT) as folder:
                session = Session(
                    checkpoints=checkpoints, resume=checkpoints.latest(previous=True),
                    accelerator=make_accelerator(self.device), progress=True,
                )  # fmt: skip
                training = run.train(*images, folder=folder, session=session)
                assert training is not None  # this process writes
                training.write(folder)
                checkpoints.remove()
        if float16:
            for home in (place, *kept_folders(place).values()):
                halve(home)
        assert training.provenance is not None
        return {**training.content(), "provenance": training.provenance.details}

    def load(self, network: C) -> VisionTransformer:
        return load_model(str(self.place(network)), device=self.choice.device)

    def fitted(
        self, network: C, asked: Mapping[str, Any], test_images: int | None, workers: int = 0
    ) -> tuple[Raptor, Fidelity, dict[str, Any]]:
        """A Raptor as it was asked for, its fidelity on so many test images, and what is recorded of any."""
        started, teacher = time.perf_counter(), self.load(network)
        train = load_images(self.choice.train, teacher, n=self.size.train_images).decoded()
        test = load_images(self.choice.test, teacher, n=test_images)
        settings = FitSettings(**asked["settings"])
        fit = fit_raptor(teacher, train, asked["assignment"], settings, workers=workers)
        found = fidelity(fit.raptor, test, Stream(workers=workers))
        return fit.raptor, found, {
            "teacher_accuracy": found.teacher_accuracy, "parameters": fit.raptor.info.parameters,
            "n_images": test.report.count,
            "fit_seconds": sum(history.seconds for history in fit.histories.values()),
            "seconds": time.perf_counter() - started,
        }  # fmt: skip
