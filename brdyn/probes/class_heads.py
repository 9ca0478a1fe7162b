"""The head of the published protocol for classes: linear on cls beside the mean patch, begun from the model's own.

BRH, method notes section 12: AdamW, a warm-up and a cosine, the epoch that is best on the test images. Where a model
has a classifier that is linear in those features, such as DINOv2's, the head begins as that one; else at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from brdyn.compared import Compared
from brdyn.models import VisionTransformer
from brdyn.probes.features import Features, feature_width
from brdyn.probes.heads import Recipe
from brdyn.runtime import with_gradients

AT_ONCE = 64  # of the directions that a classifier is asked about
TOLERANCE, ROUNDINGS = 1e-3, 16  # of the largest score; of a number of the model's precision
ASKED = 4

Epoch = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False, repr=False)
class ClassHead(Compared):
    """A linear head on classes.

    Attributes
    ----------
    weight, bias : Tensor
        `(C, F)` and `(C,)`, of features as they are.

    Examples
    --------
    >>> from brdyn.probes.class_heads import ClassHead
    >>> ClassHead(torch.eye(2), torch.zeros(2)).predict(torch.tensor([[0.2, 0.1], [0.2, 0.3]])).tolist()
    [0, 1]
    """

    weight: Tensor
    bias: Tensor

    def predict(self, values: Tensor) -> Tensor:
        """Class indices `(m,)` of features `(m, F)`."""
        return functional.linear(values, self.weight, self.bias).argmax(1)

    @classmethod
    def zero(cls, classes: int, width: int) -> ClassHead:
        """One that knows nothing."""
        return cls(torch.zeros(classes, width, dtype=torch.float32), torch.zeros(classes, dtype=torch.float32))

    @classmethod
    def of(cls, model: VisionTransformer) -> ClassHead | None:
        """The classifier of a model, where it is linear in cls and the mean patch; None where there is none such.

        It is asked about each direction of those features, and then about random tokens: whatever the classifier
        is made of, the weights are those it works by.
        """
        width = feature_width(model)
        bias = _scores(model, torch.zeros(1, width, dtype=torch.float32))
        if bias is None:
            return None
        columns = [_scores(model, part) for part in torch.eye(width, dtype=torch.float32).split(AT_ONCE)]
        weight = torch.cat([part - bias for part in columns if part is not None]).T
        found = cls(weight.contiguous(), bias[0])
        return found if found._is_that_of(model) else None

    def _is_that_of(self, model: VisionTransformer) -> bool:
        """Whether random tokens get the same scores."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(ASKED, model.tokens.count, model.info.width, generator=generator, dtype=torch.float32)
        with torch.no_grad():
            theirs = model.logits(tokens.to(model.device, model.dtype))
        assert theirs is not None
        means = [tokens[:, model.tokens[group]].mean(1) for group in model.tokens.readouts]
        apart = functional.linear(torch.cat(means, 1), self.weight, self.bias) - theirs.float().cpu()
        allowed = max(TOLERANCE, ROUNDINGS * torch.finfo(model.dtype).eps)
        return bool(apart.abs().max() <= allowed * theirs.abs().max().float().cpu())


def _scores(model: VisionTransformer, features: Tensor) -> Tensor | None:
    """Of normed tokens whose cls and mean patch are these features `(B, F)`; those of other groups are zero."""
    width = model.info.width
    tokens = torch.zeros(len(features), model.tokens.count, width, dtype=features.dtype)
    for place, group in enumerate(model.tokens.readouts):
        tokens[:, model.tokens[group]] = features[:, None, place * width : (place + 1) * width]
    with torch.no_grad():
        found = model.logits(tokens.to(model.device, model.dtype))
    return None if found is None else found.float().cpu()


class FittedClassHead(NamedTuple):
    """A trained head, and its epoch.

    Attributes
    ----------
    head : ClassHead
    epoch : int
        That of the best accuracy on the test images, from 1.
    """

    head: ClassHead
    epoch: int


@with_gradients
def fit_class_head(
    train: Features,
    test: Features,
    start: ClassHead,
    recipe: Recipe,
    *,
    seed: int = 0,
    epochs: Callable[[int], Epoch] | None = None,
    device: torch.device | str = "cpu",
) -> FittedClassHead:
    """Train a head, and keep it as it was after the epoch that is best on the test images: optimistic.

    Parameters
    ----------
    train, test : Features
        Of classes numbered as those of `start`.
    start : ClassHead
    recipe : Recipe
        The first of its penalties is the decay of AdamW.
    seed : int
        Of the order of the images.
    epochs : callable, optional
        Batches of features and classes of an epoch, where these are made anew for each.
    device : torch.device

    Examples
    --------
    >>> from brdyn.probes import Features, Recipe
    >>> from brdyn.probes.class_heads import ClassHead, fit_class_head
    >>> features = Features(torch.eye(2).repeat(5, 1), torch.tensor([0, 1] * 5))
    >>> found = fit_class_head(features, features, ClassHead.zero(2, 2), Recipe.of("classification", published=True))
    >>> found.epoch, found.head.predict(features.values[:2]).tolist()
    (1, [0, 1])
    """
    weight, bias = (one.clone().to(device).requires_grad_(True) for one in (start.weight, start.bias))
    optimizer = torch.optim.AdamW([weight, bias], lr=recipe.lr, weight_decay=recipe.penalties[0])
    generator = torch.Generator().manual_seed(seed)
    steps, step = recipe.epochs * -(-len(train) // recipe.batch_size), 0
    best, right = FittedClassHead(start, 0), -1
    for number in range(recipe.epochs):
        batches = _drawn(train, recipe.batch_size, generator) if epochs is None else epochs(number)
        for values, labels in batches:
            optimizer.param_groups[0]["lr"] = recipe.rate(step, steps)
            optimizer.zero_grad()
            scores = functional.linear(values.to(device), weight, bias)
            functional.cross_entropy(scores, labels.to(device)).backward()
            optimizer.step()
            step += 1
        head = ClassHead(weight.detach().cpu().clone(), bias.detach().cpu().clone())
        hits = int((head.predict(test.values) == test.labels).sum())
        if hits > right:
            best, right = FittedClassHead(head, number + 1), hits
    return best


def _drawn(features: Features, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.randperm(len(features), generator=generator).split(size):
        part = features[rows]
        yield part.values, part.labels
