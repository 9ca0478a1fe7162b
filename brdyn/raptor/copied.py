"""Blocks that are copies of the teacher's own, the same at every layer but for corrections of low rank.

Relaxed sharing (Bae et al., arXiv 2410.20672), method notes section 10: at layer l a weight is `W + B_l A_l`, W shared
by the layers of a block. Rank 0 is a Raptor with blocks of the teacher's kind, full rank the teacher itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from brdyn.arguments import checked
from brdyn.errors import UsageError
from brdyn.models import VisionTransformer
from brdyn.runtime import in_float64

ROUNDINGS = 32  # by which a computation may differ from itself: kernels depend on where tensors lie
SEPARATOR = "/"  # instead of the dot, which names of parameters may not have


@checked
@dataclass(frozen=True, kw_only=True)
class CopyConfig:
    """Copies of the teacher's blocks.

    Attributes
    ----------
    width, heads : int
        D and the number of attention heads, as the teacher's.
    rank : int
        Of the correction of each matrix at each layer; 0 for none. With corrections, what is no matrix (biases, norms,
        LayerScale) is each layer's own.

    Examples
    --------
    >>> from brdyn.raptor import CopyConfig, Raptor
    >>> raptor = Raptor(model, [0] * 12, CopyConfig(width=192, heads=3))
    >>> raptor.block_parameters * 12 == model.block_parameters
    True
    >>> Raptor(model, [0] * 12, CopyConfig(width=192, heads=3, rank=193))
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: rank 193 is larger than the width, 192, at which nothing is shared any more
    """

    width: int
    heads: int
    rank: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.rank < 0:
            raise UsageError(f"rank {self.rank} is negative")
        if self.rank > self.width:
            raise UsageError(
                f"rank {self.rank} is larger than the width, {self.width}, at which nothing is shared any more"
            )

    def build(self, teacher: VisionTransformer, assignment: Sequence[int]) -> nn.ModuleList:
        """The shared blocks, each a copy of the teacher's at the first of its layers, without corrections yet.

        Raises
        ------
        UsageError
            If the layers of a block are not alike in the teacher.
        """
        return nn.ModuleList([CopiedBlock(teacher, layers, self.rank) for layers in layers_of_blocks(assignment)])

    def redrawn(self) -> Self:
        """As untrained blocks start: as the untrained teacher's."""
        return self


class Correction(nn.Module):
    """What one layer adds to the weights that it shares: `left @ right` for matrices, an offset for what is none."""

    def __init__(self, weights: Mapping[str, Tensor], rank: int) -> None:
        super().__init__()
        self.left, self.right, self.offset = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        for name, weight in weights.items():
            key = name.replace(".", SEPARATOR)
            if weight.ndim < 2:
                self.offset[key] = nn.Parameter(torch.zeros_like(weight))
                continue
            rows, columns = weight.flatten(1).shape
            most = min(rank, rows, columns)
            self.left[key] = nn.Parameter(weight.new_zeros(rows, most))
            self.right[key] = nn.Parameter(weight.new_zeros(most, columns))

    def added_to(self, name: str, weight: Tensor, most: int | None = None) -> Tensor:
        """The weight of this layer, with its first `most` directions or all."""
        key = name.replace(".", SEPARATOR)
        if weight.ndim < 2:
            return weight + self.offset[key]
        return weight + (self.left[key][:, :most] @ self.right[key][:most]).view_as(weight)

    @torch.no_grad()
    def fit(self, name: str, difference: Tensor) -> None:
        """Come as near to a difference of weights as the rank allows."""
        key = name.replace(".", SEPARATOR)
        if difference.ndim < 2:
            self.offset[key].copy_(difference)
            return
        most = self.left[key].shape[1]
        left, values, right = torch.linalg.svd(in_float64(difference.flatten(1)), full_matrices=False)
        self.left[key].copy_(left[:, :most] * values[:most])
        self.right[key].copy_(right[:most])


