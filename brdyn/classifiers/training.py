"""Training a classifier from scratch, and a whole run of it: what is asked for, and what is kept on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from brdyn.arguments import checked
from brdyn.classifiers.augment import Augmentation
from brdyn.classifiers.evaluation import accuracy
from brdyn.classifiers.kept import WATCHED, Keeper, describe_kept, folder_name
from brdyn.classifiers.pixels import PixelBatches, PixelSet, check_classes
from brdyn.classifiers.recipe import BEST, ClassifierRecipe
from brdyn.classifiers.saved import Classifier
from brdyn.classifiers.tasks import NETWORK
from brdyn.classifiers.training_result import ClassifierTraining
from brdyn.errors import UsageError
from brdyn.provenance import RunProvenance, run_provenance
from brdyn.store import OutputFolder, unfinished
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.training import Checkpoints, History, Session, train
from brdyn.training.loop import Visit
from brdyn.training.settings import check_same
from brdyn.training.shares import fewest_at_once


@checked
def train_classifier(
    classifier: Classifier,
    images: PixelSet,
    recipe: ClassifierRecipe,
    *,
    validation: PixelSet | None = None,
    n_sup: int = 1,
    steps: int = 1,
    session: Session | None = None,
    visit: Visit | None = None,
) -> History:
    """Train a classifier in place. With an average of the weights, it ends with the average.

    Parameters
    ----------
    classifier : Classifier
    images : PixelSet
    recipe : ClassifierRecipe
    validation : PixelSet, optional
        To watch the accuracy on.
    n_sup, steps : int
        N_sup and T, of a ViTRM.
    session : Session, optional
        Checkpoints, what to go on from, device, tracker, progress bar.
    visit : callable, optional
        As in :func:`brdyn.training.train`.

    Raises
    ------
    UsageError
        If the images are of other classes, or do not fill a batch.
    BrdynError
        If a loss is not finite.

    Examples
    --------
    >>> from brdyn.classifiers import Classifier, ClassifierRecipe, load_pixels, train_classifier
    >>> images = load_pixels("photos", image_size=8)
    >>> classifier = Classifier.new("vitrm", images.names, 8, *images.statistics(), width=12, heads=2, hidden=16)
    >>> history = train_classifier(classifier, images, ClassifierRecipe(epochs=3), validation=images, n_sup=2)
    >>> [row["step"] for row in history.validation]
    [1.0, 2.0, 3.0]
    """
    check_classes(images, classifier.names, "the classifier")
    session = session or Session()
    accelerator = session.on()
    device = accelerator.device
    augmentation = Augmentation(recipe, len(classifier.names), classifier.mean, classifier.std)
    watched = validation.to(device) if validation is not None else None
    network = classifier.network.requires_grad_(True)
    task = classifier.architecture.task(network, augmentation, watched, n_sup=n_sup, steps=steps)
    task.fewest = fewest_at_once(network, classifier.blank())
    history = train(
        task,
        PixelBatches(images.to(device), recipe.batch_of(len(images)), recipe.seed),
        recipe.training(len(images)),
        session=replace(session, accelerator=accelerator),
        visit=visit,
    )
    if recipe.ema:
        prefix = f"{NETWORK}."
        network.load_state_dict({name.removeprefix(prefix): value for name, value in task.average.items()})
    network.eval().requires_grad_(False)
    return history


@dataclass(frozen=True, kw_only=True)
class ClassifierRun:
    """A network, and how it is trained.

    Attributes
    ----------
    network : str
        As in :class:`brdyn.classifiers.saved.Classifier`.
    recipe : ClassifierRecipe
    image_size : int
    built : dict
        What else the network is built with.
    n_sup, steps : int
        N_sup and T, of a ViTRM.
    keep : tuple of str
        Epochs whose classifiers are kept (`0`: untrained), and `best`; see :mod:`brdyn.classifiers.kept`.
    held_out : int
        Training images that accuracy is watched on, and the best chosen by, instead of the test images.

    Examples
    --------
    >>> from brdyn.classifiers import ClassifierRecipe, ClassifierRun, load_pixels
    >>> run = ClassifierRun(network="vit-tiny12", recipe=ClassifierRecipe(epochs=1), image_size=8, held_out=2)
    >>> run.options(load_pixels("photos", image_size=8))["recipe"]["batch_size"]
    6
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
                **asdict(self.recipe),
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
        test: PixelSet | None = None,
        *,
        folder: OutputFolder | None = None,
        session: Session | None = None,
    ) -> ClassifierTraining | None:
        """Train to the end.

        Parameters
        ----------
        images : PixelSet
        test : PixelSet, optional
            To measure the accuracy on at the end; also to watch it on, unless images are held out for that.
        folder : OutputFolder, optional
            Where the classifiers to keep are written on the way. The result is not: that is for the caller to save.
        session : Session, optional
            As :func:`train_classifier` takes; its checkpoints are of the :meth:`options`.

        Returns
        -------
        ClassifierTraining
            None in processes other than the main one.

        Raises
        ------
        UsageError
            If the images do not fill a batch, or cannot be held out or kept as asked for.
        BrdynError
            If a loss is not finite.

        Examples
        --------
        >>> from brdyn.classifiers import ClassifierRecipe, ClassifierRun, load_pixels
        >>> images = load_pixels("photos", image_size=8)
        >>> small = {"width": 12, "depth": 1, "heads": 2, "hidden": 16}
        >>> run = ClassifierRun(network="vit-tiny12", recipe=ClassifierRecipe(epochs=1), image_size=8, built=small)
        >>> training = run.train(images, test=images)
        >>> training.history.images, 0 <= training.accuracy <= 1
        (8, True)
        """
        session = session or Session()
        accelerator, resume = session.on(), session.resume
        options = self.options(images, test, accelerator.num_processes)
        session.check(options)
        learning, watched = images.split(self.held_out, self.recipe.seed) if self.held_out else (images, test)
        classifier = self.untrained(learning)
        self._check_kept(watched)
        keeper = None
        if self.keep and folder is None and accelerator.is_main_process:
            raise UsageError("classifiers are kept in a folder; give `folder`, or drop `keep`")
        if folder is not None:
            keeper = Keeper(classifier, folder, self.recipe, len(learning), self.keep, options)
        if keeper is not None and resume is not None:
            keeper.most = max([-1.0, *(row[WATCHED] for row in resume.state["validation"])])
        history = train_classifier(
            classifier,
            learning,
            self.recipe,
            validation=watched,
            n_sup=self.n_sup,
            steps=self.steps,
            session=replace(session, accelerator=accelerator),
            visit=keeper,
        )
        if not accelerator.is_main_process:
            return None
        sets = {"train": images} if test is None else {"train": images, "test": test}
        kept = {}
        if folder is not None and self.keep:
            kept = describe_kept(folder.path, test, accelerator.device, self.steps)
        return ClassifierTraining(
            classifier,
            history,
            options,
            classifier.parameters,
            None if test is None else accuracy(classifier, test, self.steps),
            kept,
            [one for part in sets.values() for one in part.skipped],
            {name: part.unlabelled.to_dict() for name, part in sets.items()},
            classifier.flops(self.steps),
            provenance=RunProvenance(details=run_provenance(accelerator.device.type)),
        )

    def leaves(self) -> list[str]:
        """Folders that a run writes beside its result."""
        return [unfinished.TRACKER, *(folder_name(part) for part in self.keep)]

    def _check_kept(self, watched: PixelSet | None) -> None:
        """Refuse classifiers to keep that there cannot be."""
        late = [part for part in self.keep if part != BEST and float(part) > self.recipe.epochs]
        if late:
            raise UsageError(f"`keep={late[0]}`: the run ends at epoch {self.recipe.epochs:g}")
        if self.keep and self.recipe.ema:
            raise UsageError("classifiers cannot be kept of a run that ends with an average; drop `ema` or `keep`")
        if BEST in self.keep and watched is None:
            raise UsageError(f"{BEST!r} is chosen on test or held-out images, and there are none")


def finished(folder: str | Path, checkpoints: Checkpoints) -> ClassifierTraining | None:
    """The result of a finished run; None where one is to be trained, anew or from a checkpoint.

    Raises
    ------
    UsageError
        If it is of other options than its checkpoints would be.
    """
    path = Path(folder) / TRAIN_RESULT
    begun = unfinished.is_there(Path(folder))
    if checkpoints.anew or begun or not path.is_file():
        return None
    found = ClassifierTraining.read(path)
    check_same(found.options, checkpoints.options, folder)
    return found
