"""Cosine similarity between layers: of the mean token of each group, or token by token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from brdyn.measures.kinematics import lengths
from brdyn.measures.similarity import MeanSimilarity
from brdyn.trajectory import Trajectory

CHUNK_BYTES = 256 * 2**20
SMALLEST_NORM = 1e-12


def gram_by_image(features: Tensor) -> Tensor:
    """Cosines between layers for every image: `(L, B, D)` to `(B, L, L)`, diagonal exactly one.

    NaN where a layer's vector is zero: it has no direction.
    """
    unit = functional.normalize(features, dim=-1).transpose(0, 1)
    cosines = (unit @ unit.transpose(1, 2)).clamp(-1, 1)
    cosines.diagonal(dim1=1, dim2=2).fill_(1)
    return without_direction(cosines, ~features.any(-1))


def without_direction(cosines: Tensor, zero: Tensor) -> Tensor:
    """Cosines `(B, L, L)` with NaN at the layers where an image's vectors are zero, `(L, B)`."""
    return cosines.masked_fill_(zero.T[:, :, None] | zero.T[:, None, :], torch.nan)


class CosineSimilarity(MeanSimilarity):
    """The papers' own measure: cosine of the cls token and of the mean patch token, averaged.

    BRH and its public notebook; method notes, section 2.

    >>> from brdyn.measures import CosineSimilarity
    >>> from brdyn.models import TokenLayout
    >>> layout = TokenLayout.with_prefix((2, 2), {"cls": 1})
    >>> states = torch.randn(20, 5, 3)  # images, tokens, width
    >>> turned = states @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    >>> metric = CosineSimilarity(layout, 2, "cls")
    >>> metric.update(brdyn.Trajectory([states, states, turned], layout, torch.arange(20)))
    >>> bool(metric.result().matrix[0, 1] > 0.999)  # it sees a rotation
    False
    """

    kind = "cosine"

    def per_image(self, trajectory: Trajectory) -> Tensor:
        """Average over groups of the cosine between mean tokens, `(B, L, L)`."""
        return torch.stack([gram_by_image(group) for group in self.features(trajectory)]).mean(0)


class TokenCosineSimilarity(MeanSimilarity):
    """Cosine token by token, averaged over the tokens of each group, then over groups.

    >>> from brdyn.measures import TokenCosineSimilarity
    >>> metric = TokenCosineSimilarity(model.tokens, model.depth, "patches", replicates=10)
    >>> for trajectory in brdyn.trajectories(model, images):
    ...     metric.update(trajectory)
    >>> found = metric.result()
    >>> found.n_images, found.matrix.shape, found.replicates.shape
    (8, (12, 12), (10, 12, 12))
    """

    kind = "token-cosine"

    def per_image(self, trajectory: Trajectory) -> Tensor:
        """Average over groups of the mean cosine between corresponding tokens, `(B, L, L)`."""
        return torch.stack([self._group(trajectory, group) for group in self.groups]).mean(0)

    def _group(self, trajectory: Trajectory, group: str) -> Tensor:
        part = slice(None) if group == "all" else trajectory.tokens[group]
        states = [state[:, part] for state in trajectory.states[1:]]
        count, width = states[0].shape[1:]
        step = max(1, CHUNK_BYTES // (len(states) * count * width * 4))
        chunks = []
        for start in range(0, len(trajectory), step):
            held = [state[start : start + step] for state in states]
            unit = torch.empty(len(held[0]), len(held), count, width, device=held[0].device)
            zero = torch.stack([~tokens.flatten(1).any(1) for tokens in held])
            for layer, tokens in enumerate(held):
                size = lengths(tokens, keepdim=True)
                torch.div(tokens, size.clamp_min(SMALLEST_NORM), out=unit[:, layer])
            flat = unit.flatten(2)
            cosines = (flat @ flat.transpose(1, 2) / count).clamp(-1, 1)
            cosines.diagonal(dim1=1, dim2=2).fill_(1)
            chunks.append(without_direction(cosines, zero))
        return torch.cat(chunks)
