"""Small ViTs with stochastic depth that saves what it drops: a branch runs for the images that keep it, and no others.

Huang et al. 2016, *Deep Networks with Stochastic Depth*, arXiv 1603.09382; per image and branch, as timm's drop-path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from brdyn.errors import UsageError
from brdyn.models.base import check_image_size


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
        keeps = torch.rand(len(x)) >= self.drop_path  # on the CPU: a GPU need not be waited for
        scale = 1 / (1 - self.drop_path)
        if not keeps.any():  # so that parameters have a gradient, as other processes expect
            keeps[0], scale = True, 0.0
        rows = keeps.nonzero()[:, 0].to(x.device, non_blocking=True)
        return x.index_add(0, rows, scale * branch(x[rows]).to(x.dtype))


def small_vit(
    name: str,
    classes: int,
    image_size: int,
    *,
    width: int,
    depth: int,
    heads: int,
    hidden: int,
    patch: int,
    drop_path: float,
    dropout: float,
) -> VisionTransformer:
    """timm's ViT with a cls token and learned positions; `name` is for messages.

    Raises
    ------
    UsageError
        If it cannot be built so.
    """
    check_image_size(name, (image_size,) * 2, (patch,) * 2)
    if width % heads:
        raise UsageError(f"width {width} cannot be split among {heads} heads")
    for what, value in (("drop-path", drop_path), ("dropout", dropout)):
        if not 0 <= value < 1:
            raise UsageError(f"{what} {value} is not from 0 to below 1")
    network = VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=(hidden + 0.5) / width,  # timm cuts the product off
        num_classes=classes,
        proj_drop_rate=dropout,
        block_fn=StochasticDepthBlock,
    )
    for block in network.blocks:
        block.drop_path = drop_path
    return network
