"""Measures that keep a bounded sample of the tokens they see."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchmetrics import Metric


class SamplingMetric(Metric):
    """Base of the measures that keep some tokens in lists, joined over processes.

    torchmetrics gathers a list only where it is not empty, and a process may have had no images.
    """

    full_state_update = False

    @abstractmethod
    def no_rows(self) -> Mapping[str, Tensor]:
        """For each list, a tensor without rows but of the right shape and type."""

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the state of all processes."""
        for name, nothing in self.no_rows().items():
            if not len(getattr(self, name)):
                setattr(self, name, [nothing.to(self.device)])
        super().sync(*args, **kwargs)


def rows_in(state: list[Tensor] | Tensor) -> int:
    """Rows of a list state, which synchronising joins to one tensor."""
    return sum(map(len, state)) if isinstance(state, list) else len(state)
