"""Measures that are, for each image, one number per layer and token group: mean and spread over images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.measures import intervals
from brdyn.measures.contract import Asked, DepthMeasure
from brdyn.measures.moments import add_moments, mean_and_sd
from brdyn.models import TokenLayout, VisionTransformer
from brdyn.trajectory import Trajectory

SUMS = ("number", "total", "squares")


@dataclass(frozen=True)
class Statistic:
    """One curve over depth.

    Attributes
    ----------
    name : str
    unit : str
        As on an axis.
    first : int
        Index of the first entry: states run from 0 to L, updates from 1 to L.
    count : int
        Number of entries.
    groups : tuple of str or None
        Token groups that it is taken on; None for those of its measure.
    share : bool
        An image has 0 or 1 of it, and its mean is a share of images: its interval is Wilson's.
    """

    name: str
    unit: str
    first: int
    count: int
    groups: tuple[str, ...] | None = None
    share: bool = False


class PerImageMetric(DepthMeasure):
    """Base of the dynamics measures: streams the mean and variance over images of each entry of each curve.

    NaN where an image has no such value (the direction of an update that is zero): those are left out.

    Parameters
    ----------
    layout : TokenLayout
    depth : int
        L, the number of blocks.
    """

    count: Tensor
    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    def __init__(self, layout: TokenLayout, depth: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layout = layout
        self.depth = depth
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for statistic in self.statistics():
            for group in self.groups_of(statistic):
                for sums in SUMS:
                    zeros = torch.zeros(statistic.count, dtype=torch.float64)
                    self.add_state(f"{sums}_{statistic.name}_{group}", zeros, dist_reduce_fx="sum")

    @classmethod
    def make(cls, model: VisionTransformer, asked: Asked) -> Self:
        del asked
        return cls(model.tokens, model.depth)

    @abstractmethod
    def statistics(self) -> tuple[Statistic, ...]:
        """The curves this measure gives."""

    @abstractmethod
    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Values `(count, B)` by (statistic, group)."""

    def groups(self) -> tuple[str, ...]:
        """The token groups it is taken on."""
        return tuple(self.layout.groups)

    def groups_of(self, statistic: Statistic) -> tuple[str, ...]:
        """Those of one curve."""
        return self.groups() if statistic.groups is None else statistic.groups

    def by_group(self, name: str, values: Tensor) -> dict[tuple[str, str], Tensor]:
        """Average values of every token `(count, B, N)` over the tokens of each group that have one."""
        return {(name, group): values[..., self.layout[group]].nanmean(-1) for group in self.groups()}

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        self.count += len(trajectory)
        for (statistic, group), values in self.per_image(trajectory).items():
            add_moments(*self._sums(statistic, group), values.T)

    def _sums(self, statistic: str, group: str) -> tuple[Tensor, Tensor, Tensor]:
        number, total, squares = (getattr(self, f"{name}_{statistic}_{group}") for name in SUMS)
        return number, total, squares

    def compute(self) -> dict[str, Tensor]:
        """Rows mean, standard deviation and number of images, `(3, count)`, by `statistic/group`."""
        curves = {}
        for statistic in self.statistics():
            for group in self.groups_of(statistic):
                sums = self._sums(statistic.name, group)
                curves[f"{statistic.name}/{group}"] = torch.stack([*mean_and_sd(*sums), sums[0]])
        return curves

    def table(self, boundaries: Sequence[int] = ()) -> pd.DataFrame:
        """One row per statistic, group and layer: mean, 95 % interval of the mean, standard deviation, images."""
        del boundaries
        curves = self.compute()
        rows = []
        for statistic in self.statistics():
            for group in self.groups_of(statistic):
                mean, spread, count = curves[f"{statistic.name}/{group}"].double().cpu().numpy()
                n = np.maximum(count, 1)
                low, high = intervals.of_share(mean, n) if statistic.share else intervals.of_mean(mean, spread, n)
                rows.append(
                    pd.DataFrame(
                        {
                            "statistic": statistic.name,
                            "unit": statistic.unit,
                            "group": group,
                            "layer": range(statistic.first, statistic.first + statistic.count),
                            "mean": mean,
                            "low": low,
                            "high": high,
                            "sd": spread,
                            "n_images": count.astype(int),
                        }
                    )
                )
        return pd.concat(rows, ignore_index=True)
