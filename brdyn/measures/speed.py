"""Angular speed and turning: how fast the direction of a token moves, and how its updates are aligned.

Method notes, section 6. Radians per layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from brdyn.measures.kinematics import TINY, dot, step_angles, update_norms, updates
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.trajectory import Trajectory


class AngularSpeed(PerImageMetric):
    """`s_l`, the angle between `a_{l-1}` and `a_l` for l = 1..L, token by token, averaged over each group.

    BRH: registers slow, patches moderate, cls turns sharply at the end.
    """

    def statistics(self) -> tuple[Statistic, ...]:
        """One curve over the updates."""
        return (Statistic("speed", "angular speed (radians per layer)", 1, self.depth),)

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Mean angle of each group."""
        return self.by_group("speed", step_angles(trajectory))


class TurningAngle(PerImageMetric):
    """Angle between the updates `d_l` and `d_{l+1}` for l = 1..L-1, token by token, averaged over each group.

    Zero for motion along a straight line, pi / 2 for updates that do not know of each other. Tokens that one of the two
    does not move are left out.
    """

    def statistics(self) -> tuple[Statistic, ...]:
        """One curve over pairs of consecutive updates; none for a single block."""
        return (Statistic("turning", "turning angle (radians)", 1, max(self.depth - 1, 0)),)

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Mean angle of each group."""
        steps, size = updates(trajectory), update_norms(trajectory)
        if len(steps) < 2:
            return {}
        products = torch.stack([dot(first, second) for first, second in pairwise(steps)])
        lengths = size[:-1] * size[1:]
        angles = (products / lengths.clamp_min(TINY)).clamp(-1, 1).acos().where(lengths > 0, torch.nan)
        return self.by_group("turning", angles)
