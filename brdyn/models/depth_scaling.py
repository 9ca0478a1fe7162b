"""Factors by which a block that several layers share knows at which of them it is. BRH, method notes section 4."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEPTH_HIDDEN = 16
FACTORS = 3  # on the attention branch, on the MLP branch, on the output


class DepthScaling(nn.Module):
    """Three per-channel factors from the 1-based index of the layer: an MLP 1 -> 16 -> 3 D with SiLU, plus 1.

    Starts at 1 everywhere.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, DEPTH_HIDDEN)
        self.factors = nn.Linear(DEPTH_HIDDEN, FACTORS * width)
        nn.init.zeros_(self.factors.weight)
        nn.init.zeros_(self.factors.bias)

    def forward(self, layer: Tensor) -> Tensor:
        """Factors `(3, D)` of a layer, given as a tensor `(1,)`, in the precision of the weights.

        Autocast does not round them: near 1 the steps of bfloat16 are larger than what factors learn.
        """
        with torch.autocast(layer.device.type, enabled=False):
            return 1 + self.factors(nn.functional.silu(self.hidden(layer))).view(FACTORS, -1)

    def of_layer(self, layer: int) -> tuple[Tensor, ...]:
        """The three factors `(D,)` of a layer, from 1, in the precision of the weights."""
        weight = self.hidden.weight
        return self(torch.full((1,), float(layer), device=weight.device, dtype=weight.dtype)).unbind()