class CopiedBlock(nn.Module):
    """A teacher's block, applied at several layers.

    Parameters
    ----------
    teacher : VisionTransformer
    layers : sequence of int
        At which it is applied, from 1.
    rank : int
        Of the corrections of each layer; 0 for none.

    Attributes
    ----------
    most : int or None
        Directions of each correction that count, the largest first; None for all, 0 for a block without corrections.

    Examples
    --------
    >>> from brdyn.raptor.copied import CopiedBlock
    >>> block = CopiedBlock(model, [4, 5, 6], rank=0)
    >>> state = model.embed(next(images.batches(2)).images)
    >>> torch.equal(block(state, layer=6), model.blocks[3](state))
    True
    """

    def __init__(self, teacher: VisionTransformer, layers: Sequence[int], rank: int) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.most: int | None = None
        self.module = deepcopy(teacher.blocks[layers[0] - 1]).eval()
        check_alike(teacher, layers, self.module)
        own = dict(self.module.named_parameters())
        self.corrections = nn.ModuleDict({str(layer): Correction(own, rank) for layer in layers} if rank else {})

    def train(self, mode: bool = True) -> Self:
        """What a teacher does in training alone (dropout, stochastic depth) is no part of what it computes."""
        super().train(mode)
        self.module.eval()
        return self

    def forward(self, state: Tensor, layer: int) -> Tensor:
        """Apply the block as layer `layer`: states `(B, N, D)` to `(B, N, D)`."""
        if not self.corrections or self.most == 0:
            return self.module(state)
        correction = self.corrections[str(layer)]
        assert isinstance(correction, Correction)
        weights = {
            name: correction.added_to(name, weight, self.most) for name, weight in self.module.named_parameters()
        }
        return functional_call(self.module, weights, (state,))

    @torch.no_grad()
    def tie(self, teacher: VisionTransformer, reference: int | None) -> None:
        """Take the weights of a layer of the teacher, or the mean of all that share; correct every layer to its own.

        Parameters
        ----------
        teacher : VisionTransformer
        reference : int or None
            The layer; None for the mean.
        """
        each = {layer: dict(teacher.blocks[layer - 1].named_parameters()) for layer in self.layers}
        for name, weight in self.module.named_parameters():
            if reference is None:
                weight.copy_(torch.stack([in_float64(weights[name]) for weights in each.values()]).mean(0))
            else:
                weight.copy_(teacher.blocks[reference - 1].get_parameter(name))
            for layer, weights in each.items():
                if self.corrections:
                    correction = self.corrections[str(layer)]
                    assert isinstance(correction, Correction)
                    correction.fit(name, in_float64(weights[name]) - in_float64(weight))


def relaxed_parameters(teacher: VisionTransformer, assignment: Sequence[int], rank: int) -> int:
    """Parameters of the shared blocks with corrections of a rank.

    >>> from brdyn.raptor.copied import relaxed_parameters
    >>> relaxed_parameters(model, [0] * 12, 0) * 12 == model.block_parameters
    True
    """
    total = 0
    for layers in layers_of_blocks(assignment):
        for weight in teacher.blocks[layers[0] - 1].parameters():
            total += weight.numel()
            if rank and weight.ndim < 2:
                total += len(layers) * weight.numel()
            elif rank:
                rows, columns = weight.flatten(1).shape
                total += len(layers) * min(rank, rows, columns) * (rows + columns)
    return total


def layers_of_blocks(assignment: Sequence[int]) -> list[list[int]]:
    """The layers, from 1, at which each block is applied.

    >>> from brdyn.raptor.copied import layers_of_blocks
    >>> layers_of_blocks([0, 0, 1, 0])
    [[1, 2, 4], [3]]
    """
    return [
        [layer for layer, block in enumerate(assignment, 1) if block == number] for number in range(max(assignment) + 1)
    ]


def check_alike(teacher: VisionTransformer, layers: Sequence[int], first: nn.Module) -> None:
    """Refuse layers of which one cannot take another's weights.

    Parameters
    ----------
    teacher : VisionTransformer
    layers : sequence of int
        From 1.
    first : nn.Module
        A copy of the block of the first of them, as it evaluates: with the weights of any other it has to compute what
        that one does.

    Raises
    ------
    UsageError
        If it does not, or blocks hold no weights of their own.
    """
    if next(first.parameters(), None) is None:
        raise UsageError(
            f"the blocks of {teacher.info.name!r} hold no weights of their own that could be copied: they apply shared "
            "ones; let blocks start anew (start='random')"
        )
    for layer in layers[1:]:
        if not _takes_the_weights_of(teacher.blocks[layer - 1], first, teacher):
            raise UsageError(
                f"layers {layers[0]} and {layer} of {teacher.info.name!r} are built differently, so that neither can "
                "take the other's weights; give them different blocks, or let blocks start anew (start='random')"
            )


@torch.no_grad()
def _takes_the_weights_of(block: nn.Module, first: nn.Module, teacher: VisionTransformer) -> bool:
    weights: dict[str, Tensor] = dict(block.named_parameters())
    if {name: weight.shape for name, weight in weights.items()} != {
        name: weight.shape for name, weight in first.named_parameters()
    }:
        return False
    if "meta" in (teacher.device.type, torch.get_default_device().type):
        return True  # only laid out: nothing can be computed
    drawn = torch.randn(1, teacher.tokens.count, teacher.info.width, generator=torch.Generator().manual_seed(0))
    state = drawn.to(teacher.device, teacher.dtype)
    expected = block(state)
    error = torch.linalg.vector_norm((functional_call(first, weights, (state,)) - expected).float())
    allowed = ROUNDINGS * torch.finfo(expected.dtype).eps * torch.linalg.vector_norm(expected.float())
    return bool(error <= allowed)
