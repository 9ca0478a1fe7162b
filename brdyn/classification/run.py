"""A training run in a folder of its own: what was asked for, its checkpoints, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from brdyn import plots, results
from brdyn.classification.evaluation import accuracy
from brdyn.classification.fit import Report, train_classifier
from brdyn.classification.kept import RESULT, WATCHED, Keeper, describe_kept, folder_name
from brdyn.classification.pixels import PixelSet
from brdyn.classification.recipe import BEST, ClassifierRecipe
from brdyn.classification.saved import Classifier
from brdyn.errors import UsageError
from brdyn.training import Checkpoints, Saved, unfinished
from brdyn.training.settings import check_same

FINISHED = {  # what a grid reads of one
    "options": dict,
    "accuracy": (float, None),
    "parameters": int,
    "history": {"seconds": float, "images_per_second": float},
}


@dataclass(frozen=True, kw_only=True)
class ClassifierRun:
    """A network, and how it is trained.

    Attributes
    ----------
    network : str
        As in :class:`brdyn.classification.saved.Classifier`.
    recipe : ClassifierRecipe
    image_size : int
    built : dict
        What else the network is built with.
    n_sup, steps : int
        N_sup and T, of a ViTRM.
    keep : tuple of str
        Epochs whose classifiers are kept (`0`: untrained), and `best`; see :mod:`brdyn.classification.kept`.
    held_out : int
        Training images that accuracy is watched on, and the best chosen by, instead of the test images.
    """

    network: str
    recipe: ClassifierRecipe
    image_size: int = 32
    built: Mapping[str, Any] = field(default_factory=dict)
    n_sup: int = 1
    steps: int = 1
    keep: tuple[str, ...] = ()
    held_out: int = 0

    def options(self, images: PixelSet, test: PixelSet | None = None, processes: int = 1) -> dict[str, Any]:
        """Everything that decides the result and its accuracy, ready for JSON."""
        return {
            "network": self.network,
            "built": dict(self.built),
            "n_sup": self.n_sup,
            "steps": self.steps,
            "image_size": self.image_size,
            "data": images.identity(),
            "test": None if test is None else test.identity(),
            "recipe": {
                **self.recipe.to_dict(),
                "batch_size": self.recipe.batch_of(len(images) - self.held_out),
            },
            "keep": list(self.keep),
            "held_out": self.held_out,
            "processes": processes,
        }

    def untrained(self, images: PixelSet) -> Classifier:
        """The classifier before the first step.

        Raises
        ------
        UsageError
            If the network cannot be built so.
        """
        return Classifier.new(
            self.network,
            images.names,
            self.image_size,
            *images.statistics(),
            seed=self.recipe.seed,
            **self.built,
        )

    def train(
        self,
        images: PixelSet,
        folder: results.OutputFolder | None,
        checkpoints: Checkpoints,
        *,
        test: PixelSet | None = None,
        resume: Saved | None = None,
        accelerator: Accelerator,
        formats: tuple[str, ...] = ("png",),
        report: Report | None = None,
        progress: bool = False,
    ) -> dict[str, Any] | None:
        """Train to the end and write the classifier, `train.json` and `train.png`; checkpoints then go.

        Parameters
        ----------
        images : PixelSet
        folder : OutputFolder or None
            None in a process that does not write.
        checkpoints : Checkpoints
            Of the :meth:`options`.
        test : PixelSet, optional
            To measure the accuracy on at the end; also to watch it on, unless images are held out for that.
        resume, accelerator, report, progress
            As in :func:`brdyn.classification.fit.train_classifier`.
        formats : tuple of str
            Of the picture.

        Returns
        -------
        dict or None
            The content of `train.json`; None in a process that does not write.

        Raises
        ------
        UsageError
            If the images do not fill a batch, or cannot be held out or kept as asked for.
        BrdynError
            If a loss is not finite.
        """
        learning, watched = images.split(self.held_out, self.recipe.seed) if self.held_out else (images, test)
        classifier = self.untrained(learning)
        keeper = self._keeper(classifier, learning, watched, folder, checkpoints)
        if keeper is not None and resume is not None:
            keeper.most = max([-1.0, *(row[WATCHED] for row in resume.state["validation"])])
        history = train_classifier(
            classifier,
            learning,
            self.recipe,
            validation=watched,
            n_sup=self.n_sup,
            steps=self.steps,
            checkpoints=checkpoints,
            resume=resume,
            accelerator=accelerator,
            report=report,
            progress=progress,
            visit=keeper,
        )
        if folder is None:
            return None
        right = accuracy(classifier, test, self.steps) if test is not None else None
        content = {
            "network": classifier.name,
            "parameters": classifier.parameters,
            "test": checkpoints.options["test"],
            "accuracy": right,
            "kept": describe_kept(folder.path, test, accelerator.device) if self.keep else {},
            "skipped": [*images.skipped, *(test.skipped if test is not None else ())],
            "unlabelled": {
                name: part.unlabelled.to_dict()
                for name, part in (("train", images), ("test", test))
                if part is not None
            },
            "options": checkpoints.options,
            "history": asdict(history),
            "seconds": round(history.seconds, 1),
            "provenance": results.run_provenance(accelerator.device.type),
        }
        watching = f"accuracy on {'held-out' if self.held_out else 'test'} images"
        picture = plots.plot_fit({1: history}, title=classifier.name, watched=watching)
        files = classifier.to_files(trained=checkpoints.options)
        folder.save(RESULT, content, {"train": picture}, formats, files)
        folder.end()
        checkpoints.remove()
        return content

    def leaves(self) -> list[str]:
        """Folders that a run writes beside its result."""
        return [unfinished.TRACKER, *(folder_name(part) for part in self.keep)]

    def _keeper(
        self,
        classifier: Classifier,
        images: PixelSet,
        watched: PixelSet | None,
        folder: results.OutputFolder | None,
        checkpoints: Checkpoints,
    ) -> Keeper | None:
        """Who writes the classifiers to keep; None in a process that does not write."""
        late = [part for part in self.keep if part != BEST and float(part) > self.recipe.epochs]
        if late:
            raise UsageError(f"--keep {late[0]}: the run ends at epoch {self.recipe.epochs:g}")
        if self.keep and self.recipe.ema:
            raise UsageError(
                "classifiers cannot be kept of a run that ends with an average; drop --ema or --keep"
            )
        if BEST in self.keep and watched is None:
            raise UsageError(f"{BEST!r} is chosen on test or held-out images, and there are none")
        if folder is None:
            return None
        return Keeper(classifier, folder, self.recipe, len(images), self.keep, checkpoints.options)


def finished(folder: str | Path, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """What `train.json` of a finished run says; None where one is to be trained, anew or from a checkpoint.

    Raises
    ------
    UsageError
        If it is of other options than its checkpoints would be.
    """
    path = Path(folder) / RESULT
    begun = unfinished.is_there(Path(folder))
    if checkpoints.anew or begun or not path.is_file():
        return None
    content = results.read_json(path, "a training run", FINISHED)
    check_same(content["options"], checkpoints.options, folder)
    return content
