"""Linear centred kernel alignment between layers, unbiased, in minibatches.

Nguyen, Raghu and Kornblith 2021: CKA from averages over minibatches of the unbiased HSIC estimator of
Song et al. 2012. Examples are images; their features are the cls token and the mean patch token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from brdyn.measures.bootstrap import poisson_weights
from brdyn.measures.sampling import SamplingMetric, rows_in
from brdyn.measures.similarity import SimilarityMetric
from brdyn.random_keys import random_keys
from brdyn.trajectory import Trajectory

MINIBATCH = 16
MOST_IMAGES = 4096  # whose features are kept: 0.3 GB of a ViT-B
SPARE = 512  # images beyond those before the sample is drawn anew
FEWEST_IMAGES = 4


def unbiased_hsic(features: Tensor) -> Tensor:
    """Unbiased linear HSIC between all pairs of layers: `(L, B, D)` to `(L, L)`, in float64.

    With the Gram matrix of each layer U-centred, HSIC_1 is their inner product over B (B - 3); needs B >= 4.
    """
    centred = features.double() - features.double().mean(dim=1, keepdim=True)
    gram = centred @ centred.transpose(1, 2)
    count = gram.shape[-1]
    gram.diagonal(dim1=1, dim2=2).zero_()
    rows = gram.sum(-1) / (count - 2)
    total = gram.sum((-2, -1)) / ((count - 1) * (count - 2))
    adjusted = gram - rows[:, :, None] - rows[:, None, :] + total[:, None, None]
    adjusted.diagonal(dim1=1, dim2=2).zero_()
    flat = adjusted.flatten(1)
    return flat @ flat.T / (count * (count - 3))


class LinearCKA(SamplingMetric, SimilarityMetric):
    """Unbiased linear CKA from minibatches of 16 images or a few more, dealt at random by `seed`.

    Sets are often ordered by class, and centring a minibatch of one class would take away what tells classes apart.
    A minibatch has to be of images from all over the set, which are not at hand together: their features are kept, of
    4096 images drawn by `seed` where there are more. Minibatches are the same for any batch size and number of
    processes. All count alike, and a small one is noisier: n images go to n // 16 of sizes that differ by one at most,
    so fewer than 32 are one. The bootstrap resamples minibatches.

    Parameters
    ----------
    width : int
        D; the other parameters are those of :class:`brdyn.measures.similarity.SimilarityMetric`.
    most : int
        Images to keep.

    Examples
    --------
    >>> from brdyn.measures import LinearCKA
    >>> from brdyn.models import TokenLayout
    >>> layout = TokenLayout.with_prefix((2, 2), {"cls": 1})
    >>> states = torch.randn(20, 5, 3)  # images, tokens, width
    >>> turned = states @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    >>> metric = LinearCKA(layout, 2, "cls", width=3)
    >>> metric.update(brdyn.Trajectory([states, states, turned], layout, torch.arange(20)))
    >>> bool(metric.result().matrix[0, 1] > 0.999)  # a rotation is not seen
    True
    """

    kind = "cka"
    unit = f"minibatch of at least {MINIBATCH} images drawn at random"
    needs = f"needs at least {FEWEST_IMAGES} readable images, and had fewer"
    kept: list[Tensor] | Tensor
    positions: list[Tensor] | Tensor

    def __init__(self, *args: Any, width: int, most: int = MOST_IMAGES, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.width, self.most = width, most
        self.add_rows("kept", len(self.groups), self.depth, width)
        self.add_rows("positions", dtype=torch.long)

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        assert isinstance(self.kept, list)
        assert isinstance(self.positions, list)
        self.kept.append(self.features(trajectory).movedim(2, 0).to(self.device))
        self.positions.append(trajectory.positions.to(self.device))
        if rows_in(self.positions) > self.most + SPARE:
            features, positions = self._sample()
            self.kept, self.positions = [features], [positions]

    def _sample(self) -> tuple[Tensor, Tensor]:
        """Features `(n, G, L, D)` and positions of the images kept, in the order they are dealt in."""
        features, positions = dim_zero_cat(self.kept), dim_zero_cat(self.positions)
        order = random_keys(positions.cpu(), self.seed).argsort(kind="stable")[: self.most]
        chosen = torch.from_numpy(order).to(positions.device)
        return features[chosen], positions[chosen]

    def compute(self) -> dict[str, Tensor]:
        """CKA averaged over token groups; NaN where a layer's features do not vary."""
        features = self._sample()[0] if rows_in(self.positions) else self.no_rows["kept"]
        count = len(features)
        dealt = features.tensor_split(max(1, count // MINIBATCH)) if count >= FEWEST_IMAGES else ()
        self.seen, self.resampled = sum(map(len, dealt)), len(dealt)
        each = torch.zeros(len(dealt), len(self.groups), self.depth, self.depth, dtype=torch.float64)
        for number, part in enumerate(dealt):
            each[number] = torch.stack([unbiased_hsic(group) for group in part.permute(1, 2, 0, 3)])
        values = {"matrix": _normalise(each.sum(0))}
        if self.replicates:
            weights = poisson_weights(list(range(len(dealt))), self.replicates, self.seed)
            replicates = _normalise(torch.einsum("nr,ngab->rgab", weights, each))
            values["replicates"] = replicates[replicates.isfinite().flatten(1).all(1)]
        return values


def _normalise(hsic: Tensor) -> Tensor:
    own = hsic.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    return (hsic / (own[..., :, None] * own[..., None, :])).mean(-3)
