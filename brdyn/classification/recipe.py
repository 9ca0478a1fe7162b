"""How a classifier is trained, with the published numbers as defaults. Needs no torch, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from brdyn.errors import UsageError
from brdyn.training.settings import TrainSettings

LOGS, VALIDATIONS = 100, 50  # in a run, by default


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """Epochs, optimizer and augmentation. Method notes, section 7.

    Attributes
    ----------
    epochs : float
        Passes over the training images.
    warmup_epochs : float
        In which the learning rate rises.
    batch_size, lr, min_lr, weight_decay, clip, accumulate, precision, ema, compile, seed
        As in :class:`brdyn.training.TrainSettings`.
    padding, flip, operations, magnitude, group, mixup, cutmix
        As in :class:`brdyn.classification.augment.AugmentSettings`.
    dropout, drop_path : float
        In the network.
    log_every, validate_every, checkpoint_every : int or None
        Steps; by default a hundred logs, fifty validations and as many checkpoints in a run.
    """

    epochs: float = 300.0
    warmup_epochs: float = 10.0
    batch_size: int = 128
    lr: float = 3e-4
    min_lr: float = 1e-6
    weight_decay: float = 0.05
    clip: float = 0.0
    accumulate: int = 1
    precision: str = "float32"
    ema: float = 0.0
    compile: bool = False
    seed: int = 0
    padding: int = 4
    flip: bool = True
    operations: int = 2
    magnitude: int = 9
    group: int = 4
    mixup: float = 0.2
    cutmix: float = 1.0
    dropout: float = 0.1
    drop_path: float = 0.0
    log_every: int | None = None
    validate_every: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.batch_size < 1:
            raise UsageError(f"batch-size {self.batch_size} is not positive")
        for name in ("epochs", "warmup_epochs"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name.replace('_', '-')} {getattr(self, name)} is negative")
        self.training(self.batch_size)

    def steps(self, images: int) -> int:
        """Optimizer steps (batches) for so many training images."""
        return max(1, round(self.epochs * images / self.batch_size))

    def training(self, images: int) -> TrainSettings:
        """The settings of the training loop for so many images."""
        steps = self.steps(images)
        every: dict[str, Any] = {
            "log_every": self.log_every or max(1, steps // LOGS),
            "validate_every": self.validate_every or max(1, steps // VALIDATIONS),
            "checkpoint_every": self.checkpoint_every or max(1, steps // VALIDATIONS),
        }
        shared: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(TrainSettings)
            if hasattr(self, field.name) and field.name not in (*every, "steps", "warmup")
        }
        warmup = min(steps, round(self.warmup_epochs * images / self.batch_size))
        return TrainSettings(steps=steps, warmup=warmup, **every, **shared)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


BASELINE = ClassifierRecipe()
VITRM = replace(BASELINE, epochs=1000.0, warmup_epochs=30.0, ema=0.999)
