"""Procrustes similarity between layers: how well a rotation maps one set of image features to another.

With features centred and scaled to unit Frobenius norm, the similarity is the nuclear norm of their
cross-moment, 1 - d^2 / 2 of the orthogonal Procrustes distance d (Schönemann 1966; Ding et al. 2021).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brdyn.errors import UsageError
from brdyn.measures.similarity import SimilarityMetric
from brdyn.runtime import available_memory
from brdyn.trajectory import Trajectory

MEMORY_SHARE = 0.5


class Procrustes(SimilarityMetric):
    """Orthogonal Procrustes similarity over images, from exact streaming cross-moments.

    The state is one D x D moment for each pair of layers, whatever the number of images. With fewer
    images than a few times D any two layers can be rotated onto each other: read it with many images.
    There is no bootstrap: replicates would each need all moments.

    Parameters
    ----------
    width : int
        D; the other parameters are those of :class:`brdyn.measures.similarity.SimilarityMetric`.
    device : torch.device, optional
        Where the moments will be kept, to refuse what would not fit there.

    Examples
    --------
    >>> from brdyn.measures import Procrustes
    >>> from brdyn.models import TokenLayout
    >>> layout = TokenLayout.with_prefix((2, 2), {"cls": 1})
    >>> states = torch.randn(20, 5, 3)  # images, tokens, width
    >>> turned = states @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    >>> metric = Procrustes(layout, 2, "cls", width=3)
    >>> metric.update(brdyn.Trajectory([states, states, turned], layout, torch.arange(20)))
    >>> bool(metric.result().matrix[0, 1] > 0.999)  # a rotation is not seen
    True
    """

    kind = "procrustes"
    unit = "none (no bootstrap for procrustes)"
    moments: Tensor
    sums: Tensor

    def __init__(self, *args: Any, width: int, device: torch.device | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pairs = torch.triu_indices(self.depth, self.depth).tolist()
        shape = (len(self.groups), len(self.pairs[0]), width, width)
        needed = 2 * 8 * torch.Size(shape).numel()  # torchmetrics keeps a second copy, to reset to
        if needed > MEMORY_SHARE * available_memory(device or torch.device("cpu")):
            raise UsageError(
                f"procrustes keeps a {width}x{width} moment for each of {shape[1]} pairs of layers, "
                f"{needed / 2**30:.1f} GiB here: too much for this device; use the similarity cka"
            )
        self.add_state("moments", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        sums = torch.zeros(len(self.groups), self.depth, width, dtype=torch.float64)
        self.add_state("sums", sums, dist_reduce_fx="sum")

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        features = self.features(trajectory).to(self.sums.device).double()
        self.count += len(trajectory)
        self.sums += features.sum(2)
        for index, (first, second) in enumerate(zip(*self.pairs, strict=True)):
            self.moments[:, index] += features[:, first].transpose(1, 2) @ features[:, second]

    def compute(self) -> dict[str, Tensor]:
        """Nuclear norm of the centred cross-moment over the Frobenius norms, averaged over groups."""
        self.seen = self.count
        means = self.sums / self.count
        nuclear = torch.zeros(len(self.groups), self.depth, self.depth, dtype=torch.float64)
        norms = torch.zeros(len(self.groups), self.depth, dtype=torch.float64)
        for index, (first, second) in enumerate(zip(*self.pairs, strict=True)):
            outer = means[:, first, :, None] * means[:, second, None, :]
            centred = self.moments[:, index] - self.count * outer
            value = torch.linalg.svdvals(centred).sum(-1).cpu()
            nuclear[:, first, second] = nuclear[:, second, first] = value
            if first == second:
                norms[:, first] = centred.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(0).sqrt().cpu()
        return {"matrix": (nuclear / (norms[:, :, None] * norms[:, None, :])).mean(0)}
