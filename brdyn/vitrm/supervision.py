"""Deep supervision: several optimizer steps on a batch, each on one recursion step. Method notes, section 7."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from brdyn.classification.augment import Augmentation
from brdyn.classification.pixels import PixelSet
from brdyn.classification.tasks import NETWORK, Classification, augmented
from brdyn.data import Batch
from brdyn.vitrm.model import Outcome, ViTRM


@dataclass
class Supervised:
    """A batch on its way through recursion steps.

    Attributes
    ----------
    images, targets : Tensor
        `(B, 3, H, W)`, normalised, and class weights `(B, classes)`.
    taken : int
        Recursion steps so far.
    carried : (Tensor, Tensor) or None
        y and z to go on from, without a history.
    halting : Tensor or None
        Probability that each answer is right, `(B,)`.
    """

    images: Tensor
    targets: Tensor
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
    n_sup : int
        N_sup.
    steps : int
        T, recursion steps chained for an answer in validation.
    validation : PixelSet, optional
    """

    def __init__(
        self,
        network: ViTRM,
        augmentation: Augmentation,
        *,
        n_sup: int = 1,
        steps: int = 1,
        validation: PixelSet | None = None,
    ) -> None:
        super().__init__(network, augmentation, validation)
        self.n_sup, self.steps = n_sup, steps

    def inputs(self, batch: Batch) -> Supervised:  # type: ignore[override]
        """Augmented images, before the first step."""
        return Supervised(*augmented(self.augmentation, batch))

    def forward(self, inputs: Supervised, step: int) -> dict[str, Tensor]:  # type: ignore[override]
        """The loss of each image after one more recursion step."""
        found: Outcome = self.parts[NETWORK](inputs.images, 1, inputs.carried)
        right = found.scores.argmax(1) == inputs.targets.argmax(1)
        inputs.carried, inputs.taken = (found.y.detach(), found.z.detach()), inputs.taken + 1
        inputs.halting = found.halting.detach().float().sigmoid()
        answer = functional.cross_entropy(found.scores.float(), inputs.targets, reduction="none")
        halting = functional.binary_cross_entropy_with_logits(
            found.halting.float(), right.float(), reduction="none"
        )
        return {NETWORK: answer + halting}

    def onward(self, inputs: Supervised) -> Tensor | None:
        """Nothing after the last step; before it, the probability of not being right yet."""
        assert inputs.halting is not None
        return None if inputs.taken >= self.n_sup else 1 - inputs.halting

    def scores(self, images: Tensor) -> Tensor:
        """Class scores after T steps."""
        with torch.no_grad():
            return self.parts[NETWORK](images, self.steps).scores
