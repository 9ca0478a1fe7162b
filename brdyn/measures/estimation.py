"""Estimation error within phases: does a phase refine one estimate? Greff, Srivastava and Schmidhuber 2016.

If the blocks of a phase iteratively refine the same representation, what is still missing at layer l,
`a_l - a_end` with `a_end` the state that ends the phase, has mean zero over units and a variance that falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor

from brdyn.errors import UsageError
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.runtime import in_float64
from brdyn.trajectory import Trajectory

MEAN, VARIANCE = "estimation_mean", "estimation_variance"
CHUNK_BYTES = 256 * 2**20


class PhaseEstimation(PerImageMetric):
    """Mean and variance over units of `a_l - a_m`, token by token, for every pair of layers l, m in 1..L.

    Kept for all pairs, so that phases found in the same pass can be asked about afterwards.
    """

    def statistics(self) -> tuple[Statistic, ...]:
        """Two L x L tables, row by row."""
        return (
            Statistic(MEAN, "mean of the error over units", 1, self.depth**2),
            Statistic(VARIANCE, "variance of the error over units", 1, self.depth**2),
        )

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Both tables of each group."""
        per_image = self.depth * trajectory.states[0][0].numel() * 8
        step = max(1, CHUNK_BYTES // per_image)
        parts = [
            self._moments([state[start : start + step] for state in trajectory.states[1:]])
            for start in range(0, len(trajectory), step)
        ]
        means, variances = (torch.cat(part) for part in zip(*parts, strict=True))
        found = {}
        for group in self.groups():
            tokens = self.layout[group]
            found[MEAN, group] = means[:, tokens].mean(1).flatten(1).T
            found[VARIANCE, group] = variances[:, tokens].mean(1).flatten(1).T
        return found

    def _moments(self, states: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and variance over units of the difference of all pairs, each `(B, N, L, L)`.

        In float64, and of what differs from the first state: small differences of large states are lost in the rounding
        of the states' own variances.
        """
        stacked = torch.stack([in_float64(state) - in_float64(states[0]) for state in states], dim=2)
        means = stacked.mean(-1)
        centred = stacked - means[..., None]
        covariance = centred @ centred.transpose(-1, -2) / stacked.shape[-1]
        own = covariance.diagonal(dim1=-2, dim2=-1)
        variance = (own[..., :, None] + own[..., None, :] - 2 * covariance).clamp_min(0)
        return means[..., :, None] - means[..., None, :], variance

    def table(self, boundaries: Sequence[int] = ()) -> pd.DataFrame:
        """The error of every layer against the end of its phase.

        Raises
        ------
        UsageError
            If the boundaries do not increase from 1 to L - 1.
        """
        edges = [0, *boundaries, self.depth]
        if any(later <= earlier for earlier, later in pairwise(edges)):
            raise UsageError(f"boundaries {list(boundaries)} do not increase from 1 to {self.depth - 1}")
        table = super().table()
        pair = table["layer"] - 1
        layer, other = pair // self.depth + 1, pair % self.depth + 1
        end = layer.map(lambda number: next(edge for edge in edges[1:] if edge >= number))
        return table.assign(layer=layer)[other == end].reset_index(drop=True)
