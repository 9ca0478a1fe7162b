"""What the loop trains, from what, and what it leaves: the parts a new kind of training fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor, nn

from brdyn.data import Batch, ReadReport


class Batches(Protocol):
    """Shuffled batches: what a step sees depends on the step alone. See :mod:`brdyn.data.shuffled`."""

    batch_size: int

    @property
    def report(self) -> ReadReport | None:
        """What this process has read so far, which they add to; None where everything was read before."""

    def batches(
        self, start: int, stop: int, *, rank: int = 0, world: int = 1, pieces: int = 1, pin: bool = False
    ) -> Iterator[list[Batch]]:
        """The share of a process in steps `start` to `stop - 1`, each as `pieces` batches."""


class Task(nn.Module, ABC):
    """What is trained.

    Attributes
    ----------
    parts : nn.ModuleDict
        Modules by name. Each has a loss of its own, and its gradients are clipped apart.
    average : mapping of str to Tensor
        After training with an average of the weights: that average, a state of `parts`. Validation is of it too.
    fewest : int
        Images that each piece of a batch has to have.

    Examples
    --------
    >>> from brdyn.training import Task
    >>> class Mean(Task):  # learns the mean value of the images
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.parts = torch.nn.ModuleDict({"mean": torch.nn.Linear(1, 1)})
    ...     def inputs(self, batch):
    ...         return batch.images.mean((1, 2, 3))
    ...     def forward(self, inputs, step):
    ...         return {"mean": (self.parts["mean"](inputs[:, None] * 0)[:, 0] - inputs).square()}
    >>> task = Mean()
    >>> task(task.inputs(next(images.batches(4))), step=0)["mean"].shape
    torch.Size([4])
    """

    parts: nn.ModuleDict
    average: Mapping[str, Tensor] = MappingProxyType({})
    fewest: int = 1

    @abstractmethod
    def inputs(self, batch: Batch) -> Any:
        """What :meth:`forward` needs of a batch, made without gradients: a teacher's states, for instance."""

    @abstractmethod
    def forward(self, inputs: Any, step: int) -> dict[str, Tensor]:
        """The loss of each image `(B,)`, by part."""

    @property
    def goes_onward(self) -> bool:
        """Whether :meth:`onward` may ask for another step. That one may leave out parameters of the first."""
        return type(self).onward is not Task.onward

    def onward(self, inputs: Any) -> Tensor | None:
        """After :meth:`forward`: how much each image asks for another step on the same inputs, `(B,)` from 0 to 1.

        Another is taken where the mean over the images of all processes is above one half. None: never. What it begins
        with, :meth:`forward` has left in the inputs.
        """
        return None

    def validate(self) -> dict[str, float]:
        """Numbers to watch; empty for none."""
        return {}


@dataclass
class History:
    """What a stage of training has seen.

    Attributes
    ----------
    losses : list of dict
        `step`, learning rate `lr`, and the mean loss of each part since the last row.
    validation : list of dict
        `step` and the numbers of :meth:`Task.validate`.
    images : int
        That this process has seen, in all sessions.
    seconds : float
        Spent on training in all sessions, validation and checkpoints left out.
    images_per_second : float
        Over all processes and sessions.

    Examples
    --------
    >>> from brdyn.training import History
    >>> history = History(losses=[{"step": 20.0, "lr": 1e-3, "block 1": 0.5}], images=1280, seconds=10.0)
    >>> history.losses[-1]["block 1"]
    0.5
    """

    losses: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
