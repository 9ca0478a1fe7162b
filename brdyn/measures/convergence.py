"""Directional convergence: how near the direction of a token is to where it ends. Method notes, section 6."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from brdyn.measures.kinematics import TINY, dot, norms
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.trajectory import Trajectory


class DirectionalConvergence(PerImageMetric):
    """`gamma_l = <a_l, a_L> / (|a_l| |a_L|)` for l = 0..L, token by token, averaged over each group.

    BRH: an S-shaped rise to 1. Tokens that are zero have no direction and are left out.
    """

    def statistics(self) -> tuple[Statistic, ...]:
        """One curve over the states; its last entry is 1."""
        return (Statistic("convergence", "cosine to the final state", 0, self.depth + 1),)

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Mean cosine of each group."""
        last, size = trajectory.states[-1], norms(trajectory)
        products = torch.stack([dot(state, last) for state in trajectory.states])
        lengths = size * size[-1]
        cosines = (products / lengths.clamp_min(TINY)).clamp(-1, 1).where(lengths > 0, torch.nan)
        return self.by_group("convergence", cosines)
