"""Norm of the tokens: how long the states grow with depth. Method notes, section 6."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from brdyn.measures.kinematics import norms
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.trajectory import Trajectory


class TokenNorm(PerImageMetric):
    """`|a_l|` for l = 0..L, averaged over the tokens of each group."""

    def statistics(self) -> tuple[Statistic, ...]:
        """One curve over the states."""
        return (Statistic("norm", "token norm", 0, self.depth + 1),)

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Mean norm of each group."""
        return self.by_group("norm", norms(trajectory))
