"""How a classifier is trained, with the published numbers as defaults. Needs no torch, so that `--help` is quick."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from brdyn.arguments import checked
from brdyn.choices import Precision, dtype_name
from brdyn.errors import UsageError
from brdyn.training.settings import TrainSettings

LOGS, TIMES = 100, 50  # in a run, by default
MOST_OPERATIONS = 100  # of RandAugment on one image
MAGNITUDES = 30  # the largest of RandAugment
BATCH = 128
WARMUP = 10.0  # epochs of the published baselines
DROPOUT = 0.1
VITRM_NAME = "vitrm"
BEST = "best"  # of the classifiers that a run keeps


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """What is done to training images. Defaults are the published ones of ViTRM (method notes, section 7).

    Attributes
    ----------
    padding : int
        Black pixels around an image from which a crop of its size is drawn; 0 for none.
    flip : bool
        Mirror half of the images.
    operations, magnitude : int
        RandAugment's number of operations (0 for none) and magnitude, of 30.
    mixup, cutmix : float
        Alphas; 0 for neither. With both, each batch gets either with equal probability.
    """

    padding: int = 4
    flip: bool = True
    operations: int = 2
    magnitude: int = 9
    mixup: float = 0.2
    cutmix: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("padding", "operations", "mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} {getattr(self, name)} is negative")
        if self.operations > MOST_OPERATIONS:
            raise UsageError(f"{self.operations} operations of RandAugment are more than {MOST_OPERATIONS}")
        if not 0 <= self.magnitude <= MAGNITUDES:
            raise UsageError(f"RandAugment magnitude {self.magnitude} is not from 0 to {MAGNITUDES}")


@checked
@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(AugmentSettings):
    """Epochs and optimizer, beside the augmentation. Method notes, section 7.

    Attributes
    ----------
    epochs : float
        Passes over the training images.
    warmup_epochs : float, optional
        In which the learning rate rises. By default the 10 of the published baselines, but at most a tenth of all.
    batch_size : int or None
        Images of a step over all processes. By default 128, but at most all training images.
    lr, min_lr, weight_decay, clip, accumulate, precision, ema, ema_warmup, compile, seed
        As in :class:`brdyn.training.TrainSettings`.
    log_every, validate_every, checkpoint_every : int or None
        Steps; by default a hundred logs and fifty checkpoints in a run, and fifty validations or one an epoch.

    Examples
    --------
    >>> from brdyn.classifiers import ClassifierRecipe
    >>> recipe = ClassifierRecipe(epochs=10, warmup_epochs=1)
    >>> recipe.steps(50_000), recipe.training(50_000).warmup
    (3906, 391)
    >>> ClassifierRecipe(epochs=20).warmup_epochs
    2.0
    """

    epochs: float = 300.0
    warmup_epochs: float | None = None
    batch_size: int | None = None
    lr: float = 3e-4
    min_lr: float = 1e-6
    weight_decay: float = 0.05
    clip: float = 0.0
    accumulate: int = 1
    precision: Precision = "float32"
    ema: float = 0.0
    ema_warmup: bool = False
    compile: bool = False
    seed: int = 0
    log_every: int | None = None
    validate_every: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        super().__post_init__()
        object.__setattr__(self, "precision", dtype_name(self.precision))
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch-size {self.batch_size} is not positive")
        if not self.epochs > 0:
            raise UsageError(f"epochs {self.epochs} train nothing; `keep=0` keeps a network as it is before training")
        if self.warmup_epochs is None:
            object.__setattr__(self, "warmup_epochs", _at_most_a_tenth(WARMUP, self.epochs))
        if not self._warmup >= 0:
            raise UsageError(f"warmup-epochs {self.warmup_epochs} is negative")
        self.training(self.batch_size or BATCH)

    def lasting(self, epochs: float) -> Self:
        """The same over so many epochs, of which it warms up in at most a tenth.

        >>> from brdyn.classifiers.recipe import VITRM
        >>> VITRM.warmup_epochs, VITRM.lasting(200).warmup_epochs
        (30.0, 20.0)
        """
        return replace(self, epochs=epochs, warmup_epochs=_at_most_a_tenth(self._warmup, epochs))

    @property
    def _warmup(self) -> float:
        assert self.warmup_epochs is not None  # from when it is made
        return self.warmup_epochs

    def batch_of(self, images: int) -> int:
        """Images of a step, for so many training images."""
        return min(BATCH, images) if self.batch_size is None else self.batch_size

    def steps(self, images: int) -> int:
        """Optimizer steps (batches) for so many training images."""
        return max(1, round(self.epochs * images / self.batch_of(images)))

    def step_of(self, epoch: float, images: int) -> int:
        """Steps done when an epoch ends, of so many images; 0 is before the first."""
        return min(self.steps(images), round(epoch * images / self.batch_of(images)))

    def training(self, images: int) -> TrainSettings:
        """The settings of the training loop for so many images."""
        steps, epoch = self.steps(images), images // self.batch_of(images)
        every: dict[str, Any] = {
            "log_every": self.log_every or max(1, steps // LOGS),
            "validate_every": self.validate_every or max(1, min(epoch, steps // TIMES)),
            "checkpoint_every": self.checkpoint_every or max(1, steps // TIMES),
        }
        shared: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(TrainSettings)
            if hasattr(self, field.name) and field.name not in (*every, "steps", "warmup")
        }
        warmup = min(steps, round(self._warmup * images / self.batch_of(images)))
        shared["batch_size"] = self.batch_of(images)
        return TrainSettings(steps=steps, warmup=warmup, **every, **shared)


def _at_most_a_tenth(warmup: float, epochs: float) -> float:
    return min(warmup, epochs / 10)


BASELINE = ClassifierRecipe()
VITRM = replace(BASELINE, epochs=1000.0, warmup_epochs=30.0, ema=0.999)


def parse_keep(text: str) -> tuple[str, ...]:
    """`0,10,best` as its parts; empty for none.

    Raises
    ------
    UsageError
        If a part is neither an epoch nor `best`.
    """
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for part in parts:
        if part != BEST and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", part):
            raise UsageError(
                f"`keep={text!r}`: {part!r} is neither an epoch (0 is untrained) nor {BEST!r}; the last one is the "
                "result itself"
            )
    return parts
