"""What a Raptor is fitted by, and how near it is: errors per layer with token groups weighed apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from brdyn.models import TokenLayout

LossFunction = Callable[[Tensor, Tensor], Tensor]
TINY = 1e-30
LAST_PHASE_WEIGHTS = {"cls": 0.34, "registers": 0.33, "patches": 0.33}
JOINT_WEIGHTS = {"cls": 0.45, "registers": 0.10, "patches": 0.45}


def group_weights(layout: TokenLayout, published: Mapping[str, float]) -> dict[str, float]:
    """Published weights for the groups that a model has, scaled to sum to 1.

    What an image's answer is read from is weighed like cls, whatever it is called, and so is a distillation token; the
    spatial tokens like patches, and other groups like registers.
    """
    cls = dict.fromkeys(("distillation", *filter(None, [layout.answer])), published["cls"])
    known = {layout.spatial: published["patches"], **cls, **published}
    found = {group: known.get(group, published["registers"]) for group in layout.groups}
    total = sum(found.values())
    return {group: weight / total for group, weight in found.items()}


def plain_loss(kind: str) -> LossFunction:
    """An error `(B,)` for each image over all its tokens: mean square, half of it minus half the mean cosine, or mean
    square over the :func:`spread` of the teacher's state, which is 1 - R^2 of what is at hand.
    """
    return {"mse": mean_square, "cosine+mse": cosine_and_mean_square, "nmse": normalised_mean_square}[kind]


def weighted_loss(layout: TokenLayout, weights: Mapping[str, float], kind: str = "mse") -> LossFunction:
    """The same with each group's own mean, weighed. What they are divided by is of all tokens: single ones may not
    differ from image to image."""
    normalised = kind == "nmse"
    error = plain_loss("mse" if normalised else kind)
    parts = [(layout[group], weight) for group, weight in weights.items() if weight]

    def loss(guess: Tensor, truth: Tensor) -> Tensor:
        total = torch.stack([weight * error(guess[:, part], truth[:, part]) for part, weight in parts]).sum(0)
        return total / spread(truth) if normalised else total

    return loss


def mean_square(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean over tokens and units, `(B,)`, float32."""
    return (guess.float() - truth.float()).square().flatten(1).mean(1)


def cosine_and_mean_square(guess: Tensor, truth: Tensor) -> Tensor:
    """Half the mean square error minus half the mean cosine of the tokens, `(B,)`."""
    cosine = functional.cosine_similarity(guess.float(), truth.float(), dim=-1).mean(1)
    return 0.5 * mean_square(guess, truth) - 0.5 * cosine


def normalised_mean_square(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean square error over the spread of the truth, `(B,)`."""
    return mean_square(guess, truth) / spread(truth)


def spread(truth: Tensor) -> Tensor:
    """Mean over units of the variance over tokens and images: of a piece, where a batch goes through in pieces."""
    values = truth.float().flatten(0, 1)
    return (values - values.mean(0)).square().mean().clamp(min=TINY)
