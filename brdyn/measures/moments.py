"""Mean and spread over images of an array of numbers, streaming and summed over processes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from brdyn.measures.per_image import CONFIDENCE_Z


class RunningMoments(Metric):
    """Mean, standard deviation and 95 % interval of the mean, entry by entry; NaN entries of an image are left out.

    Parameters
    ----------
    shape : sequence of int
        Of the array that each image gives.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        for name in ("count", "total", "squares"):
            self.add_state(name, torch.zeros(self.shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add the arrays of some images, `(B, *shape)`."""
        exact = values.to(self.count.device).double()
        there = ~exact.isnan()
        exact = exact.nan_to_num(nan=0.0)
        self.count += there.sum(0)
        self.total += exact.sum(0)
        self.squares += exact.square().sum(0)

    def compute(self) -> dict[str, Tensor]:
        """`mean`, `low`, `high`, `sd` and `n_images`, each of the array's shape; NaN where there was nothing."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp_min(0)
        spread = (variance * self.count / (self.count - 1).clamp_min(1)).sqrt()
        half = CONFIDENCE_Z * spread / self.count.sqrt()
        return {"mean": mean, "low": mean - half, "high": mean + half, "sd": spread, "n_images": self.count}

    def arrays(self) -> dict[str, np.ndarray]:
        """As :meth:`compute`, in NumPy; NaN everywhere where there was no image."""
        with warnings.catch_warnings():  # of torchmetrics, when there was none
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            computed = self.compute()
        found = {name: value.cpu().numpy().reshape(self.shape) for name, value in computed.items()}
        return {**found, "n_images": found["n_images"].astype(int)}
