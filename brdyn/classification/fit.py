"""Training a classifier from scratch, in the one training room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial

from accelerate import Accelerator

from brdyn.classification.augment import Augmentation
from brdyn.classification.pixels import PixelBatches, PixelSet, check_classes
from brdyn.classification.recipe import VITRM_NAME, AugmentSettings, ClassifierRecipe
from brdyn.classification.saved import Classifier
from brdyn.classification.tasks import NETWORK, Classification
from brdyn.training import Checkpoints, History, Saved, train
from brdyn.training.loop import Visit, make_accelerator

Report = Callable[[int, int, dict[str, float]], None]


def train_classifier(
    classifier: Classifier,
    images: PixelSet,
    recipe: ClassifierRecipe,
    *,
    validation: PixelSet | None = None,
    n_sup: int = 1,
    steps: int = 1,
    checkpoints: Checkpoints | None = None,
    resume: Saved | None = None,
    accelerator: Accelerator | None = None,
    report: Report | None = None,
    progress: bool = False,
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
    checkpoints, resume, accelerator, report, progress
        As in :func:`brdyn.raptor.fit_raptor`.
    visit : callable, optional
        As in :func:`brdyn.training.train`.

    Raises
    ------
    UsageError
        If the images are of other classes, or do not fill a batch.
    BrdynError
        If a loss is not finite.
    """
    check_classes(images, classifier.names, "the classifier")
    accelerator = accelerator or make_accelerator()
    device = accelerator.device
    chosen = {field.name: getattr(recipe, field.name) for field in fields(AugmentSettings)}
    augmentation = Augmentation(AugmentSettings(**chosen), images.classes, classifier.mean, classifier.std)
    watched = validation.to(device) if validation is not None else None
    network = classifier.network.requires_grad_(True)
    if classifier.name == VITRM_NAME:
        from brdyn.vitrm.model import ViTRM
        from brdyn.vitrm.supervision import DeepSupervision

        assert isinstance(network, ViTRM)
        task: Classification = DeepSupervision(
            network, augmentation, n_sup=n_sup, steps=steps, validation=watched
        )
    else:
        task = Classification(network, augmentation, watched)
    history = train(
        task,
        PixelBatches(images.to(device), recipe.batch_of(len(images)), recipe.seed),
        recipe.training(len(images)),
        checkpoints,
        accelerator=accelerator,
        resume=resume,
        report=partial(report, 1) if report else None,
        progress=progress,
        visit=visit,
    )
    if recipe.ema:
        prefix = f"{NETWORK}."
        network.load_state_dict({name.removeprefix(prefix): value for name, value in task.average.items()})
    network.eval().requires_grad_(False)
    return history
