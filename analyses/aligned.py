"""A teacher whose layers have their heads and hidden units in the order of one another's, before they are averaged.

The order of a layer's heads, and of its MLP's hidden units, is arbitrary: it computes the same in any. What is averaged
unit by unit should be what corresponds (Ainsworth et al., arXiv 2209.04836). Units are matched to those of one layer
of each block, by their weights, so that the sum of cosines is largest; heads, whose own axes are arbitrary too, by the
products of queries with keys and of values with the projection. For blocks as timm has them, without gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from brdyn.models import VisionTransformer
from brdyn.raptor.copied import layers_of_blocks


@torch.no_grad()
def aligned(teacher: VisionTransformer, assignment: Sequence[int], references: Sequence[int]) -> VisionTransformer:
    """A copy that computes the same, where the layers of each block are ordered as its reference layer, from 1, is."""
    copied = deepcopy(teacher)
    for layers, reference in zip(layers_of_blocks(assignment), references, strict=True):
        for layer in layers:
            reorder(copied.blocks[layer - 1], teacher.blocks[reference - 1], teacher.info.heads)
    return copied


def reorder(block: Any, as_in: Any, heads: int) -> None:
    """Order a block's hidden units and heads as another's."""
    first, second = block.mlp.fc1, block.mlp.fc2
    order = matched(_units(as_in.mlp), _units(block.mlp))
    for tensor in (first.weight, first.bias):
        tensor.copy_(tensor[order])
    second.weight.copy_(second.weight[:, order])
    order = matched(_heads(as_in.attn, heads), _heads(block.attn, heads))
    for tensor in (block.attn.qkv.weight, block.attn.qkv.bias):
        each = tensor.unflatten(0, (3, heads, -1))
        tensor.copy_(each[:, order].flatten(0, 2))
    projection = block.attn.proj.weight
    projection.copy_(projection.unflatten(1, (heads, -1))[:, order].flatten(1))


def matched(wanted: Tensor, found: Tensor) -> Tensor:
    """Which row of `found` goes where: rows `(n, features)`, each to one of `wanted`."""
    similar = functional.normalize(wanted) @ functional.normalize(found).T
    return torch.from_numpy(linear_sum_assignment(similar.cpu().numpy(), maximize=True)[1]).to(wanted.device)


def _units(mlp: Any) -> Tensor:
    """Of each hidden unit what it reads and what it writes."""
    return torch.cat([mlp.fc1.weight, mlp.fc2.weight.T], dim=1)


def _heads(attention: Any, heads: int) -> Tensor:
    """Of each head the two products that it computes with, of equal size."""
    queries, keys, values = attention.qkv.weight.unflatten(0, (3, heads, -1))
    written = attention.proj.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
    products = (torch.einsum("hdi,hdj->hij", *pair).flatten(1) for pair in ((queries, keys), (values, written)))
    return torch.cat([functional.normalize(one) for one in products], dim=1)
