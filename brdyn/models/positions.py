"""Fitting a table of learned positions to another patch grid.

DINOv2 weights are trained on 37x37 patches and used at other sizes; how the table is resampled
changes the features (method notes, section 8). Facebook's code has two rules, timm another,
transformers a fourth. brdyn names the rule it used in every result.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, prod

import torch
from torch import Tensor
from torch.nn import functional

from brdyn.errors import BrdynError

Size = tuple[int, int]


@dataclass(frozen=True)
class PositionRule:
    """One way to resample a position table.

    Attributes
    ----------
    description : str
        What is written into results.
    antialias : bool
        Low-pass filter when the grid shrinks.
    offset : float
        If not zero, resample by the scale factor `(new + offset) / old` instead of by size.
    mode : str
        Of :func:`torch.nn.functional.interpolate`.
    crop : bool
        Whether to resample to a square of the longer side and keep its upper left part.
    """

    description: str
    antialias: bool
    offset: float = 0.0
    mode: str = "bicubic"
    crop: bool = False

    def resample(self, table: Tensor, grid: Size) -> Tensor:
        """Resample a square table of patch positions `(1, M * M, D)` to `(1, H * W, D)`.

        Raises
        ------
        BrdynError
            If the table is not square.
        """
        side = isqrt(table.shape[1])
        if side * side != table.shape[1]:
            raise BrdynError(f"a table of {table.shape[1]} patch positions is not square")
        if grid == (side, side):
            return table
        square = table.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if self.offset:
            scale = [(new + self.offset) / side for new in grid]
            resampled = functional.interpolate(square, scale_factor=scale, mode=self.mode, antialias=self.antialias)
        else:
            size = (max(grid), max(grid)) if self.crop else grid
            resampled = functional.interpolate(square, size=size, mode=self.mode, antialias=self.antialias)
            resampled = resampled[..., : grid[0], : grid[1]]
        if tuple(resampled.shape[-2:]) != tuple(grid):
            raise BrdynError(f"positions of a {side}x{side} grid could not be resampled to {grid[0]}x{grid[1]}")
        return resampled.permute(0, 2, 3, 1).reshape(1, prod(grid), -1).to(table.dtype)


FACEBOOK_DINOV2 = PositionRule(
    "Facebook DINOv2: bicubic by scale factor, offset 0.1, no antialias", antialias=False, offset=0.1
)
FACEBOOK_DINOV2_REGISTERS = PositionRule("Facebook DINOv2 with registers: bicubic by size, antialias", antialias=True)
FACEBOOK_DINO = PositionRule(
    "Facebook DINO: bicubic by scale factor, offset 0.1, no antialias", antialias=False, offset=0.1
)
TIPSV2 = PositionRule("transformers, TIPSv2: bilinear by size, antialias", antialias=True, mode="bilinear")
RADIO = PositionRule(
    "transformers, RADIO: bilinear by size to the longer side, cropped, no antialias",
    antialias=False,
    mode="bilinear",
    crop=True,
)
BY_SIZE = PositionRule("bicubic by size, no antialias", antialias=False)

TIMM = "timm: bicubic by size, antialias"
TRANSFORMERS = "transformers: bicubic by size, no antialias"
ROTARY = "rotary, computed for the patch grid"
RELATIVE = "relative position bias, resampled by timm to the patch grid"
NONE = "none"


def resample_with_prefix(table: Tensor, grid: Size, rule: PositionRule, prefix: int) -> Tensor:
    """Resample the patch part of a table `(1, prefix + M * M, D)` and keep its prefix."""
    patches = rule.resample(table[:, prefix:], grid)
    return torch.cat([table[:, :prefix], patches], dim=1) if prefix else patches
