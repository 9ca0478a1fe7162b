"""Which layers of a network that is trained from scratch are one block. Importing it needs no torch.

Weights shared from the start, as of Liao and Poggio (arXiv 1604.03640) and, of ViTs with a single block, bViT (arXiv
2605.10661); what a Raptor shares is distilled instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from brdyn.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

SEQUENCE, CYCLE = "sequence", "cycle"


def assignment_of(blocks: int, partition: str, layers: int) -> tuple[int, ...]:
    """The block of each layer, from 0.

    Parameters
    ----------
    blocks : int
        k; 0 for one to each layer, or as many as a list in `partition` has.
    partition : str
        `sequence`: runs of equal length, 0 0 0 1 1 1; `cycle`: in turn, 0 1 0 1 0 1; or the block of each layer, as
        `0,0,1,2,2,0`.
    layers : int
        L.

    Raises
    ------
    UsageError
        If there are more blocks than layers, k does not divide L where a partition needs that, or a list has not L
        numbers that use each block from 0 on.

    Examples
    --------
    >>> from brdyn.classifiers.sharing import assignment_of
    >>> assignment_of(2, "sequence", 6), assignment_of(2, "cycle", 6), assignment_of(0, "0,1,0", 3)
    ((0, 0, 0, 1, 1, 1), (0, 1, 0, 1, 0, 1), (0, 1, 0))
    """
    if partition not in (SEQUENCE, CYCLE):
        return _listed(blocks, partition, layers)
    if not 0 <= blocks <= layers:
        raise UsageError(f"{blocks} shared blocks for {layers} layers: there are 1 to {layers}, or 0 for no sharing")
    number = blocks or layers
    if layers % number:
        raise UsageError(
            f"{number} shared blocks do not divide {layers} layers, as the partition {partition!r} needs; choose "
            "another number, or give the block of each layer: `partition=0,0,1,…`"
        )
    if partition == SEQUENCE:
        return tuple(layer * number // layers for layer in range(layers))
    return tuple(layer % number for layer in range(layers))


def share_stages(stages: Iterable[nn.Sequential]) -> None:
    """Let the residual blocks of each stage of a ResNet share their convolutions.

    Of those at the same place of a block, all of equal shape and stride become the first: of a stage's blocks after its
    first all, and of the first what does not halve the image. Every block keeps normalisations of its own, since what a
    convolution gives has other statistics each time that it is applied (Liao and Poggio normalise each time apart).

    Parameters
    ----------
    stages : iterable of nn.Sequential
        Of torchvision's blocks.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from brdyn.classifiers.sharing import share_stages
    >>> network = resnet18()
    >>> share_stages([network.layer2])
    >>> first, second = network.layer2
    >>> first.conv1 is second.conv1, first.conv2 is second.conv2, first.bn2 is second.bn2
    (False, True, False)
    """
    for stage in stages:
        shared: dict[Any, nn.Module] = {}
        for block in stage:
            for name in ("conv1", "conv2", "conv3"):
                if (own := getattr(block, name, None)) is not None:
                    like = name, own.weight.shape, own.stride
                    setattr(block, name, shared.setdefault(like, own))


def _listed(blocks: int, text: str, layers: int) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"partition {text!r} is neither {SEQUENCE!r} nor {CYCLE!r} nor the block of each layer, as 0,0,1"
        ) from None
    if len(numbers) != layers:
        raise UsageError(
            f"the partition {text!r} is of {len(numbers)} layers, and the network has {layers}; give the block of each"
        )
    used = sorted(set(numbers))
    if used != list(range(len(used))):
        raise UsageError(f"the partition {text!r} does not number its blocks 0, 1, …; leave no number out")
    if blocks not in (0, len(used)):
        raise UsageError(f"the partition {text!r} has {len(used)} blocks, and {blocks} are asked for; drop either")
    return numbers
