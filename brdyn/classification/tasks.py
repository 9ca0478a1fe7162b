"""What a classifier is trained on: augmented batches, soft targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from brdyn.classification.augment import Augmentation
from brdyn.classification.pixels import PixelSet
from brdyn.data import Batch
from brdyn.training import Task

NETWORK = "network"
AT_ONCE = 512


class Labelled(NamedTuple):
    """Normalised images `(B, 3, H, W)` and class weights `(B, classes)`."""

    images: Tensor
    targets: Tensor


def augmented(augmentation: Augmentation, batch: Batch) -> Labelled:
    """A batch of uint8 pixels with labels, augmented in full precision."""
    assert batch.labels is not None
    with torch.autocast(batch.images.device.type, enabled=False):
        return Labelled(*augmentation.train(batch.images, batch.labels))


class Classification(Task):
    """Cross-entropy of soft targets.

    Parameters
    ----------
    network : nn.Module
        Images to class scores.
    augmentation : Augmentation
    validation : PixelSet, optional
        On the training device.
    """

    def __init__(
        self, network: nn.Module, augmentation: Augmentation, validation: PixelSet | None = None
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({NETWORK: network})
        self.augmentation, self.validation = augmentation, validation

    def inputs(self, batch: Batch) -> Labelled:
        """Augmented images and targets."""
        return augmented(self.augmentation, batch)

    def forward(self, inputs: Labelled, step: int) -> dict[str, Tensor]:
        """The loss of each image."""
        scores = self.parts[NETWORK](inputs.images)
        return {NETWORK: functional.cross_entropy(scores.float(), inputs.targets, reduction="none")}

    def scores(self, images: Tensor) -> Tensor:
        """Class scores of normalised images."""
        return self.parts[NETWORK](images)

    def validate(self) -> dict[str, float]:
        """Share of the validation images that are classified right."""
        if self.validation is None:
            return {}
        right = sum(
            int((self.scores(self.augmentation.normalised(pixels)).argmax(1) == labels).sum())
            for pixels, labels in zip(
                self.validation.pixels.split(AT_ONCE), self.validation.labels.split(AT_ONCE), strict=True
            )
        )
        return {"accuracy": right / len(self.validation)}
