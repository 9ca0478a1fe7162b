"""Measures that keep a bounded sample of the tokens they see, and what is drawn for each image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from brdyn.random_keys import random_keys


class SamplingMetric(Metric):
    """Base of the measures that keep some tokens in lists, joined over processes.

    torchmetrics gathers a list only where it is not empty, and a process may have had no images.
    """

    full_state_update = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.no_rows: dict[str, Tensor] = {}

    def add_rows(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        """Keep rows of a shape and type in a list of this name; `no_rows` has one without rows."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self.no_rows[name] = torch.zeros(0, *shape, dtype=dtype)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the state of all processes."""
        for name, nothing in self.no_rows.items():
            if not len(getattr(self, name)):
                setattr(self, name, [nothing.to(self.device)])
        super().sync(*args, **kwargs)


def rows_in(state: list[Tensor] | Tensor) -> int:
    """Rows of a list state, which synchronising joins to one tensor."""
    return sum(map(len, state)) if isinstance(state, list) else len(state)


def normal_like(states: Tensor, positions: Tensor, seed: int) -> Tensor:
    """Gaussian numbers in float32, of the shape `(B, …)` of states, by an image's position and the seed alone.

    The same come back for an image on the same kind of device; CPU and GPU draw different ones.
    """
    device = states.device if states.device.type == "cuda" else torch.device("cpu")
    generator = torch.Generator(device)
    noise = torch.empty(states.shape, dtype=torch.float32, device=device)
    for image, key in zip(noise, random_keys(positions.cpu(), seed), strict=True):
        image.normal_(generator=generator.manual_seed(int(key) >> 1))
    return noise.to(states.device)
