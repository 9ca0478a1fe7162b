"""Stochastic depth that saves what it drops: a branch is computed for the images that keep it, and no others.

Huang et al. 2016, *Deep Networks with Stochastic Depth*, arXiv 1603.09382; per image and branch, as timm's drop-path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor

from brdyn.models.depth_scaling import DepthScaling


class StochasticDepthBlock(Block):
    """timm's block whose two branches are left out, in training, for each image by chance.

    What is kept is divided by the chance to be kept. Its parameters are those of timm's block.

    Attributes
    ----------
    drop_path : float
        The chance that a branch is left out, for each image and branch anew.
    """

    drop_path: float = 0.0

    def forward(self, x: Tensor, **masks: Any) -> Tensor:
        """A state `(B, N, D)` to the next."""
        if not (self.training and self.drop_path):
            return super().forward(x, **masks)
        x = self._add(x, lambda kept: self.ls1(self.attn(self.norm1(kept), **masks)))
        return self._add(x, lambda kept: self.ls2(self.mlp(self.norm2(kept))))

    def _add(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if not (self.training and self.drop_path):
            return x + branch(x)
        keeps = torch.rand(len(x)) >= self.drop_path  # on the CPU: a GPU need not be waited for
        scale = 1 / (1 - self.drop_path)
        if not keeps.any():  # so that parameters have a gradient, as other processes expect
            keeps[0], scale = True, 0.0
        rows = keeps.nonzero()[:, 0].to(x.device, non_blocking=True)
        return x.index_add(0, rows, scale * branch(x[rows]).to(x.dtype))


class ScaledBlock(StochasticDepthBlock):
    """With factors of its layer on both branches and on the output, as a Raptor's block has.

    Layers that share a block have their parts in common, and differ by the number of the layer alone.

    Attributes
    ----------
    depth : DepthScaling
    layer : int
        That the factors are of, from 1.
    """

    depth: DepthScaling
    layer: int

    def forward(self, x: Tensor, **masks: Any) -> Tensor:
        """A state `(B, N, D)` to the next."""
        attention, mlp, output = self.depth.of_layer(self.layer)
        x = self._add(x, lambda kept: attention * self.ls1(self.attn(self.norm1(kept), **masks)))
        return output * self._add(x, lambda kept: mlp * self.ls2(self.mlp(self.norm2(kept))))

    def share(self, other: ScaledBlock) -> None:
        """Take the parts of another layer's block for its own."""
        for name, part in other.named_children():
            setattr(self, name, part)
