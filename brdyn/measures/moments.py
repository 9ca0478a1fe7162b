"""Mean and spread over images of an array of numbers, streaming and summed over processes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from brdyn.measures import intervals

SAME = 1e-6  # of the squares: what tokens of float32 differ by from their mean below that is rounding


def add_moments(count: Tensor, total: Tensor, squares: Tensor, values: Tensor) -> None:
    """Add the values of some images, `(B, ...)`, to their number, sum and sum of squares in place; NaN are left out."""
    exact = values.to(count.device).double()
    there = ~exact.isnan()
    exact = exact.nan_to_num(nan=0.0)
    count += there.sum(0)
    total += exact.sum(0)
    squares += exact.square().sum(0)


def mean_and_sd(count: Tensor, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """From those sums; NaN where there was nothing, and the spread of one value too: it is not known."""
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0)
    return mean, (variance * count / (count - 1)).sqrt().where(count > 1, torch.nan)


def with_sum(values: Tensor, dim: int = 0) -> Tensor:
    """Values of token groups along a dimension, and behind them their sum."""
    return torch.cat([values, values.sum(dim, keepdim=True)], dim)


def r_squared(residual: Tensor, squares: Tensor, sums: Tensor, tokens: Tensor) -> Tensor:
    """1 minus the squared error over the squared distance of tokens to their mean; NaN of tokens that are all the same.

    Parameters
    ----------
    residual : Tensor
        Sum of the squared errors.
    squares, sums : Tensor, shapes (...) and (..., D)
        Of the true tokens.
    tokens : Tensor
        How many they are.
    """
    spread = squares - sums.square().sum(-1) / tokens
    return 1 - residual / spread.where(spread > SAME * squares, torch.nan)


class RunningMoments(Metric):
    """Mean, standard deviation and 95 % interval of the mean, entry by entry; NaN entries of an image are left out.

    Parameters
    ----------
    shape : sequence of int
        Of the array that each image gives.
    shares : bool
        Entries are 0 or 1, and means are shares of images: their intervals are Wilson's.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, shape: Sequence[int], *, shares: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape, self.shares = tuple(shape), shares
        for name in ("count", "total", "squares"):
            self.add_state(name, torch.zeros(self.shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add the arrays of some images, `(B, *shape)`."""
        add_moments(self.count, self.total, self.squares, values)

    def compute(self) -> dict[str, Tensor]:
        """`mean`, `low`, `high`, `sd` and `n_images`, each of the array's shape; NaN where there was nothing."""
        mean, spread = mean_and_sd(self.count, self.total, self.squares)
        n = self.count
        low, high = intervals.of_share(mean, n) if self.shares else intervals.of_mean(mean, spread, n)
        return {"mean": mean, "low": low, "high": high, "sd": spread, "n_images": n}

    def arrays(self) -> dict[str, np.ndarray]:
        """As :meth:`compute`, in NumPy; NaN everywhere where there was no image."""
        with warnings.catch_warnings():  # of torchmetrics, when there was none
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            computed = self.compute()
        found = {name: value.cpu().numpy().reshape(self.shape) for name, value in computed.items()}
        return {**found, "n_images": found["n_images"].astype(int)}
