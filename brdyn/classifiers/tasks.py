"""What classifiers are trained on: augmented batches with soft targets; of ViTRM, deep supervision.

Deep supervision takes several optimizer steps on a batch, each on one recursion step. Method notes, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from brdyn.classifiers.augment import Augmentation
from brdyn.classifiers.pixels import PixelSet
from brdyn.classifiers.vitrm import Outcome, ViTRM
from brdyn.data import Batch
from brdyn.training import Task

NETWORK = "network"
AT_ONCE = 512


class Labelled(NamedTuple):
    """Normalised images `(B, 3, H, W)`, class weights `(B, classes)`, and the classes before any mixing `(B,)`."""

    images: Tensor
    targets: Tensor
    labels: Tensor


def augmented(augmentation: Augmentation, batch: Batch) -> Labelled:
    """A batch of uint8 pixels with labels, augmented in full precision."""
    assert batch.labels is not None
    with torch.autocast(batch.images.device.type, enabled=False):
        return Labelled(*augmentation.train(batch.images, batch.labels), batch.labels)


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

    def __init__(self, network: nn.Module, augmentation: Augmentation, validation: PixelSet | None = None) -> None:
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


@dataclass
class Supervised:
    """A batch on its way through recursion steps.

    Attributes
    ----------
    images, targets, labels : Tensor
        As in :class:`Labelled`.
    taken : int
        Recursion steps so far.
    carried : (Tensor, Tensor) or None
        y and z to go on from, without a history.
    halting : Tensor or None
        Probability that each answer is right, `(B,)`.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    taken: int = 0
    carried: tuple[Tensor, Tensor] | None = None
    halting: Tensor | None = None


class DeepSupervision(Classification):
    """Cross-entropy of the answer, and of the halting head's word on whether it is right, at every recursion step.

    Each step has an optimizer step of its own and goes on from the last one's y and z, which it does not look behind. A
    batch stops at `n_sup` steps, or when the mean halting probability passes one half.

    Parameters
    ----------
    network : ViTRM
    augmentation : Augmentation
    validation : PixelSet, optional
    n_sup : int
        N_sup.
    steps : int
        T, recursion steps chained for an answer in validation.
    """

    def __init__(
        self,
        network: ViTRM,
        augmentation: Augmentation,
        validation: PixelSet | None = None,
        *,
        n_sup: int = 1,
        steps: int = 1,
    ) -> None:
        super().__init__(network, augmentation, validation)
        self.n_sup, self.steps = n_sup, steps

    def inputs(self, batch: Batch) -> Supervised:  # type: ignore[override]
        """Augmented images, before the first step."""
        return Supervised(*augmented(self.augmentation, batch))

    def forward(self, inputs: Supervised, step: int) -> dict[str, Tensor]:  # type: ignore[override]
        """The loss of each image after one more recursion step."""
        found: Outcome = self.parts[NETWORK](inputs.images, 1, inputs.carried)
        right = found.scores.argmax(1) == inputs.labels  # of a mixed image, the one it was before
        inputs.carried, inputs.taken = (found.y.detach(), found.z.detach()), inputs.taken + 1
        inputs.halting = found.halting.detach().float().sigmoid()
        answer = functional.cross_entropy(found.scores.float(), inputs.targets, reduction="none")
        halting = functional.binary_cross_entropy_with_logits(found.halting.float(), right.float(), reduction="none")
        return {NETWORK: answer + halting}

    @property
    def goes_onward(self) -> bool:
        """Whether a batch may take more than one step: from the second on, what y and z begin with is left out."""
        return self.n_sup > 1

    def onward(self, inputs: Supervised) -> Tensor | None:
        """Nothing after the last step; before it, the probability of not being right yet."""
        assert inputs.halting is not None
        return None if inputs.taken >= self.n_sup else 1 - inputs.halting

    def scores(self, images: Tensor) -> Tensor:
        """Class scores after T steps."""
        with torch.no_grad():
            return self.parts[NETWORK](images, self.steps).scores
