"""Linear centred kernel alignment between layers, unbiased, in minibatches.

Nguyen, Raghu and Kornblith 2021: CKA from averages over minibatches of the unbiased HSIC estimator of
Song et al. 2012. Examples are images; their features are the cls token and the mean patch token.
"""

from __future__ import annotations

from itertools import groupby
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

    Parameters
    ----------
    width : int
        D; the other parameters are those of :class:`brdyn.measures.similarity.SimilarityMetric`.

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
    unit = f"minibatch of {SHARD} images"
    needs = f"needs at least {SMALLEST_MINIBATCH} readable images among {SHARD} that follow each other, and had none"
    hsic: Tensor
    boot_hsic: Tensor
    pending: Tensor
    pending_count: Tensor
    pending_run: Tensor

    def __init__(self, *args: Any, width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shape = (len(self.groups), self.depth, self.depth)
        self.add_state("hsic", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        boot = torch.zeros(self.replicates, *shape, dtype=torch.float64)
        self.add_state("boot_hsic", boot, dist_reduce_fx="sum")
        # The minibatch being filled: of every process when synchronised, as runs are never shared.
        pending = torch.zeros(len(self.groups), self.depth, SHARD, width)
        self.add_state("pending", pending, dist_reduce_fx=None)
        self.add_state("pending_count", torch.zeros((), dtype=torch.long), dist_reduce_fx=None)
        self.add_state("pending_run", torch.zeros((), dtype=torch.long), dist_reduce_fx=None)

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory; minibatches may span trajectories."""
        features = self.features(trajectory).to(self.pending.device)
        runs = (trajectory.positions // SHARD).tolist()
        start = 0
        for run, members in groupby(runs):
            stop = start + len(list(members))
            full = (
                int(self.pending_count) + stop - start > SHARD
            )  # positions seen again: another set of images
            if run != int(self.pending_run) or full:
                for state, value in zip(self._sums(), self._pending_sums(), strict=True):
                    state += value
                self.pending_count.zero_()
                self.pending_run.fill_(run)
            held = int(self.pending_count)
            self.pending[:, :, held : held + stop - start] = features[:, :, start:stop]
            self.pending_count += stop - start
            start = stop

    def _sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.hsic, self.boot_hsic, self.count, self.units

    def _pending_sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the minibatches still being filled would add to the sums."""
        hsic, boot_hsic, count, units = (torch.zeros_like(state) for state in self._sums())
        features = self.pending.view(-1, *self.pending.shape[-4:])
        waiting = zip(features, self.pending_count.view(-1), self.pending_run.view(-1), strict=True)
        for held, number, run in waiting:
            if number < SMALLEST_MINIBATCH:
                continue
            value = torch.stack([unbiased_hsic(group[:, : int(number)]) for group in held])
            hsic += value
            count += number
            units += 1
            if self.replicates:
                weights = poisson_weights([int(run)], self.replicates, self.seed).to(value.device)[0]
                boot_hsic += weights[:, None, None, None] * value
        return hsic, boot_hsic, count, units

    def compute(self) -> dict[str, Tensor]:
        """CKA averaged over token groups; NaN where a layer's features do not vary."""
        sums = zip(self._sums(), self._pending_sums(), strict=True)
        hsic, boot_hsic, self.seen, self.resampled = (state + value for state, value in sums)
        values = {"matrix": _normalise(hsic)}
        if self.replicates:
            replicates = _normalise(boot_hsic)
            values["replicates"] = replicates[replicates.isfinite().flatten(1).all(1)]
        return values


def _normalise(hsic: Tensor) -> Tensor:
    own = hsic.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    return (hsic / (own[..., :, None] * own[..., None, :])).mean(-3)
