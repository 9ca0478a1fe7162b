"""Networks to train from scratch, by name: ViTs from timm, ResNets from torchvision. Method notes, section 7."""

from __future__ import annotations

from dataclasses import replace

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from brdyn.classification.sizes import RESNETS, VITS
from brdyn.classification.stochastic_depth import StochasticDepthBlock
from brdyn.errors import UsageError
from brdyn.models.base import check_image_size

PUBLISHED_MILLIONS = {"vit-small": 16.9, "vit-base": 85.1, "vit-large": 302.4}
"""Parameters as published, for ten classes."""


def build(
    name: str, classes: int, image_size: int, *, drop_path: float = 0.0, dropout: float = 0.0, **sizes: int
) -> nn.Module:
    """A network that maps normalised images `(B, 3, H, W)` to class scores `(B, classes)`.

    Parameters
    ----------
    name : str
        One of `VITS` or `RESNETS`.
    classes, image_size : int
    drop_path : float
        Chance that a branch of a layer is left out in training, the same at every layer (ViTs).
    dropout : float
        After attention and MLP (ViTs).
    **sizes
        To change in a ViT: `width`, `depth`, `heads`, `hidden`, `patch`.

    Raises
    ------
    UsageError
        If there is no such network, or it cannot be built so.
    """
    if name in RESNETS:
        import torchvision

        if drop_path or dropout or sizes:
            raise UsageError(f"{name} has neither drop-path, dropout nor other sizes")
        return getattr(torchvision.models, name)(num_classes=classes)
    if name not in VITS:
        raise UsageError(f"unknown network {name!r}; choose one of {', '.join([*VITS, *RESNETS])}")
    size = replace(VITS[name], **sizes)
    check_image_size(name, (image_size,) * 2, (size.patch,) * 2)
    if size.width % size.heads:
        raise UsageError(f"width {size.width} cannot be split among {size.heads} heads")
    for what, value in (("drop-path", drop_path), ("dropout", dropout)):
        if not 0 <= value < 1:
            raise UsageError(f"{what} {value} is not from 0 to below 1")
    network = VisionTransformer(
        img_size=image_size,
        patch_size=size.patch,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        mlp_ratio=(size.hidden + 0.5) / size.width,  # timm cuts the product off
        num_classes=classes,
        proj_drop_rate=dropout,
        block_fn=StochasticDepthBlock,
    )
    for block in network.blocks:
        block.drop_path = drop_path
    return network
