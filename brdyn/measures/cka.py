"""Linear centred kernel alignment between layers, unbiased, in minibatches.

Nguyen, Raghu and Kornblith 2021: CKA from averages over minibatches of the unbiased HSIC estimator of
Song et al. 2012. Examples are images; their features are the cls token and the mean patch token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brdyn.data.image_set import SHARD
from brdyn.measures.bootstrap import poisson_weights
from brdyn.measures.similarity import SimilarityMetric
from brdyn.trajectory import Trajectory

SMALLEST_MINIBATCH = 4


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


class LinearCKA(SimilarityMetric):
    """Unbiased linear CKA from minibatches of 16 images.

    Minibatches are runs of 16 positions in the image set: they are the same for any batch size and
    number of processes. A run of which fewer than 4 images could be read is left out. The bootstrap
    resamples minibatches.
    """

    kind = "cka"
    unit = f"minibatch of {SHARD} images"
    hsic: Tensor
    boot_hsic: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shape = (len(self.groups), self.depth, self.depth)
        self.add_state("hsic", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        boot = torch.zeros(self.replicates, *shape, dtype=torch.float64)
        self.add_state("boot_hsic", boot, dist_reduce_fx="sum")
        self._pending: list[Tensor] = []
        self._run: int | None = None

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory; minibatches may span trajectories."""
        features = self.features(trajectory)
        for column, position in enumerate(trajectory.positions.tolist()):
            run = position // SHARD
            if run != self._run:
                self._flush()
                self._run = run
            self._pending.append(features[:, :, column])

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if len(pending) < SMALLEST_MINIBATCH or self._run is None:
            return
        features = torch.stack(pending, dim=2).to(self.hsic.device)
        hsic = torch.stack([unbiased_hsic(group) for group in features])
        self.hsic += hsic
        self.count += len(pending)
        if self.replicates:
            weights = poisson_weights([self._run], self.replicates, self.seed).to(hsic.device)[0]
            self.boot_hsic += weights[:, None, None, None] * hsic

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Close the last minibatch before states are summed over processes."""
        self._flush()
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """CKA averaged over token groups; NaN where a layer's features do not vary."""
        self._images = int(self.count)
        values = {"matrix": _normalise(self.hsic)}
        if self.replicates:
            replicates = _normalise(self.boot_hsic)
            values["replicates"] = replicates[replicates.isfinite().flatten(1).all(1)]
        return values


def _normalise(hsic: Tensor) -> Tensor:
    own = hsic.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    return (hsic / (own[..., :, None] * own[..., None, :])).mean(-3)
