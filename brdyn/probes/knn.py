"""Weighted k-nearest neighbours on the sphere: the training-free probe of DINO (Caron et al. 2021, section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from brdyn.arguments import checked
from brdyn.choices import check_least
from brdyn.errors import UsageError
from brdyn.models.request import as_device
from brdyn.probes.features import Features, check_width

NEIGHBOURS = 20
TEMPERATURE = 0.07
CHUNK = 1024


@checked
def nearest_neighbours(
    train: Features,
    test: Tensor,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Classes of features by a vote of the nearest training features.

    Nearness is the cosine, and a neighbour at cosine c has `exp(c / temperature)` votes.

    Parameters
    ----------
    train : Features
        `n` of them.
    test : Tensor
        `(m, F)`.
    neighbours : int
        At most n.
    temperature : float
    device : torch.device

    Returns
    -------
    Tensor
        Class indices, `(m,)`, on the CPU.

    Raises
    ------
    UsageError
        If features are of another width, or a number or the device makes no sense.

    Examples
    --------
    >>> from brdyn.probes import Features, nearest_neighbours
    >>> train = Features(torch.tensor([[0.0, 1], [0, 2], [3, 0], [2, 0]]), torch.tensor([0, 0, 1, 1]))
    >>> nearest_neighbours(train, torch.tensor([[0.1, 5], [1, 0]]), neighbours=2).tolist()
    [0, 1]
    """
    check_least(1, neighbours=neighbours)
    if not 0 < temperature < float("inf"):
        raise UsageError(f"`temperature={temperature}` is not a number above 0; use for instance {TEMPERATURE}")
    check_width(train, test)
    device = as_device(device)
    bank = functional.normalize(train.values.to(device), dim=1)
    labels, found = train.labels.to(device), []
    for part in test.split(CHUNK):
        near, places = (functional.normalize(part.to(device), dim=1) @ bank.T).topk(min(neighbours, len(bank)))
        votes = torch.zeros(len(part), train.classes, device=near.device, dtype=near.dtype)
        # Relative to the nearest: the same vote, and it cannot overflow.
        votes.scatter_add_(1, labels[places], ((near - near[:, :1]) / temperature).exp())
        found.append(votes.argmax(1).cpu())
    return torch.cat(found)
