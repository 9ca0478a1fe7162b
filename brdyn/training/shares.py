"""A batch shared among processes, and in each of them among pieces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from brdyn.errors import UsageError
from brdyn.training.task import Task
from brdyn.words import counted


def check_shares(task: Task, batch_size: int, processes: int, pieces: int) -> None:
    """Refuse a batch that is too small for the processes, or whose pieces are for the network.

    Raises
    ------
    UsageError
        With what to change.
    """
    if batch_size < processes:
        raise UsageError(
            f"a batch of {batch_size} cannot be shared among {processes} processes; give a larger `batch_size`"
        )
    if batch_size < task.fewest * processes * pieces:
        raise UsageError(
            f"batch normalisation needs two images at once, and of a batch of {batch_size} in "
            f"{counted(pieces, 'piece')} and {counted(processes, 'process')} there may be one; give a larger "
            "`batch_size`, or a smaller `accumulate`; of larger images one will do"
        )


def fewest_at_once(network: nn.Module, image: Tensor) -> int:
    """Images that a network can learn from at once: two where it normalises a single value a channel of one.

    Parameters
    ----------
    network : nn.Module
    image : Tensor
        `(1, C, H, W)`; its values decide nothing.

    Examples
    --------
    >>> from torch import nn
    >>> from brdyn.training.shares import fewest_at_once
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4))
    >>> [fewest_at_once(network, torch.zeros(1, 3, size, size)) for size in (4, 8)]
    [2, 1]
    """
    values: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given: values.append(given[0][:, 0].numel()))
        for module in network.modules()
        if isinstance(module, _BatchNorm)
    ]
    if hooks:
        learns = network.training
        with torch.no_grad():
            network.eval()(image)
        network.train(learns)
    for hook in hooks:
        hook.remove()
    return 2 if 1 in values else 1


def among_processes(task: Task) -> DistributedDataParallel:
    """A task, on its device, whose gradients are averaged over the processes; without inputs it has no loss.

    What no process uses in a step has no gradient, as in one process alone.
    """
    return DistributedDataParallel(_MayIdle(task), find_unused_parameters=task.goes_onward)


class _MayIdle(nn.Module):
    """A task; a process without images has a loss of zero, by which its parameters have gradients as others expect."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, inputs: Any, step: int) -> dict[str, Tensor]:
        if inputs is not None:
            return self.task(inputs, step)
        learning = [parameter.sum() for parameter in self.task.parameters() if parameter.requires_grad]
        return dict.fromkeys(self.task.parts, 0 * torch.stack(learning).sum())
